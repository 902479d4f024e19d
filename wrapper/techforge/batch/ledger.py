"""The ledger: what is known of each row of a campaign, on disk, whatever happens to the process.

A row is `pending` until it is claimed. The claim is a compare-and-set that is on disk before the request is
sent, so that no row is ever submitted twice: not by two processes, and not by one that was killed and started
again. A row whose submission was under way when its process ended is `unknown`, until somebody decides.

    pending ── posting ── submitted ── done
       ↑          ├────── failed
       └──────────┤
                  └────── unknown ──── submitted, if its video turns up
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import threading
import time
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID, uuid4, uuid5

from attrs import frozen

from techforge.batch.manifest import Row
from techforge.errors import TechForgeError

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

SCHEMA = 1
_AT_ONCE = 500
"""Rows that are read or written together."""
_ID = "techforge ledger"

_TABLES = """
CREATE TABLE campaign (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE jobs (
    n INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    line INTEGER NOT NULL,
    params TEXT NOT NULL,
    metadata TEXT,
    state TEXT NOT NULL DEFAULT 'pending',
    attempts INTEGER NOT NULL DEFAULT 0,
    next_at REAL NOT NULL DEFAULT 0,
    posted_at REAL,
    ended_at REAL,
    job_id TEXT,
    file TEXT,
    reason TEXT
);
CREATE UNIQUE INDEX jobs_key ON jobs (key);
CREATE INDEX jobs_pending ON jobs (n) WHERE state = 'pending';
CREATE INDEX jobs_submitted ON jobs (next_at) WHERE state = 'submitted';
"""


class State(StrEnum):
    """What is known of a row."""

    PENDING = "pending"
    POSTING = "posting"
    SUBMITTED = "submitted"
    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"


class LedgerError(TechForgeError):
    """A ledger that cannot be used."""


@frozen
class Entry:
    """One row, as the ledger knows it. Times are seconds since 1970."""

    n: int
    key: str
    line: int
    params: dict[str, Any]
    metadata: dict[str, Any]
    state: State
    attempts: int
    posted_at: float | None
    ended_at: float | None
    job_id: str | None
    file: str | None
    reason: str | None
    project_id: str


@frozen
class Loaded:
    """What became of a manifest's rows: how many are new, and how many were there already."""

    new: int
    known: int


class Ledger:
    """A campaign's rows in an SQLite file; safe to share between threads.

    Raises:
        LedgerError: the file is no ledger, or a newer version of this package has written it.

    >>> from techforge.batch.manifest import Row
    >>> with Ledger(folder / "campaign.sqlite") as ledger:
    ...     ledger.load([Row("a", {"image_url": "https://x/i", "audio_url": "https://x/a"}, {}, 1)])
    ...     ledger.claim(1), ledger.claim(1)
    Loaded(new=1, known=0)
    (True, False)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._lock = threading.RLock()
        self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=30)
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise LedgerError(f"{self.path} cannot be used as a ledger: {error}") from error
        except BaseException:
            self._db.close()
            raise

    def _open(self) -> None:
        # On disk before anything is sent: a machine that loses power must not forget a claim.
        self._db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")
        with self.transaction():
            tables = {
                name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type='table'")
            }
            if not tables:
                for statement in filter(str.strip, _TABLES.split(";")):
                    self._db.execute(statement)
                facts = {"format": _ID, "schema": str(SCHEMA), "id": str(uuid4())}
                self._db.executemany("INSERT INTO campaign VALUES (?, ?)", facts.items())
            elif not {"campaign", "jobs"} <= tables:
                raise LedgerError(f"{self.path} is a database, but no ledger")
        facts = dict(self._db.execute("SELECT name, value FROM campaign"))
        schema = int(facts.get("schema", "0"))
        if facts.get("format") != _ID or schema > SCHEMA:
            raise LedgerError(
                f"{self.path} has schema {schema}, and this version knows {SCHEMA}: update techforge"
            )
        self._campaign = UUID(facts["id"])

    @contextmanager
    def alone(self) -> Generator[None]:
        """Be the only process that runs this campaign; the system ends it, however the process ends.

        Raises:
            LedgerError: another process runs it.
        """
        with open(f"{self.path}.lock", "ab") as file:  # noqa: PTH123 - the path may be a str
            if sys.platform != "win32":
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    raise LedgerError(f"another process is running the campaign of {self.path}") from None
            yield

    @contextmanager
    def transaction(self) -> Generator[sqlite3.Connection]:
        """Do all of a block, or nothing of it; it is on disk when the block ends."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- rows come in -------------------------------------------------------------------------------

    def load(self, rows: Iterable[Row]) -> Loaded:
        """Add the rows that are not there yet: all, or none if the iterable raises."""
        seen = 0

        def values() -> Iterator[tuple[object, ...]]:
            nonlocal seen
            for row in rows:
                seen += 1
                metadata = json.dumps(row.metadata, ensure_ascii=False, default=str) if row.metadata else None
                params = json.dumps(row.params, ensure_ascii=False, separators=(",", ":"))
                yield row.key, row.line, params, metadata

        statement = (
            "INSERT INTO jobs (key, line, params, metadata) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
        )
        with self.transaction() as db:
            before = db.total_changes
            db.executemany(statement, values())
            new = db.total_changes - before
        return Loaded(new, seen - new)

    # --- and are submitted --------------------------------------------------------------------------

    def pending(self, now: float, limit: int = _AT_ONCE, after: int = 0) -> list[Entry]:
        """Return rows that may be claimed now, in the order of the manifest."""
        return self._select(
            "state = 'pending' AND next_at <= ? AND n > ? ORDER BY n LIMIT ?", (now, after, limit)
        )

    def claim(self, n: int) -> bool:
        """Take a row to submit it; False if another has."""
        return self._changed(
            "state = 'posting', attempts = attempts + 1, posted_at = ?",
            "n = ? AND state = 'pending'",
            time.time(),
            n,
        )

    def submitted(self, n: int, job_id: str, next_at: float) -> bool:
        """Note a job. Its answer may be late: the row may have been taken for unknown meanwhile."""
        return self._changed(
            "state = 'submitted', job_id = ?, next_at = ?, reason = NULL",
            "n = ? AND state IN ('posting', 'unknown')",
            *(job_id, next_at, n),
        )

    def put_back(self, n: int, next_at: float, reason: str) -> bool:
        """Let a row be claimed again: it is certain that no job was made."""
        return self._changed(
            "state = 'pending', next_at = ?, reason = ?", "n = ? AND state = 'posting'", next_at, reason, n
        )

    def failed(self, n: int, reason: str, job_id: str | None = None) -> bool:
        """Note that no job was made, or that the job has failed."""
        return self._ended(State.FAILED, "'posting', 'submitted'", n, reason, job_id)

    def unknown(self, n: int, reason: str, job_id: str | None = None) -> bool:
        """Note that a job may have been made."""
        return self._ended(State.UNKNOWN, "'posting'", n, reason, job_id)

    def abandon(self) -> int:
        """Call the rows unknown that a process was submitting when it ended; return how many.

        What it had leased to look at is anybody's again.
        """
        with self.transaction() as db:
            db.execute("UPDATE jobs SET next_at = 0 WHERE state = 'submitted'")
            reason = "its process ended while it was being submitted"
            statement = "UPDATE jobs SET state = 'unknown', reason = ?, ended_at = ? WHERE state = 'posting'"
            return db.execute(statement, (reason, time.time())).rowcount

    # --- and are waited for -------------------------------------------------------------------------

    def due(self, now: float, until: float, limit: int = _AT_ONCE) -> list[Entry]:
        """Lease rows whose job is to be looked at now; nobody else gets them before `until`."""
        with self.transaction() as db:
            chosen = "SELECT n FROM jobs WHERE state = 'submitted' AND next_at <= ? ORDER BY next_at LIMIT ?"
            numbers = [n for (n,) in db.execute(chosen, (now, limit))]
            marks = ",".join("?" * len(numbers))
            db.execute(f"UPDATE jobs SET next_at = ? WHERE n IN ({marks})", (until, *numbers))  # noqa: S608
        return self._select(f"n IN ({marks})", numbers)

    def look_again(self, n: int, next_at: float) -> bool:
        """Say when a row's job is to be looked at next."""
        return self._changed("next_at = ?", "n = ? AND state = 'submitted'", next_at, n)

    def done(self, n: int, file: str | None) -> bool:
        """Note that a row's video is there."""
        return self._changed(
            "state = 'done', file = ?, ended_at = ?, reason = NULL",
            "n = ? AND state IN ('submitted', 'unknown')",
            *(file, time.time(), n),
        )

    # --- what people decide -------------------------------------------------------------------------

    def retry(self, state: State) -> int:
        """Let all rows of a state be submitted again; return how many. For `unknown` that may pay twice.

        Rows whose job's id is known are left as they are: they have been paid for.
        """
        with self.transaction() as db:
            changes = "state = 'pending', next_at = 0, ended_at = NULL"
            where = "state = ? AND job_id IS NULL"
            return db.execute(f"UPDATE jobs SET {changes} WHERE {where}", (str(state),)).rowcount  # noqa: S608

    # --- and what they see --------------------------------------------------------------------------

    def counts(self) -> dict[State, int]:
        """Return how many rows are in each state."""
        with self._lock:
            found = dict(self._db.execute("SELECT state, count(*) FROM jobs GROUP BY state"))
        return {state: found.get(str(state), 0) for state in State}

    def row_of(self, key: str) -> Entry | None:
        """Return the row with a key, if there is one."""
        return next(iter(self._select("key = ?", (key,))), None)

    def rows(self) -> Iterator[Row]:
        """Yield the rows as the manifest gave them."""
        for entry in self.entries():
            yield Row(entry.key, entry.params, entry.metadata, entry.line)

    def remember(self, options: dict[str, Any]) -> None:
        """Keep the options of a run, for the next one; there is no key among them."""
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO campaign VALUES ('options', ?)", (json.dumps(options),))

    def remembered(self) -> dict[str, Any]:
        """Return the options of the last run."""
        with self._lock:
            found = self._db.execute("SELECT value FROM campaign WHERE name = 'options'").fetchone()
        options: dict[str, Any] = json.loads(found[0]) if found else {}
        return options

    def waiting(self, since: float) -> bool:
        """Tell whether jobs are under way that were submitted after `since`."""
        with self._lock:
            found = self._db.execute(
                "SELECT 1 FROM jobs WHERE state = 'submitted' AND posted_at > ? LIMIT 1", (since,)
            )
            return found.fetchone() is not None

    def entries(self, state: State | None = None) -> Iterator[Entry]:
        """Yield the rows in the order of the manifest, a few hundred in memory at a time."""
        wanted, n = ("state = ? AND ", (str(state),)) if state else ("", ()), 0
        while rows := self._select(f"{wanted[0]}n > ? ORDER BY n LIMIT ?", (*wanted[1], n, _AT_ONCE)):
            yield from rows
            n = rows[-1].n

    # ------------------------------------------------------------------------------------------------

    def project_of(self, key: str, params: dict[str, Any]) -> str:
        """Return the project of a row's job: its own, or one that follows from campaign and key."""
        return str(params.get("project_id") or uuid5(self._campaign, key))

    def _select(self, where: str, values: Sequence[object]) -> list[Entry]:
        columns = "n, key, line, params, metadata, state, attempts, posted_at, ended_at, job_id, file, reason"
        with self._lock:
            found = self._db.execute(f"SELECT {columns} FROM jobs WHERE {where}", values).fetchall()  # noqa: S608
        return [self._entry(dict(zip(columns.split(", "), row, strict=True))) for row in found]

    def _entry(self, row: dict[str, Any]) -> Entry:
        row["params"] = json.loads(row["params"])
        row["metadata"] = json.loads(row["metadata"] or "{}")
        row["state"] = State(row["state"])
        return Entry(**row, project_id=self.project_of(row["key"], row["params"]))

    def _ended(self, state: State, states: str, n: int, reason: str, job_id: str | None) -> bool:
        return self._changed(
            f"state = '{state}', reason = ?, job_id = COALESCE(?, job_id), ended_at = ?",
            f"n = ? AND state IN ({states})",
            *(reason, job_id, time.time(), n),
        )

    def _changed(self, changes: str, where: str, *values: object) -> bool:
        with self._lock:
            return self._db.execute(f"UPDATE jobs SET {changes} WHERE {where}", values).rowcount == 1  # noqa: S608
