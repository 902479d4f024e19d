"""Every fault with both operations, sync and async, and every transport: retries and outcome."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
import pytest
from httpx_aiohttp import AiohttpTransport
from support.servers import Server, read_request, reset

from techforge import (
    APIConnectionError,
    APIError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    Job,
    JobOutcomeUnknownError,
    Outcome,
    SignedUrl,
)
from techforge._drivers import aio_http, sync_http

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    Fault = Callable[[Server, socket.socket], None]

pytestmark = pytest.mark.lying("every row is a fault")

JOB_ID = "15a6331b-3837-4ae8-8fa7-d3ead3388d77"
ACCEPTED = json.dumps({"jobId": JOB_ID, "status": "queued"}).encode()
SIGNED = b'{"signedUrl":"https://cdn.example.com/v","expiresAt":"2030-01-01T00:00:00Z"}'
TO_THE_ID = ACCEPTED[: ACCEPTED.index(b", ")]
"""An answer that breaks off right behind the job's id."""


# --- faults of a server ---------------------------------------------------------------------------


def says(
    body: bytes | None = None,
    status: bytes | None = None,
    *headers: bytes,
    length: int | None = None,
    before: bytes = b"",
    end: Callable[[socket.socket], None] = socket.socket.close,
) -> Fault:
    """Respond with another body, status or length than the operation's own."""

    def serve(_server: Server, connection: socket.socket) -> None:
        own = (b"202 Accepted", ACCEPTED) if read_request(connection)[0] == "P" else (b"200 OK", SIGNED)
        sent = own[1] if body is None else body
        size = b"content-length: %d" % (len(sent) if length is None else length)
        fields = [size, b"content-type: application/json", b"connection: close", *headers]
        head = b"\r\n".join([b"HTTP/1.1 " + (status or own[0]), *fields])
        connection.sendall(before + head + b"\r\n\r\n" + sent)
        end(connection)

    return serve


