"""Several that run one campaign, on PostgreSQL: what they have in common, and what they cannot do."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from support.postgres import campaign

from techforge import ConfigurationError, InvalidArgumentError, TechForge
from techforge.batch import BadManifestError, Chunk, Ledger, LedgerError, NoLedgerError, State, changes, load
from techforge.batch.database import without_password
from techforge.batch.dispatch import default_dispatcher, log_failure
from techforge.batch.manifest import Row
from techforge.batch.postgres_session import Address, split_url
from techforge.mock import MockServer

sys.path.append(str(Path(__file__).parents[2] / "examples"))
from celery_dispatcher import CeleryDispatcher

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from techforge.batch import Run


def rows(count: int, **columns: Any) -> list[dict[str, Any]]:
    """Return rows that differ."""
    media = {"audio_url": "https://cdn.example.com/audio.mp3"}
    return [{"image_url": f"https://cdn.example.com/{n}.png", **media, **columns} for n in range(count)]


@pytest.fixture
def url(postgres_url: str) -> str:
    """Return where a campaign's ledger can be made."""
    return campaign(postgres_url)


@pytest.fixture
def quick() -> Iterator[MockServer]:
    """Return a mock whose jobs are done at once."""
    with MockServer(render=False, job_polls=0) as mock:
        yield mock


@pytest.fixture
def client(quick: MockServer) -> Iterator[TechForge]:
    """Return a client of it."""
    with TechForge(quick.api_key, base_url=quick.url) as client:
        yield client


def accepted(mock: MockServer) -> Counter[str]:
    """Return how often a job was made for each project."""
    records = mock.journal.requests(operation="createJob")
    return Counter(json.loads(record.body)["project_id"] for record in records if record.job_id)


