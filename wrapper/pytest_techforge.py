"""Fixtures for your own tests: a mock of the API, and clients of it. `pip install 'techforge[mock]'`.

    def test_my_job_code(techforge_mock):
        techforge_mock.faults.add("status=503;operation=createJob")
        my_code.make_video()  # its TechForge() is a client of the mock
        assert techforge_mock.journal.count(operation="createJob") == 2

pytest loads this module in every run, also if no test uses techforge. So it is outside the package, whose
import takes time, and imports nothing before a fixture is used.
"""

from __future__ import annotations

import sys
import time
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from techforge import AsyncTechForge, TechForge
    from techforge.mock import MockServer
    from techforge.testing import Clock

# ruff: noqa: PLC0415

_MARK = "techforge_mock"


def _mock_server(**options: Any) -> MockServer:
    """Return a mock whose jobs are done immediately, unless the options change that."""
    try:
        from techforge.mock import MockServer
    except ImportError as error:
        # The message says what to install, so the traceback is not needed.
        pytest.fail(str(error), pytrace=False)
    usual: dict[str, Any] = {"render": False}
    if "job_seconds" not in options:
        usual["job_polls"] = 0
    try:
        return MockServer(**(usual | options))
    except TypeError as error:
        pytest.fail(f"@pytest.mark.{_MARK}: {error}", pytrace=False)


@pytest.fixture
def techforge_clock() -> Clock:
    """The clock of the mock and of both clients. It follows real time, and skips the sleeps of clients.

    `techforge_clock.sleeps` lists the skipped sleeps.
    """
    from techforge.testing import Clock

    return Clock(time.monotonic)


@pytest.fixture
def techforge_mock(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, techforge_clock: Clock
) -> Iterator[MockServer]:
    """A mock of the API on a free port, for one test. Jobs are done immediately, and nothing is rendered.

    It sets `TFI_API_KEY` and `TFI_BASE_URL` for the test, so a `TechForge()` in your code uses the mock
    instead of the live API. To change the server's options, use
    `@pytest.mark.techforge_mock(render=True, job_seconds=5)`.
    """
    marks = reversed(list(request.node.iter_markers(_MARK)))
    options = {name: value for mark in marks for name, value in mark.kwargs.items()}
    with _mock_server(**{"clock": techforge_clock, **options}) as mock:
        for name, value in mock.environ.items():
            monkeypatch.setenv(name, value)
        yield mock


@pytest.fixture(scope="session")
def techforge_mock_session() -> Iterator[MockServer]:
    """A mock of the API for the whole session, for example for your own server: pass it `environ`.

    It sets no environment variable, and keeps the state of all tests until you call `reset()`.
    """
    with _mock_server() as mock:
        yield mock


@pytest.fixture
def techforge_client(techforge_mock: MockServer, techforge_clock: Clock) -> Iterator[TechForge]:
    """A sync client of `techforge_mock`, whose sleeps take no time."""
    from techforge.testing.clock import client_with

    with client_with(techforge_clock, techforge_mock.api_key, base_url=techforge_mock.url) as client:
        yield client


@pytest.fixture
def _techforge_async_test(request: pytest.FixtureRequest) -> None:
    """Fail with clear advice if no plugin would run the async fixture; pytest's own message is unclear."""
    if _pytest_asyncio() is None and "anyio_backend" not in request.fixturenames:
        pytest.fail(
            "techforge_async_client needs the event loop of an async test: mark the test with "
            "@pytest.mark.anyio (anyio comes with techforge), or pip install pytest-asyncio",
            pytrace=False,
        )


async def _async_client(
    _techforge_async_test: None, techforge_mock: MockServer, techforge_clock: Clock
) -> AsyncIterator[AsyncTechForge]:
    """An async client of `techforge_mock`, whose sleeps take no time."""
    from techforge.testing.clock import async_client_with

    async with async_client_with(
        techforge_clock, techforge_mock.api_key, base_url=techforge_mock.url
    ) as client:
        yield client


def _pytest_asyncio() -> Any:
    # If it is active, pytest has loaded it already.
    return sys.modules.get("pytest_asyncio")


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark, and the async fixture with the plugin that runs async tests."""
    config.addinivalue_line("markers", f"{_MARK}(**options): the options of `techforge_mock`")
    fixture: Any = getattr(_pytest_asyncio(), "fixture", pytest.fixture)
    found = ModuleType("pytest_techforge_async")
    vars(found)["techforge_async_client"] = fixture(_async_client, name="techforge_async_client")
    config.pluginmanager.register(found)
