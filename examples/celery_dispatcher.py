"""Distribute the rows of a campaign with Celery. A dispatcher has three methods.

    celery_app = Celery("campaign", broker="redis://localhost")
    with TechForge() as client:
        dispatcher = CeleryDispatcher(celery_app)
        for row in client.batch.run("campaign.csv", ledger="postgresql://…", dispatcher=dispatcher):
            print(row.key, row.state)

Other processes join with `client.batch.work("postgresql://…", dispatcher=CeleryDispatcher(celery_app))`.
Celery may deliver a chunk twice: the ledger lets each row be submitted once.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from techforge.batch import Chunk

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from celery import Celery

TASK = "techforge.submit"


class CeleryDispatcher:
    """Hands chunks to Celery workers. Each process of the campaign runs one in a thread."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        # Acknowledged late: a chunk whose worker dies is delivered again.
        app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True, worker_prefetch_multiplier=1)

    async def enqueue(self, chunks: Sequence[Chunk]) -> None:
        """Queue these chunks for the workers."""
        for chunk in chunks:
            await asyncio.to_thread(self._app.send_task, TASK, [chunk.first, chunk.last])

    async def run_worker(self, process: Callable[[Chunk], Awaitable[None]]) -> None:
        """Call `process` with chunks, several concurrently, until cancelled."""
        loop = asyncio.get_running_loop()

        def submit(first: int, last: int) -> None:
            async def work() -> None:
                await process(Chunk(first, last))

            asyncio.run_coroutine_threadsafe(work(), loop).result()

        self._app.task(name=TASK)(submit)
        worker = self._app.WorkController(pool="threads", concurrency=4, quiet=True)
        try:
            await asyncio.to_thread(worker.start)
        finally:
            await asyncio.to_thread(worker.stop)

    async def take_over(self) -> None:
        """Do nothing: Celery's broker delivers the chunks of dead workers again by itself."""


if __name__ == "__main__":
    print(f"usage: {__doc__}", file=sys.stderr)  # noqa: T201
    sys.exit(2)
