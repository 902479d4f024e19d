"""PostgreSQL as operators run it: poolers, privileges, time limits, failover and backups."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest
from support.pooler import Pooler
from support.postgres import OwnPostgres, campaign

from techforge import InvalidArgumentError, TechForge
from techforge.batch import (
    FailoverError,
    Ledger,
    LedgerError,
    LedgerUnavailableError,
    NoLedgerError,
    State,
    changes,
    load,
)
from techforge.batch.account import Account
from techforge.batch.campaign import open_when_ready
from techforge.batch.manifest import Row
from techforge.batch.postgres_session import Address, split_url
from techforge.mock import MockServer

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    import psycopg

MEDIA = {"image_url": "https://cdn.example.com/i.png", "audio_url": "https://cdn.example.com/a.mp3"}


def rows(*keys: str, content: str = "") -> list[Row]:
    """Return a row for each key."""
    return [Row(key, {**MEDIA, "title": content}, {}, line) for line, key in enumerate(keys, 1)]


@pytest.fixture
def url(postgres_url: str) -> str:
    """Return the URL of a ledger that does not exist yet."""
    return campaign(postgres_url)


@contextmanager
def session(url: str) -> Generator[psycopg.Connection]:
    """Connect to the database of a ledger as its processes do."""
    address = Address.of(url)
    with address.connect() as db:
        address.prepare(db)
        yield db


def in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Start `work` in a thread. The list gets its result, or its error."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:  # noqa: BLE001 - the test judges it
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, results


# --- schemas and poolers --------------------------------------------------------------------------


@pytest.mark.parametrize("schema", ["public", "information_schema"])
@pytest.mark.parametrize("parameter", ["schema", "campaign"])
def test_a_schema_of_other_programs_is_refused(parameter: str, schema: str) -> None:
    """A ledger in `public` would mix its tables with those of other programs."""
    with pytest.raises(InvalidArgumentError, match="other programs use it"):
        split_url(f"postgresql://h/d?{parameter}={schema}")


@contextmanager
def pgbouncer(url: str, mode: str, folder: Path, *, pool_size: int = 20) -> Generator[str]:
    """Start PgBouncer in front of a server, and yield the URL that leads through it."""
    program = shutil.which("pgbouncer")
    if program is None:
        pytest.skip("pgbouncer is not installed")
    parts = urlsplit(url)
    host = parse_qs(parts.query).get("host", [parts.hostname])[0]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    folder.chmod(0o755)
    for parent in (folder, *folder.parents[:-2], Path(str(host))):
        if parent.exists():
            parent.chmod(parent.stat().st_mode | 0o055)
    config = folder / "pgbouncer.ini"
    config.write_text(
        f"[databases]\n{parts.path[1:]} = user={parts.username} host={host} port={parts.port or 5432}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        f"pool_mode = {mode}\ndefault_pool_size = {pool_size}\nignore_startup_parameters = options\n"
    )
    config.chmod(0o644)
    user = ["-u", "nobody"] if os.getuid() == 0 else []  # it refuses to run as root
    process = subprocess.Popen([program, "-q", *user, str(config)], stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", port)):
                    break
            time.sleep(0.05)
        yield f"postgresql://{parts.username}@127.0.0.1:{port}{parts.path}"
    finally:
        process.kill()
        process.wait()


@contextmanager
def pooler(kind: str, url: str, mode: str, folder: Path) -> Generator[str]:
    """Start a pooler in front of a server, and yield the URL of a ledger behind it."""
    server, _, ledger = url.rpartition("campaign=")
    started = (
        pgbouncer(server, mode, folder) if kind == "pgbouncer" else (_fake_pooler(server.rstrip("&?"), mode))
    )
    with started as through:
        yield f"{through}?campaign={ledger}"


@contextmanager
def _fake_pooler(url: str, mode: str) -> Generator[str]:
    with Pooler(url, mode) as fake:
        yield fake.url


@pytest.mark.parametrize("kind", ["fake", "pgbouncer"])
def test_a_pooler_in_transaction_mode_is_refused(kind: str, url: str, tmp_path: Path) -> None:
    """It dropped the schema, and the tables were created in `public`."""
    refusal = pytest.raises(LedgerError, match="pool_mode=session")
    with pooler(kind, url, "transaction", tmp_path) as through, refusal:
        Ledger(through)
    with session(url) as db:
        found = db.execute("SELECT schemaname FROM pg_tables WHERE tablename = 'jobs'").fetchall()
    assert ("public",) not in found
    assert (split_url(url)[1],) not in found


@pytest.mark.parametrize("kind", ["fake", "pgbouncer"])
def test_a_pooler_in_session_mode_keeps_the_settings(kind: str, url: str, tmp_path: Path) -> None:
    """They are applied by statements, since the pooler drops startup options."""
    with pooler(kind, url, "session", tmp_path) as through, Ledger(through) as ledger:
        ledger.load(rows("a"))
        assert ledger._db.read("SELECT current_schema()") == [(split_url(url)[1],)]
        assert ledger._db.read("SHOW synchronous_commit") == [("on",)]
        assert ledger._db.read("SHOW idle_in_transaction_session_timeout") == [("10s",)]
        assert ledger.apply(changes.claim(1, 1, 0.0, 1.0)) == [True]
    with Ledger(url) as ledger:
        assert ledger.counts()[State.POSTING] == 1


def test_a_pooler_without_a_second_connection_is_not_waited_for(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PgBouncer lets a client wait for two minutes."""
    monkeypatch.setattr("techforge.batch.postgres_session.POOLER_TIMEOUT", 0.5)
    server, _, ledger = url.rpartition("campaign=")
    with pgbouncer(server, "session", tmp_path, pool_size=1) as through:
        started = time.monotonic()
        with pytest.raises(LedgerUnavailableError, match="has no second connection"):
            Ledger(f"{through}?campaign={ledger}")
        assert time.monotonic() - started < 3


