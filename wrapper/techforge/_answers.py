"""Reading answers that are not what the contract says: errors of any shape, and jobs inside them."""

import json
import re
from typing import Any, cast

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_ID_IN_TEXT = re.compile(rf'"(?:jobId|uuid)"\s*:\s*"({_ID.pattern})"')
_REASON_LENGTH = 300


def _parsed(body: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", answer) if isinstance(answer, dict) else None


def reason_in(body: bytes) -> str:
    """Return what an error answer says of itself: `message` or `error`, in whatever shape they come."""
    answer = _parsed(body) or {}
    for name in ("message", "error"):
        said = answer.get(name)
        if isinstance(said, dict):
            said = cast("dict[str, Any]", said).get("message")
        if said:
            text = said if isinstance(said, str) else json.dumps(said)
            return text if len(text) <= _REASON_LENGTH else text[:_REASON_LENGTH] + "…"
    return ""


def job_in(body: bytes) -> tuple[str | None, str | None]:
    """Return the id and the status of the job that an answer names.

    v1.0.0 answers `jobId` and `status`, its successor `job.uuid` and `job.job_status`. Where the answer
    is no JSON but an id can be made out, the status is None.
    """
    answer = _parsed(body)
    if answer is not None:
        row = answer.get("job")
        row = cast("dict[str, Any]", row) if isinstance(row, dict) else {}
        for source, id_name, status_name in ((answer, "jobId", "status"), (row, "uuid", "job_status")):
            job_id = source.get(id_name)
            if isinstance(job_id, str) and _ID.fullmatch(job_id):
                status = source.get(status_name)
                return job_id, status if isinstance(status, str) else "unknown"
    found = _ID_IN_TEXT.search(body.decode("utf-8", "replace"))
    return (found[1], None) if found else (None, None)
