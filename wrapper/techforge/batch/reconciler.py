"""Looking at jobs until their videos are there, and fetching them."""

from __future__ import annotations

import asyncio
import contextlib
import math
import statistics
from collections import deque
from typing import TYPE_CHECKING

from techforge._flows.download import download_video
from techforge._flows.wait import poll_once
from techforge._logging import logger
from techforge._masking import mask
from techforge.batch import changes
from techforge.batch.database import LedgerError
from techforge.batch.ledger import State
from techforge.batch.submitter import IDLE
from techforge.errors import JobFailedError, TargetExistsError
from techforge.models import Job

if TYPE_CHECKING:
    from pathlib import Path

    from techforge.batch.ledger import Entry
    from techforge.batch.run_state import RunState
    from techforge.models import Video

_FIRST_LOOK, _LONGEST_LOOK = 1.0, 30.0
"""Seconds until a job is looked at, while it is not known how long jobs take; and at the most."""
_ENOUGH = 5
"""Jobs whose time must be known before it counts."""
_LEASE = 30.0
"""Seconds for which a look is nobody else's; it is renewed as long as it takes."""


class Reconciler:
    """Looks at the jobs of a run, those that are due first."""

    def __init__(self, run: RunState) -> None:
        self._run = run
        self._is_free = asyncio.Event()
        self._downloads = asyncio.Semaphore(run.options.downloads)
        self._looking: set[int] = set()
        self._times: deque[float] = deque(maxlen=101)
        self._renewed = 0.0

    def first_look(self) -> float:
        """Return the seconds from a job's submission to the first look at it."""
        if len(self._times) < _ENOUGH:
            return _FIRST_LOOK
        return 0.8 * statistics.median(self._times)

    async def look(self) -> None:
        """Look at jobs that are due; if none is, or too many are being looked at, wait a little."""
        run, now = self._run, self._run.ledger.now()
        if now > self._renewed + _LEASE / 3:
            # What is being fetched may take longer than a lease.
            self._renewed = now
            await asyncio.gather(*(run.write(changes.look_again(n, now + _LEASE)) for n in self._looking))
        most = run.options.concurrency
        free = most - len(self._looking)
        # Several at once: each lease is a commit.
        rows = [] if free <= most // 4 else await asyncio.to_thread(run.ledger.due, now, now + _LEASE, free)
        for row in rows:
            if row.n not in self._looking:  # it may be told to be looked at while it is
                run.start(self._look(row), self._is_free.set, self._looking, row.n)
        if not rows:
            self._is_free.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(IDLE):
                    await self._is_free.wait()

    async def _look(self, row: Entry) -> None:
        run = self._run
        job = Job(row.job_id or "", row.project_id, "submitted")
        elapsed = run.ledger.now() - (row.posted_at or run.ledger.now())
        try:
            video = await run.session.run(poll_once(job, run.session.settings, run.options.tracker))
            run.made_progress()
            if video is None:
                await self._look_again(row, min(_LONGEST_LOOK, max(_FIRST_LOOK, elapsed / 4)))
                return
            file, reason = await self._fetch(row, video)
        except JobFailedError as error:
            await self._fail(row, mask(str(error)))
        except LedgerError:
            raise
        except Exception as error:  # noqa: BLE001 - a tracker is the user's, and may fail in any way
            # Of a job that exists no failure of ours is the end.
            pause = getattr(error, "retry_after", None) or min(_LONGEST_LOOK, max(_FIRST_LOOK, elapsed))
            run.failed_attempt(error, mask(str(error)), pause)
            await self._look_again(row, pause)
        else:
            self._times.append(elapsed)
            change = changes.done(row.n, file, run.ledger.now(), reason)
            if await run.change(change, State.SUBMITTED, State.DONE):
                run.tell(row, State.DONE, file=file, reason=reason)

    async def _look_again(self, row: Entry, pause: float) -> None:
        await self._run.write(changes.look_again(row.n, self._run.ledger.now() + pause))

    async def _fail(self, row: Entry, reason: str) -> None:
        if await self._run.change(
            changes.failed(row.n, reason, self._run.ledger.now()), State.SUBMITTED, State.FAILED
        ):
            self._run.failures += 1
            self._run.tell(row, State.FAILED, reason=reason)

    async def _fetch(self, row: Entry, video: Video) -> tuple[str | None, str | None]:
        """Download a video; return its file, or None and why there is none."""
        target = self._run.options.target(row)
        if target is None:
            return None, None
        async with self._downloads:
            if _is_there(target, video, row.posted_at or math.inf):
                return str(target), None
            session = self._run.session
            try:
                return str(await session.run(download_video(video, target, session.settings))), None
            except TargetExistsError:
                # A person's own file, or another row's: neither may be lost.
                reason = f"not downloaded, because {target} exists and is not the file of this row"
                logger.warning("row %r: %s", row.key, reason)
                return None, reason


def _is_there(target: Path, video: Video, since: float) -> bool:
    """Tell whether a process fetched it that was killed before it could say so."""
    with contextlib.suppress(OSError):
        there = target.stat()
        return there.st_size == video.size and there.st_mtime >= since
    return False
