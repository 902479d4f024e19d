"""Carrying flows out on asyncio."""

from __future__ import annotations

import asyncio
import inspect
import time
from typing import TYPE_CHECKING, Any, TypeVar, cast

import httpx

from techforge import _flow
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
    from collections.abc import AsyncIterator

T = TypeVar("T")

_GRACE = 0.05
"""Seconds that the timeouts of httpx have to speak first: they say more, and clean up more."""
_TURNS = 5
"""Turns of the event loop in which a task hears of its timeout, cleans up, and is done."""


class AsyncDriver:
    """Carries flows out on asyncio; belongs to one event loop."""

    def __init__(self, http_client: httpx.AsyncClient | None) -> None:
        if http_client is not None and not isinstance(cast("object", http_client), httpx.AsyncClient):
            raise ConfigurationError(
                f"http_client: must be an httpx.AsyncClient, not {type(http_client).__name__}"
            )
        self._given = http_client
        self._own: dict[str, httpx.AsyncClient] = {}
        self._closed = asyncio.Event()
        self.running: set[asyncio.Timeout] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, flow: _flow.Flow[T]) -> T:
        """Run a flow to its end."""
        self._check_loop()
        stream = _AsyncStream(self)
        step = _flow.Step(flow)
        try:
            while True:
                try:
                    command = step()
                except StopIteration as stop:
                    return cast("T", stop.value)
                try:
                    step = _flow.Step(flow, await self._carry_out(command, stream))
                except BaseException as error:  # noqa: BLE001 - all of it belongs to the flow
                    step = _flow.Step(flow, error=error)
        finally:
            await stream.close()

    def _check_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise ConfigurationError(
                "this client belongs to another event loop; build one AsyncTechForge for each loop"
            )

    async def _carry_out(self, command: _flow.Command, stream: _AsyncStream) -> object:
        result: object = None
        match command:
            case _flow.Send():
                result = await self._send(command)
            case _flow.Open():
                result = await stream.open(command)
            case _flow.Read():
                result = await stream.read(command.timeout)
            case _flow.Close():
                await stream.close()
            case _flow.Sleep():
                await self._sleep(command.seconds)
            case _flow.Invoke():
                result = await self._invoke(command)
            case _flow.Block():
                result = await self._block(command)
            case _:
                raise TypeError(f"no driver knows {type(command).__name__}")
        return result

    async def _invoke(self, command: _flow.Invoke) -> object:
        result = command.function(*command.arguments)
        if inspect.isawaitable(result):
            async with asyncio.timeout(command.timeout):
                return await result
        return result

    async def _block(self, command: _flow.Block) -> object:
        work = asyncio.ensure_future(asyncio.to_thread(command.function, *command.arguments))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            # A thread cannot be cancelled, and the flow must not clean up under its hands.
            await asyncio.wait([work])
            raise

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._closed.wait()
        except TimeoutError:
            return
        raise ConfigurationError(CLOSED)

    async def _send(self, command: _flow.Send) -> object:
        facade = _AsyncFacade(command, self, ours=self._given is None)
        answer = problem = None
        try:
            answer = await command.call.endpoint.asyncio_detailed(**facade.arguments)
        except TechForgeError:
            raise
        except UNREADABLE as error:
            problem = error
        # Outside the except block: the context would show the parser's variables in a traceback.
        return facade.parsed(answer, problem)

    def http(self, purpose: str) -> httpx.AsyncClient:
        """Return the client for a purpose; the one for storage is always ours, and gets no key."""
        if self._closed.is_set():
            raise ConfigurationError(CLOSED)
        if self._given is not None and purpose != "storage":
            return self._given
        if purpose not in self._own:
            try:
                self._own[purpose] = httpx.AsyncClient(verify=tls_context(), limits=LIMITS, mounts={**DIRECT})
            except Exception as error:
                raise ConfigurationError(f"no connections can be set up: {mask(str(error))}") from error
        return self._own[purpose]

    async def close(self) -> None:
        """Close our own connections, and end every wait; a second time does nothing."""
        self._check_loop()
        self._closed.set()
        for running in self.running:
            if not running.expired():
                running.reschedule(asyncio.get_running_loop().time())
        # What runs must notice before its connection goes: afterwards its error would be an odd one.
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        while self._own:
            _, client = self._own.popitem()
            await client.aclose()


class _AsyncFacade(Facade):
    def __init__(self, command: _flow.Send, driver: AsyncDriver, *, ours: bool) -> None:
        super().__init__(command, ours=ours)
        self._driver = driver
        self._http = driver.http("api" if command.call.repeatable else "submit")

    async def request(self, **kwargs: Any) -> Reply:
        if self._http.is_closed:
            raise ConfigurationError(CLOSED)
        response, body = None, Body(self.deadline)
        running = asyncio.timeout(self._command.timeout + _GRACE)
        try:
            request = self.build(**kwargs)
            async with running:
                self._driver.running.add(running)
                response = await self._http.send(request, stream=True, follow_redirects=False)
                try:
                    await body.aread(response)
                finally:
                    await response.aclose()
        except Exception as error:
            if response is None and not isinstance(error, NETWORK_ERRORS):
                raise  # a hook's, or a bug of a transport's
            failure = self.broken(error, response, body)
        else:
            return self.accept(response, body.content())
        finally:
            self._driver.running.discard(running)
        # Outside the except block: the error of httpx holds the request, and with it the key.
        raise failure


class _AsyncStream:
    """What a flow has opened from storage; one at a time."""

    def __init__(self, driver: AsyncDriver) -> None:
        self._driver = driver
        self._response: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes]

    async def open(self, command: _flow.Open) -> _flow.Opened:
        await self.close()
        started = time.monotonic()
        try:
            request = storage_request(command)
            async with asyncio.timeout(command.timeout + _GRACE):
                response = await self._driver.http("storage").send(
                    request, stream=True, follow_redirects=False
                )
        except NETWORK_ERRORS as error:
            failure = no_answer(error, method="GET", path=mask(command.url))
        else:
            self._response, self._chunks = response, response.aiter_raw()
            return opened(response, started)
        raise failure

    async def read(self, timeout: float) -> bytes:
        try:
            async with asyncio.timeout(timeout):
                return await anext(self._chunks, b"")
        except NETWORK_ERRORS as error:
            failure = no_answer(error, method="GET", path="storage")
        raise failure

    async def close(self) -> None:
        if self._response is not None:
            await self._response.aclose()
            self._response = None
