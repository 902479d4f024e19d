"""Whatever a server sends, and however slowly, a call ends in time with a typed error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.servers import Server, read_request

from techforge import APIConnectionError, APITimeoutError, DownloadError, JobOutcomeUnknownError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from support.servers import Stopwatch

    from techforge.mock import MockServer

    Serve = Callable[[Server, socket.socket], None]

pytestmark = pytest.mark.lying("servers that mean harm")

# Headers that drip, endless responses and decompression bombs: tests/integration/test_failures.py and
# test_edges.py. Bodies that drip: test_outcomes.py.

STATUS = b"HTTP/1.1 200 OK\r\n"
FLOODS = {
    "100,000 headers": STATUS + b"x-a: bcdefgh\r\n" * 100_000 + b"\r\n",
    "a header of 1 MB": STATUS + b"x-a: " + b"b" * 1_000_000 + b"\r\n\r\n",
    "a name of 1 MB": STATUS + b"x" * 1_000_000 + b": b\r\n\r\n",
    "a status line of 1 MB": b"HTTP/1.1 200 " + b"O" * 1_000_000 + b"\r\n\r\n",
    "1 MB of folded lines": STATUS + b"x-a: b\r\n" + b" c\r\n" * 250_000 + b"\r\n",
}


def floods(name: str) -> Serve:
    """Respond with too many headers."""

    def serve(_server: Server, connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(FLOODS[name])

    return serve


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_of_headers(connect: Callable[..., Any], media: dict[str, str], flood: str) -> None:
    """The response is refused. A job may exist."""
    with Server(floods(flood)) as server:
        client = connect("key", base_url=server.url, max_retries=0)
        with pytest.raises(JobOutcomeUnknownError) as caught:
            client.jobs.create(**media)
        assert isinstance(caught.value.error, APIConnectionError)
        with pytest.raises(APIConnectionError):
            client.storage.sign("a/b.mp4")
        assert server.connections == 2


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_of_headers_from_storage(both: Any, mock: MockServer, tmp_path: Path, flood: str) -> None:
    """The same for storage; no file is left."""
    with Server(floods(flood)) as server:
        answer = f'{{"signedUrl":"{server.url}/x","expiresAt":"2030-01-01T00:00:00Z"}}'
        mock.faults.add(f"status=200;json={answer};operation=generateSignedPath")
        with pytest.raises(DownloadError) as caught:
            both.with_options(max_retries=0).storage.download("a/b.mp4", tmp_path / "v")
    assert isinstance(caught.value.error, APIConnectionError)
    assert list(tmp_path.iterdir()) == []


def endless(piece: bytes) -> Serve:
    """Send the same bytes forever, as fast as they are received."""

    def serve(server: Server, connection: socket.socket) -> None:
        read_request(connection)
        while not server.stopped:
            connection.sendall(piece)

    return serve


def drips(data: bytes) -> Serve:
    """Send a byte now and then, for at least a minute."""

    def serve(server: Server, connection: socket.socket) -> None:
        connection.recv(100)
        server.drip(connection, data.ljust(1200, b"x"), 0.05)

    return serve


def deaf(server: Server, _connection: socket.socket) -> None:
    """Never read."""
    server.hang(60)


CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CHUNKED = STATUS + b"transfer-encoding: chunked\r\n\r\n"
HANDSHAKE = b"\x16\x03\x03\x40\x00"
SLOW = {
    "1xx without end": endless(CONTINUE),
    "many 1xx at a time without end": endless(CONTINUE * 1000),
    "1xx that drip": drips(CONTINUE * 99),
    "chunks that drip": drips(CHUNKED + b"1\r\n \r\n" * 99),
    "a chunk's size that drips": drips(CHUNKED + b"1;"),
    "trailers that drip": drips(CHUNKED + b"0\r\n" + b"x: y\r\n" * 99),
}


@pytest.mark.parametrize("slow", SLOW)
def test_a_deadline_holds(connect: Callable[..., Any], stopwatch: Stopwatch, slow: str) -> None:
    """A call ends at its deadline, whatever the server does."""
    with Server(SLOW[slow]) as server:
        client = connect("key", base_url=server.url, max_retries=0, timeout=0.5)
        with stopwatch, pytest.raises(APITimeoutError):
            client.storage.sign("a/b.mp4")
    assert stopwatch.seconds < 5


def test_a_deadline_holds_in_a_handshake(
    connect: Callable[..., Any], stopwatch: Stopwatch, media: dict[str, str]
) -> None:
    """The same during a TLS handshake: nothing was sent."""
    with Server(drips(HANDSHAKE)) as server:
        url = server.url.replace("http:", "https:")
        client = connect("key", base_url=url, max_retries=0, timeout=0.5)
        with stopwatch, pytest.raises(APITimeoutError) as caught:
            client.jobs.create(**media)
    assert not caught.value.job_may_exist
    assert stopwatch.seconds < 5


def test_a_deadline_holds_while_sending(
    connect: Callable[..., Any], stopwatch: Stopwatch, media: dict[str, str]
) -> None:
    """The same if the server does not read the request."""
    with Server(deaf) as server:
        client = connect("key", base_url=server.url, timeout=0.5)
        with stopwatch, pytest.raises(JobOutcomeUnknownError) as caught:
            client.jobs.create(**media, values=["x" * 20_000_000])
        assert server.connections == 1
    assert isinstance(caught.value.error, APITimeoutError)
    assert stopwatch.seconds < 5
