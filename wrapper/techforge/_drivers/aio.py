"""Execute flows on asyncio."""

from __future__ import annotations

import asyncio
import inspect
from typing import TypeVar, cast

import httpx

from techforge import _flow
from techforge._drivers import CLOSED
from techforge._drivers.aio_http import AsyncHttp, AsyncStream
from techforge._drivers.deadline import Deadline
from techforge._drivers.response import ReceivedResponse
from techforge._logging import logger
from techforge.errors import ConfigurationError

T = TypeVar("T")

_NO_LOOP = (
    "AsyncTechForge needs a running event loop of asyncio or uvloop, and there is none. "
    "Under trio, use TechForge in a thread: await trio.to_thread.run_sync(...)."
)
_LOOP_ITERATIONS = 5
"""Iterations of the event loop in which a task gets its timeout, cleans up and ends."""


def _noted(cancelled: asyncio.CancelledError, outcome: object) -> asyncio.CancelledError:
    """Add the call's outcome to a cancellation, because the task's result is lost."""
    if isinstance(outcome, Exception):
        note = f"techforge: the call had failed before its task was cancelled: {outcome}"
    else:
        note = f"techforge: the call had succeeded before its task was cancelled: {outcome!r}"
    cancelled.add_note(note)
    if getattr(outcome, "job_may_exist", True):
        # A cancelled task's error is often never seen.
        logger.warning("%s", note)
    return cancelled


class AsyncDriver:
    """Executes flows on asyncio. It belongs to one event loop."""

    def __init__(self, http_client: httpx.AsyncClient | None) -> None:
        if http_client is not None and not isinstance(cast("object", http_client), httpx.AsyncClient):
            raise ConfigurationError(
                f"http_client: must be an httpx.AsyncClient, not {type(http_client).__name__}"
            )
        self._closed = asyncio.Event()
        self.http = AsyncHttp(http_client, self._closed)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, flow: _flow.Flow[T]) -> T:
        """Run a flow to its end."""
        self.check_loop()
        stream = AsyncStream(self.http)
        step = _flow.Step(flow)
        cancelled: asyncio.CancelledError | None = None
        try:
            while True:
                try:
                    command = step()
                except StopIteration as stop:
                    if cancelled is None:
                        return cast("T", stop.value)
                    raise _noted(cancelled, stop.value) from None
                except Exception as error:
                    if cancelled is None:
                        raise
                    raise _noted(cancelled, error) from error
                try:
                    if cancelled is not None:
                        # The flow has the response. Do not start anything new.
                        step, cancelled = _flow.Step(flow, error=cancelled), None
                    elif isinstance(command, _flow.Send) and not command.call.repeatable:
                        sending, cancelled = await self._send_once(command)
                        step = _flow.Step(flow, sending.result())
                    else:
                        step = _flow.Step(flow, await self._carry_out(command, stream))
                except BaseException as error:  # noqa: BLE001 - all of it belongs to the flow
                    step = _flow.Step(flow, error=error)
        finally:
            await stream.close()

    async def _send_once(
        self, command: _flow.Send
    ) -> tuple[asyncio.Task[object], asyncio.CancelledError | None]:
        """Send a request that must not be sent twice. Return its task, and a cancellation in the meantime.

        Once a response has begun to arrive, it is read to its end, since it may name a job. Only the deadline
        and `close` end that. Before the first byte, a cancellation ends the request at once. A byte in the
        socket's buffer counts as arrived.
        """
        received = ReceivedResponse(Deadline.after(command.timeout))
        sending = asyncio.create_task(self.http.send(command, received))
        cancelled: asyncio.CancelledError | None = None
        while not sending.done():
            try:
                if cancelled is None or received.has_begun:
                    await asyncio.wait([sending])
                elif not received.stop_reading():
                    # The event loop has not read from the socket yet.
                    await asyncio.sleep(0)
                else:
                    sending.cancel()
                    await asyncio.wait([sending])
            except asyncio.CancelledError as error:
                # Some frameworks cancel again and again until the task has ended.
                cancelled = cancelled or error
        if cancelled is not None and sending.cancelled():
            raise cancelled
        return sending, cancelled

    def check_loop(self) -> None:
        """Raise an error without asyncio, or on another event loop than the client's."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise ConfigurationError(_NO_LOOP) from None
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise ConfigurationError(
                "this client belongs to another event loop; create one AsyncTechForge for each loop"
            )

    async def _carry_out(self, command: _flow.Command, stream: AsyncStream) -> object:
        result: object = None
        match command:
            case _flow.Send():
                result = await self.http.send(command)
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
            # A thread cannot be cancelled, and the flow must not clean up while it runs.
            await asyncio.wait([work])
            raise

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._closed.wait()
        except TimeoutError:
            return
        raise ConfigurationError(CLOSED)

    async def close(self) -> None:
        """Close the SDK's own connections, and end every wait. Closing again does nothing."""
        self.check_loop()
        self._closed.set()
        self.http.interrupt()
        # Let running calls end before their connections are closed: otherwise they raise confusing errors.
        for _ in range(_LOOP_ITERATIONS):
            await asyncio.sleep(0)
        self.http.close()
        # Transports close their sockets in the next iterations of the loop.
        for _ in range(_LOOP_ITERATIONS):
            await asyncio.sleep(0)
