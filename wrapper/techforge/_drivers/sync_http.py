"""HTTP requests with blocking calls."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import httpcore
from attrs import define

from techforge._drivers import CLOSED
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
from techforge._drivers.sync_streams import CLOSED_CHECK_SECONDS, SyncNetwork
from techforge._masking import mask
from techforge.errors import ConfigurationError, TechForgeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx

    from techforge import _flow

    SyncConnection: TypeAlias = Connection[httpcore.ConnectionInterface, SyncNetwork]
    Connections: TypeAlias = Pool[SyncConnection]

T = TypeVar("T")


class SyncHttp:
    """The connections of one client. Threads can share them."""

    def __init__(self, http_client: httpx.Client | None, closed: threading.Event) -> None:
        self._closed = closed
        self._http_client = http_client
        self._lock = threading.Lock()
        self._pools: dict[str, Connections] = {}
        self._slots, self._downloads = (
            threading.Semaphore(MAX_CONNECTIONS),
            threading.Semaphore(MAX_CONNECTIONS),
        )

    def send(self, command: _flow.Send) -> object:
        """Send a call to the API, and return what the generated function made of the response."""
        facade = _SyncFacade(
            command, self._exchange if self._http_client is None else self._exchange_over_http_client
        )
        response = problem = None
        try:
            response = command.call.endpoint.sync_detailed(**facade.arguments)
        except TechForgeError:
            raise
        except PARSER_ERRORS as error:
            problem = error
        # Outside the except block: the context would show the parser's variables in a traceback.
        return facade.parsed(response, problem)

    def stream(self) -> SyncStream:
        """Return a stream that opens URLs of storage, one at a time."""
        return SyncStream(self)

    def _exchange(self, request: Request, received: ReceivedResponse) -> None:
        received.not_sent = True  # so far
        pool = self._pool(request.base_url)
        self._wait(self._slots, request.deadline)
        try:
            # Only a new connection tells whether the server has read a POST without a response.
            exchange = partial(self._exchange_over, pool=pool, request=request, received=received)
            self._send_over(pool, exchange, may_reuse=request.repeatable)
        finally:
            self._slots.release()

    def open(self, request: httpx.Request, deadline: Deadline) -> CheckedOutConnection:
        """Start a request to storage. Its connection is checked out until `check_in` is called."""
        pool = self._pool(origin(request.url))
        self._wait(self._downloads, deadline)
        try:
            return self._send_over(
                pool, partial(self._open_over, pool=pool, request=request, deadline=deadline)
            )
        except BaseException:
            self._downloads.release()
            raise

    def check_in(self, checked_out: CheckedOutConnection) -> None:
        """Return a connection to its pool."""
        try:
            checked_out.response.close()
        finally:
            self._downloads.release()
            self._keep(checked_out.pool, checked_out.connection)

    @staticmethod
    def _send_over(pool: Connections, send: Callable[[SyncConnection], T], *, may_reuse: bool = True) -> T:
        """Send over an idle connection. If the server has closed it meanwhile, send over a new one."""
        connection = pool.take() if may_reuse else None
        while connection is not None and connection.http.has_expired():
            connection.http.close()
            connection = pool.take()
        if connection is not None:
            try:
                return send(connection)
            except (httpcore.NetworkError, httpcore.ProtocolError):
                if connection.network.has_response:
                    raise
        return send(pool.new())

    def _keep(self, pool: Connections, connection: SyncConnection) -> None:
        if self._closed.is_set() or not pool.give(connection):
            connection.http.close()
        # No thread closes idle connections, so do it here.
        for each in tuple(self._pools.values()):
            while (expired := each.take_expired()) is not None:
                expired.http.close()

    def _exchange_over(
        self, connection: SyncConnection, pool: Connections, request: Request, received: ReceivedResponse
    ) -> None:
        connection.network.begin(request.deadline)
        received.connection = connection.network
        try:
            response = connection.http.handle_request(pool.request(request))
            try:
                received.begin(response.status, response.headers)
                for chunk in response.iter_stream():
                    received.add(chunk)
                    del chunk  # a traceback must not show a signed URL
            finally:
                response.close()
        finally:
            received.not_sent = not connection.network.is_established
            self._keep(pool, connection)

    @staticmethod
    def _open_over(
        connection: SyncConnection, pool: Connections, request: httpx.Request, deadline: Deadline
    ) -> CheckedOutConnection:
        connection.network.begin(deadline)
        try:
            with connecting(connection.network):
                return CheckedOutConnection(
                    pool, connection, connection.http.handle_request(pool.from_httpx(request))
                )
        except BaseException:
            connection.http.close()
            raise

    def _exchange_over_http_client(self, request: Request, received: ReceivedResponse) -> None:
        client = cast("httpx.Client", self._http_client)
        if client.is_closed:
            raise ConfigurationError(CLOSED)
        response = client.send(request.for_httpx(), stream=True, follow_redirects=False)
        try:
            received.begin(response.status_code, response.headers.raw)
            if response.is_stream_consumed:
                received.add_decoded(response.content)
            else:
                for chunk in response.iter_raw():
                    received.add(chunk)
                    del chunk  # a traceback must not show a signed URL
        finally:
            response.close()

    def _wait(self, slots: threading.Semaphore, deadline: Deadline) -> None:
        """Wait until another connection may be used."""
        while not slots.acquire(timeout=min(CLOSED_CHECK_SECONDS, deadline.remaining())):
            if self._closed.is_set():
                raise ConfigurationError(CLOSED)
            if deadline.has_passed:
                raise httpcore.PoolTimeout("all connections are in use")

    def _pool(self, base_url: str) -> Connections:
        pool = self._pools.get(base_url)
        if pool is None:
            with self._lock:
                if self._closed.is_set():
                    raise ConfigurationError(CLOSED)
                pool = self._pools.setdefault(base_url, self._connections_to(Route.to(base_url)))
        return pool

    def _connections_to(self, route: Route) -> Connections:
        def connect(origin: httpcore.Origin) -> SyncConnection:
            network = SyncNetwork(route.handshakes, self._closed)
            pool = httpcore.ConnectionPool(
                route.ssl_context, route.proxy, keepalive_expiry=KEEP_ALIVE, network_backend=network
            )
            return Connection(pool.create_connection(origin), network)

        return Pool(route.url, connect)

    def close(self) -> None:
        """Close the idle connections. Connections in use are closed after their request."""
        for pool in tuple(self._pools.values()):
            while (connection := pool.take()) is not None:
                connection.http.close()


class _SyncFacade(Facade):
    def __init__(self, command: _flow.Send, exchange: Callable[[Request, ReceivedResponse], None]) -> None:
        super().__init__(command)
        self._exchange = exchange

    def request(self, **kwargs: Any) -> Reply:
        received = ReceivedResponse(self.deadline)
        try:
            self._exchange(self.build(**kwargs), received)
            received.decode()
        except Exception as error:
            if self.is_foreign(error, received):
                raise
            failure = self.error_for(error, received)
        else:
            return self.accept(received)
        # Outside the except block: httpx's error contains the request, and so the key.
        raise failure


@define(eq=False)
class CheckedOutConnection:
    """A connection that receives a response of storage."""

    pool: Connections
    connection: SyncConnection
    response: httpcore.Response


class SyncStream:
    """A flow's response from storage; one at a time."""

    def __init__(self, http: SyncHttp) -> None:
        self._http = http
        self._checked_out: CheckedOutConnection | None = None
        self._chunks: Iterator[bytes] = iter(())

    def open(self, command: _flow.Open) -> _flow.Opened:
        """Start a GET on a signed URL."""
        self.close()
        started = time.monotonic()
        try:
            request = storage_request(command)
            checked_out = self._http.open(request, Deadline(started + command.timeout))
        except NETWORK_ERRORS as error:
            failure = no_response_error(error, method="GET", path=mask(command.url))
        else:
            self._checked_out, self._chunks = checked_out, checked_out.response.iter_stream()
            return opened(request, checked_out.response, started)
        raise failure

    def read(self, timeout: float) -> bytes:
        """Return the next bytes."""
        if self._checked_out is not None:
            self._checked_out.connection.network.deadline = Deadline.after(timeout)
        try:
            return next(self._chunks, b"")
        except NETWORK_ERRORS as error:
            failure = no_response_error(error, method="GET", path="storage")
        raise failure

    def close(self) -> None:
        """Return the connection to its pool."""
        checked_out, self._checked_out = self._checked_out, None
        if checked_out is not None:
            self._http.check_in(checked_out)
