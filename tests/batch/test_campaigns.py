"""Campaigns of a ledger: a command acts on one of them, and on one account."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.postgres import campaign

from techforge.batch import changes
from techforge.batch.account import Account
from techforge.batch.database import LedgerError, postgres_url
from techforge.batch.ledger import Ledger, State
from techforge.batch.manifest import Row, read

if TYPE_CHECKING:
    from collections.abc import Callable

VERSION_1 = Path(__file__).parent / "ledgers" / "v1.sqlite"
LIVE, MOCK = "https://api.techforgeinnovate.com", "http://127.0.0.1:8642"
KEYS_OF_VERSION_1 = ["own-1", "bc27bd2d66503fb54c80100f", "own-4", "4ca4adaeb8b8007fd5c2e346"]


def rows(*keys: str, file: str = "i") -> list[Row]:
    """Return rows with these keys."""
    media = {"image_url": f"https://cdn.example.com/{file}.png", "audio_url": "https://cdn.example.com/a.mp3"}
    return [Row(key, media, {}, line) for line, key in enumerate(keys, 1)]


def names(ledger: Ledger) -> list[str]:
    """Return the campaigns of a ledger."""
    return [one.name for one in ledger.campaigns()]


def test_a_campaign_has_its_own_rows(place: str) -> None:
    """The same key in two campaigns is two rows, and each campaign sees and changes its own."""
    with Ledger(place, "a") as a, Ledger(place, "b") as b:
        assert a.load(rows("1", "2")).new == 2
        assert b.load(rows("1")).new == 1
        first, second = next(a.entries()), next(b.entries())
        assert first.project_id != second.project_id
        assert [entry.n for entry in b.pending(b.now())] == [second.n]
        now = b.now()
        b.apply(changes.claim(second.n, 1, now, now + 60))
        assert a.expire_claims() == 0
        assert (a.counts()[State.PENDING], b.counts()[State.POSTING]) == (2, 1)
        assert b.expire_claims() == 1
        assert a.retry(State.UNKNOWN) == 0
        assert not a.has_unfinished_jobs(0.0)
        assert a.unfinished_job_count() == 0
        assert a.nth_pending(3) is None
        assert len(b.chunks()) == 0
        assert a.row_of("2") is not None
        assert b.row_of("2") is None
        a.save_options({"out": "a"})
        assert b.saved_options() == {}


def test_the_only_campaign_needs_no_name(place: str) -> None:
    """Without a name it is the only one; where there are several, the error lists them."""
    with Ledger(place, "spring") as spring:
        spring.load(rows("1"))
    with Ledger(place, new=False) as only:
        assert only.campaign_name == "spring"
    with Ledger(place, "autumn", api=LIVE):
        pass
    with (
        Ledger(place, new=False) as several,
        pytest.raises(LedgerError, match=r"several campaigns: spring, autumn \(https://api"),
    ):
        several.counts()
    with pytest.raises(LedgerError, match=r"no campaign .winter.*its campaigns: spring, autumn"):
        Ledger(place, "winter", new=False)


def test_a_campaign_belongs_to_an_address(place: str) -> None:
    """What was made with the mock is never taken for what the live API has made."""
    with Ledger(place, "a", api=MOCK) as mock, Ledger(place, "a", api=LIVE) as live:
        mock.load(rows("1"))
        assert live.load(rows("1")).new == 1
        mock.assign(Account(MOCK, "key-1"))
        with pytest.raises(LedgerError, match=r"belongs to the API at http://127.0.0.1:8642"):
            mock.assign(Account(LIVE, "key-1"))
    with Ledger(place, "a", api=LIVE, new=False) as again:
        assert again.campaign.api == LIVE


def test_a_campaign_belongs_to_an_account(place: str) -> None:
    """Another key stops a campaign, and the error says how to go on if the key was replaced."""
    with Ledger(place, "a", api=LIVE) as ledger:
        ledger.assign(Account(LIVE, "key-1"))
        ledger.assign(Account(LIVE, "key-1"))
        ledger.assign(Account(LIVE, None))  # a function gives the key
        with pytest.raises(LedgerError, match="continue with TFI_ACCOUNT=key-1"):
            ledger.assign(Account(LIVE, "key-2"))
        assert ledger.campaign.account == "key-1"


def test_an_account_has_one_pace(place: str) -> None:
    """What all campaigns of an account keep together is one thing; another account has its own."""
    seen: list[object] = []
    with (
        Ledger(place, "a", api=LIVE) as a,
        Ledger(place, "b", api=LIVE) as b,
        Ledger(place, "c", api=LIVE) as c,
    ):
        for ledger, name in ((a, "acme"), (b, "acme"), (c, "other")):
            ledger.assign(Account(LIVE, name))
        a.update_account_fact("pace", lambda _: 7)
        b.update_account_fact("pace", lambda kept: seen.append(kept) or kept)
        c.update_account_fact("pace", lambda kept: seen.append(kept) or kept)
    assert seen == [7, None]


def test_webhooks_need_not_know_the_campaign(place: str) -> None:
    """A job's id and a project are unique, so news of them reaches any campaign."""
    with Ledger(place, "a") as a, Ledger(place, "b") as b:
        a.load(rows("1"))
        b.load(rows("1"))
        (entry,) = b.entries()
        now = b.now()
        b.apply(changes.claim(entry.n, 1, now, now + 9), changes.unknown(entry.n, 1, "closed", None, now))
        with Ledger(place, new=False) as any_campaign:
            assert any_campaign.settle(entry.project_id, "job-1")
            b.apply(changes.poll_later(entry.n, now + 60))
            assert any_campaign.look_now(["job-1"]) == 1


