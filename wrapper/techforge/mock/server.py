"""The mock server: both origins, in a thread of their own or in a running event loop."""

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
from techforge.mock.worker import Workers
from techforge.models import Job
from techforge.tracking import JobState

if TYPE_CHECKING:
    # In the standard library from Python 3.12 on only, and needed by type checkers only.
    from typing_extensions import override
else:

    def override(method: Callable[..., object]) -> Callable[..., object]:
        """Mark nothing."""
        return method


_KEEP_ALIVE_SECONDS = 30
_TURNS = 5


class MockServer:
    """A mock of the API and of its storage, on two ports.

    Use it as a context manager, which runs it in a thread:

        with MockServer(job_looks=0) as server:
            httpx.post(f"{server.url}/jobs/v2", headers={"x-api-key": server.api_key}, json=...)
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        storage_port: int = 0,
        job_seconds: float = 2.0,
        job_looks: int | None = None,
        render: bool = True,
        faults: Iterable[Fault | str] = (),
        ttl: float = 300.0,
        api_keys: Sequence[str] = (TEST_API_KEY,),
        latency: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.api_key = api_keys[0]
        self.faults = Faults()
        self.faults.add(*faults)
        self.journal = Journal()
        self._workers = Workers()
        self.store = Store(
            pace=Pace(job_seconds, job_looks),
            start_render=self._workers.submit if render else _no_render,
            output_path=contract().output_path,
            clock=clock,
            wall_clock=wall_clock,
        )
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
        """The base URL of the API, once the server runs."""
        return self._url(0)

    @property
    def storage_url(self) -> str:
        """The base URL of storage, once the server runs."""
        return self._url(1)

    @property
    def environ(self) -> dict[str, str]:
        """The environment in which a `TechForge()` without arguments is a client of this server."""
        return {API_KEY_VARIABLE: self.api_key, BASE_URL_VARIABLE: self.url}

    @property
    def tracker(self) -> "MockTracker":
        """What knows where a job stands, also that it has failed: `jobs.wait(job, tracker=mock.tracker)`."""
        return MockTracker(self.store)

    @property
    def async_tracker(self) -> "AsyncMockTracker":
        """The same for an `AsyncTechForge`."""
        return AsyncMockTracker(self.store)

    def next_job(
        self,
        *,
        looks: int | None = None,
        seconds: float | None = None,
        fails: str | None = None,
        video: bytes | None = None,
    ) -> None:
        """Say what becomes of the job that is accepted next; called again, of the one after that.

        It takes so many looks, or seconds; then it fails for the reason given, or its video is these bytes.
        What is not said is as for all jobs.
        """
        if fails is not None and video is not None:
            raise ValueError("next_job: a job that fails has no video; say fails=… or video=…")
        if looks is not None and seconds is not None:
            raise ValueError("next_job: a job takes looks or seconds; say one of them")
        as_all = looks is None and seconds is None
        pace = None if as_all else Pace(seconds or 0.0, looks)
        self.store.plans.append(Plan(pace, video, fails))

    def reset(self) -> None:
        """Forget all jobs, planned ones too, what is in storage, the faults and the journal."""
        self._reset()

    def __enter__(self) -> Self:
        """Start, and return when both origins answer."""
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
        """Stop, and return when nothing is left of the server."""
        self._stop()
        self._stop = lambda: None
        if self._thread:
            self._thread.join()

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[Self]:
        """Serve in the running event loop for as long as the context lasts."""
        api, storage = self._gates
        apps: tuple[ASGIApp, ASGIApp] = (Cors(api), storage)
        async with AsyncExitStack() as stack:
            stack.callback(self._workers.close)
            self._urls = [
                await stack.enter_async_context(_listening(app, self._host, port))
                for app, port in zip(apps, self._ports, strict=True)
            ]
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
            # The thread that waits for the start is the one to hear of it.
            started.set_exception(error)

    def _url(self, index: int) -> str:
        if not self._urls:
            raise RuntimeError("the mock server has no URL before it runs: use it as a context manager")
        return self._urls[index]


@frozen
class MockTracker:
    """A `Tracker` that asks the mock; the look counts."""

    _store: Store = field(repr=False)

    def check(self, job: Job) -> JobState | None:
        """Return where the job stands."""
        view = self._store.look_at_job(job.id)
        return JobState(view.status, view.message, view.output_path) if view else None


@frozen
class AsyncMockTracker:
    """An `AsyncTracker` that asks the mock; the look counts."""

    _store: Store = field(repr=False)

    async def check(self, job: Job) -> JobState | None:
        """Return where the job stands."""
        return MockTracker(self._store).check(job)


class _Protocol(H11Protocol):
    """HTTP/1.1 that lets the app at its connection: a fault may have to cut it."""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.access_log = False
        self.app_state = {**self.app_state, "transport": transport}
        super().connection_made(cast("asyncio.Transport", transport))


@asynccontextmanager
async def _listening(app: ASGIApp, host: str, port: int) -> AsyncGenerator[str]:
    """Serve an app at an address, and give its URL.

    uvicorn's own `Server` would take the signals over, and look for its end every tenth of a second
    only. Its protocol is all that is needed here.
    """

    async def stoppable(scope: Scope, receive: Receive, send: Send) -> None:
        # Cancelled when the server stops; uvicorn would log that as a failure of the app.
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
        # A name such as localhost may mean two addresses: with two free ports there would be two URLs.
        family=socket.AF_INET6 if ":" in host else socket.AF_INET,
        backlog=1024,
    )
    try:
        yield _url_of(listener.sockets[0])
    finally:
        listener.close()
        # What was accepted just before is announced in one of the loop's next turns, and what is aborted is
        # closed in another.
        for _ in range(_TURNS):
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


def _operation_of(method: str, path: str) -> str | None:
    operation = contract().find(method, path)
    return operation.id if operation else None


def _no_render(_request: Mapping[str, Any]) -> "Future[bytes]":
    ready: Future[bytes] = Future()
    ready.set_result(tiny_video())
    return ready
