"""Downloads with kills, a faulty storage or a full disk: a correct file or none."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from attrs import define, field
from support.servers import Server, read_request, reset

from techforge import DownloadError, InvalidArgumentError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

resource = pytest.importorskip("resource", reason="signals, limits and users are POSIX's")

SIZE = 50_000_000
KILLS = 20

CHILD = """
import asyncio, os, signal, sys
from techforge import AsyncTechForge, TechForge

colour, url, target, overwrite, step = sys.argv[1:]

def progress(there, _total):
    print(there, flush=True)

def counted(real):
    def call(*args, **kwargs):
        counted.left -= 1
        if counted.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return call

if step:
    # Renaming a file calls these functions. The process is killed before one of them.
    counted.left = int(step)
    for name in ("fsync", "link", "unlink", "replace"):
        setattr(os, name, counted(getattr(os, name)))

options = {"base_url": url, "max_retries": 20}
if colour == "sync":
    with TechForge("key", **options) as client:
        client.storage.download("a/b.mp4", target, overwrite=bool(overwrite), on_progress=progress)
else:
    async def main():
        async with AsyncTechForge("key", **options) as client:
            await client.storage.download("a/b.mp4", target, overwrite=bool(overwrite), on_progress=progress)
    asyncio.run(main())
"""


@contextmanager
def downloading(
    colour: str, url: str, target: Path, *, overwrite: bool = True, step: str = ""
) -> Iterator[subprocess.Popen[bytes]]:
    """Download in a new process, which prints its progress."""
    command = [sys.executable, "-c", CHILD, colour, url, str(target), "1" * overwrite, step]
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as child:
        try:
            yield child
        finally:
            child.kill()


# Faults of storage that make its response unusable.
BREAKS = ["closes", "resets", "says too much"]
REFUSES = ["expires"]
STARTS_OVER = ["changes", "ignores Range", "ignores If-Range", "says another total", "sends another range"]


@define
class Storage:
    """An API that signs one URL, and a storage with one fault after another."""

    versions: list[bytes]
    wrongs: list[str]
    random: random.Random = field(factory=lambda: random.Random(1))  # noqa: S311 - the same every time
    current: int = 0
    asked: list[int] = field(factory=list)
    """Where each request to storage began."""
    did: list[str] = field(factory=list)

    def __call__(self, server: Server, connection: socket.socket) -> None:
        """Respond to one request."""
        head = read_request(connection)
        if head.startswith("GET /storage/"):
            body = f'{{"signedUrl":"{server.url}/object","expiresAt":"2030-01-01T00:00:00Z"}}'.encode()
            connection.sendall(_head("200 OK", len(body), "content-type: application/json") + body)
            return
        wanted = re.search(r"\r\nrange: bytes=(\d+)-\r\n", head)
        self.asked.append(int(wanted[1]) if wanted else 0)
        # A fault that lets a download start over has no effect at its beginning.
        wrong = next((wrong for wrong in self.wrongs if wanted or wrong not in STARTS_OVER), "")
        if wrong:
            self.wrongs.remove(wrong)
        self.did.append(wrong)
        if wrong == "expires":
            connection.sendall(_head("403 Forbidden", 0))
            return
        self.current += wrong in {"changes", "ignores If-Range"}
        version = self.current % len(self.versions)
        current = f'if-range: "{version}"' in head or wrong == "ignores If-Range"
        start = self.asked[-1] if current and wrong != "ignores Range" else 0
        self._send(connection, version, start, wrong)

    def _send(self, connection: socket.socket, version: int, start: int, wrong: str) -> None:
        data, status, fields = self.versions[version], "200 OK", [f'etag: "{version}"']
        if start:
            start = min(start + 7 * (wrong == "sends another range"), len(data))
            total = len(data) + 7 * (wrong == "says another total")
            status = "206 Partial Content"
            fields.append(f"content-range: bytes {start}-{len(data) - 1}/{total}")
        end = self.random.randint(start, len(data)) if wrong in {"closes", "resets"} else len(data)
        length = len(data) - start + 7 * (wrong == "says too much")
        connection.sendall(_head(status, length, *fields))
        connection.sendall(memoryview(data)[start:end])
        if wrong == "resets":
            reset(connection)


def _head(status: str, length: int, *fields: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {length}", "connection: close", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def size(file: Path) -> int:
    """Return the size of a file in bytes, 0 if it does not exist."""
    return file.stat().st_size if file.exists() else 0


def names(folder: Path) -> list[str]:
    """Return the names in a directory."""
    return sorted(path.name for path in folder.iterdir())


def test_a_download_that_is_killed_again_and_again(tmp_path: Path) -> None:
    """The file is correct or absent after each kill, and the next process resumes."""
    rng = random.Random(50)  # noqa: S311 - the same every time
    wrongs = rng.sample([*BREAKS * 3, *REFUSES, *STARTS_OVER], k=15)
    storage = Storage([rng.randbytes(SIZE), rng.randbytes(SIZE)], wrongs)
    target, part = tmp_path / "v", tmp_path / "v.part"
    killed = went_on = 0
    with Server(storage) as server:
        for number, point in enumerate(sorted(rng.sample(range(SIZE * 4 // 5), k=KILLS))):
            kept, requests = size(part), len(storage.asked)
            with downloading(("sync", "async")[number % 2], server.url, target) as child:
                there = next((at for at in map(int, child.stdout or ()) if at >= point), 0)
                child.kill()
            killed += child.wait() == -signal.SIGKILL
            # The last byte of a complete part is requested again.
            assert kept - storage.asked[requests] in {0, 1}
            if part.exists() and storage.asked[-1] and storage.did[-1] in {"", *BREAKS}:
                went_on += 1
                assert size(part) >= there
            assert not target.exists() or target.read_bytes() in storage.versions
        assert storage.wrongs == []
        # The last processes may finish before they are killed, and some start over.
        assert (killed >= KILLS - 2, went_on >= KILLS / 3) == (True, True)
        # The worst fault last: no later attempt could repair a wrong file.
        storage.wrongs = ["ignores If-Range"]
        with downloading("sync", server.url, target) as child:
            _, stderr = child.communicate()
    assert child.returncode == 0, stderr
    assert target.read_bytes() == storage.versions[storage.current % 2]
    assert names(tmp_path) == ["v"]


@pytest.mark.parametrize("there", [False, True], ids=["a new file", "overwriting"])
@pytest.mark.parametrize("step", range(6))
def test_a_download_that_is_killed_while_it_renames_the_file(
    connect: Callable[..., Any], tmp_path: Path, step: int, *, there: bool
) -> None:
    """The target is correct between any two steps, and later downloads do not change it."""
    rng = random.Random(1)  # noqa: S311
    old, new, newer = b"old", rng.randbytes(300_000), rng.randbytes(300_000)
    target = tmp_path / "v"
    if there:
        target.write_bytes(old)
    storage = Storage([new, newer], [])
    with Server(storage) as server:
        with downloading("sync", server.url, target, overwrite=there, step=str(step)) as child:
            _, stderr = child.communicate()
        assert child.returncode == (-signal.SIGKILL if step < (5 if there else 6) else 0), stderr
        left = target.read_bytes() if target.exists() else None
        assert left in ({old, new} if there else {None, new})
        # After the rename the file is the user's, even if a hard link is left here.
        moved = tmp_path / "moved"
        if left is not None:
            target.rename(moved)
        client = connect("key", base_url=server.url)
        storage.wrongs = ["changes"]
        seen: set[bytes | None] = set()

        def look(_there: int, _total: int | None) -> None:
            seen.add(moved.read_bytes() if moved.exists() else None)

        client.storage.download("a/b.mp4", target, on_progress=look)
    assert seen == {left}
    assert target.read_bytes() == storage.versions[storage.current]
    assert names(tmp_path) == (["v"] if left is None else ["moved", "v"])


@contextmanager
def no_file_over(size: int) -> Iterator[None]:
    """Limit the size of files, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 1, 50, 100_000])
