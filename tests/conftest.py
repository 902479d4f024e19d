"""What all tests share: a clean environment, a mock server, and one client in either colour."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import socket
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from attrs import evolve
from support.contract_guard import ContractGuard, watching
from support.postgres import postgres
from support.secret_guard import CANARY, SEARCHED, SecretGuard, keeping, seen_in
from support.servers import Scripted, Stopwatch

from techforge import AsyncTechForge, TechForge
from techforge._async.jobs import AsyncJobs
from techforge._async.storage import AsyncStorage
from techforge._session import client_of, session_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator

    from support.servers import Script

    from techforge import Job
    from techforge.mock import MockServer

MEDIA = {
    "image_url": "https://cdn.example.com/image.png",
    "audio_url": "https://cdn.example.com/audio.mp3",
}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Hide the developer's key, base URL, proxies and journals of campaigns from a test."""
    # Only campaigns create it.
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / f"state-{uuid4()}"))
    for name in list(os.environ):
        if name.startswith("TFI_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """Return the URL of a PostgreSQL server."""
    with postgres() as url:
        yield url


HELD = Counter({"requests": 0, "answers": 0, "lies": 0})
"""What all tests together have sent and were answered."""


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks that the guards obey, and let signals reach the programs that tests start."""
    # A shell's background jobs ignore SIGINT, and nohup SIGHUP, and so does all that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if os.environ.get("TECHFORGE_TEST_LOOP") == "uvloop":
        _use_uvloop()
    config.addinivalue_line("markers", "lying(why): answers break the contract, as they are meant to")
    config.addinivalue_line("markers", "leaking(why): the key gets out, as the wrapper is broken on purpose")
    config.addinivalue_line("markers", "undeclared(*fields): sent on purpose as the contract has them not")


def _use_uvloop() -> None:
    """Let every event loop be uvloop's: of async tests, of fixtures, and of `asyncio.run` in any thread."""
    import uvloop  # noqa: PLC0415 - it is not there on Windows and PyPy

    with warnings.catch_warnings():
        # Python 3.14 deprecates policies; nothing else reaches the loops that the tested code makes itself.
        warnings.simplefilter("ignore", DeprecationWarning)
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())


@pytest.fixture(autouse=True)
def guard(request: pytest.FixtureRequest) -> Iterator[ContractGuard]:
    """Watch what the wrapper sends and is answered; what breaks the contract fails the test.

    An answer may break it in a test marked `@pytest.mark.lying("why")`, and then one must; the mark of a
    module only says that they may. `@pytest.mark.undeclared("field", …)` names fields that are sent on
    purpose as the contract does not have them, and must be sent then.
    """
    undeclared = (name for mark in request.node.iter_markers("undeclared") for name in mark.args)
    with watching(ContractGuard(frozenset(undeclared))) as guard:
        yield guard
    HELD.update(requests=len(guard.requests), answers=guard.answers, lies=len(guard.lies))


@pytest.fixture(autouse=True)
def _no_secret_gets_out(request: pytest.FixtureRequest) -> Iterator[None]:
    """Search what each test brings about for the mock's key and signatures: nothing may hold them.

    Every log line at DEBUG, result, error with its pickle and its traceback's variables, and file. Only a
    test that breaks the wrapper on purpose is `@pytest.mark.leaking("why")`.
    """
    folder = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    with keeping(SecretGuard()) as guard:
        yield
    if folder is not None:
        guard.look("folders", seen_in(folder))
    if not request.node.get_closest_marker("leaking"):
        assert guard.found == []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Ask the guard when a test is over, and let it fail the test rather than its teardown."""
    guard = item.funcargs["guard"]
    try:
        result = yield
    except BaseException as error:
        for problem in guard.problems:
            error.add_note(f"Against the contract: {problem}")
        raise
    guard.missed()
    lying = item.get_closest_marker("lying")
    guard.verify(may_lie=lying is not None, must_lie=lying in item.own_markers)
    return result


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the process that started this one what was counted here."""
    if (told := getattr(session.config, "workeroutput", None)) is not None:
        told["counts"] = dict(HELD), dict(SEARCHED)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add up what was counted in the processes that ran the tests."""
    held, searched = getattr(node, "workeroutput", {}).get("counts", ({}, {}))
    HELD.update(held)
    SEARCHED.update(searched)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how much was held to the contract."""
    if any(HELD.values()):
        said = "held to openapi.json: {requests} requests and {answers} answers, {lies} lies on purpose"
        terminalreporter.write_line(said.format(**HELD))
    searched = ", ".join(f"{count} {what}" for what, count in sorted(SEARCHED.items()))
    terminalreporter.write_line(f"searched for the key and signatures: {searched}")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Search what a test has printed, which pytest hands out last of all."""
    guard = SecretGuard()
    guard.look("outputs", report.capstdout + report.capstderr)
    if report.passed and guard.found:
        raise AssertionError(f"{report.nodeid} prints a secret: {guard.found}")


@pytest.fixture
def mock() -> Iterator[MockServer]:
    """Return a mock server of the test's own: one starts in five milliseconds, and forgets nothing of it."""
    from techforge.mock import TEST_API_KEY, MockServer  # noqa: PLC0415 - tests that need no mock need no [mock] extra

    with MockServer(job_polls=0, render=False, api_keys=[CANARY, TEST_API_KEY]) as server:
        yield server


