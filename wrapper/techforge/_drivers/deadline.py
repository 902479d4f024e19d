"""Deadlines for blocking sockets.

A socket's timeout bounds one read, so a server that sends a byte now and then could hold a call for
ever, and a thread that waits for an answer would not notice that its client was closed. Here every read
of a connection ends at the deadline of the request that it belongs to, or soon after the client is closed.
And since two processes that read from one connection take each other's answers, a fork closes those that the
child has inherited; its parent does not notice.
"""

# pyright: reportPrivateUsage=false
# httpx takes no network backend of ours, though its pools, which are httpcore's, have one.

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import httpcore

if TYPE_CHECKING:
    import ssl
    from collections.abc import Generator, Iterator

    import httpx

_LONGEST = 86_400.0
"""Sockets take no infinite timeout."""
_GLANCE = 0.1
"""Seconds after which a waiting thread looks whether its client was closed."""
_MOST = 120 * 1024
"""Bytes that are read at once: more than httpcore asks for, and less than costs a mapping of its own."""
_PIECE = 65_536
"""Bytes after which a writing thread looks at the clock."""

_current = threading.local()
_streams: WeakSet[_Stream] = WeakSet()


@contextmanager
def until(deadline: float) -> Generator[None]:
    """Let what this thread reads end at a deadline (monotonic seconds)."""
    outer: float | None = getattr(_current, "deadline", None)
    _current.deadline = deadline
    try:
        yield
    finally:
        _current.deadline = outer


def remaining(deadline: float) -> float:
    """Return the seconds that are left, in a form that a socket accepts."""
    return min(_LONGEST, max(0.001, deadline - time.monotonic()))


def guard(http: httpx.Client, closed: threading.Event) -> None:
    """Let a client's connections obey `until`, and end when the event is set."""
    for pool in pools_of(http):
        pool._network_backend = _Backend(pool._network_backend, closed)  # noqa: SLF001


def pools_of(http: httpx.Client | httpx.AsyncClient) -> Iterator[Any]:
    """Yield the pools of httpcore that a client's connections come from."""
    for transport in (http._transport, *http._mounts.values()):  # noqa: SLF001
        pool = getattr(transport, "_pool", None)
        if isinstance(pool, httpcore.ConnectionPool | httpcore.AsyncConnectionPool):
            yield pool


def close_all() -> None:
    """Close the sockets of all connections, in this process only: no goodbye is said, no lock is taken."""
    for stream in _streams:
        stream.close()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=close_all)


class _Backend(httpcore.NetworkBackend):
    def __init__(self, inner: httpcore.NetworkBackend, closed: threading.Event) -> None:
        self._inner = inner
        self._closed = closed

    def connect_tcp(self, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
        if self._closed.is_set():
            raise httpcore.ConnectError("the client was closed")
        return _Stream(self._inner.connect_tcp(*args, **kwargs), self._closed)


class _Stream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream, closed: threading.Event) -> None:
        self._inner = inner
        self._closed = closed
        _streams.add(self)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        stalls_at = time.monotonic() + (_LONGEST if timeout is None else timeout)
        while True:
            left = self._left(stalls_at, httpcore.ReadTimeout)
            if self._closed.is_set():
                raise httpcore.ReadError("the client was closed")
            try:
                return self._inner.read(max(max_bytes, _MOST), min(left, _GLANCE))
            except httpcore.ReadTimeout:
                continue

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        stalls_at = time.monotonic() + (_LONGEST if timeout is None else timeout)
        for start in range(0, len(buffer), _PIECE):
            left = self._left(stalls_at, httpcore.WriteTimeout)
            if self._closed.is_set():
                raise httpcore.WriteError("the client was closed")
            self._inner.write(buffer[start : start + _PIECE], left)

    @staticmethod
    def _left(stalls_at: float, timeout: type[Exception]) -> float:
        deadline = min(stalls_at, getattr(_current, "deadline", None) or stalls_at)
        if time.monotonic() >= deadline:
            raise timeout("the deadline passed")
        return remaining(deadline)

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, timeout), self._closed)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
