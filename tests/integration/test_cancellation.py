"""A cancelled task does not lose a job id that has arrived."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from typing import TYPE_CHECKING, Any

import pytest
from support.servers import Server, read_request

from techforge import AsyncTechForge
from techforge._drivers import aio_streams
from techforge._drivers.response import ReceivedResponse

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from techforge.mock import MockServer

JOB_ID = "15a6331b-3837-4ae8-8fa7-d3ead3388d77"
BODY = json.dumps({"jobId": JOB_ID, "status": "queued"}).encode()
ACCEPTED = (
    b"HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(BODY)
    + BODY
)


@pytest.fixture
def arrived(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Return the ids of jobs whose bytes have reached the client."""
    ids: set[str] = set()
    intact = aio_streams._Stream.data_received

    def data_received(stream: Any, data: bytes) -> None:
        ids.update(re.findall(r'"jobId":\s*"([^"]+)"', data.decode("latin-1")))
        intact(stream, data)

    monkeypatch.setattr(aio_streams._Stream, "data_received", data_received)
    return ids  # type: ignore[return-value]


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.03, 0.05, 0.08])
async def test_a_task_group_loses_no_id(
    mock: MockServer,
    media: dict[str, str],
    arrived: set[str],
    caplog: pytest.LogCaptureFixture,
    delay: float,
) -> None:
    """1 of 100 submissions fails: each id that arrived is a result, or in a note and in the log."""
    mock.faults.add(f"status=400;operation=createJob;delay={delay};times=1")
    caplog.set_level(logging.WARNING)
    results: dict[int, str] = {}
    notes: list[str] = []

    async def create(number: int) -> None:
        try:
            results[number] = (await client.jobs.create(**media)).id  # type: ignore[arg-type]
        except asyncio.CancelledError as error:
            notes.extend(getattr(error, "__notes__", ()))
            raise

    async def create_all() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(100):
                group.create_task(create(number))

    async with AsyncTechForge(mock.api_key, base_url=mock.url, max_in_flight=100) as client:
        with pytest.raises(ExceptionGroup):
            await create_all()
    lost = arrived - set(results.values())
    assert {job_id for job_id in lost if job_id not in " ".join(notes)} == set()
    assert {job_id for job_id in lost if job_id not in caplog.text} == set()


async def cancelled(task: asyncio.Task[Any]) -> tuple[str, float]:
    """Return the notes of a cancelled task, and its duration after the cancellation."""
    started = time.monotonic()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    return " ".join(getattr(caught.value, "__notes__", ())), time.monotonic() - started


