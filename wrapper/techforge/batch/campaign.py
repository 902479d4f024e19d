"""`client.batch`: from a manifest to the videos, in either colour."""

# ruff: noqa: SLF001
# pyright: reportPrivateUsage=false
# The client's settings and driver are of the same package.

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import frozen

from techforge._client import AsyncTechForge
from techforge._drivers.aio import AsyncDriver
from techforge._flows.create import create
from techforge.batch import changes
from techforge.batch.database import LedgerError
from techforge.batch.dispatch import default_dispatcher, enqueue
from techforge.batch.ledger import Entry, Ledger, Loaded, State
from techforge.batch.manifest import BadRow, Row, read
from techforge.batch.options import Options
from techforge.batch.runner import Run
from techforge.batch.worker import Worker, set_bounds, sharing
from techforge.errors import ConfigurationError, InvalidArgumentError, TechForgeError
from techforge.models import Job

if TYPE_CHECKING:
    import os
    from collections.abc import (
        AsyncGenerator,
        Callable,
        Generator,
        Iterable,
        Iterator,
        Mapping,
    )

    from techforge._client import TechForge
    from techforge._config import Settings
    from techforge.batch.dispatch import Dispatcher

    Manifest: TypeAlias = str | os.PathLike[str] | Iterable[Mapping[str, Any]]
    LedgerPath: TypeAlias = str | os.PathLike[str]
    OnProgress: TypeAlias = Callable[[Run], object]

LEDGER = "techforge.sqlite"
_SHOWN = 20
"""Bad rows that an error shows; it knows how many more there are."""


class BadManifestError(TechForgeError):
    """A manifest with bad rows; nothing was added to the ledger, and nothing was sent.

    `bad` holds the first of them, `count` says how many there are.
    """

    def __init__(self, bad: list[BadRow], count: int) -> None:
        self.bad, self.count = bad, count
        more = f"\n… and {count - len(bad)} more" if count > len(bad) else ""
        rows = "\n".join(map(str, bad))
        super().__init__(f"{count} rows of the manifest are bad, and nothing was submitted:\n{rows}{more}")


@frozen
class Loading:
    """What became of a manifest: rows that are new, rows that were known, and bad ones that were left out."""

    loaded: Loaded
    bad: list[BadRow]
    bad_count: int


def load(ledger: Ledger, manifest: Manifest, settings: Settings, *, skip_bad: bool = False) -> Loading:
    """Check every row of a manifest, and add those that are new.

    Raises:
        ManifestError: it cannot be read.
        BadManifestError: some rows are bad, and `skip_bad` is False.
    """
    bad: list[BadRow] = []
    count = 0
    checked: set[str] = set()

    def good() -> Iterator[Row]:
        nonlocal count
        for row in read(manifest):
            problem = row if isinstance(row, BadRow) else _problem(row, settings, checked)
            if problem is None:
                yield row  # type: ignore[misc]
                continue
            count += 1
            if len(bad) < _SHOWN:
                bad.append(problem)
        if count and not skip_bad:
            raise BadManifestError(bad, count)

    return Loading(ledger.load(good()), bad, count)


def _problem(row: Row, settings: Settings, checked: set[str]) -> BadRow | None:
    """Ask the client itself, once for rows that differ in their files alone."""
    files = {"image_url", "audio_url", "project_id"}
    rest = json.dumps(
        {name: value for name, value in row.params.items() if name not in files}, sort_keys=True
    )
    if rest in checked:
        return None
    try:
        create(settings, **row.params).close()
    except InvalidArgumentError as error:
        value = str(row.params.get(error.field, ""))
        return BadRow(row.line, error.field, value, str(error).removeprefix(f"{error.field}: "))
    if len(checked) < 10_000:
        checked.add(rest)
    return None


