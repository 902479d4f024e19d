"""The network, with blocking calls."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, TypeAlias, cast
from urllib.parse import urlsplit

import httpcore
import httpx
from attrs import define

from techforge._drivers import CLOSED
from techforge._drivers.answer import Answer
from techforge._drivers.deadline import guard, remaining, until
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
    from collections.abc import Callable, Iterator

    from techforge import _flow

    Connections: TypeAlias = Pool[httpcore.ConnectionInterface]

_GLANCE = 0.1
"""Seconds after which a thread that waits for a connection looks whether its client was closed."""


class SyncHttp:
    """The connections of one client; safe to share between threads."""

    def __init__(self, given: httpx.Client | None, closed: threading.Event) -> None:
        self._closed = closed
        self._given = given
        self._lock = threading.Lock()
        self._clients: dict[str, httpx.Client] = {}
        self._pools: dict[str, Connections] = {}
        self._slots, self._downloads = threading.Semaphore(AT_ONCE), threading.Semaphore(AT_ONCE)

    def send(self, command: _flow.Send) -> object:
        """Send a call to the API, and return what the generated function made of the answer."""
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
        """Return what opens URLs of storage, one at a time."""
        return SyncStream(self)

    def _exchange(self, request: Request, answer: Answer) -> None:
        pool = self._pool(request.base_url)
        self._wait(self._slots, request.deadline)
        try:
            # On a connection that was idle, nobody knows whether a POST that got no answer was read.
            connection = self._idle(pool) if request.repeatable else None
            self._exchange_over(connection or pool.new(), pool, request, answer)
        finally:
            self._slots.release()

    def open(self, request: httpx.Request, deadline: float) -> Lent:
        """Start a request to storage, over a connection that is lent until the `Lent` is closed."""
        pool = self._pool(origin(request.url))
        self._wait(self._downloads, deadline)
        connection = None
        try:
            connection = self._idle(pool) or pool.new()
            with until(deadline), connecting(connection):
                return Lent(pool, connection, connection.handle_request(pool.given(request)))
        except BaseException:
            if connection is not None:
                connection.close()
            self._downloads.release()
            raise

    def give_back(self, lent: Lent) -> None:
        """Take a connection back."""
        try:
            lent.response.close()
        finally:
            self._downloads.release()
            self._keep(lent.pool, lent.connection)

    @staticmethod
    def _idle(pool: Connections) -> httpcore.ConnectionInterface | None:
        connection = pool.take()
        while connection is not None and connection.has_expired():
            connection.close()
            connection = pool.take()
        return connection

    def _keep(self, pool: Connections, connection: httpcore.ConnectionInterface) -> None:
        surplus = connection if self._closed.is_set() else pool.give(connection)
        if surplus is not None:
            surplus.close()

    def _exchange_over(
        self,
        connection: httpcore.ConnectionInterface,
        pool: Connections,
        request: Request,
        answer: Answer,
    ) -> None:
        try:
            with until(request.deadline):
                response = connection.handle_request(pool.request(request))
                try:
                    answer.begin(response.status, response.headers)
                    for chunk in response.iter_stream():
                        answer.add(chunk)
                finally:
                    response.close()
        finally:
            answer.not_sent = not was_made(connection)
            self._keep(pool, connection)

    def _exchange_by_given(self, request: Request, answer: Answer) -> None:
        given = cast("httpx.Client", self._given)
        if given.is_closed:
            raise ConfigurationError(CLOSED)
        with until(request.deadline):
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

    def _wait(self, slots: threading.Semaphore, deadline: float) -> None:
        """Wait until one more connection may be in use."""
        while not slots.acquire(timeout=min(_GLANCE, remaining(deadline))):
            if self._closed.is_set():
                raise ConfigurationError(CLOSED)
            if time.monotonic() >= deadline:
                raise httpcore.PoolTimeout("all connections are in use")

    def _pool(self, base_url: str) -> Connections:
        pool = self._pools.get(base_url)
        if pool is None:
            http = self._client(base_url)
            pool = self._pools.setdefault(base_url, Pool(base_url, http))
        return pool

    def _client(self, url: str) -> httpx.Client:
        """Return what knows how a URL is reached."""
        scheme = urlsplit(url).scheme
        with self._lock:
            if self._closed.is_set():
                raise ConfigurationError(CLOSED)
            if scheme not in self._clients:
                try:
                    http = httpx.Client(verify=tls_context(scheme), limits=LIMITS, mounts={**DIRECT})
                except Exception as error:
                    raise ConfigurationError(f"no connections can be set up: {mask(str(error))}") from error
                guard(http, self._closed)
                self._clients[scheme] = http
            return self._clients[scheme]

    def close(self) -> None:
        """Close the connections that nobody uses; those in use are closed after it."""
        for pool in self._pools.values():
            while (connection := pool.take()) is not None:
                connection.close()
        with self._lock:
            while self._clients:
                self._clients.popitem()[1].close()


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
            if not (answer.not_sent or answer.status_code or isinstance(error, NETWORK_ERRORS)):
                raise  # a hook's, or a bug of a transport's
            failure = self.broken(error, answer)
        else:
            return self.accept(answer)
        # Outside the except block: the error of httpx holds the request, and with it the key.
        raise failure


@define
class Lent:
    """A connection on which storage is answering."""

    pool: Connections
    connection: httpcore.ConnectionInterface
    response: httpcore.Response


class SyncStream:
    """What a flow has opened from storage; one at a time."""

    def __init__(self, http: SyncHttp) -> None:
        self._http = http
        self._lent: Lent | None = None
        self._chunks: Iterator[bytes] = iter(())

    def open(self, command: _flow.Open) -> _flow.Opened:
        """Start a GET."""
        self.close()
        started = time.monotonic()
        try:
            request = storage_request(command)
            lent = self._http.open(request, started + command.timeout)
        except NETWORK_ERRORS as error:
            failure = no_answer(error, method="GET", path=mask(command.url))
        else:
            self._lent, self._chunks = lent, lent.response.iter_stream()
            return opened(request, lent.response, started)
        raise failure

    def read(self, timeout: float) -> bytes:
        """Return the next bytes."""
        try:
            with until(time.monotonic() + timeout):
                return next(self._chunks, b"")
        except NETWORK_ERRORS as error:
            failure = no_answer(error, method="GET", path="storage")
        raise failure

    def close(self) -> None:
        """Let go of it."""
        lent, self._lent = self._lent, None
        if lent is not None:
            self._http.give_back(lent)
