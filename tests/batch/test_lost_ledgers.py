"""Ledgers that lose what they were told: no row is submitted twice, and no job id is lost."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from techforge import JobsNotRecordedError, LedgerError, LedgerUnavailableError, TechForge
from techforge.batch import Ledger, NoProgressError, Row, State, changes, sqlite
from techforge.batch.journal import Journal, Submission
from techforge.batch.pause import end_pause, pause_of
from techforge.batch.writer import Writer
from techforge.mock import MockServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from techforge.batch import Entry

WORKER = Path(__file__).parents[1] / "chaos" / "worker.py"
UUID = "7f0f5a3e-0000-4000-8000-000000000000"


def rows(count: int) -> list[dict[str, str]]:
    """Return a manifest with user-defined keys."""
    audio = "https://cdn.example.com/a.mp3"
    return [
        {"row_key": f"row-{n}", "image_url": f"https://cdn.example.com/{n}.png", "audio_url": audio}
        for n in range(count)
    ]


def run(mock: MockServer, ledger: Path, manifest: Any, **options: Any) -> list[Entry]:
    """Run a campaign."""
    with TechForge(mock.api_key, base_url=mock.url) as client:
        return list(client.batch.run(manifest, ledger=ledger, **options))


def posts(mock: MockServer) -> int:
    """Return the number of submissions that the server received."""
    return len(mock.journal.requests(operation="createJob"))


def states(ledger: Path) -> dict[str, tuple[str, str | None]]:
    """Return the state and the job of each row."""
    with Ledger(ledger, new=False) as opened:
        return {entry.key: (entry.state.value, entry.job_id) for entry in opened.entries()}


def test_a_deleted_ledger_buys_nothing_twice(mock: MockServer, tmp_path: Path, caplog: Any) -> None:
    """The next ledger at the same place takes the jobs from the journal."""
    ledger = tmp_path / "ledger.sqlite"
    run(mock, ledger, rows(5))
    before = states(ledger)
    ledger.unlink()
    run(mock, ledger, rows(7))
    assert posts(mock) == 7
    assert before.items() <= states(ledger).items()
    assert "had lost 5 submissions" in caplog.text


def test_restored_jobs_are_waited_for(tmp_path: Path) -> None:
    """Without the time of their submission they seemed older than any job, and every run ended at once."""
    ledger = tmp_path / "ledger.sqlite"
    with MockServer(render=False, job_seconds=3.0) as server:
        run(server, ledger, rows(3), job_timeout=0.1)
        assert {state for state, _ in states(ledger).values()} == {"submitted"}
        ledger.unlink()
        run(server, ledger, rows(4))
        assert posts(server) == 4
    assert {state for state, _ in states(ledger).values()} == {"done"}


def test_an_emptied_ledger_buys_nothing_twice(mock: MockServer, tmp_path: Path) -> None:
    """A file without content is a new ledger at the same place."""
    ledger = tmp_path / "ledger.sqlite"
    run(mock, ledger, rows(3))
    ledger.write_bytes(b"")
    run(mock, ledger, rows(3))
    assert posts(mock) == 3


def test_an_older_copy_buys_nothing_twice(mock: MockServer, tmp_path: Path) -> None:
    """A backup of the time before the last run lacks its submissions; the journal has them."""
    ledger = tmp_path / "ledger.sqlite"
    run(mock, ledger, rows(6), max_jobs=2)
    shutil.copy(ledger, tmp_path / "backup")
    run(mock, ledger, None, max_jobs=2)
    shutil.copy(tmp_path / "backup", ledger)
    run(mock, ledger, None)
    assert posts(mock) == 6
    assert {state for state, _ in states(ledger).values()} == {"done"}


def test_a_ledger_that_was_moved_and_then_restored(mock: MockServer, tmp_path: Path) -> None:
    """The journal that the campaign wrote at the old place counts at the new one."""
    ledger, moved = tmp_path / "ledger.sqlite", tmp_path / "moved.sqlite"
    run(mock, ledger, rows(4), max_jobs=1)
    shutil.copy(ledger, tmp_path / "backup")
    run(mock, ledger, None, max_jobs=1)
    shutil.move(tmp_path / "backup", moved)
    run(mock, moved, None)
    assert posts(mock) == 4


def test_new_content_under_an_old_key_is_a_new_order(mock: MockServer, tmp_path: Path) -> None:
    """A new ledger with other content under the same keys is another campaign."""
    ledger = tmp_path / "ledger.sqlite"
    run(mock, ledger, rows(2))
    ledger.unlink()
    other = [{**row, "audio_url": "https://cdn.example.com/other.mp3"} for row in rows(2)]
    run(mock, ledger, other)
    assert posts(mock) == 4


def test_a_claim_without_response_in_the_journal_is_unknown(mock: MockServer, tmp_path: Path) -> None:
    """Without a response in the journal, a job may exist; a response that refused does not count."""
    ledger = tmp_path / "ledger.sqlite"
    run(mock, ledger, rows(1))
    with Ledger(ledger, new=False) as opened:
        journal = opened.open_journal()
        (entry,) = opened.entries()
    content = next(iter(Journal(str(ledger), "default", mock.url).submissions(UUID))).content
    ledger.unlink()
    path = journal.path
    assert path is not None
    header = path.read_text().splitlines()[1]
    lines = [[1, None], [1, False], [2, None]]
    path.write_text(
        "\n".join([header, *(json.dumps(["row-0", content, *line]) for line in lines), '["row-0"'])
    )
    run(mock, ledger, rows(1))
    assert posts(mock) == 1
    assert states(ledger) == {entry.key: ("unknown", None)}


def test_a_killed_process_leaves_its_claims_in_the_main_file(mock: MockServer, tmp_path: Path) -> None:
    """Somebody copies only the main file, to a machine without the journal."""
    mock.faults.add("delay=0.2;operation=createJob")
    ledger = tmp_path / "ledger.sqlite"
    options = json.dumps({"rows": rows(40), "concurrency": 4})
    process = subprocess.Popen(
        [sys.executable, str(WORKER), "run", str(ledger), mock.url, mock.api_key, options],
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 30
    while posts(mock) < 10 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    accepted = posts(mock)
    assert accepted >= 10
    copy = tmp_path / "copy.sqlite"
    shutil.copy(ledger, copy)
    mock.faults.clear()
    run(mock, copy, None)
    bodies = [record.body for record in mock.journal.requests(operation="createJob")]
    assert len(bodies) == len(set(bodies))


def test_a_ledger_that_is_deleted_while_it_is_used(mock: MockServer, tmp_path: Path) -> None:
    """The run ends: what it writes would be lost. The jobs in flight are in the error and in the journal."""
    ledger = tmp_path / "ledger.sqlite"
    with TechForge(mock.api_key, base_url=mock.url) as client:
        ended = client.batch.run(rows(50), ledger=ledger, concurrency=2)
        next(ended)
        ledger.unlink()
        with pytest.raises(LedgerUnavailableError, match="deleted or replaced"):
            list(ended)
    run(mock, ledger, rows(50))
    assert posts(mock) == 50


def failing(monkeypatch: pytest.MonkeyPatch, *, when: State) -> None:
    """Let the ledger's disk be full for changes to a state."""
    apply = sqlite.SQLite.apply

    def fail(database: sqlite.SQLite, several: Any) -> list[bool]:
        if any(f"state = '{when}'" in change.sql.partition("WHERE")[0] for change in several):
            raise LedgerUnavailableError("ledger.sqlite cannot be read or written: disk full")
        return apply(database, several)

    monkeypatch.setattr(sqlite.SQLite, "apply", fail)


