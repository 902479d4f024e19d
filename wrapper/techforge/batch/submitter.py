"""Submit rows, each at most once: wait for the rate limiter, claim the row on disk, send one request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from attrs import evolve

from techforge._flows.create import create
from techforge._logging import logger
from techforge._masking import hide, mask, printable
from techforge.batch import changes
from techforge.batch.ledger import MAX_BACKOFF, State
from techforge.batch.pause import paused_until, save_pause
from techforge.errors import (
    APIError,
    AuthenticationError,
    InvalidArgumentError,
    JobOutcomeUnknownError,
    LedgerError,
    Outcome,
    PermissionDeniedError,
    TechForgeError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from techforge._flow import Flow
    from techforge.batch.ledger import Entry
    from techforge.batch.run_state import RunState
    from techforge.models import Job

IDLE_SECONDS = 0.05
"""Check for work again after this many seconds."""
MIN_BACKOFF = 1.0
"""Seconds until a rejected row is submitted again, doubled with each attempt."""
MAX_SUBMISSIONS = 3
"""With `retry_server_errors`, submit a row at most this often."""
REJECTED_KEY_DELAY = 10.0
"""Seconds until the next attempt after the API rejected the key."""
EXCERPT_LENGTH = 300
CLAIM_MARGIN = 10.0
"""A claim expires this many seconds after the longest duration of a call."""


class _NotClaimed(Exception):  # noqa: N818 - not an error
    """Another process has the row, or the claim took too long. Nothing was sent."""


class Submitter:
    """Submits the rows of a run."""

    def __init__(self, run: RunState, first_poll_delay: Callable[[], float]) -> None:
        self._run, self._first_poll_delay = run, first_poll_delay
        # No retries inside a call: each attempt needs a claim in the ledger.
        self._settings = run.session.settings.once()
        self._slots = asyncio.Semaphore(run.options.concurrency)
        self._in_flight: set[int] = set()
        self._claiming: set[int] = set()
        self._paused_until = paused_until(run.ledger)
        if (seconds := self._paused_until - run.ledger.now()) > 0:
            problem = (
                f"the API asked an earlier run to pause (Retry-After), for another {seconds:.0f} s. To "
                "submit now: techforge batch resume --unpause"
            )
            run.record_failure(TechForgeError(problem), problem, seconds)
        self._quota = float("inf")

    def set_quota(self, count: float) -> None:
        """Set how many more rows may be claimed, until the next call."""
        self._quota = count - len(self._claiming)

    async def submit(self, first: int = 1, last: int | None = None) -> None:
        """Submit all rows from `first` to `last` until none of them is pending, or the run ends."""
        run, after = self._run, first - 1
        while not self._is_over():
            if not self._may_submit():
                await asyncio.sleep(IDLE_SECONDS)
                continue
            rows = await asyncio.to_thread(run.ledger.pending, run.ledger.now(), 500, after, last)
            if not rows:
                if not await self._has_rows_left(first, last):
                    return
                after = first - 1
                await asyncio.sleep(IDLE_SECONDS)
                continue
            for row in rows:
                after = row.n
                if row.n in self._in_flight:
                    continue
                await self._slots.acquire()
                while not self._may_submit() and not self._is_over():  # noqa: ASYNC110 - the end of a pause has no event
                    await asyncio.sleep(IDLE_SECONDS)
                if self._is_over():
                    self._slots.release()
                    return
                run.options.target(row)  # an invalid file name must fail before the job is paid for
                self._quota -= 1
                self._claiming.add(row.n)
                run.start(self._submit(row), self._slots.release, self._in_flight, row.n)
                if self._settings.breaker.problem:
                    await asyncio.sleep(IDLE_SECONDS)  # this row checks the API for all others

    async def _has_rows_left(self, first: int, last: int | None) -> bool:
        """Return whether rows are pending, or in flight: those may become pending again."""
        if any(first <= n and (last is None or n <= last) for n in self._in_flight):
            return True
        return await asyncio.to_thread(self._run.ledger.is_pending, first - 1, last)

    def _may_submit(self) -> bool:
        run, max_outstanding = self._run, self._run.options.max_outstanding
        if run.ledger.now() < self._paused_until or self._quota < 1:
            return False
        if self._settings.breaker.wait(self._settings.now()):
            return False
        if run.ledger.is_shared:
            return True
        budget = run.options.max_jobs
        is_spent = budget is not None and run.submitted_count + len(self._in_flight) >= budget
        unfinished = len(self._in_flight) + run.counts[State.SUBMITTED]
        return not is_spent and (max_outstanding is None or unfinished < max_outstanding)

    def _is_over(self) -> bool:
        """Return whether the run submits nothing more."""
        return self._run.is_stopped or self._run.is_budget_spent()

    # --- one row ----------------------------------------------------------------------------------

    async def _submit(self, row: Entry) -> None:
        row = evolve(row, attempts=row.attempts + 1)
        try:
            job = await self._post(row)
        except _NotClaimed:
            pass
        except InvalidArgumentError as error:
            # The client rejected a row that the check of the manifest accepted. Nothing was sent.
            if await self._claim(row):
                await self._mark_failed(row, str(error), None)
        except JobOutcomeUnknownError as error:
            self._record_outage(error)
            await self._mark_unknown(row, _with_excerpt(str(error), error), error.job_id)
        except APIError as error:
            await self._handle_error(row, error)
        else:
            await self._mark_submitted(row, job)
        finally:
            self._claiming.discard(row.n)

    async def _post(self, row: Entry) -> Job:
        is_claimed = False

        async def claim() -> None:
            nonlocal is_claimed
            if not await self._claim(row):
                raise _NotClaimed
            is_claimed = True
            self._run.expect_response(row.key)

        accepted: list[Job] = []

        def submission() -> Flow[Job]:
            accepted.append((yield from create(evolve(self._settings, claim=claim), **params)))
            return accepted[0]

        params: dict[str, Any] = hide({**row.params, "project_id": row.project_id})
        try:
            return await self._run.session.run(submission())
        except (APIError, InvalidArgumentError, JobOutcomeUnknownError, _NotClaimed):
            raise
        except TimeoutError:
            # The ledger did not respond. The claim may still be written, but this change comes after it.
            await self._put_back(row, 0.0, "the ledger did not answer in time")
            raise _NotClaimed from None
        except asyncio.CancelledError as error:
            if accepted:
                await asyncio.shield(self._mark_submitted(row, accepted[0]))
            elif is_claimed:
                await asyncio.shield(self._mark_interrupted(row, error.__cause__))
            else:
                # The claim may still be written, but nothing was sent.
                await asyncio.shield(
                    self._put_back(row, 0.0, "the run was stopped before the request was sent")
                )
            raise
        except Exception as error:
            # An exception of the user's code, for example a key function. It runs before the request is sent.
            await self._put_back(row, 0.0, mask(str(error)))
            raise

    async def _mark_interrupted(self, row: Entry, response: BaseException | None) -> None:
        """Note what is known of a submission that was cancelled: the response may have arrived before."""
        if isinstance(response, JobOutcomeUnknownError):
            await self._mark_unknown(row, _with_excerpt(str(response), response), response.job_id)
        elif isinstance(response, APIError):
            await self._handle_error(row, response)
        else:
            await self._mark_unknown(row, "the run was stopped before the response arrived", None)

    async def _claim(self, row: Entry) -> bool:
        self._claiming.discard(row.n)
        now = self._run.ledger.now()
        expires_at = now + self._settings.retry.retry_timeout + CLAIM_MARGIN
        claim = changes.claim(row.n, row.attempts, now, expires_at)
        if not await self._run.change(claim, State.PENDING, State.POSTING):
            return False
        self._run.write_journal(row)
        return True

    async def _mark_submitted(self, row: Entry, job: Job) -> None:
        run = self._run
        run.submitted_count += 1
        run.record_progress()
        self._run.write_journal(row, job.id)
        self._run.note_job(row.key, job.id)
        note = f"job {job.id} was accepted for row {row.key!r}"
        change = changes.submitted(row.n, row.attempts, job.id, run.ledger.now() + self._first_poll_delay())
        try:
            if not await run.change(change, State.POSTING, State.SUBMITTED):
                logger.error("%s, but the ledger has another state for that row. You pay for this job", note)
        except LedgerError as error:
            self._run.unrecorded[row.key] = job.id
            logger.error("%s, but the ledger cannot record it: %s", note, error)
            raise

    async def _handle_error(self, row: Entry, error: APIError) -> None:
        reason = mask(str(error))
        may_retry = self._run.options.retry_server_errors and error.outcome is Outcome.SERVER_FAILED
        if may_retry and error.job_id is None and row.attempts < MAX_SUBMISSIONS:
            logger.warning(
                "row %r is submitted again after a server error; you may pay twice: %s", row.key, reason
            )
            await self._put_back(row, self._delay(row, error.retry_after), reason)
        elif error.job_may_exist or error.outcome is Outcome.UNKNOWN:
            self._record_outage(error)
            await self._mark_unknown(row, _with_excerpt(reason, error), error.job_id)
        elif error.attempts == 0 or error.outcome in {Outcome.REFUSED, Outcome.NOT_SENT}:
            delay = self._delay(row, error.retry_after)
            self._run.record_failure(error, reason, delay)
            if error.retry_after is not None:
                await self._pause(self._run.ledger.now() + error.retry_after)
            await self._put_back(row, delay, reason)
        elif _is_rejected_for_all(error) and error.job_id is None:
            self._run.record_failure(error, f"the API rejects the key: {reason}", REJECTED_KEY_DELAY)
            self._paused_until = self._run.ledger.now() + REJECTED_KEY_DELAY
            await self._put_back(row, 0.0, reason)
        else:
            await self._mark_failed(row, reason, error.job_id)

    async def _pause(self, until: float) -> None:
        """Submit no row before the end of a `Retry-After`, also not in the next run."""
        if until > self._paused_until + 1:
            self._paused_until = until
            await asyncio.to_thread(save_pause, self._run.ledger, until)

    def _record_outage(self, error: APIError | JobOutcomeUnknownError) -> None:
        breaker = self._settings.breaker
        if breaker.problem:
            problem = f"the API does not work, so submissions are paused: {mask(breaker.problem)}"
            self._run.record_failure(error, problem, breaker.wait(self._settings.now()))

    @staticmethod
    def _delay(row: Entry, retry_after: float | None) -> float:
        """Return the seconds until a row is submitted again: `Retry-After`, or an exponential backoff."""
        backoff = min(MIN_BACKOFF * 2 ** min(row.attempts - 1, 10), MAX_BACKOFF)
        return backoff if retry_after is None else retry_after

    async def _put_back(self, row: Entry, delay: float, reason: str) -> None:
        self._run.write_journal(row, False)  # noqa: FBT003 - there is no job
        change = changes.put_back(row.n, row.attempts, self._run.ledger.now() + delay, reason)
        await self._run.change(change, State.POSTING, State.PENDING)

    async def _mark_unknown(self, row: Entry, reason: str, job_id: str | None) -> None:
        change = changes.unknown(row.n, row.attempts, reason, job_id, self._run.ledger.now())
        if job_id is not None:
            self._run.write_journal(row, job_id)
        try:
            is_changed = await self._run.change(change, State.POSTING, State.UNKNOWN)
        except LedgerError:
            if job_id is not None:
                self._run.unrecorded[row.key] = job_id
            raise
        if is_changed:
            self._run.failures += 1
            self._run.report_ended(row, State.UNKNOWN, reason=reason, job_id=job_id)

    async def _mark_failed(self, row: Entry, reason: str, job_id: str | None) -> None:
        self._run.write_journal(row, job_id or False)
        change = changes.refused(row.n, row.attempts, reason, job_id, self._run.ledger.now())
        if await self._run.change(change, State.POSTING, State.FAILED):
            self._run.failures += 1
            self._run.report_ended(row, State.FAILED, reason=reason, job_id=job_id)


def _with_excerpt(reason: str, error: APIError | JobOutcomeUnknownError) -> str:
    """Add the beginning of a response that names no job: a person may find the job in it."""
    if error.job_id is not None or not error.body:
        return reason
    return f"{reason} The response began with: {printable(error.body[:EXCERPT_LENGTH])}"


def _is_rejected_for_all(error: APIError) -> bool:
    """Return whether the key is refused, or a firewall answers: its 403 is a page, the API's is JSON."""
    is_page = isinstance(error, PermissionDeniedError) and not (error.body or "").lstrip().startswith("{")
    return is_page or isinstance(error, AuthenticationError)
