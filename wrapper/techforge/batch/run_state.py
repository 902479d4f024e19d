"""The state of a run: how many rows are in each state, what keeps it from making progress, its tasks."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from attrs import define, evolve, field

from techforge._logging import logger
from techforge.batch.ledger import Entry, Ledger, State
from techforge.batch.wording import counted
from techforge.batch.writer import Writer
from techforge.errors import RateLimitError, TechForgeError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from techforge._session import AsyncSession
    from techforge.batch.changes import Change
    from techforge.batch.options import Options


class NoProgressError(TechForgeError):
    """A run that gave up: nothing succeeded for `give_up_after` seconds.

    `error` is the last failure, `pending` the number of rows that are left. Run the campaign again to
    continue.
    """

    def __init__(self, seconds: float, problem: str, pending: int, error: Exception | None) -> None:
        super().__init__(
            f"nothing succeeded for {seconds:.0f} s, so the run ended; {counted(pending, 'row')} "
            f"{'is' if pending == 1 else 'are'} still pending. The last problem: {problem}"
        )
        self.pending, self.error = pending, error


@define
class RunState:
    """What the parts of a run share: they read it, count in it, and start their tasks with it."""

    session: AsyncSession
    ledger: Ledger
    options: Options
    counts: dict[State, int] = field(init=False, factory=dict[State, int])
    """How many rows are in each state."""
    made: int = field(init=False, default=0)
    """Jobs that this run has submitted."""
    failures: int = field(init=False, default=0)
    """Rows that have failed in this run."""
    problem: str = field(init=False, default="")
    """What keeps the run from making progress, if anything does."""
    error: Exception | None = field(init=False, default=None)
    """The failure behind the problem."""
    _failing_since: float | None = field(init=False, default=None)
    _next_attempt: float = field(init=False, default=0.0)
    is_stopped: bool = field(init=False, default=False)
    """Whether nothing more is begun."""
    _writer: Writer = field(init=False)
    _ends: deque[float] = field(init=False, factory=lambda: deque(maxlen=1000))
    _ended: asyncio.Queue[Entry | None] = field(init=False, factory=asyncio.Queue[Entry | None])
    _tasks: set[asyncio.Task[None]] = field(init=False, factory=set[asyncio.Task[None]])
    _failed: BaseException | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self.counts.update(self.ledger.counts())
        self._writer = Writer(self.ledger)

    @property
    def rate(self) -> float:
        """Rows that have ended in a second, of late."""
        if len(self._ends) < 2:
            return 0.0
        return len(self._ends) / max(time.monotonic() - self._ends[0], 0.001)

    @property
    def limit(self) -> float | None:
        """Requests a second that the API was found, or is said, to allow; None if that is not known."""
        rate = self.session.settings.limiter.rate
        return None if math.isinf(rate) else rate

    @property
    def eta(self) -> float | None:
        """Seconds until all rows have ended, at the rate of late; None if there is none."""
        open_states = State.PENDING, State.POSTING, State.SUBMITTED
        left = sum(self.counts[state] for state in open_states)
        return left / self.rate if self.rate else None

    def stop(self) -> None:
        """Submit nothing more; what is under way is brought to an end."""
        self.is_stopped = True

    def failed_attempt(self, error: Exception, problem: str, pause: float) -> None:
        """Note a failure that other rows will meet as well, and the seconds until the next attempt."""
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
            if not isinstance(error, RateLimitError):  # which is what a full rate looks like
                logger.warning("%s", problem)
        if problem != self.problem or now >= self._next_attempt:
            self._next_attempt = now + pause
        self.problem, self.error = problem, error

    def made_progress(self) -> None:
        """Note that the API did what it was asked for."""
        self.problem, self.error, self._failing_since = "", None, None

    @property
    def next_attempt(self) -> float | None:
        """Seconds until the next attempt, while there is a problem."""
        return max(0.0, self._next_attempt - time.monotonic()) if self.error else None

    def check_progress(self) -> None:
        """End the run if nothing has succeeded for too long."""
        limit, since = self.options.give_up_after, self._failing_since
        if limit is not None and since is not None and time.monotonic() - since >= limit:
            raise NoProgressError(limit, self.problem, self.counts[State.PENDING], self.error)

    def is_spent(self) -> bool:
        """Tell whether the run has submitted, or failed, as often as it may."""
        options = self.options
        spent = options.max_jobs is not None and self.made >= options.max_jobs
        return spent or (options.max_failures is not None and self.failures >= options.max_failures)

    @property
    def is_busy(self) -> bool:
        """Whether rows are being submitted or looked at."""
        return bool(self._tasks)

    async def is_waiting(self) -> bool:
        """Tell whether there are jobs to be looked at, now or later."""
        since = self.ledger.now() - self.options.job_timeout
        return await asyncio.to_thread(self.ledger.is_waiting, since)

    def start(
        self, work: Coroutine[Any, Any, None], release: Callable[[], None], among: set[int], n: int
    ) -> None:
        """Work at a row in a task of its own, which is `among` others until its end; then call `release`."""

        def over(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            among.discard(n)
            release()
            if not task.cancelled() and (error := task.exception()) is not None:
                self.fail(error)

        among.add(n)
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(over)

    def fail(self, error: BaseException) -> None:
        """Begin nothing more, and let the caller hear why: a disk that is full, or a bug."""
        self._failed = self._failed or error
        self.is_stopped = True
        self._ended.put_nowait(None)

    async def write(self, change: Change) -> bool:
        """Carry out a change; False if the row was not as it must be."""
        return await self._writer(change)

    async def change(self, change: Change, before: State, after: State) -> bool:
        """Carry out a change, and count it; False if the row was not as it must be."""
        if not await self.write(change):
            return False
        self.counts[before] -= 1
        self.counts[after] += 1
        return True

    def tell(self, row: Entry, state: State, **changes: Any) -> None:
        """Hand a row out that has ended."""
        self._ends.append(time.monotonic())
        self._ended.put_nowait(evolve(row, state=state, ended_at=self.ledger.now(), **changes))
