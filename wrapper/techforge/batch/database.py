"""What a ledger asks of the database that keeps it: an SQLite file, or PostgreSQL."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from techforge.errors import TechForgeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from techforge.batch.changes import Change

T = TypeVar("T")


class LedgerError(TechForgeError):
    """A ledger that cannot be used."""


class NoLedgerError(LedgerError):
    """There is no ledger where one was looked for."""


def without_password(place: str) -> str:
    """Return a path or URL as it can be shown."""
    if "://" not in place:
        return place
    # Up to the last @: a password may hold what ends other URLs.
    shown = re.sub(r"(//[^:@/?#]*):.*@", r"\1@", place)
    return re.sub(r"(?i)([?&]\w*password=)[^&]*", r"\1***", shown)


class Cursor(Protocol):
    """What came of a statement."""

    @property
    def rowcount(self) -> int:
        """How many rows it has changed."""
        ...

    def fetchone(self) -> Any:
        """Return the next row, or None."""
        ...

    def fetchall(self) -> list[Any]:
        """Return all rows."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """What statements are given to; a `?` stands for a value in any of them."""

    def execute(self, sql: str, values: Sequence[object] = (), /) -> Cursor:
        """Carry a statement out."""
        ...


class Database(Protocol):
    """One campaign's database; safe to share between threads. All that it raises is a `LedgerError`.

    SQL is the same everywhere, but for what the attributes say.
    """

    name: str
    """What people know it by; there is no password in it."""
    is_shared: bool
    """Whether several processes may run the campaign at once."""
    serial: str
    """The type of a number that each row is given."""
    skip_locked: str
    """What makes a SELECT leave out the rows that somebody else is changing."""

    def now(self) -> float:
        """Return the seconds since 1970, by one clock for all processes."""
        ...

    def tables(self) -> set[str]:
        """Return the names of its tables."""
        ...

    def create(self, statements: Sequence[str]) -> None:
        """Make its tables, unless another process is faster."""
        ...

    def run(self, work: Callable[[Connection], T]) -> T:
        """Do all of some work, or nothing of it; it is on disk when this returns."""
        ...

    def read(self, sql: str, values: Sequence[object] = ()) -> list[Any]:
        """Return the rows that a statement yields."""
        ...

    def apply(self, changes: Sequence[Change]) -> list[bool]:
        """Carry out changes together, and tell of each whether it has found its row as it must be."""
        ...

    def insert(self, rows: Iterable[Sequence[object]]) -> int:
        """Add jobs, by key, line, params and metadata, whose keys are not there yet; return how many.

        All are added, or none if the iterable raises.
        """
        ...

    def alone(self) -> AbstractContextManager[None]:
        """Be the only process that runs the campaign, unless several may."""
        ...

    def close(self) -> None:
        """Close it; a second time does nothing."""
        ...
