"""Downloads over real sockets: a complete file or none, and resuming."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from techforge import (
    APIError,
    AsyncTechForge,
    DownloadError,
    InvalidArgumentError,
    Job,
    NotFoundError,
    TargetExistsError,
    TechForge,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from techforge.mock import MockServer

SIGN = "generateSignedPath"
SIZE = 300_000


@pytest.fixture
def data(mock: MockServer, done: Job) -> bytes:
    """Return the bytes of the finished video."""
    stored = mock.store.get(done.output_path)
    assert stored is not None
    assert len(stored.data) == SIZE
    return stored.data


def names(folder: Path) -> list[str]:
    """Return the names in a directory."""
    return sorted(path.name for path in folder.iterdir())


def leads_to(mock: MockServer, url: str) -> None:
    """Let the API return this URL for every storage key, whether or not an object exists."""
    answer = f'{{"signedUrl":"{url}","expiresAt":"2030-01-01T00:00:00Z"}}'
    mock.faults.add(f"status=200;json={answer};operation={SIGN};times=0")


def ranges(mock: MockServer) -> list[str | None]:
    """Return the `Range` header of each request to storage."""
    return [record.headers.get("range") for record in mock.journal.requests(server="storage")]


def broken_off(both: Any, mock: MockServer, done: Job, target: Path, received: int = 100_000) -> None:
    """Write the first part of a download beside its target, as a killed process leaves it."""
    mock.faults.add(f"cdn-close-after={received}", f"status=400;operation={SIGN};after=1")

    def stop(there: int, _total: int | None) -> None:
        if there >= received:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        both.jobs.download(done, target, on_progress=stop)
    mock.faults.clear()
    mock.journal.clear()
    assert names(target.parent) == [f"{target.name}.part", f"{target.name}.part.json"]
    assert target.with_name(target.name + ".part").stat().st_size == received


# --- complete -------------------------------------------------------------------------------------


def test_a_file(both: Any, mock: MockServer, done: Job, data: bytes, tmp_path: Path) -> None:
    """The target has the object's bytes, and no other file is left."""
    target = tmp_path / "video.mp4"
    assert both.jobs.download(done, target) == target
    assert target.read_bytes() == data
    assert names(tmp_path) == ["video.mp4"]
    assert [r.operation for r in mock.journal.requests()] == [SIGN, "storage"]


def test_a_directory_takes_the_objects_name(both: Any, done: Job, data: bytes, tmp_path: Path) -> None:
    """If the target is a directory, the file is named after the object. A `str` is a path, too."""
    path = both.storage.download(done.output_path, str(tmp_path))
    assert path == tmp_path / f"{done.id}.mp4"
    assert path.read_bytes() == data


def test_a_video_is_fetched_by_its_path(
    both: Any, mock: MockServer, done: Job, data: bytes, tmp_path: Path
) -> None:
    """An old `Video` can be downloaded: its path is signed again."""
    video = both.jobs.find(done)
    mock.journal.clear()
    assert both.jobs.download(video, tmp_path).read_bytes() == data
    assert mock.journal.count(operation=SIGN) == 1


def test_an_empty_object(both: Any, mock: MockServer, tmp_path: Path) -> None:
    """An object of 0 bytes is a file of 0 bytes."""
    mock.store.put("empty.txt", b"")
    assert both.storage.download("empty.txt", tmp_path).read_bytes() == b""
    assert names(tmp_path) == ["empty.txt"]


@pytest.mark.parametrize(
    "key", ["ordner/ü ñ 漢.mp4", "a/100%25+b&c=d.mp4", "a/x#y;z.mp4", "~a/'b'(c)!.mp4", "a/\\b"]
)
def test_special_characters_in_a_key(both: Any, mock: MockServer, key: str, tmp_path: Path) -> None:
    """Every character of a storage key reaches the API and storage unchanged."""
    mock.store.put(key, b"video")
    assert both.storage.sign(key).path == key
    assert both.storage.download(key, tmp_path / "v").read_bytes() == b"video"


