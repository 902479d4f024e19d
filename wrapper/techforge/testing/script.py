"""Scripted responses instead of a network, for clients that do not really sleep."""

from __future__ import annotations

import json
import re
from collections import deque
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast
from urllib.parse import parse_qs, quote, unquote
from uuid import uuid4

import httpcore
from attrs import field, frozen

from techforge._drivers.aio_http import AsyncHttp
from techforge._drivers.network import ConnectionState
from techforge._drivers.pool import Connection, Pool, Route
from techforge._drivers.sync_http import SyncHttp
from techforge.testing.clock import (
    AsyncJumpingDriver,
    Clock,
    JumpingDriver,
    async_client_with,
    client_with,
)

if TYPE_CHECKING:
    import asyncio
    import threading
    from collections.abc import Iterable, Mapping
    from typing import Unpack

    from techforge import AsyncTechForge, ClientOptions, TechForge

Operation = Literal["create", "sign", "storage"]

_KEY = "scripted-key"
# Host names that never resolve (RFC 6761), in case a request bypasses the script.
_API, _STORAGE = "https://api.invalid", "https://storage.invalid"
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@frozen
class Reply:
    """One response. `json` is sent as JSON, `body` unchanged.

    `Reply.lost()` breaks the connection after the request was sent. `Reply.unreachable()` lets the
    connection attempt fail.

    >>> Reply(429, headers={"retry-after": "2"}).status
    429
    """

    status: int = 200
    json: object = None
    headers: Mapping[str, str] = field(factory=dict[str, str])
    body: bytes = field(default=b"", repr=False)
    missing: Literal["", "lost", "unreachable"] = ""

    @classmethod
    def lost(cls) -> Reply:
        """Break the connection without a response: the server may have processed the request."""
        return cls(0, missing="lost")

    @classmethod
    def unreachable(cls) -> Reply:
        """Let the connection attempt fail: the request is not sent."""
        return cls(0, missing="unreachable")


ScriptedReply: TypeAlias = "Reply | int | None"
"""A scripted response: a `Reply`, an error status, or None for the normal response."""


@frozen
class Sent:
    """One request that a client sent to the script. `path` is the storage key, if there is one."""

    operation: Operation
    path: str
    headers: Mapping[str, str] = field(repr=False)
    json: Any = None


class Script:
    """Scripted responses for the clients that it creates. After the script, all requests succeed.

    There is no server and no socket, so responses are not checked against the API's contract. For
    `client.batch`, use `techforge.mock` instead.

    Args:
        create: The responses to submissions, in order. An `int` is an error status, None the normal
            response, and a `Reply` any other response.
        sign: The responses to requests for a signed URL. A 404 means that the video is not ready yet.
        storage: The responses of storage.
        video: The content of every object in storage.

    Attributes:
        requests: The requests that were sent.
        clock: The clock of the clients. It skips their sleeps.

    >>> script = Script(create=[503], sign=[404, 404])
    >>> client = script.client()
    >>> video = client.jobs.create_and_wait(image_url="https://a.example/i", audio_url="https://a.example/a")
    >>> [sent.operation for sent in script.requests]
    ['create', 'create', 'sign', 'sign', 'sign', 'storage']
    >>> len(script.clock.sleeps), script.left
    (3, 0)
    """

    def __init__(
        self,
        *,
        create: Iterable[ScriptedReply] = (),
        sign: Iterable[ScriptedReply] = (),
        storage: Iterable[ScriptedReply] = (),
        video: bytes = b"a video",
    ) -> None:
        self.requests: list[Sent] = []
        self.clock = Clock()
        self.video = video
        self._lock = Lock()
        self._replies: dict[str, deque[ScriptedReply]] = {
            operation: deque(map(_checked, replies))
            for operation, replies in (("create", create), ("sign", sign), ("storage", storage))
        }

    @property
    def left(self) -> int:
        """The number of scripted responses that were not used yet."""
        return sum(map(len, self._replies.values()))

    def client(self, **options: Unpack[ClientOptions]) -> TechForge:
        """Return a sync client that uses this script.

        >>> Script().client(max_retries=0).storage.sign("a/b.mp4").path
        'a/b.mp4'
        """
        options.setdefault("base_url", _API)
        return client_with(self.clock, _KEY, _Driver(self), **options)

    def async_client(self, **options: Unpack[ClientOptions]) -> AsyncTechForge:
        """Return an async client that uses this script.

        >>> (await Script().async_client().storage.sign("a/b.mp4")).path
        'a/b.mp4'
        """
        options.setdefault("base_url", _API)
        return async_client_with(self.clock, _KEY, _AsyncDriver(self), **options)

    def respond(self, request: httpcore.Request) -> httpcore.Response:
        """Record a request, and return its response."""
        sent = _sent(request)
        with self._lock:
            self.requests.append(sent)
            replies = self._replies[sent.operation]
            reply = replies.popleft() if replies else None
        if reply is None:
            reply = self._normal_reply(sent)
        elif isinstance(reply, int):
            reply = Reply(reply)
        return _response(reply)

    def _normal_reply(self, sent: Sent) -> Reply:
        if sent.operation == "create":
            return Reply(202, json={"jobId": str(uuid4()), "status": "queued"})
        if sent.operation == "sign":
            url = f"{_STORAGE}/{quote(sent.path)}?signature=scripted"
            return Reply(json={"signedUrl": url, "expiresAt": "2099-01-01T00:00:00Z"})
        headers = {"content-type": "video/mp4", "etag": '"scripted"'}
        wanted, size = _RANGE.fullmatch(sent.headers.get("range", "")), len(self.video)
        if wanted is None:
            return Reply(200, headers=headers, body=self.video)
        first, last = int(wanted[1]), min(int(wanted[2] or size), size - 1)
        if first >= size:
            return Reply(416, headers={"content-range": f"bytes */{size}"})
        headers["content-range"] = f"bytes {first}-{last}/{size}"
        return Reply(206, headers=headers, body=self.video[first : last + 1])


