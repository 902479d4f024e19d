"""Edge cases of connections, processes and proxies that could cost a job or expose a key."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from techforge import AsyncTechForge, ConfigurationError, JobOutcomeUnknownError, TechForge, TechForgeError
from techforge._drivers import aio_http, sync_http

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from techforge import Job
    from techforge.mock import MockServer

JOB_ID = "15a6331b-3837-4ae8-8fa7-d3ead3388d77"
ACCEPTED = json.dumps({"jobId": JOB_ID, "status": "queued"}).encode()


def response(status: str, body: bytes, *headers: str, length: int | None = None) -> bytes:
    """Return a raw response, whose length may be wrong."""
    length = len(body) if length is None else length
    lines = [f"HTTP/1.1 {status}", "content-type: application/json", f"content-length: {length}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def test_each_submission_has_a_connection_of_its_own(
    both: Any, mock: MockServer, done: Job, media: dict[str, str]
) -> None:
    """A new connection tells whether a POST was read; a reused connection does not."""
    for _ in range(3):
        both.storage.sign(done.output_path)
        both.jobs.create(**media)
    asked = [record.headers.get("connection") for record in mock.journal.requests(operation="createJob")]
    assert asked == ["close"] * 3
    pool = both._session.driver.http._pool(mock.url)
    assert [connection.http.info().rpartition(" ")[2] for connection in pool._idle] == ["3"]


def test_a_job_id_in_a_truncated_response_is_kept(
    connect: Callable[..., Any], scripted: Callable[..., Any], media: dict[str, str]
) -> None:
    """The received bytes of a 202 are read, however the response ends."""
    server = scripted(lambda _head, _socket: response("202 Accepted", ACCEPTED[:-10], length=500))
    with pytest.raises(JobOutcomeUnknownError) as caught:
        connect("key", base_url=server.url).jobs.create(**media)
    assert (caught.value.job_id, caught.value.status_code) == (JOB_ID, 202)
    assert len(server.heads) == 1


def test_a_compressed_response_is_read(
    connect: Callable[..., Any], scripted: Callable[..., Any], media: dict[str, str]
) -> None:
    """It was not requested, but it may name a paid job."""
    packed = response("202 Accepted", gzip.compress(ACCEPTED), "content-encoding: gzip")
    server = scripted(lambda _head, _socket: packed)
    assert connect("key", base_url=server.url).jobs.create(**media).id == JOB_ID


@pytest.mark.parametrize("encoding", ["gzip", "gzip, gzip", "br"])
@pytest.mark.lying("answers that unpack to nonsense, or not at all")
def test_a_decompression_bomb(
    connect: Callable[..., Any], scripted: Callable[..., Any], media: dict[str, str], encoding: str
) -> None:
    """Decompression stops at a limit."""
    bomb = gzip.compress(bytes(200_000_000), compresslevel=1)[:900_000]
    server = scripted(lambda _head, _socket: response("202 Accepted", bomb, f"content-encoding: {encoding}"))
    with pytest.raises(JobOutcomeUnknownError):
        connect("key", base_url=server.url).jobs.create(**media)


def test_loopback_is_reached_without_a_proxy(
    connect: Callable[..., Any],
    scripted: Callable[..., Any],
    mock: MockServer,
    media: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Plain http is allowed to loopback only because no proxy is involved."""
    proxy = scripted(lambda _head, _socket: response("202 Accepted", ACCEPTED))
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    for host in ("127.0.0.1", "localhost"):
        client = connect(mock.api_key, base_url=mock.url.replace("127.0.0.1", host))
        client.jobs.wait(client.jobs.create(**media), poll=0.02, timeout=5)
    assert proxy.heads == []


def test_other_machines_are_reached_over_the_proxy(
    connect: Callable[..., Any],
    scripted: Callable[..., Any],
    media: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    stopwatch: Any,
) -> None:
    """Requests to the API use the proxy of the environment, within their deadlines."""

    def serve(head: str, connection: socket.socket) -> bytes | None:
        if "jobs/v2" in head:
            return response("202 Accepted", ACCEPTED)
        proxy.drip(connection, b"HTTP/1.1 200 OK\r\nx: " + b"x" * 100, 0.05)
        return None

    proxy = scripted(serve)
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    client = connect("key", base_url="http://api.invalid", allow_http=True, timeout=0.4, max_retries=0)
    assert client.jobs.create(**media).id == JOB_ID
    assert proxy.heads[0].startswith("POST http://api.invalid/jobs/v2 ")
    with stopwatch, pytest.raises(TechForgeError):
        client.storage.sign("a/b")
    assert stopwatch.seconds < 1


