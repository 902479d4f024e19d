"""The ledger: what is known of each row of each campaign, on disk, whatever happens to the process.

A row is `pending` until it is claimed. The claim is a compare-and-set that is on disk before the request is
sent, so that no row is ever submitted twice: not by two processes, and not by one that was killed and started
again. A row whose submission was under way when its process ended is `unknown`, until somebody decides.
`changes` says what may happen to a row, `loading` how rows come in.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

from attrs import frozen

from techforge.batch import changes, schema
from techforge.batch.account import Campaign
from techforge.batch.database import LedgerError, NoLedgerError, postgres_url
from techforge.batch.loading import Loaded, load

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence

    from techforge.batch.account import Account
    from techforge.batch.changes import Change
    from techforge.batch.database import Connection, Database
    from techforge.batch.loading import OnConflict, OnRemoved
    from techforge.batch.manifest import BadRow, Row

DEFAULT_CAMPAIGN = "default"
"""The name of a campaign whose rows come from no file."""
_AT_ONCE = 500
"""Rows that are read or written together."""
_CHUNK = 100
"""Rows that a worker is given at once."""

_COLUMNS = (
    "n, key, line, params, metadata, state, attempts, posted_at, ended_at, job_id, file, reason, project_id"
)


class State(StrEnum):
    """What is known of a row."""

    PENDING = "pending"
    POSTING = "posting"
    SUBMITTED = "submitted"
    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"
    SKIPPED = "skipped"


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
class Chunk:
    """Rows that a worker is given at once: those from `first` to `last` that are still to be submitted."""

    first: int
    last: int


class Ledger:
    """The rows of a campaign, in an SQLite file or in PostgreSQL; safe to share between threads.

    `place` is a path, or `postgresql://user@host/database`; `?schema=NAME` keeps several ledgers apart. A
    ledger holds any number of campaigns, and this is one of them: the one of that name, or the only one. A
    campaign belongs to the address of an API; `api` chooses between campaigns of the same name. With
    `new=True` a ledger and a campaign that do not exist are created.

    Raises:
        LedgerError: there is no such ledger or campaign, several campaigns are possible, the place holds
            something else, or a newer version of this package has written it.

    >>> from techforge.batch.manifest import Row
    >>> with Ledger(folder / "ledger.sqlite", "spring") as ledger:
    ...     loaded = ledger.load([Row("a", {"image_url": "https://x/i", "audio_url": "https://x/a"}, {}, 1)])
    ...     loaded.new, [row.key for row in ledger.pending(ledger.now())]
    (1, ['a'])
    """

    def __init__(
        self,
        place: str | os.PathLike[str],
        campaign: str | None = None,
        *,
        api: str | None = None,
        new: bool = True,
    ) -> None:
        self._wanted, self._api, self._new = campaign, api, new
        self._chosen: Campaign | None = None
        self._db = _database(place, new=new)
        try:
            self._open()
            if campaign is not None:
                self._choose()
        except BaseException:
            self._db.close()
            raise

    # --- the ledger and its campaigns -------------------------------------------------------------

    def _open(self) -> None:
        tables = self._db.tables()
        if not tables and not self._new:
            raise NoLedgerError(f"there is no ledger at {self.name}; techforge batch run makes one")
        if not tables >= schema.TABLES:
            with self._db.alone():  # an earlier version may be at work
                self._db.create(self._create_or_migrate)
        facts = dict(self._db.read("SELECT name, value FROM facts WHERE name IN ('format', 'schema')"))
        version = int(facts.get("schema", "0"))
        if facts.get("format") != schema.FORMAT or version != schema.VERSION:
            raise LedgerError(
                f"{self.name} has schema {version}, and this version of techforge knows {schema.VERSION}: "
                "update techforge"
            )

    def _create_or_migrate(self, db: Connection, tables: set[str]) -> None:
        if not tables:
            schema.create(db, self._db.serial)
        elif not tables >= schema.TABLES:
            if not tables >= schema.TABLES_OF_VERSION_1:
                raise LedgerError(f"{self.name} is a database, but no ledger")
            schema.migrate_from_version_1(db, self._db.serial, self._db.stem)

    def campaigns(self) -> list[Campaign]:
        """Return the campaigns of the ledger, oldest first."""
        rows = self._db.read("SELECT id, name, api, account, uuid FROM campaigns ORDER BY id")
        return [Campaign(*row) for row in rows]

    @property
    def campaign(self) -> Campaign:
        """The campaign whose rows this is about.

        Raises:
            LedgerError: there is none, or there are several.
        """
        return self._chosen or self._choose()

    @property
    def campaign_name(self) -> str:
        """The campaign's name."""
        return self.campaign.name

    @property
    def _id(self) -> int:
        return self.campaign.id

    def _choose(self) -> Campaign:
        there = self.campaigns()
        named = [one for one in there if self._wanted in {None, one.name}]
        found = [one for one in named if self._api in {None, one.api}]
        found = found or [one for one in named if one.api is None or not self._new]
        if len(found) > 1:
            several = ", ".join(map(str, found))
            raise LedgerError(
                f"{self.name} has several campaigns: {several}. Choose one with --campaign NAME"
            )
        if not found and not self._new:
            known = ", ".join(map(str, there)) or "none"
            wanted = "no campaign" if self._wanted is None else f"no campaign {self._wanted!r}"
            raise NoLedgerError(f"there is {wanted} in {self.name}; its campaigns: {known}")
        if not found and self._wanted is not None and not self._wanted.isprintable():
            raise LedgerError(f"{self._wanted!r} cannot name a campaign: use printable characters")
        self._chosen = found[0] if found else self._create_campaign(self._wanted or DEFAULT_CAMPAIGN)
        return self._chosen

    def _create_campaign(self, name: str) -> Campaign:
        values = (self._api, name, str(uuid4()))
        statement = "INSERT INTO campaigns (api, name, uuid) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
        self._db.run(lambda db: db.execute(statement, values))
        return next(one for one in reversed(self.campaigns()) if (one.api, one.name) == values[:2])

    def assign(self, account: Account) -> None:
        """Let an account pay for the campaign, or make sure that it is the one that does.

        Raises:
            LedgerError: the campaign belongs to another API or account.
        """
        ours = self.campaign
        if ours.api not in {None, account.api}:
            raise LedgerError(
                f"the campaign {ours.name!r} belongs to the API at {ours.api}, and the address is "
                f"{account.api}: set TFI_BASE_URL={ours.api}, or choose another campaign"
            )
        if None not in {ours.account, account.name} and ours.account != account.name:
            raise LedgerError(
                f"the campaign {ours.name!r} was started with the account {ours.account}, and this is "
                f"{account.name}. If the key was replaced, continue with TFI_ACCOUNT={ours.account}; for "
                "another account give the campaign another name with --campaign"
            )
        statement = "UPDATE campaigns SET api = ?, account = COALESCE(account, ?) WHERE id = ?"
        if None in {ours.api, ours.account}:
            self._db.run(lambda db: db.execute(statement, (account.api, account.name, ours.id)))
            self._chosen = next(one for one in self.campaigns() if one.id == ours.id)

    def remove_if_empty(self) -> None:
        """Remove the campaign if it has no rows: nothing came of it."""
        statement = (
            "DELETE FROM campaigns WHERE id = ? AND NOT EXISTS (SELECT 1 FROM jobs WHERE campaign = ?)"
        )
        self._db.run(lambda db: db.execute(statement, (self._id, self._id)))

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
        """Be the only process that runs campaigns of this ledger, unless several may.

        Raises:
            LedgerError: another process runs one.
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

    def load(
        self,
        rows: Iterable[Row | BadRow],
        *,
        source: str = "rows",
        on_conflict: OnConflict = "stop",
        on_removed: OnRemoved = "submit",
        approve: Callable[[Loaded], object] | None = None,
    ) -> Loaded:
        """Add the rows that are not there yet: all, or none if the iterable raises.

        A `BadRow` is kept as a skipped row of its `source`, until that is loaded again. A key stands for one
        content: `on_conflict` says what to do where it has another one, `stop`, `keep` what is known, or
        `replace` it where nothing was submitted. `on_removed` says what to do with pending rows that are not
        among these: `stop`, `submit` them as well, or `withdraw` them. `approve` is called before anything is
        kept; what it raises leaves the ledger as it was.

        Raises:
            RowConflictError: a key has another content.
            LedgerError: pending rows were removed, or rows of an earlier version's campaign are among these.
        """
        return load(
            self._db,
            self.campaign,
            rows,
            source,
            on_conflict=on_conflict,
            on_removed=on_removed,
            approve=approve,
        )

    # --- and change -------------------------------------------------------------------------------

    def apply(self, *several: Change) -> list[bool]:
        """Carry out changes together, and tell of each whether its row was as it must be.

        >>> from techforge.batch.manifest import Row
        >>> with Ledger(folder / "ledger.sqlite") as ledger:
        ...     media = {"image_url": "https://x/i", "audio_url": "https://x/a"}
        ...     loaded = ledger.load([Row("a", media, {}, 1)])
        ...     claim = changes.claim(1, 1, ledger.now(), ledger.now() + 60)
        ...     ledger.apply(claim), ledger.apply(claim)
        ([True], [False])
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
                db.execute(
                    "UPDATE jobs SET next_at = 0 WHERE campaign = ? AND state = 'submitted'", (self._id,)
                )
            late, values = ("", ()) if now is None else (" AND next_at <= ?", (now,))
            posting = f"campaign = ? AND state = 'posting'{late}"
            chosen = f"SELECT n FROM jobs WHERE {posting} {self._db.skip_locked}"  # noqa: S608
            changed = f"UPDATE jobs SET state = 'unknown', reason = ?, ended_at = ? WHERE n IN ({chosen})"  # noqa: S608
            return db.execute(changed, (reason, ended, self._id, *values)).rowcount

        return self._db.run(work)

    def retry(self, state: State, keys: Collection[str] | None = None) -> int:
        """Let rows of a state be submitted again, all or those with these keys; return how many.

        For `unknown` that may pay twice. Rows whose job's id is known stay as they are: they are paid for.
        """
        statement = """UPDATE jobs SET state = 'pending', next_at = 0, ended_at = NULL
            WHERE campaign = ? AND state = ? AND job_id IS NULL"""
        one = "" if keys is None else " AND key = ?"
        values = [()] if keys is None else [(key,) for key in dict.fromkeys(keys)]
        wanted = (self._id, str(state))

        def work(db: Connection) -> int:
            return sum(db.execute(statement + one, (*wanted, *value)).rowcount for value in values)

        return self._db.run(work)

    def correct(self, key: str, job_id: str) -> bool:
        """Note the job of an unknown row, or another job for a row whose video was not found yet."""
        entry = self.row_of(key)
        change = entry and changes.corrected(entry.n, entry.attempts, job_id)
        return bool(change and self.apply(change)[0])

    def settle(self, project_id: str, job_id: str) -> bool:
        """Note the job of an unknown row of any campaign, as a job service or a webhook knows it.

        False if there is no such row.

        Raises:
            LedgerError: several rows have this project, and nobody can tell whose job it is.
        """
        found = self._select("state = 'unknown' AND project_id = ?", (project_id,))
        if len(found) > 1:
            raise LedgerError(f"{len(found)} unknown rows have project {project_id}; whose job is {job_id}?")
        return any(self.apply(changes.submitted(row.n, row.attempts, job_id, 0.0))[0] for row in found)

    def look_now(self, job_ids: Iterable[str]) -> int:
        """Check jobs of any campaign immediately, after news from a webhook; return how many."""
        statement = "UPDATE jobs SET next_at = 0 WHERE state = 'submitted' AND job_id = ?"
        wanted = list(job_ids)  # the database may ask twice, if it was away
        return self._db.run(lambda db: sum(db.execute(statement, (job_id,)).rowcount for job_id in wanted))

    def due(self, now: float, until: float, limit: int = _AT_ONCE) -> list[Entry]:
        """Lease rows whose job is to be looked at now; nobody else gets them before `until`."""
        due = "campaign = ? AND state = 'submitted' AND next_at <= ? ORDER BY next_at LIMIT ?"
        if not self._db.read(f"SELECT 1 FROM jobs WHERE {due}", (self._id, now, 1)):  # noqa: S608
            return []  # to write nothing costs a commit, too
        chosen = f"SELECT n FROM jobs WHERE {due} {self._db.skip_locked}"  # noqa: S608
        statement = f"UPDATE jobs SET next_at = ? WHERE n IN ({chosen}) RETURNING {_COLUMNS}"  # noqa: S608
        found = self._db.run(lambda db: db.execute(statement, (until, self._id, now, limit)).fetchall())
        return self._entries(found)

    # --- and are seen -----------------------------------------------------------------------------

    def pending(
        self, now: float, limit: int = _AT_ONCE, after: int = 0, last: int | None = None
    ) -> list[Entry]:
        """Return rows after one, and up to another, that may be claimed now, in the order of the manifest."""
        end, values = ("", ()) if last is None else ("AND n <= ? ", (last,))
        where = f"campaign = ? AND state = 'pending' AND next_at <= ? AND n > ? {end}ORDER BY n LIMIT ?"
        return self._select(where, (self._id, now, after, *values, limit))

    def is_pending(self, after: int = 0, last: int | None = None) -> bool:
        """Tell whether rows are to be submitted, now or later."""
        return bool(self.pending(float("inf"), 1, after, last))

    def chunks(self, last: int | None = None) -> list[Chunk]:
        """Return where rows are to be submitted, up to a row, in pieces that suit a worker."""
        end, values = ("", ()) if last is None else (" AND n <= ?", (last,))
        pending = f"campaign = ? AND state = 'pending'{end}"
        statement = f"SELECT DISTINCT (n - 1) / {_CHUNK} FROM jobs WHERE {pending} ORDER BY 1"  # noqa: S608
        numbers = (number for (number,) in self._db.read(statement, (self._id, *values)))
        upto = float("inf") if last is None else last
        return [Chunk(n * _CHUNK + 1, int(min(n * _CHUNK + _CHUNK, upto))) for n in numbers]

    def nth_pending(self, count: int) -> int | None:
        """Return the row with which `count` rows are to be submitted; None if there are fewer."""
        where = "campaign = ? AND state = 'pending' ORDER BY n LIMIT 1 OFFSET ?"
        found = self._db.read(f"SELECT n FROM jobs WHERE {where}", (self._id, count - 1))  # noqa: S608
        return next((n for (n,) in found), None)

    def is_waiting(self, since: float) -> bool:
        """Tell whether jobs are under way that were submitted after `since`, or rows being submitted."""
        statement = """SELECT 1 FROM jobs WHERE campaign = ? AND state = 'posting' UNION ALL
            SELECT 1 FROM jobs WHERE campaign = ? AND state = 'submitted' AND posted_at > ? LIMIT 1"""
        return bool(self._db.read(statement, (self._id, self._id, since)))

    def under_way(self) -> int:
        """Return how many jobs the API may be working at."""
        statement = """SELECT (SELECT count(*) FROM jobs WHERE campaign = ? AND state = 'posting')
            + (SELECT count(*) FROM jobs WHERE campaign = ? AND state = 'submitted')"""
        ((count,),) = self._db.read(statement, (self._id, self._id))
        return int(count)

    def counts(self) -> dict[State, int]:
        """Return how many rows are in each state."""
        statement = "SELECT state, count(*) FROM jobs WHERE campaign = ? GROUP BY state"
        found = dict(self._db.read(statement, (self._id,)))
        return {state: found.get(str(state), 0) for state in State}

    def job_counts(self) -> tuple[int, int]:
        """Return how many jobs are known to exist, and how many more may exist."""
        statement = """SELECT sum(CASE WHEN job_id IS NOT NULL THEN 1 ELSE 0 END),
            sum(CASE WHEN job_id IS NULL AND state IN ('unknown', 'posting') THEN 1 ELSE 0 END)
            FROM jobs WHERE campaign = ?"""
        ((known, possible),) = self._db.read(statement, (self._id,))
        return int(known or 0), int(possible or 0)

    def count_without_file(self) -> int:
        """Return how many videos exist that were not downloaded."""
        statement = "SELECT count(*) FROM jobs WHERE campaign = ? AND state = 'done' AND file IS NULL"
        ((count,),) = self._db.read(statement, (self._id,))
        return int(count)

    def row_of(self, key: str) -> Entry | None:
        """Return the row with a key, if there is one."""
        return next(iter(self._select("campaign = ? AND key = ?", (self._id, key))), None)

    def entries(self, state: State | None = None) -> Iterator[Entry]:
        """Yield the rows in the order of the manifest, a few hundred in memory at a time."""
        wanted, values = (" AND state = ?", (str(state),)) if state else ("", ())
        # The plus keeps SQLite from an index on the campaign, after which it would have to sort each page.
        where, n = f"+campaign = ?{wanted} AND n > ? ORDER BY n LIMIT ?", 0
        while rows := self._select(where, (self._id, *values, n, _AT_ONCE)):
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
        """Return what is kept under a name for the campaign, or None."""
        found = self._db.read("SELECT value FROM facts WHERE name = ?", (f"{self._id}:{name}",))
        return json.loads(found[0][0]) if found else None

    def update(self, name: str, change: Callable[[Any], Any]) -> None:
        """Change what is kept under a name for the campaign; nobody else changes it meanwhile."""
        self._update(f"{self._id}:{name}", change)

    def update_for_account(self, name: str, change: Callable[[Any], Any]) -> None:
        """Change what is kept for all campaigns of the account that pays for this one."""
        ours = self.campaign
        self._update(f"{name} {ours.account or ''} {ours.api or ''}", change)

    def _update(self, name: str, change: Callable[[Any], Any]) -> None:
        lock = "FOR UPDATE" if self._db.skip_locked else ""

        def work(db: Connection) -> None:
            db.execute("INSERT INTO facts VALUES (?, 'null') ON CONFLICT DO NOTHING", (name,))
            chosen = f"SELECT value FROM facts WHERE name = ? {lock}"  # noqa: S608
            value = change(json.loads(db.execute(chosen, (name,)).fetchone()[0]))
            db.execute("UPDATE facts SET value = ? WHERE name = ?", (json.dumps(value), name))

        self._db.run(work)

    # ------------------------------------------------------------------------------------------------

    def _select(self, where: str, values: Sequence[object]) -> list[Entry]:
        return self._entries(self._db.read(f"SELECT {_COLUMNS} FROM jobs WHERE {where}", values))  # noqa: S608

    def _entries(self, found: list[Any]) -> list[Entry]:
        return [self._entry(dict(zip(_COLUMNS.split(", "), row, strict=True))) for row in found]

    def _entry(self, row: dict[str, Any]) -> Entry:
        row["params"] = json.loads(row["params"])
        row["metadata"] = json.loads(row["metadata"] or "{}")
        row["state"] = State(row["state"])
        return Entry(**row)


def _database(place: str | os.PathLike[str], *, new: bool) -> Database:
    url = postgres_url(place)
    if url is not None:
        from techforge.batch.postgres import Postgres  # noqa: PLC0415 - an extra

        return Postgres(url)
    from techforge.batch.sqlite import SQLite  # noqa: PLC0415 - not where PostgreSQL is used

    if not new and os.fspath(place) != ":memory:" and not os.path.exists(place):  # noqa: PTH110 - a str, too
        raise NoLedgerError(f"there is no ledger at {os.fspath(place)}; techforge batch run makes one")
    return SQLite(place)
