"""A ledger in an SQLite file: for one process at a time, without any installation."""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from techforge.batch.database import ARRIVING, T
from techforge.errors import LedgerError, LedgerUnavailableError

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from techforge.batch.changes import Change
    from techforge.batch.database import Connection


_ARRIVING = f"CREATE TEMP TABLE arriving (place INTEGER PRIMARY KEY, {', '.join(ARRIVING)})"
_INSERT = f"INSERT INTO arriving ({', '.join(ARRIVING)}) VALUES ({', '.join('?' * len(ARRIVING))})"  # noqa: S608


class SQLite:
    """A ledger's database in an SQLite file."""

    is_shared = False
    serial = "INTEGER PRIMARY KEY"
    skip_locked = ""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = os.fspath(path)
        self.stem = Path(self.name).stem
        self._lock = threading.RLock()
        if Path(self.name).is_dir():
            raise LedgerError(f"{self.name} is a folder. Give a file for the ledger")
        if not Path(self.name).parent.is_dir():
            raise LedgerError(
                f"the folder {Path(self.name).parent} for the ledger does not exist. Create it first"
            )
        # SQLite finds the write-ahead log by the file's name, and recent claims are in that log.
        self._path = Path(self.name).resolve()
        if self._path.exists() and self._path.stat().st_nlink > 1:
            raise LedgerError(
                f"{self.name} has a second name (a hard link). Claims made under one name are invisible "
                "under "
                "the other, so rows could be submitted twice. Remove one of the names"
            )
        try:
            self._db = sqlite3.connect(self.name, isolation_level=None, check_same_thread=False, timeout=30)
        except sqlite3.Error as error:
            raise LedgerError(f"{self.name} cannot be used as a ledger: {error}") from error
        try:
            # FULL: a claim must be on disk before the request is sent, in case the machine loses power.
            self._db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")
        except sqlite3.Error as error:
            self._db.close()
            raise LedgerError(f"{self.name} cannot be used as a ledger: {error}") from error

    def now(self) -> float:
        """Return seconds since 1970."""
        return time.time()

    def tables(self) -> set[str]:
        """Return the names of the tables."""
        return {name for (name,) in self.read("SELECT name FROM sqlite_master WHERE type = 'table'")}

    def create(self, work: Callable[[Connection, set[str]], T]) -> T:
        """Create or change tables in one transaction, under a lock."""
        with self._translate_errors(), self._transaction():
            return work(self._db, self.tables())

    def run(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction."""
        with self._translate_errors(), self._transaction():
            return work(self._db)

    def read(self, sql: str, values: Sequence[object] = ()) -> list[Any]:
        """Return the rows that a statement selects."""
        with self._translate_errors(), self._lock:
            return self._db.execute(sql, values).fetchall()

    def apply(self, changes: Sequence[Change]) -> list[bool]:
        """Execute changes in one transaction."""
        with self._translate_errors(), self._transaction():
            execute = self._db.execute
            return [execute(change.sql, change.values).rowcount == 1 for change in changes]

    def load(self, rows: Iterable[Sequence[object]], work: Callable[[Connection], T]) -> T:
        """Insert rows into the temporary table `arriving`, and run `work` in the same transaction."""
        with self._translate_errors(), self._transaction():
            self._db.execute("DROP TABLE IF EXISTS arriving")
            self._db.execute(_ARRIVING)
            self._db.executemany(_INSERT, rows)
            self._db.execute("CREATE INDEX arriving_key ON arriving (key)")
            result = work(self._db)
            self._db.execute("DROP TABLE arriving")
            return result

    def has_other_connections(self) -> bool:
        """Return False: the lock keeps other processes away."""
        return False

    @contextmanager
    def exclusive_lock(self) -> Generator[None]:
        """Lock the ledger. The system releases the lock when the process ends, in any way."""
        if self.name == ":memory:":
            yield  # no other process can open it
            return
        with Path(f"{self._path}.lock").open("ab") as file:
            if sys.platform != "win32":
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    raise LedgerError(f"another process is running a campaign of {self.name}") from None
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
                if self._db.in_transaction:  # a full disk has already ended the transaction
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _translate_errors(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise LedgerUnavailableError(f"{self.name} cannot be read or written: {error}") from error
