"""Blocking sockets that keep the deadline of a request.

A socket's timeout limits one read, so a server that sends a byte now and then could block a call forever,
and a waiting thread would not notice that its client was closed. Here every wait, including name resolution,
ends at the deadline of the request, or soon after the client is closed.
"""

from __future__ import annotations

import errno
import os
import queue
import selectors
import socket
import ssl
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakSet

import httpcore

from techforge._drivers.network import (
    ATTEMPT_DELAY,
    ConnectionState,
    as_httpcore_errors,
    has_input,
    interleave_families,
    is_address,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from techforge._drivers.network import Address

CLOSED_CHECK_SECONDS = 0.1
"""A waiting thread checks this often, in seconds, whether its client was closed."""
_READ_BYTES = 120 * 1024
"""Bytes to read at once. More than httpcore requests, and less than needs a memory mapping."""
_CHUNK_BYTES = 65_536
"""A writing thread checks the deadline after this many bytes."""
_IN_PROGRESS = {0, errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EAGAIN}

_streams: WeakSet[_Stream] = WeakSet()


def close_all() -> None:
    """Close all sockets in this process only: no message is sent to the server, and no lock is taken."""
    for stream in _streams:
        stream.close()


if sys.platform != "win32":
    # Two processes that read from one connection would take each other's responses.
    os.register_at_fork(after_in_child=close_all)


class SyncNetwork(ConnectionState, httpcore.NetworkBackend):
    """Connects to a host once."""

    def __init__(self, handshakes: int, closed: threading.Event) -> None:
        """Stop waiting when the event is set."""
        super().__init__(handshakes)
        self._closed = closed

    def pause(self, broken: type[Exception], late: type[Exception]) -> float:
        """Return the seconds to wait before the next check. Raise an error if it is time to stop."""
        if self._closed.is_set():
            raise broken("the client was closed")
        if self.deadline.has_passed:
            raise late("the deadline passed")
        return min(CLOSED_CHECK_SECONDS, self.deadline.remaining())

    def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> httpcore.NetworkStream:
        """Connect to the first address of a host that responds (RFC 8305)."""
        with as_httpcore_errors(httpcore.ConnectError, httpcore.ConnectTimeout):
            connected = self._connect(interleave_families(self._resolve(host, port)))
        self.connected()
        return _Stream(connected, self)

    def _pause(self) -> float:
        return self.pause(httpcore.ConnectError, httpcore.ConnectTimeout)

    def _resolve(self, host: str, port: int) -> list[Address]:
        if is_address(host):
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        found: queue.SimpleQueue[list[Address] | BaseException] = queue.SimpleQueue()

        def resolve() -> None:
            try:
                found.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
            except BaseException as error:  # noqa: BLE001 - it is raised by the thread that waits
                found.put(error)

        # The system's lookup has no timeout. A daemon thread does not delay the exit.
        threading.Thread(target=resolve, name="techforge-lookup", daemon=True).start()
        while True:
            try:
                result = found.get(timeout=self._pause())
            except queue.Empty:
                continue
            if isinstance(result, BaseException):
                raise result
            return result

    def _connect(self, untried: list[Address]) -> socket.socket:
        problem: OSError | None = None
        next_at = 0.0
        with selectors.DefaultSelector() as attempts:
            try:
                while untried or attempts.get_map():
                    pause, now = self._pause(), time.monotonic()
                    if untried and now >= next_at:
                        code = _begin(untried.pop(0), attempts)
                        if code:
                            problem = problem or OSError(code, os.strerror(code))
                            continue
                        next_at = now + ATTEMPT_DELAY
                    if untried:
                        pause = min(pause, next_at - now)
                    for key, _ in attempts.select(pause):
                        attempt = cast("socket.socket", key.fileobj)
                        attempts.unregister(attempt)
                        code = attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                        if not code:
                            return attempt
                        attempt.close()
                        problem, next_at = problem or OSError(code, os.strerror(code)), 0.0
            finally:
                for key in tuple(attempts.get_map().values()):
                    cast("socket.socket", key.fileobj).close()
        raise problem or OSError("the host has no address")


def _begin(address: Address, attempts: selectors.BaseSelector) -> int:
    """Start to connect. Return the system's error, or 0."""
    family, kind, protocol, _, place = address
    try:
        attempt = socket.socket(family, kind, protocol)
    except OSError as error:
        return error.errno or errno.EIO
    try:
        attempt.settimeout(0)
        attempt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = attempt.connect_ex(place)
        if code in _IN_PROGRESS:
            attempts.register(attempt, selectors.EVENT_WRITE)
            return 0
    except OSError as error:
        code = error.errno or errno.EIO
    attempt.close()
    return code


class _Stream(httpcore.NetworkStream):
    def __init__(self, connected: socket.socket, network: SyncNetwork) -> None:
        self._socket: socket.socket | _TlsOverTls = connected
        self._network = network
        _streams.add(self)

    def read(self, max_bytes: int, *_: Any, **__: Any) -> bytes:
        with as_httpcore_errors(httpcore.ReadError, httpcore.ReadTimeout):
            receive = partial(self._socket.recv, max(max_bytes, _READ_BYTES))
            received: bytes = self._repeat(receive, httpcore.ReadError, httpcore.ReadTimeout)
        self._network.has_response = self._network.has_response or bool(received)
        return received

    def write(self, buffer: bytes, *_: Any, **__: Any) -> None:
        left = memoryview(buffer)
        with as_httpcore_errors(httpcore.WriteError, httpcore.WriteTimeout):
            while left:
                send = partial(self._socket.send, left[:_CHUNK_BYTES])
                left = left[self._repeat(send, httpcore.WriteError, httpcore.WriteTimeout) :]

    def _repeat(self, operation: Callable[[], Any], broken: type[Exception], late: type[Exception]) -> Any:
        """Call a blocking operation repeatedly until it is done or the time is up."""
        while True:
            self._socket.settimeout(self._network.pause(broken, late))
            try:
                return operation()
            except TimeoutError:
                continue

    def close(self) -> None:
        self._socket.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, *_: Any, **__: Any
    ) -> httpcore.NetworkStream:
        try:
            with as_httpcore_errors(httpcore.ConnectError, httpcore.ConnectTimeout):
                secured = _secured(self._socket, ssl_context, server_hostname)
                self._socket = secured
                self._repeat(secured.do_handshake, httpcore.ConnectError, httpcore.ConnectTimeout)
        except BaseException:
            self.close()
            raise
        self._network.handshake_done()
        return self

    def get_extra_info(self, info: str) -> Any:
        # Only HTTP/1.1 is offered, so httpcore does not need the TLS object.
        return has_input(self._socket.fileno()) if info == "is_readable" else None


