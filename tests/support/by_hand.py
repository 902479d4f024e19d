"""Carrying flows out by hand: no network, no clock, no randomness, no sleep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field

from support import contract_guard
from techforge import _flow
from techforge._config import Settings
from techforge.errors import APIConnectionError, APIError, Outcome, status_error

IMAGE = "https://cdn.example.com/image.png"
AUDIO = "https://cdn.example.com/audio.mp3"
JOB_ID = "15a6331b-3837-4ae8-8fa7-d3ead3388d77"
PROJECT_ID = "468ea7a0-66e1-4357-a760-236e54167f3e"


@define
class Clock:
    """Time that passes only when somebody sleeps, or when a test says so."""

    now: float = 1_000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@define
class ByHand:
    """A driver that answers each network command from a script, and remembers what it was asked.

    An answer is a value to return, an exception to raise, or a function of the command that does either.
    When a script has run out, its last answer repeats.
    """

    sends: list[Any] = field(factory=list)
    opens: list[Any] = field(factory=list)
    reads: list[Any] = field(factory=list)
    clock: Clock = field(factory=Clock)
    jitter: float = 0.5
    on_sleep: BaseException | None = None
    commands: list[_flow.Command] = field(factory=list)

    def settings(self, api_key: Any = "key", **options: Any) -> Settings:
        """Return settings on this driver's clock."""
        built = Settings.build(api_key, options, environ={})
        object.__setattr__(built, "now", self.clock)
        object.__setattr__(built, "random", lambda: self.jitter)
        return built

    def of(self, kind: type[Any]) -> list[Any]:
        """Return the commands of one kind, in order."""
        return [command for command in self.commands if isinstance(command, kind)]

    @property
    def slept(self) -> list[float]:
        """The seconds of each sleep."""
        return [command.seconds for command in self.of(_flow.Sleep)]

    def run(self, flow: Any) -> Any:
        """Carry a flow out to its end."""
        result: Any = None
        failure: BaseException | None = None
        while True:
            try:
                command = flow.throw(failure) if failure else flow.send(result)
            except StopIteration as stop:
                return stop.value
            result = failure = None
            self.commands.append(command)
            try:
                result = self._carry_out(command)
            except BaseException as error:  # noqa: BLE001 - as the drivers do
                failure = error

    def _carry_out(self, command: _flow.Command) -> Any:
        match command:
            case _flow.Send():
                contract_guard.by_hand(command)
                return self._answer(self.sends, command)
            case _flow.Open():
                return self._answer(self.opens, command)
            case _flow.Read():
                return self._answer(self.reads, command) if self.reads else b""
            case _flow.Sleep():
                if self.on_sleep is not None:
                    raise self.on_sleep
                self.clock.now += command.seconds
            case _flow.Invoke() | _flow.Block():
                return command.function(*command.arguments)
        return None

    @staticmethod
    def _answer(script: list[Any], command: _flow.Command) -> Any:
        answer = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(answer, Callable):  # type: ignore[arg-type]
            answer = answer(command)
        if isinstance(answer, BaseException):
            raise answer
        return answer


def answered(status: int, *, retry_after: float | None = None) -> APIError:
    """Return the error for an answer with this status."""
    return status_error(status, "", method="POST", path="/jobs/v2", retry_after=retry_after)


def lost(outcome: Outcome = Outcome.UNKNOWN) -> APIConnectionError:
    """Return the error for a request without an answer."""
    return APIConnectionError("the connection broke", outcome=outcome, method="POST", path="/jobs/v2")
