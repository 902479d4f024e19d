"""Submitting rows, each at most once: a turn, a claim on disk, one request, and what its answer means."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from attrs import evolve

from techforge._flows.create import create
from techforge._logging import logger
from techforge._masking import mask
from techforge.batch import changes
from techforge.batch.ledger import State
from techforge.errors import (
    APIError,
    AuthenticationError,
    InvalidArgumentError,
    JobOutcomeUnknownError,
    Outcome,
    TechForgeError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from techforge.batch.ledger import Entry
    from techforge.batch.run_state import RunState
    from techforge.models import Job

IDLE = 0.05
"""Seconds after which one looks whether there is something to do again."""
_BACKOFF, _LONGEST_BACKOFF = 1.0, 60.0
"""Seconds until a row that was surely not taken is submitted again, doubled with each attempt."""
_SUBMISSIONS = 3
"""How often a row is submitted where the API's advice to send again after a 5xx is followed."""
_KEY_PAUSE = 10.0
"""Seconds until a key that was refused is tried again."""
_MARGIN = 10.0
"""Seconds beyond the time of a call after which the process that made it has surely ended."""


class _Taken(Exception):  # noqa: N818 - nothing is wrong
    """The row is another's, or was not claimed in time; nothing was sent."""


class Submitter:
    """Submits the rows of a run."""

    def __init__(self, run: RunState, first_look: Callable[[], float]) -> None:
        self._run, self._first_look = run, first_look
        # Each further attempt is the ledger's to allow.
        self._settings = run.session.settings.once()
        self._slots = asyncio.Semaphore(run.options.concurrency)
        self._busy: set[int] = set()
        self._unclaimed: set[int] = set()
        self._pause_until = 0.0
        self._allowed = float("inf")

    @property
    def busy(self) -> int:
        """How many rows are being submitted."""
        return len(self._busy)

    def allow(self, count: float) -> None:
        """Set how many more rows may be claimed, until it is set again."""
        self._allowed = count - len(self._unclaimed)

    async def submit(self, first: int = 1, last: int | None = None) -> None:
        """Submit all rows from one to another, until none of them is pending; or the run is over."""
        run, after = self._run, first - 1
        while not self._is_over():
            if not self._may_submit():
                await asyncio.sleep(IDLE)
                continue
            rows = await asyncio.to_thread(run.ledger.pending, run.ledger.now(), 500, after, last)
            if not rows:
                if not await self._is_left(first, last):
                    return
                after = first - 1
                await asyncio.sleep(IDLE)
                continue
            for row in rows:
                after = row.n
                if row.n in self._busy:
                    continue
                await self._slots.acquire()
                while not self._may_submit() and not self._is_over():  # noqa: ASYNC110 - time is one of the reasons
                    await asyncio.sleep(IDLE)
                if self._is_over():
                    self._slots.release()
                    return
                run.options.target(row)  # what is wrong with it now would be wrong when it is paid for
                self._allowed -= 1
                self._unclaimed.add(row.n)
                run.start(self._submit(row), self._slots.release, self._busy, row.n)

    async def _is_left(self, first: int, last: int | None) -> bool:
        """Tell whether rows may yet be submitted: those under way may come back."""
        if any(first <= n and (last is None or n <= last) for n in self._busy):
            return True
        return await asyncio.to_thread(self._run.ledger.is_pending, first - 1, last)

    def _may_submit(self) -> bool:
        run, most = self._run, self._run.options.max_outstanding
        if run.ledger.now() < self._pause_until or self._allowed < 1:
            return False
        if run.ledger.is_shared:
            return True
        budget = run.options.max_jobs
        is_spent = budget is not None and run.made + len(self._busy) >= budget  # those may yet come back
        return not is_spent and (most is None or len(self._busy) + run.counts[State.SUBMITTED] < most)

    def _is_over(self) -> bool:
        """Tell whether nothing is to be submitted any more."""
        return self._run.is_stopped or self._run.is_spent()

    # --- one row ----------------------------------------------------------------------------------

    async def _submit(self, row: Entry) -> None:
        row = evolve(row, attempts=row.attempts + 1)
        try:
            job = await self._post(row)
        except _Taken:
            pass
        except InvalidArgumentError as error:
            # Nothing was claimed: the manifest's check has let through what the client refuses.
            if await self._claim(row):
                await self._fail(row, str(error), None)
        except JobOutcomeUnknownError as error:
            await self._doubt(row, str(error), error.job_id)
        except APIError as error:
            await self._refused(row, error)
        else:
            await self._accept(row, job)
        finally:
            self._unclaimed.discard(row.n)

    async def _post(self, row: Entry) -> Job:
        is_claimed = False

        async def claim() -> None:
            nonlocal is_claimed
            if not await self._claim(row):
                raise _Taken
            is_claimed = True

        params: dict[str, Any] = {**row.params, "project_id": row.project_id}
        try:
            return await self._run.session.run(create(evolve(self._settings, claim=claim), **params))
        except (APIError, InvalidArgumentError, JobOutcomeUnknownError, _Taken):
            raise
        except TimeoutError:
            # The ledger's database is away. The claim may yet be made, and this is done after it.
            await self._put_back(row, 0.0, "the ledger did not answer in time")
            raise _Taken from None
        except asyncio.CancelledError:
            if is_claimed:
                await asyncio.shield(self._doubt(row, "the run was stopped before the answer came", None))
            else:
                # Its claim may be on the way to the disk, but nothing has been sent.
                await asyncio.shield(self._put_back(row, 0.0, "the run was stopped before it was sent"))
            raise
        except Exception as error:
            # The user's own code, a key provider say. Had anything been sent, it would be in doubt.
            await self._put_back(row, 0.0, mask(str(error)))
            raise

    async def _claim(self, row: Entry) -> bool:
        self._unclaimed.discard(row.n)
        now = self._run.ledger.now()
        until = now + self._settings.retry.retry_timeout + _MARGIN
        return await self._run.change(
            changes.claim(row.n, row.attempts, now, until), State.PENDING, State.POSTING
        )

    async def _accept(self, row: Entry, job: Job) -> None:
        run = self._run
        run.made += 1
        run.made_progress()
        note = f"job {job.id} was accepted for row {row.key!r}"
        change = changes.submitted(row.n, row.attempts, job.id, run.ledger.now() + self._first_look())
        try:
            if not await run.change(change, State.POSTING, State.SUBMITTED):
                logger.error(
                    "%s, of which the ledger knows something else; job and project are paid for", note
                )
        except TechForgeError as error:
            logger.error("%s, which will be called unknown: %s", note, error)
            error.add_note(f"{note}, which will be called unknown")
            raise

    async def _refused(self, row: Entry, error: APIError) -> None:
        reason = mask(str(error))
        again = self._run.options.retry_server_errors and error.outcome is Outcome.SERVER_FAILED
        if again and error.job_id is None and row.attempts < _SUBMISSIONS:
            logger.warning("row %r is submitted again, and may be paid twice: %s", row.key, reason)
            await self._put_back(row, self._pause(row, error.retry_after), reason)
        elif error.job_may_exist or error.outcome is Outcome.UNKNOWN:
            await self._doubt(row, reason, error.job_id)
        elif error.attempts == 0 or error.outcome in {Outcome.REFUSED, Outcome.NOT_SENT}:
            pause = self._pause(row, error.retry_after)
            self._run.failed_attempt(error, reason, pause)
            if error.attempts == 0 and error.retry_after is not None:
                # Nobody's turn comes before.
                self._pause_until = self._run.ledger.now() + error.retry_after
            await self._put_back(row, pause, reason)
        elif isinstance(error, AuthenticationError):
            self._run.failed_attempt(error, f"the API refuses the key: {reason}", _KEY_PAUSE)
            self._pause_until = self._run.ledger.now() + _KEY_PAUSE
            await self._put_back(row, 0.0, reason)
        else:
            await self._fail(row, reason, error.job_id)

    @staticmethod
    def _pause(row: Entry, retry_after: float | None) -> float:
        """Return the seconds until a row is submitted again: `Retry-After`, or an exponential backoff."""
        backoff = min(_BACKOFF * 2 ** min(row.attempts - 1, 10), _LONGEST_BACKOFF)
        return backoff if retry_after is None else retry_after

    async def _put_back(self, row: Entry, pause: float, reason: str) -> None:
        change = changes.put_back(row.n, row.attempts, self._run.ledger.now() + pause, reason)
        await self._run.change(change, State.POSTING, State.PENDING)

    async def _doubt(self, row: Entry, reason: str, job_id: str | None) -> None:
        change = changes.unknown(row.n, row.attempts, reason, job_id, self._run.ledger.now())
        if await self._run.change(change, State.POSTING, State.UNKNOWN):
            self._run.failures += 1
            self._run.tell(row, State.UNKNOWN, reason=reason, job_id=job_id)

    async def _fail(self, row: Entry, reason: str, job_id: str | None) -> None:
        change = changes.refused(row.n, row.attempts, reason, job_id, self._run.ledger.now())
        if await self._run.change(change, State.POSTING, State.FAILED):
            self._run.failures += 1
            self._run.tell(row, State.FAILED, reason=reason, job_id=job_id)
