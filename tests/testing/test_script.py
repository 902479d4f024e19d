"""Scripted clients: real flows, drivers and parsing, with a script instead of the network."""

from __future__ import annotations

import asyncio
import inspect
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from techforge import (
    APIConnectionError,
    ConfigurationError,
    InternalServerError,
    Job,
    JobOutcomeUnknownError,
    JobTimeoutError,
    NotFoundError,
    RateLimitError,
)
from techforge.testing import Clock, Reply, Script

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

JOB = Job("15a6331b-3837-4ae8-8fa7-d3ead3388d77", "468ea7a0-66e1-4357-a760-236e54167f3e")


@pytest.fixture(autouse=True)
def _no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every use of a socket or sleep fail."""

    def refuse(*_args: object) -> None:
        raise AssertionError("a socket was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def call(colour: str) -> Callable[..., Any]:
    """Return a function that calls a method of a script's client, sync or async."""

    def call(script: Script, method: str, *args: Any, with_: Any = None, **kwargs: Any) -> Any:
        async def run() -> Any:
            made = script.client if colour == "sync" else script.async_client
            client: Any = made(**(with_ or {}))
            part, _, name = method.partition(".")
            result = getattr(getattr(client, part), name)(*args, **kwargs)
            return await result if inspect.isawaitable(result) else result

        return asyncio.run(run())

    return call


def test_an_empty_script_succeeds(call: Callable[..., Any], media: Any, tmp_path: Path) -> None:
    """It accepts every job, and has its video."""
    script = Script(video=b"these bytes")
    video = call(script, "jobs.create_and_wait", **media)
    assert (video.job.status, video.size, video.content_type) == ("done", 11, "video/mp4")
    assert call(script, "jobs.download", video, tmp_path).read_bytes() == b"these bytes"
    operations = [sent.operation for sent in script.requests]
    assert operations == ["create", "sign", "storage", "sign", "storage"]
    create, sign, storage = script.requests[:3]
    assert create.json["image_url"] == media["image_url"]
    assert create.headers["x-api-key"]
    assert sign.path == storage.path == video.job.output_path
    assert storage.headers["range"] == "bytes=0-0"
    assert "x-api-key" not in storage.headers
    assert script.clock.sleeps == []


def test_a_wait_takes_no_time(call: Callable[..., Any]) -> None:
    """Polls happen at their times by the script's clock, which skips sleeps."""
    script = Script(sign=[404] * 100)
    started = time.monotonic()
    updates: list[Any] = []
    call(script, "jobs.wait", JOB, poll=15.0, timeout=3600, on_update=updates.append)
    assert time.monotonic() - started < 5
    assert script.clock.sleeps == [15.0] * 100
    assert script.clock.now == updates[-1].elapsed == 1500.0
    assert script.left == 0


def test_a_wait_that_times_out(call: Callable[..., Any]) -> None:
    """The deadline is measured by the same clock."""
    script = Script(sign=[404] * 1000)
    with pytest.raises(JobTimeoutError) as caught:
        call(script, "jobs.wait", JOB, poll=10.0, timeout=65)
    # The last pause is shortened, so that there is time for one more poll.
    assert script.clock.now <= 65
    assert caught.value.polls == 7
    assert script.left == 1000 - 7


def test_scripted_submissions(call: Callable[..., Any], media: Any) -> None:
    """429, 5xx and connection failures are retried, after the pauses that they ask for."""
    slow = Reply(429, headers={"retry-after": "20"})
    script = Script(create=[slow, Reply.unreachable(), 503, None, 400])
    assert call(script, "jobs.create", **media).status == "queued"
    assert len(script.requests) == 4
    assert script.clock.sleeps[0] == 20.0
    assert script.left == 1
    with pytest.raises(RateLimitError) as caught:
        call(Script(create=[slow]), "jobs.create", **media, with_={"max_retries": 0})
    assert caught.value.retry_after == 20.0


def test_a_lost_response(call: Callable[..., Any], media: Any) -> None:
    """A job may exist, so the submission is not repeated."""
    script = Script(create=[Reply.lost()])
    with pytest.raises(JobOutcomeUnknownError):
        call(script, "jobs.create", **media)
    assert len(script.requests) == 1
    with pytest.raises(APIConnectionError) as caught:
        call(Script(create=[Reply.unreachable()] * 9), "jobs.create", **media, with_={"max_retries": 1})
    assert not caught.value.job_may_exist


