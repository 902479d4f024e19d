"""A thousand waits at once, and hundreds of callers while the API is down."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from attrs import evolve

from techforge import AsyncTechForge, InternalServerError
from techforge._session import client_of, session_of

if TYPE_CHECKING:
    from techforge.mock import MockServer

JOBS = 1000
RATE = 20

COMMON = """
import asyncio, sys, threading, time, tracemalloc
from uuid import uuid4
from techforge import AsyncTechForge, NotFoundError, TechForge

key, url, jobs, rate = *sys.argv[1:3], *map(int, sys.argv[3:])
waited = []


def job(client):
    return client.jobs.from_ids(str(uuid4()), str(uuid4()))


def used():
    return tracemalloc.get_traced_memory()[0]
"""

TASKS = """
async def main():
    async with AsyncTechForge(key, base_url=url, max_rate=rate) as client:
        await client.jobs.find(job(client))
        tracemalloc.start()
        before = used()
        tasks = [asyncio.create_task(client.jobs.wait(job(client), timeout=60)) for _ in range(jobs)]
        await asyncio.sleep(7)
        print(round((used() - before) / jobs))
        tracemalloc.stop()
        began, worked = time.monotonic(), time.process_time()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        print(round((time.monotonic() - began) * 1000), round((time.process_time() - worked) * 1000))


asyncio.run(main())
"""

THREADS = """
threading.stack_size(256 * 1024)


def wait():
    try:
        client.jobs.wait(job(client), timeout=60)
    except Exception as error:
        waited.append(type(error).__name__)


client = TechForge(key, base_url=url, max_rate=rate)
client.jobs.find(job(client))
tracemalloc.start()
before = used()
threads = [threading.Thread(target=wait) for _ in range(jobs)]
for thread in threads:
    thread.start()
time.sleep(7)
print(round((used() - before) / jobs))
tracemalloc.stop()
began, worked = time.monotonic(), time.process_time()
client.close()
for thread in threads:
    thread.join()
assert waited == ["ConfigurationError"] * jobs, waited
print(round((time.monotonic() - began) * 1000), round((time.process_time() - worked) * 1000))
"""


@pytest.mark.parametrize(("program", "at_once"), [(TASKS, 500), (THREADS, 1500)], ids=["tasks", "threads"])
def test_a_thousand_waits_at_once(mock: MockServer, program: str, at_once: int) -> None:
    """Polls are even and within the rate limit. A wait needs at most 20 KB, and all end at once."""
    command = [sys.executable, "-c", COMMON + program, mock.api_key, mock.url, str(JOBS), str(RATE)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert result.returncode == 0, result.stderr
    memory, milliseconds, worked = map(int, result.stdout.split())
    assert memory <= 20_000
    # CPU time is measured, because the duration depends on the load of the machine.
    assert worked <= at_once
    assert milliseconds <= 2 * at_once
    first = mock.journal.requests()[0].time
    seconds = Counter(int(record.time - first) for record in mock.journal.requests())
    full = [seconds[second] for second in range(2, 6)]
    assert max(full) <= 1.15 * RATE
    assert min(full) >= 0.7 * RATE


ENDED = """
began = []


def later(act):
    def run():
        began.append(time.monotonic())
        act()

    threading.Timer(0.5, run).start()


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def sync(end):
    with TechForge(key, base_url=url) as client:
        later(client.close if end == "close" else interrupt)
        client.jobs.wait(job(client), poll=30.0)


async def tasks(end):
    async with AsyncTechForge(key, base_url=url) as client:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        close = lambda: asyncio.run_coroutine_threadsafe(client.close(), loop)
        later({"close": close, "cancel": lambda: loop.call_soon_threadsafe(task.cancel)}.get(end, interrupt))
        await client.jobs.wait(job(client), poll=30.0)


ends = {
    "sync close": lambda: sync("close"),
    "sync ctrl-c": lambda: sync("ctrl-c"),
    "async close": lambda: asyncio.run(tasks("close")),
    "async cancel": lambda: asyncio.run(tasks("cancel")),
    "async ctrl-c": lambda: asyncio.run(tasks("ctrl-c")),
}
for name, end in ends.items():
    try:
        end()
    except BaseException as error:
        print(name, type(error).__name__, round((time.monotonic() - began.pop()) * 1000), sep=",")
"""


def test_a_wait_ends_at_once(mock: MockServer) -> None:
    """Ctrl-C, a cancelled task and `close()` end a pause of 30 s within 100 ms."""
    program = COMMON.replace("import asyncio", "import asyncio, os, signal") + ENDED
    command = [sys.executable, "-c", program, mock.api_key, mock.url, str(JOBS), str(RATE)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    ended = [line.split(",") for line in result.stdout.splitlines()]
    assert [end[:2] for end in ended] == [
        ["sync close", "ConfigurationError"],
        ["sync ctrl-c", "KeyboardInterrupt"],
        ["async close", "ConfigurationError"],
        ["async cancel", "CancelledError"],
        ["async ctrl-c", "KeyboardInterrupt"],
    ]
    # On a busy machine, a single attempt may have to wait for the processor.
    took = sorted(int(milliseconds) for _, _, milliseconds in ended)
    assert took[2] <= 100
    assert took[-1] <= 1000


def test_a_dead_backend_costs_little(mock: MockServer) -> None:
    """With 200 callers, a call costs about 1.1 requests once the client's budget is spent."""
    mock.faults.add("status=503;times=0")
    calls = 0

    async def main() -> tuple[int, int]:
        nonlocal calls
        # Without jitter there is no backoff, so the test does not sleep.
        session = session_of(AsyncTechForge(mock.api_key, base_url=mock.url))
        settings = evolve(session.settings, random=lambda: 0.0)
        async with client_of(AsyncTechForge, evolve(session, settings=settings)) as client:

            async def work() -> None:
                nonlocal calls
                with pytest.raises(InternalServerError):
                    await client.storage.sign("a/b")
                calls += 1

            async def round_of_all() -> int:
                before = mock.journal.count()
                await asyncio.gather(*[work() for _ in range(200)])
                return mock.journal.count() - before

            first = await round_of_all()
            return first, sum([await round_of_all() for _ in range(2)])

    first, later = asyncio.run(main())
    assert calls == 600
    assert first <= 200 + 100 + 20
    assert later / 400 <= 1.12
    assert later > 400  # each call adds a tenth of a retry to the budget
