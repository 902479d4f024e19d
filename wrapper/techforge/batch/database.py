"""What a ledger asks of the database that keeps it: an SQLite file, or PostgreSQL."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from techforge.errors import TechForgeError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from techforge.batch.changes import Change

T = TypeVar("T")
ARRIVING = "key", "line", "params", "metadata", "content", "project_id", "state", "reason"
"""The columns of rows that are being loaded; `place`, their order, comes first."""


class LedgerError(TechForgeError):
    """A ledger that cannot be used."""


class NoLedgerError(LedgerError):
    """There is no ledger, or no campaign in it, where one was looked for."""


_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # one letter is a drive of Windows
_LIBPQ = re.compile(r"\s*(host|hostaddr|port|dbname|user|service|password|passfile|sslmode)\s*=")
_POSTGRES = re.compile(r"postgres(ql)?://", re.IGNORECASE)


def postgres_url(place: str | os.PathLike[str]) -> str | None:
    """Return the URL of a ledger in PostgreSQL, None if the ledger is a file.

    What looks like an address of a database and is not a PostgreSQL URL must not become a local file: each
    machine would have a ledger of its own, and all of them would submit all rows.

    Raises:
        LedgerError: it is neither a path nor a PostgreSQL URL.
    """
    if not isinstance(place, str):
        return None
    if scheme := _POSTGRES.match(place):
        return scheme[0].lower() + place[scheme.end() :]
    if _LIBPQ.match(place):
        raise LedgerError(
            "the ledger is given as a connection string; write it as a URL: "
            "postgresql://user@host/database, or postgresql:///?service=NAME for a service file"
        )
    if _SCHEME.match(place):
        raise LedgerError(
            f"{without_password(place)} is not a place for a ledger: it is a path, or postgresql://user@host/database"
        )
    return None


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
    stem: str
    """The name for a campaign that has none: of the file, or of the schema."""

    def now(self) -> float:
        """Return the seconds since 1970, by one clock for all processes."""
        ...

    def tables(self) -> set[str]:
        """Return the names of its tables."""
        ...

    def create(self, work: Callable[[Connection, set[str]], T]) -> T:
        """Create or change tables in one transaction, while no other process does.

        `work` is given the names of the tables that exist by then.
        """
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

    def load(self, rows: Iterable[Sequence[object]], work: Callable[[Connection], T]) -> T:
        """Put rows into the temporary table `arriving`, and do some work on it in the same transaction.

        `ARRIVING` names the columns. Nothing changes if the iterable or the work raises.
        """
        ...

    def alone(self) -> AbstractContextManager[None]:
        """Be the only process that runs the campaign, unless several may."""
        ...

    def close(self) -> None:
        """Close it; a second time does nothing."""
        ...
