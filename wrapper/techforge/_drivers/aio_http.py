"""HTTP requests on asyncio."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import httpcore
from attrs import define

from techforge._drivers import CLOSED
from techforge._drivers.aio_streams import AsyncNetwork
from techforge._drivers.deadline import Deadline
from techforge._drivers.facade import (
    NETWORK_ERRORS,
    PARSER_ERRORS,
    Facade,
    Reply,
    no_response_error,
    opened,
    origin,
    storage_request,
)
from techforge._drivers.pool import KEEP_ALIVE, MAX_CONNECTIONS, Connection, Pool, Request, Route, connecting
from techforge._drivers.response import ReceivedResponse
from techforge._masking import mask
from techforge.errors import ConfigurationError, TechForgeError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import httpx

    from techforge import _flow

    AsyncConnection: TypeAlias = Connection[httpcore.AsyncConnectionInterface, AsyncNetwork]
    Connections: TypeAlias = Pool[AsyncConnection]

T = TypeVar("T")

_GRACE = 0.05
"""Seconds by which the user's own client times out earlier than we do: its error says what was sent."""


class AsyncHttp:
    """The connections of one client. They belong to one event loop."""

    def __init__(self, http_client: httpx.AsyncClient | None, closed: asyncio.Event) -> None:
        self._closed = closed
        self._http_client = http_client
        self._pools: dict[str, Connections] = {}
        self._slots, self._downloads = asyncio.Semaphore(MAX_CONNECTIONS), asyncio.Semaphore(MAX_CONNECTIONS)
        self._closing_idle: asyncio.TimerHandle | None = None
        self.running: set[asyncio.Timeout] = set()

    async def send(self, command: _flow.Send, received: ReceivedResponse | None = None) -> object:
        """Send a call to the API, and return what the generated function made of the response.

        Meanwhile, `received` has the bytes of the response so far.
        """
        if self._closed.is_set():
            raise ConfigurationError(CLOSED)
        exchange = self._exchange if self._http_client is None else self._exchange_over_http_client
        facade = _AsyncFacade(command, exchange, self.running, received)
        facade.grace = 0.0 if self._http_client is None else _GRACE
        response = problem = None
        try:
            response = await command.call.endpoint.asyncio_detailed(**facade.arguments)
        except TechForgeError:
            raise
        except PARSER_ERRORS as error:
            problem = error
        # Outside the except block: the context would show the parser's variables in a traceback.
        return facade.parsed(response, problem)

    async def _exchange(self, request: Request, received: ReceivedResponse) -> None:
        received.not_sent = True  # so far
        pool = self._pool(request.base_url)
        async with self._slots:
            # Only a new connection tells whether the server has read a POST without a response.
            exchange = partial(self._exchange_over, pool=pool, request=request, received=received)
            await self._send_over(pool, exchange, may_reuse=request.repeatable)

    async def open(self, request: httpx.Request, deadline: Deadline) -> CheckedOutConnection:
        """Start a request to storage. Its connection is checked out until `check_in` is called."""
        pool = self._pool(origin(request.url))
        async with asyncio.timeout(deadline.remaining()):
            await self._downloads.acquire()
            try:
                opened_over = partial(self._open_over, pool=pool, request=request, deadline=deadline)
                return await self._send_over(pool, opened_over)
            except BaseException:
                self._downloads.release()
                raise

    async def check_in(self, checked_out: CheckedOutConnection) -> None:
        """Return a connection to its pool."""
        try:
            await checked_out.response.aclose()
        finally:
            self._downloads.release()
            self._keep(checked_out.pool, checked_out.connection)

    @staticmethod
    async def _send_over(
        pool: Connections, send: Callable[[AsyncConnection], Awaitable[T]], *, may_reuse: bool = True
    ) -> T:
        """Send over an idle connection. If the server has closed it meanwhile, send over a new one."""
        connection = pool.take() if may_reuse else None
        while connection is not None and connection.http.has_expired():
            connection.network.close()
            connection = pool.take()
        if connection is not None:
            try:
                return await send(connection)
            except (httpcore.NetworkError, httpcore.ProtocolError):
                if connection.network.has_response:
                    raise
        return await send(pool.new())

    def _keep(self, pool: Connections, connection: AsyncConnection) -> None:
        if self._closed.is_set() or not pool.give(connection):
            connection.network.close()
        elif self._closing_idle is None:
            self._close_idle()

    def _close_idle(self) -> None:
        """Close connections that were idle for too long, and schedule the next check."""
        for pool in self._pools.values():
            while (expired := pool.take_expired()) is not None:
                expired.network.close()
        times = [pool.next_expiry for pool in self._pools.values() if pool.next_expiry is not None]
        self._closing_idle = None
        if times:
            delay = Deadline(min(times)).remaining()
            self._closing_idle = asyncio.get_running_loop().call_later(delay, self._close_idle)

    async def _exchange_over(
        self, connection: AsyncConnection, pool: Connections, request: Request, received: ReceivedResponse
    ) -> None:
        connection.network.begin(request.deadline)
        received.connection = connection.network
        try:
            response = await connection.http.handle_async_request(pool.request(request))
            try:
                received.begin(response.status, response.headers)
                async for chunk in response.aiter_stream():
                    received.add(chunk)
                    del chunk  # a traceback must not show a signed URL
            finally:
                await response.aclose()
        finally:
            received.not_sent = not connection.network.is_established
            self._keep(pool, connection)

    @staticmethod
    async def _open_over(
        connection: AsyncConnection, pool: Connections, request: httpx.Request, deadline: Deadline
    ) -> CheckedOutConnection:
        connection.network.begin(deadline)
        try:
            with connecting(connection.network):
                response = await connection.http.handle_async_request(pool.from_httpx(request))
                return CheckedOutConnection(pool, connection, response)
        except BaseException:
            connection.network.close()
            raise

    async def _exchange_over_http_client(self, request: Request, received: ReceivedResponse) -> None:
        client = cast("httpx.AsyncClient", self._http_client)
        if client.is_closed:
            raise ConfigurationError(CLOSED)
        response = await client.send(request.for_httpx(), stream=True, follow_redirects=False)
        try:
            received.begin(response.status_code, response.headers.raw)
            if response.is_stream_consumed:
                received.add_decoded(response.content)
            else:
                async for chunk in response.aiter_raw():
                    received.add(chunk)
                    del chunk  # a traceback must not show a signed URL
        finally:
            await response.aclose()

    def _pool(self, base_url: str) -> Connections:
        if self._closed.is_set():
            raise ConfigurationError(CLOSED)
        pool = self._pools.get(base_url)
        if pool is None:
            pool = self._pools[base_url] = self._connections_to(Route.to(base_url))
        return pool

    def _connections_to(self, route: Route) -> Connections:
        def connect(origin: httpcore.Origin) -> AsyncConnection:
            network = AsyncNetwork(route.handshakes)
            pool = httpcore.AsyncConnectionPool(
                route.ssl_context, route.proxy, keepalive_expiry=KEEP_ALIVE, network_backend=network
            )
            return Connection(pool.create_connection(origin), network)

        return Pool(route.url, connect)

    def interrupt(self) -> None:
        """End all running requests with a timeout."""
        for running in self.running:
            if not running.expired():
                running.reschedule(asyncio.get_running_loop().time())

    def close(self) -> None:
        """Close the idle connections. Connections in use are closed after their request."""
        for pool in self._pools.values():
            while (connection := pool.take()) is not None:
                connection.network.close()
        if self._closing_idle is not None:
            self._closing_idle.cancel()


