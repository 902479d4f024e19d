"""Render workers. Each job runs in its own process, so crashes and slow renders do not affect the server."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any

from attrs import define, field

from techforge.mock.media import AUDIO_LIMIT, IMAGE_LIMIT, MediaError, fetch
from techforge.mock.renderer import render

RENDER_SECONDS = 300.0
DEFAULT_SIZE = 512
SIZES = range(16, 2049)

_FAILED = 3
"""The exit status of a worker that prints an error message instead of a video."""


class RenderError(Exception):
    """The render failed; the message says why."""


def produce(request: Mapping[str, Any]) -> bytes:
    """Return the video for a job request.

    Raises:
        MediaError: an input cannot be used; the message says which one and why.
    """
    size = int(request.get("output_size", DEFAULT_SIZE))
    if size not in SIZES:
        raise MediaError(f"output_size: {size} is not from {SIZES[0]} to {SIZES[-1]}.")
    image = fetch("image_url", request["image_url"], IMAGE_LIMIT)
    audio = fetch("audio_url", request["audio_url"], AUDIO_LIMIT)
    # H.264 stores one color for each 2 x 2 pixels, so the size must be even.
    return render(image, audio, size=size - size % 2, crop=request.get("crop", False))


@define(eq=False)
class Workers:
    """Renders job requests, `count` at a time."""

    count: int = 2
    _threads: ThreadPoolExecutor = field(init=False, repr=False)
    _running: set["subprocess.Popen[bytes]"] = field(factory=set["subprocess.Popen[bytes]"], init=False)
    _lock: Lock = field(factory=Lock, init=False, repr=False)
    _closed: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        """Create the threads that wait for the processes."""
        self._threads = ThreadPoolExecutor(self.count, thread_name_prefix="techforge-mock-render")

    def submit(self, request: Mapping[str, Any]) -> "Future[bytes]":
        """Start a render. The future gets the video or a `RenderError`."""
        return self._threads.submit(self._run, json.dumps(request).encode())

    def close(self) -> None:
        """Stop all renders."""
        with self._lock:
            self._closed = True
            for process in self._running:
                process.kill()
        self._threads.shutdown(cancel_futures=True)

    def _run(self, request: bytes) -> bytes:
        with self._started() as process:
            try:
                output, complaint = process.communicate(request, timeout=RENDER_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise RenderError(f"The render took longer than {RENDER_SECONDS:g} seconds.") from None
            finally:
                with self._lock:
                    self._running.discard(process)
        if process.returncode == _FAILED:
            raise RenderError(output.decode())
        if process.returncode:
            last = complaint.decode("utf-8", "replace").strip().rpartition("\n")[2]
            raise RenderError(f"The render worker ended with status {process.returncode}. {last}".strip())
        return output

    def _started(self) -> "subprocess.Popen[bytes]":
        # Pass the current sys.path: a test runner may have extended it.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with self._lock:
            if self._closed:
                raise RenderError("The mock was stopped before the render was ready.")
            process = subprocess.Popen(
                [sys.executable, "-m", "techforge.mock.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
            )
            self._running.add(process)
        return process


def _main() -> int:
    """Read one job request from stdin and write its video, or an error message with exit status `_FAILED`."""
    if hasattr(os, "nice"):
        # Responses are more urgent than renders.
        os.nice(10)
    try:
        video = produce(json.load(sys.stdin))
    except MediaError as error:
        sys.stdout.write(str(error))
        return _FAILED
    sys.stdout.buffer.write(video)
    return 0


if __name__ == "__main__":
    sys.exit(_main())