@pytest.mark.parametrize("has_journal", [True, False])
def test_a_full_disk_loses_no_id(
    mock: MockServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_journal: bool
) -> None:
    """The error has all jobs that the ledger could not record, and the next run records them."""
    ledger = tmp_path / "ledger.sqlite"
    mock.faults.add("delay=0.1;operation=createJob")
    if not has_journal:
        monkeypatch.setattr("techforge.batch.journal._folders", list)
    with monkeypatch.context() as context:
        failing(context, when=State.SUBMITTED)
        with pytest.raises(JobsNotRecordedError) as caught:
            run(mock, ledger, rows(40), concurrency=8)
    accepted = posts(mock)
    assert 1 <= accepted <= 16
    assert len(caught.value.jobs) == accepted
    assert all(job_id in str(caught.value) for job_id in caught.value.jobs.values())
    assert (caught.value.journal is not None) is has_journal
    assert ("No journal could be written" in str(caught.value)) is not has_journal
    mock.faults.clear()
    run(mock, ledger, None)
    assert posts(mock) == 40
    found = states(ledger)
    if has_journal:
        assert {key: found[key] for key in caught.value.jobs} == {
            key: ("done", job_id) for key, job_id in caught.value.jobs.items()
        }
    else:
        assert {found[key] for key in caught.value.jobs} == {("unknown", None)}


