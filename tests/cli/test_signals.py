"""Signals and closed pipes end every command in order: job id, next command, an exit code of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from techforge.batch import Ledger, State
from techforge.mock import MockServer

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
MEDIA = ("--image", "https://cdn.example.com/i.png", "--audio", "https://cdn.example.com/a.mp3")
CODES = {signal.SIGHUP: 129, signal.SIGINT: 130, signal.SIGTERM: 143}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a manifest of 200 rows."""
    lines = "".join(f"k{n},https://a.example/{n}.png,https://a.example/a.mp3\n" for n in range(200))
    (tmp_path / "many.csv").write_text("row_key,image_url,audio_url\n" + lines, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[MockServer]:
    """Return a mock whose jobs never end."""
    with MockServer(render=False, job_seconds=3600) as mock:
        monkeypatch.setenv("TFI_API_KEY", mock.api_key)
        monkeypatch.setenv("TFI_BASE_URL", mock.url)
        yield mock


@contextmanager
def started(*arguments: str, main: str = "main()", **how: Any) -> Generator[subprocess.Popen[str]]:
    """Start the command line in a process of its own, which a failed test kills."""
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **how}
    code = f"from techforge.cli import main, signals; {main}"
    with subprocess.Popen([sys.executable, "-c", code, *arguments], **how) as process:
        try:
            yield process
        finally:
            process.kill()


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    ends = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.02)


@contextmanager
def run_is_sending(mock: MockServer, delay: float) -> Generator[subprocess.Popen[str]]:
    """Start a run with four submissions in flight, whose responses take some seconds."""
    mock.faults.add(f"delay={delay};operation=createJob;times=0")
    with started("batch", "run", "many.csv", "--yes", "--concurrency", "4", "--json") as process:
        until(lambda: mock.journal.count(operation="createJob") == 4)
        yield process


@pytest.mark.parametrize("number", CODES)
def test_a_signal_waits_for_the_job_id(slow: MockServer, number: signal.Signals) -> None:
    """Each signal ends a submission in order: its id, the next command and JSON are printed."""
    slow.faults.add("delay=1;operation=createJob")
    with started("video", "create", *MEDIA, "--wait", "--json") as process:
        until(lambda: slow.journal.count(operation="createJob") == 1)
        process.send_signal(number)
        printed, said = process.communicate(timeout=10)
    result = json.loads(printed)
    assert process.returncode == result["error"]["exit_code"] == CODES[number]
    assert result["job_id"] in said
    assert f"techforge video wait {result['job_id']}" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("number", CODES)
def test_a_signal_ends_a_wait(slow: MockServer, number: signal.Signals) -> None:
    """The command that continues is printed."""
    with started("video", "create", *MEDIA, "--wait", "--json") as process:
        until(lambda: slow.journal.count(operation="createJob") == 1)
        time.sleep(0.5)
        process.send_signal(number)
        printed, said = process.communicate(timeout=10)
    assert process.returncode == CODES[number]
    assert f"techforge video wait {json.loads(printed)['job_id']}" in said


def test_a_submission_has_a_limited_time(slow: MockServer) -> None:
    """After the grace period the job may exist, and the command says so."""
    slow.faults.add("delay=30;operation=createJob")
    with started("video", "create", *MEDIA, main="signals.GRACE_SECONDS = 1; main()") as process:
        until(lambda: slow.journal.count(operation="createJob") == 1)
        process.terminate()
        _, said = process.communicate(timeout=10)
    assert process.returncode == 143
    assert "A job may exist in project" in said


@pytest.mark.parametrize("number", CODES)
def test_a_campaign_waits_for_responses(slow: MockServer, number: signal.Signals, here: Path) -> None:
    """Rows in flight get 8 s: their ids are recorded, and no other row is submitted."""
    with run_is_sending(slow, 3) as process:
        process.send_signal(number)
        _, said = process.communicate(timeout=20)
    assert process.returncode == CODES[number]
    assert "Stopping: waiting up to 8 s for 4 responses. Press Ctrl-C again to stop now." in said
    assert "Stopped. Continue with: techforge batch resume" in said
    with Ledger(here / "techforge.sqlite") as ledger:
        counts = ledger.counts()
    assert (counts[State.SUBMITTED], counts[State.UNKNOWN], counts[State.PENDING]) == (4, 0, 196)
    assert slow.journal.count(operation="createJob") == 4


