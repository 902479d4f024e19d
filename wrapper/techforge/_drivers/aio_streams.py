"""Sockets for asyncio, and connections over them.

httpcore's own sockets go by way of anyio, which gives each read and write a cancel scope of its own. Here the
attempt as a whole has one, and connecting another, since of a connection that was never made the outcome is
known.
"""

# ruff: noqa: SLF001
# pyright: reportPrivateUsage=false
# httpx and httpcore take neither sockets nor locks of ours.

from __future__ import annotations

import asyncio
import socket
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TypeAlias

import httpcore

if TYPE_CHECKING:
    import ssl
    from collections.abc import Generator

    # As `getaddrinfo` returns it: family, type, protocol, canonical name, address.
    Address: TypeAlias = tuple[Any, Any, int, str, Any]

_ATTEMPT_DELAY = 0.25
"""Seconds after which the next address of a host is tried as well (RFC 8305, section 5)."""


def use_own_sockets(pool: Any) -> None:
    """Let a pool of httpcore's make connections of ours; those to a proxy stay its own."""
    pool._network_backend = _Backend()
    if not isinstance(pool, httpcore.AsyncHTTPProxy | httpcore.AsyncSOCKSProxy):
        expiry, backend = pool._keepalive_expiry, pool._network_backend
        pool.create_connection = partial(
            _Connection, ssl_context=pool._ssl_context, keepalive_expiry=expiry, network_backend=backend
        )


class _Connection(httpcore.AsyncHTTPConnection):
    """httpcore's, without its locks: it is lent to one call at a time, and they cost a fifth of it."""

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        """Connect, if need be, and send a request."""
        if self._connection is None:
            stream = await self._connect(request)
            self._connection = httpcore.AsyncHTTP11Connection(self._origin, stream, self._keepalive_expiry)
            self._connection._state_lock = nullcontext()  # type: ignore[assignment]
        return await self._connection.handle_async_request(request)


class _Backend(httpcore.AsyncNetworkBackend):
    """Connects to hosts."""

    async def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, *_: Any, **__: Any
    ) -> httpcore.AsyncNetworkStream:
        with _told_as(httpcore.ConnectError, httpcore.ConnectTimeout):
            async with asyncio.timeout(timeout):
                if host[-1:].isdigit() or ":" in host:
                    # An IP address: the loop needs no thread to look it up.
                    return _Stream(*await asyncio.open_connection(host, port))
                connected = await _connect_to_name(host, port)
                try:
                    return _Stream(*await asyncio.open_connection(sock=connected))
                except BaseException:
                    connected.close()
                    raise


async def _connect_to_name(host: str, port: int) -> socket.socket:
    """Connect to the first address of a host that answers, as RFC 8305 says.

    asyncio can do this itself, but uvloop cannot.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if len(found) == 1:
        return await _connect_to(found[0])
    # The families take turns: a host may have many addresses of a family that does not work here.
    first = [address for address in found if address[0] == found[0][0]]
    others = [address for address in found if address[0] != found[0][0]]
    untried = [address for pair in zip_longest(first, others) for address in pair if address]
    attempts: set[asyncio.Task[socket.socket]] = set()
    problem: BaseException | None = None
    try:
        while untried or attempts:
            if untried:
                attempts.add(asyncio.create_task(_connect_to(untried.pop(0))))
            delay = _ATTEMPT_DELAY if untried else None
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
            # It may have connected at the same moment.
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


class _Stream(httpcore.AsyncNetworkStream):
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._unsent = b""

    async def read(self, max_bytes: int, *_: Any, **__: Any) -> bytes:
        # uvloop refuses a write to a connection that is closed already; the read then says what happened.
        if self._unsent and not self._writer.is_closing():
            self._writer.write(self._unsent)
        self._unsent = b""
        with _told_as(httpcore.ReadError, httpcore.ReadTimeout):
            return await self._reader.read(max_bytes)

    async def write(self, buffer: bytes, *_: Any, **__: Any) -> None:
        # Head and body come one by one; they leave together when the answer is asked for.
        self._unsent += buffer

    async def aclose(self) -> None:
        self._writer.close()
        # What a TLS connection says for goodbye nobody waits for.
        await asyncio.sleep(0)
        self._writer.transport.abort()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            with _told_as(httpcore.ConnectError, httpcore.ConnectTimeout):
                async with asyncio.timeout(timeout):
                    await self._writer.start_tls(ssl_context, server_hostname=server_hostname)
        except BaseException:
            self._writer.transport.abort()
            raise
        return self

    def get_extra_info(self, info: str) -> Any:
        # An idle connection has nothing to read but the end.
        return self._reader.at_eof() if info == "is_readable" else self._writer.get_extra_info(info)


@contextmanager
def _told_as(broken: type[Exception], late: type[Exception]) -> Generator[None]:
    """Raise what went wrong as httpcore would."""
    try:
        yield
    except TimeoutError as error:
        raise late(str(error)) from error
    except OSError as error:
        raise broken(str(error)) from error
