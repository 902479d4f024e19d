"""A clock that skips sleeps, and clients that use it."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any

from attrs import evolve

from techforge import AsyncTechForge, TechForge, _flow
from techforge._config import ClientOptions, Settings
from techforge._drivers.aio import AsyncDriver
from techforge._drivers.sync import SyncDriver
from techforge._session import AsyncSession, Session, client_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Unpack


class Clock:
    """A clock that stands still, and jumps to the end of each sleep.

    `now` is in seconds. `sleeps` are the sleeps so far, in order.

    Args:
        base: The time that passes in addition to sleeps, for example `time.monotonic`. By default none does.

    >>> clock = Clock()
    >>> clock.jump(15.0)
    >>> clock.now, clock.sleeps
    (15.0, [15.0])
    """

    def __init__(self, base: Callable[[], float] = lambda: 0.0) -> None:
        self.sleeps: list[float] = []
        self._base = base
        self._jumped = 0.0
        self._lock = Lock()

    @property
    def now(self) -> float:
        """The time in seconds since the start of the clock."""
        return self._base() + self._jumped

    def __call__(self) -> float:
        """Return `now`, as `time.monotonic` would."""
        return self.now

    def jump(self, seconds: float, since: float | None = None) -> None:
        """Skip a sleep.

        Args:
            seconds: The length of the sleep.
            since: When the sleep began, by default now.
        """
        with self._lock:
            self.sleeps.append(seconds)
            end = (self.now if since is None else since) + seconds
            self._jumped += max(0.0, end - self.now)


class JumpingDriver(SyncDriver):
    """A sync driver that skips sleeps."""

    clock: Clock

    def _carry_out(self, command: _flow.Command, streams: list[Any]) -> object:
        if isinstance(command, _flow.Sleep):
            # This raises if the client is closed.
            super()._carry_out(_flow.Sleep(0.0), streams)
            self.clock.jump(command.seconds)
            return None
        return super()._carry_out(command, streams)


class AsyncJumpingDriver(AsyncDriver):
    """An async driver that skips sleeps."""

    clock: Clock

    async def _sleep(self, seconds: float) -> None:
        since = self.clock.now
        # This raises if the client is closed. It also lets other tasks run, which may start to sleep, too.
        await super()._sleep(0.0)
        self.clock.jump(seconds, since)


def client_with(
    clock: Clock, api_key: str, driver: JumpingDriver | None = None, **options: Unpack[ClientOptions]
) -> TechForge:
    """Return a sync client that uses this clock."""
    driver = driver or JumpingDriver(None)
    driver.clock = clock
    return client_of(TechForge, Session(_settings(clock, api_key, options), driver))


def async_client_with(
    clock: Clock, api_key: str, driver: AsyncJumpingDriver | None = None, **options: Unpack[ClientOptions]
) -> AsyncTechForge:
    """Return an async client that uses this clock."""
    driver = driver or AsyncJumpingDriver(None)
    driver.clock = clock
    return client_of(AsyncTechForge, AsyncSession(_settings(clock, api_key, options), driver))


def _settings(clock: Clock, api_key: str, options: ClientOptions) -> Settings:
    return evolve(Settings.build(api_key, options), now=clock)
