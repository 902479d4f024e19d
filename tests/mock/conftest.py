"""What the tests of the mock server share: a server, a client, a job, and a host for media."""

import array
import io
import math
import threading
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import httpx
import pytest
from PIL import Image

from techforge.mock import MockServer

PROJECT = "468ea7a0-66e1-4357-a760-236e54167f3e"


@pytest.fixture
def job() -> dict[str, Any]:
    """A valid job request."""
    return {
        "image_url": "https://cdn.example.com/image.png",
        "audio_url": "https://cdn.example.com/audio.mp3",
        "job_type": "ai_talking_video",
        "project_id": PROJECT,
    }


@pytest.fixture
def server() -> Iterator[MockServer]:
    """A server whose jobs are done at once, without a render."""
    with MockServer(job_polls=0, render=False) as running:
        yield running


@pytest.fixture
def api(server: MockServer) -> Iterator[httpx.Client]:
    """A client of the server's API, with its key."""
    with httpx.Client(base_url=server.url, headers={"x-api-key": server.api_key}, trust_env=False) as client:
        yield client


@pytest.fixture
def web() -> Iterator[httpx.Client]:
    """A client that knows no key."""
    with httpx.Client(trust_env=False) as client:
        yield client


@pytest.fixture
def sign(api: httpx.Client) -> Callable[[str], str]:
    """Signs a path by way of the API."""

    def signed(path: str) -> str:
        answer = api.get("/storage/generate-signed-path", params={"path": path})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["signedUrl"])

    return signed


def output_path(job_id: str) -> str:
    """Where the documentation says that a job's video lies."""
    return f"ai-talking-videos/{PROJECT}/outputs/{job_id}.mp4"


@pytest.fixture(name="output_path")
def _output_path() -> Callable[[str], str]:
    return output_path


def picture(width: int = 90, height: int = 60, colour: str = "navy") -> bytes:
    """A PNG of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(file, "PNG")
    return file.getvalue()


def voice(*levels: float, seconds: float = 0.5) -> bytes:
    """A WAV that hums at each of the levels for some time."""
    rate = 16_000
    samples = array.array("h")
    for level in levels:
        count = round(seconds * rate)
        samples.extend(round(32_000 * level * math.sin(at * 0.2)) for at in range(count))
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(samples.tobytes())
    return file.getvalue()


class _Media(BaseHTTPRequestHandler):
    """Serves what a render may be given: good files, and every kind of bad one."""

    files: ClassVar = {
        "/image.png": picture(),
        "/audio.wav": voice(0.0, 1.0),
        "/long.wav": voice(0.5, seconds=5.0),
        "/text": b"no media at all",
        "/playlist.m3u8": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        "/cut.png": picture(400, 300)[:-600],
        "/huge": bytes(3_000_000),
    }

    def do_GET(self) -> None:
        if self.path.startswith("/hop/"):
            left = int(self.path.rpartition("/")[2])
            self.send_response(302)
            self.send_header("location", f"/hop/{left - 1}" if left else "/image.png")
            self.send_header("content-length", "0")
            self.end_headers()
        elif self.path == "/drip":
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                for _ in range(100):
                    self.wfile.write(b"x")
                    time.sleep(0.05)
        elif data := self.files.get(self.path):
            self.send_response(200)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(data)
        else:
            self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


class _Host(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False


@pytest.fixture(scope="session")
def media() -> Iterator[str]:
    """The base URL of the media host."""
    with _Host(("127.0.0.1", 0), _Media) as host:
        thread = threading.Thread(target=host.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{host.server_port}"
        host.shutdown()
        thread.join()


@pytest.fixture
def make_voice() -> Callable[..., bytes]:
    """Makes sounds."""
    return voice


@pytest.fixture
def make_picture() -> Callable[..., bytes]:
    """Makes pictures."""
    return picture
