"""Run a campaign with several processes, which share the rate limiter and the budgets."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Self
from uuid import uuid4

from attrs import asdict, define, evolve, field

from techforge.batch.dispatch import enqueue, log_failure
from techforge.batch.ledger import MAX_COUNT_INTERVAL, State
from techforge.batch.runner import Run
from techforge.batch.shared_limiter import SharedLimiter

if TYPE_CHECKING:
    from techforge._session import AsyncSession
    from techforge.batch.dispatch import Dispatcher
    from techforge.batch.ledger import Chunk, Ledger
    from techforge.batch.options import Options

MAINTENANCE_INTERVAL = 1.0
"""Seconds between two heartbeats of a worker."""
QUOTA_INTERVAL = 0.2
"""Seconds between two updates of the number of jobs that this worker may start."""
HEARTBEAT_TIMEOUT = 10.0
"""A worker without a heartbeat for this many seconds counts as dead."""
IDLE_TIMEOUT = 10.0
"""After this many seconds without a chunk, look for pending rows that the dispatcher lost."""
TAKE_OVER_INTERVAL = 5.0


@define
class Bounds:
    """The budget of all workers: the last row to submit, and the number of failed rows to stop at."""

    last: int | None = None
    failed: int | None = None

    @classmethod
    def load(cls, ledger: Ledger) -> Self:
        """Return the bounds that are stored in the ledger."""
        bounds: dict[str, int | None] = ledger.get_fact("bounds") or {}
        return cls(**bounds)


@define
class Worker(Run):
    """One of several processes that run a campaign."""

    dispatcher: Dispatcher = field(kw_only=True)
    stay: bool = field(kw_only=True, default=False)
    """Wait for more rows when all have ended."""
    _id: str = field(init=False, factory=lambda: uuid4().hex)
    _chunks: int = field(init=False, default=0)
    _busy_at: float = field(init=False, factory=time.monotonic)
    _take_over_at: float = field(init=False, default=0.0)
    _maintain_at: float = field(init=False, default=0.0)
    _count_at: float = field(init=False, default=0.0)
    _quota_at: float = field(init=False, default=0.0)
    _position: int = field(init=False, default=0)
    """The position of this worker among those that have rows to submit."""
    _sharer_count: int = field(init=False, default=1)
    _bounds: Bounds = field(init=False, factory=Bounds)

    async def work(self) -> None:
        """Submit the rows that the dispatcher delivers, and poll jobs, until nothing is left."""
        limiter = self.session.settings.limiter
        tasks = [asyncio.create_task(limiter.run())] if isinstance(limiter, SharedLimiter) else []
        try:
            await self._maintain()
            await self._update_quota()
            tasks.append(asyncio.create_task(self._process_chunks()))
            while not self.is_stopped:
                await self.reconciler.poll_due_jobs()
                self.check_progress()
                for task in tasks:
                    if task.done():
                        task.result()
                await self._update_quota()
                if await self._maintain():
                    return
        finally:
            self.stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def is_budget_spent(self) -> bool:
        """Return whether all workers together have reached `max_failures`."""
        limit = self._bounds.failed
        return limit is not None and self.counts[State.FAILED] + self.counts[State.UNKNOWN] >= limit

    async def _process_chunks(self) -> None:
        """Process the dispatcher's chunks. If it fails, start it again; lost chunks are found later."""
        while True:
            await log_failure(self.dispatcher.run_worker(self._process))
            await asyncio.sleep(MAINTENANCE_INTERVAL)

    async def _process(self, chunk: Chunk) -> None:
        self._chunks += 1
        try:
            last = self._bounds.last
            await self.submitter.submit(chunk.first, chunk.last if last is None else min(last, chunk.last))
        except Exception as error:  # noqa: BLE001 - the dispatcher would only log it
            self.fail(error)
        finally:
            self._chunks -= 1
            self._busy_at = time.monotonic()

    async def _maintain(self) -> bool:
        """Send a heartbeat and update the shared state. Return whether the campaign has ended."""
        started = time.monotonic()
        if started < self._maintain_at:
            return False
        self._maintain_at = started + MAINTENANCE_INTERVAL
        await asyncio.to_thread(self._send_heartbeat)
        await asyncio.to_thread(self.ledger.check_server)
        if started > self._take_over_at + TAKE_OVER_INTERVAL:
            self._take_over_at = started
            await log_failure(self.dispatcher.take_over())
        if started < self._count_at:
            return False
        await asyncio.to_thread(self._update_counts)
        # Marking claims and counting is slow in a large ledger: spend at most a tenth of the time on it.
        ended = time.monotonic()
        self._count_at = ended + min(10 * (ended - started), MAX_COUNT_INTERVAL)
        if self._chunks or self.is_busy:
            return False
        if not self.is_budget_spent() and await asyncio.to_thread(
            self.ledger.is_pending, 0, self._bounds.last
        ):
            if started > self._busy_at + IDLE_TIMEOUT:
                self._busy_at = started
                await enqueue(self.dispatcher, await asyncio.to_thread(self.ledger.chunks, self._bounds.last))
            return False
        if self.counts[State.PENDING]:
            self.problem = "the last run stopped at its budget. Continue without it: techforge batch resume"
        return not self.stay and not await self.has_unfinished_jobs()

    async def _update_quota(self) -> None:
        """Update how many jobs this worker may start, so that all workers stay within `max_outstanding`."""
        max_outstanding, now = self.options.max_outstanding, time.monotonic()
        if max_outstanding is None or now < self._quota_at:
            return
        free = max_outstanding - await asyncio.to_thread(self.ledger.unfinished_job_count)
        self.submitter.set_quota(free // self._sharer_count + (self._position < free % self._sharer_count))
        self._quota_at = now + QUOTA_INTERVAL

    def _send_heartbeat(self) -> None:
        """Record in the ledger that this worker is alive, and read which others are."""
        ledger = self.ledger

        def update(workers: dict[str, tuple[float, bool]] | None) -> dict[str, tuple[float, bool]]:
            now = ledger.now()
            alive = {
                name: beat for name, beat in (workers or {}).items() if beat[0] > now - HEARTBEAT_TIMEOUT
            }
            alive[self._id] = now, self._chunks > 0
            sharers = sorted(name for name, (_, has_rows) in alive.items() if has_rows or name == self._id)
            self._position, self._sharer_count = sharers.index(self._id), len(sharers)
            return alive

        ledger.update_fact("workers", update)
        self._bounds = Bounds.load(ledger)

    def _update_counts(self) -> None:
        self.ledger.expire_claims(self.ledger.now())
        self.counts.update(self.ledger.shared_counts())


def set_bounds(ledger: Ledger, options: Options) -> Bounds:
    """Store a run's budget as bounds for all workers: `max_jobs` becomes the number of the last row."""
    last = None if options.max_jobs is None else ledger.nth_pending(options.max_jobs)
    failed = None
    if options.max_failures is not None:
        counts = ledger.counts()
        failed = counts[State.FAILED] + counts[State.UNKNOWN] + options.max_failures
    bounds = Bounds(last, failed)
    ledger.update_fact("bounds", lambda _: asdict(bounds))
    return bounds


def with_shared_limiter(session: AsyncSession, ledger: Ledger) -> AsyncSession:
    """Return the session with the rate limiter and circuit breaker that the workers of an account share."""
    limiter = session.settings.limiter
    shared = SharedLimiter(ledger, limiter.max_rate, limiter.max_in_flight)
    return evolve(session, settings=evolve(session.settings, limiter=shared, breaker=shared.breaker))