def test_an_existing_file_is_kept(
    both: Any, mock: MockServer, done: Job, data: bytes, tmp_path: Path
) -> None:
    """Without `overwrite=True`, an existing file is kept and nothing is sent."""
    target = tmp_path / "video.mp4"
    target.write_bytes(b"mine")
    with pytest.raises(TargetExistsError, match="overwrite=True") as caught:
        both.jobs.download(done, target)
    assert isinstance(caught.value, FileExistsError)
    assert target.read_bytes() == b"mine"
    assert names(tmp_path) == ["video.mp4"]
    assert mock.journal.count() == 0
    both.jobs.download(done, target, overwrite=True)
    assert target.read_bytes() == data
    assert names(tmp_path) == ["video.mp4"]


def test_a_file_that_appears_meanwhile_is_kept(both: Any, done: Job, tmp_path: Path) -> None:
    """If a file appears at the target during the download, it is kept; so are our bytes."""
    target = tmp_path / "video.mp4"
    with pytest.raises(TargetExistsError):
        both.jobs.download(done, target, on_progress=lambda _there, _total: target.write_bytes(b"mine"))
    assert target.read_bytes() == b"mine"


def test_overwriting_fails_without_loss(
    both: Any, mock: MockServer, done: Job, data: bytes, tmp_path: Path
) -> None:
    """The old file stays complete until the new one replaces it."""
    target = tmp_path / "video.mp4"
    target.write_bytes(b"old")
    seen: set[bytes] = set()
    mock.faults.add(f"status=400;operation={SIGN}")
    with pytest.raises(APIError):
        both.jobs.download(done, target, overwrite=True)
    assert target.read_bytes() == b"old"
    both.jobs.download(done, target, overwrite=True, on_progress=lambda *_: seen.add(target.read_bytes()))
    assert seen == {b"old"}
    assert target.read_bytes() == data


@pytest.mark.parametrize("to", ["none/video.mp4", "none/", "none/deeper/video.mp4"])
def test_a_missing_directory(both: Any, mock: MockServer, done: Job, tmp_path: Path, to: str) -> None:
    """The call fails before anything is sent, and creates no directory."""
    with pytest.raises(InvalidArgumentError):
        both.jobs.download(done, f"{tmp_path}/{to}")
    assert mock.journal.count() == 0
    assert names(tmp_path) == []


@pytest.mark.parametrize("to", ["a\0b", "x" * 300])
def test_a_target_that_is_no_file_name(
    both: Any, mock: MockServer, done: Job, tmp_path: Path, to: str
) -> None:
    """If the file system refuses the name, the error is a `TechForgeError`."""
    with pytest.raises((DownloadError, InvalidArgumentError)):
        both.jobs.download(done, f"{tmp_path}/{to}")
    assert mock.journal.count() == 0


@pytest.mark.parametrize("key", ["", "/etc/passwd", "a//b", "../a", "a/./b", "a/\x00", "a/\ud800", None])
def test_an_ambiguous_key(both: Any, mock: MockServer, tmp_path: Path, key: Any) -> None:
    """A storage key that could mean another object is refused before anything is sent."""
    for call in (both.storage.sign, lambda key: both.storage.download(key, tmp_path / "v")):
        with pytest.raises(InvalidArgumentError):
            call(key)
    assert mock.journal.count() == 0


def test_there_is_no_such_object(both: Any, mock: MockServer, tmp_path: Path) -> None:
    """A missing object raises `NotFoundError` at once, and leaves no file."""
    for call in (both.storage.sign, lambda key: both.storage.download(key, tmp_path / "v")):
        with pytest.raises(NotFoundError):
            call("a/b.mp4")
    assert mock.journal.count() == 2
    assert names(tmp_path) == []


def test_progress(both: Any, mock: MockServer, tmp_path: Path) -> None:
    """The progress only increases, knows the total, and ends at it."""
    mock.store.put("a/b.mp4", os.urandom(2_000_000))
    mock.faults.add("cdn-close-after=700000")
    heard: list[tuple[int, int | None]] = []
    both.storage.download("a/b.mp4", tmp_path, on_progress=lambda *at: heard.append(at))
    there = [at for at, _ in heard]
    assert there == sorted(set(there))
    assert heard[-1] == (2_000_000, 2_000_000)
    assert len(heard) > 3


def test_our_key_stays_with_the_api(both: Any, mock: MockServer, done: Job, tmp_path: Path) -> None:
    """Storage gets neither the key nor other headers for the API."""
    mock.faults.add("cdn-close-after=100000", "cdn-expired=1;after=1")
    both.with_options(default_headers={"x-team": "blue"}).jobs.download(done, tmp_path)
    for record in mock.journal.requests(server="storage"):
        assert record.headers.keys() <= {"host", "accept", "accept-encoding", "range", "if-range"}
        assert mock.api_key not in repr(sorted(record.headers.items())) + record.path + record.query


