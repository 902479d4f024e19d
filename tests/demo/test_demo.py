"""The demo: what the README promises a newcomer will see."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def demo() -> Iterator[object]:
    """Start the demo with these arguments; whatever it has made is removed afterwards."""
    started: list[subprocess.Popen[str]] = []
    before = set(ROOT.glob("demo-output/*"))

    def start(*arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, ROOT / "scripts" / "demo.py", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "COLUMNS": "200", "PYTHONUNBUFFERED": "1"},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with process:
            process.kill()
    for path in set(ROOT.glob("demo-output/*")) - before:
        path.unlink()


def test_the_demo_ends_with_a_playable_video(demo) -> None:
    """Every step is shown, and the file that it names is a video of the narration's length."""
    output, errors = (process := demo()).communicate(timeout=120)
    assert (process.returncode, "done after" in errors) == (0, True)
    for step in ("made a sample", "jobs.create", "jobs.wait", "jobs.download", "Done."):
        assert step in output
    path = Path(re.search(r"Done\. (\S+\.mp4)", output)[1])
    with av.open(str(path)) as container:
        assert {stream.codec_context.name for stream in container.streams} == {"h264", "aac"}
        assert container.duration / av.time_base == pytest.approx(4.4, abs=0.2)
    assert f"{path.stat().st_size:,} bytes, 4.4 s, 400x400" in output


def test_the_demo_takes_files(demo, tmp_path: Path, monkeypatch) -> None:
    """One's own portrait and narration, whatever their names."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import sample_media  # noqa: PLC0415 - it lies beside the demo, not in a package

    image, audio = tmp_path / "my face #1?.png", tmp_path / "voice & noise.wav"
    image.write_bytes(sample_media.portrait())
    audio.write_bytes(sample_media.narration())
    process = demo("--image", image, "--audio", audio, "--size", 200)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "200x200" in output


def test_a_bad_file_is_one_clear_error(demo, tmp_path: Path) -> None:
    """The mock's renderer says what is wrong with it."""
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    _, errors = (process := demo("--image", bad)).communicate(timeout=120)
    assert process.returncode == 1
    assert "Traceback" not in errors
    assert "image" in errors
    _, errors = (process := demo("--image", tmp_path / "none.png")).communicate(timeout=120)
    assert process.returncode == 1
    assert "there is no file" in errors


def test_killing_the_mock_is_one_clear_error(demo) -> None:
    """In the middle of a job: no traceback, no hanging."""
    process = demo()
    for line in process.stdout:
        if found := re.search(r"process (\d+)", line):
            server = int(found[1])
        if "in project" in line:
            os.kill(server, signal.SIGKILL)
            break
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in errors
    assert errors.strip().splitlines()[-1].startswith("demo: the mock server has stopped")
