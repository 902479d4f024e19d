"""Carrying flows out with blocking calls."""

from __future__ import annotations

import inspect
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar, cast
from weakref import WeakSet

import httpx

from techforge import _flow
from techforge._drivers.deadline import close_all, guard, until
from techforge._drivers.facade import (
    CLOSED,
    DIRECT,
    LIMITS,
    NETWORK_ERRORS,
    UNREADABLE,
    Body,
    Facade,
    Reply,
    no_answer,
    opened,
    storage_request,
    tls_context,
)
from techforge._masking import mask
from techforge.errors import ConfigurationError, TechForgeError

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")


class SyncDriver:
    """Carries flows out with blocking calls; safe to share between threads."""

    def __init__(self, http_client: httpx.Client | None) -> None:
        if http_client is not None and not isinstance(cast("object", http_client), httpx.Client):
            raise ConfigurationError(
                f"http_client: must be an httpx.Client, not {type(http_client).__name__}"
            )
        self._given = http_client
        self._given_to: int | None = None
        self._closed = threading.Event()
        self.start_afresh()
        _drivers.add(self)

    def start_afresh(self) -> None:
        """Begin without connections, and with locks that no thread holds."""
        was_closed, self._closed = self._closed, threading.Event()
        if was_closed.is_set():
            self._closed.set()
        self._own: dict[str, httpx.Client] = {}
        self._lock = threading.RLock()

    def run(self, flow: _flow.Flow[T]) -> T:
        """Run a flow to its end."""
        stream = _SyncStream(self)
        step = _flow.Step(flow)
        try:
            while True:
                try:
                    command = step()
                except StopIteration as stop:
                    return cast("T", stop.value)
                try:
                    step = _flow.Step(flow, self._carry_out(command, stream))
                except BaseException as error:  # noqa: BLE001 - all of it belongs to the flow
                    step = _flow.Step(flow, error=error)
        finally:
            stream.close()

    def _carry_out(self, command: _flow.Command, stream: _SyncStream) -> object:
        result: object = None
        match command:
            case _flow.Send():
                result = self._send(command)
            case _flow.Open():
                result = stream.open(command)
            case _flow.Read():
                result = stream.read(command.timeout)
            case _flow.Close():
                stream.close()
            case _flow.Sleep():
                if self._closed.wait(min(command.seconds, threading.TIMEOUT_MAX)):
                    raise ConfigurationError(CLOSED)
            case _flow.Invoke():
                result = command.function(*command.arguments)
                if inspect.iscoroutine(result):
                    result.close()
                    raise ConfigurationError(f"{command.function!r} is async; give it to an AsyncTechForge")
            case _flow.Block():
                result = command.function(*command.arguments)
            case _:
                raise TypeError(f"no driver knows {type(command).__name__}")
        return result

    def _send(self, command: _flow.Send) -> object:
        http = self.http("api" if command.call.repeatable else "submit")
        facade = _SyncFacade(command, http, ours=self._given is None)
        answer = problem = None
        try:
            answer = command.call.endpoint.sync_detailed(**facade.arguments)
        except TechForgeError:
            raise
        except UNREADABLE as error:
            problem = error
        # Outside the except block: the context would show the parser's variables in a traceback.
        return facade.parsed(answer, problem)

    def http(self, purpose: str) -> httpx.Client:
        """Return the client for a purpose; the one for storage is always ours, and gets no key."""
        with self._lock:
            if self._closed.is_set():
                raise ConfigurationError(CLOSED)
            if self._given is not None and purpose != "storage":
                return self._shared(self._given)
            if purpose not in self._own:
                try:
                    http = httpx.Client(verify=tls_context(), limits=LIMITS, mounts={**DIRECT})
                except Exception as error:
                    raise ConfigurationError(f"no connections can be set up: {mask(str(error))}") from error
                guard(http, self._closed)
                self._own[purpose] = http
            return self._own[purpose]

    def _shared(self, given: httpx.Client) -> httpx.Client:
        if self._given_to not in {None, os.getpid()}:
            raise ConfigurationError(
                "http_client: it was used before a fork, and would mix up the answers of both processes; "
                "build one in each"
            )
        self._given_to = os.getpid()
        return given

    def close(self) -> None:
        """Close our own connections, and end every wait; a second time does nothing."""
        with self._lock:
            self._closed.set()
            while self._own:
                self._own.popitem()[1].close()


_drivers: WeakSet[SyncDriver] = WeakSet()


def _after_fork() -> None:
    close_all()
    for driver in _drivers:
        driver.start_afresh()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork)


class _SyncFacade(Facade):
    def __init__(self, command: _flow.Send, http: httpx.Client, *, ours: bool) -> None:
        super().__init__(command, ours=ours)
        self._http = http

    def request(self, **kwargs: Any) -> Reply:
        if self._http.is_closed:
            raise ConfigurationError(CLOSED)
        response, body = None, Body(self.deadline)
        try:
            request = self.build(**kwargs)
            with until(self.deadline):
                response = self._http.send(request, stream=True, follow_redirects=False)
                try:
                    body.read(response)
                finally:
                    response.close()
        except Exception as error:
            if response is None and not isinstance(error, NETWORK_ERRORS):
                raise  # a hook's, or a bug of a transport's
            failure = self.broken(error, response, body)
        else:
            return self.accept(response, body.content())
        # Outside the except block: the error of httpx holds the request, and with it the key.
        raise failure


class _SyncStream:
    """What a flow has opened from storage; one at a time."""

    def __init__(self, driver: SyncDriver) -> None:
        self._driver = driver
        self._response: httpx.Response | None = None
        self._chunks: Iterator[bytes] = iter(())

    def open(self, command: _flow.Open) -> _flow.Opened:
        self.close()
        started = time.monotonic()
        try:
            request = storage_request(command)
            http = self._driver.http("storage")
            with until(started + command.timeout):
                response = http.send(request, stream=True, follow_redirects=False)
        except NETWORK_ERRORS as error:
            failure = no_answer(error, method="GET", path=mask(command.url))
        else:
            self._response, self._chunks = response, response.iter_raw()
            return opened(response, started)
        raise failure

    def read(self, timeout: float) -> bytes:
        try:
            with until(time.monotonic() + timeout):
                return next(self._chunks, b"")
        except NETWORK_ERRORS as error:
            failure = no_answer(error, method="GET", path="storage")
        raise failure

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None
