"""Reading answers that are not what the contract says: errors of any shape, and jobs inside them."""

import json
import re
from typing import Any, TypeGuard, cast

from techforge._masking import mask

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_ID_IN_TEXT = re.compile(
    rf'"jobId"\s*:\s*"({_ID.pattern})"|"job"\s*:\s*\{{[^{{}}]*"uuid"\s*:\s*"({_ID.pattern})"'
)
_REASON_LENGTH = 300


def _parsed(body: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", answer) if isinstance(answer, dict) else None


def is_job_id(value: object) -> TypeGuard[str]:
    """Tell whether a value can be the id of a job: a UUID in v1.0.0, and in any case safe in a path."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def reason_in(body: bytes, *secrets: str) -> str:
    """Return what an error answer says of itself, masked: its `message` or `error`, in any shape."""
    answer = _parsed(body) or {}
    for name in ("message", "error"):
        said = answer.get(name)
        if isinstance(said, dict):
            said = cast("dict[str, Any]", said).get("message")
        if said:
            text = mask(said if isinstance(said, str) else json.dumps(said), *secrets)
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
            if is_job_id(job_id):
                status = source.get(status_name)
                return job_id, status if isinstance(status, str) else "unknown"
    else:
        found = _ID_IN_TEXT.search(body.decode("utf-8", "replace"))
        if found:
            return found[1] or found[2], None
    return None, None
