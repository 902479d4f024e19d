"""Faults that the mock can inject, and the specs that describe them."""

import json
import math
import random
import time
from collections.abc import Callable, Iterator
from threading import Lock
from typing import Any, Literal, TypeVar

from attrs import define, field, fields, frozen

from techforge.mock.contract import contract

STORAGE = "storage"
"""The operation name of all requests to storage."""

Body = Literal["html", "truncated", "broken-json", "empty"]
Close = Literal["before-body", "after-body", "mid-answer"]

_T = TypeVar("_T")


@frozen
class Fault:
    """One deviation from the contract, and the requests that it applies to.

    With a status of 400 or more, the mock does not process the request. Otherwise it processes the request,
    so the job exists, and changes the response. `create` overrides this.
    """

    status: int | None = None
    retry_after: str | None = None
    """Seconds, or `date:SECONDS` for an HTTP date that many seconds after the response."""
    delay: float = 0.0
    """Seconds between processing the request and responding."""
    body: Body | None = None
    json: str | None = None
    """The body of the response. `$job_id` in it is replaced by the id of the new job."""
    close: Close | None = None
    reset: bool = False
    """Reset the connection instead of closing it."""
    drip: float = 0.0
    """Seconds before each byte of the response body."""
    create: bool | None = None
    cdn_status: int | None = None
    cdn_close_after: int | None = None
    """Close the connection after this many bytes of the object."""
    cdn_ignore_range: bool = False
    cdn_change_etag: bool = False
    cdn_expired: bool = False
    operation: str | None = None
    """The operation it applies to; None for all operations of the API."""
    times: int = 1
    """How many requests it applies to; 0 for all."""
    after: int = 0
    """How many matching requests pass first."""
    over: float | None = None
    """Requests per second that pass, with a burst of one second."""
    share: float = 1.0
    """The random share of requests that it applies to, from 0 to 1."""

    def __attrs_post_init__(self) -> None:
        """Raise a ValueError for combinations that have no meaning."""
        if self.of_storage and self.operation not in {None, STORAGE}:
            raise ValueError(f"fault {self.spec!r}: cdn-… faults are for operation=storage only")
        if self.reset and not (self.close or self.body == "truncated" or self.cdn_close_after is not None):
            raise ValueError(f"fault {self.spec!r}: reset needs close=…, body=truncated or cdn-close-after=…")
        if self.retry_after is not None and self.status is None:
            raise ValueError(f"fault {self.spec!r}: retry-after needs status=…")
        if self.json is not None and self.body in {"html", "empty"}:
            raise ValueError(f"fault {self.spec!r}: json=… and body={self.body} exclude each other")

    @property
    def of_storage(self) -> bool:
        """Whether only storage has this kind of fault."""
        return (
            self.cdn_status is not None
            or self.cdn_close_after is not None
            or self.cdn_ignore_range
            or self.cdn_change_etag
            or self.cdn_expired
        )

    @property
    def carries_out(self) -> bool:
        """Whether the mock processes the request, whatever the response is."""
        if self.create is not None:
            return self.create
        return self.close != "before-body" and (self.status is None or self.status < 400)

    @property
    def rewrites(self) -> bool:
        """Whether the response differs from the operation's own."""
        return bool(self.status or self.body or self.json is not None or self.close or self.create is False)

    def aims_at(self, operation: str | None) -> bool:
        """Return whether it applies to requests of this operation."""
        if operation is None:
            return False
        if self.operation is None:
            return (operation == STORAGE) == self.of_storage
        return self.operation == operation

    @property
    def spec(self) -> str:
        """The spec of this fault, as `parse` reads it."""
        parts: list[str] = []
        for attribute in fields(type(self)):
            value = getattr(self, attribute.name)
            if value != attribute.default:
                shown = int(value) if isinstance(value, bool) else value
                parts.append(f"{attribute.name.replace('_', '-')}={shown}")
        return ";".join(parts)

    @staticmethod
    def parse(spec: str) -> "Fault":
        """Read one spec, such as `status=429;retry-after=2;times=3`.

        Raises:
            ValueError: a part is not valid; the message names it and lists what is allowed.
        """
        faults = parse_faults(spec)
        if len(faults) != 1:
            raise ValueError(f"fault {spec!r}: one fault expected, not {len(faults)} separated by '|'")
        return faults[0]


def parse_faults(specs: str) -> list[Fault]:
    """Read one or more specs, separated by `|`."""
    faults: list[dict[str, Any]] = [{}]
    for key, value, separator in _parts(specs):
        if key not in _READERS:
            raise ValueError(f"fault {specs!r}: unknown part {key!r}; allowed are {', '.join(_READERS)}")
        try:
            faults[-1][key.replace("-", "_")] = _READERS[key](value)
        except ValueError as error:
            raise ValueError(f"fault {specs!r}: {key}={value!r} is not {error}") from None
        if separator == "|":
            faults.append({})
    return [Fault(**parts) for parts in faults]