# --- resumed --------------------------------------------------------------------------------------


def test_a_connection_that_breaks(
    both: Any, mock: MockServer, done: Job, data: bytes, tmp_path: Path
) -> None:
    """The same call resumes a broken transfer, of the same version of the object."""
    mock.faults.add("cdn-close-after=100000", "cdn-close-after=50000", "cdn-close-after=1;reset=1")
    assert both.jobs.download(done, tmp_path / "v").read_bytes() == data
    stored = mock.store.get(done.output_path)
    assert stored is not None
    first, *later = mock.journal.requests(server="storage")
    assert "range" not in first.headers
    assert "if-range" not in first.headers
    assert [record.status for record in later] == [206] * 3
    assert {record.headers["if-range"] for record in later} == {stored.etag}
    assert ranges(mock)[1:3] == ["bytes=100000-", "bytes=150000-"]
    assert names(tmp_path) == ["v"]
    assert mock.journal.count(operation=SIGN) == 1


def test_a_later_call_resumes(both: Any, mock: MockServer, done: Job, data: bytes, tmp_path: Path) -> None:
    """It does not fetch bytes again that an earlier call has stored."""
    target = tmp_path / "video.mp4"
    broken_off(both, mock, done, target)
    progress: list[int] = []
    both.jobs.download(done, target, on_progress=lambda there, _total: progress.append(there))
    assert target.read_bytes() == data
    assert ranges(mock) == ["bytes=100000-"]
    assert progress[0] > 100_000
    assert names(tmp_path) == ["video.mp4"]


def test_another_process_resumes(both: Any, mock: MockServer, done: Job, data: bytes, tmp_path: Path) -> None:
    """Also if the earlier process was killed in the middle."""
    target = tmp_path / "video.mp4"
    program = (
        "import os, sys\nfrom techforge import TechForge\nclient = TechForge()\n"
        "def die(there, total): there >= 100000 and os._exit(9)\n"
        "client.storage.download(*sys.argv[1:], on_progress=die)\n"
    )
    mock.faults.add("drip=0;cdn-close-after=100000")
    run = subprocess.run(
        [sys.executable, "-c", program, done.output_path, str(target)],
        env={
            "PYTHONPATH": ":".join(filter(None, sys.path)),
            "TFI_API_KEY": mock.api_key,
            "TFI_BASE_URL": mock.url,
        },
        timeout=30,
        check=False,
    )
    assert run.returncode == 9
    mock.journal.clear()
    both.jobs.download(done, target)
    assert target.read_bytes() == data
    assert ranges(mock) == ["bytes=100000-"]


def test_the_object_has_changed(both: Any, mock: MockServer, done: Job, tmp_path: Path) -> None:
    """The download starts over: parts of two versions are not mixed."""
    target = tmp_path / "video.mp4"
    broken_off(both, mock, done, target)
    mock.store.put(done.output_path, b"new" * 120_000)
    both.jobs.download(done, target)
    assert target.read_bytes() == b"new" * 120_000
    assert names(tmp_path) == ["video.mp4"]


def test_the_object_has_changed_and_is_shorter(
    both: Any, mock: MockServer, done: Job, tmp_path: Path
) -> None:
    """The same if the new object is shorter than the part."""
    target = tmp_path / "video.mp4"
    broken_off(both, mock, done, target)
    mock.store.put(done.output_path, b"new")
    both.jobs.download(done, target)
    assert target.read_bytes() == b"new"


def test_the_object_changes_in_between(
    both: Any, mock: MockServer, done: Job, data: bytes, tmp_path: Path
) -> None:
    """The same if it changes between two requests of one call."""
    mock.faults.add("cdn-close-after=100000", "cdn-change-etag=1")
    both.jobs.download(done, tmp_path / "v")
    assert (tmp_path / "v").read_bytes() == data
    assert [record.status for record in mock.journal.requests(server="storage")] == [200, 200]


