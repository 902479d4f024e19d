"""Parse the times that servers send."""

import math
import re
from datetime import UTC, datetime, timedelta, timezone

_YEAR = re.compile(r"\d{4}|\d-[A-Za-z]{3}-\d\d")
_MAX_LENGTH = 64
MAX_RETRY_AFTER = 24 * 3600.0
"""Ignore a longer `Retry-After`, in seconds. It is a mistake, such as a Unix time."""
_SECONDS = re.compile(r"\d+(\.\d+)?(\s*,\s*\d+(\.\d+)?)*", re.ASCII)


def _zone(_name: str | None, offset: int | None) -> timezone:
    return timezone(timedelta(seconds=offset or 0))


def read_instant(text: object) -> datetime | None:
    """Return an HTTP date or an ISO 8601 string as an aware datetime, or None if it is neither.

    A time without a zone is taken as UTC.

    >>> read_instant("2024-12-01T12:00:00Z").isoformat()
    '2024-12-01T12:00:00+00:00'
    """
    # The parser would take missing parts from today's date, so "12" alone would be a date: require a year.
    if not isinstance(text, str) or not _YEAR.search(text) or len(text) > _MAX_LENGTH:
        return None
    try:
        instant = _parse(text)
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except (ValueError, OverflowError, TypeError):
        return None


def _parse(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        # `_zone` takes unknown zones as UTC, since dateutil warns about them otherwise.
        from dateutil import parser  # noqa: PLC0415 - times as the API documents them do not need it

        return parser.parse(text, tzinfos=_zone)


def read_retry_after(value: str | None, now: datetime) -> float | None:
    """Return a `Retry-After` header in seconds, or None if it cannot be parsed or exceeds 24 hours.

    It may be seconds or an HTTP date (RFC 9110, section 10.2.3). A date is relative to `now`: pass the
    response's own `Date`, so that a wrong local clock does no harm.

    >>> from datetime import UTC, datetime
    >>> now = datetime(2024, 12, 1, 12, 0, tzinfo=UTC)
    >>> read_retry_after("120", now), read_retry_after("Sun, 01 Dec 2024 12:00:30 GMT", now)
    (120.0, 30.0)
    """
    if value is None:
        return None
    value = value.strip()
    # A repeated header arrives as one value with a comma. The longer pause is the safe one.
    if _SECONDS.fullmatch(value):
        seconds = max(float(pause) for pause in value.split(","))
    else:
        instant = read_instant(value)
        seconds = math.inf if instant is None else max(0.0, (instant - now).total_seconds())
    return seconds if seconds <= MAX_RETRY_AFTER else None