def test_a_full_disk(connect: Callable[..., Any], tmp_path: Path, room: int) -> None:
    """The error has the system's reason. The part is resumed later, or nothing is left."""
    data = random.Random(1).randbytes(300_000)  # noqa: S311
    storage = Storage([data], [])
    with Server(storage) as server:
        client = connect("key", base_url=server.url)
        with no_file_over(room), pytest.raises(DownloadError, match="File too large") as caught:
            client.storage.download("a/b.mp4", tmp_path / "v")
        # Without its state file of about 50 bytes, a part cannot be resumed.
        kept = room if room > 50 else 0
        assert caught.value.received == kept
        assert names(tmp_path) == (["v.part", "v.part.json"] if kept else [])
        client.storage.download("a/b.mp4", tmp_path / "v")
    assert storage.asked == [0, kept]
    assert (tmp_path / "v").read_bytes() == data
    assert names(tmp_path) == ["v"]


@contextmanager
def nobody() -> Iterator[None]:
    """Become a user without special permissions."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


def test_a_directory_without_permission(connect: Callable[..., Any]) -> None:
    """The error comes before anything is sent, and no file is left."""
    # Not tmp_path: other users cannot enter it.
    with tempfile.TemporaryDirectory() as name, Server(Storage([b"video"], [])) as server:
        client = connect("key", base_url=server.url)
        folder = Path(name)
        folder.chmod(0o555)
        with nobody(), pytest.raises(DownloadError, match="Permission denied"):
            client.storage.download("a/b.mp4", folder / "v")
        assert (names(folder), server.connections) == ([], 0)
        folder.chmod(0o000)
        with nobody(), pytest.raises(InvalidArgumentError, match="Permission denied"):
            client.storage.download("a/b.mp4", folder / "v")
        folder.chmod(0o700)