def test_a_server_that_ignores_the_range(
    both: Any, mock: MockServer, done: Job, data: bytes, tmp_path: Path
) -> None:
    """If the response has the whole object, the part is replaced."""
    target = tmp_path / "video.mp4"
    broken_off(both, mock, done, target)
    mock.faults.add("cdn-ignore-range=1")
    both.jobs.download(done, target)
    assert target.read_bytes() == data


def test_a_part_of_another_object(both: Any, mock: MockServer, done: Job, tmp_path: Path) -> None:
    """A part file of another key is not resumed."""
    target = tmp_path / "video.mp4"
    broken_off(both, mock, done, target)
    mock.store.put("other.mp4", b"other" * 70_000)
    both.storage.download("other.mp4", target)
    assert target.read_bytes() == b"other" * 70_000
    assert ranges(mock) == [None]


@pytest.mark.parametrize("note", ["", "{", "[]", "null", '{"path": 1}', '{"path":"x","etag":null,"total":1}'])
def test_an_unreadable_state_file(
    both: Any, mock: MockServer, done: Job, data: bytes, tmp_path: Path, note: str
) -> None:
    """Without readable state, a part file is not resumed: the download starts over."""
    target = tmp_path / "video.mp4"
    broken_off(both, mock, done, target)
    (tmp_path / "video.mp4.part.json").write_text(note)
    both.jobs.download(done, target)
    assert target.read_bytes() == data
    assert ranges(mock) == [None]


@pytest.mark.parametrize("total", ["x", -5, 1.5, [1], True])
def test_a_state_file_with_an_invalid_total(
    both: Any, mock: MockServer, done: Job, data: bytes, tmp_path: Path, total: Any
) -> None:
    """The download succeeds with the correct bytes."""
    target = tmp_path / "video.mp4"
    broken_off(both, mock, done, target)
    note = tmp_path / "video.mp4.part.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | {"total": total}))
    both.jobs.download(done, target)
    assert target.read_bytes() == data


def test_a_complete_part_is_verified(
    both: Any, mock: MockServer, done: Job, data: bytes, tmp_path: Path
) -> None:
    """Its last byte is fetched to prove that the object is the same; then it is renamed."""
    target = tmp_path / "video.mp4"
    broken_off(both, mock, done, target)
    (tmp_path / "video.mp4.part").write_bytes(data)
    both.jobs.download(done, target)
    assert target.read_bytes() == data
    assert ranges(mock) == [f"bytes={SIZE - 1}-"]


# --- signed again ---------------------------------------------------------------------------------


def test_an_expired_url_is_signed_again(
    both: Any, mock: MockServer, done: Job, data: bytes, tmp_path: Path
) -> None:
    """A URL that expires during a download is signed again, and the download continues."""
    mock.faults.add("cdn-close-after=100000", "cdn-expired=1")
    both.jobs.download(done, tmp_path / "v")
    assert (tmp_path / "v").read_bytes() == data
    assert mock.journal.count(operation=SIGN) == 2
    assert ranges(mock) == [None, "bytes=100000-", "bytes=100000-"]


def test_a_new_url_that_is_refused_too(both: Any, mock: MockServer, done: Job, tmp_path: Path) -> None:
    """No third URL is requested."""
    mock.faults.add("cdn-expired=1;times=0")
    with pytest.raises(APIError) as caught:
        both.jobs.download(done, tmp_path / "v")
    assert caught.value.status_code == 403
    assert mock.journal.count(operation=SIGN) == 2
    assert names(tmp_path) == []


def test_storage_may_redirect(
    both: Any, mock: MockServer, scripted: Callable[..., Any], done: Job, data: bytes, tmp_path: Path
) -> None:
    """A redirect of storage is followed, without the key."""
    url = both.storage.sign(done.output_path).url
    text = f"HTTP/1.1 307 Elsewhere\r\nlocation: {url}\r\ncontent-length: 0\r\n\r\n"
    server = scripted(lambda _head, _connection: text.encode())
    leads_to(mock, f"{server.url}/x")
    assert both.jobs.download(done, tmp_path / "v").read_bytes() == data
    assert mock.api_key not in server.heads[0]


