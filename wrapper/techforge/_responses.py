"""Read responses that may not match the contract: error messages and job ids in any format."""

import json
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeGuard, cast

from techforge._masking import mask, printable

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_ID_IN_TEXT = re.compile(
    rf'"job_?id"\s*:\s*"({_ID.pattern})"|"job"\s*:\s*\{{[^{{}}]*"uuid"\s*:\s*"({_ID.pattern})"', re.IGNORECASE
)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
# In a truncated response, an `id` is the job's only where a complete one would have it.
_UUID_IN_TEXT = re.compile(
    rf'(?:^\s*|"(?:job|data)"\s*:\s*)\{{[^{{}}\[\]]*"(?:id|uuid)"\s*:\s*"({_UUID.pattern})"', re.IGNORECASE
)
_ID_IN_LOCATION = re.compile(
    rf"/jobs?/(?:v[0-9]+/)?({_UUID.pattern})(?![\w-])|[?&]job_?id=(?P<query>{_ID.pattern})(?![^&#])",
    re.IGNORECASE,
)
_UUID_IN_PROSE = re.compile(rf"\bjob(?:[ _-]id)?[ :#=]{{1,3}}({_UUID.pattern})(?![\w-])", re.IGNORECASE)
_DEPTH = 5
_REASON_LENGTH = 300
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


def _parse(body: bytes) -> dict[str, Any] | None:
    try:
        response = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", response) if isinstance(response, dict) else None


def is_job_id(value: object) -> TypeGuard[str]:
    """Return whether a value can be a job id: a UUID in v1.0.0, and always safe in a path."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def reason_in(body: bytes, *secrets: str) -> str:
    """Return the masked error text of a response: its `message` or `error`, in any format."""
    response = _parse(body) or {}
    for name in ("message", "error"):
        reason = response.get(name)
        if isinstance(reason, dict):
            reason = cast("dict[str, Any]", reason).get("message")
        if reason:
            text = printable(mask(reason if isinstance(reason, str) else json.dumps(reason), *secrets))
            return text if len(text) <= _REASON_LENGTH else text[:_REASON_LENGTH] + "…"
    return ""


def job_in(body: bytes, headers: Mapping[str, str] = _NO_HEADERS) -> tuple[str | None, str | None]:
    """Return the id and the status of the job in a response: in its body, `Location` or `X-Job-Id`.

    v1.0.0 sends `jobId` and `status`, its successor `job.uuid` and `job.job_status`. If the id is elsewhere
    in the response, or the response is not JSON, the status is None.
    """
    job_id, status = _job_in_body(body)
    if job_id is None and (found := _ID_IN_LOCATION.search(headers.get("location", ""))):
        job_id = found[1] or found["query"]
    if job_id is None:
        names = (name for name in headers if name.replace("-", "").removeprefix("x") == "jobid")
        job_id = next((headers[name] for name in names if is_job_id(headers[name])), None)
    return job_id, status


def _job_in_body(body: bytes) -> tuple[str | None, str | None]:
    response = _parse(body)
    if response is not None:
        row = response.get("job")
        row = cast("dict[str, Any]", row) if isinstance(row, dict) else {}
        for source, id_name, status_name in ((response, "jobId", "status"), (row, "uuid", "job_status")):
            job_id = source.get(id_name)
            if is_job_id(job_id):
                status = source.get(status_name)
                return job_id, status if isinstance(status, str) else "unknown"
        if job_id := next(_job_ids(response, _DEPTH), None) or _uuid_of(response):
            return job_id, None
    # Also JSON: it may repeat a name, and then only the last value counts.
    text = body.decode("utf-8", "replace")
    if found := _ID_IN_TEXT.search(text):
        return found[1] or found[2], None
    found = _UUID_IN_PROSE.search(text) or (_UUID_IN_TEXT.search(text) if response is None else None)
    return (found[1] if found else None), None


def _job_ids(value: object, depth: int) -> Iterator[str]:
    """Yield the values of `jobId` and `job_id` at any depth."""
    if depth and isinstance(value, dict | list):
        fields = cast("dict[str, Any] | list[Any]", value)
        for name, inner in fields.items() if isinstance(fields, dict) else enumerate(fields):
            if str(name).lower() in {"jobid", "job_id"} and is_job_id(inner):
                yield inner
            yield from _job_ids(inner, depth - 1)


def _uuid_of(response: dict[str, Any]) -> str | None:
    """Return the UUID in `id` or `uuid` of a response, or of its `job` or `data`."""
    listed: list[Any] = response["jobs"] if isinstance(response.get("jobs"), list) else []
    only = listed if len(listed) == 1 else []
    for source in (response, response.get("job"), response.get("data"), *only):
        if isinstance(source, dict):
            for name in ("id", "uuid"):
                found = cast("dict[str, Any]", source).get(name)
                if isinstance(found, str) and _UUID.fullmatch(found):
                    return found
    return None
