"""Connections to the API. A call has one at a time; the most recently used one is reused first.

httpcore's own pool scans all of its connections for each request, so requests get slower with their
number. It scans without a lock, so one thread may close a connection that another one is using. So only
httpcore's connections are used here, not its pool.
"""

from __future__ import annotations

import ssl
import time
from collections import deque
from contextlib import contextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import httpcore
import httpx
from attrs import define, field, frozen

from techforge._drivers.proxies import proxy_for
from techforge._masking import mask
from techforge.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from techforge._drivers.deadline import Deadline
    from techforge._drivers.network import ConnectionState

MAX_CONNECTIONS = 100
"""Most connections of a client."""
KEEP_ALIVE = 5.0
"""Close an idle connection after this many seconds; servers do so, too."""


@cache
def tls_context(scheme: str = "https") -> ssl.SSLContext:
    """Return the TLS context of all clients. It takes longer to build than the rest of a client."""
    if scheme == "https":
        return httpx.create_ssl_context()
    # It is not used. If it were, it would trust no server.
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@frozen
class Route:
    """How to reach a base URL."""

    url: httpx.URL
    proxy: httpcore.Proxy | None
    ssl_context: ssl.SSLContext

    @classmethod
    def to(cls, base_url: str) -> Route:
        """Read proxies and certificates from the environment."""
        try:
            url = httpx.URL(base_url)
            return cls(url, proxy_for(url), tls_context(url.scheme))
        except Exception as error:
            raise ConfigurationError(f"no connections can be set up: {mask(str(error))}") from error

    @property
    def handshakes(self) -> int:
        """The number of TLS handshakes before a request."""
        schemes = [self.url.raw_scheme, self.proxy.url.scheme if self.proxy else b""]
        return schemes.count(b"https")


@define
class Request:
    """A request to the API. `target` is the URL after the base URL; header names are lower-case."""

    method: str
    base_url: str
    target: str
    headers: list[tuple[str, str]] = field(repr=False)
    content: bytes | None = field(repr=False)
    deadline: Deadline
    repeatable: bool = True

    @property
    def url(self) -> str:
        """The whole URL."""
        return self.base_url + self.target

    def for_httpx(self) -> httpx.Request:
        """Return the request for httpx and its transports."""
        return httpx.Request(
            self.method,
            self.url,
            headers=self.headers,
            content=self.content,
            extensions={"timeout": self.deadline.as_httpcore_timeouts()},
        )


H = TypeVar("H", bound="httpcore.ConnectionInterface | httpcore.AsyncConnectionInterface")
N = TypeVar("N", bound="ConnectionState")


@define(eq=False)
class Connection(Generic[H, N]):
    """A connection of httpcore, and its own network backend."""

    http: H
    network: N
    expires_at: float = 0.0


C = TypeVar("C", bound=Connection[Any, Any])


@contextmanager
def connecting(network: ConnectionState) -> Generator[None]:
    """Raise every error before a connection is established as httpcore's connect error."""
    try:
        yield
    except (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.ProxyError):
        raise
    except Exception as error:
        if network.is_established:
            raise
        late = isinstance(error, (TimeoutError, httpcore.TimeoutException))
        kind = httpcore.ConnectTimeout if late else httpcore.ConnectError
        raise kind(f"{type(error).__name__}: {error}") from error


class Pool(Generic[C]):
    """The idle connections for one base URL. Threads can share it."""

    def __init__(self, url: httpx.URL, connect: Callable[[httpcore.Origin], C]) -> None:
        self._connect = connect
        self._path = url.raw_path.removesuffix(b"/")
        self._url = partial(httpcore.URL, scheme=url.raw_scheme, host=url.raw_host, port=url.port)
        self._origin = self._url(target=b"/").origin
        self._host = url.netloc
        self._idle: deque[C] = deque()

    def request(self, request: Request) -> httpcore.Request:
        """Return a request in httpcore's form."""
        content = request.content
        headers = [(b"host", self._host)]
        if not request.repeatable:
            # Each submission has its own connection: do not keep it.
            headers.append((b"connection", b"close"))
        headers += [(name.encode(), value.encode()) for name, value in request.headers]
        if content is not None:
            headers.append((b"content-length", b"%d" % len(content)))
        return httpcore.Request(
            request.method,
            self._url(target=self._path + request.target.encode("ascii")),
            headers=headers,
            content=content,
        )

    def from_httpx(self, request: httpx.Request) -> httpcore.Request:
        """Return a request of httpx in httpcore's form."""
        return httpcore.Request(
            request.method,
            self._url(target=request.url.raw_path),
            headers=request.headers.raw,
            content=request.content or None,
        )

    def new(self) -> C:
        """Return a new connection. It connects with its first request."""
        return self._connect(self._origin)

    def take(self) -> C | None:
        """Return the connection that was used last, which may have expired, or None."""
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def give(self, connection: C) -> bool:
        """Keep a connection for `KEEP_ALIVE` seconds if it can be used again. Return whether it can."""
        if not connection.http.is_available():
            return False
        connection.expires_at = time.monotonic() + KEEP_ALIVE
        self._idle.append(connection)
        return True

    def take_expired(self) -> C | None:
        """Return a connection that was idle for too long, or None."""
        try:
            # The first one was idle for the longest time.
            oldest = self._idle.popleft()
        except IndexError:
            return None
        if time.monotonic() >= oldest.expires_at:
            return oldest
        self._idle.appendleft(oldest)
        return None

    @property
    def next_expiry(self) -> float | None:
        """When the next idle connection expires, or None."""
        return self._idle[0].expires_at if self._idle else None
