"""The tables of a ledger, and the migration from version 1."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

from techforge.batch.content import canonical, content_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from techforge.batch.database import Connection

VERSION = 2
FORMAT = "techforge ledger"
TABLES = frozenset({"facts", "campaigns", "jobs"})
TABLES_OF_VERSION_1 = frozenset({"campaign", "jobs"})
PAGE_SIZE = 200
"""Rows that a migration processes at once."""

_CAMPAIGNS = """
CREATE TABLE campaigns (
    id {serial},
    api TEXT,
    account TEXT,
    name TEXT NOT NULL,
    uuid TEXT NOT NULL
);
CREATE UNIQUE INDEX campaigns_name ON campaigns (api, name)
"""
_JOBS = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE jobs (
    n {serial},
    campaign BIGINT NOT NULL,
    key TEXT NOT NULL,
    line BIGINT NOT NULL,
    params TEXT NOT NULL,
    metadata TEXT,
    content TEXT,
    project_id TEXT,
    state TEXT NOT NULL DEFAULT 'pending',
    attempts INTEGER NOT NULL DEFAULT 0,
    next_at DOUBLE PRECISION NOT NULL DEFAULT 0,
    posted_at DOUBLE PRECISION,
    ended_at DOUBLE PRECISION,
    job_id TEXT,
    file TEXT,
    reason TEXT
)
"""
_INDEXES = """
CREATE UNIQUE INDEX jobs_key ON jobs (campaign, key);
CREATE INDEX jobs_pending ON jobs (campaign, n) WHERE state = 'pending';
CREATE INDEX jobs_posting ON jobs (campaign, next_at) WHERE state = 'posting';
CREATE INDEX jobs_submitted ON jobs (campaign, next_at) WHERE state = 'submitted';
CREATE INDEX jobs_job ON jobs (job_id) WHERE state = 'submitted';
CREATE INDEX jobs_project ON jobs (project_id) WHERE state = 'unknown'
"""


def create(db: Connection, serial: str) -> None:
    """Create the tables of a new ledger."""
    _execute(db, _JOBS, serial)
    _execute(db, _CAMPAIGNS, serial)
    _execute(db, _INDEXES, serial)
    for name, value in (("format", FORMAT), ("schema", str(VERSION))):
        db.execute("INSERT INTO facts VALUES (?, ?)", (name, value))


def migrate_from_version_1(db: Connection, serial: str, name: str) -> None:
    """Migrate a ledger from version 1. Its rows become one campaign called `name`.

    Version 1 stored the rows of all manifests together, without account and content. The campaign gets its
    account when it is run again.
    """
    for index in ("key", "pending", "posting", "submitted", "job"):
        db.execute(f"DROP INDEX IF EXISTS jobs_{index}")
    db.execute("ALTER TABLE campaign RENAME TO facts")
    _execute(db, _CAMPAIGNS, serial)
    facts = dict(db.execute("SELECT name, value FROM facts").fetchall())
    uuid = facts["id"]
    statement = "INSERT INTO campaigns (name, uuid) VALUES (?, ?) RETURNING id"
    ((campaign,),) = db.execute(statement, (name, uuid)).fetchall()
    db.execute(f"ALTER TABLE jobs ADD COLUMN campaign BIGINT NOT NULL DEFAULT {int(campaign)}")
    db.execute("ALTER TABLE jobs ADD COLUMN content TEXT")
    db.execute("ALTER TABLE jobs ADD COLUMN project_id TEXT")
    for fact in ("options", "bounds"):
        db.execute("UPDATE facts SET name = ? WHERE name = ?", (f"{campaign}:{fact}", fact))
    db.execute("DELETE FROM facts WHERE name IN ('id', 'pace', 'workers')")
    db.execute("INSERT INTO facts VALUES (?, '1')", (f"{campaign}:written_by_version",))
    db.execute("UPDATE facts SET value = ? WHERE name = 'schema'", (str(VERSION),))
    _add_content(db, UUID(uuid))
    _execute(db, _INDEXES, serial)


def _execute(db: Connection, statements: str, serial: str) -> None:
    for statement in statements.format(serial=serial).split(";"):
        db.execute(statement)


def _add_content(db: Connection, campaign: UUID) -> None:
    taken: set[str] = set()
    for rows in _pages(db):
        found: list[tuple[object, ...]] = []
        for n, key, text in rows:
            params = json.loads(text)
            content = content_of(params)
            # Jobs exist in the project that was derived from the old key, so it must not change.
            project = str(params.get("project_id") or uuid5(campaign, key))
            if key != content and key == _key_of_version_1(params) and not _is_taken(db, content, taken):
                taken.add(content)
                key = content  # noqa: PLW2901
            found.append((n, key, content, project))
        values = ", ".join(["(CAST(? AS BIGINT), ?, ?, ?)"] * len(found))
        db.execute(
            "UPDATE jobs SET key = column2, content = column3, project_id = column4 "  # noqa: S608
            f"FROM (VALUES {values}) AS found WHERE n = column1",
            [value for row in found for value in row],
        )


def _pages(db: Connection) -> Iterator[list[Any]]:
    n = 0
    statement = "SELECT n, key, params FROM jobs WHERE n > ? ORDER BY n LIMIT ?"
    while rows := db.execute(statement, (n, PAGE_SIZE)).fetchall():
        yield rows
        n = rows[-1][0]


def _key_of_version_1(params: dict[str, Any]) -> str:
    """Return the key that version 1 derived. It included the signatures of URLs."""
    return blake2b(canonical(params).encode(), digest_size=12).hexdigest()


def _is_taken(db: Connection, key: str, taken: set[str]) -> bool:
    return key in taken or bool(db.execute("SELECT 1 FROM jobs WHERE key = ?", (key,)).fetchall())
