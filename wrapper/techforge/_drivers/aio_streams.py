"""Sockets for asyncio.

httpcore's own sockets use anyio, which creates a cancel scope for each read and write. Here the whole
attempt has one deadline, so its streams need none.
"""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import TYPE_CHECKING, Any, cast

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
    import ssl

    from techforge._drivers.network import Address

_BUFFER = 256 * 1024
"""Pause receiving when this many bytes are unread."""


class AsyncNetwork(ConnectionState, httpcore.AsyncNetworkBackend):
    """Connects to a host once."""

    _stream: _Stream | None = None

    async def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        loop, protocol = asyncio.get_running_loop(), partial(_Stream, self)
        with as_httpcore_errors(httpcore.ConnectError, httpcore.ConnectTimeout):
            if is_address(host):
                # The loop needs no thread to resolve an address.
                stream = (await loop.create_connection(protocol, host, port))[1]
            else:
                connected = await _connect_to_name(host, port)
                try:
                    stream = (await loop.create_connection(protocol, sock=connected))[1]
                except BaseException:
                    connected.close()
                    raise
        self.connected()
        self._stream = stream
        return stream

    def stop_reading(self) -> bool:
        """Stop receiving. Return False, and continue, if the socket's buffer has unread bytes."""
        if self._stream is None:
            return True
        return self._stream.stop_reading()

    def close(self) -> None:
        """Close the connection at once, so that nothing is awaited after the last byte of a response."""
        if self._stream is not None:
            self._stream.close()


async def _connect_to_name(host: str, port: int) -> socket.socket:
    """Connect to the first address of a host that responds (RFC 8305). uvloop cannot do it by itself."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if len(found) == 1:
        return await _connect_to(found[0])
    untried = interleave_families(found)
    attempts: set[asyncio.Task[socket.socket]] = set()
    problem: BaseException | None = None
    try:
        while untried or attempts:
            if untried:
                attempts.add(asyncio.create_task(_connect_to(untried.pop(0))))
            delay = ATTEMPT_DELAY if untried else None
            ended, _ = await asyncio.wait(attempts, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
            for attempt in ended:
                attempts.discard(attempt)
                error = attempt.exception()
                if error is None:
                    return attempt.result()
                problem = problem or error
    finally:
        for attempt in attempts:
            attempt.cancel()
            # It may have connected just now.
            attempt.add_done_callback(_close_unused)
    raise problem or OSError(f"{host} has no address")


async def _connect_to(address: Address) -> socket.socket:
    family, kind, protocol, _, place = address
    connecting = socket.socket(family, kind, protocol)
    try:
        connecting.settimeout(0)
        await asyncio.get_running_loop().sock_connect(connecting, place)
    except BaseException:
        connecting.close()
        raise
    return connecting


def _close_unused(attempt: asyncio.Task[socket.socket]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


class _Stream(asyncio.Protocol, httpcore.AsyncNetworkStream):
    def __init__(self, network: AsyncNetwork) -> None:
        self._network = network
        self._transport: asyncio.Transport
        self._received: list[bytes] = []
        self._size = 0
        self._has_ended = False
        self._problem: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._unsent = b""

    # --- called by the event loop ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._network.has_response = True
        self._received.append(data)
        self._size += len(data)
        if self._size > _BUFFER:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        self._has_ended = True
        self._wake()
        # After the server's EOF the connection may still be writable; not with TLS.
        return self._transport.get_extra_info("ssl_object") is None

    def connection_lost(self, exc: Exception | None) -> None:
        self._has_ended, self._problem = True, self._problem or exc
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    # --- called by httpcore ------------------------------------------------------------------------

    async def read(self, *_: Any, **__: Any) -> bytes:
        # uvloop refuses to write to a closed connection. The read then raises the cause.
        if self._unsent and not self._transport.is_closing():
            self._transport.write(self._unsent)
        self._unsent = b""
        while not self._received and not self._has_ended:
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        if not self._received and self._problem is not None:
            raise httpcore.ReadError(str(self._problem)) from self._problem
        data = b"".join(self._received)
        self._received.clear()
        # uvloop refuses to resume a closed connection.
        if self._size > _BUFFER and not self._transport.is_closing():
            self._transport.resume_reading()
        self._size = 0
        return data

    async def write(self, buffer: bytes, *_: Any, **__: Any) -> None:
        # Head and body are written separately. Send them together when the response is read.
        self._unsent += buffer

    def stop_reading(self) -> bool:
        """Receive nothing more; return False, and go on, if something waits at the socket."""
        if self.get_extra_info("is_readable"):
            return False
        self._transport.pause_reading()
        return True

    async def aclose(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection at once."""
        if not self._transport.is_closing():
            self._transport.close()
        # Do not wait for the close message of TLS.
        asyncio.get_running_loop().call_soon(self._transport.abort)

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, *_: Any, **__: Any
    ) -> httpcore.AsyncNetworkStream:
        try:
            with as_httpcore_errors(httpcore.ConnectError, httpcore.ConnectTimeout):
                # It returns None only if the transport is None.
                self._transport = cast(
                    "asyncio.Transport",
                    await asyncio.get_running_loop().start_tls(
                        self._transport, self, ssl_context, server_hostname=server_hostname
                    ),
                )
        except BaseException:
            self._transport.abort()
            raise
        self._network.handshake_done()
        return self

    def get_extra_info(self, info: str) -> Any:
        if info != "is_readable":
            return self._transport.get_extra_info(info)
        # The event loop may not have noticed yet that the server has closed the socket.
        return (
            bool(self._received)
            or self._has_ended
            or has_input(self._transport.get_extra_info("socket").fileno())
        )