class AsyncBatch:
    """Campaigns of an `AsyncTechForge`."""

    def __init__(self, client: AsyncTechForge) -> None:
        self._client = client

    async def run(
        self,
        manifest: Manifest = (),
        *,
        ledger: LedgerPath = LEDGER,
        skip_bad: bool = False,
        dispatcher: Dispatcher | None = None,
        on_progress: OnProgress | None = None,
        **options: Any,
    ) -> AsyncGenerator[Entry]:
        """Submit every row once, wait for the jobs, fetch the videos, and yield each row when it has ended.

        `manifest` is a CSV, JSONL or Parquet file, or an iterable of mappings; rows that the ledger knows are
        not added again, so that the same call goes on where an earlier one was stopped. A row ends as `done`,
        `failed`, or `unknown`: then its submission was not answered, and it is not sent again. `on_progress`
        is called with the `Run` about ten times a second. `options` are those of `Options`.

        Raises:
            ManifestError, BadManifestError: the manifest cannot be used; nothing was sent.
            LedgerError: the ledger cannot be used, or another process is running this campaign.
            InvalidArgumentError: an option is wrong.

        >>> rows = [{"image_url": "https://a.example/i.png", "audio_url": "https://a.example/a.mp3"}]
        >>> [row.state.value async for row in client.batch.run(rows, ledger=folder / "ledger.sqlite")]
        ['done']
        """
        chosen = _options(options)
        with Ledger(ledger) as book, book.alone():
            await asyncio.to_thread(load, book, manifest, self._client._settings, skip_bad=skip_bad)
            # Its end comes before the ledger's: what is under way is still to be noted.
            async with contextlib.aclosing(
                self._entries(book, ledger, chosen, dispatcher, on_progress)
            ) as entries:
                async for entry in entries:
                    yield entry

    async def work(
        self,
        ledger: LedgerPath,
        *,
        stay: bool = False,
        dispatcher: Dispatcher | None = None,
        on_progress: OnProgress | None = None,
        **options: Any,
    ) -> AsyncGenerator[Entry]:
        """Join others in a campaign whose ledger is in PostgreSQL, and yield each row that ends here.

        `ledger` is a URL: `postgresql://user@host/database?campaign=spring`. `stay` waits for more rows
        when all have ended; the rest is as for `run`.

        Raises:
            LedgerError: there is no such campaign, or its ledger cannot be shared.
            InvalidArgumentError: an option is wrong.

        >>> async for row in client.batch.work(ledger_url):
        ...     print(row.state)
        """
        chosen = _options(options)
        with Ledger(ledger, new=False) as book:
            if not book.is_shared:
                raise LedgerError(f"{book.name} is one process's own; several need PostgreSQL")
            joining = self._entries(book, ledger, chosen, dispatcher, on_progress, joins=True, stay=stay)
            async with contextlib.aclosing(joining) as entries:
                async for entry in entries:
                    yield entry

    async def _entries(
        self,
        ledger: Ledger,
        place: LedgerPath,
        options: Options,
        dispatcher: Dispatcher | None,
        on_progress: OnProgress | None,
        *,
        joins: bool = False,
        stay: bool = False,
    ) -> AsyncGenerator[Entry]:
        if ledger.is_shared:
            chosen = dispatcher or default_dispatcher(str(place))
            if not joins:
                bounds = await asyncio.to_thread(set_bounds, ledger, options)
                await enqueue(chosen, await asyncio.to_thread(ledger.chunks, bounds.last))
            client = await asyncio.to_thread(sharing, self._client, ledger)
            run: Run = Worker(client, ledger, options, dispatcher=chosen, stay=stay)
        else:
            await asyncio.to_thread(ledger.abandon)
            run = Run(self._client, ledger, options)
        async with contextlib.aclosing(run.results()) as results, _progress(run, on_progress):
            async for entry in results:
                yield entry

    async def check_unknown(self, ledger: Ledger) -> int:
        """Ask storage for the videos of unknown rows; those that are there are submitted, and can be run on.

        A video's place follows from its job's id. So this is possible for rows whose answer held one; where
        none came, the project of the row is what your job service, or webhook, knows the job by.

        Raises:
            APIError: storage could not be asked.

        >>> with Ledger(folder / "ledger.sqlite") as ledger:
        ...     await client.batch.check_unknown(ledger)
        0
        """
        return await _check(self._client, ledger)