def _parts(specs: str) -> Iterator[tuple[str, str, str]]:
    """Split specs into key, value and the next separator. JSON may contain separators itself."""
    rest = specs
    while True:
        key, equals, rest = rest.partition("=")
        key = key.strip()
        if not equals:
            raise ValueError(f"fault {specs!r}: {key!r} is not KEY=VALUE; keys are {', '.join(_READERS)}")
        end = _end_of_json(specs, rest) if key == "json" else _end_of_value(rest)
        value, separator, rest = rest[:end], rest[end : end + 1], rest[end + 1 :]
        yield key, value.strip(), separator
        if not separator:
            return


def _end_of_value(text: str) -> int:
    return min((at for at in (text.find(";"), text.find("|")) if at >= 0), default=len(text))


def _end_of_json(specs: str, text: str) -> int:
    try:
        end = json.JSONDecoder().raw_decode(text)[1]
    except ValueError as error:
        raise ValueError(f"fault {specs!r}: json={text!r} is not JSON ({error})") from None
    if text[end : end + 1] not in {"", ";", "|"}:
        raise ValueError(f"fault {specs!r}: {text[end:]!r} follows the JSON; ';' or '|' may")
    return end


def _number(kind: Callable[[str], _T], low: float, high: float, what: str) -> Callable[[str], _T]:
    def read(text: str) -> _T:
        try:
            value = kind(text)
        except ValueError:
            raise ValueError(what) from None
        if not low <= float(text) <= high:
            raise ValueError(what)
        return value

    return read


def _choice(*allowed: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"one of {', '.join(allowed)}")
        return text

    return read


def _flag(text: str) -> bool:
    return _choice("1", "0")(text) == "1"


def _retry_after(text: str) -> str:
    _count_of_seconds(text.removeprefix("date:"))
    return text


def _operation(text: str) -> str:
    return _choice(*(operation.id for operation in contract().operations), STORAGE)(text)


_count = _number(int, 0, 10**12, "a whole number from 0 on")
_status = _number(int, 200, 599, "a status from 200 to 599")
_seconds = _number(float, 0, 3600, "a number of seconds from 0 to 3600")
_share = _number(float, 0, 1, "a number from 0 to 1")
_rate = _number(float, 0.01, 10**6, "a number of requests per second from 0.01 on")
_count_of_seconds = _number(int, 0, 10**6, "a whole number of seconds, or date: and such a number")

_READERS: dict[str, Callable[[str], object]] = {
    "status": _status,
    "retry-after": _retry_after,
    "delay": _seconds,
    "body": _choice("html", "truncated", "broken-json", "empty"),
    "json": str,
    "close": _choice("before-body", "after-body", "mid-answer"),
    "reset": _flag,
    "drip": _seconds,
    "create": _flag,
    "cdn-status": _status,
    "cdn-close-after": _count,
    "cdn-ignore-range": _flag,
    "cdn-change-etag": _flag,
    "cdn-expired": _flag,
    "operation": _operation,
    "times": _count,
    "after": _count,
    "over": _rate,
    "share": _share,
}


@define(eq=False)
class _Armed:
    fault: Fault
    seen: int = 0
    fired: int = 0
    passing: float = math.inf
    """How many more requests pass now, if the fault has a rate."""
    filled: float = 0.0

    def fires(self) -> bool:
        """Count a matching request; return whether the fault applies to it."""
        self.seen += 1
        if self.seen <= self.fault.after or (self.fault.times and self.fired >= self.fault.times):
            return False
        if self.fault.share < 1 and random.random() >= self.fault.share:  # noqa: S311 - not a secret
            return False
        return self.fault.over is None or not self._passes(self.fault.over)

    def _passes(self, rate: float) -> bool:
        now = time.monotonic()
        self.passing = min(self.passing + (now - self.filled) * rate, max(rate, 1.0))
        self.filled = now
        if self.passing < 1:
            return False
        self.passing -= 1
        return True


@define(eq=False)
class Faults:
    """The faults of one run, in the order in which they were added."""

    _armed: list[_Armed] = field(factory=list[_Armed], init=False)
    _lock: Lock = field(factory=Lock, init=False, repr=False)

    def add(self, *faults: Fault | str) -> None:
        """Add faults or specs of faults. Each applies to the next requests that match it."""
        for fault in faults:
            found = [fault] if isinstance(fault, Fault) else parse_faults(fault)
            with self._lock:
                self._armed += map(_Armed, found)

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._armed.clear()

    def pending(self) -> list[Fault]:
        """Return the faults that still apply to future requests."""
        with self._lock:
            return [a.fault for a in self._armed if not a.fault.times or a.fired < a.fault.times]

    def take(self, operation: str | None) -> Fault | None:
        """Return the fault for a request, or None. A request gets at most one."""
        with self._lock:
            ready = [a for a in self._armed if a.fault.aims_at(operation) and a.fires()]
            if not ready:
                return None
            ready[0].fired += 1
            return ready[0].fault
