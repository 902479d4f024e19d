"""The interface between a ledger and its database: an SQLite file or PostgreSQL."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from techforge._masking import PASSWORD, as_typed
from techforge.errors import LedgerError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from techforge.batch.changes import Change

T = TypeVar("T")
ARRIVING = "key", "line", "params", "metadata", "content", "project_id", "state", "reason"
"""The columns of the table `arriving`, without the first one, `place`, which has the order."""


_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # one letter is a drive on Windows
_LIBPQ = re.compile(r"\s*(host|hostaddr|port|dbname|user|service|password|passfile|sslmode)\s*=")
_POSTGRES = re.compile(r"postgres(ql)?://", re.IGNORECASE)


def postgres_url(place: str | os.PathLike[str]) -> str | None:
    """Return the URL of a ledger in PostgreSQL, or None if the ledger is a file.

    Other database addresses are rejected. As a file name, such an address would give each machine a ledger of
    its own, and each machine would submit all rows.

    Raises:
        LedgerError: `place` is neither a path nor a PostgreSQL URL.
    """
    if not isinstance(place, str):
        return None
    if scheme := _POSTGRES.match(place):
        return scheme[0].lower() + place[scheme.end() :]
    if _LIBPQ.match(place):
        raise LedgerError(
            "the ledger must be a path or a URL, not a connection string. Write "
            "postgresql://user@host/database, or postgresql:///?service=NAME for a service file"
        )
    if _SCHEME.match(place):
        raise LedgerError(
            f"{as_typed(place)} cannot be a ledger: give a path, or postgresql://user@host/database"
        )
    return None


def without_password(place: str) -> str:
    """Return a path or URL without its password."""
    if not _SCHEME.match(place):
        return place
    shown = PASSWORD.sub(r"\1@", place)
    return re.sub(r"(?i)([?&]\w*password=)[^&]*", r"\1***", shown)


class Cursor(Protocol):
    """The result of a statement."""

    @property
    def rowcount(self) -> int:
        """The number of rows that the statement changed."""
        ...

    def fetchone(self) -> Any:
        """Return the next row, or None."""
        ...

    def fetchall(self) -> list[Any]:
        """Return all rows."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """A connection. Every statement has `?` placeholders."""

    def execute(self, sql: str, values: Sequence[object] = (), /) -> Cursor:
        """Execute a statement."""
        ...


class Database(Protocol):
    """The database of a ledger. It is safe to share between threads, and raises only `LedgerError`.

    The attributes hold the SQL that differs between databases.
    """

    name: str
    """The path, or the URL without its password."""
    place: str | None
    """Identifies the ledger, however its path is written. None if it is only in memory."""
    is_shared: bool
    """Several processes may run a campaign at once."""
    serial: str
    """The SQL type of an automatic row number."""
    skip_locked: str
    """The SQL clause that locks the selected rows and skips rows locked by others."""
    stem: str
    """The default name of a campaign: that of the file or of the schema."""

    def now(self) -> float:
        """Return seconds since 1970, from one clock for all processes."""
        ...

    def tables(self) -> set[str]:
        """Return the names of the tables."""
        ...

    def create(self, work: Callable[[Connection, set[str]], T]) -> T:
        """Create or change tables in one transaction, under a lock.

        `work` receives the names of the tables that exist then.
        """
        ...

    def run(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction. The result is on disk when this returns."""
        ...

    def read(self, sql: str, values: Sequence[object] = ()) -> list[Any]:
        """Return the rows that a statement selects."""
        ...

    def apply(self, changes: Sequence[Change]) -> list[bool]:
        """Execute changes in one transaction; for each, return whether its row was in the expected state."""
        ...

    def load(self, rows: Iterable[Sequence[object]], work: Callable[[Connection], T]) -> T:
        """Insert rows into the temporary table `arriving`, and run `work` in the same transaction.

        `ARRIVING` names the columns. Nothing changes if the iterable or `work` raises.
        """
        ...

    def has_other_connections(self) -> bool:
        """Return whether other processes of techforge are connected, if the database can tell."""
        ...

    def exclusive_lock(self) -> AbstractContextManager[None]:
        """Hold the lock for running campaigns. It does nothing if several processes may run them."""
        ...

    def server_change(self) -> str | None:
        """Return what happened if another server took over, or a backup was restored.

        `apply` claims nothing then. SQLite has no servers.
        """
        ...

    def confirm_server(self) -> None:
        """Accept the present server."""
        ...

    def interrupt(self) -> None:
        """Let every call fail at once, those in progress and later ones: the process has to end."""
        ...

    def close(self) -> None:
        """Close the database. Closing it again does nothing."""
        ...
