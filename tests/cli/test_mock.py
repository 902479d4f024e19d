"""`techforge mock`: the two lines it prints, and the failures it is asked for.

tests/mock/test_server.py tests the options, which `python -m techforge.mock` shares.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx
import pytest

from techforge.mock import MockServer

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND = [sys.executable, "-c", "from techforge.cli import main; main()"]


@contextmanager
def serving(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run `techforge mock` on a free port, and end it as a person does."""
    command = [*COMMAND, "mock", "--port", "0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=10)
    assert (process.returncode, "Traceback" not in said) == (0, True), said


def test_the_two_lines() -> None:
    """A shell that evaluates them can make a video."""
    with serving("--no-render", "--job-polls", "0") as mock:
        lines = "".join(mock.stdout.readline() for _ in range(2))  # type: ignore[union-attr]
        media = "--image https://cdn.example.com/i.png --audio https://cdn.example.com/a.mp3"
        script = f'{lines}\n"$0" -c "from techforge.cli import main; main()" video create {media} --wait'
        made = subprocess.run(
            [shutil.which("bash") or "bash", "-c", script, sys.executable],
            capture_output=True,
            text=True,
            check=False,
        )
    assert made.returncode == 0, made.stderr
    assert len(made.stdout.split()) == 2


def test_a_bad_day() -> None:
    """Failures by chance, delays and faults; and the address as JSON."""
    with serving(
        *("--json", "--failure-rate", "0.5", "--latency", "0.05"),
        *("--fault", "status=429;retry-after=1;operation=createJob"),
    ) as mock:
        facts = json.loads(mock.stdout.readline())  # type: ignore[union-attr]
        with httpx.Client(headers={"x-api-key": facts["api_key"]}, base_url=facts["url"]) as client:
            assert client.post("/jobs/v2", json={}).status_code == 429
            began = time.monotonic()
            path = "/storage/generate-signed-path?path=a/b.mp4"
            seen = [client.get(path).status_code for _ in range(40)]
            assert time.monotonic() - began > 40 * 0.05
    assert set(seen) == {404, 503}


def test_a_share_is_a_share() -> None:
    """Nine of ten requests fail, give or take; none and all are exact."""
    for share, least, most in (("0", 0, 0), ("0.9", 150, 199), ("1", 200, 200)):
        with MockServer(render=False, faults=[f"status=503;share={share};times=0"]) as mock:
            url = f"{mock.url}/storage/generate-signed-path?path=a/b.mp4"
            with httpx.Client(headers={"x-api-key": mock.api_key}) as client:
                failed = sum(client.get(url).status_code == 503 for _ in range(200))
        assert least <= failed <= most


pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes are ended by a signal")
