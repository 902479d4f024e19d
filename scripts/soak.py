"""Use both clients for a long time against a mock server that is never well, and count what goes wrong.

`nox -s soak` takes 15 minutes; `nox -s soak -- --minutes 1 --seed 7` takes less. It ends with 1 if a job was
submitted twice or lost, a wrong file was written, something unexpected was raised, or the process grew.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from attrs import define, field, frozen

from mock_process import mock_server
from techforge import AsyncTechForge, TechForge, TechForgeError

if TYPE_CHECKING:
    from collections.abc import Callable

CALLERS = 16
"""Threads, and as many tasks."""
ROUND = 10.0
"""Seconds between two reckonings."""
GROWTH = 30.0
"""MiB that the process may grow by after its first tenth."""
IMAGE, AUDIO = "https://cdn.example.com/image.png", "https://cdn.example.com/audio.mp3"
FAULTS = (
    "close=before-body",
    "close=after-body",
    "close=after-body;operation=createJob",
    "close=mid-answer",
    "close=after-body;reset=1",
    "status=503",
    "status=502;body=html",
    "status=429;retry-after=1",
    "status=429;retry-after=date:1",
    "status=429;retry-after=1;over=40;times=10",
    "body=truncated",
    "body=broken-json;operation=createJob",
    "body=html",
    "body=empty",
    "delay=0.5",
    "drip=0.002",
    'json={"job":{"uuid":"$job_id"}};operation=createJob',
    "cdn-status=503",
    "cdn-close-after=100",
    "cdn-ignore-range=1",
    "cdn-change-etag=1",
    "cdn-expired=1",
)
"""None of them carries a job out and answers 5xx: that the API's documents want sent again."""


@define
class Count:
    """What happened so far."""

    calls: Counter[str] = field(factory=Counter[str])
    errors: Counter[str] = field(factory=Counter[str])
    twice: int = 0
    lost: int = 0
    wrong_files: int = 0
    unexpected: list[str] = field(factory=list[str])
    known: dict[str, str | None] = field(factory=dict[str, "str | None"])
    """By project, for the round: the job's id, `?` if one may exist, None if none does."""

    def failure(self, what: str, project: str, error: Exception) -> None:
        """Note how a call has failed."""
        if not isinstance(error, TechForgeError):
            self.unexpected.append(f"{what}: {type(error).__name__}: {error}")
            return
        self.errors[f"{what}: {type(error).__name__}"] += 1
        if what == "create":
            self.known[project] = getattr(error, "job_id", None) or (
                "?" if getattr(error, "job_may_exist", False) else None
            )

    def reckon(self, journal: list[Any]) -> None:
        """Compare what the clients know with what the server has done."""
        made: dict[str, list[str]] = {}
        for record in journal:
            if record["operation"] == "createJob" and record["job_id"]:
                project = record["body"].partition('"project_id":"')[2][:36]
                made.setdefault(project, []).append(record["job_id"])
        self.calls["jobs made"] += len(made)
        self.calls["requests"] += len(journal)
        for project, jobs in made.items():
            known = self.known.get(project)
            self.twice += len(jobs) > 1
            self.lost += known not in {"?", *jobs}
        self.known.clear()

    def file(self, path: Path, right: bytes) -> None:
        """Look at a file that was downloaded, and remove it."""
        self.calls["downloads"] += 1
        self.wrong_files += path.read_bytes() != right
        path.unlink()

    @property
    def bad(self) -> bool:
        """Whether a promise was broken."""
        return bool(self.twice or self.lost or self.wrong_files or self.unexpected)


