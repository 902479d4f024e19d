"""HTTP requests with blocking calls."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import httpcore
from attrs import define

from techforge._drivers import CLOSED
from techforge._drivers.answer import Answer
from techforge._drivers.deadline import Deadline
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
from techforge._drivers.pool import AT_ONCE, KEEP_ALIVE, Connection, Pool, Request, Route, connecting
from techforge._drivers.sync_streams import GLANCE, SyncNetwork
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

    def __init__(self, given: httpx.Client | None, closed: threading.Event) -> None:
        self._closed = closed
        self._given = given
        self._lock = threading.Lock()
        self._pools: dict[str, Connections] = {}
        self._slots, self._downloads = threading.Semaphore(AT_ONCE), threading.Semaphore(AT_ONCE)

    def send(self, command: _flow.Send) -> object:
        """Send a call to the API, and return what the generated function made of the response."""
        facade = _SyncFacade(command, self._exchange if self._given is None else self._exchange_by_given)
        answer = problem = None
        try:
            answer = command.call.endpoint.sync_detailed(**facade.arguments)
        except TechForgeError:
            raise
        except UNREADABLE as error:
            problem = error
        # Outside the except block: the context would show the parser's variables in a traceback.
        return facade.parsed(answer, problem)

    def stream(self) -> SyncStream:
        """Return a stream that opens URLs of storage, one at a time."""
        return SyncStream(self)

    def _exchange(self, request: Request, answer: Answer) -> None:
        answer.not_sent = True  # so far
        pool = self._pool(request.base_url)
        self._wait(self._slots, request.deadline)
        try:
            # Only a new connection tells whether the server has read a POST without a response.
            exchange = partial(self._exchange_over, pool=pool, request=request, answer=answer)
            self._over(pool, exchange, may_reuse=request.repeatable)
        finally:
            self._slots.release()

    def open(self, request: httpx.Request, deadline: Deadline) -> Lent:
        """Start a request to storage. Its connection is checked out until `give_back` is called."""
        pool = self._pool(origin(request.url))
        self._wait(self._downloads, deadline)
        try:
            return self._over(pool, partial(self._open_over, pool=pool, request=request, deadline=deadline))
        except BaseException:
            self._downloads.release()
            raise

    def give_back(self, lent: Lent) -> None:
        """Return a connection to its pool."""
        try:
            lent.response.close()
        finally:
            self._downloads.release()
            self._keep(lent.pool, lent.connection)

    @staticmethod
    def _over(pool: Connections, send: Callable[[SyncConnection], T], *, may_reuse: bool = True) -> T:
        """Send over an idle connection. If the server has closed it meanwhile, send over a new one."""
        connection = pool.take() if may_reuse else None
        while connection is not None and connection.http.has_expired():
            connection.http.close()
            connection = pool.take()
        if connection is not None:
            try:
                return send(connection)
            except (httpcore.NetworkError, httpcore.ProtocolError):
                if connection.network.has_answer:
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
        self, connection: SyncConnection, pool: Connections, request: Request, answer: Answer
    ) -> None:
        connection.network.begin(request.deadline)
        answer.connection = connection.network
        try:
            response = connection.http.handle_request(pool.request(request))
            try:
                answer.begin(response.status, response.headers)
                for chunk in response.iter_stream():
                    answer.add(chunk)
            finally:
                response.close()
        finally:
            answer.not_sent = not connection.network.is_established
            self._keep(pool, connection)

    @staticmethod
    def _open_over(
        connection: SyncConnection, pool: Connections, request: httpx.Request, deadline: Deadline
    ) -> Lent:
        connection.network.begin(deadline)
        try:
            with connecting(connection.network):
                return Lent(pool, connection, connection.http.handle_request(pool.given(request)))
        except BaseException:
            connection.http.close()
            raise

    def _exchange_by_given(self, request: Request, answer: Answer) -> None:
        given = cast("httpx.Client", self._given)
        if given.is_closed:
            raise ConfigurationError(CLOSED)
        response = given.send(request.for_httpx(), stream=True, follow_redirects=False)
        try:
            answer.begin(response.status_code, response.headers.raw)
            if response.is_stream_consumed:
                answer.take(response.content)
            else:
                for chunk in response.iter_raw():
                    answer.add(chunk)
        finally:
            response.close()

    def _wait(self, slots: threading.Semaphore, deadline: Deadline) -> None:
        """Wait until another connection may be used."""
        while not slots.acquire(timeout=min(GLANCE, deadline.remaining())):
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
    def __init__(self, command: _flow.Send, exchange: Callable[[Request, Answer], None]) -> None:
        super().__init__(command)
        self._exchange = exchange

    def request(self, **kwargs: Any) -> Reply:
        answer = Answer(self.deadline)
        try:
            self._exchange(self.build(**kwargs), answer)
            answer.unpack()
        except Exception as error:
            if self.is_foreign(error, answer):
                raise
            failure = self.broken(error, answer)
        else:
            return self.accept(answer)
        # Outside the except block: httpx's error contains the request, and so the key.
        raise failure


@define(eq=False)
class Lent:
    """A connection that receives a response of storage."""

    pool: Connections
    connection: SyncConnection
    response: httpcore.Response


class SyncStream:
    """A flow's response from storage; one at a time."""

    def __init__(self, http: SyncHttp) -> None:
        self._http = http
        self._lent: Lent | None = None
        self._chunks: Iterator[bytes] = iter(())

    def open(self, command: _flow.Open) -> _flow.Opened:
        """Start a GET on a signed URL."""
        self.close()
        started = time.monotonic()
        try:
            request = storage_request(command)
            lent = self._http.open(request, Deadline(started + command.timeout))
        except NETWORK_ERRORS as error:
            failure = no_answer(error, method="GET", path=mask(command.url))
        else:
            self._lent, self._chunks = lent, lent.response.iter_stream()
            return opened(request, lent.response, started)
        raise failure

    def read(self, timeout: float) -> bytes:
        """Return the next bytes."""
        if self._lent is not None:
            self._lent.connection.network.deadline = Deadline.after(timeout)
        try:
            return next(self._chunks, b"")
        except NETWORK_ERRORS as error:
            failure = no_answer(error, method="GET", path="storage")
        raise failure

    def close(self) -> None:
        """Return the connection to its pool."""
        lent, self._lent = self._lent, None
        if lent is not None:
            self._http.give_back(lent)