@pytest.fixture
def client(mock: MockServer) -> Iterator[TechForge]:
    """Return a client of the mock, with blocking calls."""
    with TechForge(mock.api_key, base_url=mock.url) as client:
        yield client


@pytest.fixture
async def async_client(mock: MockServer) -> AsyncIterator[AsyncTechForge]:
    """Return a client of the mock, for asyncio."""
    async with AsyncTechForge(mock.api_key, base_url=mock.url) as client:
        yield client


class Blocking:
    """An `AsyncTechForge`, or a part of one, called as if it were the sync one.

    It is what lets a test be written once: its body calls `client.jobs.create(...)` in both colours.
    """

    def __init__(self, target: object, runner: asyncio.Runner) -> None:
        """Run the target's coroutines on the runner's loop."""
        self._target = target
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        return self._wrapped(getattr(self._target, name))

    def _wrapped(self, value: Any) -> Any:
        if isinstance(value, AsyncTechForge | AsyncJobs | AsyncStorage):
            return Blocking(value, self._runner)
        if inspect.iscoroutine(value):
            return self._runner.run(value)
        if inspect.ismethod(value):
            return lambda *args, **kwargs: self._wrapped(value(*args, **kwargs))
        return value


@pytest.fixture(params=["sync", "async"])
def colour(request: pytest.FixtureRequest) -> str:
    """Name the colour that the test runs in."""
    return request.param


@pytest.fixture
def connect(colour: str) -> Iterator[Callable[..., Any]]:
    """Return a function that builds a client in the test's colour, called with blocking calls either way.

    Its retries follow at once (no jitter means no backoff), so that tests need not sleep; a pause that the
    server asks for is kept.
    """
    with asyncio.Runner() as runner:
        clients: list[Any] = []

        def connect(*args: Any, **options: Any) -> Any:
            kind = TechForge if colour == "sync" else AsyncTechForge
            session: Any = session_of(kind(*args, **options))
            settings = evolve(session.settings, random=lambda: 0.0)
            client: Any = client_of(kind, evolve(session, settings=settings))
            clients.append(client if colour == "sync" else Blocking(client, runner))
            return clients[-1]

        yield connect
        for client in clients:
            client.close()


@pytest.fixture
def both(connect: Callable[..., Any], mock: MockServer) -> Any:
    """Return a client of the mock in the test's colour."""
    return connect(mock.api_key, base_url=mock.url)


@pytest.fixture
def media() -> dict[str, str]:
    """Return the two arguments that every job needs."""
    return dict(MEDIA)


@pytest.fixture
def done(mock: MockServer) -> Job:
    """Return a job whose video, 300,000 bytes, is in the mock's storage."""
    from techforge import Job  # noqa: PLC0415

    job = Job("15a6331b-3837-4ae8-8fa7-d3ead3388d77", "468ea7a0-66e1-4357-a760-236e54167f3e", "done")
    mock.store.put(job.output_path, bytes(range(250)) * 1200)
    return job


@pytest.fixture
def scripted() -> Iterator[Callable[[Script], Scripted]]:
    """Return a function that starts a `Scripted` server, which stops with the test."""
    running: list[Scripted] = []

    def start(answer: Script) -> Scripted:
        running.append(Scripted(answer).__enter__())
        return running[-1]

    yield start
    for server in running:
        server.__exit__()


@pytest.fixture
def closed_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture
def stopwatch() -> Stopwatch:
    """Return what measures a block of a test."""
    return Stopwatch()
