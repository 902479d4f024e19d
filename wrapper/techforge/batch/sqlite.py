"""A ledger in an SQLite file: for one process at a time, without any installation."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from techforge._logging import logger
from techforge.batch.database import ARRIVING, T
from techforge.batch.journal import open_regular
from techforge.errors import LedgerError, LedgerUnavailableError

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from techforge.batch.changes import Change
    from techforge.batch.database import Connection


RESERVED_BYTES = 1 << 20
"""Space that a run allocates in the ledger, so that responses can be recorded while the disk is full."""
MIN_FREE_BYTES = 16 << 20
"""Submit nothing more if the ledger's disk has less free space."""
BUSY_TIMEOUT = 30.0
CLOCK_TOLERANCE = 5.0
"""Report it if the system's clock jumps by more than this many seconds."""
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
                "under the other, so rows could be submitted twice. Remove one of the names"
            )
        self.place = None if self.name == ":memory:" else str(self._path)
        self._clock_offset = time.time() - time.monotonic()
        self._jump_back = 0.0
        try:
            self._db = sqlite3.connect(
                self.name, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT
            )
        except sqlite3.Error as error:
            raise LedgerError(f"{self.name} cannot be used as a ledger: {error}") from error
        try:
            # FULL: a claim must be on disk before the request is sent, in case the machine loses power.
            self._db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")
        except sqlite3.Error as error:
            self._db.close()
            raise LedgerError(f"{self.name} cannot be used as a ledger: {error}{_advice(error)}") from error
        self._identity = self._find_identity()

    def now(self) -> float:
        """Return seconds since 1970. This clock never goes back while the ledger is open."""
        monotonic = time.monotonic()
        jump = time.time() - monotonic - self._clock_offset
        if jump > CLOCK_TOLERANCE:
            logger.warning("the system's clock jumped %.0f s forward, or the machine slept", jump)
            self._clock_offset += jump
        elif jump < self._jump_back - CLOCK_TOLERANCE:
            logger.warning("the system's clock was set back by %.0f s; this run keeps the time before", -jump)
            self._jump_back = jump
        return monotonic + self._clock_offset

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
        has_claims = any(change.is_claim for change in changes)
        if has_claims:
            self._check_room()
        with self._translate_errors(), self._transaction(must_be_copied=has_claims):
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
        with self._open_lock() as file:
            if sys.platform != "win32":
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    raise LedgerError(f"another process is running a campaign of {self.name}") from None
            self._reserve()
            yield

    def server_change(self) -> None:
        """Return None: there is no server."""

    def confirm_server(self) -> None:
        """Do nothing: there is no server."""

    def interrupt(self) -> None:
        """Do nothing: no call waits for long."""

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _transaction(self, *, must_be_copied: bool = False) -> Generator[None]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._check_file()
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a full disk has already ended the transaction
                    self._db.execute("ROLLBACK")
                raise
            if must_be_copied:
                self._checkpoint()
            else:
                with suppress(sqlite3.OperationalError):  # the change is stored already
                    self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _checkpoint(self) -> None:
        """Copy the write-ahead log into the main file: somebody may copy only that one.

        Raises:
            LedgerUnavailableError: another program has been using the ledger for 30 seconds.
        """
        deadline = time.monotonic() + BUSY_TIMEOUT
        # SQLite waits for readers and writers, but not for another process that is doing the same.
        while self._db.execute("PRAGMA wal_checkpoint(FULL)").fetchone()[0]:
            if time.monotonic() > deadline:
                raise LedgerUnavailableError(
                    f"another program has been using {self.name} for {BUSY_TIMEOUT:.0f} s, so nothing more "
                    "is submitted"
                )
            time.sleep(0.001)

    def _open_lock(self) -> BinaryIO:
        path = Path(f"{self._path}.lock")
        try:
            return open(open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab")  # noqa: PTH123
        except OSError as error:
            raise LedgerError(
                f"{path} cannot be used as the ledger's lock: {error.strerror or error}"
            ) from error

    def _find_identity(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _check_file(self) -> None:
        """Raise if the file is not the one that was opened: what is written now would be lost."""
        if self._find_identity() != self._identity:
            raise LedgerUnavailableError(f"{self.name} was deleted or replaced while it was in use")

    def _check_room(self) -> None:
        """Raise if the disk is nearly full, so that there is room for the responses of what is in flight."""
        if self.place is None:
            return
        free = shutil.disk_usage(self._path.parent).free
        if free < MIN_FREE_BYTES:
            raise LedgerUnavailableError(
                f"the disk of {self.name} is nearly full ({free >> 20} MiB left, {MIN_FREE_BYTES >> 20} MiB "
                "needed), so nothing more is submitted"
            )

    def _reserve(self) -> None:
        """Write a large value, then delete it: the free pages and the write-ahead log keep its space."""
        create = f"CREATE TABLE IF NOT EXISTS reserved AS SELECT zeroblob({RESERVED_BYTES})"
        self.run(lambda db: db.execute(create))
        self.run(lambda db: db.execute("DROP TABLE reserved"))

    @contextmanager
    def _translate_errors(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            problem = f"{self.name} cannot be read or written: {error}{_advice(error)}"
            raise LedgerUnavailableError(problem) from error


def _advice(error: sqlite3.Error) -> str:
    text = str(error)
    if "malformed" in text or "not a database" in text:
        return (
            ". The file is damaged: move it and the files beside it away. If you run the manifest again on "
            "this machine, its journal restores the jobs"
        )
    if "readonly" in text or "unable to open" in text:
        return ". Its folder must be writable, also for commands that only read"
    return ""
