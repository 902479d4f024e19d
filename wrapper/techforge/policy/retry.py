"""Whether to retry a failed request, and when."""

from attrs import frozen

from techforge.errors import Outcome
from techforge.policy.lock import lock


@frozen(kw_only=True)
class RetryPolicy:
    """Decides whether a failed request is retried, and after how many seconds.

    Pauses are an exponential backoff with full jitter, and at least as long as `Retry-After`. If the
    pause exceeds the remaining time, the request fails at once.

    >>> policy = RetryPolicy()
    >>> policy.delay(Outcome.UNKNOWN, repeatable=False, retries=0, elapsed=0, retry_after=None, jitter=0.5)
    >>> policy.delay(Outcome.REFUSED, repeatable=False, retries=0, elapsed=0, retry_after=30, jitter=0.5)
    30
    """

    max_retries: int = 2
    retry_timeout: float = 120.0
    resubmit_on_server_error: bool = True
    backoff_initial: float = 0.5
    backoff_max: float = 8.0

    def delay(
        self,
        outcome: Outcome,
        *,
        repeatable: bool,
        retries: int,
        elapsed: float,
        retry_after: float | None,
        jitter: float,
    ) -> float | None:
        """Return the seconds to sleep before the next attempt, or None to give up.

        `repeatable` is False for a request that must not be processed twice. `retries` counts the retries
        so far, `elapsed` the seconds since the first attempt. `jitter` is a random number from 0 to 1.
        """
        if retries >= self.max_retries or not self._may_repeat(outcome, repeatable=repeatable):
            return None
        # 2.0 ** 1024 would overflow.
        backoff = jitter * min(self.backoff_max, self.backoff_initial * 2 ** min(retries, 32))
        delay = max(backoff, retry_after or 0.0)
        return delay if elapsed + delay < self.retry_timeout else None

    def _may_repeat(self, outcome: Outcome, *, repeatable: bool) -> bool:
        if outcome is Outcome.SERVER_FAILED:
            return repeatable or self.resubmit_on_server_error
        if outcome is Outcome.UNKNOWN:
            return repeatable
        return outcome in {Outcome.NOT_SENT, Outcome.REFUSED}


class RetryBudget:
    """Limits the retries of all calls of a client together.

    Each call deposits a tenth of a retry. Once the reserve is spent, calls to a dead backend therefore
    cost about 1.1 requests each, however many callers there are. Safe to share between threads and tasks.

    >>> budget = RetryBudget(reserve=1)
    >>> budget.withdraw(), budget.withdraw()
    (True, False)
    """

    _DEPOSIT = 0.1

    def __init__(self, reserve: float = 100.0) -> None:
        self._reserve = reserve
        self._tokens = reserve

    def deposit(self) -> None:
        """Add a tenth of a retry for a new call."""
        with lock:
            self._tokens = min(self._reserve, self._tokens + self._DEPOSIT)

    def withdraw(self) -> bool:
        """Take one retry. Return False if none is left."""
        with lock:
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True
