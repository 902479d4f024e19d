"""`client.batch`: from a manifest to the videos, in either colour."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import frozen

from techforge._flows.create import create
from techforge._flows.probe import probe
from techforge._flows.wait import poll_once
from techforge._session import AsyncSession
from techforge.batch import changes
from techforge.batch.account import Account
from techforge.batch.database import LedgerError
from techforge.batch.dispatch import default_dispatcher, enqueue
from techforge.batch.fetcher import fetch
from techforge.batch.ledger import DEFAULT_CAMPAIGN, Entry, Ledger, State
from techforge.batch.manifest import BadRow, Row, read
from techforge.batch.options import Options, RunOptions
from techforge.batch.runner import Run
from techforge.batch.wording import counted
from techforge.batch.worker import Worker, set_bounds, sharing
from techforge.errors import ConfigurationError, InvalidArgumentError, TechForgeError
from techforge.models import Job

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        Callable,
        Collection,
        Generator,
        Iterable,
        Iterator,
        Mapping,
    )
    from typing import Unpack

    from techforge._config import Settings
    from techforge._session import Session
    from techforge.batch.dispatch import Dispatcher
    from techforge.batch.loading import Loaded, OnConflict, OnRemoved

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
        are = "is" if count == 1 else "are"
        super().__init__(
            f"{counted(count, 'row')} of the manifest {are} bad, and nothing was submitted:\n{rows}{more}"
        )


@frozen
class Loading:
    """What became of a manifest: what was loaded, and the first of the bad rows that were skipped."""

    loaded: Loaded
    bad: list[BadRow]


def campaign_of(manifest: Manifest | None) -> str | None:
    """Return the name that a manifest gives to its campaign; None without a manifest."""
    if manifest is None or manifest == ():
        return None
    return Path(manifest).stem if isinstance(manifest, str | os.PathLike) else DEFAULT_CAMPAIGN


def removed_rows_of(manifest: Manifest | None, campaign: str | None) -> OnRemoved:
    """Return what to do with pending rows that a manifest does not have, if nobody said so.

    A file is the whole of its campaign. A campaign that the user names may grow by several manifests.
    """
    return "stop" if campaign is None and isinstance(manifest, str | os.PathLike) else "submit"


def open_campaign(
    place: LedgerPath, settings: Settings, campaign: str | None, manifest: Manifest | None = None
) -> Ledger:
    """Open a campaign to spend money on: it must belong to the client's account.

    With a manifest, the ledger and the campaign are created if they do not exist.

    Raises:
        LedgerError: it cannot be used.
    """
    account = Account.of(settings)
    name = campaign or campaign_of(manifest)
    ledger = Ledger(place, name, api=account.api, new=campaign_of(manifest) is not None)
    try:
        ledger.assign(account)
    except BaseException:
        ledger.close()
        raise
    return ledger


def load(
    ledger: Ledger,
    manifest: Manifest,
    settings: Settings,
    *,
    skip_bad: bool = False,
    allow_columns: Collection[str] = (),
    on_conflict: OnConflict = "stop",
    on_removed: OnRemoved = "submit",
    approve: Callable[[Loaded], object] | None = None,
) -> Loading:
    """Check every row of a manifest, and add those that are new; `Ledger.load` says what else happens.

    Raises:
        ManifestError: it cannot be read.
        BadManifestError: some rows are bad, and `skip_bad` is False.
        RowConflictError: a row_key has two contents.
    """
    bad: list[BadRow] = []
    count = 0
    check = _Check(settings)
    source = Path(manifest).name if isinstance(manifest, str | os.PathLike) else "rows"

    def rows() -> Iterator[Row | BadRow]:
        nonlocal count
        for row in read(manifest, allow_columns=allow_columns):
            problem = row if isinstance(row, BadRow) else check(row)
            if problem is None:
                yield row
                continue
            count += 1
            if len(bad) < _SHOWN:
                bad.append(problem)
            if skip_bad:
                yield problem
        if count and not skip_bad:
            raise BadManifestError(bad, count)

    try:
        loaded = ledger.load(
            rows(), source=source, on_conflict=on_conflict, on_removed=on_removed, approve=approve
        )
    except TechForgeError as error:
        if not sum(ledger.counts().values()):
            said = str(error).partition("\n")[0].rstrip(":")
            ledger.update("refused", lambda _: f"{source}: {said}")
        raise
    return Loading(loaded, bad)


class _Check:
    """Asks the client itself about a row; what was found good once is not asked again."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._checked: set[str] = set()

    def __call__(self, row: Row) -> BadRow | None:
        rest = {name: value for name, value in row.params.items() if name not in _FILES}
        # A host is looked at once, like everything else that rows have in common.
        facts = {json.dumps(rest, sort_keys=True), *(row.params[name].split("/", 3)[2] for name in _MEDIA)}
        if facts <= self._checked:
            return None
        try:
            create(self._settings, **row.params).close()
        except InvalidArgumentError as error:
            value = str(row.params.get(error.field, ""))
            return BadRow(row.line, error.field, value, str(error).removeprefix(f"{error.field}: "))
        if len(self._checked) < 10_000:
            self._checked |= facts
        return None