def _secured(
    connected: socket.socket | _TlsOverTls, context: ssl.SSLContext, server_hostname: str | None
) -> ssl.SSLSocket | _TlsOverTls:
    if isinstance(connected, ssl.SSLSocket):
        return _TlsOverTls(connected, context, server_hostname)
    plain = cast("socket.socket", connected)
    return context.wrap_socket(plain, server_hostname=server_hostname, do_handshake_on_connect=False)


class _TlsOverTls:
    """TLS to a server through an https proxy. Python's sockets cannot nest TLS."""

    def __init__(self, outer: ssl.SSLSocket, context: ssl.SSLContext, server_hostname: str | None) -> None:
        self._outer = outer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
        self._unsent = b""

    def settimeout(self, seconds: float) -> None:
        self._outer.settimeout(seconds)

    def fileno(self) -> int:
        return self._outer.fileno()

    def close(self) -> None:
        self._outer.close()

    def do_handshake(self) -> None:
        self._exchange(self._tls.do_handshake)
        self._send()

    def recv(self, max_bytes: int) -> bytes:
        try:
            return bytes(self._exchange(lambda: self._tls.read(max_bytes)))
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            return b""

    def send(self, data: bytes | memoryview) -> int:
        self._send()
        # Unsent bytes are sent by the next call: encrypting them again would send them twice.
        return int(self._exchange(lambda: self._tls.write(data)))

    def _exchange(self, operation: Callable[[], Any]) -> Any:
        while True:
            self._send()
            try:
                return operation()
            except ssl.SSLWantReadError:
                self._send()
                received = self._outer.recv(_CHUNK_BYTES)
                self._incoming.write(received) if received else self._incoming.write_eof()

    def _send(self) -> None:
        self._unsent += self._outgoing.read()
        while self._unsent:
            self._unsent = self._unsent[self._outer.send(self._unsent) :]
