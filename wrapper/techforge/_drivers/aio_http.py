"""The network, on asyncio."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, TypeAlias, cast
from urllib.parse import urlsplit

import httpcore
import httpx
from attrs import define

from techforge._drivers import CLOSED
from techforge._drivers.aio_streams import use_own_sockets
from techforge._drivers.answer import Answer
from techforge._drivers.deadline import pools_of
from techforge._drivers.facade import (
    NETWORK_ERRORS,
    UNREADABLE,
    Facade,
    Reply,
    no_answer,
    opened,
    origin,
    storage_request,
)
from techforge._drivers.pool import AT_ONCE, DIRECT, LIMITS, Pool, Request, connecting, tls_context, was_made
from techforge._masking import mask
from techforge.errors import ConfigurationError, TechForgeError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from techforge import _flow

    Connections: TypeAlias = Pool[httpcore.AsyncConnectionInterface]

_GRACE = 0.05
"""Seconds that the timeouts of httpcore have to speak first: they say more, and clean up more."""


class AsyncHttp:
    """The connections of one client; belongs to one event loop."""

    def __init__(self, given: httpx.AsyncClient | None, closed: asyncio.Event) -> None:
        self._closed = closed
        self._given = given
        self._clients: dict[str, httpx.AsyncClient] = {}
        self._pools: dict[str, Connections] = {}
        self._slots, self._downloads = asyncio.Semaphore(AT_ONCE), asyncio.Semaphore(AT_ONCE)
        self.running: set[asyncio.Timeout] = set()

    async def send(self, command: _flow.Send) -> object:
        """Send a call to the API, and return what the generated function made of the answer."""
        if self._closed.is_set():
            raise ConfigurationError(CLOSED)
        exchange = self._exchange if self._given is None else self._exchange_by_given
        facade = _AsyncFacade(command, exchange, self.running)
        answer = problem = None
        try:
            answer = await command.call.endpoint.asyncio_detailed(**facade.arguments)
        except TechForgeError:
            raise
        except UNREADABLE as error:
            problem = error
        # Outside the except block: the context would show the parser's variables in a traceback.
        return facade.parsed(answer, problem)

    async def _exchange(self, request: Request, answer: Answer) -> None:
        pool = self._pool(request.base_url)
        await self._wait(self._slots, request.deadline)
        try:
            # On a connection that was idle, nobody knows whether a POST that got no answer was read.
            connection = await self._idle(pool) if request.repeatable else None
            await self._exchange_over(connection or pool.new(), pool, request, answer)
        finally:
            self._slots.release()

    async def open(self, request: httpx.Request, deadline: float) -> Lent:
        """Start a request to storage, over a connection that is lent until the `Lent` is closed."""
        pool = self._pool(origin(request.url))
        await self._wait(self._downloads, deadline)
        connection = None
        try:
            connection = await self._idle(pool) or pool.new()
            with connecting(connection):
                return Lent(pool, connection, await connection.handle_async_request(pool.given(request)))
        except BaseException:
            self._downloads.release()
            if connection is not None:
                await connection.aclose()
            raise

    async def give_back(self, lent: Lent) -> None:
        """Take a connection back."""
        try:
            await lent.response.aclose()
        finally:
            self._downloads.release()
            await self._keep(lent.pool, lent.connection)

    @staticmethod
    async def _idle(pool: Connections) -> httpcore.AsyncConnectionInterface | None:
        connection = pool.take()
        while connection is not None and connection.has_expired():
            await connection.aclose()
            connection = pool.take()
        return connection

    async def _keep(self, pool: Connections, connection: httpcore.AsyncConnectionInterface) -> None:
        surplus = connection if self._closed.is_set() else pool.give(connection)
        if surplus is not None:
            await surplus.aclose()

    async def _wait(self, slots: asyncio.Semaphore, deadline: float) -> None:
        """Wait until one more connection may be in use."""
        if not slots.locked():
            await slots.acquire()
            return
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                await slots.acquire()
        except TimeoutError:
            raise httpcore.PoolTimeout("all connections are in use") from None

    async def _exchange_over(
        self,
        connection: httpcore.AsyncConnectionInterface,
        pool: Connections,
        request: Request,
        answer: Answer,
    ) -> None:
        try:
            response = await connection.handle_async_request(pool.request(request))
            try:
                answer.begin(response.status, response.headers)
                async for chunk in response.aiter_stream():
                    answer.add(chunk)
            finally:
                await response.aclose()
        finally:
            answer.not_sent = not was_made(connection)
            await self._keep(pool, connection)

    async def _exchange_by_given(self, request: Request, answer: Answer) -> None:
        given = cast("httpx.AsyncClient", self._given)
        if given.is_closed:
            raise ConfigurationError(CLOSED)
        response = await given.send(request.for_httpx(), stream=True, follow_redirects=False)
        try:
            answer.begin(response.status_code, response.headers.raw)
            if response.is_stream_consumed:
                answer.take(response.content)
            else:
                async for chunk in response.aiter_raw():
                    answer.add(chunk)
        finally:
            await response.aclose()

    def _pool(self, base_url: str) -> Connections:
        pool = self._pools.get(base_url)
        if pool is None:
            pool = self._pools[base_url] = Pool(base_url, self._client(base_url))
        return pool

    def _client(self, url: str) -> httpx.AsyncClient:
        """Return what knows how a URL is reached."""
        if self._closed.is_set():
            raise ConfigurationError(CLOSED)
        scheme = urlsplit(url).scheme
        if scheme not in self._clients:
            try:
                http = httpx.AsyncClient(verify=tls_context(scheme), limits=LIMITS, mounts={**DIRECT})
            except Exception as error:
                raise ConfigurationError(f"no connections can be set up: {mask(str(error))}") from error
            for pool in pools_of(http):
                use_own_sockets(pool)
            self._clients[scheme] = http
        return self._clients[scheme]

    def interrupt(self) -> None:
        """Let all that runs be out of time."""
        for running in self.running:
            if not running.expired():
                running.reschedule(asyncio.get_running_loop().time())

    async def close(self) -> None:
        """Close the connections that nobody uses; those in use are closed after it."""
        for pool in self._pools.values():
            while (connection := pool.take()) is not None:
                await connection.aclose()
        while self._clients:
            _, client = self._clients.popitem()
            await client.aclose()


class _AsyncFacade(Facade):
    def __init__(
        self,
        command: _flow.Send,
        exchange: Callable[[Request, Answer], Awaitable[None]],
        running: set[asyncio.Timeout],
    ) -> None:
        super().__init__(command)
        self._exchange = exchange
        self._running = running

    async def request(self, **kwargs: Any) -> Reply:
        answer = Answer(self.deadline)
        running = asyncio.timeout(self._command.timeout + _GRACE)
        try:
            request = self.build(**kwargs)
            async with running:
                self._running.add(running)
                await self._exchange(request, answer)
            answer.unpack()
        except Exception as error:
            if not (answer.not_sent or answer.status_code or isinstance(error, NETWORK_ERRORS)):
                raise  # a hook's, or a bug of a transport's
            failure = self.broken(error, answer)
        else:
            return self.accept(answer)
        finally:
            self._running.discard(running)
        # Outside the except block: the error of httpx holds the request, and with it the key.
        raise failure


@define
class Lent:
    """A connection on which storage is answering."""

    pool: Connections
    connection: httpcore.AsyncConnectionInterface
    response: httpcore.Response


class AsyncStream:
    """What a flow has opened from storage; one at a time."""

    def __init__(self, http: AsyncHttp) -> None:
        self._http = http
        self._lent: Lent | None = None
        self._chunks: AsyncIterator[bytes]

    async def open(self, command: _flow.Open) -> _flow.Opened:
        """Start a GET."""
        await self.close()
        started = time.monotonic()
        try:
            request = storage_request(command)
            async with asyncio.timeout(command.timeout + _GRACE):
                lent = await self._http.open(request, started + command.timeout)
        except NETWORK_ERRORS as error:
            failure = no_answer(error, method="GET", path=mask(command.url))
        else:
            self._lent, self._chunks = lent, lent.response.aiter_stream()
            return opened(request, lent.response, started)
        raise failure

    async def read(self, timeout: float) -> bytes:
        """Return the next bytes."""
        try:
            async with asyncio.timeout(timeout):
                return await anext(self._chunks, b"")
        except NETWORK_ERRORS as error:
            failure = no_answer(error, method="GET", path="storage")
        raise failure

    async def close(self) -> None:
        """Let go of it."""
        lent, self._lent = self._lent, None
        if lent is not None:
            await self._http.give_back(lent)
