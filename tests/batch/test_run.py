"""Running campaigns against the mock: every row ends as what it is, and is submitted once."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.postgres import campaign
from support.servers import Scripted

from techforge import (
    APIConnectionError,
    AsyncTechForge,
    AuthenticationError,
    ConfigurationError,
    InvalidArgumentError,
    Job,
    RateLimitError,
    TechForge,
)
from techforge.batch import BadManifestError, Entry, Ledger, LedgerError, NoProgressError, State
from techforge.batch.sqlite import SQLite
from techforge.batch.submitter import Submitter
from techforge.mock import MockServer

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator


def rows(count: int, **columns: Any) -> list[dict[str, Any]]:
    """Return rows that differ."""
    media = {"audio_url": "https://cdn.example.com/audio.mp3"}
    return [{"image_url": f"https://cdn.example.com/{n}.png", **media, **columns} for n in range(count)]


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


def submissions(mock: MockServer) -> Counter[str]:
    """Return how often each project was submitted; what was cut off while it was sent has none."""
    found: Counter[str] = Counter()
    for record in mock.journal.requests(operation="createJob"):
        with suppress(ValueError):
            found[json.loads(record.body)["project_id"]] += 1
    return found


def test_every_row_ends_with_its_video(client: TechForge, quick: MockServer, tmp_path: Path) -> None:
    """Each is submitted once, fetched, named as wanted, and comes back with its own columns."""
    given = rows(20)
    for number, row in enumerate(given):
        row |= {"row_key": f"r{number}", "customer": f"c{number}"}
    out = tmp_path / "videos"
    ended = list(client.batch.run(given, ledger=tmp_path / "l", out=out, name="{customer}-{row_key}.mp4"))
    assert {entry.state for entry in ended} == {State.DONE}
    assert sorted(path.name for path in out.iterdir()) == sorted(f"c{n}-r{n}.mp4" for n in range(20))
    assert {entry.key: entry.metadata["customer"] for entry in ended} == {f"r{n}": f"c{n}" for n in range(20)}
    assert set(submissions(quick).values()) == {1}
    assert set(submissions(quick)) == {entry.project_id for entry in ended}


async def test_the_same_for_asyncio(quick: MockServer, tmp_path: Path) -> None:
    """The other colour is an async iterator."""
    async with AsyncTechForge(quick.api_key, base_url=quick.url) as client:
        ended = [entry async for entry in client.batch.run(rows(5), ledger=tmp_path / "l")]
    assert [entry.state for entry in ended] == [State.DONE] * 5


def test_running_it_again_does_nothing(client: TechForge, quick: MockServer, tmp_path: Path) -> None:
    """What has ended stays so; what is new is added."""
    list(client.batch.run(rows(3), ledger=tmp_path / "l"))
    assert list(client.batch.run(rows(3), ledger=tmp_path / "l")) == []
    assert len(list(client.batch.run(rows(4), ledger=tmp_path / "l"))) == 1
    assert submissions(quick).total() == 4


def test_a_bad_row_stops_everything(client: TechForge, quick: MockServer, tmp_path: Path) -> None:
    """All rows are checked before the first is sent; what only the client knows is checked, too."""
    given = [*rows(2), *rows(1, version=3), {"image_url": "ftp://a/b", "audio_url": "https://a/b"}]
    with pytest.raises(BadManifestError) as caught:
        list(client.batch.run(given, ledger=tmp_path / "l"))
    assert caught.value.count == 2
    assert "line 3, column version" in str(caught.value)
    assert "line 4, column image_url" in str(caught.value)
    assert quick.journal.count() == 0
    ended = list(client.batch.run(given, ledger=tmp_path / "l", skip_bad=True))
    assert [entry.line for entry in ended] == [1, 2]


@pytest.mark.parametrize(
    ("fault", "state", "sent"),
    [
        ("status=400", State.FAILED, 1),
        ("status=429;retry-after=0", State.DONE, 2),
        ("status=503", State.UNKNOWN, 1),
        ("close=before-body", State.UNKNOWN, 1),
        ("close=after-body", State.UNKNOWN, 1),
        pytest.param("body=html", State.UNKNOWN, 1, marks=pytest.mark.lying("it is a page")),
    ],
)
def test_what_a_fault_makes_of_a_row(
    client: TechForge, quick: MockServer, tmp_path: Path, fault: str, state: State, sent: int
) -> None:
    """Only what was surely not accepted is sent again; also when the campaign is run again."""
    quick.faults.add(f"{fault};operation=createJob")
    (entry,) = client.batch.run(rows(1), ledger=tmp_path / "l")
    assert entry.state is state
    assert bool(entry.reason) == (state is not State.DONE)
    assert list(client.batch.run(rows(1), ledger=tmp_path / "l")) == []
    assert quick.journal.count(operation="createJob") == sent


def test_a_refused_key_pauses(quick: MockServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The campaign goes on when the key works, and no row has failed by it."""
    monkeypatch.setattr("techforge.batch.submitter.REJECTED_KEY_DELAY", 0.3)
    problems: set[str] = set()

    def key() -> str:
        refused = sum(record.status == 401 for record in quick.journal.requests())
        # The request before the first row is accepted.
        return quick.api_key if refused >= 6 or not quick.journal.count() else "wrong-key-0123456789"

    with TechForge(key, base_url=quick.url) as client:
        ended = list(
            client.batch.run(
                rows(5), ledger=tmp_path / "l", on_progress=lambda run: problems.add(run.problem)
            )
        )
    assert [entry.state for entry in ended] == [State.DONE] * 5
    assert any("rejects the key" in problem for problem in problems)


