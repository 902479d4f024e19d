"""`techforge batch`, as a person and as a script uses it."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from support.postgres import campaign
from typer.testing import CliRunner

from techforge.batch import Ledger, State
from techforge.cli import main
from techforge.cli.app import app
from techforge.mock import MockServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, with a manifest of five rows."""
    lines = [f"r{n},https://cdn.example.com/{n}.png,https://cdn.example.com/a.mp3,c{n}" for n in range(5)]
    (tmp_path / "c.csv").write_text(
        "\n".join(["row_key,image_url,audio_url,customer", *lines]), encoding="utf-8"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[MockServer]:
    """Return a mock that the environment points at."""
    with MockServer(render=False, job_polls=0) as mock:
        monkeypatch.setenv("TFI_API_KEY", mock.api_key)
        monkeypatch.setenv("TFI_BASE_URL", mock.url)
        yield mock


def techforge(*arguments: str) -> Any:
    """Run the command line in this process."""
    return CliRunner().invoke(app, ["batch", *arguments], catch_exceptions=False)


def test_a_campaign(here: Path, quick: MockServer) -> None:
    """The three commands: run, status, report."""
    ran = techforge("run", "c.csv", "--out", "videos")
    assert (ran.exit_code, "done                5" in ran.stdout) == (0, True)
    assert sorted(path.name for path in (here / "videos").iterdir()) == [f"r{n}.mp4" for n in range(5)]
    assert json.loads(techforge("status", "--json").stdout)["done"] == 5
    assert techforge("report", "report.csv").exit_code == 0
    assert (here / "report.csv").read_text("utf-8").count("\n") == 6
    assert techforge("report", "report.csv").exit_code == 2
    assert techforge("report", "report.csv", "--overwrite").exit_code == 0
    assert "0 new rows, 5 known" in techforge("run", "c.csv").stderr
    assert quick.journal.count(operation="createJob") == 5


def test_json_is_all_that_is_on_stdout(here: Path, quick: MockServer) -> None:
    """A line for each row that has ended, with its own columns."""
    lines = techforge("run", "c.csv", "--json").stdout.splitlines()
    assert {json.loads(line)["metadata"]["customer"] for line in lines} == {f"c{n}" for n in range(5)}
    del here, quick


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_stored_pause_is_shown_and_ended(
    here: Path, quick: MockServer, request: pytest.FixtureRequest, kind: str
) -> None:
    """Also one of years, which an earlier version stored after a wrong `Retry-After`."""
    place = "l" if kind == "sqlite" else campaign(request.getfixturevalue("postgres_url"))
    assert techforge("run", "c.csv", "--max-jobs", "1", "--ledger", place).exit_code == 6
    assert "Paused" not in techforge("status", "--ledger", place).stderr
    with Ledger(place, new=False) as ledger:
        until = ledger.now() + 1_764_100_000
        ledger.update_account_fact("pace", lambda state: (state or {}) | {"paused_until": until})
        ledger._db.run(lambda db: db.execute("UPDATE jobs SET next_at = ?", (until,)))
    said = techforge("status", "--ledger", place).stderr
    assert "Paused until 20" in said
    assert "techforge batch resume --unpause --ledger" in said
    assert techforge("resume", "--unpause", "--ledger", place).exit_code == 0
    assert quick.journal.count(operation="createJob") == 5
    with Ledger(place, new=False) as ledger:
        assert ledger.counts()[State.DONE] == 5
        assert ledger.next_submission() is None
    del here


def test_an_outage_is_shown_as_a_pause(here: Path, postgres_url: str) -> None:
    """`status` names the problem and the end."""
    from techforge.batch.pause import pause_of  # noqa: PLC0415

    with Ledger(campaign(postgres_url), "c") as ledger:
        outage = {"until": ledger.now() + 5, "problem": "503", "by": None, "lease": 0.0}
        ledger.update_account_fact("pace", lambda _: {"outage": outage})
        pause = pause_of(ledger)
        assert pause is not None
        assert (pause.until, pause.reason) == (outage["until"], "the API does not work (503)")
    del here


def test_a_dry_run_sends_nothing(here: Path, quick: MockServer) -> None:
    """It says what would be sent, and how many jobs that is."""
    said = techforge("run", "c.csv", "--dry-run").stderr
    assert "5 new rows" in said
    assert "This run would submit 5 jobs" in said
    assert '"image_url": "https://cdn.example.com/0.png"' in said
    assert quick.journal.count() == 0
    assert not (here / "techforge.sqlite").exists()


def test_bad_rows(here: Path, quick: MockServer) -> None:
    """They stop everything, unless they are to be left out."""
    with (here / "c.csv").open("a", encoding="utf-8") as file:
        file.write("\nr9,nonsense,https://cdn.example.com/a.mp3,c9\n")
    stopped = techforge("run", "c.csv")
    assert stopped.exit_code == 2
    assert "line 7, column image_url" in stopped.stderr
    assert quick.journal.count() == 0
    assert techforge("run", "c.csv", "--skip-bad").exit_code == 4
    assert quick.journal.count(operation="createJob") == 5


def test_a_budget_and_resuming(here: Path, quick: MockServer) -> None:
    """What is left is said, with the command that goes on, and it goes on with the same options."""
    ran = techforge("run", "c.csv", "--out", "videos", "--max-jobs", "2")
    assert ran.exit_code == 6
    assert "techforge batch resume" in ran.stderr
    assert techforge("resume").exit_code == 0
    assert len(list((here / "videos").iterdir())) == 5
    del quick


def test_failed_rows_are_tried_again(here: Path, quick: MockServer) -> None:
    """`retry` makes them pending, and costs nothing before `resume`."""
    quick.faults.add("status=400;operation=createJob")
    assert techforge("run", "c.csv").exit_code == 4
    assert techforge("retry", "--state", "unknown").exit_code == 2
    assert "1 row is pending" in techforge("retry", "--state", "failed").stderr
    assert techforge("resume").exit_code == 0
    assert quick.journal.count(operation="createJob") == 6
    del here


def test_unknown_rows_are_for_people(here: Path, quick: MockServer) -> None:
    """They are listed, never sent by themselves, and sent again if somebody says so."""
    quick.faults.add("close=after-body;operation=createJob")
    ran = techforge("run", "c.csv")
    assert (ran.exit_code, "techforge batch unknown" in ran.stderr) == (5, True)
    assert techforge("resume").exit_code == 5
    assert quick.journal.count(operation="createJob") == 5
    assert "project" in techforge("unknown").stdout
    assert "Found 0 videos" in techforge("unknown", "--check").stderr
    assert "1 row is pending" in techforge("unknown", "--resubmit").stderr
    assert techforge("resume").exit_code == 0
    assert quick.journal.count(operation="createJob") == 6
    del here


def test_what_is_wrong_is_one_line(here: Path, quick: MockServer) -> None:
    """No traceback, and an exit code that tells bad input from a ledger that does not exist yet."""
    for code, arguments in (
        (2, ["run", "none.csv"]),
        (12, ["status"]),
        (12, ["resume", "--ledger", "none.sqlite"]),
    ):
        said = techforge(*arguments)
        assert said.exit_code == code
        assert "Traceback" not in said.output
        assert len(said.stderr.strip().splitlines()) == 1
    del here, quick


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The core installs the command; it says what it lacks."""
    monkeypatch.setitem(sys.modules, "typer", None)
    monkeypatch.delitem(sys.modules, "techforge.cli.app")
    with pytest.raises(SystemExit, match=r"techforge\[cli\]"):
        main()


COMMAND = [sys.executable, "-c", "from techforge.cli import main; main()", "batch"]


def test_ctrl_c_stops_in_order(here: Path) -> None:
    """Within two seconds it says how to go on; no row is lost, and none is submitted twice."""
    with MockServer(render=False, job_seconds=0.3) as mock:
        mock.faults.add("delay=0.1;operation=createJob;times=0")
        environment = os.environ | {"TFI_API_KEY": mock.api_key, "TFI_BASE_URL": mock.url}
        many = "".join(f"k{n},https://a.example/{n}.png,https://a.example/a.mp3\n" for n in range(200))
        (here / "many.csv").write_text("row_key,image_url,audio_url\n" + many, encoding="utf-8")
        command = [*COMMAND, "run", "many.csv", "--yes", "--concurrency", "4"]
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
            while mock.journal.count(operation="createJob") < 10:
                time.sleep(0.02)
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=10)
            assert time.monotonic() - began < 2.5
        assert process.returncode == 130
        assert "techforge batch resume" in said
        assert "Traceback" not in said
        with Ledger(here / "techforge.sqlite") as ledger:
            counts = ledger.counts()
        assert counts[State.POSTING] == counts[State.UNKNOWN] == 0
        assert counts[State.PENDING] == 200 - mock.journal.count(operation="createJob")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pty")
def test_a_terminal_sees_a_bar(here: Path, quick: MockServer) -> None:
    """On a terminal progress is live."""
    leader, follower = pty.openpty()
    with subprocess.Popen([*COMMAND, "run", "c.csv"], stderr=follower, stdout=subprocess.DEVNULL) as process:
        os.close(follower)
        seen = b""
        while True:
            try:
                seen += os.read(leader, 65536)
            except OSError:
                break
    os.close(leader)
    assert process.returncode == 0
    assert b"5 done" in seen
    assert "━".encode() in seen
    del here, quick


def test_several_workers(here: Path, quick: MockServer, postgres_url: str) -> None:
    """Rows are loaded, several processes run them, and status, report and the rest work as on a file."""
    url = campaign(postgres_url)
    assert techforge("status", "--ledger", url).exit_code == 12
    loaded = techforge("load", "c.csv", "--ledger", url)
    assert "5 new rows." in loaded.stderr
    assert quick.journal.count() == 0
    assert json.loads(techforge("status", "--ledger", url, "--json").stdout)["pending"] == 5
    command = [
        sys.executable,
        "-c",
        "from techforge.cli import main; main()",
        "batch",
        "worker",
        "--ledger",
        url,
        "--out",
        "videos",
    ]
    workers = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(2)]
    assert [worker.wait(60) for worker in workers] == [0, 0]
    assert sorted(path.name for path in (here / "videos").iterdir()) == [f"r{n}.mp4" for n in range(5)]
    assert techforge("report", "report.html", "--ledger", url).exit_code == 0
    assert "0 new rows, 5 known" in techforge("run", "c.csv", "--ledger", url).stderr
    assert quick.journal.count(operation="createJob") == 5


def test_a_worker_that_is_told_to_end(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM, as deployments send it, ends it in order: what was accepted is noted."""
    with MockServer(render=False, job_seconds=5) as mock:
        mock.faults.add("delay=0.5;operation=createJob;times=0")
        monkeypatch.setenv("TFI_API_KEY", mock.api_key)
        monkeypatch.setenv("TFI_BASE_URL", mock.url)
        with subprocess.Popen([*COMMAND, "run", "c.csv"], stderr=subprocess.PIPE, text=True) as process:
            while not mock.journal.count(operation="createJob"):
                time.sleep(0.02)
            process.terminate()
            _, said = process.communicate(timeout=10)
        assert process.returncode == 143
        assert "Continue with: techforge batch resume" in said
        with Ledger(here / "techforge.sqlite") as ledger:
            assert ledger.counts()[State.SUBMITTED] == 5


def test_a_password_is_not_shown(here: Path, quick: MockServer) -> None:
    """Neither in an error, nor in a command that is suggested."""
    url = "postgresql://user:secret-word@127.0.0.1:9/database"
    for command in (("run", "c.csv"), ("status",), ("worker",)):
        told = techforge(*command, "--ledger", url)
        assert told.exit_code == 12
        assert "user@127.0.0.1" in told.stderr
        assert "secret-word" not in told.output
    del here, quick


def test_a_job_that_a_webhook_knows(here: Path, quick: MockServer) -> None:
    """An unknown row is given its job, and `resume` fetches the video; it is not submitted again."""
    quick.faults.add("close=after-body;operation=createJob")
    assert techforge("run", "c.csv").exit_code == 5
    listed = techforge("unknown").stdout
    project = listed.split("project ")[1].split()[0]
    job = next(record.job_id for record in quick.journal.requests() if project.encode() in record.body)
    assert techforge("unknown", "--job", f"{project}=").exit_code == 2
    assert "no unknown row has the key or project" in techforge("unknown", "--job", f"nothing={job}").stderr
    assert "Next: techforge batch resume" in techforge("unknown", "--job", f"{project}={job}").stderr
    assert techforge("resume").exit_code == 0
    assert quick.journal.count(operation="createJob") == 5
    del here


def test_the_documents_advice_on_5xx(here: Path, quick: MockServer) -> None:
    """Only who asks for it submits again after a 5xx."""
    quick.faults.add("status=503;operation=createJob")
    assert techforge("run", "c.csv", "--retry-server-errors").exit_code == 0
    assert quick.journal.count(operation="createJob") == 6
    del here
