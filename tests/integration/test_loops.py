"""Event loops: asyncio and uvloop work, others get one clear error."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

from techforge import (
    APIConnectionError,
    APITimeoutError,
    AsyncTechForge,
    ConfigurationError,
    Outcome,
    TechForge,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from techforge import Job
    from techforge.mock import MockServer

UVLOOP = os.environ.get("TECHFORGE_TEST_LOOP") == "uvloop"


def uvloop_factory() -> asyncio.AbstractEventLoop:
    """Return a loop of uvloop, if it is installed."""
    loop: asyncio.AbstractEventLoop = pytest.importorskip("uvloop").new_event_loop()
    return loop


@pytest.fixture(params=[asyncio.SelectorEventLoop, uvloop_factory], ids=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    """Return a runner on each kind of loop."""
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner


async def test_async_tests_run_on_the_chosen_loop() -> None:
    """`TECHFORGE_TEST_LOOP=uvloop` selects the loop of the async tests."""
    assert (type(asyncio.get_running_loop()).__module__ == "uvloop") is UVLOOP


@pytest.mark.parametrize("colour", ["async"], indirect=True)
def test_all_other_loops_are_the_chosen_one(connect: Callable[..., Any], mock: MockServer) -> None:
    """It also selects the loop of fixtures, and of code that creates its own loop."""
    loops = [connect(mock.api_key, base_url=mock.url)._runner.get_loop(), asyncio.new_event_loop()]
    loops[1].close()
    assert {type(loop).__module__ == "uvloop" for loop in loops} == {UVLOOP}


def test_a_job_is_submitted_on_every_loop(
    runner: asyncio.Runner, mock: MockServer, media: dict[str, str], tmp_path: Path
) -> None:
    """A job is submitted once, polled and downloaded, also if the host is a name."""

    async def use(base_url: str) -> Path:
        async with AsyncTechForge(mock.api_key, base_url=base_url) as client:
            job = await client.jobs.create(**media)  # type: ignore[arg-type]
            video = await client.jobs.wait(job, poll=0.02, timeout=5)
            return await client.jobs.download(video, tmp_path, overwrite=True)

    for count, host in enumerate(["127.0.0.1", "localhost"], start=1):
        assert runner.run(use(mock.url.replace("127.0.0.1", host))).stat().st_size > 0
        assert mock.journal.count(operation="createJob") == count


# --- several addresses ----------------------------------------------------------------------------


def resolve_to(runner: asyncio.Runner, *addresses: tuple[int, tuple[Any, ...]]) -> None:
    """Let `api.example` have these addresses on the runner's loop."""
    loop = runner.get_loop()
    resolve = loop.getaddrinfo

    async def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host != "api.example":
            return await resolve(host, *args, **kwargs)
        return [(family, socket.SOCK_STREAM, 6, "", address) for family, address in addresses]

    loop.getaddrinfo = getaddrinfo  # type: ignore[method-assign]


def here(port: int) -> tuple[int, tuple[Any, ...]]:
    """Return an address of this machine."""
    return socket.AF_INET, ("127.0.0.1", port)


def port_of(mock: MockServer) -> int:
    """Return the mock's port."""
    return int(mock.url.rpartition(":")[2])


async def submit(mock: MockServer, media: dict[str, str], **options: Any) -> Job:
    """Submit a job to the mock, whose host is a name."""
    base_url = f"http://api.example:{port_of(mock)}"
    async with AsyncTechForge(mock.api_key, base_url=base_url, allow_http=True, **options) as client:
        return await client.jobs.create(**media)  # type: ignore[arg-type]


def test_a_silent_address_does_not_block(
    runner: asyncio.Runner, mock: MockServer, media: dict[str, str], silent_port: int
) -> None:
    """The next address is tried after 0.25 s on every loop, and the job is submitted once."""
    resolve_to(runner, here(silent_port), here(port_of(mock)))
    started = time.monotonic()
    runner.run(submit(mock, media))
    assert 0.2 < time.monotonic() - started < 2
    assert mock.journal.count(operation="createJob") == 1