_MEDIA = "image_url", "audio_url"
_FILES = frozenset({*_MEDIA, "project_id"})


class AsyncBatch:
    """Campaigns of an `AsyncTechForge`."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def run(
        self,
        manifest: Manifest | None = None,
        *,
        ledger: LedgerPath = LEDGER,
        campaign: str | None = None,
        skip_bad: bool = False,
        allow_columns: Collection[str] = (),
        on_conflict: OnConflict = "stop",
        on_removed: OnRemoved | None = None,
        dispatcher: Dispatcher | None = None,
        on_progress: OnProgress | None = None,
        **options: Unpack[RunOptions],
    ) -> AsyncGenerator[Entry]:
        """Submit every row once, wait for the jobs, download the videos, and yield each row when it ends.

        `manifest` is a CSV, JSONL or Parquet file, or an iterable of mappings; without one, the campaign
        continues. A campaign is named after its file (`default` for mappings), or `campaign` names it. Rows
        that it has already are not added again. A row ends as `done`, `failed`, or `unknown`: its submission
        was not answered, and it is not sent again. `skip_bad` leaves bad rows out, as `skipped`.
        `on_conflict` says what to do with a row_key whose content has changed: `stop`, `keep` the first
        content, or `replace` it where no job was made. `on_removed` says what to do with pending rows that
        are no longer in the file: `stop` (the default for a file without `campaign`), `submit` them as well,
        or `withdraw` them. `allow_columns` names columns of your own that look
        like a misspelt field.
        `on_progress` is called with the `Run` about ten times a second. `options` are those of `RunOptions`.

        Raises:
            ManifestError, BadManifestError, RowConflictError: the manifest cannot be used; nothing was sent.
            LedgerError: the ledger cannot be used, or another process is running a campaign of it.
            InvalidArgumentError: an option is wrong.
            APIConnectionError, AuthenticationError: the API cannot be reached, or refuses the key; nothing
                was submitted.
            NoProgressError: nothing succeeded for `give_up_after` seconds.

        >>> rows = [{"image_url": "https://a.example/i.png", "audio_url": "https://a.example/a.mp3"}]
        >>> [row.state.value async for row in client.batch.run(rows, ledger=folder / "ledger.sqlite")]
        ['done']
        """
        self._session.check_loop()
        chosen = Options.of(options)
        chosen.make_folder()
        with open_campaign(ledger, self._session.settings, campaign, manifest) as book, book.alone():
            if manifest is not None:
                await asyncio.to_thread(
                    load,
                    book,
                    manifest,
                    self._session.settings,
                    skip_bad=skip_bad,
                    allow_columns=allow_columns,
                    on_conflict=on_conflict,
                    on_removed=on_removed or removed_rows_of(manifest, campaign),
                )
            if await asyncio.to_thread(book.is_pending):
                await self._session.run(probe(self._session.settings))
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
        campaign: str | None = None,
        stay: bool = False,
        dispatcher: Dispatcher | None = None,
        on_progress: OnProgress | None = None,
        **options: Unpack[RunOptions],
    ) -> AsyncGenerator[Entry]:
        """Join others in a campaign whose ledger is in PostgreSQL, and yield each row that ends here.

        `ledger` is a URL: `postgresql://user@host/database`. `stay` waits for more rows when all have ended;
        the rest is as for `run`.

        Raises:
            LedgerError: there is no such campaign, or its ledger cannot be shared.
            InvalidArgumentError: an option is wrong.

        >>> async for row in client.batch.work(ledger_url):
        ...     print(row.state)
        """
        self._session.check_loop()
        chosen = Options.of({"give_up_after": None, **options})
        chosen.make_folder()
        with open_campaign(ledger, self._session.settings, campaign) as book:
            if not book.is_shared:
                raise LedgerError(f"{book.name} serves one process at a time; several need PostgreSQL")
            joining = self._entries(book, ledger, chosen, dispatcher, on_progress, joins=True, stay=stay)
            async with contextlib.aclosing(joining) as entries:
                async for entry in entries:
                    yield entry

    async def fetch(
        self,
        ledger: LedgerPath = LEDGER,
        *,
        out: str | os.PathLike[str],
        name: str = "{row_key}.mp4",
        campaign: str | None = None,
        downloads: int = 4,
    ) -> AsyncGenerator[Entry]:
        """Download every finished video that is not in `out`, and yield its row.

        The file names follow from `name`, as for `run`. If a download fails, the row's `file` is None and
        `reason` says why.

        Raises:
            LedgerError: the ledger cannot be used.
            InvalidArgumentError: nothing can be written to `out`.

        >>> rows = [{"image_url": "https://a.example/i.png", "audio_url": "https://a.example/a.mp3"}]
        >>> ended = [row async for row in client.batch.run(rows, ledger=folder / "ledger.sqlite")]
        >>> [row.file is not None async for row in client.batch.fetch(folder / "ledger.sqlite", out=folder)]
        [True]
        """
        self._session.check_loop()
        chosen = Options(out=out, name=name, downloads=downloads)
        chosen.make_folder()
        with open_campaign(ledger, self._session.settings, campaign) as book:
            async with contextlib.aclosing(fetch(self._session, book, chosen)) as entries:
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
            chosen = dispatcher or default_dispatcher(str(place), ledger.campaign.id)
            if not joins:
                bounds = await asyncio.to_thread(set_bounds, ledger, options)
                await enqueue(chosen, await asyncio.to_thread(ledger.chunks, bounds.last))
            session = await asyncio.to_thread(sharing, self._session, ledger)
            run: Run = Worker(session, ledger, options, dispatcher=chosen, stay=stay)
        else:
            await asyncio.to_thread(ledger.abandon)
            run = Run(self._session, ledger, options)
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
        return await _check_unknown(self._session, ledger)


class Batch:
    """Campaigns of a `TechForge`; they run in a thread of their own."""

    def __init__(self, session: Session) -> None:
        self._session = session

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
            async with _opened(self._session.settings) as session:
                return await _check_unknown(session, ledger)

        # In a thread: a notebook has a loop of its own.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, check()).result()

    def run(
        self,
        manifest: Manifest | None = None,
        *,
        ledger: LedgerPath = LEDGER,
        campaign: str | None = None,
        skip_bad: bool = False,
        allow_columns: Collection[str] = (),
        on_conflict: OnConflict = "stop",
        on_removed: OnRemoved | None = None,
        dispatcher: Dispatcher | None = None,
        on_progress: OnProgress | None = None,
        **options: Unpack[RunOptions],
    ) -> Generator[Entry]:
        """Submit every row once, wait for the jobs, download the videos, and yield each row when it ends.

        `manifest` is a CSV, JSONL or Parquet file, or an iterable of mappings; without one, the campaign
        continues. A campaign is named after its file (`default` for mappings), or `campaign` names it. Rows
        that it has already are not added again. A row ends as `done`, `failed`, or `unknown`: its submission
        was not answered, and it is not sent again. `skip_bad` leaves bad rows out, as `skipped`.
        `on_conflict` says what to do with a row_key whose content has changed: `stop`, `keep` the first
        content, or `replace` it where no job was made. `on_removed` says what to do with pending rows that
        are no longer in the file: `stop` (the default for a file without `campaign`), `submit` them as well,
        or `withdraw` them. `allow_columns` names columns of your own that look
        like a misspelt field.
        `on_progress` is called with the `Run` about ten times a second. `options` are those of `RunOptions`.

        Raises:
            ManifestError, BadManifestError, RowConflictError: the manifest cannot be used; nothing was sent.
            LedgerError: the ledger cannot be used, or another process is running a campaign of it.
            InvalidArgumentError: an option is wrong.
            APIConnectionError, AuthenticationError: the API cannot be reached, or refuses the key; nothing
                was submitted.
            NoProgressError: nothing succeeded for `give_up_after` seconds.

        >>> rows = [{"image_url": "https://a.example/i.png", "audio_url": "https://a.example/a.mp3"}]
        >>> [row.state.value for row in client.batch.run(rows, ledger=folder / "ledger.sqlite")]
        ['done']
        """
        return self._entries(
            lambda batch: batch.run(
                manifest,
                ledger=ledger,
                campaign=campaign,
                skip_bad=skip_bad,
                allow_columns=allow_columns,
                on_conflict=on_conflict,
                on_removed=on_removed,
                dispatcher=dispatcher,
                on_progress=on_progress,
                **options,
            )
        )

    def work(
        self,
        ledger: LedgerPath,
        *,
        campaign: str | None = None,
        stay: bool = False,
        dispatcher: Dispatcher | None = None,
        on_progress: OnProgress | None = None,
        **options: Unpack[RunOptions],
    ) -> Generator[Entry]:
        """Join others in a campaign whose ledger is in PostgreSQL, and yield each row that ends here.

        `ledger` is a URL: `postgresql://user@host/database`. `stay` waits for more rows when all have ended;
        the rest is as for `run`.

        Raises:
            LedgerError: there is no such campaign, or its ledger cannot be shared.
            InvalidArgumentError: an option is wrong.

        >>> for row in client.batch.work(ledger_url):
        ...     print(row.state)
        """
        return self._entries(
            lambda batch: batch.work(
                ledger,
                campaign=campaign,
                stay=stay,
                dispatcher=dispatcher,
                on_progress=on_progress,
                **options,
            )
        )

    def fetch(
        self,
        ledger: LedgerPath = LEDGER,
        *,
        out: str | os.PathLike[str],
        name: str = "{row_key}.mp4",
        campaign: str | None = None,
        downloads: int = 4,
    ) -> Generator[Entry]:
        """Download every finished video that is not in `out`, and yield its row.

        The file names follow from `name`, as for `run`. If a download fails, the row's `file` is None and
        `reason` says why.

        Raises:
            LedgerError: the ledger cannot be used.
            InvalidArgumentError: nothing can be written to `out`.

        >>> rows = [{"image_url": "https://a.example/i.png", "audio_url": "https://a.example/a.mp3"}]
        >>> ended = [row for row in client.batch.run(rows, ledger=folder / "ledger.sqlite")]
        >>> [row.file is not None for row in client.batch.fetch(folder / "ledger.sqlite", out=folder)]
        [True]
        """
        return self._entries(
            lambda batch: batch.fetch(ledger, out=out, name=name, campaign=campaign, downloads=downloads)
        )

    def _entries(self, begin: Callable[[AsyncBatch], AsyncGenerator[Entry]]) -> Generator[Entry]:
        if self._session.driver.given is not None:
            raise ConfigurationError("batch: a client with an http_client= of your own cannot run campaigns")
        ended: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        failures: list[BaseException] = []
        loop = asyncio.new_event_loop()
        task = loop.create_task(_run(self._session.settings, ended, begin))

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
    begin: Callable[[AsyncBatch], AsyncGenerator[Entry]],
) -> None:
    async with (
        _opened(settings) as session,
        contextlib.aclosing(begin(AsyncBatch(session))) as results,
    ):
        async for entry in results:
            ended.put(entry)


@contextlib.asynccontextmanager
async def _opened(settings: Settings) -> AsyncGenerator[AsyncSession]:
    session = AsyncSession(settings)
    try:
        yield session
    finally:
        await session.close()


async def _check_unknown(session: AsyncSession, ledger: Ledger) -> int:
    found = 0
    for entry in await asyncio.to_thread(lambda: list(ledger.entries(State.UNKNOWN))):
        if entry.job_id is None:
            continue
        if await session.run(poll_once(Job(entry.job_id, entry.project_id, "unknown"), session.settings)):
            change = changes.submitted(entry.n, entry.attempts, entry.job_id, 0.0)
            found += sum(await asyncio.to_thread(ledger.apply, change))
    return found


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