def test_one_free_request_comes_before_the_first_row(quick: MockServer, tmp_path: Path) -> None:
    """A key that is refused, or an API that is away, is an exception before anything is submitted."""
    with TechForge("wrong-key-0123456789", base_url=quick.url) as client, pytest.raises(AuthenticationError):
        list(client.batch.run(rows(2), ledger=tmp_path / "l"))
    with TechForge(quick.api_key, base_url="http://127.0.0.1:9") as client, pytest.raises(APIConnectionError):
        list(client.batch.run(rows(2), ledger=tmp_path / "m"))
    assert quick.journal.count(operation="createJob") == 0
    with Ledger(tmp_path / "l") as ledger:
        assert ledger.counts()[State.PENDING] == 2


@pytest.mark.parametrize("fault", ["status=429", "status=503", "status=400"])
def test_a_server_that_is_there_is_good_enough(
    client: TechForge, quick: MockServer, tmp_path: Path, fault: str
) -> None:
    """Only an API that is away or refuses the key keeps a run from beginning."""
    quick.faults.add(f"{fault};operation=generateSignedPath")
    assert [row.state for row in client.batch.run(rows(1), ledger=tmp_path / "l")] == [State.DONE]
    asked = quick.journal.count()
    assert list(client.batch.run(rows(1), ledger=tmp_path / "l")) == []
    assert quick.journal.count() == asked


def test_a_run_without_progress_ends(client: TechForge, quick: MockServer, tmp_path: Path) -> None:
    """The error has the reason and the number of rows that are left; they stay pending."""
    quick.faults.add("status=429;operation=createJob;times=0;retry-after=0")
    with pytest.raises(NoProgressError, match=r"still pending.*429") as caught:
        list(client.batch.run(rows(2), ledger=tmp_path / "l", give_up_after=0.5))
    assert caught.value.pending in {1, 2}  # the other one may be in flight
    assert isinstance(caught.value.error, RateLimitError)
    with Ledger(tmp_path / "l") as ledger:
        assert ledger.counts()[State.PENDING] == 2


def test_progress_starts_the_time_anew(client: TechForge, quick: MockServer, tmp_path: Path) -> None:
    """A run that fails now and then goes on for as long as something succeeds in between."""
    quick.faults.add("status=429;operation=createJob;times=3;retry-after=0")
    ended = list(client.batch.run(rows(3), ledger=tmp_path / "l", give_up_after=20, concurrency=1))
    assert [row.state for row in ended] == [State.DONE] * 3


def test_misspelt_options_are_refused(client: TechForge, tmp_path: Path) -> None:
    """Before a ledger is made; so is a file in place of the folder."""
    (tmp_path / "file").write_text("x")
    for wrong in ({"outt": "videos"}, {"out": tmp_path / "file"}, {"out": tmp_path / "file" / "x"}):
        with pytest.raises(InvalidArgumentError):
            list(client.batch.run(rows(1), ledger=tmp_path / "l", **wrong))
    assert not (tmp_path / "l").exists()