def says_raw(sent: bytes) -> Fault:
    """Respond with bytes that are not HTTP."""

    def serve(_server: Server, connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(sent)

    return serve


def closed_unread(_server: Server, connection: socket.socket) -> None:
    """Close the connection before most of the request is read."""
    connection.recv(1)


def reset_unread(_server: Server, connection: socket.socket) -> None:
    """Reset the connection before most of the request is read."""
    connection.recv(1)
    reset(connection)


def closed(_server: Server, connection: socket.socket) -> None:
    """Read the request, and close the connection."""
    read_request(connection)


def reset_read(_server: Server, connection: socket.socket) -> None:
    """Read the request, and reset the connection."""
    read_request(connection)
    reset(connection)


def no_tls(_server: Server, connection: socket.socket) -> None:
    """Respond to a TLS handshake with plain HTTP."""
    connection.recv(1)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def late(server: Server, connection: socket.socket) -> None:
    """Read the request, and send nothing."""
    read_request(connection)
    server.hang(30)


def drip(server: Server, connection: socket.socket) -> None:
    """Send a correct head, and then a byte now and then."""
    read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n")
    server.drip(connection, b" " * 100, 0.05)


# --- the table ------------------------------------------------------------------------------------

NO_HOST, NO_PORT = "https://nowhere.invalid", "http://127.0.0.1:{closed_port}"
NOISE = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
MORE = json.dumps({"jobId": JOB_ID, "status": "new", "signedUrl": "https://a/b", "x": [{}]}).encode()
Broken, Late, Unreadable, Status = APIConnectionError, APITimeoutError, APIResponseError, APIStatusError
N, R, S, U, D = Outcome.NOT_SENT, Outcome.REFUSED, Outcome.SERVER_FAILED, Outcome.UNKNOWN, Outcome.DEFINITIVE
CHUNKS = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{"
OK, NO_JOB = None, None

# For each operation: the requests that reach the server with one retry, and the outcome.
# fmt: off
TABLE = {
    # fault                what the server does                      the error   POST     GET      the job
    "DNS failure":        (NO_HOST,                                  Broken,     (2, N),  (2, N),  NO_JOB),
    "refused":            (NO_PORT,                                  Broken,     (2, N),  (2, N),  NO_JOB),
    "TLS failure":        (no_tls,                                   Broken,     (2, N),  (2, N),  NO_JOB),
    "pool timeout":       (late,                                     Late,       (2, N),  (2, N),  NO_JOB),
    "closed, unread":     (closed_unread,                            Broken,     (1, U),  (2, U),  NO_JOB),
    "reset, unread":      (reset_unread,                             Broken,     (1, U),  (2, U),  NO_JOB),
    "closed, read":       (closed,                                   Broken,     (1, U),  (2, U),  NO_JOB),
    "reset, read":        (reset_read,                               Broken,     (1, U),  (2, U),  NO_JOB),
    "late":               (late,                                     Late,       (1, U),  (2, U),  NO_JOB),
    "drip":               (drip,                                     Late,       (1, U),  (2, U),  NO_JOB),
    "half a head":        (says_raw(b"HTTP/1.1 20"),                 Broken,     (1, U),  (2, U),  NO_JOB),
    "half, then reset":   (says(b"{", length=9, end=reset),          Broken,     (1, U),  (2, U),  NO_JOB),
    "chunks cut off":     (says_raw(CHUNKS),                         Broken,     (1, U),  (2, U),  NO_JOB),
    "half an answer":     (says(ACCEPTED[:20], length=99),           Broken,     (1, U),  (2, U),  NO_JOB),
    "cut after the id":   (says(TO_THE_ID, length=99),               Broken,     (1, U),  (2, U),  JOB_ID),
    "broken JSON":        (says(ACCEPTED[:-1]),                      Unreadable, (1, U),  (2, U),  JOB_ID),
    "HTML":               (says(b"<html>Welcome</html>"),            Unreadable, (1, U),  (2, U),  NO_JOB),
    "nothing":            (says(b""),                                Unreadable, (1, U),  (2, U),  NO_JOB),
    "204":                (says(b"", b"204 No Content"),             Unreadable, (1, U),  (2, U),  NO_JOB),
    "no jobId":           (says(b'{"status":"queued"}'),             Unreadable, (1, U),  (2, U),  NO_JOB),
    "jobId of nonsense":  (says(b'{"jobId":{},"signedUrl":"/x"}'),   Unreadable, (1, U),  (1, D),  NO_JOB),
    "10 MB after the id": (says(TO_THE_ID + b" " * 10_000_000),      Unreadable, (1, U),  (2, U),  JOB_ID),
    "10 MB, no HTTP":     (says_raw(b"\x00junk" * 2_000_000),        Broken,     (1, U),  (2, U),  NO_JOB),
    "another 2xx":        (says(None, b"201 Created"),               Unreadable, (1, OK), (2, U),  JOB_ID),
    "unknown status":     (says(MORE),                               OK,         (1, OK), (1, OK), JOB_ID),
    "1xx before it":      (says(before=NOISE),                       OK,         (1, OK), (1, OK), JOB_ID),
    "302":                (says(b"", b"302 F", b"location: /x"),     Status,     (1, U),  (1, D),  NO_JOB),
    "302, with a job":    (says(ACCEPTED, b"302 F", b"location: /"), Status,     (1, U),  (1, D),  JOB_ID),
    "308 to no URL":      (says(b"", b"308 P", b"location: data:x"), Broken,     (1, U),  (2, U),  NO_JOB),
    "308 to no host":     (says(b"", b"308 P", b"location: //xn--"), Broken,     (1, U),  (2, U),  NO_JOB),
    "400":                (says(b"{}", b"400 Bad"),                  Status,     (1, D),  (1, D),  NO_JOB),
    "408":                (says(b"", b"408 Late"),                   Status,     (1, U),  (2, U),  NO_JOB),
    "409, with a job":    (says(ACCEPTED, b"409 Conflict"),          Status,     (1, D),  (1, D),  JOB_ID),
    "429":                (says(b"", b"429 Slow"),                   Status,     (2, R),  (2, R),  NO_JOB),
    "429, cut":           (says(b"{", b"429 Slow", length=99),       Status,     (2, R),  (2, R),  NO_JOB),
    "429, with a job":    (says(ACCEPTED, b"429 Slow"),              Status,     (1, U),  (2, R),  JOB_ID),
    "502":                (says(b"{}", b"502 Bad Gateway"),          Status,     (1, U),  (2, S),  NO_JOB),
    "503":                (says(b"{}", b"503 Busy"),                 Status,     (2, S),  (2, S),  NO_JOB),
    "520":                (says(b"", b"520 Odd"),                    Status,     (1, U),  (2, S),  NO_JOB),
    "599":                (says(b"<html>", b"599 Odd"),              Status,     (2, S),  (2, S),  NO_JOB),
    "520, cut":           (says(b"<h", b"520 Odd", length=99),       Status,     (1, U),  (2, S),  NO_JOB),
    "520, with a job":    (says(ACCEPTED, b"520 Odd"),               Status,     (1, U),  (2, S),  JOB_ID),
}
# fmt: on


# --- the transports -------------------------------------------------------------------------------


class ForeignError(Exception):
    """An error of a transport that is not httpx's own."""


class Misreporting(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A transport that reports every failure as a connect error or as its own error."""

    def __init__(self, inner: Any) -> None:
        """Wrap another transport."""
        self._inner = inner

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request."""
        _copy_timeouts(request)
        try:
            response: httpx.Response = self._inner.handle_request(request)
        except httpx.TransportError as error:
            raise httpx.ConnectError(str(error)) from ForeignError()
        response.stream = _Stream(response.stream)
        return response

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request."""
        _copy_timeouts(request)
        try:
            response: httpx.Response = await self._inner.handle_async_request(request)
        except httpx.TransportError as error:
            raise httpx.ConnectError(str(error)) from ForeignError()
        response.stream = _Stream(response.stream)
        return response

    def close(self) -> None:
        """Close the other transport."""
        self._inner.close()

    async def aclose(self) -> None:
        """Close the other transport."""
        await self._inner.aclose()


def _copy_timeouts(request: httpx.Request) -> None:
    # Other transports expect plain numbers, not the mapping that updates them.
    given = dict(request.extensions["timeout"])
    request.extensions["timeout"] = {phase: given[phase] for phase in ("connect", "read", "write", "pool")}


class _Stream(httpx.SyncByteStream, httpx.AsyncByteStream):
    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._inner
        except httpx.TransportError as error:
            raise ForeignError(str(error)) from error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._inner:
                yield chunk
        except httpx.TransportError as error:
            raise ForeignError(str(error)) from error

    def close(self) -> None:
        self._inner.close()

    async def aclose(self) -> None:
        await self._inner.aclose()


TRANSPORTS = [
    ("sync", "own"),
    ("async", "own"),
    ("sync", "httpx"),
    ("async", "httpx"),
    ("sync", "misreporting"),
    ("async", "misreporting"),
    ("async", "aiohttp"),
]


TLS = httpx.create_ssl_context()


def http_client(colour: str, transport: str, limits: httpx.Limits) -> Any:
    """Return an `http_client=` with this transport."""
    if transport == "own":
        return None
    if transport == "aiohttp":
        return httpx.AsyncClient(transport=AiohttpTransport(verify=TLS))
    if colour == "sync":
        inner: Any = httpx.HTTPTransport(verify=TLS, limits=limits)
        return httpx.Client(transport=inner if transport == "httpx" else Misreporting(inner))
    inner = httpx.AsyncHTTPTransport(verify=TLS, limits=limits)
    return httpx.AsyncClient(transport=inner if transport == "httpx" else Misreporting(inner))


@pytest.fixture
def server(fault: str) -> Iterator[Server]:
    """Return a server with the fault."""
    serve = TABLE[fault][0]
    with Server(late if isinstance(serve, str) else serve) as server:
        yield server


@pytest.fixture
def client(
    fault: str,
    server: Server,
    colour: str,
    transport: str,
    connect: Callable[..., Any],
    closed_port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Any]:
    """Return a client of the server that uses the transport."""
    serve = TABLE[fault][0]
    url = serve.format(closed_port=closed_port) if isinstance(serve, str) else server.url
    if fault == "TLS failure":
        url = url.replace("http:", "https:")
    resolve = socket.getaddrinfo

    def resolver(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host in {"nowhere.invalid", b"nowhere.invalid"}:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    limits = httpx.Limits(max_connections=0 if fault == "pool timeout" else 100)
    for driver in (sync_http, aio_http):
        monkeypatch.setattr(driver, "MAX_CONNECTIONS", limits.max_connections)
    if fault == "pool timeout":
        # The pool must time out before the async driver does, also on a busy machine.
        monkeypatch.setattr(aio_http, "_GRACE", 10.0)
    http = http_client(colour, transport, limits)
    # Only in this case: elsewhere a busy machine may need more time.
    timeout = 0.2 if TABLE[fault][1] is Late else 10.0
    options: Any = {"http_client": http} if http else {}
    if fault.startswith("429"):
        # A 429 does not count as a retry. At first there are 4 attempts per second, so 2 in this time.
        options["retry_timeout"] = 0.48
    client = connect("key", base_url=url, max_retries=1, timeout=timeout, **options)
    yield client
    if isinstance(http, httpx.AsyncClient):
        client._runner.run(http.aclose())
    elif http:
        http.close()


@pytest.mark.parametrize("operation", ["POST", "GET"])
@pytest.mark.parametrize(
    ("fault", "colour", "transport"),
    [
        pytest.param(fault, colour, transport, id=f"{fault} - {colour} {transport}")
        for fault in TABLE
        for colour, transport in TRANSPORTS
        # aiohttp has no pool without connections.
        if (fault, transport) != ("pool timeout", "aiohttp")
    ],
)
def test_outcome(
    client: Any, server: Server, fault: str, transport: str, operation: str, media: dict[str, str]
) -> None:
    """A POST with an unknown outcome reaches the server once, and a job id is kept."""
    serve, kind, post, get, job_id = TABLE[fault]
    attempts, outcome = post if operation == "POST" else get
    if transport == "own" and fault.startswith("308"):
        # Only httpx parses the target of a redirect that it does not follow.
        kind, outcome, attempts = Status, U if operation == "POST" else D, 1
    if transport in {"misreporting", "aiohttp"}:
        # For these transports "not sent" is not trusted, and their timeouts are unknown errors.
        if outcome is N:
            attempts, outcome = (1 if operation == "POST" else 2), U
        kind = Broken if kind is Late else kind

    if (fault, transport, operation) == ("10 MB, no HTTP", "aiohttp", "GET"):
        # An error of the user's own transport is raised unchanged.
        with pytest.raises(aiohttp.ClientResponseError):
            client.storage.sign("a/b.mp4")
        return
    got: Any
    try:
        got = client.jobs.create(**media) if operation == "POST" else client.storage.sign("a/b.mp4")
    except (APIError, JobOutcomeUnknownError) as error:
        got = error

    if outcome is OK:
        assert isinstance(got, Job if operation == "POST" else SignedUrl)
    else:
        assert (got.attempts, got.outcome) == (attempts, outcome)
        assert got.job_may_exist == (operation == "POST" and outcome in {U, S})
        assert isinstance(got, JobOutcomeUnknownError) == (operation == "POST" and outcome is U)
        assert isinstance(getattr(got, "error", got), kind)
    if operation == "POST":
        assert getattr(got, "id" if outcome is OK else "job_id") == job_id

    sent = 0 if isinstance(serve, str) or fault == "pool timeout" else attempts
    if (transport, operation) == ("aiohttp", "GET"):
        # This transport retries a broken GET by itself.
        assert sent <= server.connections <= 2 * sent
    else:
        assert server.connections == sent
