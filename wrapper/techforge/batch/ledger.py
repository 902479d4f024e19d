"""The ledger stores the state of each row of each campaign on disk.

A row is `pending` until a process claims it. The claim is a compare-and-set, and is on disk before the
request is sent. So no row is submitted twice, by two processes or by a process that was killed and restarted.
If a process ends during a submission, the row becomes `unknown`, and the user decides what to do. `changes`
has the state changes of a row, and `loading` adds rows.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager, nullcontext
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

from attrs import field, frozen

from techforge._logging import logger
from techforge._masking import masked_repr
from techforge.batch import changes, schema
from techforge.batch.account import Campaign
from techforge.batch.database import postgres_url
from techforge.batch.journal import Journal, Submission
from techforge.batch.loading import Loaded, load
from techforge.batch.wording import counted
from techforge.errors import FailoverError, LedgerError, NoLedgerError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence

    from techforge.batch.account import Account
    from techforge.batch.changes import Change
    from techforge.batch.database import Connection, Database
    from techforge.batch.loading import OnConflict, OnRemoved
    from techforge.batch.manifest import BadRow, Row

DEFAULT_CAMPAIGN = "default"
"""The name of a campaign whose rows do not come from a file."""
MAX_BACKOFF = 60.0
"""Longest time until a refused row is submitted again, in seconds; a `Retry-After` is a pause of all rows."""
PAGE_SIZE = 500
"""Rows that are read or leased at once."""
CHUNK_SIZE = 100
"""Rows in a chunk for a worker."""
MAX_COUNT_INTERVAL = 10.0
"""Count again after so many seconds, however long the last count took: a lock may have delayed it."""
COUNT_TIMEOUT = 60.0
"""If a worker has not finished counting after this many seconds, another one counts."""

_COLUMNS = (
    "n, key, line, params, metadata, state, attempts, posted_at, ended_at, job_id, file, reason, project_id"
)


class State(StrEnum):
    """The state of a row."""

    PENDING = "pending"
    POSTING = "posting"
    SUBMITTED = "submitted"
    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"
    SKIPPED = "skipped"


@frozen
class Entry:
    """One row of a ledger. Times are seconds since 1970."""

    n: int
    key: str
    line: int
    params: dict[str, Any] = field(repr=masked_repr)
    metadata: dict[str, Any] = field(repr=masked_repr)
    state: State
    attempts: int
    posted_at: float | None
    ended_at: float | None
    job_id: str | None
    file: str | None
    reason: str | None
    project_id: str


@frozen
class _LastSubmission:
    """What a ledger knows of the last submission of a row."""

    n: int
    content: str
    attempts: int
    job_id: str | None

    def has_lost(self, line: Submission, found: Submission | None) -> bool:
        """Return whether a line of the journal says more than the ledger and than the line `found`."""
        if self.job_id is not None or line.content != self.content:
            return False
        if found is not None:
            is_better = line.attempt == found.attempt and not isinstance(found.job_id, str)
            return is_better or line.attempt > found.attempt
        return line.attempt > self.attempts or (
            line.attempt == self.attempts and isinstance(line.job_id, str)
        )


@frozen
class Chunk:
    """Rows for one worker: the pending rows from `first` to `last`."""

    first: int
    last: int


class Ledger:
    """The rows of a campaign, in an SQLite file or in PostgreSQL. It is safe to share between threads.

    A ledger contains any number of campaigns.

    Args:
        place: A path, or `postgresql://user@host/database`. `?schema=NAME` separates several ledgers in one
            database.
        campaign: The campaign's name. Not needed if the ledger has only one.
        api: The API's address, if several campaigns have the same name.
        new: Create the ledger and the campaign if they do not exist.

    Raises:
        LedgerError: the ledger or the campaign does not exist, several campaigns match, the file or database
            is not a ledger, or a newer version of this package wrote it.

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
        self._requested_name, self._api, self._new = campaign, api, new
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
            raise NoLedgerError(f"there is no ledger at {self.name}. To create it: techforge batch run")
        if not tables >= schema.TABLES:
            # A process of an earlier version would lose its tables, and with them the ids of its jobs.
            is_migration = tables >= schema.TABLES_OF_VERSION_1
            with self._db.exclusive_lock() if is_migration else nullcontext():
                self._db.create(self._create_or_migrate)
        facts = dict(self._db.read("SELECT name, value FROM facts WHERE name IN ('format', 'schema')"))
        version = int(facts.get("schema", "0"))
        if facts.get("format") != schema.FORMAT or version != schema.VERSION:
            raise LedgerError(
                f"{self.name} has schema {version}, and this version of techforge supports {schema.VERSION}: "
                "update techforge"
            )

    def _create_or_migrate(self, db: Connection, tables: set[str]) -> None:
        if not tables:
            schema.create(db, self._db.serial)
        elif not tables >= schema.TABLES:
            if not tables >= schema.TABLES_OF_VERSION_1:
                raise LedgerError(f"{self.name} is a database, but not a ledger")
            if self._db.has_other_connections():
                raise LedgerError(
                    f"{self.name} was written by an earlier version and must be migrated, but other "
                    "processes of techforge are connected to its database. Stop all workers, then try again"
                )
            schema.migrate_from_version_1(db, self._db.serial, self._db.stem)

    def campaigns(self) -> list[Campaign]:
        """Return the campaigns of the ledger, oldest first."""
        rows = self._db.read("SELECT id, name, api, account, uuid FROM campaigns ORDER BY id")
        return [Campaign(*row) for row in rows]

    @property
    def campaign(self) -> Campaign:
        """The selected campaign.

        Raises:
            LedgerError: no campaign matches, or several do.
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
        campaigns = self.campaigns()
        named = [each for each in campaigns if self._requested_name in {None, each.name}]
        found = [each for each in named if self._api in {None, each.api}]
        found = found or [each for each in named if each.api is None or not self._new]
        if len(found) > 1:
            several = ", ".join(map(str, found))
            raise LedgerError(
                f"{self.name} has several campaigns: {several}. Choose one with --campaign NAME"
            )
        if not found and not self._new:
            known = ", ".join(map(str, campaigns)) or "none"
            missing = (
                "no campaign" if self._requested_name is None else f"no campaign {self._requested_name!r}"
            )
            raise NoLedgerError(f"there is {missing} in {self.name}; its campaigns: {known}")
        if not found and self._requested_name is not None and not self._requested_name.isprintable():
            raise LedgerError(
                f"{self._requested_name!r} cannot be the name of a campaign: use printable characters"
            )
        self._chosen = found[0] if found else self._create_campaign(self._requested_name or DEFAULT_CAMPAIGN)
        return self._chosen

    def _create_campaign(self, name: str) -> Campaign:
        # The UUID of a ledger that was deleted: jobs may exist in the projects that were derived from it.
        uuid = self._journal(name, self._api).campaign_uuid() or str(uuid4())
        values = (self._api, name, uuid)
        statement = "INSERT INTO campaigns (api, name, uuid) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
        self._db.run(lambda db: db.execute(statement, values))
        return next(each for each in reversed(self.campaigns()) if (each.api, each.name) == values[:2])

    def assign(self, account: Account) -> None:
        """Assign the campaign to an account, or check that it belongs to this account.

        Raises:
            LedgerError: the campaign belongs to another API or account.
        """
        ours = self.campaign
        if ours.api not in {None, account.api}:
            raise LedgerError(
                f"the campaign {ours.name!r} belongs to the API at {ours.api}, but the address is "
                f"{account.api}. Set TFI_BASE_URL={ours.api}, or choose another campaign"
            )
        if None not in {ours.account, account.name} and ours.account != account.name:
            raise LedgerError(
                f"the campaign {ours.name!r} was started with the account {ours.account}, but the account is "
                "now "
                f"{account.name}. If you replaced the key, continue with TFI_ACCOUNT={ours.account}. For "
                "another account, give the campaign another name with --campaign"
            )
        statement = "UPDATE campaigns SET api = ?, account = COALESCE(account, ?) WHERE id = ?"
        if None in {ours.api, ours.account}:
            self._db.run(lambda db: db.execute(statement, (account.api, account.name, ours.id)))
            self._chosen = next(each for each in self.campaigns() if each.id == ours.id)

    def remove_if_empty(self) -> None:
        """Remove the campaign if it has no rows."""
        statement = (
            "DELETE FROM campaigns WHERE id = ? AND NOT EXISTS (SELECT 1 FROM jobs WHERE campaign = ?)"
        )
        self._db.run(lambda db: db.execute(statement, (self._id, self._id)))

    @property
    def name(self) -> str:
        """The path, or the URL without its password."""
        return self._db.name

    @property
    def is_shared(self) -> bool:
        """Several processes may run the campaign at once."""
        return self._db.is_shared

    def now(self) -> float:
        """Return seconds since 1970, from one clock for all processes that use the ledger."""
        return self._db.now()

    @contextmanager
    def exclusive_lock(self) -> Generator[None]:
        """Hold the lock for running campaigns. It does nothing if several processes may run them.

        Raises:
            LedgerError: another process holds the lock.
        """
        with self._db.exclusive_lock():
            yield

    def check_server(self) -> None:
        """Check that the ledger is still in the database that wrote it, and not in a standby or a backup.

        Raises:
            FailoverError: it is not. What this machine's journal knows was restored before.
        """
        change = self._db.server_change()
        if change is None:
            return
        self.restore()
        raise FailoverError(
            f"{self.name} is not the database that wrote the ledger last: {change}. It may miss the last "
            "claims and job ids, so pending rows may have been paid for. Nothing more is submitted. "
            "Read 'Failover and backups' in docs/workers.md, then continue with: "
            "techforge batch resume --after-failover"
        )

    def confirm_failover(self) -> int:
        """Accept that a standby took over, or that a backup was restored.

        Claimed rows become unknown, because their processes may be gone. Return how many.
        """
        count = self.expire_claims()
        self._db.confirm_server()
        return count

    def interrupt(self) -> None:
        """Let every call fail at once, those in progress and later ones: the process has to end.

        What the database could not record by then is in the journal.
        """
        self._db.interrupt()

    def close(self) -> None:
        """Close the ledger. Closing it again does nothing."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- adding rows --------------------------------------------------------------------------------

    def load(
        self,
        rows: Iterable[Row | BadRow],
        *,
        source: str = "rows",
        on_conflict: OnConflict = "stop",
        on_removed: OnRemoved = "submit",
        approve: Callable[[Loaded], object] | None = None,
    ) -> Loaded:
        """Add the rows that the campaign does not have yet: all of them, or none if the iterable raises.

        Args:
            rows: The rows. A `BadRow` is stored as a skipped row until its source is loaded again.
            source: The name of the rows' origin, such as a file name.
            on_conflict: What to do if a row has new content under a known key: `stop`, `keep` the old
                content, or `replace` it if no job was submitted.
            on_removed: What to do with pending rows that are not among these rows: `stop`, `submit` them as
                well, or `withdraw` them.
            approve: Called before the commit. If it raises, the ledger does not change.

        Raises:
            RowConflictError: a key has new content.
            LedgerError: pending rows were removed, or some rows belong to a campaign of an earlier version.
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

    # --- changing rows ----------------------------------------------------------------------------

    def apply(self, *several: Change) -> list[bool]:
        """Apply changes in one transaction; for each, return whether its row was in the expected state.

        >>> from techforge.batch.manifest import Row
        >>> with Ledger(folder / "ledger.sqlite") as ledger:
        ...     media = {"image_url": "https://x/i", "audio_url": "https://x/a"}
        ...     loaded = ledger.load([Row("a", media, {}, 1)])
        ...     claim = changes.claim(1, 1, ledger.now(), ledger.now() + 60)
        ...     ledger.apply(claim), ledger.apply(claim)
        ([True], [False])
        """
        return self._db.apply(several)

    def expire_claims(self, now: float | None = None) -> int:
        """Mark rows as unknown whose claim has expired. Return how many.

        Without `now`, all claims expire, and all leases for polling: their process has ended.
        """
        ended = self.now()
        reason = "its process ended during the submission"

        def work(db: Connection) -> int:
            if now is None:
                # A backoff of an earlier run is over, unless the clock was set back since.
                db.execute(
                    "UPDATE jobs SET next_at = 0 WHERE campaign = ? "
                    "AND (state = 'submitted' OR state = 'pending' AND next_at > ?)",
                    (self._id, ended + MAX_BACKOFF),
                )
            expired, values = ("", ()) if now is None else (" AND next_at <= ?", (now,))
            posting = f"campaign = ? AND state = 'posting'{expired}"
            chosen = f"SELECT n FROM jobs WHERE {posting} {self._db.skip_locked}"  # noqa: S608
            changed = f"UPDATE jobs SET state = 'unknown', reason = ?, ended_at = ? WHERE n IN ({chosen})"  # noqa: S608
            return db.execute(changed, (reason, ended, self._id, *values)).rowcount

        return self._db.run(work)

    def next_submission(self) -> float | None:
        """Return the earliest time at which a pending row may be submitted, or None without pending rows."""
        statement = "SELECT min(next_at) FROM jobs WHERE campaign = ? AND state = 'pending'"
        ((earliest,),) = self._db.read(statement, (self._id,))
        return None if earliest is None else float(earliest)

    def forget_delays(self) -> None:
        """Let all pending rows be submitted, and all jobs be polled, immediately."""
        statement = """UPDATE jobs SET next_at = 0
            WHERE campaign = ? AND state IN ('pending', 'submitted') AND next_at > 0"""
        self._db.run(lambda db: db.execute(statement, (self._id,)))

    def retry(self, state: State, keys: Collection[str] | None = None) -> int:
        """Mark rows as pending, and return how many.

        You may pay twice for unknown rows. Rows with a job id do not change, because their job exists.

        Args:
            state: The state of the rows to change.
            keys: The keys of the rows to change. By default all rows in this state change.
        """
        statement = """UPDATE jobs SET state = 'pending', next_at = 0, ended_at = NULL
            WHERE campaign = ? AND state = ? AND job_id IS NULL"""
        condition = "" if keys is None else " AND key = ?"
        values = [()] if keys is None else [(key,) for key in dict.fromkeys(keys)]
        values_of_all = (self._id, str(state))

        def work(db: Connection) -> int:
            return sum(
                db.execute(statement + condition, (*values_of_all, *value)).rowcount for value in values
            )

        return self._db.run(work)

    def doubt_pending(self) -> int:
        """Mark all pending rows as unknown, because the ledger may not know their jobs. Return how many."""
        reason = "the ledger was restored from a backup or a standby, and this row was pending in it"
        statement = """UPDATE jobs SET state = 'unknown', reason = ?, ended_at = ?
            WHERE campaign = ? AND state = 'pending'"""
        return self._db.run(lambda db: db.execute(statement, (reason, self.now(), self._id)).rowcount)

    def correct(self, key: str, job_id: str) -> bool:
        """Record the job of an unknown row, or another job for a submitted row without a video.

        Return False if the row is in another state.

        Args:
            key: The key of the row.
            job_id: The id of its job.
        """
        entry = self.row_of(key)
        change = entry and changes.corrected(entry.n, entry.attempts, job_id)
        return bool(change and self.apply(change)[0])

    def settle(self, project_id: str, job_id: str) -> bool:
        """Record the job of an unknown row of any campaign, as your job service or a webhook reports it.

        Return False if no unknown row has this project.

        Args:
            project_id: The project of the row.
            job_id: The id of its job.

        Raises:
            LedgerError: several unknown rows have this project.
        """
        found = self._select("state = 'unknown' AND project_id = ?", (project_id,))
        if len(found) > 1:
            raise LedgerError(
                f"{len(found)} unknown rows have project {project_id}, so the row of job {job_id} is unclear"
            )
        return any(self.apply(changes.submitted(row.n, row.attempts, job_id, 0.0))[0] for row in found)

    def look_now(self, job_ids: Iterable[str]) -> int:
        """Poll jobs of any campaign immediately, for example after a webhook. Return how many.

        Args:
            job_ids: The ids of the jobs.
        """
        statement = "UPDATE jobs SET next_at = 0 WHERE state = 'submitted' AND job_id = ?"
        ids = list(job_ids)  # the transaction may run twice
        return self._db.run(lambda db: sum(db.execute(statement, (job_id,)).rowcount for job_id in ids))

    def due(self, now: float, until: float, limit: int = PAGE_SIZE) -> list[Entry]:
        """Lease rows whose job is due for a poll. Nobody else gets them before `until`."""
        due = "campaign = ? AND state = 'submitted' AND next_at <= ? ORDER BY next_at LIMIT ?"
        if not self._db.read(f"SELECT 1 FROM jobs WHERE {due}", (self._id, now, 1)):  # noqa: S608
            return []  # an UPDATE without rows also costs a commit
        chosen = f"SELECT n FROM jobs WHERE {due} {self._db.skip_locked}"  # noqa: S608
        statement = f"UPDATE jobs SET next_at = ? WHERE n IN ({chosen}) RETURNING {_COLUMNS}"  # noqa: S608
        found = self._db.run(lambda db: db.execute(statement, (until, self._id, now, limit)).fetchall())
        return self._entries(found)

    # --- the journal --------------------------------------------------------------------------------

    def open_journal(self) -> Journal:
        """Return the campaign's journal, open for appending. A ledger in memory has none."""
        journal = self._journal(self.campaign.name, self.campaign.api)
        if self._db.place is not None:
            journal.open(self.campaign.uuid)
        return journal

    def restore(self) -> tuple[int, int]:
        """Restore the submissions that the ledger has lost and this machine's journal still has.

        Return how many jobs were restored, and how many rows became unknown.

        Raises:
            LedgerError: the journal belongs to another campaign of this name, which also submitted rows.
        """
        if self._db.place is None:
            return 0, 0
        journal = self._journal(self.campaign.name, self.campaign.api)
        ours = self.campaign.uuid
        lost: dict[str, Submission] = {}
        for lines in _pages(journal.submissions(ours)):
            known = self._last_submissions({line.key for line in lines})
            for line in lines:
                if line.key in known and known[line.key].has_lost(line, lost.get(line.key)):
                    lost[line.key] = line
        if lost and journal.campaign_uuid() not in {None, ours}:
            raise LedgerError(
                f"another ledger at {self.name} had a campaign {self.campaign.name!r} that submitted "
                f"{len(lost)} of these rows. Restore that ledger, or give this campaign another name: "
                f"--campaign NAME. To submit these rows again, delete the journal: {journal.file()}"
            )
        jobs = unknown = 0
        for lines in _pages(each for each in lost.values() if each.job_id is not False):
            rows, now = self._last_submissions({line.key for line in lines}), self.now()
            several = [
                changes.restored(
                    rows[line.key].n, rows[line.key].attempts, line.attempt, line.job_id or None, now
                )
                for line in lines
            ]
            for line, done in zip(lines, self.apply(*several), strict=True):
                jobs += done and line.job_id is not None
                unknown += done and line.job_id is None
        if jobs or unknown:
            logger.warning(
                "The ledger %s had lost %s of the campaign %r. The journal %s restored %s; %s became "
                "unknown. These rows are not submitted again",
                *(self.name, counted(jobs + unknown, "submission"), self.campaign.name, journal.file()),
                *(counted(jobs, "job"), counted(unknown, "row")),
            )
        return jobs, unknown

    def _journal(self, campaign: str, api: str | None) -> Journal:
        return Journal(self._db.place or "", campaign, api)

    def _last_submissions(self, keys: Collection[str]) -> dict[str, _LastSubmission]:
        """Return what the ledger knows of the last submission of each row."""
        marks = ", ".join("?" * len(keys))
        columns = "key, n, content, attempts, job_id"
        statement = f"SELECT {columns} FROM jobs WHERE campaign = ? AND key IN ({marks})"  # noqa: S608
        found = self._db.read(statement, (self._id, *keys))
        return {key: _LastSubmission(*rest) for key, *rest in found}

    # --- reading rows -----------------------------------------------------------------------------

    def pending(
        self, now: float, limit: int = PAGE_SIZE, after: int = 0, last: int | None = None
    ) -> list[Entry]:
        """Return rows between `after` and `last` that may be claimed now, in the order of the manifest."""
        end, values = ("", ()) if last is None else ("AND n <= ? ", (last,))
        where = f"campaign = ? AND state = 'pending' AND next_at <= ? AND n > ? {end}ORDER BY n LIMIT ?"
        return self._select(where, (self._id, now, after, *values, limit))

    def is_pending(self, after: int = 0, last: int | None = None) -> bool:
        """Return whether rows are pending, including those that wait for a retry."""
        return bool(self.pending(float("inf"), 1, after, last))

    def chunks(self, last: int | None = None) -> list[Chunk]:
        """Return chunks that contain all pending rows up to `last`."""
        end, values = ("", ()) if last is None else (" AND n <= ?", (last,))
        pending = f"campaign = ? AND state = 'pending'{end}"
        statement = f"SELECT DISTINCT (n - 1) / {CHUNK_SIZE} FROM jobs WHERE {pending} ORDER BY 1"  # noqa: S608
        numbers = (number for (number,) in self._db.read(statement, (self._id, *values)))
        upto = float("inf") if last is None else last
        return [Chunk(n * CHUNK_SIZE + 1, int(min(n * CHUNK_SIZE + CHUNK_SIZE, upto))) for n in numbers]

    def nth_pending(self, count: int) -> int | None:
        """Return the number of the `count`th pending row, or None if fewer are pending."""
        where = "campaign = ? AND state = 'pending' ORDER BY n LIMIT 1 OFFSET ?"
        found = self._db.read(f"SELECT n FROM jobs WHERE {where}", (self._id, count - 1))  # noqa: S608
        return next((n for (n,) in found), None)

    def has_unfinished_jobs(self, since: float) -> bool:
        """Return whether there are submissions in flight, or unfinished jobs submitted after `since`."""
        statement = """SELECT 1 FROM jobs WHERE campaign = ? AND state = 'posting' UNION ALL
            SELECT 1 FROM jobs WHERE campaign = ? AND state = 'submitted' AND posted_at > ? LIMIT 1"""
        return bool(self._db.read(statement, (self._id, self._id, since)))

    def unfinished_job_count(self) -> int:
        """Return the number of unfinished jobs, including submissions in flight."""
        statement = """SELECT (SELECT count(*) FROM jobs WHERE campaign = ? AND state = 'posting')
            + (SELECT count(*) FROM jobs WHERE campaign = ? AND state = 'submitted')"""
        ((count,),) = self._db.read(statement, (self._id, self._id))
        return int(count)

    def counts(self) -> dict[State, int]:
        """Return the number of rows in each state."""
        statement = "SELECT state, count(*) FROM jobs WHERE campaign = ? GROUP BY state"
        found = dict(self._db.read(statement, (self._id,)))
        return {state: found.get(str(state), 0) for state in State}

    def shared_counts(self) -> dict[State, int]:
        """Return the number of rows in each state, as one of the workers has counted them recently.

        Counting a large ledger is slow, so all workers together spend at most a tenth of the time on it.
        """
        is_ours = False

        def reserve(shared: dict[str, Any] | None) -> dict[str, Any]:
            nonlocal is_ours
            shared, now = shared or {"due": 0.0, "counts": None}, self.now()
            is_ours = now >= shared["due"] or shared["counts"] is None
            return shared | {"due": now + COUNT_TIMEOUT} if is_ours else shared

        shared = self.get_fact("counts")
        if shared is None or shared["counts"] is None or self.now() >= shared["due"]:
            self.update_fact("counts", reserve)
        if not is_ours:
            counts = self.get_fact("counts")["counts"]
            return {state: counts[str(state)] for state in State}
        started = self.now()
        counts = self.counts()
        ended = self.now()
        plain = {str(state): count for state, count in counts.items()}
        due = ended + min(9 * (ended - started), MAX_COUNT_INTERVAL)
        self.update_fact("counts", lambda _: {"due": due, "counts": plain})
        return counts

    def job_counts(self) -> tuple[int, int]:
        """Return the number of jobs that exist, and of those that may exist in addition."""
        statement = """SELECT sum(CASE WHEN job_id IS NOT NULL THEN 1 ELSE 0 END),
            sum(CASE WHEN job_id IS NULL AND state IN ('unknown', 'posting') THEN 1 ELSE 0 END)
            FROM jobs WHERE campaign = ?"""
        ((known, possible),) = self._db.read(statement, (self._id,))
        return int(known or 0), int(possible or 0)

    def count_without_file(self) -> tuple[int, int]:
        """Return the number of finished videos without a file, and of those that another file blocked."""
        statement = """SELECT count(*), count(reason)
            FROM jobs WHERE campaign = ? AND state = 'done' AND file IS NULL"""
        ((missing, blocked),) = self._db.read(statement, (self._id,))
        return int(missing), int(blocked)

    def row_of(self, key: str) -> Entry | None:
        """Return a row, or None.

        Args:
            key: The key of the row.
        """
        return next(iter(self._select("campaign = ? AND key = ?", (self._id, key))), None)

    def entries(self, state: State | None = None) -> Iterator[Entry]:
        """Yield the rows in the order of the manifest. Only one page of 500 rows is in memory.

        Args:
            state: Yield only the rows in this state.
        """
        wanted, values = (" AND state = ?", (str(state),)) if state else ("", ())
        # The plus stops SQLite from using an index on the campaign: it would have to sort each page.
        where, n = f"+campaign = ?{wanted} AND n > ? ORDER BY n LIMIT ?", 0
        while rows := self._select(where, (self._id, *values, n, PAGE_SIZE)):
            yield from rows
            n = rows[-1].n

    # --- options and facts ------------------------------------------------------------------------

    def save_options(self, options: dict[str, Any]) -> None:
        """Save the options of a run for the next run. They do not contain the API key."""
        self.update_fact("options", lambda _: options)

    def saved_options(self) -> dict[str, Any]:
        """Return the options of the last run."""
        options: dict[str, Any] = self.get_fact("options") or {}
        return options

    def get_fact(self, name: str) -> Any:
        """Return a value that is stored for the campaign, or None."""
        found = self._db.read("SELECT value FROM facts WHERE name = ?", (f"{self._id}:{name}",))
        return json.loads(found[0][0]) if found else None

    def update_fact(self, name: str, change: Callable[[Any], Any]) -> None:
        """Replace a value of the campaign by `change(value)`, in one transaction."""
        self._update(f"{self._id}:{name}", change)

    def update_account_fact(self, name: str, change: Callable[[Any], Any]) -> None:
        """Replace a value of the campaign's account by `change(value)`, in one transaction."""
        self._update(self._account_fact(name), change)

    def get_account_fact(self, name: str) -> Any:
        """Return a value that is stored for the campaign's account, or None."""
        found = self._db.read("SELECT value FROM facts WHERE name = ?", (self._account_fact(name),))
        return json.loads(found[0][0]) if found else None

    def _account_fact(self, name: str) -> str:
        ours = self.campaign
        return f"{name} {ours.account or ''} {ours.api or ''}"

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


def _pages(lines: Iterable[Submission]) -> Iterator[list[Submission]]:
    """Yield up to `PAGE_SIZE` lines at once."""
    iterator = iter(lines)
    while page := list(islice(iterator, PAGE_SIZE)):
        yield page


def _database(place: str | os.PathLike[str], *, new: bool) -> Database:
    url = postgres_url(place)
    if url is not None:
        from techforge.batch.postgres import Postgres  # noqa: PLC0415 - an extra

        return Postgres(url)
    from techforge.batch.sqlite import SQLite  # noqa: PLC0415 - not needed with PostgreSQL

    if not new and os.fspath(place) != ":memory:" and not os.path.exists(place):  # noqa: PTH110 - a str, too
        raise NoLedgerError(f"there is no ledger at {os.fspath(place)}. To create it: techforge batch run")
    return SQLite(place)
