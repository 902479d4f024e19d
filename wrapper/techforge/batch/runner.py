"""Running a campaign: rows are submitted, jobs looked at, videos fetched, until nothing is left.

The loops are asyncio's, and not flows: what they decide is on disk, and there is one colour of them.
"""

# ruff: noqa: SLF001
# pyright: reportPrivateUsage=false
# The client's settings and driver are of the same package.

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import statistics
import time
from collections import deque
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from attrs import define, evolve, field, frozen

from techforge._flows.create import create
from techforge._logging import logger
from techforge._masking import mask
from techforge.batch.ledger import Entry, Ledger, LedgerError, State
from techforge.batch.writer import Writer
from techforge.errors import (
    APIError,
    AuthenticationError,
    InvalidArgumentError,
    JobFailedError,
    JobOutcomeUnknownError,
    Outcome,
    TechForgeError,
)
from techforge.models import Job

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator, Callable, Coroutine

    from techforge._client import AsyncTechForge
    from techforge._config import Settings
    from techforge.models import Video

_FIRST_LOOK, _LONGEST_LOOK = 1.0, 30.0
"""Seconds until a job is looked at, while it is not known how long jobs take; and at the most."""
_ENOUGH = 5
"""Jobs whose time must be known before it counts."""
_IDLE = 0.05
"""Seconds after which one looks whether there is something to do again."""
_LEASE = 120.0
"""Seconds for which a look is nobody else's."""
_BACKOFF, _LONGEST_BACKOFF = 1.0, 60.0
"""Seconds until a row that was surely not taken is submitted again, doubled with each attempt."""
_GRACE = 1.5
"""Seconds that submissions under way get to be answered when a run is stopped."""
_KEY_PAUSE = 10.0
"""Seconds until a key that was refused is tried again."""


@frozen(kw_only=True)
class Options:
    """How a campaign is run. Durations are seconds.

    >>> Options(max_outstanding=500).concurrency
    32
    """

    out: str | os.PathLike[str] | None = None
    """The directory for the videos; without one, a row is done when its video is there."""
    name: str = "{row_key}.mp4"
    """What a row's file is called: `{row_key}` or `{job_id}`, `{project_id}`, and the row's own columns."""
    concurrency: int = 32
    """Submissions under way at once; and as many looks."""
    downloads: int = 4
    """Videos that are fetched at once."""
    max_outstanding: int | None = None
    """Jobs that may be under way at once at the API."""
    max_jobs: int | None = None
    """Jobs to submit in this run; the rest stays pending."""
    max_failures: int | None = None
    """Rows that may fail in this run; then nothing more is submitted."""
    job_timeout: float = 24 * 3600.0
    """How long after its submission a job is looked at; then it stays `submitted`, and the run may end."""

    def __attrs_post_init__(self) -> None:
        if not re.search(r"\{(row_key|job_id)\}", self.name):
            raise InvalidArgumentError(
                "name", "must hold {row_key} or {job_id}: each row has a file of its own"
            )


class _Taken(Exception):  # noqa: N818 - nothing is wrong
    """Another process has claimed the row."""


