"""The least that a campaign can be: a loop over aiohttp and sqlite3, written by hand.

It claims a row on disk before it is submitted, and sends the same three requests for each; it checks nothing,
waits for nobody, retries nothing, and knows no failure. What campaigns cost beside it is what those cost.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import time
from collections import deque
from typing import Any

import aiohttp

KEY = "bench-key-of-twenty-characters"


class Ledger:
    """Rows in SQLite; changes that come together are committed together."""

    def __init__(self, path: str, count: int) -> None:
        self.db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")
        self.db.execute("CREATE TABLE jobs (n INTEGER PRIMARY KEY, params TEXT, state TEXT, job_id TEXT)")
        self.db.execute("BEGIN")
        media = {"audioUrl": "https://cdn.example.com/a.mp3"}
        params = (json.dumps({"imageUrl": f"https://cdn.example.com/{n}.png", **media}) for n in range(count))
        self.db.executemany("INSERT INTO jobs (params, state) VALUES (?, 'pending')", ((p,) for p in params))
        self.db.execute("COMMIT")
        self.waiting: list[tuple[str, tuple[Any, ...], asyncio.Future[bool]]] = []
        self.task: asyncio.Task[None] | None = None

    async def change(self, sql: str, *values: Any) -> bool:
        """Carry out a statement, and wait until it is on disk."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.waiting.append((sql, values, future))
        if self.task is None or self.task.done():
            self.task = asyncio.create_task(self.write())
        return await future

    async def write(self) -> None:
        """Commit all that waits."""
        while self.waiting:
            batch, self.waiting = self.waiting, []
            done = await asyncio.to_thread(self.commit, batch)
            for (_, _, future), result in zip(batch, done, strict=True):
                future.set_result(result)

    def commit(self, batch: list[tuple[str, tuple[Any, ...], asyncio.Future[bool]]]) -> list[bool]:
        """Commit some changes."""
        self.db.execute("BEGIN IMMEDIATE")
        done = [self.db.execute(sql, values).rowcount == 1 for sql, values, _ in batch]
        self.db.execute("COMMIT")
        return done


async def run(url: str, path: str, count: int, concurrency: int) -> dict[str, float]:
    """Run a campaign to its end."""
    ledger = Ledger(path, count)
    began, cpu = time.monotonic(), time.process_time()
    pending = deque(ledger.db.execute("SELECT n, params FROM jobs WHERE state = 'pending'").fetchall())
    headers = {"x-api-key": KEY}
    async with aiohttp.ClientSession(headers=headers) as api, aiohttp.ClientSession() as storage:

        async def work() -> None:
            while pending:
                n, params = pending.popleft()
                await ledger.change("UPDATE jobs SET state = 'posting' WHERE n = ? AND state = 'pending'", n)
                body = {**json.loads(params), "projectId": str(n)}
                async with api.post(f"{url}/jobs/v2", json=body) as answer:
                    job_id = (await answer.json())["jobId"]
                await ledger.change("UPDATE jobs SET state = 'submitted', job_id = ? WHERE n = ?", job_id, n)
                async with api.get(
                    f"{url}/storage/generate-signed-path", params={"path": f"{n}/{job_id}.mp4"}
                ) as answer:
                    signed = (await answer.json())["signedUrl"]
                async with storage.get(signed, headers={"range": "bytes=0-0"}) as answer:
                    await answer.read()
                await ledger.change("UPDATE jobs SET state = 'done' WHERE n = ?", n)

        await asyncio.gather(*(work() for _ in range(concurrency)))
    return {"seconds": time.monotonic() - began, "cpu": time.process_time() - cpu}


if __name__ == "__main__":
    address, file, rows, at_once = sys.argv[1:]
    print(json.dumps(asyncio.run(run(address, file, int(rows), int(at_once)))))