def test_another_session_changes_nothing(url: str) -> None:
    """If a pooler switches sessions later, each transaction notices it."""
    with Ledger(url) as ledger:
        ledger.load(rows("a"))
        ledger._db._pid += 1  # type: ignore[attr-defined]
        with pytest.raises(LedgerError, match="transaction mode"):
            ledger.apply(changes.claim(1, 1, 0.0, 1.0))
        with pytest.raises(LedgerError, match="transaction mode"):
            ledger.save_options({})
        assert ledger.counts()[State.PENDING] == 1


# --- loading --------------------------------------------------------------------------------------


def test_overlapping_manifests_in_opposite_order_are_both_loaded(url: str) -> None:
    """They deadlocked: each load had rows that the other one wanted to insert."""
    keys = [f"row {n}" for n in range(3000)]
    start = threading.Barrier(2)
    with Ledger(url, "spring") as first, Ledger(url, "spring") as second:

        def load(ledger: Ledger, several: list[str]) -> tuple[int, int]:
            start.wait()
            loaded = ledger.load(rows(*several))
            return loaded.new, loaded.known

        thread, results = in_thread(lambda: load(first, keys))
        other, more = in_thread(lambda: load(second, keys[::-1]))
        thread.join()
        other.join()
        assert sorted(results + more) == [(0, 3000), (3000, 0)]
        assert first.counts()[State.PENDING] == 3000


def test_a_load_that_deadlocks_with_a_worker_runs_again(url: str) -> None:
    """The load waits for a row that a worker has, and the worker for one that the load has changed."""
    with Ledger(url) as ledger, session(url) as worker:
        ledger.load(rows("a", "b"))
        with worker.transaction():
            worker.execute("UPDATE jobs SET next_at = 0 WHERE key = 'b'")
            thread, results = in_thread(
                lambda: ledger.load(rows("a", "b", content="new"), on_conflict="replace")
            )
            time.sleep(0.5)
            worker.execute("UPDATE jobs SET next_at = 0 WHERE key = 'a'")
        thread.join()
        assert [loaded.replaced for loaded in results] == [2]


# --- privileges -----------------------------------------------------------------------------------


