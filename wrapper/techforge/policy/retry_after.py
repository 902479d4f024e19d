"""Reading the times that servers send."""

import math
import re
from datetime import UTC, datetime, timedelta, timezone

_YEAR = re.compile(r"\d{4}|\d-[A-Za-z]{3}-\d\d")
_LONGEST = 64
_SECONDS = re.compile(r"\d+(\.\d+)?(\s*,\s*\d+(\.\d+)?)*", re.ASCII)


def _zone(_name: str | None, offset: int | None) -> timezone:
    return timezone(timedelta(seconds=offset or 0))


def read_instant(text: object) -> datetime | None:
    """Return an aware datetime from an HTTP date or an ISO 8601 string, None if it is neither.

    A time without a zone is taken as UTC.

    >>> read_instant("2024-12-01T12:00:00Z").isoformat()
    '2024-12-01T12:00:00+00:00'
    """
    # The parser fills what is missing from today ("12" alone would be a date), so a year must be there.
    if not isinstance(text, str) or not _YEAR.search(text) or len(text) > _LONGEST:
        return None
    try:
        instant = _parsed(text)
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except (ValueError, OverflowError, TypeError):
        return None


def _parsed(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        # It reads all else that is in use. A zone that it does not know is taken as UTC; else it would warn.
        from dateutil import parser  # noqa: PLC0415 - what the API documents needs none of it

        return parser.parse(text, tzinfos=_zone)


def read_retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds that a `Retry-After` header asks for, None if it cannot be read.

    Both forms of RFC 9110, section 10.2.3: seconds, or an HTTP date, which counts from `now` (the
    answer's own `Date` where it has one, so that a wrong local clock does no harm).

    >>> from datetime import UTC, datetime
    >>> now = datetime(2024, 12, 1, 12, 0, tzinfo=UTC)
    >>> read_retry_after("120", now), read_retry_after("Sun, 01 Dec 2024 12:00:30 GMT", now)
    (120.0, 30.0)
    """
    if value is None:
        return None
    value = value.strip()
    # A header that came twice arrives as one, with a comma; the longer pause is the safe one.
    if _SECONDS.fullmatch(value):
        seconds = max(float(pause) for pause in value.split(","))
        return seconds if math.isfinite(seconds) else None
    instant = read_instant(value)
    return None if instant is None else max(0.0, (instant - now).total_seconds())
