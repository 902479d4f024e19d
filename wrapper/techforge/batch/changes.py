"""The state changes of a row. Each is one SQL statement that names the state it expects.

    pending ── posting ── submitted ── done
       ↑          ├────── failed
       └──────────┤
                  └────── unknown ──── submitted, if the response arrives late or the video is found

The attempt number is a fence: a late response to one attempt does not change a later one. A job's id is
stored whenever it is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve, frozen

if TYPE_CHECKING:
    from collections.abc import Sequence


@frozen
class Change:
    """A statement that changes row `n`, or has no effect if the row is in another state."""

    sql: str
    values: Sequence[object]
    n: int
    is_claim: bool = False


def _change(changes: str, states: str, values: Sequence[object], n: int, *where: object) -> Change:
    stored = [_storable(value) if isinstance(value, str) else value for value in values]
    return Change(f"UPDATE jobs SET {changes} WHERE n = ? AND {states}", (*stored, n, *where), n)  # noqa: S608


def _storable(text: str) -> str:
    """Escape surrogates and NUL, which databases reject: a reason may contain text from a server."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def claim(n: int, attempt: int, now: float, until: float) -> Change:
    """Claim a row for its `attempt`th submission. The claim expires at `until`; then the row is unknown."""
    changes = "state = 'posting', attempts = ?, posted_at = ?, next_at = ?"
    change = _change(changes, "state = 'pending' AND attempts = ?", (attempt, now, until), n, attempt - 1)
    return evolve(change, is_claim=True)


def submitted(n: int, attempt: int, job_id: str, next_at: float) -> Change:
    """Record the job of a row, and poll it from `next_at` on.

    The response may be late: the row may already be unknown, or pending again, or restored from the journal.
    """
    changes = "state = 'submitted', job_id = ?, next_at = ?, reason = NULL, ended_at = NULL"
    states = (
        "(state IN ('unknown', 'pending') OR state = 'posting' AND attempts = ? "
        "OR state = 'submitted' AND job_id = ?)"
    )
    return _change(changes, states, (job_id, next_at), n, attempt, job_id)


def put_back(n: int, attempt: int, next_at: float, reason: str) -> Change:
    """Return a row to pending: this attempt certainly created no job."""
    changes = "state = 'pending', next_at = ?, reason = ?"
    return _change(changes, "state = 'posting' AND attempts = ?", (next_at, reason), n, attempt)


def refused(n: int, attempt: int, reason: str, job_id: str | None, now: float) -> Change:
    """Record that the API rejected a row."""
    changes = "state = 'failed', reason = ?, job_id = COALESCE(?, job_id), ended_at = ?"
    return _change(changes, "state = 'posting' AND attempts = ?", (reason, job_id, now), n, attempt)


def unknown(n: int, attempt: int, reason: str, job_id: str | None, now: float) -> Change:
    """Record that a job may exist."""
    changes = "state = 'unknown', reason = ?, job_id = COALESCE(?, job_id), ended_at = ?"
    return _change(changes, "state = 'posting' AND attempts = ?", (reason, job_id, now), n, attempt)


def restored(n: int, known_attempt: int, attempt: int, job_id: str | None, now: float) -> Change:
    """Record a submission that the ledger has lost: its job, or that a job may exist.

    When it was sent is not known, so its job is polled as long as one that is submitted now.
    """
    state, ended_at = ("unknown", now) if job_id is None else ("submitted", None)
    reason = None if job_id else "the ledger lost this submission; a journal has it, without a response"
    changes = "state = ?, attempts = ?, job_id = ?, reason = ?, next_at = 0, ended_at = ?, posted_at = ?"
    states = "job_id IS NULL AND attempts = ?"
    return _change(changes, states, (state, attempt, job_id, reason, ended_at, now), n, known_attempt)


def poll_later(n: int, next_at: float) -> Change:
    """Set the time of the next poll of a row's job."""
    return _change("next_at = ?", "state = 'submitted'", (next_at,), n)


def failed(n: int, reason: str, now: float) -> Change:
    """Record that a row's job failed."""
    return _change("state = 'failed', reason = ?, ended_at = ?", "state = 'submitted'", (reason, now), n)


def corrected(n: int, attempt: int, job_id: str) -> Change:
    """Record the job's id that a user entered. The job is polled immediately.

    The reason keeps an id that it replaces: that one may be the paid job.
    """
    reason = "CASE WHEN job_id IS NULL THEN NULL ELSE 'entered in place of job ' || job_id END"
    changes = f"state = 'submitted', reason = {reason}, job_id = ?, next_at = 0, ended_at = NULL"
    return _change(changes, "state IN ('unknown', 'submitted') AND attempts = ?", (job_id,), n, attempt)


def done(n: int, file: str | None, now: float, reason: str | None = None) -> Change:
    """Record that a row's video exists. `reason` says why it was not downloaded."""
    changes = "state = 'done', file = ?, ended_at = ?, reason = ?"
    return _change(changes, "state = 'submitted'", (file, now, reason), n)


def fetched(n: int, file: str) -> Change:
    """Record the file of a finished row's video."""
    return _change("file = ?, reason = NULL", "state = 'done'", (file,), n)