@pytest.mark.parametrize(
    "location",
    [
        "",
        "ftp://a/b",
        "file:///etc/passwd",
        "http://cdn.example.com/a",
        "http://[",
        "/x",
        "https://xn--",
        "https://a..b",
    ],
)
def test_storage_redirects_to_nowhere(
    both: Any, mock: MockServer, scripted: Callable[..., Any], tmp_path: Path, location: str
) -> None:
    """A bad redirect raises a `TechForgeError`: no target, no http, plain http, a loop."""
    text = f"HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"
    server = scripted(lambda _head, _connection: text.encode())
    leads_to(mock, f"{server.url}/x")
    with pytest.raises((APIError, DownloadError)):
        both.storage.download("a/b", tmp_path / "v")
    assert names(tmp_path) == []


# --- storage that lies ----------------------------------------------------------------------------

TRUTH = b"0123456789" * 10
LIES = {
    "too little": b'HTTP/1.1 200 OK\r\netag: "e"\r\ncontent-length: 200\r\n\r\n' + TRUTH,
    "too much": b'HTTP/1.1 200 OK\r\netag: "e"\r\ncontent-length: 50\r\n\r\n' + TRUTH,
    "compressed": b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 100\r\n\r\n" + TRUTH,
    "chunks that never end": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n64\r\n" + TRUTH + b"\r\n",
    "no chunks": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + TRUTH,
    "a part, unasked": b"HTTP/1.1 206 OK\r\ncontent-range: bytes 5-104/105\r\ncontent-length: 100\r\n\r\n"
    + TRUTH,
    "a part of nonsense": b"HTTP/1.1 206 OK\r\ncontent-range: bytes x\r\ncontent-length: 100\r\n\r\n" + TRUTH,
    "a status of its own": b"HTTP/1.1 299 Odd\r\ncontent-length: 100\r\n\r\n" + TRUTH,
    "nothing": b"HTTP/1.1 204 No Content\r\n\r\n",
    "416, unasked": b"HTTP/1.1 416 No\r\ncontent-range: bytes */5\r\ncontent-length: 0\r\n\r\n",
}


@pytest.mark.parametrize("lie", sorted(LIES.keys() - {"too much"}))
def test_a_lie_is_never_put_in_place(
    both: Any, mock: MockServer, scripted: Callable[..., Any], tmp_path: Path, lie: str
) -> None:
    """If headers and bytes disagree, no file appears. Attempts are limited."""
    server = scripted(lambda _head, _connection: LIES[lie])
    leads_to(mock, f"{server.url}/x")
    with pytest.raises((APIError, DownloadError)):
        both.storage.download("a/b", tmp_path / "v", timeout=5)
    assert not (tmp_path / "v").exists()
    assert len(server.heads) <= 4


def test_a_changed_object_behind_a_206(
    both: Any, mock: MockServer, scripted: Callable[..., Any], done: Job, tmp_path: Path
) -> None:
    """A 206 of another version, even of the same size, is not appended: the download starts over."""
    target = tmp_path / "video.mp4"
    broken_off(both, mock, done, target)

    def answer(head: str, _connection: socket.socket) -> bytes:
        if "range: bytes=" in head:
            return (
                b'HTTP/1.1 206 OK\r\netag: "other"\r\ncontent-range: bytes 100000-299999/300000\r\n'
                b"content-length: 200000\r\n\r\n" + b"x" * 200_000
            )
        return b'HTTP/1.1 200 OK\r\netag: "other"\r\ncontent-length: 300000\r\n\r\n' + b"y" * SIZE

    leads_to(mock, scripted(answer).url + "/x")
    both.jobs.download(done, target)
    assert target.read_bytes() == b"y" * SIZE


def test_a_storage_that_sends_less_than_asked_for(
    both: Any, mock: MockServer, scripted: Callable[..., Any], done: Job, data: bytes, tmp_path: Path
) -> None:
    """A 206 may be shorter than requested (RFC 9110, 15.3.7): the rest is requested, too."""
    target = tmp_path / "video.mp4"
    broken_off(both, mock, done, target)
    stored = mock.store.get(done.output_path)
    assert stored is not None

    def answer(head: str, _connection: socket.socket) -> bytes:
        start = int(head.lower().partition("range: bytes=")[2].partition("-")[0])
        piece = data[start : start + 90_000]
        return (
            f"HTTP/1.1 206 OK\r\netag: {stored.etag}\r\ncontent-length: {len(piece)}\r\n"
            f"content-range: bytes {start}-{start + len(piece) - 1}/{SIZE}\r\n\r\n"
        ).encode() + piece

    server = scripted(answer)
    leads_to(mock, server.url + "/x")
    both.jobs.download(done, target)
    assert target.read_bytes() == data
    assert len(server.heads) == 3


