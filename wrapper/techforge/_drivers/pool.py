"""Connections to the API: each is lent to one call at a time, and the one that was used last goes out first.

httpcore's own pool looks at all of its connections at each request, so that a request costs more the more
there are, and without a lock, so that among threads it may close one that is in use. Its connections are
used here without it; which of them a URL needs, by way of which proxy, is asked of httpx.
"""

# pyright: reportPrivateUsage=false
# httpx has no public name for what it would send a URL over.

from __future__ import annotations

import ssl
from collections import deque
from contextlib import contextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import httpcore
import httpx
from attrs import define, field

from techforge._drivers.deadline import remaining

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

AT_ONCE = 100
"""Connections of a client to the API. One that was idle for 5 seconds is given up: servers do so, too."""
LIMITS = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
# Nor does anything for this machine go over a proxy: plain http is allowed there because nobody is between.
DIRECT: dict[str, None] = dict.fromkeys(("all://localhost", "all://127.0.0.1", "all://[::1]"))


@cache
def tls_context(scheme: str = "https") -> ssl.SSLContext:
    """Return what all clients share: building it costs more than building the rest of one."""
    if scheme == "https":
        return httpx.create_ssl_context()
    # It is not used, and if it were, it would trust nobody.
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Timeouts(dict[str, float]):
    """The timeouts of one request, asked for phase by phase: each phase gets what is left of the whole."""

    def __init__(self, deadline: float) -> None:
        # A transport of the user's may add them up instead.
        super().__init__(dict.fromkeys(("connect", "read", "write", "pool"), remaining(deadline)))
        self._deadline = deadline

    def __getitem__(self, _phase: str) -> float:
        return remaining(self._deadline)

    def get(self, phase: str, _default: object = None) -> float:
        return self[phase]


@define
class Request:
    """A request to the API; its target is what follows the base URL, header names are lower-case."""

    method: str
    base_url: str
    target: str
    headers: list[tuple[str, str]] = field(repr=False)
    content: bytes | None = field(repr=False)
    deadline: float
    repeatable: bool = True

    @property
    def url(self) -> str:
        """The URL as a whole."""
        return self.base_url + self.target

    def for_httpx(self) -> httpx.Request:
        """Return it as httpx, and what is put underneath it, takes it."""
        return httpx.Request(
            self.method,
            self.url,
            headers=self.headers,
            content=self.content,
            extensions={"timeout": Timeouts(self.deadline)},
        )


class Connection(Protocol):
    """What connections of both colours have in common."""

    def is_available(self) -> bool: ...
    def has_expired(self) -> bool: ...


C = TypeVar("C", bound=Connection)


def was_made(connection: object) -> bool:
    """Return whether a connection was established: connected, through the proxy, and past the TLS handshake.

    If not, the request was not sent, whatever exception says so. A connection of another kind counts as made.
    """
    if not getattr(connection, "_connected", True):
        return False  # a tunnel, whose own connection ends at the proxy
    inner: Any = connection
    while hasattr(inner, "_connection"):
        inner = inner._connection  # noqa: SLF001
    return inner is not None


@contextmanager
def connecting(connection: Connection) -> Generator[None]:
    """Raise whatever goes wrong before a connection is made as httpcore's connect error."""
    try:
        yield
    except (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.ProxyError):
        raise
    except Exception as error:
        if was_made(connection):
            raise
        late = isinstance(error, (TimeoutError, httpcore.TimeoutException))
        kind = httpcore.ConnectTimeout if late else httpcore.ConnectError
        raise kind(f"{type(error).__name__}: {error}") from error


class Pool(Generic[C]):
    """The idle connections to where one base URL leads; safe to share between threads."""

    def __init__(self, base_url: str, http: httpx.Client | httpx.AsyncClient) -> None:
        url = httpx.URL(base_url)
        transport: Any = http._transport_for_url(url)  # noqa: SLF001
        self._connect: Callable[[httpcore.Origin], C] = transport._pool.create_connection  # noqa: SLF001
        self._path = url.raw_path.removesuffix(b"/")
        self._url = partial(httpcore.URL, scheme=url.raw_scheme, host=url.raw_host, port=url.port)
        self._origin = self._url(target=b"/").origin
        self._host = url.netloc
        self._idle: deque[C] = deque()

    def request(self, request: Request) -> httpcore.Request:
        """Return a request as httpcore takes it."""
        content = request.content
        headers = [(b"host", self._host)]
        if not request.repeatable:
            # It goes over a connection of its own, of which there would soon be too many.
            headers.append((b"connection", b"close"))
        headers += [(name.encode(), value.encode()) for name, value in request.headers]
        if content is not None:
            headers.append((b"content-length", b"%d" % len(content)))
        return httpcore.Request(
            request.method,
            self._url(target=self._path + request.target.encode("ascii")),
            headers=headers,
            content=content,
            extensions={"timeout": Timeouts(request.deadline)},
        )

    def given(self, request: httpx.Request) -> httpcore.Request:
        """Return a request of httpx as httpcore takes it."""
        return httpcore.Request(
            request.method,
            self._url(target=request.url.raw_path),
            headers=request.headers.raw,
            content=request.content or None,
            extensions=request.extensions,
        )

    def new(self) -> C:
        """Return a connection that was never used; it connects with its first request."""
        return self._connect(self._origin)

    def take(self) -> C | None:
        """Return the connection that was used last, which may have expired; None if none is idle."""
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def give(self, connection: C) -> C | None:
        """Keep a connection, if it can be used again; return one to be closed, if there is one."""
        if not connection.is_available():
            return connection
        self._idle.append(connection)
        if len(self._idle) < 2:
            return None
        # The one that was idle for the longest; after a time of many calls none might ask for it.
        oldest = self._idle.popleft()
        if oldest.has_expired():
            return oldest
        self._idle.appendleft(oldest)
        return None
