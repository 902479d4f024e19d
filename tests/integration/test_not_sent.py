"""A failure before the connection exists means "not sent", whatever its exception is."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from support.servers import Server, read_request

from techforge import APIConnectionError, APITimeoutError, DownloadError, Outcome
from techforge._drivers import aio_streams, sync_streams
from techforge._drivers.pool import tls_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from techforge import Job
    from techforge.mock import MockServer

BACKENDS = {"sync": sync_streams.SyncNetwork, "async": aio_streams.AsyncNetwork}
ERRORS = [
    TypeError("unexpected keyword argument"),
    RuntimeError("from the event loop"),
    UnicodeError("label too long"),
    ValueError("a bad value"),
    OSError("from the system"),
]


@pytest.fixture
def authority(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[trustme.CA]:
    """Return a trusted certificate authority."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    tls_context.cache_clear()
    yield authority
    tls_context.cache_clear()


@pytest.fixture
def api(authority: trustme.CA) -> Iterator[tuple[str, list[str]]]:
    """Return the URL of an API with TLS, and the requests that it has received."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "api.example").configure_cert(context)
    heads: list[str] = []

    def serve(_server: Server, connection: socket.socket) -> None:
        with suppress(OSError), context.wrap_socket(connection, server_side=True) as stream:
            heads.append(read_request(stream))

    with Server(serve) as server:
        yield server.url.replace("http:", "https:"), heads


def breaking(error: Exception, colour: str) -> Any:
    """Return a sync or async function that raises an error."""

    def fails(*_: object, **__: object) -> Any:
        raise error

    async def fails_async(*_: object, **__: object) -> Any:
        raise error

    return fails if colour == "sync" else fails_async


def break_tls(monkeypatch: pytest.MonkeyPatch, client: Any, colour: str, error: Exception) -> None:
    """Let a client's TLS handshake raise an error."""
    wrap_socket = ssl.SSLContext.wrap_socket

    def fails(self: Any, sock: Any, server_side: bool = False, **options: Any) -> Any:
        if server_side:
            return wrap_socket(self, sock, server_side=True, **options)
        raise error

    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", fails)
    if colour == "async":
        monkeypatch.setattr(client._runner.get_loop(), "start_tls", breaking(error, "async"))


def assert_not_sent(client: Any, media: dict[str, str]) -> Exception:
    """Submit a job: nothing is sent, the attempt is repeated, and no job can exist."""
    with pytest.raises(APIConnectionError) as caught:
        client.jobs.create(**media)
    error = caught.value
    assert (error.outcome, error.attempts, error.job_may_exist) == (Outcome.NOT_SENT, 2, False)
    return error


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("phase", ["lookup", "connecting", "TLS"])
def test_nothing_was_sent_before_a_connection(
    connect: Callable[..., Any],
    colour: str,
    api: tuple[str, list[str]],
    media: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    phase: str,
    error: Exception,
) -> None:
    """Any exception during lookup, connecting or the TLS handshake is a connection error."""
    url, heads = api
    client = connect("key", base_url=url.replace("127.0.0.1", "localhost"), max_retries=1)
    with monkeypatch.context() as broken:
        if phase == "TLS":
            break_tls(broken, client, colour, error)
        elif phase == "connecting":
            broken.setattr(BACKENDS[colour], "connect_tcp", breaking(error, colour))
        else:
            resolver = socket if colour == "sync" else client._runner.get_loop()
            broken.setattr(resolver, "getaddrinfo", breaking(error, colour))
        assert str(error) in str(assert_not_sent(client, media))
    assert heads == []


def closed(_server: Server, connection: socket.socket) -> None:
    """Read the CONNECT, and close the connection."""
    read_request(connection)


def no_http(_server: Server, connection: socket.socket) -> None:
    """Respond to the CONNECT with something that is not HTTP."""
    read_request(connection)
    connection.sendall(b"\x00junk\r\n\r\n")


def refused(_server: Server, connection: socket.socket) -> None:
    """Refuse the CONNECT."""
    read_request(connection)
    connection.sendall(b"HTTP/1.1 407 Who are you\r\ncontent-length: 0\r\n\r\n")


def silent(server: Server, connection: socket.socket) -> None:
    """Read the CONNECT, and send nothing."""
    read_request(connection)
    server.hang(30)


def dripping(server: Server, connection: socket.socket) -> None:
    """Respond to the CONNECT byte by byte, longer than any timeout."""
    read_request(connection)
    server.drip(connection, b"HTTP/1.1 200 OK\r\nx: " + b"x" * 1000, 0.05)


def no_tls(_server: Server, connection: socket.socket) -> None:
    """Open the tunnel, and respond to the TLS handshake with plain HTTP."""
    read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    connection.recv(1)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@pytest.mark.parametrize("proxy", [closed, no_http, refused, silent, dripping, no_tls])
def test_nothing_was_sent_before_a_tunnel(
    connect: Callable[..., Any],
    authority: trustme.CA,
    media: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    proxy: Callable[[Server, socket.socket], None],
) -> None:
    """If a tunnel is not established, nothing was sent to the API."""
    del authority
    timeout = 0.3 if proxy in {silent, dripping} else 10.0
    with Server(proxy) as server:
        monkeypatch.setenv("HTTPS_PROXY", server.url)
        client = connect("key", base_url="https://api.example", max_retries=1, timeout=timeout)
        error = assert_not_sent(client, media)
        assert isinstance(error, APITimeoutError) == (timeout < 1)
        client.close()
        assert server.connections == 2


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_nothing_was_sent_before_the_handshake_in_a_tunnel(
    connect: Callable[..., Any],
    colour: str,
    authority: trustme.CA,
    media: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    """Any exception during the TLS handshake through a proxy is a connection error."""
    del authority
    with Server(no_tls) as server:
        monkeypatch.setenv("HTTPS_PROXY", server.url)
        client = connect("key", base_url="https://api.example", max_retries=1)
        break_tls(monkeypatch, client, colour, error)
        assert str(error) in str(assert_not_sent(client, media))
        client.close()
        assert server.connections == 2


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_storage_that_cannot_be_reached(
    connect: Callable[..., Any],
    colour: str,
    mock: MockServer,
    done: Job,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
    error: Exception,
) -> None:
    """Any exception while connecting to storage is a connection error, too."""
    client = connect(mock.api_key, base_url=mock.url, max_retries=0)
    client.storage.sign(done.output_path)
    # The request to the API uses an existing connection.
    monkeypatch.setattr(BACKENDS[colour], "connect_tcp", breaking(error, colour))
    with pytest.raises(DownloadError, match=f"cannot connect .*{error}"):
        client.jobs.download(done, tmp_path)
