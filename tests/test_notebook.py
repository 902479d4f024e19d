"""A notebook's HTML of a job and a video, the player, and the bar; none of them has the signature."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from attrs import evolve
from support.notebook import be_in_a_notebook

from techforge import (
    APIError,
    InvalidArgumentError,
    Job,
    JobTimeoutError,
    JobUpdate,
    SignedUrl,
    Video,
    display,
)
from techforge.notebook import Player, html_of, player, progress

if TYPE_CHECKING:
    from pathlib import Path

    from techforge import TechForge
    from techforge.mock import MockServer

SIGNED = SignedUrl(
    "a/b.mp4", "https://cdn.example.com/a/b.mp4?signature=0123456789abcdef", datetime(2026, 1, 2, tzinfo=UTC)
)
DATA = bytes(range(250)) * 1200


def html(value: Any) -> str:
    """Return the HTML of a value, and check that it has no signature and no script."""
    shown: str = value._repr_html_() if isinstance(value, Player) else html_of(value)
    assert "signature" not in shown
    assert "<script" not in shown
    return shown


def text(value: Any) -> str:
    """Return the words of it."""
    return " ".join(re.sub(r"<[^>]*>", " ", html(value)).split())


def embedded(shown: Player) -> bytes:
    """Return the video that a player holds."""
    found = re.fullmatch(r'<video controls .* src="data:video/mp4;base64,([^"]*)"></video>', html(shown))
    assert found
    return base64.b64decode(found[1])


def test_a_job_shows_itself(done: Job) -> None:
    """Its status and its ids, and what comes next."""
    assert text(done).startswith(f"● done job {done.id} project {done.project_id} client.jobs.wait(job")
    assert display.GREEN in html(done)
    assert display.RED in html(evolve(done, status="failed"))
    assert display.GREY in html(evolve(done, status="queued"))


def test_a_video_shows_itself(done: Job) -> None:
    """What it is and until when its URL is good, but not the URL."""
    shown = text(Video(done, SIGNED, 1_234_567, '"etag"', "video/mp4"))
    assert "1,234,567 bytes video/mp4 path a/b.mp4 its URL is good until 2026-01-02 00:00:00 UTC" in shown
    assert "techforge.notebook.player(video)" in shown
    assert "cdn.example.com" not in shown
    assert "None" not in text(Video(done, evolve(SIGNED, expires_at=None)))


def test_what_a_server_says_is_no_markup() -> None:
    """Its words are text."""
    bad = "<script>alert(1)</script>"
    assert bad.replace("<", "&lt;").replace(">", "&gt;") in html(Job("1", "2", bad, bad, bad))
    assert "<b>x" not in html(Player(b"", '"><b>x'))


def test_the_player_of_a_video(client: TechForge, done: Job, mock: MockServer) -> None:
    """It fetches the video over the signed URL, without the key, and holds it."""
    video = client.jobs.wait(done)
    mock.journal.clear()
    assert embedded(player(video)) == DATA
    (asked,) = mock.journal.requests()
    assert asked.server == "storage"
    assert "x-api-key" not in asked.headers


def test_the_player_of_a_file(client: TechForge, done: Job, tmp_path: Path) -> None:
    """A file that was downloaded is read, and nothing is asked for."""
    path = client.jobs.download(done, tmp_path)
    assert embedded(player(path)) == embedded(player(str(path))) == DATA


def test_a_video_that_is_too_long(client: TechForge, done: Job, mock: MockServer, tmp_path: Path) -> None:
    """It is refused before it is fetched, or as soon as it turns out; and it is said what to do."""
    video = client.jobs.wait(done)
    mock.journal.clear()
    with pytest.raises(InvalidArgumentError, match=r"300,000 bytes .* \(limit=299,999\); jobs\.download"):
        player(video, limit=299_999)
    assert mock.journal.count() == 0
    with pytest.raises(InvalidArgumentError, match="too much for a notebook"):
        player(evolve(video, size=None), limit=299_999)
    with pytest.raises(InvalidArgumentError, match="too much for a notebook"):
        player(client.jobs.download(done, tmp_path), limit=299_999)
    assert embedded(player(video, limit=300_000)) == DATA


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("cdn-expired=1", "may have expired; jobs.find"),
        ("cdn-close-after=1000", "storage"),
    ],
)
def test_a_video_that_cannot_be_fetched(
    client: TechForge, done: Job, mock: MockServer, fault: str, said: str
) -> None:
    """A URL that has expired is not signed again, since there is no key for it; half a video is none."""
    video = client.jobs.wait(done)
    mock.faults.add(fault)
    with pytest.raises(APIError) as caught:
        player(video)
    assert said in str(caught.value)
    assert "signature" not in str(caught.value)


def test_a_bar(client: TechForge, mock: MockServer, media: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made in the cell, moves while one waits, and stands when the video is there."""
    shown = be_in_a_notebook(monkeypatch)
    monkeypatch.setattr(display, "NOTEBOOK_SECONDS", 0)
    mock.next_job(polls=1)
    client.jobs.create_and_wait(**media, poll=0.01, on_update=progress())
    assert [kind for kind, _ in shown] == ["display", *["update"] * 3]
    assert shown[0][1]["text/plain"] == "starting"
    moving = [("<animate" in bundle["text/html"]) for _, bundle in shown]
    assert moving == [True, True, True, False]
    assert re.fullmatch(r"job [0-9a-f-]{36} queued after 0 s, 1 poll", shown[2][1]["text/plain"])
    assert shown[3][1]["text/plain"].endswith("done after 0 s, 2 polls")
    # What is saved with a wait that has failed does not move for ever.
    assert all('repeatCount="10"' in b["text/html"] for _, b in shown if "<animate" in b["text/html"])


