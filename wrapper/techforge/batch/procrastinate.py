"""A dispatcher that uses Procrastinate, in the same PostgreSQL database as the ledger."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg
from attrs import asdict
from procrastinate import App, PsycopgConnector
from procrastinate.exceptions import ConnectorException
from procrastinate.schema import SchemaManager

from techforge.batch.ledger import Chunk
from techforge.batch.postgres import CREATION_LOCK
from techforge.batch.postgres_session import Address

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

CONCURRENT_CHUNKS = 4
"""A worker processes several chunks, because the rows of one chunk may all be waiting for a retry."""
POLL_INTERVAL = 1.0


class Procrastinate:
    """A `Dispatcher`. Its tables are in the ledger's schema.

    Give each campaign its own `queue`. Otherwise a worker drops the chunks of other campaigns, and their rows
    are delayed until their own workers find them. A worker without a heartbeat for `worker_timeout` seconds
    counts as dead.
    """

    def __init__(self, url: str, queue: str = "techforge", *, worker_timeout: float = 30.0) -> None:
        self._address = Address.of(url)
        self._timeout = worker_timeout
        connector = PsycopgConnector(
            conninfo=self._address.info, min_size=1, max_size=4, configure=self._configure
        )
        self._app = App(connector=connector)
        self._process: Callable[[Chunk], Awaitable[None]] | None = None
        self._queue = queue
        self._task = self._app.task(name="techforge.submit", queue=self._queue)(self._submit)
        self._is_open = False

    async def enqueue(self, chunks: Sequence[Chunk]) -> None:
        """Queue these chunks for the workers."""
        async with self._open():
            for start in range(0, len(chunks), 1000):
                await self._task.batch_defer_async(*map(asdict, chunks[start : start + 1000]))

    async def run_worker(self, process: Callable[[Chunk], Awaitable[None]]) -> None:
        """Call `process` with chunks, several concurrently, until cancelled."""
        self._process = process
        async with self._open():
            await self._app.run_worker_async(
                queues=[self._queue],
                concurrency=CONCURRENT_CHUNKS,
                fetch_job_polling_interval=POLL_INTERVAL,
                update_heartbeat_interval=self._timeout / 3,
                stalled_worker_timeout=self._timeout,
                shutdown_graceful_timeout=2.0,
                delete_jobs="always",  # the ledger has the results
                install_signal_handlers=False,
            )

    async def take_over(self) -> None:
        """Queue the chunks of dead workers again."""
        async with self._open():
            for job in await self._app.job_manager.get_stalled_jobs(
                queue=self._queue, seconds_since_heartbeat=self._timeout
            ):
                with suppress(ConnectorException):  # another worker was faster
                    await self._app.job_manager.retry_job(job)

    async def _submit(self, first: int, last: int) -> None:
        if self._process is not None:
            await self._process(Chunk(first, last))

    async def _configure(self, db: psycopg.AsyncConnection[Any]) -> None:
        await db.execute(*self._address.statement)
        await db.commit()  # a rollback would undo the settings

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[None]:
        if self._is_open:
            yield
            return
        async with await psycopg.AsyncConnection.connect(self._address.info) as db:
            await self._configure(db)
            await db.execute("SELECT pg_advisory_xact_lock(%s)", [CREATION_LOCK])
            found = await (await db.execute("SELECT to_regclass('procrastinate_jobs')")).fetchone()
            if found == (None,):
                await db.execute(SchemaManager.get_schema())
        async with self._app.open_async():
            self._is_open = True
            try:
                yield
            finally:
                self._is_open = False