@pytest.fixture
def role(url: str) -> Iterator[str]:
    """Create a role without privileges, and return its name."""
    name = f"role_{uuid4().hex[:8]}"
    with session(url) as db:
        db.execute(f"CREATE ROLE {name} LOGIN".encode())
        db.execute("REVOKE TEMPORARY ON DATABASE postgres FROM public")
        yield name
        db.execute("GRANT TEMPORARY ON DATABASE postgres TO public")
        db.execute(f"DROP OWNED BY {name} CASCADE".encode())  # its privileges, too
        db.execute(f"DROP ROLE {name}".encode())


def as_role(url: str, role: str) -> str:
    """Return a ledger's URL for another user."""
    return url.replace("postgres@", f"{role}@", 1)


def test_missing_privileges_are_named(url: str, role: str) -> None:
    """Each grant that the error names is given, until the ledger works."""
    with pytest.raises(LedgerError, match="GRANT CREATE ON DATABASE") as caught:
        Ledger(as_role(url, role))
    assert not isinstance(caught.value, LedgerUnavailableError)  # waiting does not help
    with Ledger(url) as ledger:
        ledger.load(rows("a"))

    def work() -> list[bool]:
        with Ledger(as_role(url, role)) as ledger:
            ledger.load(rows("a", "b"))
            return ledger.apply(changes.claim(1, 1, 0.0, 1.0))

    with session(url) as db:
        for _ in range(4):
            with suppress(LedgerError):
                assert work() == [True]
                break
            with pytest.raises(LedgerError, match="Missing: GRANT ") as caught:
                work()
            for grant in str(caught.value).partition("Missing: ")[2].split("; "):
                db.execute(grant.encode())
        else:
            pytest.fail(str(caught.value))


# --- waiting for the ledger -----------------------------------------------------------------------


def test_a_worker_waits_for_a_ledger_that_does_not_exist_yet(url: str, client: TechForge) -> None:
    """An orchestrator starts the workers and the loader at the same time."""
    with pytest.raises(NoLedgerError):
        list(client.batch.work(url))
    thread, results = in_thread(lambda: list(client.batch.work(url, wait_for_ledger=20)))
    time.sleep(0.5)
    with Ledger(url, api=Account.of(client._session.settings).api) as ledger:
        load(ledger, [MEDIA], client._session.settings)
    thread.join(30)
    assert [row.state for row in results[0]] == [State.DONE]