def test_a_campaign_without_rows_can_be_removed(place: str) -> None:
    """A dry run leaves nothing behind, and never removes rows."""
    with Ledger(place, "a") as a, Ledger(place, "b") as b:
        a.load(rows("1"))
        a.remove_if_empty()
        assert b.campaign_name == "b"
        b.remove_if_empty()
        assert names(a) == ["a"]


# --- ledgers of version 1 ---------------------------------------------------------------------------


def version_1_in_sqlite(place: str) -> str:
    """Put a ledger there that version 1 wrote."""
    shutil.copy(VERSION_1, place)
    return place


def version_1_in_postgres(url: str) -> str:
    """Put a ledger there as version 1 wrote it."""
    from techforge.batch.postgres import Postgres  # noqa: PLC0415

    source = sqlite3.connect(VERSION_1)
    postgres = Postgres(url)
    job = "CREATE TABLE jobs (n BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, key TEXT NOT NULL, "
    job += (
        "line INTEGER NOT NULL, params TEXT NOT NULL, metadata TEXT, state TEXT NOT NULL DEFAULT 'pending', "
    )
    job += "attempts INTEGER NOT NULL DEFAULT 0, next_at DOUBLE PRECISION NOT NULL DEFAULT 0, "
    job += "posted_at DOUBLE PRECISION, ended_at DOUBLE PRECISION, job_id TEXT, file TEXT, reason TEXT)"

    def write(db: object, _: object) -> None:
        db.execute("CREATE TABLE campaign (name TEXT PRIMARY KEY, value TEXT NOT NULL)")  # type: ignore[attr-defined]
        db.execute(job)  # type: ignore[attr-defined]
        db.execute("CREATE UNIQUE INDEX jobs_key ON jobs (key)")  # type: ignore[attr-defined]
        for table in ("campaign", "jobs"):
            for row in source.execute(f"SELECT * FROM {table}"):  # noqa: S608
                marks = ", ".join("?" * len(row))
                db.execute(f"INSERT INTO {table} VALUES ({marks})", row)  # type: ignore[attr-defined]  # noqa: S608
        db.execute("SELECT setval(pg_get_serial_sequence('jobs', 'n'), 6)")  # type: ignore[attr-defined]

    postgres.create(write)
    postgres.close()
    source.close()
    return url


