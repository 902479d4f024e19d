"""Execute flows with blocking calls."""

from __future__ import annotations

import inspect
import os
import sys
import threading
from typing import TYPE_CHECKING, TypeVar, cast
from weakref import WeakSet

from techforge import _flow
from techforge._drivers import CLOSED
from techforge.errors import ConfigurationError

if TYPE_CHECKING:
    import httpx

    from techforge._drivers.sync_http import SyncHttp, SyncStream

T = TypeVar("T")


class SyncDriver:
    """Executes flows with blocking calls. Threads can share it."""

    def __init__(self, http_client: httpx.Client | None) -> None:
        if http_client is not None:
            import httpx  # noqa: PLC0415 - whoever has built a client of his own has loaded it

            if not isinstance(cast("object", http_client), httpx.Client):
                raise ConfigurationError(
                    f"http_client: must be an httpx.Client, not {type(http_client).__name__}"
                )
        self.http_client = http_client
        self._http_client_pid: int | None = None
        self._closed = threading.Event()
        self.reset()
        _drivers.add(self)

    def reset(self) -> None:
        """Start without connections, and with locks that no thread holds."""
        was_closed, self._closed = self._closed, threading.Event()
        if was_closed.is_set():
            self._closed.set()
        self._lock = threading.RLock()
        self._connections: SyncHttp | None = None

    def run(self, flow: _flow.Flow[T]) -> T:
        """Run a flow to its end."""
        streams: list[SyncStream] = []  # one, if the flow opens anything
        step = _flow.Step(flow)
        try:
            while True:
                try:
                    command = step()
                except StopIteration as stop:
                    return cast("T", stop.value)
                try:
                    step = _flow.Step(flow, self._carry_out(command, streams))
                except BaseException as error:  # noqa: BLE001 - all of it belongs to the flow
                    step = _flow.Step(flow, error=error)
        finally:
            for stream in streams:
                stream.close()

    def _carry_out(self, command: _flow.Command, streams: list[SyncStream]) -> object:
        result: object = None
        match command:
            case _flow.Send():
                result = self.http.send(command)
            case _flow.Open():
                result = self._stream(streams).open(command)
            case _flow.Read():
                result = self._stream(streams).read(command.timeout)
            case _flow.Close():
                self._stream(streams).close()
            case _flow.Sleep():
                if self._closed.wait(min(command.seconds, threading.TIMEOUT_MAX)):
                    raise ConfigurationError(CLOSED)
            case _flow.Invoke():
                result = command.function(*command.arguments)
                if inspect.iscoroutine(result):
                    result.close()
                    raise ConfigurationError(f"{command.function!r} is async; pass it to an AsyncTechForge")
            case _flow.Block():
                result = command.function(*command.arguments)
            case _:
                raise TypeError(f"no driver knows {type(command).__name__}")
        return result

    def _stream(self, streams: list[SyncStream]) -> SyncStream:
        if not streams:
            streams.append(self.http.stream())
        return streams[0]

    @property
    def http(self) -> SyncHttp:
        """The connections, which are created on first use."""
        if self._closed.is_set():
            raise ConfigurationError(CLOSED)
        if self.http_client is not None:
            self._check_same_process()
        if self._connections is None:
            from techforge._drivers.sync_http import SyncHttp  # noqa: PLC0415 - see the package

            with self._lock:
                # Another thread may have been faster.
                http = cast("SyncHttp | None", self._connections)
                self._connections = http or SyncHttp(self.http_client, self._closed)
        return self._connections

    def _check_same_process(self) -> None:
        if self._http_client_pid not in {None, os.getpid()}:
            raise ConfigurationError(
                "http_client: it was used before a fork, and would mix up the responses of both processes; "
                "create one in each"
            )
        self._http_client_pid = os.getpid()

    def close(self) -> None:
        """Close the SDK's own connections, and end every wait. Closing again does nothing."""
        with self._lock:
            self._closed.set()
            if self._connections is not None:
                self._connections.close()


_drivers: WeakSet[SyncDriver] = WeakSet()


def _after_fork() -> None:
    for driver in _drivers:
        driver.reset()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork)
