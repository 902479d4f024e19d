"""Running a campaign: rows are submitted, jobs looked at, videos fetched, until nothing is left.

The loops are asyncio's, and not flows: what they decide is on disk, and there is one colour of them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from attrs import define, field

from techforge.batch.reconciler import Reconciler
from techforge.batch.run_state import RunState
from techforge.batch.submitter import Submitter

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from techforge.batch.ledger import Entry

_GRACE = 1.5
"""Seconds that submissions under way get to be answered when a run is stopped."""


@define
class Run(RunState):
    """One run of a campaign by one client: a `Progress` that changes as it goes on."""

    submitter: Submitter = field(init=False)
    reconciler: Reconciler = field(init=False)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.reconciler = Reconciler(self)
        self.submitter = Submitter(self, self.reconciler.first_look)

    async def results(self) -> AsyncGenerator[Entry]:
        """Run until nothing is left to do, and yield each row when it has ended."""
        loops = asyncio.create_task(self._until_the_end())
        try:
            while (entry := await self._ended.get()) is not None:
                yield entry
            if self._failed is not None:
                raise self._failed
            await loops
        finally:
            self.stop()
            await self._wind_up(loops)

    async def _until_the_end(self) -> None:
        try:
            await self.work()
        finally:
            self._ended.put_nowait(None)

    async def work(self) -> None:
        """Submit all rows, and look at jobs, until nothing is left."""
        submitting = asyncio.create_task(self.submitter.submit())
        try:
            while not self.is_stopped:
                await self.reconciler.look()
                self.check_progress()
                if submitting.done():
                    submitting.result()
                    if not self._tasks and not await self.is_waiting():
                        return
        finally:
            submitting.cancel()

    async def _wind_up(self, loops: asyncio.Task[None]) -> None:
        # What was posted, but not answered in time, is unknown: its task says so as it is cancelled.
        if self._tasks:
            await asyncio.wait([*self._tasks], timeout=_GRACE)
        rest = [loops, *self._tasks]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await self._writer.settle()
