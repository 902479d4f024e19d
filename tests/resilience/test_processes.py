"""One client in many processes, threads and event loops: no mixed-up responses, no warnings."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from techforge import AsyncTechForge, TechForge

if TYPE_CHECKING:
    from techforge.mock import MockServer

CALLS = 60
RUNS = 6
THREADS = 64
JOBS = 5

forks = pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")


def run(program: str, mock: MockServer, *arguments: object) -> list[str]:
    """Run a program that shows every warning; return the words of its output, and allow no others."""
    # Python warns about fork in any program with threads.
    flags = ["-X", "dev", "-W", "error", "-W", "ignore:.*multi-threaded:DeprecationWarning"]
    command = [sys.executable, *flags, "-c", program, mock.api_key, mock.url, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    # In this mode asyncio also logs slow callbacks.
    said = re.sub(r"(?m)^Executing <.* took [\d.]+ seconds\n", "", result.stderr)
    assert (result.returncode, said) == (0, "")
    return result.stdout.split()


FORKED = """
import os, sys
from techforge import TechForge

key, url, calls, runs = *sys.argv[1:3], *map(int, sys.argv[3:])
for _ in range(runs):
    with TechForge(key, base_url=url) as client:
        client.storage.sign("parent/0")
        child = os.fork()
        who = "parent" if child else "child"
        wrong = sum(f"/{who}/{n}?" not in client.storage.sign(f"{who}/{n}").url for n in range(calls))
    if not child:
        sys.exit(min(wrong, 99))
    print(wrong, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@forks
def test_a_fork_does_not_mix_up_responses(mock: MockServer) -> None:
    """After a fork, the client works in both processes, and each gets its own responses."""
    for who in ("parent", "child"):
        for number in range(CALLS):
            mock.store.put(f"{who}/{number}", b"x")
    assert run(FORKED, mock, CALLS, RUNS) == ["0", "0"] * RUNS


HELD = """
import os, signal, sys, threading, time
from techforge import TechForge
from techforge.policy.lock import lock as pace

client = TechForge(sys.argv[1], base_url=sys.argv[2])
client.storage.sign("a/b")
held = threading.Barrier(2)
lock = eval(sys.argv[3])


def hold():
    with lock:
        held.wait()
        time.sleep(0.3)


thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = os.fork()
signal.alarm(20)
client.storage.sign("a/b")
client.close()
if child:
    thread.join()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@forks
@pytest.mark.parametrize(
    "lock", ["client._session.driver._lock", "client._session.driver._closed._cond", "pace"]
)
def test_a_fork_leaves_no_lock_behind(mock: MockServer, lock: str) -> None:
    """A child does not wait for a lock that a thread of its parent holds."""
    mock.store.put("a/b", b"x")
    assert run(HELD, mock, lock) == ["0"]


CONNECTIONS_OF_ONES_OWN = """
import os, sys
import httpx
from techforge import ConfigurationError, TechForge

for used in (False, True):
    with httpx.Client() as own, TechForge(sys.argv[1], base_url=sys.argv[2], http_client=own) as client:
        if used:
            client.storage.sign("a/b")
        child = os.fork()
        try:
            said = bool(client.storage.sign("a/b").url)
        except ConfigurationError as error:
            said = "before a fork" in str(error) and 2
    if not child:
        os._exit(said)
    print(said, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@forks
def test_a_used_http_client_is_refused_in_a_child(mock: MockServer) -> None:
    """An unused `http_client` works in both processes."""
    mock.store.put("a/b", b"x")
    assert run(CONNECTIONS_OF_ONES_OWN, mock) == ["True", "1", "True", "2"]


ASYNC_FORKED = """
import asyncio, os, sys
from techforge import AsyncTechForge, ConfigurationError

client = AsyncTechForge(sys.argv[1], base_url=sys.argv[2])


async def sign():
    return (await client.storage.sign("a/b")).path


with asyncio.Runner() as runner:
    runner.run(sign())
    child = os.fork()
    if not child:
        try:
            asyncio.run(sign())
        except ConfigurationError as error:
            os._exit("event loop" in str(error))
    print(runner.run(sign()), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    runner.run(client.close())
"""


@forks
def test_an_async_client_stays_with_its_loop_after_a_fork(mock: MockServer) -> None:
    """A child has another event loop, so the client raises an error there."""
    mock.store.put("a/b", b"x")
    assert run(ASYNC_FORKED, mock) == ["a/b", "1"]


@pytest.mark.parametrize("build", [TechForge, AsyncTechForge])
def test_a_client_is_not_pickled(build: Any) -> None:
    """A pickled client would contain the key."""
    client = build("canary", base_url="http://127.0.0.1:1")
    for value in (client, client.jobs, client.storage):
        with pytest.raises(TypeError, match="create one in each process"):
            pickle.dumps(value)


def test_many_threads_share_a_client(client: TechForge, mock: MockServer, media: dict[str, Any]) -> None:
    """64 threads from the first call on: own responses, and no job duplicated or lost."""
    barrier = threading.Barrier(THREADS)
    signed: dict[int, list[str]] = {}
    jobs = []

    def work(thread: int) -> None:
        barrier.wait()
        signed[thread] = [client.storage.sign(f"{thread}/{n}").url for n in range(5)]
        jobs.extend(client.jobs.create(**media) for _ in range(JOBS))

    for thread in range(THREADS):
        for number in range(5):
            mock.store.put(f"{thread}/{number}", b"x")
    threads = [threading.Thread(target=work, args=[thread]) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(signed) == THREADS
    assert all(f"/{thread}/{n}?" in url for thread, urls in signed.items() for n, url in enumerate(urls))
    assert len({job.id for job in jobs}) == mock.journal.count(operation="createJob") == THREADS * JOBS
    (pool,) = client._session.driver.http._pools.values()
    assert len(pool._idle) <= THREADS


WELL_USED = """
import asyncio, contextlib, gc, sys
from techforge import AsyncTechForge, NotFoundError, TechForge

key, url, folder = sys.argv[1:]
media = {"image_url": "https://cdn.example.com/i.png", "audio_url": "https://cdn.example.com/a.mp3"}
never_used = TechForge(key, base_url=url), AsyncTechForge(key, base_url=url)

with TechForge(key, base_url=url) as client:
    job = client.jobs.create(**media)
    client.jobs.download(client.jobs.wait(job, poll=0.01), f"{folder}/1.mp4")
    with contextlib.suppress(NotFoundError):
        client.storage.sign("a/b")
    client.close()
client.close()


async def main():
    async with AsyncTechForge(key, base_url=url) as client:
        job = await client.jobs.create(**media)
        await client.jobs.download(await client.jobs.wait(job, poll=0.01), f"{folder}/2.mp4")
        with contextlib.suppress(NotFoundError):
            await client.storage.sign("a/b")
        hung = asyncio.create_task(client.jobs.wait(client.jobs.from_ids(job.id, job.project_id[::-1])))
        await asyncio.sleep(0.01)
        await client.close()
        await asyncio.wait([hung])
        assert hung.exception()
    await client.close()


asyncio.run(main())
gc.collect()
"""


def test_correct_use_warns_of_nothing(mock: MockServer, tmp_path: Any) -> None:
    """In development mode no socket, file, task or coroutine is left open, also after errors."""
    run(WELL_USED, mock, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"1.mp4", "2.mp4"}