def test_a_key_that_is_renewed_in_the_middle(quick: MockServer, tmp_path: Path) -> None:
    """A row stays claimed while its key is renewed, and is submitted with the new one."""
    keys = iter([quick.api_key, "wrong-key-0123456789"])
    with TechForge(lambda: next(keys, quick.api_key), base_url=quick.url) as client:
        (entry,) = client.batch.run(rows(1), ledger=tmp_path / "l")
    assert entry.state is State.DONE
    assert [r.status for r in quick.journal.requests(operation="createJob")] == [401, 202]


def test_a_key_that_cannot_be_had_stops_a_campaign(quick: MockServer, tmp_path: Path) -> None:
    """Also in the middle of a submission: the user's error comes out, and the row is to be submitted."""

    def key() -> str:
        if quick.journal.count():
            raise LookupError("the vault is closed")
        return "wrong-key-0123456789"

    with TechForge(key, base_url=quick.url) as client, pytest.raises(LookupError, match="vault"):
        list(client.batch.run(rows(1), ledger=tmp_path / "l"))
    with Ledger(tmp_path / "l") as ledger:
        assert [entry.state for entry in ledger.entries()] == [State.PENDING]


def test_a_long_pause_is_kept(quick: MockServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Retry-After beyond the time of a call pauses the campaign, which does not ask in between."""
    tried: list[int] = []
    post = Submitter._post

    async def counted(submitter: Submitter, row: Entry) -> Job:
        tried.append(row.n)
        return await post(submitter, row)

    monkeypatch.setattr(Submitter, "_post", counted)
    quick.faults.add("status=429;retry-after=2;operation=createJob")
    began = time.monotonic()
    with TechForge(quick.api_key, base_url=quick.url, retry_timeout=0.5) as client:
        ended = list(client.batch.run(rows(20), ledger=tmp_path / "l", concurrency=1))
    assert [entry.state for entry in ended] == [State.DONE] * 20
    assert time.monotonic() - began >= 2
    assert quick.journal.count(operation="createJob") == 21
    assert len(tried) <= 30


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("{customer}.mp4", "must contain {row_key}"),
        ("{nothing}-{row_key}.mp4", "cannot be filled in"),
        ("{customer}-{row_key}.mp4", "is not a file name"),
    ],
)
def test_a_name_that_cannot_be(
    client: TechForge, quick: MockServer, tmp_path: Path, name: str, problem: str
) -> None:
    """Two rows with one file, a column that is not there, a way out of the directory: nothing is sent."""
    given = rows(1, customer="../elsewhere")
    with pytest.raises(InvalidArgumentError, match=problem):
        list(client.batch.run(given, ledger=tmp_path / "l", out=tmp_path / "out", name=name))
    assert quick.journal.count(operation="createJob") == 0


def test_a_file_of_another_campaign_is_not_taken_for_this_ones(
    client: TechForge, quick: MockServer, tmp_path: Path
) -> None:
    """A file with the same name and size that is older than the row's job is kept, and the row says so."""
    (entry,) = client.batch.run(rows(1, row_key="a"), ledger=tmp_path / "l", out=tmp_path)
    theirs = bytes(len(Path(str(entry.file)).read_bytes()))
    (tmp_path / "a.mp4").write_bytes(theirs)
    os.utime(tmp_path / "a.mp4", (1, 1))
    (entry,) = client.batch.run(rows(1, row_key="a"), ledger=tmp_path / "l2", out=tmp_path)
    assert (tmp_path / "a.mp4").read_bytes() == theirs
    assert (entry.state, entry.file, "exists" in str(entry.reason)) == (State.DONE, None, True)
    del quick


def test_what_progress_raises_is_seen(client: TechForge, tmp_path: Path) -> None:
    """A callback of the user's that fails does not fail silently."""
    seen: list[object] = []

    def look(run: object) -> None:
        seen.append(run)
        if len(seen) == 1:
            raise LookupError("no such bar")

    with pytest.raises(LookupError, match="no such bar"):
        list(client.batch.run(rows(1), ledger=tmp_path / "l", on_progress=look))


@pytest.mark.lying("a refusal that names a job")
def test_a_job_that_is_known_is_kept(client: TechForge, quick: MockServer, tmp_path: Path) -> None:
    """An id in a refusal is not lost, and its row is never submitted again, whatever is asked for."""
    job_id = "15a6331b-3837-4ae8-8fa7-d3ead3388d77"
    for status in (409, 503):
        quick.faults.add(f'status={status};json={{"jobId":"{job_id}","status":"queued"}};operation=createJob')
    ended = list(client.batch.run(rows(2), ledger=tmp_path / "l", concurrency=1))
    assert {entry.state for entry in ended} == {State.FAILED, State.UNKNOWN}
    with Ledger(tmp_path / "l") as ledger:
        assert {entry.job_id for entry in ledger.entries()} == {job_id}
        assert ledger.retry(State.UNKNOWN) == ledger.retry(State.FAILED) == 0


def test_a_budget_of_jobs(client: TechForge, quick: MockServer, tmp_path: Path) -> None:
    """`max_jobs` ends a run in order, and the next one goes on."""
    assert len(list(client.batch.run(rows(10), ledger=tmp_path / "l", max_jobs=4))) == 4
    assert len(list(client.batch.run(ledger=tmp_path / "l"))) == 6
    assert set(submissions(quick).values()) == {1}


def test_a_budget_of_failures(client: TechForge, quick: MockServer, tmp_path: Path) -> None:
    """`max_failures` keeps a campaign from burning down."""
    quick.faults.add("status=400;operation=createJob;times=0")
    ended = list(client.batch.run(rows(50), ledger=tmp_path / "l", max_failures=3, concurrency=1))
    assert 3 <= len(ended) <= 5
    with Ledger(tmp_path / "l") as ledger:
        assert ledger.counts()[State.PENDING] == 50 - len(ended)
    quick.faults.clear()
    assert len(list(client.batch.run(ledger=tmp_path / "l", max_failures=3))) == 50 - len(ended)


def test_no_more_jobs_at_once(tmp_path: Path) -> None:
    """`max_outstanding` is a cap on what the API is working at."""
    most = 0

    def look(run: Any) -> None:
        nonlocal most
        most = max(most, run.counts[State.SUBMITTED] + run.counts[State.POSTING])

    with (
        MockServer(render=False, job_seconds=0.3) as mock,
        TechForge(mock.api_key, base_url=mock.url) as client,
    ):
        ended = list(client.batch.run(rows(12), ledger=tmp_path / "l", max_outstanding=3, on_progress=look))
    assert len(ended) == 12
    assert 1 <= most <= 3


def test_stopping_in_the_middle(tmp_path: Path) -> None:
    """Who stops iterating is let go within two seconds; the next run ends what was begun."""
    with (
        MockServer(render=False, job_seconds=0.2) as mock,
        TechForge(mock.api_key, base_url=mock.url) as client,
    ):
        mock.faults.add("delay=0.1;operation=createJob;times=0")
        run = client.batch.run(rows(60), ledger=tmp_path / "l", concurrency=4)
        next(run)
        began = time.monotonic()
        run.close()
        assert time.monotonic() - began < 2
        with Ledger(tmp_path / "l") as ledger:
            assert ledger.counts()[State.POSTING] == 0
            assert ledger.counts()[State.PENDING] > 0
        list(client.batch.run(ledger=tmp_path / "l", concurrency=16))
        with Ledger(tmp_path / "l") as ledger:
            counts = ledger.counts()
    assert counts[State.DONE] + counts[State.UNKNOWN] == 60
    assert counts[State.UNKNOWN] == 0
    assert set(submissions(mock).values()) == {1}


def test_a_disk_that_fills(
    client: TechForge, quick: MockServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends the run with an error of ours; what cannot be claimed is not sent; the next run goes on."""
    open_file = SQLite.__init__

    def small(file: SQLite, path: str) -> None:
        open_file(file, path)
        ((pages,),) = file.read("PRAGMA page_count")
        file.read(f"PRAGMA max_page_count = {pages + 2}")

    list(client.batch.run(rows(40), ledger=tmp_path / "l", max_jobs=1))
    with Ledger(tmp_path / "l") as ledger:
        # What is written about a row takes more room than the row had.
        ledger._db.run(lambda db: db.execute("UPDATE jobs SET line = 1"))
    monkeypatch.setattr(SQLite, "__init__", small)
    quick.faults.add('status=400;json={"message":"' + "m" * 250 + '"};operation=createJob;times=0')
    with pytest.raises(LedgerError, match="cannot be read or written"):
        list(client.batch.run(ledger=tmp_path / "l"))
    monkeypatch.undo()
    quick.faults.clear()
    list(client.batch.run(ledger=tmp_path / "l"))
    with Ledger(tmp_path / "l") as ledger:
        counts = ledger.counts()
        assert counts[State.DONE] + counts[State.UNKNOWN] + counts[State.FAILED] == 40
    assert max(submissions(quick).values()) == 1


def test_what_cannot_run(client: TechForge, tmp_path: Path) -> None:
    """Wrong options, a running campaign, and connections of one's own are told at once."""
    import httpx  # noqa: PLC0415

    with pytest.raises(InvalidArgumentError, match="max_outstanding"):
        list(client.batch.run(rows(1), ledger=tmp_path / "l", nonsense=1))
    with (
        Ledger(tmp_path / "l") as ledger,
        ledger.exclusive_lock(),
        pytest.raises(LedgerError, match="another process"),
    ):
        list(client.batch.run(rows(1), ledger=tmp_path / "l"))
    with (
        httpx.Client() as own,
        TechForge("key-0123456789", base_url="http://127.0.0.1:9", http_client=own) as other,
        pytest.raises(ConfigurationError, match="http_client"),
    ):
        list(other.batch.run(rows(1), ledger=tmp_path / "l"))


def test_no_key_is_in_a_ledger(client: TechForge, quick: MockServer, tmp_path: Path) -> None:
    """The ledger may be sent around."""
    quick.faults.add("status=400;operation=createJob")
    list(client.batch.run(rows(3), ledger=tmp_path / "l"))
    for file in tmp_path.iterdir():
        assert quick.api_key.encode() not in file.read_bytes()


def test_who_leaves_early_loses_nothing(quick: MockServer, tmp_path: Path) -> None:
    """An async campaign that is closed, or left by `break`, notes first what was accepted."""

    async def leave(how: str) -> None:
        async with AsyncTechForge(quick.api_key, base_url=quick.url) as client:
            run = client.batch.run(rows(200), ledger=tmp_path / how)
            async for _ in run:
                if how == "break":
                    break
                await run.aclose()
            await run.aclose()

    quick.faults.add("delay=0.1;operation=createJob;times=0")
    for how in ("close", "break"):
        asyncio.run(leave(how))
        with Ledger(tmp_path / how) as ledger:
            ids = {entry.job_id for entry in ledger.entries() if entry.job_id}
            assert ledger.counts()[State.POSTING] == 0
        made = {record.job_id for record in quick.journal.requests(operation="createJob")} - {None}
        assert made == ids
        quick.journal.clear()


@pytest.mark.parametrize("text", ["\\ud800", "\\u0000"])
def test_what_cannot_be_written_of_an_answer(
    client: TechForge, quick: MockServer, tmp_path: Path, postgres_url: str, text: str
) -> None:
    """Half a character, or a NUL, in what the API says costs no other row its job."""
    for ledger in (tmp_path / "l", campaign(postgres_url)):
        quick.faults.add(f'status=400;json={{"message":"a{text}b"}};operation=createJob')
        ended = Counter(entry.state for entry in client.batch.run(rows(8), ledger=ledger))
        assert ended == {State.DONE: 7, State.FAILED: 1}
        with Ledger(ledger) as book:
            assert "a\\" in next(str(entry.reason) for entry in book.entries(State.FAILED))


def test_a_writer_that_fails_tells_all(
    client: TechForge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is, nobody waits for ever."""

    def fail(*_: object) -> list[bool]:
        raise LookupError("a bug")

    monkeypatch.setattr(SQLite, "apply", fail)
    with pytest.raises(LedgerError, match="a bug"):
        list(client.batch.run(rows(4), ledger=tmp_path / "l"))


def test_a_ledger_that_does_not_answer_in_time(
    quick: MockServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row whose claim took too long is submitted later, and is not in doubt."""
    apply, calls = SQLite.apply, []

    def slow(file: SQLite, several: Any) -> list[bool]:
        calls.append(len(several))
        time.sleep(1.0 if len(calls) == 1 else 0.0)
        return apply(file, several)

    monkeypatch.setattr(SQLite, "apply", slow)
    with TechForge(quick.api_key, base_url=quick.url, retry_timeout=0.5) as client:
        ended = list(client.batch.run(rows(3), ledger=tmp_path / "l"))
    assert [entry.state for entry in ended] == [State.DONE] * 3
    assert set(submissions(quick).values()) == {1}


def test_the_advice_on_5xx_has_an_end(
    client: TechForge, quick: MockServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that always gets one is submitted three times, and then nobody knows."""
    monkeypatch.setattr("techforge.batch.submitter.MIN_BACKOFF", 0.05)
    quick.faults.add("status=500;operation=createJob;times=0")
    (entry,) = client.batch.run(rows(1), ledger=tmp_path / "l", retry_server_errors=True)
    assert entry.state is State.UNKNOWN
    assert quick.journal.count(operation="createJob") == 3


def test_a_budget_outlasts_refusals(client: TechForge, quick: MockServer, tmp_path: Path) -> None:
    """A 429 is no job: the budget is used up all the same."""
    quick.faults.add("status=429;operation=createJob;times=3")
    assert len(list(client.batch.run(rows(9), ledger=tmp_path / "l", max_jobs=3))) == 3


def test_few_are_leased_at_once(quick: MockServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than are looked at: what waits in a queue would be taken by others when its lease is over."""
    due, most = Ledger.due, []

    def counted(ledger: Ledger, now: float, until: float, limit: int = 500) -> list[Entry]:
        found = due(ledger, now, until, limit)
        most.append(len(found))
        return found

    monkeypatch.setattr(Ledger, "due", counted)
    quick.faults.add("delay=0.05;operation=storage;times=0")
    with TechForge(quick.api_key, base_url=quick.url) as client:
        options = {"concurrency": 8, "downloads": 1, "out": tmp_path / "out"}
        assert len(list(client.batch.run(rows(40), ledger=tmp_path / "l", **options))) == 40
    assert 0 < max(most) <= 8


def test_stopped_before_it_was_sent(
    quick: MockServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is stopped while a claim is on its way to the disk leaves no doubt."""
    apply = SQLite.apply

    def slow(file: SQLite, several: Any) -> list[bool]:
        time.sleep(1.0)
        return apply(file, several)

    async def leave() -> None:
        async with AsyncTechForge(quick.api_key, base_url=quick.url) as client:
            run = client.batch.run(rows(4), ledger=tmp_path / "l")
            first = asyncio.create_task(anext(run))
            await asyncio.sleep(0.5)
            first.cancel()
            with suppress(asyncio.CancelledError):
                await first

    monkeypatch.setattr(SQLite, "apply", slow)
    monkeypatch.setattr("techforge.batch.runner.GRACE_SECONDS", 0.01)
    asyncio.run(leave())
    monkeypatch.undo()
    assert quick.journal.count(operation="createJob") == 0
    with Ledger(tmp_path / "l") as ledger:
        assert [entry.state for entry in ledger.entries()] == [State.PENDING] * 4


@pytest.mark.parametrize(
    ("end", "state", "job_id"),
    [
        (b'{"jobId": "15a6331b-3837-4ae8-8fa7-d3ead3388d77", "status": "queued"}', State.SUBMITTED, True),
        pytest.param(
            b'{"data": {"jobId": "15a6331b-3837-4ae8-8fa7-d3ead3388d77"}}',
            State.UNKNOWN,
            True,
            marks=pytest.mark.lying("the id is in another place"),
        ),
    ],
)
async def test_a_response_that_has_begun_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: bytes, state: State, job_id: bool
) -> None:
    """A run that is stopped in the middle of a response reads it to its end: its id is in the ledger."""
    monkeypatch.setattr("techforge.batch.runner.GRACE_SECONDS", 0.0)
    begun, may_end = threading.Event(), threading.Event()

    def answer(head: str, connection: socket.socket) -> bytes | None:
        if head.startswith("GET"):
            return b"HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
        length = b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(end)
        connection.sendall(b"HTTP/1.1 202 Accepted\r\nconnection: close\r\n" + length)
        begun.set()
        may_end.wait(5)
        connection.sendall(end)
        return None

    with Scripted(answer) as server:
        async with AsyncTechForge("a-key-0123456789", base_url=server.url) as client:
            campaign = client.batch.run(rows(1), ledger=tmp_path / "l")
            running = asyncio.create_task(anext(campaign))
            assert await asyncio.to_thread(begun.wait, 5)
            asyncio.get_running_loop().call_later(0.3, may_end.set)
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            await campaign.aclose()
    with Ledger(tmp_path / "l") as ledger:
        (entry,) = ledger.entries()
    assert (entry.state, bool(entry.job_id)) == (state, job_id)
    assert sum(head.startswith("POST") for head in server.heads) == 1
