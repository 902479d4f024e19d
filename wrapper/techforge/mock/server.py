"""The mock server: API and storage, in a thread or in a running event loop."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from attrs import field, frozen
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from techforge._config import BASE_URL_VARIABLE
from techforge.auth import API_KEY_VARIABLE, TEST_API_KEY
from techforge.mock.app import Api
from techforge.mock.cdn import Cdn
from techforge.mock.contract import contract
from techforge.mock.control import Control
from techforge.mock.cors import Cors
from techforge.mock.faults import STORAGE, Fault, Faults
from techforge.mock.gate import Gate
from techforge.mock.journal import Journal
from techforge.mock.renderer import tiny_video
from techforge.mock.signing import Signer
from techforge.mock.store import Pace, Plan, Store
from techforge.mock.webhook import Webhook
from techforge.mock.worker import Workers
from techforge.models import Job
from techforge.tracking import JobState

if TYPE_CHECKING:
    # Only for type checkers; in the standard library since Python 3.12.
    from typing_extensions import override
else:

    def override(method: Callable[..., object]) -> Callable[..., object]:
        """Return the method unchanged."""
        return method


_KEEP_ALIVE_SECONDS = 30
_LOOP_ITERATIONS = 5


class MockServer:
    """A mock of the API and of its storage, on two ports.

    Use it as a context manager. It runs in a thread:

        with MockServer(job_polls=0) as server:
            httpx.post(f"{server.url}/jobs/v2", headers={"x-api-key": server.api_key}, json=...)
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        storage_port: int = 0,
        job_seconds: float = 2.0,
        job_polls: int | None = None,
        render: bool = True,
        faults: Iterable[Fault | str] = (),
        ttl: float = 300.0,
        api_keys: Sequence[str] = (TEST_API_KEY,),
        latency: float = 0.0,
        webhook: str | None = None,
        webhook_secret: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.api_key = api_keys[0]
        self.faults = Faults()
        self.faults.add(*faults)
        self.journal = Journal()
        self._workers = Workers()
        self.store = Store(
            pace=Pace(job_seconds, job_polls),
            start_render=self._workers.submit if render else _no_render,
            output_path=contract().output_path,
            clock=clock,
            wall_clock=wall_clock,
        )
        self._webhook = Webhook(webhook, webhook_secret) if webhook else None
        self._host = host
        self._ports = (port, storage_port)
        self._urls: list[str] = []
        signer = Signer(ttl, wall_clock)
        api = Api(contract(), self.store, signer, lambda: self.storage_url, api_keys)
        control = Control(self.store, self.faults, self.journal)
        self._reset = control.reset
        self._gates = (
            Gate(api.app(control.routes()), "api", _operation_of, self.faults, self.journal, latency),
            Gate(
                Cdn(self.store, signer),
                "storage",
                lambda _method, _path: STORAGE,
                self.faults,
                self.journal,
                latency,
            ),
        )
        self._thread: threading.Thread | None = None
        self._stop: Callable[[], object] = lambda: None

    @property
    def url(self) -> str:
        """The base URL of the API. The server must be running."""
        return self._url(0)

    @property
    def storage_url(self) -> str:
        """The base URL of storage. The server must be running."""
        return self._url(1)

    @property
    def environ(self) -> dict[str, str]:
        """The environment variables with which `TechForge()` uses this server."""
        return {API_KEY_VARIABLE: self.api_key, BASE_URL_VARIABLE: self.url}

    @property
    def tracker(self) -> "MockTracker":
        """A tracker for the jobs of this server. Use it as `jobs.wait(job, tracker=mock.tracker)`."""
        return MockTracker(self.store)

    @property
    def async_tracker(self) -> "AsyncMockTracker":
        """A tracker for `AsyncTechForge`."""
        return AsyncMockTracker(self.store)

    def next_job(
        self,
        *,
        polls: int | None = None,
        seconds: float | None = None,
        fails: str | None = None,
        video: bytes | None = None,
    ) -> None:
        """Plan the next job. Call this again to plan the job after that.

        The job takes `polls` polls or `seconds` seconds. Then it fails with the reason `fails`, or its video
        is `video`. Omitted arguments are as for all jobs.
        """
        if fails is not None and video is not None:
            raise ValueError("next_job: pass fails=… or video=…, not both: a failed job has no video")
        if polls is not None and seconds is not None:
            raise ValueError("next_job: pass polls=… or seconds=…, not both")
        is_default = polls is None and seconds is None
        pace = None if is_default else Pace(seconds or 0.0, polls)
        self.store.plans.append(Plan(pace, video, fails))

    def reset(self) -> None:
        """Delete all jobs, planned jobs, stored objects, faults and journal entries."""
        self._reset()

    def __enter__(self) -> Self:
        """Start the server. It accepts requests when this returns."""
        started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="techforge-mock", daemon=True)
        self._thread.start()
        started.result()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the server and wait until its thread has ended."""
        self._stop()
        self._stop = lambda: None
        if self._thread:
            self._thread.join()

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[Self]:
        """Serve in the running event loop until the context ends."""
        api, storage = self._gates
        apps: tuple[ASGIApp, ASGIApp] = (Cors(api), storage)
        async with AsyncExitStack() as stack:
            stack.callback(self._workers.close)
            self._urls = [
                await stack.enter_async_context(_listening(app, self._host, port))
                for app, port in zip(apps, self._ports, strict=True)
            ]
            if self._webhook:
                task = asyncio.create_task(self._webhook.run(self.store))
                stack.callback(task.cancel)
            yield self

    def _run(self, started: "Future[None]") -> None:
        async def run() -> None:
            stop = asyncio.Event()
            loop = asyncio.get_running_loop()
            async with self.serving():
                self._stop = lambda: loop.call_soon_threadsafe(stop.set)
                started.set_result(None)
                await stop.wait()

        try:
            asyncio.run(run())
        except BaseException as error:
            if started.done():
                raise
            # Raise it in the thread that waits for the start.
            started.set_exception(error)

    def _url(self, index: int) -> str:
        if not self._urls:
            raise RuntimeError("the mock server is not running: use it as a context manager")
        return self._urls[index]


@frozen
class MockTracker:
    """A `Tracker` for the mock. Each check counts as a poll."""

    _store: Store = field(repr=False)

    def check(self, job: Job) -> JobState | None:
        """Return the status of the job."""
        view = self._store.poll_job(job.id)
        return JobState(view.status, view.message, view.output_path) if view else None


@frozen
class AsyncMockTracker:
    """An `AsyncTracker` for the mock. Each check counts as a poll."""

    _store: Store = field(repr=False)

    async def check(self, job: Job) -> JobState | None:
        """Return the status of the job."""
        return MockTracker(self._store).check(job)


class _Protocol(H11Protocol):
    """HTTP/1.1 that gives the app access to the connection: some faults close it."""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.access_log = False
        self.app_state = {**self.app_state, "transport": transport}
        super().connection_made(cast("asyncio.Transport", transport))


@asynccontextmanager
async def _listening(app: ASGIApp, host: str, port: int) -> AsyncGenerator[str]:
    """Serve an app at an address, and return its URL.

    This uses only uvicorn's protocol: its `Server` would handle signals, and takes up to 0.1 s to stop.
    """

    async def stoppable(scope: Scope, receive: Receive, send: Send) -> None:
        # Requests are cancelled when the server stops. uvicorn would log that as an error of the app.
        with suppress(asyncio.CancelledError):
            await app(scope, receive, send)

    config = Config(
        stoppable,
        log_config=None,
        lifespan="off",
        ws="none",
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
    )
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(
        lambda: _Protocol(config, state, {}, loop),
        host,
        port,
        # A name such as localhost may have two addresses, which would get different free ports.
        family=socket.AF_INET6 if ":" in host else socket.AF_INET,
        backlog=1024,
    )
    try:
        yield _url_of(listener.sockets[0])
    finally:
        listener.close()
        # A new connection is announced in one of the loop's next iterations, and an aborted one is closed
        # in another.
        for _ in range(_LOOP_ITERATIONS):
            for connection in list(state.connections):
                connection.transport.abort()
            await asyncio.sleep(0)
        tasks = list(state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await listener.wait_closed()


def _url_of(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _operation_of(method: str, raw_path: str) -> str | None:
    operation = contract().find(method, raw_path)
    return operation.id if operation else None


def _no_render(_request: Mapping[str, Any]) -> "Future[bytes]":
    ready: Future[bytes] = Future()
    ready.set_result(tiny_video())
    return ready