@pytest.fixture
def version_1(place: str) -> str:
    """Return the place of a ledger of version 1."""
    return version_1_in_postgres(place) if "://" in place else version_1_in_sqlite(place)


def manifest_of_version_1(signature: str = "new") -> list[dict[str, str]]:
    """Return the rows that the ledger of version 1 was made from; signed URLs have expired since."""
    signed = (
        "https://bucket.s3.amazonaws.com/{}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=1&X-Amz-Signature={}"
    )
    media = [
        {
            f"{kind}_url": f"https://cdn.example.com/{n}.{end}"
            for kind, end in (("image", "png"), ("audio", "mp3"))
        }
        for n in range(1, 7)
    ]
    media[2] = {
        f"{kind}_url": signed.format(f"3.{end}", signature)
        for kind, end in (("image", "png"), ("audio", "mp3"))
    }
    media[0] |= {"row_key": "own-1", "customer": "17"}
    media[1] |= {"language": "en"}
    media[3] |= {"row_key": "own-4"}
    media[4] |= {"project_id": "11111111-1111-4111-8111-111111111111"}
    return media


def test_a_ledger_of_version_1_is_migrated(version_1: str) -> None:
    """It becomes one campaign; states, ids, projects and options are what they were."""
    with Ledger(version_1, new=False) as ledger:
        found = {entry.line: entry for entry in ledger.entries()}
        assert [str(entry.state) for entry in found.values()] == [
            *("done", "pending", "submitted", "unknown", "failed", "pending")
        ]
        assert found[1].file == "videos/own-1.mp4"
        assert found[3].project_id == "1b5db5db-1ee7-595e-ab45-a26341663aa2"
        assert found[3].job_id == "aaaaaaaa-0000-4000-8000-000000000003"
        assert found[5].project_id == "11111111-1111-4111-8111-111111111111"
        assert found[6].project_id == "74035625-e2ed-589e-ac1b-999851677c11"
        assert ledger.saved_options()["concurrency"] == 8
        assert ledger.campaign.api is None
    with Ledger(version_1, new=False) as again:
        assert len(list(again.entries())) == 6


def test_the_manifest_of_version_1_adds_nothing(version_1: str) -> None:
    """The same manifest, with fresh signatures, continues its rows under the campaign's new name."""
    with Ledger(version_1, "spring", api=LIVE) as ledger:
        loaded = ledger.load(read(manifest_of_version_1()))
        assert (loaded.new, loaded.known, loaded.waiting) == (0, 6, 2)
        assert names(ledger) == ["spring"]
        assert ledger.saved_options()["concurrency"] == 8
        assert [entry.n for entry in ledger.entries()] == [1, 2, 3, 4, 5, 6]


def test_new_rows_join_those_of_version_1(version_1: str) -> None:
    """A manifest that has grown adds its new rows, and repeats none."""
    more = {"image_url": "https://cdn.example.com/7.png", "audio_url": "https://cdn.example.com/7.mp3"}
    with Ledger(version_1, "spring", api=LIVE) as ledger:
        assert ledger.load(read([*manifest_of_version_1(), more])).new == 1
        assert len({entry.project_id for entry in ledger.entries()}) == 7


def test_rows_of_several_manifests_are_not_torn_apart(version_1: str) -> None:
    """If a ledger of version 1 has rows of other manifests as well, the user decides first."""
    with Ledger(version_1, "spring", api=LIVE) as ledger:
        with pytest.raises(LedgerError, match=r"2 of its 6 rows are in this manifest.*--campaign"):
            ledger.load(read(manifest_of_version_1()[:2]))
        assert ledger.counts()[State.PENDING] == 0
    with Ledger(version_1, new=False) as listed:
        (earlier, _) = names(listed)
    with Ledger(version_1, earlier, api=LIVE) as ledger:
        ledger.assign(Account(LIVE, "key-1"))
        assert ledger.load(read(manifest_of_version_1()[:2])).known == 2
        assert ledger.counts()[State.PENDING] == 2