@pytest.mark.parametrize(
    ("proxy", "reason"), [("socks9://127.0.0.1:1", "scheme"), ("socks5://127.0.0.1:1", r"httpx\[socks\]")]
)
def test_a_proxy_that_cannot_be_used_is_a_configuration_error(
    connect: Callable[..., Any],
    media: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    proxy: str,
    reason: str,
) -> None:
    """For example an unknown scheme or a missing package. Nothing is sent."""
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(ConfigurationError, match=f"no connections can be set up: .*{reason}"):
        connect("key", base_url="https://api.example").jobs.create(**media)


def test_nothing_is_sent_after_close(
    mock: MockServer, media: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Submissions that wait for a connection are not sent after `close`."""
    monkeypatch.setattr(sync_http, "MAX_CONNECTIONS", 1)
    mock.faults.add("delay=0.4;operation=createJob;times=0")
    client = TechForge(mock.api_key, base_url=mock.url)
    ended: list[BaseException | Job] = []

    def work() -> None:
        try:
            ended.append(client.jobs.create(**media))  # type: ignore[arg-type]
        except TechForgeError as error:
            ended.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.15)
    client.close()
    for thread in threads:
        thread.join()
    time.sleep(0.5)
    assert mock.journal.count(operation="createJob") <= 1
    kinds = sorted(type(end).__name__ for end in ended)
    assert kinds == ["ConfigurationError"] * 3 + ["JobOutcomeUnknownError"]


async def test_nothing_is_sent_after_close_in_tasks(
    mock: MockServer, media: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same on asyncio."""
    monkeypatch.setattr(aio_http, "MAX_CONNECTIONS", 1)
    mock.faults.add("delay=0.4;operation=createJob;times=0")
    client = AsyncTechForge(mock.api_key, base_url=mock.url)
    tasks = [asyncio.create_task(client.jobs.create(**media)) for _ in range(4)]  # type: ignore[arg-type]
    await asyncio.sleep(0.15)
    await client.close()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0.5)
    assert mock.journal.count(operation="createJob") <= 1
    assert all(isinstance(end, JobOutcomeUnknownError | ConfigurationError) for end in ended)


async def test_closing_as_a_request_runs_out_of_time(mock: MockServer, done: Job) -> None:
    """`close` works even if a timeout has just occurred."""
    client = AsyncTechForge(mock.api_key, base_url=mock.url)
    expiring = asyncio.timeout(0)

    async def late() -> None:
        with contextlib.suppress(TimeoutError):
            async with expiring:
                client._session.driver.http.running.add(expiring)
                await asyncio.sleep(30)

    await client.storage.sign(done.output_path)
    task = asyncio.create_task(late())
    while not expiring.expired():  # noqa: ASYNC110 - the turn of the loop in which it strikes is the point
        await asyncio.sleep(0)
    await client.close()
    await task


async def test_a_client_is_closed_where_it_was_used(mock: MockServer, done: Job) -> None:
    """Closing in another event loop raises a clear error."""
    client = AsyncTechForge(mock.api_key, base_url=mock.url)
    await client.storage.sign(done.output_path)

    def elsewhere() -> None:
        asyncio.run(client.close())

    with pytest.raises(ConfigurationError, match="event loop"):
        await asyncio.to_thread(elsewhere)
    await client.close()


async def test_user_code_that_hangs_ends_with_the_wait(mock: MockServer, done: Job) -> None:
    """A hanging async `on_update` or key provider ends at the deadline."""

    async def hangs(*_: object) -> Any:
        await asyncio.sleep(30)

    started = time.monotonic()
    async with AsyncTechForge(hangs, base_url=mock.url, timeout=0.3, max_retries=0) as client:
        with pytest.raises(TechForgeError):
            await client.storage.sign(done.output_path)
    async with AsyncTechForge(mock.api_key, base_url=mock.url) as client:
        with pytest.raises(TimeoutError):
            await client.jobs.wait(done, timeout=0.3, on_update=hangs)
    assert time.monotonic() - started < 2
