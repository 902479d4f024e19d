"""The journal: all requests to the mock, and how it responded."""

import json
from collections.abc import Callable
from itertools import count
from threading import Lock
from typing import Any, Literal

from attrs import evolve, field, frozen

from techforge.mock.contract import contract
from techforge.mock.faults import Fault

Origin = Literal["api", "storage"]

_MASK = "***"


class Headers(dict[str, str]):
    """Received header fields by lower-case name. The repr masks credentials."""

    def masked(self) -> dict[str, str]:
        """Return the same fields with the credentials masked."""
        secret = contract().key_headers | {"authorization"}
        return {name: _MASK if name in secret else value for name, value in self.items()}

    def __repr__(self) -> str:
        return repr(self.masked())


@frozen
class Record:
    """One request. `status` is None if no response was sent (yet)."""

    time: float
    server: Origin
    operation: str | None
    method: str
    path: str
    query: str
    headers: Headers
    body: bytes = b""
    status: int | None = None
    fault: Fault | None = None
    job_id: str | None = None

    def json(self) -> Any:
        """Return the parsed JSON body, or None without a body.

        Raises:
            ValueError: the body is not JSON.
        """
        return json.loads(self.body) if self.body else None

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON, with the credentials masked."""
        return {
            "time": self.time,
            "server": self.server,
            "operation": self.operation,
            "method": self.method,
            "path": self.path,
            "query": self.query,
            "headers": self.headers.masked(),
            "body": self.body.decode("utf-8", "replace"),
            "status": self.status,
            "fault": self.fault.spec if self.fault else None,
            "job_id": self.job_id,
        }


@frozen(eq=False)
class Journal:
    """All requests in order of arrival. It is safe to read from any thread."""

    _records: dict[int, Record] = field(factory=dict[int, Record], init=False)
    _numbers: "count[int]" = field(factory=count, init=False, repr=False)
    _lock: Lock = field(factory=Lock, init=False, repr=False)

    def open(self, record: Record) -> Callable[..., None]:
        """Add a new request; return a function that updates its record."""
        with self._lock:
            number = next(self._numbers)
            self._records[number] = record

        def amend(**changes: Any) -> None:
            with self._lock:
                # The journal may have been cleared meanwhile.
                if number in self._records:
                    self._records[number] = evolve(self._records[number], **changes)

        return amend

    def requests(self, *, operation: str | None = None, server: Origin | None = None) -> list[Record]:
        """Return the requests so far, optionally of one operation or one server."""
        with self._lock:
            records = list(self._records.values())
        return [
            record
            for record in records
            if operation in {None, record.operation} and server in {None, record.server}
        ]

    def count(self, *, operation: str | None = None, server: Origin | None = None) -> int:
        """Return how many requests `requests` would return."""
        return len(self.requests(operation=operation, server=server))

    def clear(self) -> None:
        """Delete all requests."""
        with self._lock:
            self._records.clear()