def test_a_bar_of_a_failure(monkeypatch: pytest.MonkeyPatch, done: Job) -> None:
    """It is red, and says why, in words that are no markup."""
    shown = be_in_a_notebook(monkeypatch)
    progress()(JobUpdate(done, "FAILED", "no <face>", 61.5, 7))
    bundle = shown[-1][1]
    assert bundle["text/plain"] == f"job {done.id} FAILED after 62 s, 7 polls: no <face>"
    assert "no &lt;face&gt;" in bundle["text/html"]
    assert display.RED in bundle["text/html"]


def test_lines_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], done: Job
) -> None:
    """A log has a line when there is news, and every ten seconds, on stderr."""
    now = 0.0
    monkeypatch.setattr(display.time, "monotonic", lambda: now)
    show = progress()
    for second in range(15):
        now = float(second)
        show(JobUpdate(done, "queued" if second in {0, 1, 3} else "processing", None, now, second))
    said = capsys.readouterr()
    assert [line.split(" ")[2:5] for line in said.err.splitlines()] == [
        ["queued", "after", "0"],
        ["processing", "after", "2"],
        ["queued", "after", "3"],
        ["processing", "after", "4"],
        ["processing", "after", "14"],
    ]
    assert said.out == ""


def test_a_wait_that_fails_says_so(client: TechForge, done: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar is in nobody's way."""
    be_in_a_notebook(monkeypatch)
    job = evolve(done, output_path="not/there.mp4", status="queued")
    with pytest.raises(JobTimeoutError):
        client.jobs.wait(job, timeout=0.05, poll=0.01, on_update=progress())


SHELL = """
import sys
from types import ModuleType, SimpleNamespace

types = {}
formatter = SimpleNamespace(for_type=types.__setitem__)
shell = SimpleNamespace(display_formatter=SimpleNamespace(formatters={"text/html": formatter}))
sys.modules["IPython"] = ModuleType("IPython")
sys.modules["IPython"].get_ipython = lambda: shell
"""


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("types = {}", "[] False"),
        (SHELL, "['Job', 'Video'] True"),
        (f"{SHELL}shell = None", "[] True"),
    ],
    ids=["no IPython", "a shell of IPython", "IPython without a shell"],
)
def test_ipython_shows_jobs_and_videos(before: str, said: str) -> None:
    """`import techforge` registers them with a shell of IPython, and loads nothing for it elsewhere."""
    program = (
        f"{before}\nimport sys, techforge\n"
        "print([each.__name__ for each in types], 'techforge.notebook' in sys.modules)\n"
        "job = techforge.Job('1', '2')\n"
        "assert all('<table>' in html(job) for html in types.values())"
    )
    environment = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == (f"{said}\n", "")


def test_a_display_without_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines never go to stdout, and a closed stderr does not stop the work."""

    class Closed:
        def write(self, text: str) -> None:
            raise BrokenPipeError(text)

    for stderr in (None, Closed()):
        monkeypatch.setattr(sys, "stderr", stderr)
        display.lines().show(display.Progress("text", status="new"))
    assert capsys.readouterr().out == ""


def test_a_wait_counts_down(monkeypatch: pytest.MonkeyPatch, done: Job) -> None:
    """The text names the seconds until the next poll, as of the time at which it is read."""
    now = 100.0
    monkeypatch.setattr(display.time, "monotonic", lambda: now)
    progress = display.of_wait(JobUpdate(done, "queued", None, 8.2, 1), next_poll=104.0)
    assert str(progress) == "queued after 8 s, 1 poll, next poll in 4 s"
    now = 103.0
    assert str(progress) == "queued after 8 s, 1 poll, next poll in 1 s"
    now = 104.0
    assert str(progress) == "queued after 8 s, 1 poll"
