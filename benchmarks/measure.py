"""Measure one client, in a process that does nothing else: `python measure.py TASK ARGUMENTS`.

TASK is the name of a function; ARGUMENTS are JSON, its keywords. The result is a line of JSON. CPU is the
process's own, user and system time together.
"""

# What is imported here, no client is charged for: so nothing is that one of them might import.
import json
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MIB = 2**20


def start(client: "dict[str, str]", url: str, until: str) -> "dict[str, float]":
    """Import; then build; then call once: the whole of the process counts, as far as it gets."""
    before = len(sys.modules)
    names = {"url": url}
    stages = ["imports", "build", "call"]
    for stage in stages[: stages.index(until) + 1]:
        exec(client[stage], names)
    modules = len(sys.modules) - before
    # The interpreter's own start, which was before anything could be measured, is in it.
    return {"cpu": time.process_time(), "modules": modules}


def calls(client: dict[str, str], url: str, count: int) -> dict[str, float]:
    """Call one at a time."""
    names: "dict[str, Any]" = {"url": url}
    exec(f"{client['imports']}\n{client['build']}\ndef call():\n return {client['call']}", names)
    call = names["call"]
    for _ in range(20):
        call()
    began, clock = time.process_time(), time.monotonic()
    for _ in range(count):
        call()
    return {"cpu": (time.process_time() - began) / count, "seconds": (time.monotonic() - clock) / count}


def tasks(client: dict[str, str], url: str, count: int, in_flight: int) -> dict[str, float]:
    """Call so many times at once, again and again."""
    import asyncio

    names: "dict[str, Any]" = {"url": url}

    async def work(each: int) -> None:
        call = names["call"]
        for _ in range(each):
            await call()

    async def main() -> dict[str, float]:
        exec(f"{client['imports']}\n{client['abuild']}\nasync def call():\n return {client['acall']}", names)
        await asyncio.gather(*[work(1) for _ in range(in_flight)])
        each = max(1, count // in_flight)
        began, clock = time.process_time(), time.monotonic()
        await asyncio.gather(*[work(each) for _ in range(in_flight)])
        done = each * in_flight
        return {"cpu": (time.process_time() - began) / done, "seconds": (time.monotonic() - clock) / done}

    return asyncio.run(main())


def waits(url: str, jobs: int, ramp: float, seconds: float) -> dict[str, float]:
    """Let one client wait for so many jobs that none of them is done."""
    import asyncio
    import gc

    from techforge import AsyncTechForge, Job

    async def main() -> dict[str, float]:
        async with AsyncTechForge("bench-key", base_url=url) as client:
            gc.collect()
            memory = resident()
            waiting = []
            for number in range(jobs):
                job = Job(f"job-{number}", "project", output_path="waiting")
                waiting.append(asyncio.create_task(client.jobs.wait(job, timeout=3600)))
                if number % 100 == 99:
                    await asyncio.sleep(ramp / jobs * 100)
            # By now all of them look every 15 seconds, at the most.
            await asyncio.sleep(ramp)
            began = time.process_time()
            await asyncio.sleep(seconds)
            cpu = time.process_time() - began
            used = resident() - memory
            if any(task.done() for task in waiting):
                sys.exit("a wait has ended")
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        return {"cpu": cpu / jobs / (seconds / 60), "memory": used / jobs}

    return asyncio.run(main())


def download(url: str, to: str) -> dict[str, float]:
    """Download the server's object."""
    from techforge import TechForge

    with TechForge("bench-key", base_url=url) as client:
        client.storage.sign("object")
        memory, began = resident(), time.process_time()
        client.storage.download("object", to, overwrite=True)
        return {"cpu": time.process_time() - began, "memory": (peak() - memory) / MIB}


def resident() -> float:
    """Return the bytes of memory in use now."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak() -> float:
    """Return the most bytes of memory ever in use."""
    with open("/proc/self/status", encoding="ascii") as status:
        return int(status.read().partition("VmHWM:")[2].split()[0]) * 1024


if __name__ == "__main__":
    task = {f.__name__: f for f in (start, calls, tasks, waits, download)}[sys.argv[1]]
    print(json.dumps(task(**json.loads(sys.argv[2]))), flush=True)
    # How a client ends is no part of it, and not all of them do so in peace.
    os._exit(0)