def test_an_address_that_refuses_costs_no_time(
    runner: asyncio.Runner, mock: MockServer, media: dict[str, str], closed_port: int
) -> None:
    """After a refusal, the next address is tried at once."""
    resolve_to(runner, *[here(closed_port)] * 4, here(port_of(mock)))
    started = time.monotonic()
    runner.run(submit(mock, media))
    assert time.monotonic() - started < 0.25
    assert mock.journal.count(operation="createJob") == 1


def test_the_address_families_alternate(
    runner: asyncio.Runner, mock: MockServer, media: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If one family has many addresses and does not work, the other family is tried second."""
    from techforge._drivers import aio_streams  # noqa: PLC0415

    no_route = [(socket.AF_INET6, (f"2001:db8::{number}", 80, 0, 0)) for number in range(1, 8)]
    resolve_to(runner, *no_route, here(port_of(mock)))
    tried: list[Any] = []
    connect_to = aio_streams._connect_to

    async def noted(address: Any) -> socket.socket:
        tried.append(address[0])
        if address[0] == socket.AF_INET6:
            raise OSError("no route")
        return await connect_to(address)

    monkeypatch.setattr(aio_streams, "_connect_to", noted)
    runner.run(submit(mock, media))
    assert tried == [socket.AF_INET6, socket.AF_INET]


def test_every_address_refuses(
    runner: asyncio.Runner, mock: MockServer, media: dict[str, str], closed_port: int
) -> None:
    """The job was not sent, and no socket stays open."""
    resolve_to(runner, here(closed_port), here(closed_port))
    with pytest.raises(APIConnectionError, match="cannot connect") as caught:
        runner.run(submit(mock, media, max_retries=0))
    assert caught.value.outcome is Outcome.NOT_SENT
    assert mock.journal.count() == 0


def test_no_address_responds_in_time(
    runner: asyncio.Runner, mock: MockServer, media: dict[str, str], silent_port: int
) -> None:
    """The job was not sent, and no socket stays open."""
    resolve_to(runner, here(silent_port), here(silent_port))
    with pytest.raises(APITimeoutError) as caught:
        runner.run(submit(mock, media, max_retries=0, timeout=0.4))
    assert caught.value.outcome is Outcome.NOT_SENT
    assert mock.journal.count() == 0


# --- other loops ----------------------------------------------------------------------------------

CALLS: dict[str, Callable[[AsyncTechForge, dict[str, Any]], Any]] = {
    "async with": lambda client, _: client.__aenter__(),
    "create": lambda client, media: client.jobs.create(**media),
    "sign": lambda client, _: client.storage.sign("a/b.mp4"),
    "close": lambda client, _: client.close(),
    "batch": lambda client, media: client.batch.run([media], ledger=":memory:").__anext__(),
}


@pytest.mark.parametrize("call", CALLS)
def test_trio_is_refused(call: str, mock: MockServer, media: dict[str, str]) -> None:
    """Under trio, every call says that it needs asyncio, and what to do instead. Nothing is sent."""
    trio = pytest.importorskip("trio")
    client = AsyncTechForge(mock.api_key, base_url=mock.url)
    with pytest.raises(
        ConfigurationError, match=r"event loop of asyncio.*trio\.to_thread\.run_sync"
    ) as caught:
        trio.run(CALLS[call], client, media)
    assert caught.value.__cause__ is None
    assert mock.journal.count() == 0


@pytest.mark.parametrize("call", CALLS)
def test_no_loop_is_refused(call: str, mock: MockServer, media: dict[str, str]) -> None:
    """A coroutine without an event loop raises the same error."""
    client = AsyncTechForge(mock.api_key, base_url=mock.url)
    with pytest.raises(ConfigurationError, match="needs a running event loop"):
        CALLS[call](client, media).send(None)
    assert mock.journal.count() == 0


def test_the_advice_for_trio_works(client: TechForge, mock: MockServer, media: dict[str, str]) -> None:
    """A `TechForge` in a trio thread submits a job."""
    trio = pytest.importorskip("trio")

    async def main() -> Any:
        return await trio.to_thread.run_sync(lambda: client.jobs.create(**media))  # type: ignore[arg-type]

    assert trio.run(main).status == "queued"
    assert mock.journal.count(operation="createJob") == 1