def test_a_second_signal_names_what_is_in_doubt(slow: MockServer, here: Path) -> None:
    """It ends the process at once, and lists the rows. The next run does not submit them again."""
    with run_is_sending(slow, 6) as process:
        process.terminate()
        time.sleep(0.5)
        began = time.monotonic()
        process.terminate()
        _, said = process.communicate(timeout=10)
        assert time.monotonic() - began < 1
    assert process.returncode == 143
    assert re.search(r"4 rows have an unknown outcome: .*: k\d, k\d, k\d, k\d\. Continue with: ", said)
    assert "Traceback" not in said
    with Ledger(here / "techforge.sqlite") as ledger:
        assert ledger.counts()[State.POSTING] == 4


def test_a_signal_that_comes_twice_counts_once(slow: MockServer, here: Path) -> None:
    """A terminal that closes, and systemd, send two signals at the same time."""
    with run_is_sending(slow, 1) as process:
        process.terminate()
        process.send_signal(signal.SIGHUP)
        _, said = process.communicate(timeout=10)
    assert process.returncode in {129, 143}
    assert "Stopped. Continue with" in said
    with Ledger(here / "techforge.sqlite") as ledger:
        assert ledger.counts()[State.SUBMITTED] == 4


def test_nohup_is_respected(slow: MockServer) -> None:
    """A SIGHUP that the parent process ignores stays ignored."""
    slow.faults.add("delay=1;operation=createJob")
    ignored = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); main()"
    with started("video", "create", *MEDIA, main=ignored) as process:
        until(lambda: slow.journal.count(operation="createJob") == 1)
        process.send_signal(signal.SIGHUP)
        printed, _ = process.communicate(timeout=10)
    assert process.returncode == 0
    assert len(printed.split()) == 2


def test_a_closed_stdout_stops_a_campaign(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    """`run --json | head` stops in order: no traceback, nothing in doubt, and an exit code of its own."""
    with MockServer(render=False, job_polls=0) as mock:
        monkeypatch.setenv("TFI_API_KEY", mock.api_key)
        monkeypatch.setenv("TFI_BASE_URL", mock.url)
        mock.faults.add("delay=0.1;operation=createJob;times=0")
        with started("batch", "run", "many.csv", "--yes", "--concurrency", "4", "--json") as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            process.stdout.close()
            said = process.stderr.read()
        submitted = mock.journal.count(operation="createJob")
    assert process.returncode == 141
    assert said.rstrip().endswith("Stopped. Continue with: techforge batch resume")
    assert "Traceback" not in said
    assert "BrokenPipe" not in said
    with Ledger(here / "techforge.sqlite") as ledger:
        counts = ledger.counts()
    assert submitted < 200
    assert (counts[State.UNKNOWN], counts[State.POSTING]) == (0, 0)
    assert counts[State.PENDING] == 200 - submitted


def test_a_closed_stdout_ends_other_commands(slow: MockServer) -> None:
    """They end without a traceback; a job's id is on stderr."""
    reader, writer = os.pipe()
    os.close(reader)
    with started("video", "create", *MEDIA, "--json", stdout=writer) as process:
        os.close(writer)
        _, said = process.communicate(timeout=10)
    assert process.returncode == 141
    assert "techforge video wait" in said
    assert "Traceback" not in said
    assert "BrokenPipe" not in said
    del slow


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has this device")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("arguments", "next_step"),
    [
        (["video", "create", *MEDIA], "techforge video wait"),
        (["video", "create", *MEDIA, "--json"], "techforge video wait"),
        (["batch", "run", "few.csv", "--json"], "Stopped. Continue with: techforge batch resume"),
        (["--version"], ""),
    ],
    ids=["create", "create --json", "run --json", "version"],
)
def test_a_stdout_on_a_full_disk(
    monkeypatch: pytest.MonkeyPatch, here: Path, unbuffered: str, arguments: list[str], next_step: str
) -> None:
    """The message says that stdout cannot be written, and why; a job's id is on stderr."""
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    lines = (here / "many.csv").read_text("utf-8").splitlines()[:3]
    (here / "few.csv").write_text("\n".join(lines), encoding="utf-8")
    with MockServer(render=False, job_polls=0) as mock, Path("/dev/full").open("wb") as full:
        monkeypatch.setenv("TFI_API_KEY", mock.api_key)
        monkeypatch.setenv("TFI_BASE_URL", mock.url)
        with started(*arguments, stdout=full) as process:
            _, said = process.communicate(timeout=20)
    assert process.returncode == 11
    assert said.count("stdout cannot be written: No space left on device.") == 1
    assert next_step in said
    assert ("Job: " in said) == (arguments[0] == "video")
    assert "Traceback" not in said
    assert "report it" not in said
