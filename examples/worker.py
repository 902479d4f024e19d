"""A worker: it takes orders from a queue, makes several videos at once, and prints a result for each.

    python worker.py videos/ < orders.jsonl

An order is a line such as `{"name": "anna", "image_url": "https://…", "audio_url": "https://…"}`. Here
the orders come from stdin; replace it by your own queue. For many orders, use `client.batch`, whose ledger
survives a crash: see campaign.py.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any, TypeAlias

from techforge import AsyncTechForge, JobOutcomeUnknownError, JobUpdate, TechForgeError

AT_ONCE = 8
Queue: TypeAlias = "asyncio.Queue[str | None]"


async def make(client: AsyncTechForge, line: str, folder: Path) -> dict[str, Any]:
    """Make one video, and return the result to print."""
    try:
        order = json.loads(line)
        name, image_url, audio_url = order["name"], order["image_url"], order["audio_url"]
    except (ValueError, KeyError, TypeError) as error:
        # One bad order must not end the worker: others are in progress, and paid for.
        return {"order": line, "failed": f"not an order: {error!r}"}

    def note(update: JobUpdate) -> None:
        # The first update comes before the first poll: print the ids as soon as the job exists.
        if update.polls == 0:
            say({"name": name, "job_id": update.job.id, "project_id": update.job.project_id})

    try:
        video = await client.jobs.create_and_wait(image_url=image_url, audio_url=audio_url, on_update=note)
        path = await client.jobs.download(video, folder)
    except JobOutcomeUnknownError as error:
        # Do not put it back into the queue: a job may exist, and it costs money.
        return {"name": name, "unknown": str(error), "project_id": error.project_id}
    except TechForgeError as error:
        return {"name": name, "failed": str(error)}
    return {"name": name, "file": str(path)}


async def work(client: AsyncTechForge, queue: Queue, folder: Path) -> None:
    """Process orders until there are no more."""
    while (line := await queue.get()) is not None:
        say(await make(client, line, folder))


def say(what: dict[str, Any]) -> None:
    """Print a line of JSON."""
    print(json.dumps(what), flush=True)  # noqa: T201 - what a worker is for


async def main(folder: Path) -> None:
    """Process all orders, several concurrently."""
    # Bounded: do not read an order before a task can process it.
    queue: Queue = asyncio.Queue(maxsize=AT_ONCE)
    async with AsyncTechForge() as client, asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work(client, queue, folder))
        while line := await asyncio.to_thread(sys.stdin.readline):
            await queue.put(line.strip())
        for _ in range(AT_ONCE):
            await queue.put(None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make a video for each order on stdin.")
    parser.add_argument("folder", type=Path, help="the folder for the videos")
    videos = parser.parse_args().folder
    videos.mkdir(parents=True, exist_ok=True)
    asyncio.run(main(videos))