@frozen
class Round:
    """All callers at once, threads and tasks, until a time."""

    client: TechForge
    url: str
    key: str
    folder: Path
    right: bytes
    count: Count
    until: float

    def run(self) -> None:
        """Return when the last of them has come to an end."""
        asyncio.run(self._callers())

    async def _callers(self) -> None:
        loop = asyncio.get_running_loop()
        async with AsyncTechForge(self.key, base_url=self.url, timeout=5) as client:
            with ThreadPoolExecutor(CALLERS) as pool:

                async def caller(client: TechForge | AsyncTechForge) -> None:
                    def call(method: Any, *arguments: Any, **options: Any) -> Any:
                        run = partial(method, *arguments, **options)
                        return loop.run_in_executor(pool, run) if client is self.client else run()

                    while time.monotonic() < self.until:
                        await self._one(client, call)

                each = [caller(client) for client in (self.client, client) for _ in range(CALLERS)]
                await asyncio.gather(*each)

    async def _one(self, client: TechForge | AsyncTechForge, call: Callable[..., Any]) -> None:
        what, project = "create", str(uuid.uuid4())
        jobs = client.jobs
        try:
            job = await call(jobs.create, image_url=IMAGE, audio_url=AUDIO, project_id=project)
            self.count.known[project] = job.id
            what = "wait"
            video = await call(jobs.wait, job, timeout=20, poll=0.2)
            what = "download"
            path = await call(jobs.download, video, self.folder / f"{job.id}.mp4", timeout=20)
            self.count.file(path, self.right)
        except Exception as error:  # noqa: BLE001 - that none but ours comes is what is tried
            self.count.failure(what, project, error)


def main(arguments: list[str]) -> int:
    """Run for so many minutes; the result is the exit code."""
    parser = argparse.ArgumentParser(
        prog="soak", description="Use both clients against a faulty mock server."
    )
    parser.add_argument("--minutes", type=float, default=15.0, help="how long (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="which faults come when (%(default)s)")
    options = parser.parse_args(arguments)
    count = Count()
    # Which faults come when is repeatable; it is no secret.
    faults = random.Random(options.seed)  # noqa: S311
    end = time.monotonic() + options.minutes * 60
    sizes: list[tuple[float, int]] = []
    with (
        mock_server("--no-render", "--job-seconds", "0.3") as (_, address),
        tempfile.TemporaryDirectory() as folder,
        httpx.Client(base_url=address["url"]) as control,
        TechForge(address["api_key"], base_url=address["url"], timeout=5) as client,
    ):
        job = client.jobs.create(image_url=IMAGE, audio_url=AUDIO)
        client.jobs.wait(job)
        right = client.jobs.download(job, Path(folder, "right.mp4")).read_bytes()
        while time.monotonic() < end:
            control.post("/__mock__/reset")
            for spec in faults.choices(FAULTS, k=faults.randrange(60)):
                control.post("/__mock__/faults", json={"spec": f"{spec};after={faults.randrange(40)}"})
            until = min(time.monotonic() + ROUND, end)
            place = address["url"], address["api_key"], Path(folder)
            Round(client, *place, right, count, until).run()
            count.reckon(control.get("/__mock__/journal", timeout=60).json())
            sizes.append(_size())
            left = max(end - time.monotonic(), 0)
            print(
                f"{left:5.0f} s left  {_line(count)}  {sizes[-1][0]:.0f} MiB, {sizes[-1][1]} files",
                flush=True,
            )
    return _report(count, sizes)


def _size() -> tuple[float, int]:
    """Return MiB in memory, and open files; zeros where the system does not tell."""
    gc.collect()
    proc = Path("/proc/self")
    if not proc.exists():
        return 0.0, 0
    pages = int((proc / "statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, len(list((proc / "fd").iterdir()))


def _line(count: Count) -> str:
    done = ", ".join(f"{number} {what}" for what, number in count.calls.items())
    broken = f"{count.twice} twice, {count.lost} lost, {count.wrong_files} wrong files"
    return f"{done}, {sum(count.errors.values())} errors; {broken}"


def _report(count: Count, sizes: list[tuple[float, int]]) -> int:
    print("\nErrors that were raised, all of them the SDK's own:")
    for what, number in count.errors.most_common():
        print(f"  {number:6} {what}")
    (early, _), (late, files) = sizes[len(sizes) // 10], sizes[-1]
    print(f"\n{_line(count)}")
    print(
        f"memory: {early:.0f} MiB early, {late:.0f} MiB at the end; open files: {sizes[0][1]}, then {files}"
    )
    for each in count.unexpected[:20]:
        print(f"UNEXPECTED {each}")
    # Each caller may keep an idle connection to the API and to storage.
    grown = late - early > GROWTH or files - sizes[0][1] > 2 * CALLERS or threading.active_count() > 1
    print("NOT AS PROMISED" if count.bad or grown else "all as promised")
    return 1 if count.bad or grown else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