class _AsyncFacade(Facade):
    grace = 0.0

    def __init__(
        self,
        command: _flow.Send,
        exchange: Callable[[Request, ReceivedResponse], Awaitable[None]],
        running: set[asyncio.Timeout],
        received: ReceivedResponse | None,
    ) -> None:
        super().__init__(command)
        self._exchange = exchange
        self._running = running
        self._received = received

    async def request(self, **kwargs: Any) -> Reply:
        received = self._received or ReceivedResponse(self.deadline)
        running = asyncio.timeout(self.deadline.remaining() + self.grace)
        try:
            request = self.build(**kwargs)
            async with running:
                self._running.add(running)
                await self._exchange(request, received)
            received.decode()
        except asyncio.CancelledError as error:
            if self._command.call.repeatable or not received.status_code:
                raise
            # If a program cancels all of its tasks, the job id in a response must not be lost.
            failure = self.error_for(error, received)
        except Exception as error:
            if self.is_foreign(error, received):
                raise
            failure = self.error_for(error, received)
        else:
            return self.accept(received)
        finally:
            self._running.discard(running)
        # Outside the except block: httpx's error contains the request, and so the key.
        raise failure


@define(eq=False)
class CheckedOutConnection:
    """A connection that receives a response of storage."""

    pool: Connections
    connection: AsyncConnection
    response: httpcore.Response


class AsyncStream:
    """A flow's response from storage; one at a time."""

    def __init__(self, http: AsyncHttp) -> None:
        self._http = http
        self._checked_out: CheckedOutConnection | None = None
        self._chunks: AsyncIterator[bytes]

    async def open(self, command: _flow.Open) -> _flow.Opened:
        """Start a GET on a signed URL."""
        await self.close()
        started = time.monotonic()
        try:
            request = storage_request(command)
            checked_out = await self._http.open(request, Deadline(started + command.timeout))
        except NETWORK_ERRORS as error:
            failure = no_response_error(error, method="GET", path=mask(command.url))
        else:
            self._checked_out, self._chunks = checked_out, checked_out.response.aiter_stream()
            return opened(request, checked_out.response, started)
        raise failure

    async def read(self, timeout: float) -> bytes:
        """Return the next bytes."""
        try:
            async with asyncio.timeout(timeout):
                return await anext(self._chunks, b"")
        except NETWORK_ERRORS as error:
            failure = no_response_error(error, method="GET", path="storage")
        raise failure

    async def close(self) -> None:
        """Return the connection to its pool."""
        checked_out, self._checked_out = self._checked_out, None
        if checked_out is not None:
            await self._http.check_in(checked_out)