def test_another_manifest_is_another_campaign(version_1: str) -> None:
    """Its rows have nothing to do with those of version 1, which stay as they are."""
    with Ledger(version_1, "spring", api=LIVE) as ledger:
        loaded = ledger.load(rows("x", "y"))
        assert (loaded.new, loaded.waiting) == (2, 0)
        assert len(names(ledger)) == 2


def test_a_running_version_1_is_not_migrated(tmp_path: Path) -> None:
    """Its process would lose its tables, and with them the ids of its jobs."""
    place = version_1_in_sqlite(str(tmp_path / "ledger.sqlite"))
    with sqlite3.connect(place) as kept:
        (before,) = kept.execute("SELECT count(*) FROM jobs").fetchone()
    kept.close()
    from techforge.batch.sqlite import SQLite  # noqa: PLC0415

    database = SQLite(place)
    with database.exclusive_lock(), pytest.raises(LedgerError, match="another process"):
        Ledger(place)
    assert (before, database.tables()) == (6, {"campaign", "jobs"})
    database.close()


def test_no_worker_of_version_1_loses_its_tables(postgres_url: str) -> None:
    """While another process is connected, a ledger in PostgreSQL is not migrated."""
    from techforge.batch.postgres import Postgres  # noqa: PLC0415

    url = version_1_in_postgres(campaign(postgres_url))
    other = Postgres(url)
    with pytest.raises(LedgerError, match="Stop all workers"):
        Ledger(url)
    assert other.tables() == {"campaign", "jobs"}
    other.close()
    with Ledger(url, new=False) as ledger:
        assert len(list(ledger.entries())) == 6


# --- where a ledger is ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place",
    [
        "host=db dbname=campaigns",
        "service=techforge",
        " user=me host=db",
        "mysql://me@host/db",
        "sqlite:///ledger.sqlite",
        "postgres:db",
        "redis://localhost",
        "file:ledger.sqlite",
    ],
)
def test_no_other_database_becomes_a_local_file(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each machine would have a file of its own, and all of them would pay for all rows."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LedgerError, match="postgresql://user@host/database"):
        Ledger(place)
    assert list(tmp_path.iterdir()) == []


def test_a_url_in_capitals_is_a_url() -> None:
    """Schemes are compared without their case (RFC 3986, section 3.1)."""
    assert postgres_url("POSTGRESQL://Me@Host/Db") == "postgresql://Me@Host/Db"
    assert postgres_url("Postgres://host/db") == "postgres://host/db"
    assert postgres_url("C:\\ledgers\\a.sqlite") is None
    assert postgres_url("./a:b.sqlite") is None


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (lambda folder: folder, "is a folder"),
        (lambda folder: folder / "missing" / "l.sqlite", "missing for the ledger does not exist"),
        (lambda folder: (folder / "text").write_text("x" * 9999) and folder / "text", "cannot be used"),
    ],
)
def test_a_bad_place_is_one_sentence(place: Callable[[Path], Path], said: str, tmp_path: Path) -> None:
    """A folder, a folder that is missing, another kind of file."""
    with pytest.raises(LedgerError, match=said) as caught:
        Ledger(place(tmp_path))
    assert "\n" not in str(caught.value)


def test_the_former_name_of_the_schema(postgres_url: str) -> None:
    """`?campaign=` in a URL named a schema with one campaign, and still opens it."""
    url = campaign(postgres_url)
    with Ledger(url, "a") as ledger:
        ledger.load(rows("1"))
    with Ledger(url.replace("campaign=", "schema="), new=False) as again:
        assert again.campaign_name == "a"
