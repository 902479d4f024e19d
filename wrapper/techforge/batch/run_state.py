"""The state of a run: its row counts, its last problem and its tasks."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Literal

from attrs import define, evolve, field

from techforge._logging import logger
from techforge.batch.content import content_of
from techforge.batch.journal import Journal, Submission
from techforge.batch.ledger import Entry, Ledger, State
from techforge.batch.wording import counted
from techforge.batch.writer import Writer
from techforge.errors import RateLimitError, TechForgeError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from techforge._session import AsyncSession
    from techforge.batch.changes import Change
    from techforge.batch.options import Options


RECENT_JOBS = 10_000
"""Compare the id of a new job with so many earlier ones."""


class NoProgressError(TechForgeError):
    """Nothing succeeded for `give_up_after` seconds, so the run ended.

    `error` is the last failure, `pending` the number of pending rows. Run the campaign again to continue.
    """

    def __init__(self, seconds: float, problem: str, pending: int, error: Exception | None) -> None:
        super().__init__(
            f"nothing succeeded for {seconds:.0f} s, so the run ended; {counted(pending, 'row')} "
            f"{'is' if pending == 1 else 'are'} still pending. The last problem: {problem}"
        )
        self.pending, self.error = pending, error


@define
class RunState:
    """The counts, the tasks and the writer that the submitter and the reconciler of a run share."""

    session: AsyncSession
    ledger: Ledger
    options: Options
    counts: dict[State, int] = field(init=False, factory=dict[State, int])
    """Number of rows in each state."""
    submitted_count: int = field(init=False, default=0)
    """Jobs that this run submitted."""
    failures: int = field(init=False, default=0)
    """Rows that failed or became unknown in this run."""
    problem: str = field(init=False, default="")
    """Why the run makes no progress; empty if it does."""
    error: Exception | None = field(init=False, default=None)
    """The exception that caused `problem`."""
    _failing_since: float | None = field(init=False, default=None)
    _next_attempt: float = field(init=False, default=0.0)
    _recent_jobs: dict[str, str] = field(init=False, factory=dict[str, str])
    unanswered: dict[asyncio.Task[Any], str] = field(init=False, factory=dict[asyncio.Task[Any], str])
    """The tasks of claimed rows whose response is not recorded yet, with the keys of the rows."""
    is_stopped: bool = field(init=False, default=False)
    """The run starts no more submissions."""
    unrecorded: dict[str, str] = field(init=False, factory=dict[str, str])
    """Accepted jobs that the ledger could not record, by row_key."""
    journal: Journal = field(init=False)
    _writer: Writer = field(init=False)
    _end_times: deque[float] = field(init=False, factory=lambda: deque(maxlen=1000))
    _ended: asyncio.Queue[Entry | None] = field(init=False, factory=asyncio.Queue[Entry | None])
    _tasks: set[asyncio.Task[None]] = field(init=False, factory=set[asyncio.Task[None]])
    _failed: BaseException | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self.counts.update(self.ledger.counts())
        self._writer = Writer(self.ledger)
        self.journal = self.ledger.open_journal()

    @property
    def rate(self) -> float:
        """Rows that ended per second, averaged over the last 1000 rows."""
        if len(self._end_times) < 2:
            return 0.0
        return len(self._end_times) / max(time.monotonic() - self._end_times[0], 0.001)

    @property
    def limit(self) -> float | None:
        """The current rate limit in requests per second, or None if there is none yet."""
        rate = self.session.settings.limiter.rate
        return None if math.isinf(rate) else rate

    @property
    def eta(self) -> float | None:
        """Estimated seconds until all rows have ended, or None."""
        open_states = State.PENDING, State.POSTING, State.SUBMITTED
        left = sum(self.counts[state] for state in open_states)
        return left / self.rate if self.rate else None

    def stop(self) -> None:
        """Start no more submissions. Those in flight can finish."""
        self.is_stopped = True

    def record_failure(self, error: Exception, problem: str, delay: float) -> None:
        """Record a failure that affects other rows too, and the seconds until the next attempt."""
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
            if not isinstance(error, RateLimitError):  # a 429 is normal when the rate is at its limit
                logger.warning("%s", problem)
        if problem != self.problem or now >= self._next_attempt:
            self._next_attempt = now + delay
        self.problem, self.error = problem, error

    def record_progress(self) -> None:
        """Record a successful request."""
        self.problem, self.error, self._failing_since = "", None, None

    @property
    def next_attempt(self) -> float | None:
        """Seconds until the next attempt, or None if there is no problem."""
        return max(0.0, self._next_attempt - time.monotonic()) if self.error else None

    def check_progress(self) -> None:
        """Raise `NoProgressError` if nothing succeeded for `give_up_after` seconds."""
        limit, since = self.options.give_up_after, self._failing_since
        if limit is not None and since is not None and time.monotonic() - since >= limit:
            raise NoProgressError(limit, self.problem, self.counts[State.PENDING], self.error)

    def is_budget_spent(self) -> bool:
        """Return whether the run has reached `max_jobs` or `max_failures`."""
        options = self.options
        is_spent = options.max_jobs is not None and self.submitted_count >= options.max_jobs
        return is_spent or (options.max_failures is not None and self.failures >= options.max_failures)

    @property
    def is_busy(self) -> bool:
        """Submissions or polls are in flight."""
        return bool(self._tasks)

    async def has_unfinished_jobs(self) -> bool:
        """Return whether there are jobs to poll, now or later."""
        since = self.ledger.now() - self.options.job_timeout
        return await asyncio.to_thread(self.ledger.has_unfinished_jobs, since)

    def start(
        self, work: Coroutine[Any, Any, None], release: Callable[[], None], in_flight: set[int], n: int
    ) -> None:
        """Start a task for row `n`, which is in `in_flight` until the task ends. Then call `release`."""

        def on_end(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self.unanswered.pop(task, None)
            in_flight.discard(n)
            release()
            if not task.cancelled() and (error := task.exception()) is not None:
                self.fail(error)

        in_flight.add(n)
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(on_end)

    def expect_response(self, key: str) -> None:
        """Note that the current task sends a request. A run that is stopped waits for its response."""
        if (task := asyncio.current_task()) is not None:
            self.unanswered[task] = key

    def note_job(self, key: str, job_id: str) -> None:
        """Warn if the API named the same job for another row of this run."""
        other = self._recent_jobs.setdefault(job_id, key)
        if other != key:
            logger.warning(
                "the API named the same job for the rows %r and %r: %s. Only one of them gets its video. A "
                "proxy between you and the API may repeat a response",
                *(other, key, job_id),
            )
        if len(self._recent_jobs) > RECENT_JOBS:
            del self._recent_jobs[next(iter(self._recent_jobs))]

    def fail(self, error: BaseException) -> None:
        """Stop the run with an error, for example of a full disk. The caller gets the error."""
        self._failed = self._failed or error
        self.is_stopped = True
        self._ended.put_nowait(None)

    def write_journal(self, row: Entry, job_id: str | Literal[False] | None = None) -> None:
        """Note in the journal that a row is submitted, its job, or that certainly no job was created."""
        self.journal.write(Submission(row.key, content_of(row.params), row.attempts, job_id))

    async def write(self, change: Change) -> bool:
        """Apply a change. Return False if the row was in another state."""
        return await self._writer(change)

    async def change(self, change: Change, before: State, after: State) -> bool:
        """Apply a change and update the counts. Return False if the row was in another state."""
        if not await self.write(change):
            return False
        self.counts[before] -= 1
        self.counts[after] += 1
        return True

    def report_ended(self, row: Entry, state: State, **changes: Any) -> None:
        """Pass a row that has ended to the caller of the run."""
        self._end_times.append(time.monotonic())
        self._ended.put_nowait(evolve(row, state=state, ended_at=self.ledger.now(), **changes))
