"""A campaign's display: a bar on a terminal and in a notebook, lines elsewhere, and the text of both."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from support.notebook import be_in_a_notebook

from techforge import ConfigurationError, TechForge, TechForgeError, display
from techforge.batch import State, bar, progress
from techforge.mock import MockServer

if TYPE_CHECKING:
    from pathlib import Path

ROW = {"image_url": "https://a.example/i.png", "audio_url": "https://a.example/a.mp3"}


def run_of(**facts: Any) -> Any:
    """Return what a bar sees of a run."""
    counts = {state: facts.pop(str(state), 0) for state in State}
    return SimpleNamespace(
        **{"counts": counts, "rate": 0.0, "limit": None, "eta": None, "problem": "", "next_attempt": None}
        | facts
    )


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, str]]]:
    """Be in a notebook without rich; return what it was told to show."""
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setattr(display, "NOTEBOOK_SECONDS", 0)
    return be_in_a_notebook(monkeypatch)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({}, "no rows; 0.0 rows/s"),
        (
            {
                "pending": 1200,
                "submitted": 30,
                "done": 5,
                "failed": 2,
                "unknown": 1,
                "rate": 2.5,
                "eta": 492.0,
            },
            "1,200 pending, 30 submitted, 5 done, 2 failed, 1 unknown; 2.5 rows/s, about 8 min left",
        ),
        (
            {"posting": 1, "rate": 0.05, "limit": 7.04, "eta": 20.0},
            "1 posting; 3.0 rows/min, limit 7.0/s, about 20 s left",
        ),
        ({"done": 1, "rate": 1.0, "eta": 0.0}, "1 done; 1.0 rows/s"),
        ({"pending": 9, "submitted": -3, "done": 3}, "9 pending, 3 done; 0.0 rows/s"),
        (
            {"pending": 1, "problem": "the API refuses [the] key"},
            "1 pending; 0.0 rows/s; the API refuses [the] key",
        ),
        (
            {"pending": 2, "problem": "HTTP 503.", "next_attempt": 12.2},
            "2 pending; 0.0 rows/s; HTTP 503. Next attempt in 12 s.",
        ),
    ],
)
def test_the_text_of_a_campaign(facts: dict[str, Any], said: str) -> None:
    """It has the rows by state, the rate, the limit, the time left, the problem and the next attempt."""
    assert str(progress.progress_of(run_of(**facts))) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.1, "1 s"), (89.4, "89 s"), (90, "2 min"), (5369, "89 min"), (5400, "1.5 h"), (360_000, "100.0 h")],
)
def test_the_time_that_is_left(seconds: float, said: str) -> None:
    """It is said as roughly as it is known."""
    assert progress.duration(seconds) == said


@pytest.mark.parametrize("environment", [{}, {"TERM": "dumb"}, {"TERM": "xterm", "TTY_COMPATIBLE": "0"}])
def test_lines_elsewhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    """A log gets a line every ten seconds, on stderr, without rich; so does a terminal without a cursor."""
    now = 0.0
    monkeypatch.setattr(display.time, "monotonic", lambda: now)
    if environment:
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
    else:
        monkeypatch.setitem(sys.modules, "rich", None)
    with bar() as on_progress:
        for second in range(25):
            now = float(second)
            on_progress(run_of(done=second, rate=1.0))
    said = capsys.readouterr()
    assert said.err.splitlines() == ["10 done; 1.0 rows/s", "20 done; 1.0 rows/s"]
    assert said.out == ""


def test_a_terminal_without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to install, before anything is submitted."""
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setitem(sys.modules, "rich.console", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'techforge\[cli\]'") as caught, bar():
        pass
    assert isinstance(caught.value, TechForgeError)


PROGRAM = """
import sys
from techforge import TechForge
from techforge.batch import bar

rows = [{"image_url": f"https://a.example/{n}.png", "audio_url": "https://a.example/a.mp3"} for n in range(5)]
with TechForge(*sys.argv[1:2], base_url=sys.argv[2], max_rate=400) as client, bar() as on_progress:
    for row in client.batch.run(rows, ledger=sys.argv[3], on_progress=on_progress):
        print(row.state)
"""


@pytest.mark.parametrize("redirected", [False, True])
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pty")
def test_a_bar_on_a_terminal(tmp_path: Path, redirected: bool) -> None:
    """It is whole on a narrow one; what is printed meanwhile goes above it, or to the file that stdout is."""
    leader, follower = pty.openpty()
    environment = os.environ | {"COLUMNS": "40", "TERM": "xterm"}
    with MockServer(render=False, job_polls=0) as mock, (tmp_path / "out").open("wb") as out:
        command = [sys.executable, "-c", PROGRAM, mock.api_key, mock.url, str(tmp_path / "l")]
        stdout = out if redirected else follower
        with subprocess.Popen(command, env=environment, stderr=follower, stdout=stdout) as process:
            os.close(follower)
            seen = b""
            while True:
                try:
                    seen += os.read(leader, 65536)
                except OSError:
                    break
        os.close(leader)
    assert process.returncode == 0
    last = seen.decode().rpartition("5 done; ")[2]
    assert "limit 400.0/s" in " ".join(last.split())
    assert "━" in seen.decode()
    if redirected:
        assert (tmp_path / "out").read_text("utf-8") == "done\n" * 5
    else:
        assert len(re.findall(r"(?:\x1b\[2K|\n)done\r\n", seen.decode())) == 5


def test_a_notebook(shell: list[tuple[str, dict[str, str]]], tmp_path: Path, capsys: Any) -> None:
    """One output, that is made in the cell and updated from wherever the campaign runs; the last says all."""
    rows = [{**ROW, "row_key": f"{n}"} for n in range(5)]
    with (
        MockServer(render=False, job_polls=0) as mock,
        TechForge(mock.api_key, base_url=mock.url) as client,
        bar() as on_progress,
    ):
        assert [kind for kind, _ in shell] == ["display"]
        for _ in client.batch.run(rows, ledger=tmp_path / "l", on_progress=on_progress):
            pass
    assert {kind for kind, _ in shell[1:]} == {"update"}
    assert shell[0][1]["text/plain"] == "starting"
    assert "aria-valuenow" not in shell[0][1]["text/html"]
    last = shell[-1][1]
    assert last["text/plain"].startswith("5 done; ")
    assert 'aria-valuenow="100"' in last["text/html"]
    assert "5 done; " in last["text/html"]
    assert capsys.readouterr() == ("", "")


def test_a_notebook_is_not_flooded(
    shell: list[tuple[str, dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps each message that it gets, so there are four a second; and the last one, whatever ends it."""
    now = 100.0
    monkeypatch.setattr(display, "NOTEBOOK_SECONDS", 0.25)
    monkeypatch.setattr(display.time, "monotonic", lambda: now)
    with suppress(KeyboardInterrupt), bar() as on_progress:
        for tenth in range(11):
            now = 100 + tenth / 10
            on_progress(run_of(done=tenth + 1))
        now = 101.01
        on_progress(run_of(done=99))
        raise KeyboardInterrupt
    said = [bundle["text/plain"].partition(" ")[0] for _, bundle in shell]
    assert said == ["starting", "4", "7", "10", "99"]


def test_what_is_wrong_is_no_markup(shell: list[tuple[str, dict[str, str]]]) -> None:
    """A server's words are text in a notebook; and all rows count that have ended, whichever way."""
    with bar() as on_progress:
        counts = {"pending": 1, "submitted": 1, "done": 2, "failed": 3, "unknown": 4}
        on_progress(run_of(**counts, problem="<script>alert(1)</script>"))
    assert "<script" not in shell[-1][1]["text/html"]
    assert "<script" in shell[-1][1]["text/plain"]
    assert 'aria-valuenow="82"' in shell[-1][1]["text/html"]


def test_ipython_on_a_terminal_is_no_notebook(
    shell: list[tuple[str, dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its shell has no kernel; nor is there a shell where IPython is only imported."""
    for found in (SimpleNamespace(), None):
        monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda found=found: found)
        with bar() as on_progress:
            on_progress(run_of(done=1))
    assert shell == []
