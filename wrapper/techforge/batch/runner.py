"""Run a campaign: submit rows, poll jobs and download videos until nothing is left.

These loops are asyncio code and not flows, because the sync client runs them in a thread.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from attrs import define, field

from techforge._logging import logger
from techforge.batch.reconciler import Reconciler
from techforge.batch.run_state import RunState
from techforge.batch.submitter import Submitter
from techforge.batch.wording import counted
from techforge.errors import JobsNotRecordedError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from techforge.batch.ledger import Entry

GRACE_SECONDS = 8.0
"""When a run is stopped, submissions in flight have this long to get a response."""
WRITE_SECONDS = 1.0
"""Then the database has this long to record what is left. The journal has it in any case."""


@define
class Run(RunState):
    """One run of a campaign by one client. Its attributes show the progress."""

    submitter: Submitter = field(init=False)
    reconciler: Reconciler = field(init=False)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.reconciler = Reconciler(self)
        self.submitter = Submitter(self, self.reconciler.first_poll_delay)

    async def results(self) -> AsyncGenerator[Entry]:
        """Run until nothing is left to do, and yield each row when it ends."""
        loops = asyncio.create_task(self._work_and_signal_end())
        try:
            while (entry := await self._ended.get()) is not None:
                yield entry
        finally:
            self.stop()
            await self._shut_down(loops)
            self.journal.close()
        # Only now are all jobs known that the ledger could not record.
        if self.unrecorded:
            journal = None if self.journal.path is None else str(self.journal.path)
            raise JobsNotRecordedError(str(self._failed), self.unrecorded, journal)
        if self._failed is not None:
            raise self._failed
        loops.result()

    async def _work_and_signal_end(self) -> None:
        try:
            await self.work()
        finally:
            self._ended.put_nowait(None)

    async def work(self) -> None:
        """Submit all rows and poll their jobs until nothing is left."""
        submitting = asyncio.create_task(self.submitter.submit())
        try:
            while not self.is_stopped:
                await self.reconciler.poll_due_jobs()
                self.check_progress()
                if submitting.done():
                    submitting.result()
                    if not self._tasks and not await self.has_unfinished_jobs():
                        return
        finally:
            submitting.cancel()

    async def _shut_down(self, loops: asyncio.Task[None]) -> None:
        alarm = asyncio.create_task(self._give_up(loops))
        # Polls, downloads and rows that are not claimed can continue in the next run.
        loops.cancel()
        for task in self._tasks - self.unanswered.keys():
            task.cancel()
        if self.unanswered:
            logger.warning(
                "Stopping: waiting up to %g s for %s. Press Ctrl-C again to stop now.",
                *(GRACE_SECONDS, counted(len(self.unanswered), "response")),
            )
            await asyncio.wait([*self.unanswered], timeout=GRACE_SECONDS)
            # A task that is cancelled while it records a job would not report that the ledger failed.
            await self._writer.flush()
        # A submission without a response in time is unknown: its task records that when it is cancelled.
        rest = [loops, *self._tasks]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await self._writer.flush()
        alarm.cancel()

    async def _give_up(self, loops: asyncio.Task[None]) -> None:
        await asyncio.sleep(GRACE_SECONDS + WRITE_SECONDS)
        while True:
            self.ledger.interrupt()
            # Again and again: each step of a dispatcher's clean-up may wait for a locked database.
            loops.cancel()
            await asyncio.sleep(WRITE_SECONDS / 2)