def _checked(reply: ScriptedReply) -> ScriptedReply:
    if isinstance(reply, int) and not 300 <= reply <= 599:
        raise ValueError(
            f"{reply} is not an error status; use Reply({reply}, json=…), or None for the normal response"
        )
    return reply


def _sent(request: httpcore.Request) -> Sent:
    headers = {name.decode().lower(): value.decode() for name, value in request.headers}
    path, _, query = request.url.target.decode().partition("?")
    if request.url.host == _STORAGE.removeprefix("https://").encode():
        return Sent("storage", unquote(path.removeprefix("/")), headers)
    if request.method == b"GET":
        return Sent("sign", parse_qs(query)["path"][0], headers)
    body = b"".join(cast("Iterable[bytes]", request.stream))
    return Sent("create", path, headers, json.loads(body))


def _response(reply: Reply) -> httpcore.Response:
    if reply.missing == "unreachable":
        raise httpcore.ConnectError("scripted")
    if reply.missing == "lost":
        raise httpcore.ReadError("scripted")
    headers, body, content = dict(reply.headers), reply.body, reply.json
    if content is None and not body and reply.status >= 400:
        # The contract requires a message in error responses.
        content = {"message": f"scripted: {reply.status}"}
    if content is not None:
        headers.setdefault("content-type", "application/json")
        body = json.dumps(content).encode()
    headers.setdefault("content-length", str(len(body)))
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return httpcore.Response(reply.status, headers=raw, content=body)


# The clients use the real drivers; only their connections are replaced.


@frozen
class _Connection(httpcore.ConnectionInterface, httpcore.AsyncConnectionInterface):  # type: ignore[misc]
    """A sync and async connection that gets its responses from the script."""

    script: Script

    def handle_request(self, request: httpcore.Request) -> httpcore.Response:
        return self.script.respond(request)

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        return self.script.respond(request)

    def close(self) -> None:
        pass

    async def aclose(self) -> None:
        pass

    def is_available(self) -> bool:
        return False

    def has_expired(self) -> bool:
        return False


class _Network(ConnectionState):
    """No network. `Reply.unreachable()` and `Reply.lost()` decide what happens to a request."""

    def __init__(self) -> None:
        super().__init__(handshakes=0)
        self.connected()

    def close(self) -> None:
        pass


class _Http(SyncHttp):
    def __init__(self, script: Script, closed: threading.Event) -> None:
        super().__init__(None, closed)
        self._script = script

    def _connections_to(self, route: Route) -> Any:
        return _pool(self._script, route)


class _AsyncHttp(AsyncHttp):
    def __init__(self, script: Script, closed: asyncio.Event) -> None:
        super().__init__(None, closed)
        self._script = script

    def _connections_to(self, route: Route) -> Any:
        return _pool(self._script, route)


def _pool(script: Script, route: Route) -> Pool[Connection[_Connection, _Network]]:
    return Pool(route.url, lambda _origin: Connection(_Connection(script), _Network()))


class _Driver(JumpingDriver):
    def __init__(self, script: Script) -> None:
        super().__init__(None)
        self._connections = _Http(script, self._closed)


class _AsyncDriver(AsyncJumpingDriver):
    def __init__(self, script: Script) -> None:
        super().__init__(None)
        self.http = _AsyncHttp(script, self._closed)
