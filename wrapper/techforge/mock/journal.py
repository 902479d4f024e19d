"""The journal: what reached the mock, and what it did about it."""

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
    """Header fields as received, by lower-case name; the repr keeps credentials to itself."""

    def masked(self) -> dict[str, str]:
        """Return the same fields with the credentials masked."""
        secret = contract().key_headers | {"authorization"}
        return {name: _MASK if name in secret else value for name, value in self.items()}

    def __repr__(self) -> str:
        return repr(self.masked())


@frozen
class Record:
    """One request. `status` is None as long as, or because, no answer was sent."""

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
        """Return what the body says; None where there is none.

        Raises:
            ValueError: it is not JSON.
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
    """All requests in order of arrival, safe to read from any thread."""

    _records: dict[int, Record] = field(factory=dict[int, Record], init=False)
    _numbers: "count[int]" = field(factory=count, init=False, repr=False)
    _lock: Lock = field(factory=Lock, init=False, repr=False)

    def open(self, record: Record) -> Callable[..., None]:
        """Add a request that has just arrived; return what amends it as more becomes known."""
        with self._lock:
            number = next(self._numbers)
            self._records[number] = record

        def amend(**changes: Any) -> None:
            with self._lock:
                # The journal may have been cleared while the request was being answered.
                if number in self._records:
                    self._records[number] = evolve(self._records[number], **changes)

        return amend

    def requests(self, *, operation: str | None = None, server: Origin | None = None) -> list[Record]:
        """Return the requests so far; only those of one operation or origin, if given."""
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
        """Forget every request."""
        with self._lock:
            self._records.clear()
