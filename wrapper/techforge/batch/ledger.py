"""The ledger: what is known of each row of a campaign, on disk, whatever happens to the process.

A row is `pending` until it is claimed. The claim is a compare-and-set that is on disk before the request is
sent, so that no row is ever submitted twice: not by two processes, and not by one that was killed and started
again. A row whose submission was under way when its process ended is `unknown`, until somebody decides.
`changes` says what may happen to a row.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID, uuid4, uuid5

from attrs import frozen

from techforge.batch import changes
from techforge.batch.database import LedgerError, NoLedgerError
from techforge.batch.manifest import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from techforge.batch.changes import Change
    from techforge.batch.database import Connection, Database

SCHEMA = 1
_AT_ONCE = 500
"""Rows that are read or written together."""
_CHUNK = 100
"""Rows that a worker is given at once."""
_ID = "techforge ledger"
_POSTGRES = "postgresql://", "postgres://"

_COLUMNS = "n, key, line, params, metadata, state, attempts, posted_at, ended_at, job_id, file, reason"

_TABLES = """
CREATE TABLE campaign (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE jobs (
    n {serial},
    key TEXT NOT NULL,
    line INTEGER NOT NULL,
    params TEXT NOT NULL,
    metadata TEXT,
    state TEXT NOT NULL DEFAULT 'pending',
    attempts INTEGER NOT NULL DEFAULT 0,
    next_at DOUBLE PRECISION NOT NULL DEFAULT 0,
    posted_at DOUBLE PRECISION,
    ended_at DOUBLE PRECISION,
    job_id TEXT,
    file TEXT,
    reason TEXT
);
CREATE UNIQUE INDEX jobs_key ON jobs (key);
CREATE INDEX jobs_pending ON jobs (n) WHERE state = 'pending';
CREATE INDEX jobs_posting ON jobs (next_at) WHERE state = 'posting';
CREATE INDEX jobs_submitted ON jobs (next_at) WHERE state = 'submitted';
CREATE INDEX jobs_job ON jobs (job_id) WHERE state = 'submitted';
INSERT INTO campaign VALUES ('format', '{format}'), ('schema', '{schema}'), ('id', '{id}')
"""


class State(StrEnum):
    """What is known of a row."""

    PENDING = "pending"
    POSTING = "posting"
    SUBMITTED = "submitted"
    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"


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


@frozen
class Chunk:
    """Rows that a worker is given at once: those from `first` to `last` that are still to be submitted."""

    first: int
    last: int


class Ledger:
    """A campaign's rows, in an SQLite file or in PostgreSQL; safe to share between threads.

    `place` is a path, or `postgresql://user@host/database`, where `?campaign=spring` keeps several apart.
    With `new=False` there must be one already.

    Raises:
        LedgerError: there is none, it is something else, or a newer version of this package has written it.

    >>> from techforge.batch.manifest import Row
    >>> with Ledger(folder / "campaign.sqlite") as ledger:
    ...     ledger.load([Row("a", {"image_url": "https://x/i", "audio_url": "https://x/a"}, {}, 1)])
    ...     [row.key for row in ledger.pending(ledger.now())]
    Loaded(new=1, known=0)
    ['a']
    """

    def __init__(self, place: str | os.PathLike[str], *, new: bool = True) -> None:
        self._db = _database(place, new=new)
        try:
            self._open(new=new)
        except BaseException:
            self._db.close()
            raise

    def _open(self, *, new: bool) -> None:
        tables = self._db.tables()
        if not tables and new:
            statements = _TABLES.format(serial=self._db.serial, format=_ID, schema=SCHEMA, id=uuid4())
            self._db.create(statements.split(";"))
        elif not tables:
            raise NoLedgerError(f"there is no ledger at {self.name}; techforge batch run makes one")
        elif not {"campaign", "jobs"} <= tables:
            raise LedgerError(f"{self.name} is a database, but no ledger")
        facts = dict(self._db.read("SELECT name, value FROM campaign"))
        schema = int(facts.get("schema", "0"))
        if facts.get("format") != _ID or schema > SCHEMA:
            raise LedgerError(
                f"{self.name} has schema {schema}, and this version knows {SCHEMA}: update techforge"
            )
        self._campaign = UUID(facts["id"])

    @property
    def name(self) -> str:
        """What people know it by: the path, or the URL without its password."""
        return self._db.name

    @property
    def is_shared(self) -> bool:
        """Whether several processes may run the campaign at once."""
        return self._db.is_shared

    def now(self) -> float:
        """Return the seconds since 1970, by one clock for all who use the ledger."""
        return self._db.now()

    @contextmanager
    def alone(self) -> Generator[None]:
        """Be the only process that runs this campaign, unless several may.

        Raises:
            LedgerError: another process runs it.
        """
        with self._db.alone():
            yield

    def close(self) -> None:
        """Close it; a second time does nothing."""
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

        new = self._db.insert(values())
        return Loaded(new, seen - new)

    # --- and change -------------------------------------------------------------------------------

    def apply(self, *several: Change) -> list[bool]:
        """Carry out changes together, and tell of each whether its row was as it must be.

        >>> with Ledger(folder / "campaign.sqlite") as ledger:
        ...     ledger.load([Row("a", {"image_url": "https://x/i", "audio_url": "https://x/a"}, {}, 1)])
        ...     ledger.apply(changes.claim(1, 1, ledger.now(), ledger.now() + 60))
        ...     ledger.apply(changes.claim(1, 1, ledger.now(), ledger.now() + 60))
        Loaded(new=1, known=0)
        [True]
        [False]
        """
        return self._db.apply(several)

    def abandon(self, now: float | None = None) -> int:
        """Call the rows unknown whose submission was not heard of in its time; return how many.

        Without `now`, all that are being submitted: they are of a process that has ended. What it had leased
        to look at is anybody's again.
        """
        ended = self.now()
        reason = "its process ended while it was being submitted"

        def work(db: Connection) -> int:
            if now is None:
                db.execute("UPDATE jobs SET next_at = 0 WHERE state = 'submitted'")
            late, values = ("", ()) if now is None else (" AND next_at <= ?", (now,))
            chosen = f"SELECT n FROM jobs WHERE state = 'posting'{late} {self._db.skip_locked}"  # noqa: S608
            changed = f"UPDATE jobs SET state = 'unknown', reason = ?, ended_at = ? WHERE n IN ({chosen})"  # noqa: S608
            return db.execute(changed, (reason, ended, *values)).rowcount

        return self._db.run(work)

    def retry(self, state: State) -> int:
        """Let all rows of a state be submitted again; return how many. For `unknown` that may pay twice.

        Rows whose job's id is known are left as they are: they have been paid for.
        """
        statement = """UPDATE jobs SET state = 'pending', next_at = 0, ended_at = NULL
            WHERE state = ? AND job_id IS NULL"""
        return self._db.run(lambda db: db.execute(statement, (str(state),)).rowcount)

    def settle(self, project_id: str, job_id: str) -> bool:
        """Note the job of an unknown row, as a job service or a webhook knows it.

        False if there is no such row.

        Raises:
            LedgerError: several rows have this project, and nobody can tell whose job it is.
        """
        found = [entry for entry in self.entries(State.UNKNOWN) if entry.project_id == project_id]
        if len(found) > 1:
            raise LedgerError(f"{len(found)} unknown rows have project {project_id}; whose job is {job_id}?")
        return any(self.apply(changes.submitted(row.n, row.attempts, job_id, 0.0))[0] for row in found)

    def look_now(self, job_ids: Iterable[str]) -> int:
        """Let jobs be looked at at once, of which a webhook or a job service has news; return how many."""
        statement = "UPDATE jobs SET next_at = 0 WHERE state = 'submitted' AND job_id = ?"
        wanted = list(job_ids)  # the database may ask twice, if it was away
        return self._db.run(lambda db: sum(db.execute(statement, (job_id,)).rowcount for job_id in wanted))

    def due(self, now: float, until: float, limit: int = _AT_ONCE) -> list[Entry]:
        """Lease rows whose job is to be looked at now; nobody else gets them before `until`."""
        due = "state = 'submitted' AND next_at <= ? ORDER BY next_at LIMIT ?"
        if not self._db.read(f"SELECT 1 FROM jobs WHERE {due}", (now, 1)):  # noqa: S608
            return []  # to write nothing costs a commit, too
        chosen = f"SELECT n FROM jobs WHERE {due} {self._db.skip_locked}"  # noqa: S608
        statement = f"UPDATE jobs SET next_at = ? WHERE n IN ({chosen}) RETURNING {_COLUMNS}"  # noqa: S608
        found = self._db.run(lambda db: db.execute(statement, (until, now, limit)).fetchall())
        return self._entries(found)

    # --- and are seen -----------------------------------------------------------------------------

    def pending(
        self, now: float, limit: int = _AT_ONCE, after: int = 0, last: int | None = None
    ) -> list[Entry]:
        """Return rows after one, and up to another, that may be claimed now, in the order of the manifest."""
        end, values = ("", ()) if last is None else ("AND n <= ? ", (last,))
        where = f"state = 'pending' AND next_at <= ? AND n > ? {end}ORDER BY n LIMIT ?"
        return self._select(where, (now, after, *values, limit))

    def is_pending(self, after: int = 0, last: int | None = None) -> bool:
        """Tell whether rows are to be submitted, now or later."""
        return bool(self.pending(float("inf"), 1, after, last))

    def chunks(self, last: int | None = None) -> list[Chunk]:
        """Return where rows are to be submitted, up to a row, in pieces that suit a worker."""
        end, values = ("", ()) if last is None else (" AND n <= ?", (last,))
        statement = f"SELECT DISTINCT (n - 1) / {_CHUNK} FROM jobs WHERE state = 'pending'{end} ORDER BY 1"  # noqa: S608
        numbers = (number for (number,) in self._db.read(statement, values))
        upto = float("inf") if last is None else last
        return [Chunk(n * _CHUNK + 1, int(min(n * _CHUNK + _CHUNK, upto))) for n in numbers]

    def nth_pending(self, count: int) -> int | None:
        """Return the row with which `count` rows are to be submitted; None if there are fewer."""
        statement = "SELECT n FROM jobs WHERE state = 'pending' ORDER BY n LIMIT 1 OFFSET ?"
        return next((n for (n,) in self._db.read(statement, (count - 1,))), None)

    def is_waiting(self, since: float) -> bool:
        """Tell whether jobs are under way that were submitted after `since`, or rows being submitted."""
        statement = """SELECT 1 FROM jobs WHERE state = 'posting'
            UNION ALL SELECT 1 FROM jobs WHERE state = 'submitted' AND posted_at > ? LIMIT 1"""
        return bool(self._db.read(statement, (since,)))

    def under_way(self) -> int:
        """Return how many jobs the API may be working at."""
        statement = """SELECT (SELECT count(*) FROM jobs WHERE state = 'posting')
            + (SELECT count(*) FROM jobs WHERE state = 'submitted')"""
        ((count,),) = self._db.read(statement)
        return int(count)

    def counts(self) -> dict[State, int]:
        """Return how many rows are in each state."""
        found = dict(self._db.read("SELECT state, count(*) FROM jobs GROUP BY state"))
        return {state: found.get(str(state), 0) for state in State}

    def row_of(self, key: str) -> Entry | None:
        """Return the row with a key, if there is one."""
        return next(iter(self._select("key = ?", (key,))), None)

    def rows(self) -> Iterator[Row]:
        """Yield the rows as the manifest gave them."""
        for entry in self.entries():
            yield Row(entry.key, entry.params, entry.metadata, entry.line)

    def entries(self, state: State | None = None) -> Iterator[Entry]:
        """Yield the rows in the order of the manifest, a few hundred in memory at a time."""
        wanted, n = ("state = ? AND ", (str(state),)) if state else ("", ()), 0
        while rows := self._select(f"{wanted[0]}n > ? ORDER BY n LIMIT ?", (*wanted[1], n, _AT_ONCE)):
            yield from rows
            n = rows[-1].n

    # --- what else is kept ------------------------------------------------------------------------

    def remember(self, options: dict[str, Any]) -> None:
        """Keep the options of a run, for the next one; there is no key among them."""
        self.update("options", lambda _: options)

    def remembered(self) -> dict[str, Any]:
        """Return the options of the last run."""
        options: dict[str, Any] = self.kept("options") or {}
        return options

    def kept(self, name: str) -> Any:
        """Return what is kept under a name, or None."""
        found = self._db.read("SELECT value FROM campaign WHERE name = ?", (name,))
        return json.loads(found[0][0]) if found else None

    def update(self, name: str, change: Callable[[Any], Any]) -> None:
        """Change what is kept under a name, which nobody else changes meanwhile; it begins as None."""
        lock = "FOR UPDATE" if self._db.skip_locked else ""

        def work(db: Connection) -> None:
            db.execute("INSERT INTO campaign VALUES (?, 'null') ON CONFLICT DO NOTHING", (name,))
            chosen = f"SELECT value FROM campaign WHERE name = ? {lock}"  # noqa: S608
            value = change(json.loads(db.execute(chosen, (name,)).fetchone()[0]))
            db.execute("UPDATE campaign SET value = ? WHERE name = ?", (json.dumps(value), name))

        self._db.run(work)

    # ------------------------------------------------------------------------------------------------

    def project_of(self, key: str, params: dict[str, Any]) -> str:
        """Return the project of a row's job: its own, or one that follows from campaign and key."""
        return str(params.get("project_id") or uuid5(self._campaign, key))

    def _select(self, where: str, values: Sequence[object]) -> list[Entry]:
        return self._entries(self._db.read(f"SELECT {_COLUMNS} FROM jobs WHERE {where}", values))  # noqa: S608

    def _entries(self, found: list[Any]) -> list[Entry]:
        return [self._entry(dict(zip(_COLUMNS.split(", "), row, strict=True))) for row in found]

    def _entry(self, row: dict[str, Any]) -> Entry:
        row["params"] = json.loads(row["params"])
        row["metadata"] = json.loads(row["metadata"] or "{}")
        row["state"] = State(row["state"])
        return Entry(**row, project_id=self.project_of(row["key"], row["params"]))


def _database(place: str | os.PathLike[str], *, new: bool) -> Database:
    if isinstance(place, str) and place.startswith(_POSTGRES):
        from techforge.batch.postgres import Postgres  # noqa: PLC0415 - an extra

        return Postgres(place)
    from techforge.batch.sqlite import SQLite  # noqa: PLC0415 - not where PostgreSQL is used

    if not new and os.fspath(place) != ":memory:" and not os.path.exists(place):  # noqa: PTH110 - a str, too
        raise NoLedgerError(f"there is no ledger at {os.fspath(place)}; techforge batch run makes one")
    return SQLite(place)