async def test_a_worker_waits_for_a_free_connection(
    url: str, role: str, client: TechForge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `max_connections` used up, it ended as for a wrong option."""
    monkeypatch.setattr("techforge.batch.campaign.WAIT_INTERVAL", 0.1)
    settings = client._session.settings
    with Ledger(url) as ledger, session(url) as db:
        ledger.load(rows("a"))
        schema = split_url(url)[1]
        db.execute(f"GRANT ALL ON SCHEMA {schema} TO {role}".encode())
        db.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {role}".encode())
        db.execute(f"ALTER ROLE {role} CONNECTION LIMIT 0".encode())
        with pytest.raises(LedgerUnavailableError, match="too many connections"):
            await open_when_ready(as_role(url, role), settings, None, 0.2)
        waiting = asyncio.create_task(open_when_ready(as_role(url, role), settings, None, 20))
        await asyncio.sleep(0.3)
        db.execute(f"ALTER ROLE {role} CONNECTION LIMIT 5".encode())
        with await waiting as opened:
            assert opened.counts()[State.PENDING] == 1


# --- time limits ----------------------------------------------------------------------------------


def test_the_time_limits_of_a_role_are_replaced(url: str, role: str) -> None:
    """A role with `statement_timeout = 150ms` ended workers that only counted their rows."""
    with session(url) as db, Ledger(url):
        schema = split_url(url)[1]
        db.execute(f"GRANT ALL ON SCHEMA {schema} TO {role}".encode())
        db.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {role}".encode())
        db.execute(f"ALTER ROLE {role} SET statement_timeout = '150ms'".encode())
        db.execute(f"ALTER ROLE {role} SET lock_timeout = '150ms'".encode())
        db.execute(f"GRANT TEMPORARY ON DATABASE postgres TO {role}".encode())
        with Ledger(as_role(url, role)) as ledger:
            assert ledger._db.read("SHOW statement_timeout") == [("30s",)]
            assert ledger._db.read("SHOW lock_timeout") == [("5s",)]
            ledger.load(rows("a"))
            assert ledger._db.read("SHOW statement_timeout") == [("30s",)]


def test_one_worker_counts_for_all(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each worker counted all rows itself: ten workers kept the database busy with nothing else."""
    count, counted, clock = Ledger.counts, 0, 1000.0

    def slow(self: Ledger) -> dict[State, int]:
        nonlocal counted, clock
        counted += 1
        clock += 1.0
        if counted == 2:  # another worker asks while this one is counting
            assert other.shared_counts()[State.PENDING] == 1
        return count(self)

    monkeypatch.setattr(Ledger, "counts", slow)
    monkeypatch.setattr(Ledger, "now", lambda _: clock)
    with Ledger(url) as ledger, Ledger(url) as other:
        ledger.load(rows("a"))
        assert ledger.shared_counts()[State.PENDING] == 1
        ledger.load(rows("a", "b"))
        clock += 8.9  # nine times as long as the count took
        assert other.shared_counts()[State.PENDING] == 1
        assert counted == 1
        clock += 0.2
        assert ledger.shared_counts()[State.PENDING] == 2
        assert other.shared_counts()[State.PENDING] == 2
        assert counted == 2


def test_a_count_that_was_blocked_is_soon_repeated(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an outage of 15 s, workers counted only after minutes, and outlived their campaign."""
    count, clock = Ledger.counts, 1000.0

    def blocked(self: Ledger) -> dict[State, int]:
        nonlocal clock
        clock += 15.0
        return count(self)

    monkeypatch.setattr(Ledger, "counts", blocked)
    monkeypatch.setattr(Ledger, "now", lambda _: clock)
    with Ledger(url) as ledger:
        ledger.load(rows("a"))
        assert ledger.shared_counts()[State.PENDING] == 1
        ledger.load(rows("a", "b"))
        clock += 10.1
        assert ledger.shared_counts()[State.PENDING] == 2


def test_a_read_is_tried_again(url: str) -> None:
    """Reads were not, so a lock of a second ended a worker."""
    with Ledger(f"{url}&options=-c%20lock_timeout%3D100") as ledger, session(url) as other:
        ledger.load(rows("a"))
        with other.transaction():
            other.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
            thread, results = in_thread(ledger.counts)
            time.sleep(0.5)
        thread.join()
        assert [counts[State.PENDING] for counts in results] == [1]


@pytest.mark.parametrize("trouble", ["locked", "silent", "down"])
def test_a_write_can_be_interrupted(url: str, trouble: str) -> None:
    """A database that is locked or away kept a process alive after SIGTERM, for up to five minutes."""
    server, _, name = url.rpartition("campaign=")
    with Pooler(server.rstrip("&?"), "session") as network, session(url) as other:
        with Ledger(f"{network.url}?campaign={name}") as ledger:
            ledger.load(rows("a"))
            with other.transaction():
                if trouble == "locked":
                    other.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
                elif trouble == "silent":
                    network.freeze()
                else:
                    network.__exit__()
                thread, results = in_thread(lambda: ledger.apply(changes.claim(1, 1, 0.0, 1.0)))
                time.sleep(0.3)
                assert results == []
                started = time.monotonic()
                ledger.interrupt()
                thread.join()
                assert time.monotonic() - started < 0.5
            assert [type(error) for error in results] == [LedgerUnavailableError]
            with pytest.raises(LedgerUnavailableError, match="before this process had to end"):
                ledger.counts()
            started = time.monotonic()
        assert time.monotonic() - started < 0.5  # closing waits for nothing
    with Ledger(url) as ledger:
        assert ledger.counts()[State.PENDING] == 1


def test_a_worker_ends_without_its_schema(url: str) -> None:
    """It lived on, and repeated that its dispatcher failed."""
    with (
        MockServer(render=False) as mock,
        TechForge(mock.api_key, base_url=mock.url, max_rate=20) as client,
    ):
        with Ledger(url, api=Account.of(client._session.settings).api) as ledger:
            load(ledger, [{**MEDIA, "row_key": str(n)} for n in range(300)], client._session.settings)
        threads = [in_thread(lambda: list(client.batch.work(url))) for _ in range(2)]
        while mock.journal.count(operation="createJob") < 10:
            time.sleep(0.05)
        with session(url) as db:
            db.execute(f"DROP SCHEMA {split_url(url)[1]} CASCADE".encode())
        started = time.monotonic()
        for thread, results in threads:
            thread.join(20)
            assert isinstance(results[0], LedgerUnavailableError)
        assert time.monotonic() - started < 15


# --- failover and backups -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own() -> Iterator[OwnPostgres]:
    """Start a server that tests may stop."""
    with OwnPostgres() as own:
        yield own


def test_after_a_failover_nothing_is_claimed(own: OwnPostgres) -> None:
    """A standby may not know the last claims, so nothing is submitted until a person confirms it."""
    url = campaign(own.url)
    with Ledger(url) as ledger, Ledger(url) as other:
        ledger.load(rows("a", "b", "c"))
        assert ledger.apply(changes.claim(1, 1, 0.0, 1.0), changes.claim(3, 1, 0.0, 1.0)) == [True, True]
        ledger.check_server()
        own.promote()
        # What is in flight is recorded.
        found = ledger.apply(changes.submitted(1, 1, "job 1", 0.0), changes.claim(2, 1, 0.0, 1.0))
        assert found == [True, False]
        with pytest.raises(FailoverError, match=r"timeline 00000001, now 00000002.*--after-failover"):
            ledger.check_server()
        assert ledger.confirm_failover() == 1  # the claim of row 3
        ledger.check_server()
        assert other.apply(changes.claim(2, 1, 0.0, 1.0)) == [True]
        other.check_server()
        assert other.counts()[State.UNKNOWN] == 1


def test_a_worker_stops_after_a_failover(own: OwnPostgres) -> None:
    """It submits nothing to the API afterwards, and ends with the error."""
    url = campaign(own.url)
    with (
        MockServer(render=False, job_polls=0) as mock,
        TechForge(mock.api_key, base_url=mock.url, max_rate=20) as client,
    ):
        media = [{**MEDIA, "row_key": str(n)} for n in range(400)]
        thread, results = in_thread(lambda: list(client.batch.run(media, ledger=url)))
        while mock.journal.count(operation="createJob") < 10:
            time.sleep(0.05)
        own.promote()
        thread.join(60)
        assert [type(error) for error in results] == [FailoverError]
        count = mock.journal.count(operation="createJob")
        with pytest.raises(FailoverError):
            list(client.batch.work(url))
        assert mock.journal.count(operation="createJob") == count < 400
        with Ledger(url) as ledger:
            assert ledger.job_counts() == (count, 0)


def test_a_restored_backup_buys_nothing_twice(own: OwnPostgres, tmp_path: Path) -> None:
    """A backup that was made during a run is noticed. The journal knows what it lacks, or all is doubted."""
    url = campaign(own.url)
    schema = split_url(url)[1]
    dump = str(tmp_path / "dump")
    tmp_path.chmod(0o777)
    for folder in tmp_path.parents[:-2]:
        folder.chmod(folder.stat().st_mode | 0o055)  # the server's programs may run as another user
    with (
        MockServer(render=False, job_polls=0) as mock,
        TechForge(mock.api_key, base_url=mock.url) as client,
    ):
        media = [{**MEDIA, "row_key": str(n)} for n in range(60)]
        with Ledger(url) as ledger:
            load(ledger, media, client._session.settings)
        list(client.batch.run(ledger=url, max_jobs=20))
        own.execute("pg_dump", "-n", schema, "-F", "c", "-f", dump, own.url)
        list(client.batch.run(ledger=url, max_jobs=20))
        assert mock.journal.count(operation="createJob") == 40
        with session(url) as db:
            db.execute(f"DROP SCHEMA {schema} CASCADE".encode())
        own.execute("pg_restore", "-d", own.url, dump)
        with pytest.raises(FailoverError, match="a backup of the ledger was restored"):
            list(client.batch.run(ledger=url))
        with Ledger(url) as ledger:
            assert ledger.job_counts() == (40, 0)  # 20 of them from the journal
            ledger.confirm_failover()
            assert ledger.doubt_pending() == 20  # as if there were no journal
        list(client.batch.run(ledger=url))
        assert mock.journal.count(operation="createJob") == 40
