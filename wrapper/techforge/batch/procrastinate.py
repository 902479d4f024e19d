"""Chunks handed out by Procrastinate, on the PostgreSQL that the ledger is in."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import psycopg
from attrs import asdict
from procrastinate import App, PsycopgConnector
from procrastinate.exceptions import ConnectorException
from procrastinate.schema import SchemaManager

from techforge.batch.ledger import Chunk
from techforge.batch.postgres import MAKING, connection_info

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

_AT_ONCE = 4
"""Chunks that a worker is at, so that one whose rows have to wait does not keep it from others."""
_POLL_INTERVAL = 1.0


class Procrastinate:
    """A `Dispatcher`; its tables are beside the ledger's.

    Give each campaign a `queue` of its own: a worker loses the chunks of other campaigns, whose rows then
    wait until a worker of theirs finds them. A worker that says nothing for `worker_timeout` seconds counts
    as dead.
    """

    def __init__(self, url: str, queue: str = "techforge", *, worker_timeout: float = 30.0) -> None:
        self._info = connection_info(url)
        self._timeout = worker_timeout
        self._app = App(connector=PsycopgConnector(conninfo=self._info, min_size=1, max_size=4))
        self._process: Callable[[Chunk], Awaitable[None]] | None = None
        self._queue = queue
        self._task = self._app.task(name="techforge.submit", queue=self._queue)(self._submit)
        self._is_open = False

    async def enqueue(self, chunks: Sequence[Chunk]) -> None:
        """Let workers have these chunks."""
        async with self._open():
            for begin in range(0, len(chunks), 1000):
                several = chunks[begin : begin + 1000]
                await self._task.batch_defer_async(*map(asdict, several))

    async def run_worker(self, process: Callable[[Chunk], Awaitable[None]]) -> None:
        """Call `process` with chunks, some at once, until cancelled."""
        self._process = process
        async with self._open():
            await self._app.run_worker_async(
                queues=[self._queue],
                concurrency=_AT_ONCE,
                fetch_job_polling_interval=_POLL_INTERVAL,
                update_heartbeat_interval=self._timeout / 3,
                stalled_worker_timeout=self._timeout,
                shutdown_graceful_timeout=2.0,
                delete_jobs="always",  # what became of rows is in the ledger
                install_signal_handlers=False,
            )

    async def take_over(self) -> None:
        """Give chunks of workers that have died to others."""
        async with self._open():
            for job in await self._app.job_manager.get_stalled_jobs(
                queue=self._queue, seconds_since_heartbeat=self._timeout
            ):
                with suppress(ConnectorException):  # another worker was faster
                    await self._app.job_manager.retry_job(job)

    async def _submit(self, first: int, last: int) -> None:
        if self._process is not None:
            await self._process(Chunk(first, last))

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[None]:
        if self._is_open:
            yield
            return
        async with await psycopg.AsyncConnection.connect(self._info) as db:
            await db.execute("SELECT pg_advisory_xact_lock(%s)", [MAKING])
            found = await (await db.execute("SELECT to_regclass('procrastinate_jobs')")).fetchone()
            if found == (None,):
                await db.execute(SchemaManager.get_schema())
        async with self._app.open_async():
            self._is_open = True
            try:
                yield
            finally:
                self._is_open = False