class Batch:
    """Campaigns of a `TechForge`; they run in a thread of their own."""

    def __init__(self, client: TechForge) -> None:
        self._client = client

    def check_unknown(self, ledger: Ledger) -> int:
        """Ask storage for the videos of unknown rows; those that are there are submitted, and can be run on.

        A video's place follows from its job's id. So this is possible for rows whose answer held one; where
        none came, the project of the row is what your job service, or webhook, knows the job by.

        Raises:
            APIError: storage could not be asked.

        >>> with Ledger(folder / "ledger.sqlite") as ledger:
        ...     client.batch.check_unknown(ledger)
        0
        """

        async def check() -> int:
            async with _async_client(self._client._settings) as client:
                return await _check(client, ledger)

        # In a thread: a notebook has a loop of its own.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, check()).result()

    def run(
        self,
        manifest: Manifest = (),
        *,
        ledger: LedgerPath = LEDGER,
        skip_bad: bool = False,
        dispatcher: Dispatcher | None = None,
        on_progress: OnProgress | None = None,
        **options: Any,
    ) -> Generator[Entry]:
        """Submit every row once, wait for the jobs, fetch the videos, and yield each row when it has ended.

        `manifest` is a CSV, JSONL or Parquet file, or an iterable of mappings; rows that the ledger knows are
        not added again, so that the same call goes on where an earlier one was stopped. A row ends as `done`,
        `failed`, or `unknown`: then its submission was not answered, and it is not sent again. `on_progress`
        is called with the `Run` about ten times a second. `options` are those of `Options`.

        Raises:
            ManifestError, BadManifestError: the manifest cannot be used; nothing was sent.
            LedgerError: the ledger cannot be used, or another process is running this campaign.
            InvalidArgumentError: an option is wrong.

        >>> rows = [{"image_url": "https://a.example/i.png", "audio_url": "https://a.example/a.mp3"}]
        >>> [row.state.value for row in client.batch.run(rows, ledger=folder / "ledger.sqlite")]
        ['done']
        """
        options |= {"dispatcher": dispatcher, "on_progress": on_progress}
        return self._entries(
            lambda client: client.batch.run(manifest, ledger=ledger, skip_bad=skip_bad, **options)
        )

    def work(
        self,
        ledger: LedgerPath,
        *,
        stay: bool = False,
        dispatcher: Dispatcher | None = None,
        on_progress: OnProgress | None = None,
        **options: Any,
    ) -> Generator[Entry]:
        """Join others in a campaign whose ledger is in PostgreSQL, and yield each row that ends here.

        `ledger` is a URL: `postgresql://user@host/database?campaign=spring`. `stay` waits for more rows
        when all have ended; the rest is as for `run`.

        Raises:
            LedgerError: there is no such campaign, or its ledger cannot be shared.
            InvalidArgumentError: an option is wrong.

        >>> for row in client.batch.work(ledger_url):
        ...     print(row.state)
        """
        options |= {"dispatcher": dispatcher, "on_progress": on_progress}
        return self._entries(lambda client: client.batch.work(ledger, stay=stay, **options))

    def _entries(self, begin: Callable[[AsyncTechForge], AsyncGenerator[Entry]]) -> Generator[Entry]:
        if self._client._driver.given is not None:
            raise ConfigurationError("batch: a client with an http_client= of your own cannot run campaigns")
        ended: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        failures: list[BaseException] = []
        loop = asyncio.new_event_loop()
        task = loop.create_task(_run(self._client._settings, ended, begin))

        def work() -> None:
            try:
                loop.run_until_complete(task)
            except asyncio.CancelledError:
                pass
            except BaseException as error:  # noqa: BLE001 - it belongs to the caller
                failures.append(error)
            finally:
                loop.close()
                ended.put(None)

        thread = threading.Thread(target=work, name="techforge-batch")
        thread.start()
        try:
            while (entry := ended.get()) is not None:
                yield entry
        finally:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                loop.call_soon_threadsafe(task.cancel)
            thread.join()
        if failures:
            raise failures[0]


async def _run(
    settings: Settings,
    ended: queue.SimpleQueue[Entry | None],
    begin: Callable[[AsyncTechForge], AsyncGenerator[Entry]],
) -> None:
    async with (
        _async_client(settings) as client,
        contextlib.aclosing(begin(client)) as results,
    ):
        async for entry in results:
            ended.put(entry)


def _async_client(settings: Settings) -> AsyncTechForge:
    client = object.__new__(AsyncTechForge)
    client._use(settings, AsyncDriver(None))
    return client


async def _check(client: AsyncTechForge, ledger: Ledger) -> int:
    found = 0
    for entry in await asyncio.to_thread(lambda: list(ledger.entries(State.UNKNOWN))):
        if entry.job_id and await client.jobs.find(Job(entry.job_id, entry.project_id, "unknown")):
            change = changes.submitted(entry.n, entry.attempts, entry.job_id, 0.0)
            found += sum(await asyncio.to_thread(ledger.apply, change))
    return found


def _options(options: dict[str, Any]) -> Options:
    unknown = options.keys() - {name.removeprefix("_") for name in Options.__annotations__}
    if unknown:
        allowed = ", ".join(Options.__annotations__)
        raise InvalidArgumentError(min(unknown), f"is not an option of a batch; there are {allowed}")
    return Options(**options)


@contextlib.asynccontextmanager
async def _progress(run: Run, on_progress: OnProgress | None) -> AsyncGenerator[None]:
    async def tell() -> None:
        while on_progress is not None:
            on_progress(run)
            await asyncio.sleep(0.1)

    task = asyncio.create_task(tell())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task  # what the user's code has raised is the user's to see
        if on_progress is not None:
            on_progress(run)