@pytest.mark.lying("a success without a body")
def test_a_custom_reply(call: Callable[..., Any], media: Any) -> None:
    """A reply may have any content, also an unreadable one."""
    said = {"jobId": JOB.id, "status": "processing"}
    assert call(Script(create=[Reply(202, json=said)]), "jobs.create", **media).id == JOB.id
    with pytest.raises(JobOutcomeUnknownError):
        call(Script(create=[Reply(202)]), "jobs.create", **media)
    html = Script(create=[Reply(500, headers={"content-type": "text/html"}, body=b"<html>")])
    with pytest.raises(InternalServerError) as caught:
        call(html, "jobs.create", **media, with_={"max_retries": 0})
    assert caught.value.body == "<html>"


def test_scripted_storage(call: Callable[..., Any], tmp_path: Path) -> None:
    """A refused URL is signed again, a lost connection is retried, a download is resumed."""
    script = Script(storage=[403, Reply.lost()], video=bytes(range(250)))
    path = call(script, "storage.download", "a/b c.mp4", tmp_path / "a.mp4")
    assert {sent.path for sent in script.requests} == {"a/b c.mp4"}
    assert path.read_bytes() == bytes(range(250))
    assert [sent.operation for sent in script.requests] == ["sign", "storage", "sign", "storage", "storage"]
    with pytest.raises(NotFoundError):
        call(Script(sign=[404]), "storage.sign", "a/b c.mp4")
    assert call(Script(), "storage.sign", "a/b c.mp4").path == "a/b c.mp4"


def test_ranges() -> None:
    """Ranges of an object can be requested, also beyond its end."""
    script = Script(video=b"0123456789")

    def get(wanted: str) -> Any:
        from techforge.testing.script import Sent  # noqa: PLC0415

        return script._normal_reply(Sent("storage", "a", {"range": wanted}))

    assert (get("bytes=3-5").status, get("bytes=3-5").body) == (206, b"345")
    assert get("bytes=7-").headers["content-range"] == "bytes 7-9/10"
    assert get("bytes=7-99").body == b"789"
    assert get("bytes=10-").status == 416
    assert get("lines=1").body == script.video


@pytest.mark.parametrize("status", [200, 202, 600, 0])
def test_a_success_needs_more_than_a_number(status: int) -> None:
    """A 2xx as an `int` is refused, because its body is not known."""
    with pytest.raises(ValueError, match="is not an error status"):
        Script(create=[status])


def test_scripted_clients_behave_like_clients() -> None:
    """They can be closed, copied with other options, and leak nothing."""
    script = Script(sign=[404] * 3)
    with script.client() as client:
        assert client.with_options(timeout=1.0).jobs.find(JOB) is None
        assert client.with_options(max_retries=0)._session.settings.now is script.clock
    with pytest.raises(ConfigurationError, match="closed"):
        client.jobs.find(JOB)

    async def run() -> None:
        async with script.async_client() as client:
            assert await client.jobs.find(JOB) is None
        with pytest.raises(ConfigurationError, match="closed"):
            await client.jobs.find(JOB)

    asyncio.run(run())
    assert script.left == 1


def test_a_client_that_is_closed_does_not_sleep(colour: str) -> None:
    """`close` during a wait ends it at its next sleep."""
    script = Script(sign=[404] * 10)
    client: Any = script.client() if colour == "sync" else script.async_client()

    def close(update: Any) -> None:
        if update.polls == 2:
            # Set only the flag: otherwise the next request would end the wait.
            client._session.driver._closed.set()

    async def run() -> None:
        result = client.jobs.wait(JOB, on_update=close)
        await result

    with pytest.raises(ConfigurationError, match="closed"):
        asyncio.run(run())
    assert len(script.clock.sleeps) == 1
    assert script.left == 8


def test_tasks_sleep_at_the_same_time() -> None:
    """Ten concurrent waits take as long as one."""
    script = Script(sign=[404] * 20)

    async def run() -> None:
        async with script.async_client() as client:
            jobs = [Job(f"{number}", JOB.project_id) for number in range(10)]
            await asyncio.gather(*(client.jobs.wait(job, poll=60.0) for job in jobs))

    asyncio.run(run())
    assert len(script.clock.sleeps) == 20
    assert script.clock.now == 120.0


def test_threads_may_share_a_script() -> None:
    """Every reply is used once."""
    script = Script(sign=[404] * 400)

    def look() -> None:
        client = script.client()
        for _ in range(50):
            assert client.jobs.find(JOB) is None

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (script.left, len(script.requests)) == (0, 400)


def test_a_clock_with_a_base() -> None:
    """Real time passes in addition, also during a sleep, and is not counted twice."""
    time_ = [100.0]
    clock = Clock(lambda: time_[0])
    clock.jump(10.0)
    assert clock() == clock.now == 110.0
    since = clock.now
    time_[0] += 4
    clock.jump(10.0, since)
    assert clock.now == 120.0
    time_[0] += 30
    clock.jump(10.0, since)
    assert clock.now == 150.0
    assert clock.sleeps == [10.0] * 3
