"""Deadlines and `close` cover name resolution, connecting and the TLS handshake."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from support.servers import Server, Stopwatch

from techforge import APIError, APITimeoutError, AsyncTechForge, ConfigurationError, Outcome, TechForge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from techforge.mock import MockServer

NAME = "http://api.example:80"
TIMEOUT = 0.6


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """Return an event that lets a name lookup continue. It is set at the end of the test."""
    event = threading.Event()
    yield event
    event.set()


def resolve(patch: pytest.MonkeyPatch, client: Any, colour: str, lookup: Callable[[], list[Any]]) -> None:
    """Let a function, which may block, resolve `api.example`."""
    intact = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        return lookup() if host in {"api.example", b"api.example"} else intact(host, *args, **kwargs)

    async def getaddrinfo_async(*args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(getaddrinfo, *args, **kwargs)

    patch.setattr(socket, "getaddrinfo", getaddrinfo)
    if colour == "async":
        # uvloop does not resolve names with Python's socket module.
        patch.setattr(client._runner.get_loop(), "getaddrinfo", getaddrinfo_async)


def at(*ports: int) -> list[Any]:
    """Return addresses of this machine in the form of a lookup's result."""
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]


def assert_late(client: Any, media: dict[str, str], stopwatch: Stopwatch) -> None:
    """Submit a job: the call ends at its deadline, and nothing can have been sent."""
    with stopwatch, pytest.raises(APITimeoutError) as caught:
        client.jobs.create(**media)
    assert (caught.value.outcome, caught.value.job_may_exist) == (Outcome.NOT_SENT, False)
    assert TIMEOUT - 0.1 < stopwatch.seconds < TIMEOUT + 0.9


def test_silent_addresses_share_the_deadline(
    connect: Callable[..., Any],
    colour: str,
    media: dict[str, str],
    silent_port: int,
    monkeypatch: pytest.MonkeyPatch,
    stopwatch: Stopwatch,
) -> None:
    """Six addresses that do not respond take no longer than one."""
    client = connect("key", base_url=NAME, allow_http=True, timeout=TIMEOUT, max_retries=0)
    resolve(monkeypatch, client, colour, lambda: at(*[silent_port] * 6))
    assert_late(client, media, stopwatch)


def test_a_slow_lookup_ends_at_the_deadline(
    connect: Callable[..., Any],
    colour: str,
    media: dict[str, str],
    released: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
    stopwatch: Stopwatch,
) -> None:
    """A call ends in time even if the resolver has no timeout."""
    client = connect("key", base_url=NAME, allow_http=True, timeout=TIMEOUT, max_retries=0)
    resolve(monkeypatch, client, colour, lambda: [released.wait(5)][1:])
    assert_late(client, media, stopwatch)
    released.set()


def test_a_silent_address_costs_a_quarter_of_a_second(
    connect: Callable[..., Any],
    colour: str,
    mock: MockServer,
    media: dict[str, str],
    silent_port: int,
    closed_port: int,
    monkeypatch: pytest.MonkeyPatch,
    stopwatch: Stopwatch,
) -> None:
    """The next address is tried after 0.25 s, or at once after a refusal. One job is submitted."""
    client = connect(mock.api_key, base_url=NAME, allow_http=True)
    ports = closed_port, silent_port, int(mock.url.rpartition(":")[2])
    resolve(monkeypatch, client, colour, lambda: at(*ports))
    with stopwatch:
        client.jobs.create(**media)
    assert 0.2 < stopwatch.seconds < 1
    assert mock.journal.count(operation="createJob") == 1


def test_addresses_that_fail_say_why(
    connect: Callable[..., Any],
    colour: str,
    media: dict[str, str],
    closed_port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error has the system's reason, and the job was not sent."""
    client = connect("key", base_url=NAME, allow_http=True, max_retries=0)
    resolve(monkeypatch, client, colour, lambda: at(closed_port, closed_port))
    with pytest.raises(APIError, match=r"cannot connect to api\.example:80 .*Errno") as caught:
        client.jobs.create(**media)
    assert caught.value.outcome is Outcome.NOT_SENT


# --- closing ---------------------------------------------------------------------------------------


def silent(server: Server, _connection: socket.socket) -> None:
    """Send nothing: no TLS handshake, no response to a CONNECT or a request."""
    server.hang(30)


WAITS = ["a lookup", "a silent address", "a TLS handshake", "a tunnel", "an answer"]


@pytest.mark.parametrize("wait", WAITS)
def test_closing_ends_every_wait(
    wait: str,
    media: dict[str, str],
    silent_port: int,
    released: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`close` returns at once, and the waiting thread ends within a few tenths of a second."""
    lookup: Callable[[], list[Any]] = lambda: at(silent_port)  # noqa: E731
    if wait == "a lookup":
        lookup = lambda: [released.wait(5)][1:]  # noqa: E731
    resolve(monkeypatch, None, "sync", lookup)
    with Server(silent) as server:
        base_url = {
            "a TLS handshake": server.url.replace("http:", "https:"),
            "a tunnel": "https://api.example",
            "an answer": server.url,
        }.get(wait, NAME)
        if wait == "a tunnel":
            monkeypatch.setenv("HTTPS_PROXY", server.url)
        client = TechForge("key", base_url=base_url, allow_http=True, timeout=20)
        ended: list[tuple[str, float]] = []

        def work() -> None:
            try:
                client.jobs.create(**media)  # type: ignore[arg-type]
            except Exception as error:  # noqa: BLE001 - its kind is judged below
                ended.append((type(error).__name__, time.monotonic()))

        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(0.3)
        closed_at = time.monotonic()
        client.close()
        assert time.monotonic() - closed_at < 0.1
        thread.join()
        released.set()
    ((kind, ended_at),) = ended
    assert ended_at - closed_at < 0.5
    assert kind == ("JobOutcomeUnknownError" if wait == "an answer" else ConfigurationError.__name__)


@pytest.mark.parametrize("wait", ["a silent address", "a TLS handshake"])
async def test_closing_ends_every_wait_of_tasks(wait: str, media: dict[str, str], silent_port: int) -> None:
    """The same on asyncio."""
    with Server(silent) as server:
        secure = server.url.replace("http:", "https:")
        base_url = secure if wait == "a TLS handshake" else f"http://127.0.0.1:{silent_port}"
        client = AsyncTechForge("key", base_url=base_url, timeout=20)
        task = asyncio.create_task(client.jobs.create(**media))  # type: ignore[arg-type]
        await asyncio.sleep(0.2)
        closed_at = time.monotonic()
        await client.close()
        with pytest.raises(ConfigurationError):
            await task
        assert time.monotonic() - closed_at < 0.5