@pytest.mark.parametrize("etag", ['W/"weak"', ""])
def test_without_a_strong_etag_nothing_is_resumed(
    both: Any, mock: MockServer, scripted: Callable[..., Any], tmp_path: Path, etag: str
) -> None:
    """Only a strong ETag proves that the bytes are the same."""

    def answer(_head: str, _connection: socket.socket) -> bytes:
        cut = 40 if len(server.heads) == 1 else 100
        head = f"HTTP/1.1 200 OK\r\n{f'etag: {etag}' if etag else 'x: y'}\r\ncontent-length: 100\r\n\r\n"
        return head.encode() + TRUTH[:cut]

    server = scripted(answer)
    leads_to(mock, f"{server.url}/x")
    both.storage.download("a/b", tmp_path / "v")
    assert (tmp_path / "v").read_bytes() == TRUTH
    assert "range" not in server.heads[1].lower().replace("accept-ranges", "")


# --- given up -------------------------------------------------------------------------------------


def test_what_has_arrived_is_kept(
    both: Any, mock: MockServer, done: Job, data: bytes, tmp_path: Path
) -> None:
    """After failures in a row the call fails and keeps its bytes. The next call resumes."""
    target = tmp_path / "video.mp4"
    mock.faults.add("cdn-close-after=100000", "cdn-status=503;times=0")
    with pytest.raises(DownloadError) as caught:
        both.jobs.download(done, target)
    assert caught.value.received == 100_000
    assert (caught.value.path, caught.value.target) == (done.output_path, str(target))
    assert caught.value.error is not None
    assert caught.value.error.status_code == 503
    assert names(tmp_path) == ["video.mp4.part", "video.mp4.part.json"]
    # The break is the first failure in a row, and max_retries=2 more follow.
    assert mock.journal.count(server="storage") == 3
    mock.faults.clear()
    mock.journal.clear()
    both.jobs.download(done, target)
    assert target.read_bytes() == data
    assert ranges(mock) == ["bytes=100000-"]


def test_progress_resets_the_count_of_failures(
    both: Any, mock: MockServer, done: Job, data: bytes, tmp_path: Path
) -> None:
    """Only failures in a row count, so a download that makes progress continues."""
    mock.faults.add(*["cdn-close-after=20000"] * 12)
    assert both.jobs.download(done, tmp_path / "v").read_bytes() == data
    assert mock.journal.count(server="storage") == 13


def test_a_pause_that_storage_asks_for(
    both: Any, mock: MockServer, done: Job, tmp_path: Path, stopwatch: Any
) -> None:
    """If the pause is too long, the call fails at once, and the error has the pause."""
    mock.faults.add("status=503;retry-after=3600;operation=storage;times=0")
    with stopwatch, pytest.raises(DownloadError) as caught:
        both.jobs.download(done, tmp_path / "v", timeout=5)
    assert caught.value.retry_after == 3600
    assert mock.journal.count(server="storage") == 1
    assert stopwatch.seconds < 1


@pytest.mark.parametrize(
    "fault", [f"delay=30;operation={SIGN};times=0", "delay=30;operation=storage;times=0"]
)
def test_a_hung_server(
    both: Any, mock: MockServer, done: Job, tmp_path: Path, fault: str, stopwatch: Any
) -> None:
    """`timeout` limits the whole download."""
    mock.faults.add(fault)
    with stopwatch, pytest.raises((DownloadError, APIError)):
        both.jobs.download(done, tmp_path / "v", timeout=0.4)
    assert stopwatch.seconds < 0.9


def test_a_storage_that_stalls_in_the_middle(
    both: Any, mock: MockServer, scripted: Callable[..., Any], tmp_path: Path, stopwatch: Any
) -> None:
    """The same for a storage that sends some bytes late and then nothing."""

    def answer(_head: str, connection: socket.socket) -> None:
        connection.sendall(b'HTTP/1.1 200 OK\r\netag: "e"\r\ncontent-length: 100\r\n\r\n')
        server.hang(0.9)
        connection.sendall(TRUTH[:10])
        server.hang(5)

    server = scripted(answer)
    leads_to(mock, f"{server.url}/x")
    with stopwatch, pytest.raises(DownloadError) as caught:
        both.storage.download("a/b", tmp_path / "v", timeout=1.6)
    assert caught.value.received == 10
    assert stopwatch.seconds < 2.1