def in_two_parts(at: int, pause: float) -> Any:
    """Send a response in two parts."""

    def serve(server: Server, connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(ACCEPTED[:at])
        server.hang(pause)
        connection.sendall(ACCEPTED[at:])

    return serve


@pytest.mark.parametrize("at", [1, 20, len(ACCEPTED) - len(BODY), len(ACCEPTED) - 1])
@pytest.mark.parametrize("times", [1, 1000], ids=["once", "again and again"])
async def test_a_response_that_has_begun_is_read_to_its_end(
    media: dict[str, str], at: int, times: int, caplog: pytest.LogCaptureFixture
) -> None:
    """After the first byte, a cancellation waits for the job id and notes it."""
    with Server(in_two_parts(at, 0.8)) as server:
        async with AsyncTechForge("key", base_url=server.url) as client:
            task = asyncio.create_task(client.jobs.create(**media))  # type: ignore[arg-type]
            await asyncio.sleep(0.2)
            for _ in range(times):
                task.cancel()
                await asyncio.sleep(0)
            notes, seconds = await cancelled(task)
        assert server.connections == 1
    assert JOB_ID in notes
    assert JOB_ID in caplog.text
    assert 0.05 < seconds < 2


async def test_a_response_that_waits_in_the_socket_is_read(media: dict[str, str]) -> None:
    """Bytes in the socket count, even if the event loop was too busy to read them."""

    def serve(server: Server, connection: socket.socket) -> None:
        read_request(connection)
        server.hang(0.3)
        connection.sendall(ACCEPTED)

    with Server(serve) as server:
        async with AsyncTechForge("key", base_url=server.url) as client:
            task = asyncio.create_task(client.jobs.create(**media))  # type: ignore[arg-type]
            await asyncio.sleep(0.15)
            time.sleep(0.3)  # noqa: ASYNC251 - the event loop is busy
            task.cancel()
            notes, _ = await cancelled(task)
    assert JOB_ID in notes


async def test_a_response_without_end_is_given_up_at_the_deadline(media: dict[str, str]) -> None:
    """A cancellation waits until the request's deadline at most. The note has the bytes so far."""
    with Server(in_two_parts(len(ACCEPTED) - 1, 30)) as server:
        async with AsyncTechForge("key", base_url=server.url, timeout=0.6) as client:
            task = asyncio.create_task(client.jobs.create(**media))  # type: ignore[arg-type]
            await asyncio.sleep(0.2)
            task.cancel()
            notes, seconds = await cancelled(task)
    assert JOB_ID in notes
    assert 0.2 < seconds < 1


async def test_a_response_that_has_not_begun_is_not_waited_for(media: dict[str, str]) -> None:
    """Before the first byte, a cancellation ends the request, and notes that a job may exist."""
    with Server(in_two_parts(0, 30)) as server:
        async with AsyncTechForge("key", base_url=server.url) as client:
            task = asyncio.create_task(client.jobs.create(**media))  # type: ignore[arg-type]
            await asyncio.sleep(0.2)
            task.cancel()
            notes, seconds = await cancelled(task)
    assert "may have been submitted" in notes
    assert seconds < 0.2


async def test_closing_ends_a_cancellation_that_waits(media: dict[str, str]) -> None:
    """`close` ends the wait for the rest of a response."""
    with Server(in_two_parts(len(ACCEPTED) - 1, 30)) as server:
        client = AsyncTechForge("key", base_url=server.url)
        task = asyncio.create_task(client.jobs.create(**media))  # type: ignore[arg-type]
        await asyncio.sleep(0.2)
        task.cancel()
        await asyncio.sleep(0.1)
        await client.close()
        notes, seconds = await cancelled(task)
    assert JOB_ID in notes
    assert seconds < 0.2


async def test_cancelling_every_task_loses_no_id(
    media: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that shuts down may cancel all tasks, including those of the SDK."""
    me, intact = asyncio.current_task(), ReceivedResponse.add

    def add(received: ReceivedResponse, chunk: bytes) -> None:
        intact(received, chunk)
        for each in asyncio.all_tasks() - {me}:
            each.cancel()

    monkeypatch.setattr(ReceivedResponse, "add", add)
    with Server(in_two_parts(len(ACCEPTED), 0)) as server:
        async with AsyncTechForge("key", base_url=server.url) as client:
            notes, _ = await cancelled(asyncio.create_task(client.jobs.create(**media)))  # type: ignore[arg-type]
    assert JOB_ID in notes


async def test_a_refusal_is_noted_without_a_warning(
    media: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """If the response says that no job was created, nothing is logged as a warning."""
    refusal = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: 17\r\n\r\n"

    def serve(server: Server, connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(refusal)
        server.hang(0.3)
        connection.sendall(b'{"message":"bad"}')

    with Server(serve) as server:
        async with AsyncTechForge("key", base_url=server.url) as client:
            task = asyncio.create_task(client.jobs.create(**media))  # type: ignore[arg-type]
            await asyncio.sleep(0.2)
            task.cancel()
            notes, _ = await cancelled(task)
    assert "400" in notes
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_create_and_wait_notes_the_job(media: dict[str, str]) -> None:
    """A cancelled `create_and_wait` also notes its job."""
    with Server(in_two_parts(1, 0.4)) as server:
        async with AsyncTechForge("key", base_url=server.url) as client:
            task = asyncio.create_task(client.jobs.create_and_wait(**media))  # type: ignore[arg-type]
            await asyncio.sleep(0.2)
            task.cancel()
            notes, _ = await cancelled(task)
        assert server.connections == 1
    assert JOB_ID in notes