def together(*runs: Callable[[], Any]) -> None:
    """Do several things at once."""
    threads = [threading.Thread(target=run) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_several_run_one_campaign(client: TechForge, quick: MockServer, url: str, tmp_path: Path) -> None:
    """Each row is submitted once, by one of them, and each of them has some."""
    quick.faults.add("delay=0.03;operation=createJob;times=0")
    ended: dict[str, list[str]] = {}

    def run() -> None:
        ended["run"] = [row.key for row in client.batch.run(rows(250), ledger=url, out=tmp_path)]

    def work() -> None:
        while True:
            try:
                found = client.batch.work(url, out=tmp_path, concurrency=8)
                ended[threading.current_thread().name] = [row.key for row in found]
            except NoLedgerError:
                time.sleep(0.05)
            else:
                return

    together(run, work, work)
    assert all(ended.values())
    assert len(ended) == 3
    keys = [key for found in ended.values() for key in found]
    assert len(keys) == len(set(keys)) == 250
    assert set(accepted(quick).values()) == {1}
    assert len(list(tmp_path.glob("*.mp4"))) == 250
    assert list(client.batch.run(rows(250), ledger=url)) == []


def test_a_budget_of_jobs_is_for_all(client: TechForge, quick: MockServer, url: str) -> None:
    """Two workers together submit no more than they may; what is left waits for the next run."""
    with Ledger(url) as ledger:
        load(ledger, rows(150), client._session.settings)
        # By a loader that knew of no budget.
        asyncio.run(default_dispatcher(url, ledger.campaign.id).enqueue(ledger.chunks()))
    together(
        lambda: list(client.batch.run(ledger=url, max_jobs=40)),
        lambda: time.sleep(1.0) or list(client.batch.work(url)),
    )
    assert accepted(quick).total() == 40
    assert len(list(client.batch.run(ledger=url))) == 110
    assert set(accepted(quick).values()) == {1}


def test_a_budget_of_failures_is_for_all(client: TechForge, quick: MockServer, url: str) -> None:
    """A campaign that only fails is ended for all workers; the next run has a budget of its own."""
    quick.faults.add("status=400;operation=createJob;times=0")
    quick.faults.add("delay=0.05;operation=createJob;times=0")
    ended = list(client.batch.run(rows(200), ledger=url, max_failures=5, concurrency=2))
    assert 5 <= len(ended) < 100
    assert 1 <= len(list(client.batch.run(ledger=url, max_failures=5, concurrency=2))) < 100
    with Ledger(url) as ledger:
        assert ledger.counts()[State.PENDING] > 0


def test_no_more_jobs_at_once(url: str) -> None:
    """`max_outstanding` is shared out, also where there are fewer than workers."""
    with (
        MockServer(render=False, job_seconds=0.3) as mock,
        TechForge(mock.api_key, base_url=mock.url) as client,
    ):
        most = 0

        def look(run: Run) -> None:
            nonlocal most
            with Ledger(url) as ledger:
                counts = ledger.counts()
            most = max(most, counts[State.POSTING] + counts[State.SUBMITTED])
            del run

        options: dict[str, Any] = {"max_outstanding": 2}
        together(
            lambda: list(client.batch.run(rows(8), ledger=url, on_progress=look, **options)),
            lambda: time.sleep(1.0) or list(client.batch.work(url, **options)),
            lambda: time.sleep(1.0) or list(client.batch.work(url, **options)),
        )
        assert accepted(mock).total() == 8
    assert 1 <= most <= 3


def test_who_stays_takes_what_comes(client: TechForge, url: str) -> None:
    """A worker that stays is there for rows that are loaded later, and stops when told."""
    list(client.batch.run(rows(1), ledger=url))
    worker = client.batch.work(url, stay=True)
    found: list[str] = []

    def work() -> None:
        for row in worker:
            found.append(row.key)
            if len(found) == 3:
                break
        worker.close()

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(1.0)
    with Ledger(url) as ledger:
        load(ledger, rows(4), client._session.settings)
        dispatched, dispatcher = ledger.chunks(), default_dispatcher(url, ledger.campaign.id)
    asyncio.run(dispatcher.enqueue(dispatched))
    thread.join(30)
    assert not thread.is_alive()
    assert len(found) == 3


def test_celery_can_hand_rows_out(client: TechForge, quick: MockServer, url: str) -> None:
    """The boundary has three methods; the example in examples/ has them."""
    dispatcher = CeleryDispatcher(Celery("campaign", broker="memory://localhost"))
    ended = list(client.batch.run(rows(120), ledger=url, dispatcher=dispatcher))
    assert {row.state for row in ended} == {State.DONE}
    assert accepted(quick).total() == len(ended) == 120


class Faulty:
    """A dispatcher that loses chunks, hands others out twice, and fails."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.starts = 0

    async def enqueue(self, chunks: Sequence[Chunk]) -> None:
        """Take chunks, but for the first time."""
        self.chunks += chunks if self.starts else []

    async def run_worker(self, process: Callable[[Chunk], Awaitable[None]]) -> None:
        """Fail at first, and then hand each chunk out twice at once."""
        self.starts += 1
        if self.starts < 3:
            raise OSError("the broker is not there")
        while True:
            while self.chunks:
                chunk = self.chunks.pop()
                await asyncio.gather(process(chunk), process(chunk))
            await asyncio.sleep(0.05)

    async def take_over(self) -> None:
        """Fail."""
        raise OSError("the broker is not there")


def test_a_dispatcher_may_fail(
    client: TechForge, quick: MockServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has lost is found, and what it hands out twice is submitted once."""
    monkeypatch.setattr("techforge.batch.worker.IDLE_TIMEOUT", 0.5)
    dispatcher = Faulty()
    ended = list(client.batch.run(rows(130), ledger=url, dispatcher=dispatcher))
    assert len(ended) == 130
    assert dispatcher.starts == 3
    assert set(accepted(quick).values()) == {1}


@pytest.mark.parametrize("error", [OSError("the broker is not there"), None])
async def test_a_dispatcher_cannot_lose_the_end(error: OSError | None) -> None:
    """If its clean-up failed, the worker took that for a failure, and started it again for ever."""

    async def run() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if error is not None:
                raise error from None

    task = asyncio.create_task(log_failure(run()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_what_is_wrong_with_a_row_is_told(client: TechForge, url: str, tmp_path: Path) -> None:
    """Also where a dispatcher would only log it."""
    with pytest.raises(InvalidArgumentError, match="cannot be filled in"):
        list(client.batch.run(rows(1), ledger=url, out=tmp_path, name="{nothing}-{row_key}.mp4"))


def test_a_bad_row_stops_everything(client: TechForge, quick: MockServer, url: str) -> None:
    """Nothing is loaded, as on SQLite."""
    with pytest.raises(BadManifestError):
        list(client.batch.run([*rows(3), {"image_url": "ftp://a/b", "audio_url": "https://a/b"}], ledger=url))
    with Ledger(url) as ledger:
        assert not any(ledger.counts().values())
    assert quick.journal.count() == 0


def test_what_cannot_be_shared(client: TechForge, url: str, tmp_path: Path) -> None:
    """A file is one process's own, and there must be a campaign to join."""
    with pytest.raises(NoLedgerError, match="there is no ledger"):
        list(client.batch.work(url))
    with Ledger(tmp_path / "l") as ledger:
        ledger.load([])
    with pytest.raises(LedgerError, match="one process at a time"):
        list(client.batch.work(tmp_path / "l"))


def test_a_database_that_cannot_be_reached() -> None:
    """It is told at once, and without its password."""
    began = time.monotonic()
    with pytest.raises(LedgerError, match="cannot be read or written") as caught:
        Ledger("postgresql://user:secret-word@127.0.0.1:9/database?campaign=spring")
    assert time.monotonic() - began < 10
    assert "secret-word" not in str(caught.value)
    assert "user@127.0.0.1" in str(caught.value)


def test_what_a_url_says(postgres_url: str) -> None:
    """The campaign's name is ours, all else PostgreSQL's; options that were given are kept."""
    assert split_url("postgresql://h/d?schema=spring&sslmode=require") == (
        "postgresql://h/d?sslmode=require",
        "spring",
    )
    assert split_url("postgresql:///d") == ("postgresql:///d", "techforge")
    for name in ("Spring", "a-b", "1a", "pg_x", "", 'a"b', "a" * 42):
        with pytest.raises(InvalidArgumentError, match="schema="):
            split_url(f"postgresql://h/d?campaign={name}")
    assert split_url("postgresql://h/d?a=1&campaign=x") == ("postgresql://h/d?a=1", "x")
    assert split_url("postgresql://u:a#b?c@h/d?campaign=x&a=1") == ("postgresql://u:a#b?c@h/d?a=1", "x")
    both = "postgresql://user:secret@h/d?password=secret&sslpassword=secret&x=1"
    assert without_password(both) == "postgresql://user@h/d?password=***&sslpassword=***&x=1"
    for odd in ("s3/cret", "s3?cret", "s3@cret", "s3#cret"):
        assert without_password(f"postgresql://user:{odd}@h:5/d") == "postgresql://user@h:5/d"
    assert without_password("postgresql://user@h:5432/d?a=b@c") == "postgresql://user@h:5432/d?a=b@c"
    for wrong in ("postgresql://h/d?foo=bar", "postgresql://u:%zz@h/d"):
        with pytest.raises(LedgerError, match="is not a PostgreSQL URL") as caught:
            Ledger(wrong)
        assert "%zz" not in str(caught.value)
    url = campaign(postgres_url)
    given = f"{url}&options=-c%20statement_timeout%3D5000%20-c%20synchronous_commit%3Doff"
    with Ledger(given) as ledger, Ledger(given.replace("5000", "6000")) as other:
        assert ledger._db.read("SHOW statement_timeout") == [("5s",)]
        assert other._db.read("SHOW statement_timeout") == [("6s",)]
        assert ledger._db.read("SHOW synchronous_commit") == [("on",)]
    # A word that SQL knows is a name like any other.
    with Ledger(url.rpartition("=")[0] + "=select") as ledger:
        ledger._db.run(lambda db: db.execute('DROP SCHEMA "select" CASCADE'))


def test_campaigns_are_kept_apart(client: TechForge, postgres_url: str) -> None:
    """Two in one database know nothing of each other."""
    urls = campaign(postgres_url), campaign(postgres_url)
    for url, count in zip(urls, (2, 3), strict=True):
        list(client.batch.run(rows(count), ledger=url))
    for url, count in zip(urls, (2, 3), strict=True):
        with Ledger(url) as ledger:
            assert ledger.counts()[State.DONE] == count


def test_a_commit_whose_answer_is_lost(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it has come about is asked, so nothing is done twice, or taken for done that is not."""
    import psycopg  # noqa: PLC0415

    with Ledger(url) as ledger:
        count = 0

        def add(kept: int | None) -> int:
            nonlocal count
            count += 1
            return (kept or 0) + 1

        execute = psycopg.Transaction.__exit__
        for is_committed in (True, False):

            def lost(self: Any, *details: Any, is_committed: bool = is_committed) -> Any:
                monkeypatch.setattr(psycopg.Transaction, "__exit__", execute)
                if is_committed:
                    execute(self, *details)
                self.connection.close()
                raise psycopg.OperationalError("the connection is lost")

            monkeypatch.setattr(psycopg.Transaction, "__exit__", lost)
            ledger.update_fact("count", add)
        assert ledger.get_fact("count") == 2
    assert count == 3


@pytest.mark.parametrize("trouble", ["statement_timeout", "lock_timeout", "read only", "terminated"])
def test_a_server_in_trouble_is_waited_for(url: str, trouble: str) -> None:
    """A lock that lasts, a fail-over, an administrator: what is to be written is written in the end."""
    given = f"{url}&options=-c%20{trouble}%3D300" if "timeout" in trouble else url
    with Ledger(given) as ledger, Address.of(url).connect() as other:
        Address.of(url).prepare(other)
        load_one(ledger)
        ready = threading.Event()

        def trouble_it() -> None:
            if "timeout" in trouble:
                with other.transaction():
                    other.execute("SELECT 1 FROM jobs FOR UPDATE")
                    ready.set()
                    time.sleep(1.0)
            elif trouble == "read only":
                ledger._db.run(lambda db: db.execute("SET default_transaction_read_only = on"))
                ready.set()
            else:
                other.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                    " AND query LIKE '%%campaign%%'"
                )
                ready.set()

        thread = threading.Thread(target=trouble_it)
        thread.start()
        ready.wait(5)
        assert ledger.apply(changes.claim(1, 1, ledger.now(), ledger.now() + 60)) == [True]
        thread.join()


def load_one(ledger: Ledger) -> None:
    """Load a row."""
    params = {"image_url": "https://cdn.example.com/i.png", "audio_url": "https://cdn.example.com/a.mp3"}
    ledger.load([Row("a", params, {}, 1)])


def test_who_is_frozen_holds_nobody_up(url: str) -> None:
    """The server ends a transaction in which nothing happens."""
    with Ledger(url) as ledger:
        assert ledger._db.read("SHOW idle_in_transaction_session_timeout") == [("10s",)]


def test_clocks_that_are_wrong(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose clock is set anew goes on by the server's."""
    with Ledger(url) as ledger:
        before = ledger.now()
        monkeypatch.setattr("time.time", lambda: 0.0)
        assert before <= ledger.now() <= before + 5


def test_a_budget_that_is_spent_is_told(client: TechForge, url: str) -> None:
    """A worker that may do nothing says why."""
    list(client.batch.run(rows(4), ledger=url, max_jobs=2))
    problems: list[str] = []
    assert list(client.batch.work(url, on_progress=lambda run: problems.append(run.problem))) == []
    assert "budget" in problems[-1]


def test_whose_job_it_is(client: TechForge, quick: MockServer, url: str) -> None:
    """Where unknown rows share a project, nobody is given another's job."""
    quick.faults.add("status=500;operation=createJob;times=2")
    project = "5b1e3a80-6d21-4c0a-9a9e-0b0a3f0f6f11"
    list(client.batch.run(rows(2, project_id=project), ledger=url))
    with Ledger(url) as ledger, pytest.raises(LedgerError, match="2 unknown rows"):
        ledger.settle(project, "job-1")


def test_no_session_is_left(url: str) -> None:
    """What a process has marked its commits by goes with it."""
    with Ledger(url) as ledger:
        ledger.save_options({})
        assert any(name.startswith("session") for (name,) in ledger._db.read("SELECT name FROM facts"))
    with Ledger(url) as ledger:
        assert not any(name.startswith("session") for (name,) in ledger._db.read("SELECT name FROM facts"))


def test_without_what_workers_need(client: TechForge, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "techforge.batch.procrastinate", None)
    with pytest.raises(ConfigurationError, match=r"techforge\[distributed\]"):
        list(client.batch.run(rows(1), ledger=url))
