"""What may happen to a row, each a statement that changes it only where it is as it must be.

    pending ── posting ── submitted ── done
       ↑          ├────── failed
       └──────────┤
                  └────── unknown ──── submitted, if its answer comes late, or its video turns up

The number of the attempt is a fence: what is heard of one attempt does not touch a later one. A job's id is
noted wherever it can be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Sequence


@frozen
class Change:
    """A statement that changes row `n`, or leaves it as it is."""

    sql: str
    values: Sequence[object]
    n: int


def _change(changes: str, states: str, values: Sequence[object], n: int, *where: object) -> Change:
    kept = [_storable(value) if isinstance(value, str) else value for value in values]
    return Change(f"UPDATE jobs SET {changes} WHERE n = ? AND {states}", (*kept, n, *where), n)  # noqa: S608


def _storable(text: str) -> str:
    """Return a text that any database takes: a reason is somebody else's, and may hold anything."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def claim(n: int, attempt: int, now: float, until: float) -> Change:
    """Take a row to submit it for the `attempt`th time; after `until` it is anybody's to call unknown."""
    changes = "state = 'posting', attempts = ?, posted_at = ?, next_at = ?"
    return _change(changes, "state = 'pending' AND attempts = ?", (attempt, now, until), n, attempt - 1)


def submitted(n: int, attempt: int, job_id: str, next_at: float) -> Change:
    """Note a job, which is to be looked at from `next_at` on.

    Its answer may be late: meanwhile the row may have been taken for unknown, and even been let go again.
    """
    changes = "state = 'submitted', job_id = ?, next_at = ?, reason = NULL, ended_at = NULL"
    states = "(state IN ('unknown', 'pending') OR state = 'posting' AND attempts = ?)"
    return _change(changes, states, (job_id, next_at), n, attempt)


def put_back(n: int, attempt: int, next_at: float, reason: str) -> Change:
    """Let a row be claimed again: it is certain that this attempt has made no job."""
    changes = "state = 'pending', next_at = ?, reason = ?"
    return _change(changes, "state = 'posting' AND attempts = ?", (next_at, reason), n, attempt)


def refused(n: int, attempt: int, reason: str, job_id: str | None, now: float) -> Change:
    """Note that the API will not make a job of a row."""
    changes = "state = 'failed', reason = ?, job_id = COALESCE(?, job_id), ended_at = ?"
    return _change(changes, "state = 'posting' AND attempts = ?", (reason, job_id, now), n, attempt)


def unknown(n: int, attempt: int, reason: str, job_id: str | None, now: float) -> Change:
    """Note that a job may have been made."""
    changes = "state = 'unknown', reason = ?, job_id = COALESCE(?, job_id), ended_at = ?"
    return _change(changes, "state = 'posting' AND attempts = ?", (reason, job_id, now), n, attempt)


def look_again(n: int, next_at: float) -> Change:
    """Say when a row's job is to be looked at next."""
    return _change("next_at = ?", "state = 'submitted'", (next_at,), n)


def failed(n: int, reason: str, now: float) -> Change:
    """Note that a row's job has failed."""
    return _change("state = 'failed', reason = ?, ended_at = ?", "state = 'submitted'", (reason, now), n)


def corrected(n: int, attempt: int, job_id: str) -> Change:
    """Note the job that a person knows of, in place of none or of another one; it is polled immediately."""
    changes = "state = 'submitted', job_id = ?, next_at = 0, reason = NULL, ended_at = NULL"
    return _change(changes, "state IN ('unknown', 'submitted') AND attempts = ?", (job_id,), n, attempt)


def done(n: int, file: str | None, now: float, reason: str | None = None) -> Change:
    """Note that a row's video exists; the reason says why it was not downloaded."""
    changes = "state = 'done', file = ?, ended_at = ?, reason = ?"
    return _change(changes, "state = 'submitted'", (file, now, reason), n)


def fetched(n: int, file: str) -> Change:
    """Note where the video of a finished row was downloaded to."""
    return _change("file = ?, reason = NULL", "state = 'done'", (file,), n)