def test_a_disk_that_is_nearly_full_gets_no_submission(
    mock: MockServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There must be room for the responses."""
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=1 << 20))
    with pytest.raises(LedgerUnavailableError, match=r"nearly full \(1 MiB left"):
        run(mock, tmp_path / "ledger.sqlite", rows(1))
    assert posts(mock) == 0


async def test_a_disk_that_is_nearly_full_still_records_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claims and jobs that are written together fail separately."""
    params = {"image_url": "https://x/i", "audio_url": "https://x/a"}
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.load([Row("a", params, {}, 1), Row("b", params, {}, 2)])
        ledger.apply(changes.claim(1, 1, 0.0, 60.0))
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=1 << 20))
        write = Writer(ledger)
        claim, job = changes.claim(2, 1, 0.0, 60.0), changes.submitted(1, 1, "job", 0.0)
        refused, recorded = await asyncio.gather(write(claim), write(job), return_exceptions=True)
    assert isinstance(refused, LedgerUnavailableError)
    assert recorded is True


def test_a_run_reserves_space(tmp_path: Path) -> None:
    """Responses to submissions in flight can be recorded without any free space."""
    ledger = tmp_path / "ledger.sqlite"
    with Ledger(ledger) as opened, opened.exclusive_lock():
        with closing(sqlite3.connect(ledger)) as db:
            ((free,),), ((size,),) = db.execute("PRAGMA freelist_count"), db.execute("PRAGMA page_size")
        assert free * size >= sqlite.RESERVED_BYTES
        assert Path(f"{ledger}-wal").stat().st_size >= sqlite.RESERVED_BYTES


def test_a_reader_does_not_stop_a_campaign_from_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program that reads for long holds up claims, but no job's id."""
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT", 0.2)
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        params = {"image_url": "https://x/i", "audio_url": "https://x/a"}
        ledger.load([Row("a", params, {}, 1), Row("b", params, {}, 2)])
        assert ledger.apply(changes.claim(1, 1, 0.0, 60.0)) == [True]
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM jobs").fetchall()
        assert ledger.apply(changes.submitted(1, 1, "job", 0.0)) == [True]
        with pytest.raises(LedgerUnavailableError, match="another program"):
            ledger.apply(changes.claim(2, 1, 0.0, 60.0))
        reader.close()


def test_a_clock_that_is_set_back_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The ledger's clock never goes back; jumps are logged once."""
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        before, wall = ledger.now(), time.time
        monkeypatch.setattr(time, "time", lambda: wall() - 3600)
        assert ledger.now() >= before
        ledger.now()
        monkeypatch.setattr(time, "time", lambda: wall() + 3600)
        assert ledger.now() >= before + 3600
    assert [record.levelno for record in caplog.records if "clock" in record.message] == [logging.WARNING] * 2


@pytest.mark.parametrize("plant", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("victim")])
def test_a_planted_lock_is_refused(tmp_path: Path, plant: Callable[[Path], None]) -> None:
    """A pipe in place of the lock hung the run."""
    plant(tmp_path / "ledger.sqlite.lock")
    with (
        Ledger(tmp_path / "ledger.sqlite") as ledger,
        pytest.raises(LedgerError, match=r"sqlite\.lock cannot be used"),
        ledger.exclusive_lock(),
    ):
        pass
    assert not (tmp_path / "victim").exists()


def test_a_damaged_ledger_says_what_to_do(tmp_path: Path) -> None:
    """The journal of the same machine restores its jobs, if the file is out of the way."""
    path = tmp_path / "ledger.sqlite"
    Ledger(path).close()
    path.write_bytes(b"x" * 8192 + path.read_bytes()[8192:])
    with pytest.raises(LedgerError, match="move it and the files beside it away"):
        Ledger(path)


@pytest.mark.parametrize("is_ours", [True, False])
def test_a_file_is_taken_for_the_video_by_its_content(tmp_path: Path, is_ours: bool) -> None:
    """After an interrupted run, a file of the same size may be the user's."""
    ledger, out = tmp_path / "ledger.sqlite", tmp_path / "out"
    with MockServer(render=False, job_seconds=1.0) as server:
        run(server, tmp_path / "other.sqlite", rows(1), out=tmp_path / "other")
        video = (tmp_path / "other" / "row-0.mp4").read_bytes()
        run(server, ledger, rows(1), out=out, job_timeout=0.1)
        content = video if is_ours else bytes(len(video))
        (out / "row-0.mp4").write_bytes(content)
        (entry,) = run(server, ledger, None, out=out, job_timeout=60.0)
    assert (entry.file is not None, entry.reason is None) == (is_ours, is_ours)
    assert [path.name for path in out.iterdir()] == ["row-0.mp4"]
    assert (out / "row-0.mp4").read_bytes() == content


