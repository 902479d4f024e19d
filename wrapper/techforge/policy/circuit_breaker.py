"""The circuit breaker: stop submitting while responses leave it unknown whether jobs are created."""

import math
import os

from attrs import define

from techforge.policy.lock import lock

DOUBTFUL_IN_A_ROW = 5
"""Open after this many doubtful responses in a row.

If one response in a hundred is doubtful, this happens once in ten billion submissions. In an outage, five
rows are few compared with those in flight.
"""
MIN_PAUSE, MAX_PAUSE = 1.0, 60.0
"""First and longest backoff, in seconds. It doubles with each failed trial; a `Retry-After` may be longer."""
MAX_RECOVERY = 32
"""After this many successes in flight at once, the outage is over."""
TRIAL_WAIT = 0.25
"""While another submission tries whether the API works, ask again after this many seconds."""


@define(eq=False)
class Permit:
    """The permission of one call to submit. A call takes it anew for each attempt."""

    epoch: int = -1
    in_flight: bool = False


class CircuitBreaker:
    """A circuit breaker for submissions, shared by all threads and tasks of a client.

    A response is doubtful if a job may exist although the API did not accept it: a broken connection, a 5xx,
    a redirect, an HTML page. After five in a row, nothing is submitted. After a pause, one caller checks the
    API with a free request and submits one job. Each success then allows one more in flight, so an outage
    that is not over costs few submissions. A doubtful response starts the pause again.

    >>> breaker = CircuitBreaker()
    >>> for _ in range(5):
    ...     permit = Permit()
    ...     assert breaker.acquire(permit, now=0.0) == 0
    ...     breaker.record_doubtful(permit, 0.0, None, jitter=1.0, problem="503")
    >>> breaker.acquire(Permit(), now=0.25), breaker.acquire(Permit(), now=1.0), breaker.must_check
    (0.75, 0.0, True)
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._doubtful = 0
        self._openings = 0
        # Responses to what was sent before the last opening say nothing about the API after it.
        self._epoch = 0
        self._paused_until = -math.inf
        self._allowed = math.inf
        self._in_flight = 0
        self.problem = ""
        """The last doubtful response, while submissions are paused; otherwise empty."""

    @property
    def must_check(self) -> bool:
        """Whether a caller with a permit must check the API with a free request before it submits."""
        return self._allowed <= 1

    def acquire(self, permit: Permit, now: float) -> float:
        """Take a permit. Return 0.0, or the seconds to wait before calling again."""
        with lock:
            self._reset_after_fork()
            self.release(permit)
            wait = self.wait(now)
            if not wait:
                self._in_flight += 1
                permit.epoch, permit.in_flight = self._epoch, True
            return wait

    def wait(self, now: float) -> float:
        """Return the seconds to wait for a permit, without taking one."""
        if now < self._paused_until:
            return self._paused_until - now
        return 0.0 if self._in_flight < self._allowed else TRIAL_WAIT

    def is_valid(self, permit: Permit) -> bool:
        """Return whether the circuit breaker has not opened since the permit was taken."""
        return permit.epoch == self._epoch

    def release(self, permit: Permit) -> None:
        """Return a permit: nothing was sent, or the response says nothing about the health of the API."""
        with lock:
            if permit.in_flight and permit.epoch == self._epoch:
                self._in_flight -= 1
            permit.in_flight = False

    def record_answered(self, permit: Permit) -> None:
        """Count a response that is not doubtful."""
        with lock:
            self.release(permit)
            if permit.epoch != self._epoch:
                return
            self._doubtful = 0
            self._recover()

    def record_doubtful(
        self, permit: Permit, now: float, retry_after: float | None, jitter: float, problem: str
    ) -> None:
        """Count a doubtful response, or a failed check. `jitter` (0 to 1) separates processes."""
        with lock:
            self.release(permit)
            if permit.epoch == self._epoch:
                self._doubtful += 1
                if self._doubtful >= DOUBTFUL_IN_A_ROW or self._allowed < math.inf:
                    self._open(now, jitter, problem)
            if self._allowed < math.inf:
                self._paused_until = max(self._paused_until, now + (retry_after or 0.0))

    def _open(self, now: float, jitter: float, problem: str) -> None:
        pause = min(MIN_PAUSE * 2 ** min(self._openings, 32), MAX_PAUSE) * (1 + jitter) / 2
        self._paused_until = max(self._paused_until, now + pause)
        self._openings += 1
        self._pause(problem)

    def _pause(self, problem: str) -> None:
        self._epoch += 1
        self._doubtful = self._in_flight = 0
        self._allowed = 1
        self.problem = problem

    def _recover(self) -> None:
        self._allowed += 1
        self.problem = ""
        if self._allowed > MAX_RECOVERY:
            self._allowed, self._openings = math.inf, 0

    def _reset_after_fork(self) -> None:
        if self._pid != os.getpid():
            self._pid, self._in_flight = os.getpid(), 0
