"""A ledger's database in a file: one process at a time, nothing to install."""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from techforge.batch.database import LedgerError, T

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from techforge.batch.changes import Change
    from techforge.batch.database import Connection


_INSERT = "INSERT INTO jobs (key, line, params, metadata) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"


class SQLite:
    """A database in an SQLite file."""

    is_shared = False
    serial = "INTEGER PRIMARY KEY"
    skip_locked = ""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = os.fspath(path)
        self._lock = threading.RLock()
        self._db = sqlite3.connect(self.name, isolation_level=None, check_same_thread=False, timeout=30)
        try:
            # On disk before anything is sent: a machine that loses power must not forget a claim.
            self._db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise LedgerError(f"{self.name} cannot be used as a ledger: {error}") from error

    def now(self) -> float:
        """Return the seconds since 1970."""
        return time.time()

    def tables(self) -> set[str]:
        """Return the names of its tables."""
        return {name for (name,) in self.read("SELECT name FROM sqlite_master WHERE type = 'table'")}

    def create(self, statements: Sequence[str]) -> None:
        """Make its tables, unless another process is faster."""
        with self._told(), self._transaction():
            if not self.tables():
                for statement in statements:
                    self._db.execute(statement)

    def run(self, work: Callable[[Connection], T]) -> T:
        """Do all of some work, or nothing of it."""
        with self._told(), self._transaction():
            return work(self._db)

    def read(self, sql: str, values: Sequence[object] = ()) -> list[Any]:
        """Return the rows that a statement yields."""
        with self._told(), self._lock:
            return self._db.execute(sql, values).fetchall()

    def apply(self, changes: Sequence[Change]) -> list[bool]:
        """Carry out changes together."""
        with self._told(), self._transaction():
            execute = self._db.execute
            return [execute(change.sql, change.values).rowcount == 1 for change in changes]

    def insert(self, rows: Iterable[Sequence[object]]) -> int:
        """Add the jobs whose keys are not there yet."""
        with self._told(), self._transaction():
            before = self._db.total_changes
            self._db.executemany(_INSERT, rows)
            return self._db.total_changes - before

    @contextmanager
    def alone(self) -> Generator[None]:
        """Be the only process that runs this campaign; the system ends it, however the process ends."""
        with open(f"{self.name}.lock", "ab") as file:  # noqa: PTH123 - the path may be a str
            if sys.platform != "win32":
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    raise LedgerError(f"another process is running the campaign of {self.name}") from None
            yield

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _transaction(self) -> Generator[None]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a disk that is full has ended it already
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _told(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise LedgerError(f"{self.name} cannot be read or written: {error}") from error