@define
class Run:
    """One run of a campaign by one client: a `Progress` that changes as it goes on."""

    client: AsyncTechForge
    ledger: Ledger
    options: Options
    counts: dict[State, int] = field(init=False, factory=dict[State, int])
    """How many rows are in each state."""
    made: int = 0
    """Jobs that this run has submitted."""
    failures: int = 0
    """Rows that have failed in this run."""
    problem: str = ""
    """What keeps the run from going on, if anything does."""
    _ends: deque[float] = field(init=False, factory=lambda: deque(maxlen=1000))
    _settings: Settings = field(init=False)
    _write: Writer = field(init=False)
    _ended: asyncio.Queue[Entry | None] = field(init=False, factory=asyncio.Queue[Entry | None])
    _busy: set[int] = field(init=False, factory=set[int])
    _looking: set[int] = field(init=False, factory=set[int])
    _tasks: set[asyncio.Task[None]] = field(init=False, factory=set[asyncio.Task[None]])
    _times: deque[float] = field(init=False, factory=lambda: deque(maxlen=101))
    _resume_at: float = 0.0
    _stopped: bool = False
    _failed: BaseException | None = None

    def __attrs_post_init__(self) -> None:
        self.counts.update(self.ledger.counts())
        # Each further attempt is the ledger's to allow.
        self._settings = self.client._settings.once()
        self._write = Writer(self.ledger)
        if self.options.out is not None:
            Path(self.options.out).mkdir(parents=True, exist_ok=True)

    @property
    def rate(self) -> float:
        """Rows that have ended in a second, of late."""
        if len(self._ends) < 2:
            return 0.0
        return len(self._ends) / max(time.monotonic() - self._ends[0], 0.001)

    @property
    def limit(self) -> float | None:
        """Requests a second that the API was found, or is said, to allow; None if that is not known."""
        rate = self.client._settings.limiter.rate
        return None if math.isinf(rate) else rate

    @property
    def eta(self) -> float | None:
        """Seconds until all rows have ended, at the rate of late; None if there is none."""
        open_states = State.PENDING, State.POSTING, State.SUBMITTED
        left = sum(self.counts[state] for state in open_states)
        return left / self.rate if self.rate else None

    async def results(self) -> AsyncGenerator[Entry]:
        """Run until nothing is left to do, and yield each row when it has ended."""
        loops = asyncio.create_task(self._run())
        try:
            while (entry := await self._ended.get()) is not None:
                yield entry
            if self._failed is not None:
                raise self._failed
            await loops
        finally:
            self.stop()
            await self._wind_up(loops)

    def stop(self) -> None:
        """Submit nothing more; what is under way is brought to an end."""
        self._stopped = True

    async def _run(self) -> None:
        try:
            await asyncio.gather(self._submit_all(), self._look_at_all())
        finally:
            self._ended.put_nowait(None)

    async def _wind_up(self, loops: asyncio.Task[None]) -> None:
        # What was posted, but not answered in time, is unknown: its task says so as it is cancelled.
        if self._tasks:
            await asyncio.wait([*self._tasks], timeout=_GRACE)
        rest = [loops, *self._tasks]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await self._write.settle()

    # --- submitting ---------------------------------------------------------------------------------

    async def _submit_all(self) -> None:
        slots, after = asyncio.Semaphore(self.options.concurrency), 0
        while not self._over():
            if not self._may_submit():
                await asyncio.sleep(_IDLE)
                continue
            rows = await asyncio.to_thread(self.ledger.pending, time.time(), 500, after)
            if not rows:
                after = 0
                await asyncio.sleep(_IDLE)
                continue
            for row in rows:
                after = row.n
                if row.n in self._busy:
                    continue
                await slots.acquire()
                while not self._may_submit() and not self._over():  # noqa: ASYNC110 - time is one of the reasons
                    await asyncio.sleep(_IDLE)
                if self._over():
                    slots.release()
                    break
                if self.options.out is not None:
                    self._target(row)  # what is wrong with it now would be wrong when it is paid for
                self._start(self._submit(row), slots.release, self._busy, row.n)

    def _may_submit(self) -> bool:
        options = self.options
        under_way = len(self._busy) + self.counts[State.SUBMITTED]
        return time.time() >= self._resume_at and (
            options.max_outstanding is None or under_way < options.max_outstanding
        )

    def _over(self) -> bool:
        """Tell whether nothing is to be submitted any more."""
        options = self.options
        spent = options.max_jobs is not None and self.made + len(self._busy) >= options.max_jobs
        broken = options.max_failures is not None and self.failures >= options.max_failures
        return self._stopped or spent or broken or (not self.counts[State.PENDING] and not self._busy)

    async def _submit(self, row: Entry) -> None:
        try:
            job = await self._post(row)
        except _Taken:
            self.counts.update(await asyncio.to_thread(self.ledger.counts))
        except InvalidArgumentError as error:
            # Nothing was claimed: the manifest's check has let through what the client refuses.
            if await self._write(self.ledger.claim, row.n):
                self._moved(State.PENDING, State.POSTING)
                await self._fail(row, str(error))
        except JobOutcomeUnknownError as error:
            await self._doubt(row, str(error), error.job_id)
        except APIError as error:
            await self._refused(row, error)
        else:
            await self._accept(row, job)

    async def _post(self, row: Entry) -> Job:
        async def claim() -> None:
            if not await self._write(self.ledger.claim, row.n):
                raise _Taken
            self._moved(State.PENDING, State.POSTING)

        params: dict[str, Any] = {**row.params, "project_id": row.project_id}
        try:
            return await self.client._driver.run(create(evolve(self._settings, claim=claim), **params))
        except (APIError, InvalidArgumentError, JobOutcomeUnknownError, _Taken):
            raise
        except asyncio.CancelledError:
            # The answer is lost. If nothing was claimed the row is still pending, and this changes nothing.
            await asyncio.shield(self._doubt(row, "the run was stopped before the answer came", None))
            raise
        except Exception as error:
            # The user's own code, a key provider say. Had anything been sent, it would be in doubt.
            await self._put_back(row, 0.0, mask(str(error)))
            raise

    async def _accept(self, row: Entry, job: Job) -> None:
        self.made += 1
        try:
            await self._write(self.ledger.submitted, row.n, job.id, time.time() + self._first_look())
        except LedgerError as error:
            note = f"job {job.id} was accepted for row {row.key!r}, which will be called unknown"
            logger.error("%s: %s", note, error)
            error.add_note(note)
            raise
        self._moved(State.POSTING, State.SUBMITTED)

    async def _refused(self, row: Entry, error: APIError) -> None:
        reason = mask(str(error))
        if error.job_may_exist or error.outcome is Outcome.UNKNOWN:
            await self._doubt(row, reason, error.job_id)
        elif error.attempts == 0 or error.outcome in {Outcome.REFUSED, Outcome.NOT_SENT}:
            if error.attempts == 0 and error.retry_after is not None:
                # Nobody's turn comes before.
                self.problem, self._resume_at = reason, time.time() + error.retry_after
            await self._put_back(row, error.retry_after, reason)
        elif isinstance(error, AuthenticationError):
            self.problem = f"the API refuses the key; it is tried again every {_KEY_PAUSE:.0f} s: {reason}"
            logger.warning("%s", self.problem)
            self._resume_at = time.time() + _KEY_PAUSE
            await self._put_back(row, 0.0, reason)
        else:
            await self._fail(row, reason, error.job_id)

    async def _put_back(self, row: Entry, retry_after: float | None, reason: str) -> None:
        pause = min(_BACKOFF * 2 ** min(row.attempts, 10), _LONGEST_BACKOFF)
        if retry_after is not None:
            pause = retry_after
        if await self._write(self.ledger.put_back, row.n, time.time() + pause, reason):
            self._moved(State.POSTING, State.PENDING)

    async def _doubt(self, row: Entry, reason: str, job_id: str | None) -> None:
        if await self._write(self.ledger.unknown, row.n, reason, job_id):
            self._moved(State.POSTING, State.UNKNOWN)
            self._tell(row, State.UNKNOWN, reason=reason, job_id=job_id)

    async def _fail(self, row: Entry, reason: str, job_id: str | None = None) -> None:
        before = State.SUBMITTED if row.state is State.SUBMITTED else State.POSTING
        if await self._write(self.ledger.failed, row.n, reason, job_id):
            self.failures += 1
            self._moved(before, State.FAILED)
            self._tell(row, State.FAILED, reason=reason, job_id=job_id or row.job_id)

    # --- waiting ------------------------------------------------------------------------------------

    async def _look_at_all(self) -> None:
        looks, downloads = (
            asyncio.Semaphore(self.options.concurrency),
            asyncio.Semaphore(self.options.downloads),
        )
        while not self._stopped:
            now = time.time()
            rows = await asyncio.to_thread(self.ledger.due, now, now + _LEASE)
            for row in rows:
                if row.n in self._looking:
                    continue  # a download that takes longer than the lease
                await looks.acquire()
                self._start(self._look(row, downloads), looks.release, self._looking, row.n)
            if not rows:
                if not self._tasks and await asyncio.to_thread(self._nothing_left):
                    return
                await asyncio.sleep(_IDLE)

    def _nothing_left(self) -> bool:
        if not self._over():
            return False
        waiting = self.ledger.waiting(time.time() - self.options.job_timeout)
        return not waiting and not self.counts[State.POSTING]

    async def _look(self, row: Entry, downloads: asyncio.Semaphore) -> None:
        job = Job(row.job_id or "", row.project_id, "submitted")
        now = time.time()
        elapsed = now - (row.posted_at or now)
        try:
            video = await self.client.jobs.find(job)
            if video is None:
                pause = min(_LONGEST_LOOK, max(_FIRST_LOOK, elapsed / 4))
                await self._write(self.ledger.look_again, row.n, time.time() + pause)
                return
            file = None if self.options.out is None else await self._fetch(row, video, downloads)
        except JobFailedError as error:
            await self._fail(row, mask(str(error)))
        except TechForgeError as error:
            # Of a job that exists no failure of ours is the end.
            self.problem = mask(str(error))
            pause = getattr(error, "retry_after", None) or min(_LONGEST_LOOK, max(_FIRST_LOOK, elapsed))
            await self._write(self.ledger.look_again, row.n, time.time() + pause)
        else:
            self._times.append(elapsed)
            if await self._write(self.ledger.done, row.n, file):
                self._moved(State.SUBMITTED, State.DONE)
                self._tell(row, State.DONE, file=file)

    async def _fetch(self, row: Entry, video: Video, downloads: asyncio.Semaphore) -> str:
        target = self._target(row)
        async with downloads:
            with contextlib.suppress(OSError):
                # Fetched by a process that was killed before it could say so.
                there = target.stat()
                if there.st_size == video.size and there.st_mtime >= (row.posted_at or math.inf):
                    return str(target)
            return str(await self.client.jobs.download(video, target, overwrite=True))

    def _target(self, row: Entry) -> Path:
        """Return the file for a row's video.

        Raises:
            InvalidArgumentError: the row lacks a column that the name asks for, or it leads elsewhere.
        """
        names = {"row_key": row.key, "project_id": row.project_id, "job_id": row.job_id or "job"}
        try:
            name = self.options.name.format_map({**row.metadata, **row.params, **names})
        except (LookupError, ValueError, AttributeError, TypeError) as error:
            problem = f"cannot be filled in for row {row.key!r}: {type(error).__name__} {error}"
            raise InvalidArgumentError("name", problem) from None
        if name != PurePath(name).name or "\\" in name or "\0" in name or name in {".", ".."}:
            raise InvalidArgumentError("name", f"is no file name for row {row.key!r}: {name!r}")
        return Path(str(self.options.out), name)

    def _first_look(self) -> float:
        if len(self._times) < _ENOUGH:
            return _FIRST_LOOK
        return 0.8 * statistics.median(self._times)

    # ------------------------------------------------------------------------------------------------

    def _start(
        self, work: Coroutine[Any, Any, None], release: Callable[[], None], among: set[int], n: int
    ) -> None:
        def over(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            among.discard(n)
            release()
            if not task.cancelled() and (error := task.exception()) is not None:
                # A disk that is full, or a bug: nothing more is begun, and the caller hears of it.
                self._failed = self._failed or error
                self._stopped = True
                self._ended.put_nowait(None)

        among.add(n)
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(over)

    def _moved(self, before: State, after: State) -> None:
        self.counts[before] -= 1
        self.counts[after] += 1

    def _tell(self, row: Entry, state: State, **changes: Any) -> None:
        self._ends.append(time.monotonic())
        self._ended.put_nowait(evolve(row, state=state, ended_at=time.time(), **changes))
