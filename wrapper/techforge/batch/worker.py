"""Running a campaign together with other processes: rows come in chunks, pace and counts are shared."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Self
from uuid import uuid4

from attrs import asdict, define, evolve, field

from techforge.batch.dispatch import enqueue, tolerated
from techforge.batch.ledger import State
from techforge.batch.runner import Run
from techforge.batch.shared_limiter import SharedLimiter

if TYPE_CHECKING:
    from techforge._session import AsyncSession
    from techforge.batch.dispatch import Dispatcher
    from techforge.batch.ledger import Chunk, Ledger
    from techforge.batch.options import Options

_TEND = 1.0
"""Seconds after which a worker looks after what all have in common."""
_SHARE = 0.2
"""Seconds after which a worker looks how many jobs it may have begun."""
_GONE = 10.0
"""Seconds after which a worker that has said nothing does not count."""
_FORGOTTEN = 10.0
"""Seconds without a chunk after which one looks whether rows were forgotten."""
_TAKE_OVER = 5.0


@define
class Bounds:
    """How far all workers together may go: the last row, and how many rows may have failed."""

    last: int | None = None
    failed: int | None = None

    @classmethod
    def kept_in(cls, ledger: Ledger) -> Self:
        """Return those that were set for all."""
        kept: dict[str, int | None] = ledger.kept("bounds") or {}
        return cls(**kept)


@define
class Worker(Run):
    """A run of a campaign by one of many processes."""

    dispatcher: Dispatcher = field(kw_only=True)
    stay: bool = field(kw_only=True, default=False)
    """Whether it waits for more rows when all have ended."""
    _id: str = field(init=False, factory=lambda: uuid4().hex)
    _chunks: int = field(init=False, default=0)
    _busy_at: float = field(init=False, factory=time.monotonic)
    _taken_at: float = field(init=False, default=0.0)
    _tend_at: float = field(init=False, default=0.0)
    _count_at: float = field(init=False, default=0.0)
    _share_at: float = field(init=False, default=0.0)
    _place: int = field(init=False, default=0)
    """Among those that have rows to submit."""
    _sharers: int = field(init=False, default=1)
    _bounds: Bounds = field(init=False, factory=Bounds)

    async def work(self) -> None:
        """Submit the rows that one is given, and look at jobs, until nothing is left."""
        limiter = self.session.settings.limiter
        beside = [asyncio.create_task(limiter.run())] if isinstance(limiter, SharedLimiter) else []
        try:
            await self._tend()
            await self._share()
            beside.append(asyncio.create_task(self._serve()))
            while not self.is_stopped:
                await self.reconciler.look()
                self.check_progress()
                for task in beside:
                    if task.done():
                        task.result()
                await self._share()
                if await self._tend():
                    return
        finally:
            self.stop()
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    def is_spent(self) -> bool:
        """Tell whether all workers together have had as many failures as they may."""
        most = self._bounds.failed
        return most is not None and self.counts[State.FAILED] + self.counts[State.UNKNOWN] >= most

    async def _serve(self) -> None:
        """Let the dispatcher hand chunks out, again if it fails: what was lost with it will be found."""
        while True:
            await tolerated(self.dispatcher.run_worker(self._process))
            await asyncio.sleep(_TEND)

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

    async def _tend(self) -> bool:
        """Look after what all workers have in common; return whether all is over."""
        began = time.monotonic()
        if began < self._tend_at:
            return False
        self._tend_at = began + _TEND
        await asyncio.to_thread(self._appear)
        if began > self._taken_at + _TAKE_OVER:
            self._taken_at = began
            await tolerated(self.dispatcher.take_over())
        if began < self._count_at:
            return False
        await asyncio.to_thread(self._count)
        # Where there is much to count one counts seldom.
        self._count_at = time.monotonic() + 10 * (time.monotonic() - began)
        if self._chunks or self.is_busy:
            return False
        if not self.is_spent() and await asyncio.to_thread(self.ledger.is_pending, 0, self._bounds.last):
            if began > self._busy_at + _FORGOTTEN:
                self._busy_at = began
                await enqueue(self.dispatcher, await asyncio.to_thread(self.ledger.chunks, self._bounds.last))
            return False
        if self.counts[State.PENDING]:
            self.problem = "the last run stopped at its budget; techforge batch resume continues without it"
        return not self.stay and not await self.is_waiting()

    async def _share(self) -> None:
        """Take one's part of the jobs that may be begun, so that all together do not have more."""
        most, now = self.options.max_outstanding, time.monotonic()
        if most is None or now < self._share_at:
            return
        free = most - await asyncio.to_thread(self.ledger.under_way)
        self.submitter.allow(free // self._sharers + (self._place < free % self._sharers))
        self._share_at = now + _SHARE

    def _appear(self) -> None:
        """Say that one is there, and see who else is."""
        ledger = self.ledger

        def here(before: dict[str, tuple[float, bool]] | None) -> dict[str, tuple[float, bool]]:
            now = ledger.now()
            there = {name: said for name, said in (before or {}).items() if said[0] > now - _GONE}
            there[self._id] = now, self._chunks > 0
            sharers = sorted(name for name, (_, wants) in there.items() if wants or name == self._id)
            self._place, self._sharers = sharers.index(self._id), len(sharers)
            return there

        ledger.update("workers", here)
        self._bounds = Bounds.kept_in(ledger)

    def _count(self) -> None:
        self.ledger.abandon(self.ledger.now())
        self.counts.update(self.ledger.counts())


def set_bounds(ledger: Ledger, options: Options) -> Bounds:
    """Turn a run's budget into bounds that all workers keep to: rows up to the nth that is pending."""
    last = None if options.max_jobs is None else ledger.nth_pending(options.max_jobs)
    failed = None
    if options.max_failures is not None:
        counts = ledger.counts()
        failed = counts[State.FAILED] + counts[State.UNKNOWN] + options.max_failures
    bounds = Bounds(last, failed)
    ledger.update("bounds", lambda _: asdict(bounds))
    return bounds


def sharing(session: AsyncSession, ledger: Ledger) -> AsyncSession:
    """Return the same session, at the pace of the campaign."""
    limiter = session.settings.limiter
    shared = SharedLimiter(ledger, limiter.max_rate, limiter.max_in_flight)
    return evolve(session, settings=evolve(session.settings, limiter=shared))
