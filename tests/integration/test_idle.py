"""Idle connections: closed ones are detected, and none stays open for long."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from support.servers import Server, read_request

from techforge import AsyncTechForge, Job, JobOutcomeUnknownError
from techforge._drivers import pool

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

JOB = Job("15a6331b-3837-4ae8-8fa7-d3ead3388d77", "468ea7a0-66e1-4357-a760-236e54167f3e", "queued")


class Origin:
    """The API and storage in one origin. It closes the connection after a response if `end(server)`."""

    def __init__(self, end: Callable[[Server], bool]) -> None:
        """Listen when used as a context manager."""
        self.heads: list[str] = []
        self.open = 0
        self._end = end
        self.server = Server(self._serve)

    def _serve(self, server: Server, connection: socket.socket) -> None:
        self.open += 1
        try:
            with suppress(TimeoutError):
                while True:
                    head = read_request(connection)
                    self.heads.append(head)
                    connection.sendall(self._response(head))
                    if self._end(server):
                        return
        finally:
            self.open -= 1

    def _response(self, head: str) -> bytes:
        kind, headers = "application/json", ""
        if "/storage/" in head.partition("\r\n")[0]:
            signed = {"signedUrl": f"{self.server.url}/video.mp4", "expiresAt": "2099-01-01T00:00:00Z"}
            status, body = "200 OK", json.dumps(signed)
        elif head.startswith("POST"):
            status, body = "202 Accepted", json.dumps({"jobId": JOB.id, "status": "queued"})
        else:
            status, body, kind, headers = "206 Partial", "v", "video/mp4", "content-range: bytes 0-0/1\r\n"
        lines = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
        return (lines + body).encode()


def never(_server: Server) -> bool:
    """Keep the connection open."""
    return False


def after(seconds: float) -> Callable[[Server], bool]:
    """Close the connection some time after each response."""

    def end(server: Server) -> bool:
        server.hang(seconds)
        return True

    return end


@pytest.fixture(params=[0.0, 0.001, 0.01, 0.05], ids=lambda seconds: f"after {seconds} s")
def closing(request: pytest.FixtureRequest) -> Iterator[Origin]:
    """Return an origin that closes its connections soon after each response, without notice."""
    origin = Origin(after(request.param))
    with origin.server:
        yield origin


def test_a_server_that_closes_silently_is_noticed(connect: Callable[..., Any], closing: Origin) -> None:
    """A wait succeeds although the server closes the connection after each response."""
    client = connect("key", base_url=closing.server.url, max_retries=0)
    for _ in range(5):
        video = client.jobs.wait(JOB, poll=0.01, timeout=5)
        assert video.size == 1
    assert sum(head.startswith("GET") for head in closing.heads) == 10


async def test_a_closed_connection_is_noticed_by_a_busy_event_loop(caplog: pytest.LogCaptureFixture) -> None:
    """The socket itself is checked, because the event loop may lag behind. No request is lost."""
    origin = Origin(after(0.02))
    with origin.server:
        async with AsyncTechForge("key", base_url=origin.server.url) as client:
            for _ in range(3):
                await client.storage.sign("a/b.mp4")
                time.sleep(0.05)  # noqa: ASYNC251 - the event loop is busy
    assert len(origin.heads) == 3
    assert "failed" not in caplog.text


def test_a_submission_is_not_repeated_on_a_connection_that_was_closed(
    connect: Callable[..., Any], media: dict[str, str]
) -> None:
    """Only a GET is sent again. A POST without a response reaches the server once."""

    def refuses_posts(_server: Server, connection: socket.socket) -> None:
        heads.append(read_request(connection))

    heads: list[str] = []
    with Server(refuses_posts) as server:
        client = connect("key", base_url=server.url, max_retries=2)
        with pytest.raises(JobOutcomeUnknownError):
            client.jobs.create(**media)
    assert len(heads) == 1


def open_soon(origin: Origin, count: int) -> int:
    """Return the number of connections that the server has, after a short wait."""
    until = time.monotonic() + 1
    while origin.open != count and time.monotonic() < until:
        time.sleep(0.01)
    return origin.open


async def test_idle_connections_are_closed_on_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """On asyncio, also those to origins that are not used again, without another call."""
    monkeypatch.setattr(pool, "KEEP_ALIVE", 0.4)
    origin = Origin(never)
    with origin.server:
        async with AsyncTechForge("key", base_url=origin.server.url) as client:
            await asyncio.gather(*(client.storage.sign("a/b.mp4") for _ in range(5)))
            assert origin.open == 5
            await asyncio.sleep(0.2)
            await client.storage.sign("a/b.mp4")
            await asyncio.sleep(0.3)
            assert await asyncio.to_thread(open_soon, origin, 1) == 1
            await asyncio.sleep(0.3)
            assert await asyncio.to_thread(open_soon, origin, 0) == 0
        assert len(origin.heads) == 6


def test_idle_connections_are_closed_by_the_next_call(
    connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next call of a sync client closes expired connections to all origins."""
    monkeypatch.setattr(pool, "KEEP_ALIVE", 0.2)
    once, again = Origin(never), Origin(never)
    with once.server, again.server:
        client = connect("key", base_url=once.server.url)
        client.storage.sign("a/b.mp4")
        assert open_soon(once, 1) == 1
        time.sleep(0.3)
        client.with_options(base_url=again.server.url).storage.sign("a/b.mp4")
        assert (open_soon(once, 0), open_soon(again, 1)) == (0, 1)
        client.close()