def test_a_dripping_storage(both: Any, mock: MockServer, done: Job, tmp_path: Path, stopwatch: Any) -> None:
    """The same for a storage that sends a byte now and then. Received bytes are kept."""
    mock.faults.add("drip=0.05;operation=storage;times=0")
    with stopwatch, pytest.raises(DownloadError) as caught:
        both.jobs.download(done, tmp_path / "v", timeout=0.4)
    assert stopwatch.seconds < 0.9
    assert 0 < caught.value.received < 20
    assert names(tmp_path) == ["v.part", "v.part.json"]


def test_the_users_own_error(both: Any, done: Job, tmp_path: Path) -> None:
    """An exception of `on_progress` is raised unchanged, and received bytes are kept."""

    def stop(_there: int, _total: int | None) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        both.jobs.download(done, tmp_path / "v", on_progress=stop)
    assert names(tmp_path) == ["v.part", "v.part.json"]


def test_a_second_download_to_one_target_is_refused(
    both: Any, mock: MockServer, done: Job, data: bytes, tmp_path: Path
) -> None:
    """It gets an error, and the first download is not disturbed."""
    started, refused = threading.Event(), threading.Event()

    def hold(_there: int, _total: int | None) -> None:
        started.set()
        assert refused.wait(5)

    def second() -> None:
        assert started.wait(5)
        try:
            with TechForge(mock.api_key, base_url=mock.url) as client:
                client.jobs.download(done, tmp_path / "v")
        except DownloadError as error:
            errors.append(error)
        finally:
            refused.set()

    errors: list[DownloadError] = []
    thread = threading.Thread(target=second)
    thread.start()
    both.jobs.download(done, tmp_path / "v", on_progress=hold)
    thread.join()
    assert "another download" in str(errors[0])
    assert (tmp_path / "v").read_bytes() == data
    assert names(tmp_path) == ["v"]


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
def test_a_link_at_the_part_is_not_followed(both: Any, done: Job, tmp_path: Path) -> None:
    """A planted link cannot redirect the bytes to another file."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "v.part").symlink_to(victim)
    (tmp_path / "w.part").symlink_to(tmp_path / "nowhere")
    for name in ("v", "w"):
        with pytest.raises(InvalidArgumentError, match="symbolic link"):
            both.jobs.download(done, tmp_path / name)
    assert victim.read_bytes() == b"precious"
    assert names(tmp_path) == ["v.part", "victim", "w.part"]


# --- cancelled ------------------------------------------------------------------------------------


async def test_a_cancelled_download(mock: MockServer, done: Job, data: bytes, tmp_path: Path) -> None:
    """A cancellation is fast, keeps the bytes, and releases the file for the next call."""
    mock.faults.add("drip=0.02;operation=storage")
    async with AsyncTechForge(mock.api_key, base_url=mock.url) as client:
        task = asyncio.create_task(client.jobs.download(done, tmp_path / "v"))
        await asyncio.sleep(0.3)
        task.cancel()
        started = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - started < 0.2
        assert names(tmp_path) == ["v.part", "v.part.json"]
        await client.jobs.download(done, tmp_path / "v")
    assert (tmp_path / "v").read_bytes() == data


@pytest.mark.parametrize("step", ["open", "write", "finish"])
async def test_a_download_cancelled_while_the_disk_works(
    mock: MockServer, done: Job, data: bytes, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a thread is writing to the file, no file stays open and no lock is kept."""
    from techforge._partfile import PartFile  # noqa: PLC0415

    real = getattr(PartFile, step)
    entered = threading.Event()

    def slow(*args: Any, **kwargs: Any) -> Any:
        entered.set()
        time.sleep(0.15)
        return real(*args, **kwargs)

    monkeypatch.setattr(PartFile, step, slow)
    async with AsyncTechForge(mock.api_key, base_url=mock.url) as client:
        task = asyncio.create_task(client.jobs.download(done, tmp_path / "v"))
        assert await asyncio.to_thread(entered.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        monkeypatch.undo()
        await asyncio.sleep(0.3)
        await client.jobs.download(done, tmp_path / "v", overwrite=True)
    assert (tmp_path / "v").read_bytes() == data
    assert names(tmp_path) == ["v"]