def test_a_retry_after_holds_for_the_next_run(mock: MockServer, tmp_path: Path) -> None:
    """The pause is for all rows, and a new process knows it, until somebody ends it."""
    ledger = tmp_path / "ledger.sqlite"
    mock.faults.add("status=429;retry-after=3600;operation=createJob;times=1")
    with pytest.raises(NoProgressError):
        run(mock, ledger, rows(3), concurrency=1, give_up_after=0.3)
    with pytest.raises(NoProgressError):
        run(mock, ledger, None, concurrency=1, give_up_after=0.3)
    assert posts(mock) == 1
    with Ledger(ledger) as opened:
        pause = pause_of(opened)
        assert pause is not None
        assert pause.until > opened.now() + 3500
        end_pause(opened)
    run(mock, ledger, None)
    assert posts(mock) == 4


def test_a_clock_that_is_set_back_between_runs_delays_nothing(
    mock: MockServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backoff of one second became a wait of two hours."""
    ledger, wall = tmp_path / "ledger.sqlite", time.time
    mock.faults.add("status=429;operation=createJob;times=0")
    with pytest.raises(NoProgressError):
        run(mock, ledger, rows(3), give_up_after=0.3)
    mock.faults.clear()
    monkeypatch.setattr(time, "time", lambda: wall() - 7200)
    run(mock, ledger, None, give_up_after=5.0)
    assert {state for state, _ in states(ledger).values()} == {"done"}


@pytest.mark.lying("a firewall answers")
def test_a_firewall_fails_no_row(mock: MockServer, tmp_path: Path) -> None:
    """A 403 that is a page concerns the key or the network, not a row; the rows stay pending."""
    mock.faults.add("status=403;body=html;operation=createJob;times=0")
    with pytest.raises(NoProgressError):
        run(mock, tmp_path / "ledger.sqlite", rows(3), give_up_after=0.3)
    assert {state for state, _ in states(tmp_path / "ledger.sqlite").values()} == {"pending"}


# --- the journal itself -----------------------------------------------------------------------------


def test_a_journal_is_private_and_refuses_planted_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else reads or writes it; a pipe or a link in its place is not used."""
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "temporary"))
    journal = Journal("/ledger", "a", None)
    journal.open(UUID)
    assert journal.path is not None
    assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(journal.path.parent.stat().st_mode) == 0o700
    journal.close()
    state = journal.path
    for plant in (os.mkfifo, lambda path: path.symlink_to(tmp_path / "victim"), Path.mkdir):
        shutil.rmtree(state) if state.is_dir() else state.unlink()
        plant(state)
        journal = Journal("/ledger", "a", None)
        journal.open(UUID)
        assert journal.path is not None
        assert journal.path.is_relative_to(tmp_path / "temporary")
        assert journal.write(Submission("a", "content", 1))
        journal.close()
        assert not (tmp_path / "victim").exists()
    assert len(list(journal.submissions(UUID))) == 3


def test_a_full_state_folder_moves_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one disk has no room for goes to another one."""
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "temporary"))
    journal = Journal("/ledger", "a", None)
    journal.open(UUID)
    write, first = os.write, journal.path

    def full(descriptor: int, data: bytes) -> int:
        if os.path.samestat(os.fstat(descriptor), first.stat()):  # type: ignore[union-attr]
            write(descriptor, data[:5])
            raise OSError(28, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", full)
    assert journal.write(Submission("a", "content", 1, "job"))
    assert journal.path != first
    assert list(journal.submissions(UUID)) == [Submission("a", "content", 1, "job")]
    assert journal.campaign_uuid() == UUID


def test_no_room_for_a_journal_stops_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without room anywhere, opening and writing report that, and raise nothing."""
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    journal = Journal("/ledger", "a", None)
    journal.open(UUID)
    assert not journal.write(Submission("a", "content", 1, "job"))
    assert journal.path is None


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The temporary folder takes the journal."""
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    journal = Journal("/ledger", "a", None)
    journal.open(UUID)
    journal.close()
    assert journal.path is not None
    assert journal.path.is_relative_to(tmp_path)
