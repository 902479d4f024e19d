"""Poll jobs until their videos exist, and download the videos."""

from __future__ import annotations

import asyncio
import contextlib
import filecmp
import stat
import statistics
from collections import deque
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from techforge._flows.download import download_video
from techforge._flows.wait import poll_once
from techforge._logging import logger
from techforge._masking import mask
from techforge.batch import changes
from techforge.batch.ledger import State
from techforge.batch.submitter import IDLE_SECONDS
from techforge.errors import InvalidArgumentError, JobFailedError, LedgerError, TargetExistsError
from techforge.models import Job

if TYPE_CHECKING:
    from techforge.batch.ledger import Entry
    from techforge.batch.run_state import RunState
    from techforge.models import Video

MIN_POLL_DELAY, MAX_POLL_DELAY = 1.0, 30.0
"""Shortest and longest delay between two polls of a job, in seconds."""
MIN_SAMPLES = 5
"""Number of finished jobs before their duration determines the first poll."""
LEASE_SECONDS = 30.0
"""Other processes do not poll a leased job. The lease is renewed while this process works on the job."""


class Reconciler:
    """Polls the jobs of a run in the order in which they are due."""

    def __init__(self, run: RunState) -> None:
        self._run = run
        self._slot_freed = asyncio.Event()
        self._downloads = asyncio.Semaphore(run.options.downloads)
        self._polling: set[int] = set()
        self._durations: deque[float] = deque(maxlen=101)
        self._leases_renewed_at = 0.0

    def first_poll_delay(self) -> float:
        """Return the seconds from a job's submission to its first poll."""
        if len(self._durations) < MIN_SAMPLES:
            return MIN_POLL_DELAY
        return 0.8 * statistics.median(self._durations)

    async def poll_due_jobs(self) -> None:
        """Start to poll the jobs that are due. Wait briefly if there are none, or no free slots."""
        run, now = self._run, self._run.ledger.now()
        if now > self._leases_renewed_at + LEASE_SECONDS / 3:
            # A download may take longer than a lease.
            self._leases_renewed_at = now
            await asyncio.gather(
                *(run.write(changes.poll_later(n, now + LEASE_SECONDS)) for n in self._polling)
            )
        slots = run.options.concurrency
        free = slots - len(self._polling)
        # Lease several jobs at once, because each lease is a commit.
        rows = (
            []
            if free <= slots // 4
            else await asyncio.to_thread(run.ledger.due, now, now + LEASE_SECONDS, free)
        )
        for row in rows:
            if row.n not in self._polling:  # look_now() may make a job due during its poll
                run.start(self._poll(row), self._slot_freed.set, self._polling, row.n)
        if not rows:
            self._slot_freed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(IDLE_SECONDS):
                    await self._slot_freed.wait()

    async def _poll(self, row: Entry) -> None:
        run = self._run
        job = Job(row.job_id or "", row.project_id, "submitted")
        elapsed = run.ledger.now() - (row.posted_at or run.ledger.now())
        try:
            video = await run.session.run(poll_once(job, run.session.settings, run.options.tracker))
            run.record_progress()
            if video is None:
                await self._poll_later(row, min(MAX_POLL_DELAY, max(MIN_POLL_DELAY, elapsed / 4)))
                return
            file, reason = await self._fetch(row, video)
        except JobFailedError as error:
            await self._fail(row, mask(str(error)))
        except LedgerError:
            raise
        except Exception as error:  # noqa: BLE001 - the user's tracker may raise anything
            # A failed poll never ends a job that was accepted; poll again later.
            delay = getattr(error, "retry_after", None) or min(MAX_POLL_DELAY, max(MIN_POLL_DELAY, elapsed))
            run.record_failure(error, mask(str(error)), delay)
            await self._poll_later(row, delay)
        else:
            self._durations.append(elapsed)
            change = changes.done(row.n, file, run.ledger.now(), reason)
            if await run.change(change, State.SUBMITTED, State.DONE):
                run.report_ended(row, State.DONE, file=file, reason=reason)

    async def _poll_later(self, row: Entry, delay: float) -> None:
        await self._run.write(changes.poll_later(row.n, self._run.ledger.now() + delay))

    async def _fail(self, row: Entry, reason: str) -> None:
        if await self._run.change(
            changes.failed(row.n, reason, self._run.ledger.now()), State.SUBMITTED, State.FAILED
        ):
            self._run.failures += 1
            self._run.report_ended(row, State.FAILED, reason=reason)

    async def _fetch(self, row: Entry, video: Video) -> tuple[str | None, str | None]:
        """Download a video. Return its file, or None and the reason."""
        target = self._run.options.target(row)
        if target is None:
            return None, None
        async with self._downloads:
            session = self._run.session
            try:
                return str(await session.run(download_video(video, target, session.settings))), None
            except TargetExistsError:
                if await self._is_downloaded(target, video):
                    return str(target), None
                # Do not replace a file of the user or of another row.
                reason = f"not downloaded, because {target} exists and is not the file of this row"
            except InvalidArgumentError as error:  # for example a directory of this name
                reason = f"not downloaded: {error}"
            logger.warning("row %r: %s", row.key, reason)
            return None, reason

    async def _is_downloaded(self, target: Path, video: Video) -> bool:
        """Return whether a file is the row's video: a run was killed before it could record the download.

        Only the content tells, so the video is downloaded once more.
        """
        with contextlib.suppress(OSError):
            file = target.lstat()  # noqa: ASYNC240 - as fast as asking a thread to do it
            if not stat.S_ISREG(file.st_mode) or file.st_size != video.size:
                return False
            session = self._run.session
            with TemporaryDirectory(prefix=".techforge-", dir=target.parent) as folder:
                copy = await session.run(download_video(video, Path(folder, "copy"), session.settings))
                return await asyncio.to_thread(filecmp.cmp, target, copy, shallow=False)
        return False
