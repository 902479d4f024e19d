"""The circuit breaker of several workers: if one opens it, all stop, and one at a time tries again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from techforge.policy.circuit_breaker import TRIAL_WAIT, CircuitBreaker
from techforge.policy.lock import lock

if TYPE_CHECKING:
    from typing import TypeAlias

    Outage: TypeAlias = dict[str, Any]
    """The ledger's entry: the end of the pause, the problem, and which worker tries until when."""

TRIAL_LEASE = 10.0
"""A worker that tries, but has not synchronized for this many seconds, counts as dead."""


class SharedBreaker(CircuitBreaker):
    """The circuit breaker of one worker. The rate limiter synchronizes it with the ledger.

    The ledger's clock is `offset` seconds behind the clock of this process.
    """

    def __init__(self) -> None:
        super().__init__()
        self._id = uuid4().hex
        self._may_try = self._wants_to_try = False
        self._reported = (self._epoch, self.problem)

    @property
    def is_due(self) -> bool:
        """Whether the ledger should hear from this worker now."""
        return (self._epoch, self.problem) != self._reported or (self._wants_to_try and not self._may_try)

    def wait(self, now: float) -> float:
        """Return the seconds to wait for a permit, without taking one."""
        wait = super().wait(now)
        if wait or not self.must_check:
            return wait
        self._wants_to_try = True
        return 0.0 if self._may_try else TRIAL_WAIT

    def merged(self, outage: Outage | None, now: float, offset: float) -> Outage | None:
        """Return the ledger's entry after the events of this worker. `now` is the ledger's time."""
        if self.problem and self._epoch != self._reported[0]:
            until = max(self._paused_until - offset, (outage or {}).get("until", now))
            return {"until": until, "problem": self.problem, "by": None, "lease": 0.0}
        if outage is None or (outage["by"] == self._id and not self.problem):
            return None
        is_free = outage["by"] in {None, self._id} or now > outage["lease"]
        if is_free and now >= outage["until"] and (self._wants_to_try or self._in_flight):
            return outage | {"by": self._id, "lease": now + TRIAL_LEASE}
        return outage

    @property
    def reported(self) -> tuple[int, str]:
        """What `merged` reports of this worker, to pass to `adopt`."""
        return self._epoch, self.problem

    def adopt(self, outage: Outage | None, reported: tuple[int, str], offset: float) -> None:
        """Take over the ledger's entry, unless something has happened since `reported`."""
        with lock:
            if reported != (self._epoch, self.problem):
                return
            if outage is None:
                if self.problem:
                    self._recover()
                self._may_try = False
            else:
                if not self.problem:
                    self._pause(outage["problem"])
                self._paused_until = max(self._paused_until, outage["until"] + offset)
                self._may_try = outage["by"] == self._id
            self._wants_to_try = False
            self._reported = self._epoch, self.problem
