"""Add the rows of a manifest to a campaign: all of them or none, and one content for each key."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from attrs import evolve, frozen

from techforge.batch.manifest import BadRow
from techforge.batch.wording import counted
from techforge.errors import LedgerError, TechForgeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from techforge.batch.account import Campaign
    from techforge.batch.database import Connection, Database
    from techforge.batch.manifest import Row

OnConflict: TypeAlias = Literal["stop", "keep", "replace"]
OnRemoved: TypeAlias = Literal["stop", "submit", "withdraw"]
# `json.dumps` would build an encoder for each row.
_encode_params = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_encode_metadata = json.JSONEncoder(ensure_ascii=False, default=str).encode
MAX_SHOWN = 20
"""Number of conflicts that an error shows."""


@frozen
class Loaded:
    """Number of a manifest's rows by what happened to them, and of rows still to be submitted.

    `new` rows were added. `known` rows existed already, from earlier runs. `duplicates` repeat another
    row of the manifest. `replaced` rows have other content than before. `skipped` rows are bad and were not
    added. `withdrawn` rows of earlier runs are no longer in the manifest and will not be submitted. `waiting`
    rows of earlier runs are still pending.
    """

    new: int = 0
    known: int = 0
    duplicates: int = 0
    replaced: int = 0
    skipped: int = 0
    withdrawn: int = 0
    waiting: int = 0

    @property
    def pending(self) -> int:
        """Rows that a run without a budget submits."""
        return self.new + self.waiting


@frozen
class Conflict:
    """A key with two contents: their lines, and the state of the row if it is in the ledger."""

    key: str
    line: int
    other_line: int
    state: str | None = None

    def __str__(self) -> str:
        if self.state is None:
            return f"row_key {self.key!r}: line {self.other_line} and line {self.line} differ"
        return (
            f"row_key {self.key!r}: line {self.line} differs from what line {self.other_line} said in an "
            f"earlier run ({self.state})"
        )


class RowConflictError(TechForgeError):
    """A row_key names two different contents; nothing was added to the ledger, and nothing was sent.

    `conflicts` contains the first 20 of them, `count` is their number.
    """

    def __init__(self, conflicts: list[Conflict], count: int) -> None:
        self.conflicts, self.count = conflicts, count
        lines = "\n".join(map(str, conflicts))
        more = f"\n… and {count - len(conflicts)} more" if count > len(conflicts) else ""
        super().__init__(
            f"{counted(count, 'row')} {'has' if count == 1 else 'have'} new content under a row_key in use, "
            f"so nothing was submitted:\n{lines}{more}\n"
            "To make another video, give the row a different row_key. Otherwise add --on-conflict keep, to "
            "use "
            "the first content, or --on-conflict replace, to use the new content for rows without a job."
        )


def load(
    database: Database,
    campaign: Campaign,
    rows: Iterable[Row | BadRow],
    source: str,
    *,
    on_conflict: OnConflict,
    on_removed: OnRemoved,
    approve: Callable[[Loaded], object] | None,
) -> Loaded:
    """Add rows to a campaign. `Ledger.load` explains the arguments."""
    loading = _Loading(database, campaign, source, on_conflict, on_removed)

    def values() -> Iterator[tuple[object, ...]]:
        for row in rows:
            if isinstance(row, BadRow):
                key = f"{source}/line {row.line}"  # no row_key of a manifest has a slash
                yield key, row.line, "{}", None, None, "", "skipped", str(row)
                continue
            params = _encode_params(row.params)
            metadata = _encode_metadata(row.metadata) if row.metadata else None
            project = campaign.project_of(row.key, row.params)
            yield row.key, row.line, params, metadata, row.content, project, "pending", None

    def work(db: Connection) -> Loaded:
        loaded = loading.run(db)
        if approve is not None:
            approve(loaded)
        return loaded

    return database.load(values(), work)


@frozen
class _Loading:
    """The statements that move rows from the table `arriving` into the campaign."""

    database: Database
    owner: Campaign
    source: str
    on_conflict: OnConflict
    on_removed: OnRemoved

    @property
    def campaign(self) -> int:
        return self.owner.id

    def run(self, db: Connection) -> Loaded:
        # Loads of the same campaign follow each other. Two at once could each wait for a row of the other.
        db.execute("UPDATE campaigns SET name = name WHERE id = ?", (self.campaign,))
        self._take_over_earlier_rows(db)
        withdrawn = self._check_removed_rows(db)
        waiting = self._count(db, "jobs WHERE campaign = ? AND state = 'pending'", self.campaign)
        duplicates = self._remove_duplicates(db)
        replaced = self._check_known_rows(db)
        known = self._count(
            db, "arriving JOIN jobs ON jobs.campaign = ? AND jobs.key = arriving.key", self.campaign
        )
        self._refresh(db)
        self._replace(db)
        prefix = f"{self.source}/"
        db.execute(
            "DELETE FROM jobs WHERE campaign = ? AND state = 'skipped' AND substr(key, 1, ?) = ?",
            (self.campaign, len(prefix), prefix),
        )
        skipped = self._count(db, "arriving WHERE state = 'skipped'")
        columns = "key, line, params, metadata, content, project_id, state, reason"
        added = db.execute(
            f"INSERT INTO jobs (campaign, {columns}) SELECT CAST(? AS BIGINT), {columns} "  # noqa: S608
            "FROM arriving WHERE true ORDER BY place ON CONFLICT DO NOTHING",
            (self.campaign,),
        ).rowcount
        loaded = Loaded(added - skipped, known, duplicates, replaced, skipped, withdrawn)
        pending = self._count(db, "jobs WHERE campaign = ? AND state = 'pending'", self.campaign)
        return evolve(loaded, waiting=max(waiting, pending - loaded.new))

    def _take_over_earlier_rows(self, db: Connection) -> None:
        """Take over the campaign of an earlier version, if it consists of this manifest's rows.

        That version stored the rows of all manifests together, without a name.
        """
        if self._count(db, "jobs WHERE campaign = ?", self.campaign):
            return
        statement = """SELECT earlier.id, earlier.name FROM campaigns AS earlier, campaigns AS ours
            WHERE ours.id = ? AND earlier.id <> ours.id AND COALESCE(earlier.api, ours.api) = ours.api
            AND EXISTS (SELECT 1 FROM facts WHERE facts.name = earlier.id || ':written_by_version')"""
        for earlier, name in db.execute(statement, (self.campaign,)).fetchall():
            total = self._count(db, "jobs WHERE campaign = ?", earlier)
            inside = self._count(db, "jobs WHERE campaign = ? AND key IN (SELECT key FROM arriving)", earlier)
            if inside and inside < total:
                raise LedgerError(
                    "an earlier version stored the rows of all manifests together, as the campaign "
                    f"{name!r}: "
                    f"{inside:,} of its {total:,} rows are in this manifest. To continue all of them: "
                    f"--campaign {name}. To submit these rows again, choose another name"
                )
            if inside:
                # The rows keep their projects. New rows get theirs from the new campaign's UUID.
                db.execute("UPDATE jobs SET campaign = ? WHERE campaign = ?", (self.campaign, earlier))
                db.execute("DELETE FROM campaigns WHERE id = ?", (earlier,))
                db.execute("DELETE FROM facts WHERE name = ?", (f"{earlier}:written_by_version",))
                for fact in ("options", "bounds"):
                    names = f"{self.campaign}:{fact}", f"{earlier}:{fact}"
                    db.execute("UPDATE facts SET name = ? WHERE name = ?", names)
                return

    def _check_removed_rows(self, db: Connection) -> int:
        """Apply `on_removed` to pending rows that left the manifest. Return how many were withdrawn."""
        removed = (
            "campaign = ? AND state = 'pending' "
            "AND NOT EXISTS (SELECT 1 FROM arriving WHERE arriving.key = jobs.key)"
        )
        count = self._count(db, f"jobs WHERE {removed}", self.campaign)
        if not count or self.on_removed == "submit":
            return 0
        if self.on_removed == "stop":
            are = "is" if count == 1 else "are"
            raise LedgerError(
                f"{counted(count, 'row')} of the campaign {self.owner.name!r} {are} still pending and not in "
                "this manifest, so nothing was submitted. If you removed them, --on-removed withdraw drops "
                "them; --on-removed submit submits them as well. If this is another campaign, name it: "
                "--campaign NAME"
            )
        # A late response may still arrive for a row that was sent before, so that row is not deleted.
        reason = "it was removed from the manifest"
        skipped = f"state = 'skipped', reason = ? WHERE attempts > 0 AND {removed}"
        db.execute(f"UPDATE jobs SET {skipped}", (reason, self.campaign))  # noqa: S608
        db.execute(f"DELETE FROM jobs WHERE {removed}", (self.campaign,))  # noqa: S608
        return count

    def _remove_duplicates(self, db: Connection) -> int:
        """Keep one row for each key, by `on_conflict`. Return how many were removed."""
        differing = "(SELECT key FROM arriving GROUP BY key HAVING min(content) <> max(content)) AS differing"
        if self.on_conflict == "stop" and (count := self._count(db, differing)):
            chosen = f"SELECT key FROM {differing} LIMIT ?"  # noqa: S608
            keys = [key for (key,) in db.execute(chosen, (MAX_SHOWN,)).fetchall()]
            raise RowConflictError([self._conflict(db, key) for key in keys], count)
        before = self._count(db, "arriving")
        function = "max" if self.on_conflict == "replace" else "min"
        chosen = f"SELECT {function}(place) FROM arriving GROUP BY key"  # noqa: S608
        db.execute(f"DELETE FROM arriving WHERE place NOT IN ({chosen})")  # noqa: S608
        return before - self._count(db, "arriving")

    @staticmethod
    def _conflict(db: Connection, key: str) -> Conflict:
        statement = "SELECT line, content FROM arriving WHERE key = ? ORDER BY place"
        (first, content), *others = db.execute(statement, (key,)).fetchall()
        return Conflict(key, next(line for line, other in others if other != content), first)

    def _check_known_rows(self, db: Connection) -> int:
        """Return how many known rows get new content. Raise if `on_conflict` does not allow it."""
        if self.on_conflict == "keep":
            return 0
        changed = (
            "arriving JOIN jobs ON jobs.campaign = ? AND jobs.key = arriving.key "
            "WHERE jobs.content <> arriving.content"
        )
        replaced = self._count(db, changed, self.campaign)
        unchangeable = "true" if self.on_conflict == "stop" else f"NOT ({_WITHOUT_JOB})"
        refused = f"{changed} AND {unchangeable}"
        if count := self._count(db, refused, self.campaign):
            shown = "arriving.key, arriving.line, jobs.line, jobs.state"
            statement = f"SELECT {shown} FROM {refused} ORDER BY arriving.place LIMIT ?"  # noqa: S608
            found = db.execute(statement, (self.campaign, MAX_SHOWN)).fetchall()
            raise RowConflictError([Conflict(*row) for row in found], count)
        return replaced

    def _refresh(self, db: Connection) -> None:
        """Update pending rows with the same content: URLs with a new signature, and metadata."""
        db.execute(
            "UPDATE jobs SET state = 'pending', reason = NULL WHERE campaign = ? AND state = 'skipped' "
            "AND EXISTS (SELECT 1 FROM arriving "
            "WHERE arriving.key = jobs.key AND arriving.state = 'pending')",
            (self.campaign,),
        )
        db.execute(
            f"UPDATE jobs SET {_NEW_VALUES} FROM arriving "  # noqa: S608
            "WHERE jobs.campaign = ? AND jobs.key = arriving.key AND jobs.state = 'pending' "
            "AND jobs.content = arriving.content AND (jobs.params <> arriving.params "
            "OR jobs.line <> arriving.line "
            "OR COALESCE(jobs.metadata, '') <> COALESCE(arriving.metadata, ''))",
            (self.campaign,),
        )

    def _replace(self, db: Connection) -> None:
        if self.on_conflict == "replace":
            db.execute(
                f"UPDATE jobs SET {_NEW_VALUES}, state = 'pending', next_at = 0, reason = NULL, "  # noqa: S608
                "ended_at = NULL FROM arriving WHERE jobs.campaign = ? AND jobs.key = arriving.key "
                f"AND jobs.content <> arriving.content AND {_WITHOUT_JOB}",
                (self.campaign,),
            )

    @staticmethod
    def _count(db: Connection, what: str, *values: Any) -> int:
        ((count,),) = db.execute(f"SELECT count(*) FROM {what}", values).fetchall()  # noqa: S608
        return int(count)


_WITHOUT_JOB = "(jobs.state = 'pending' OR jobs.state = 'failed' AND jobs.job_id IS NULL)"
_NEW_VALUES = (
    "line = arriving.line, params = arriving.params, metadata = arriving.metadata, "
    "content = arriving.content, project_id = arriving.project_id"
)
