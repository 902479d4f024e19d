"""When to ask again, and when not."""

from attrs import frozen

from techforge.errors import Outcome
from techforge.policy.lock import lock


@frozen(kw_only=True)
class RetryPolicy:
    """Whether a failed request may be sent again, and after how many seconds.

    Exponential backoff with full jitter. A `Retry-After` is obeyed in full, or not at all: where it
    does not fit into the time that is left, the request fails at once.

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
        """Return the seconds to sleep before the next try, None to give up.

        `repeatable` is False for a request that must not be carried out twice, `retries` the number
        done so far, `elapsed` the seconds since the first try, `jitter` a number from 0 to 1.
        """
        if retries >= self.max_retries or not self._may_repeat(outcome, repeatable=repeatable):
            return None
        # The exponent is bounded because 2.0 ** 1024 overflows.
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
    """How many retries all calls of a client may spend together.

    Each call pays in a tenth of a retry, so that a dead backend costs about 1.1 requests a call once
    the reserve is spent, however many callers there are. Safe to share between threads and tasks.

    >>> budget = RetryBudget(reserve=1)
    >>> budget.withdraw(), budget.withdraw()
    (True, False)
    """

    _DEPOSIT = 0.1

    def __init__(self, reserve: float = 100.0) -> None:
        self._reserve = reserve
        self._tokens = reserve

    def deposit(self) -> None:
        """Count a new call."""
        with lock:
            self._tokens = min(self._reserve, self._tokens + self._DEPOSIT)

    def withdraw(self) -> bool:
        """Take one retry out; False if there is none left."""
        with lock:
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True
