"""`client.batch`, sync and async: from a manifest to the videos."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from attrs import field, frozen

from techforge._flows.create import create
from techforge._flows.probe import probe
from techforge._flows.wait import poll_once
from techforge._logging import logger
from techforge._masking import hide
from techforge._session import AsyncSession
from techforge.batch import changes
from techforge.batch.account import Account
from techforge.batch.content import canonical
from techforge.batch.dispatch import default_dispatcher, enqueue
from techforge.batch.fetcher import fetch
from techforge.batch.ledger import DEFAULT_CAMPAIGN, Entry, Ledger, State
from techforge.batch.manifest import BadRow, Row, read
from techforge.batch.options import Options, RunOptions
from techforge.batch.runner import Run
from techforge.batch.wording import counted
from techforge.batch.worker import Worker, set_bounds, with_shared_limiter
from techforge.errors import (
    ConfigurationError,
    InvalidArgumentError,
    LedgerError,
    LedgerUnavailableError,
    NoLedgerError,
    TechForgeError,
)
from techforge.models import Job

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        Awaitable,
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

T = TypeVar("T")

LEDGER = "techforge.sqlite"
MAX_SHOWN = 20
"""Number of bad rows that an error shows."""
WAIT_INTERVAL = 1.0
"""Seconds between two attempts to open a ledger that is waited for."""


class BadManifestError(TechForgeError):
    """The manifest has bad rows. Nothing was added to the ledger, and nothing was sent.

    `bad` contains the first 20 of them, `count` is their number.
    """

    def __init__(self, bad: list[BadRow], count: int) -> None:
        self.bad, self.count = bad, count
        more = f"\n… and {count - len(bad)} more" if count > len(bad) else ""
        rows = "\n".join(map(str, bad))
        are = "is" if count == 1 else "are"
        super().__init__(
            f"{counted(count, 'row')} of the manifest {are} bad, so nothing was submitted:\n{rows}{more}"
        )


@frozen
class Loading:
    """The result of loading a manifest: the counts, and the first 20 skipped bad rows."""

    loaded: Loaded
    bad: list[BadRow]


def campaign_of(manifest: Manifest | None) -> str | None:
    """Return the default campaign name for a manifest, or None without a manifest."""
    if manifest is None or manifest == ():
        return None
    return Path(manifest).stem if isinstance(manifest, str | os.PathLike) else DEFAULT_CAMPAIGN


def removed_rows_of(manifest: Manifest | None, campaign: str | None) -> OnRemoved:
    """Return the default of `on_removed`.

    A campaign named after a file consists of that file's rows. A campaign that the user names may get rows
    from several manifests.
    """
    return "stop" if campaign is None and isinstance(manifest, str | os.PathLike) else "submit"


def open_campaign(
    place: LedgerPath, settings: Settings, campaign: str | None, manifest: Manifest | None = None
) -> Ledger:
    """Open a campaign, and check that it belongs to the client's account.

    With a manifest, the ledger and the campaign are created if they do not exist.

    Raises:
        LedgerError: the ledger or the campaign cannot be used.
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


async def open_when_ready(
    place: LedgerPath, settings: Settings, campaign: str | None, seconds: float
) -> Ledger:
    """Open a campaign as `open_campaign` does. If that is not possible yet, wait for it.

    Raises:
        NoLedgerError, LedgerUnavailableError: it was not possible within `seconds`.
        LedgerError: the ledger or the campaign cannot be used.
    """
    deadline, problem = time.monotonic() + seconds, ""
    while True:
        try:
            return await asyncio.to_thread(open_campaign, place, settings, campaign)
        except (NoLedgerError, LedgerUnavailableError) as error:
            if time.monotonic() >= deadline:
                raise
            if str(error) != problem:
                problem = str(error)
                logger.warning("waiting up to %.0f s for the ledger: %s", seconds, problem)
        await asyncio.sleep(WAIT_INTERVAL)


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
    """Check every row of a manifest, and add the new ones to a ledger.

    Args:
        ledger: The open ledger.
        manifest: A CSV, JSONL or Parquet file, or an iterable of mappings.
        settings: The settings of the client. Rows are checked with them.
        skip_bad: Skip bad rows, in the state `skipped`.
        allow_columns: Accept these columns, although their names look like misspelt fields.
        on_conflict: What to do if the content of a row_key has changed; see `Ledger.load`.
        on_removed: What to do with pending rows that are no longer in the manifest; see `Ledger.load`.
        approve: Called with the counts before the rows are stored. If it raises, nothing is stored.

    Raises:
        ManifestError: the manifest cannot be read.
        BadManifestError: some rows are bad, and `skip_bad` is False.
        RowConflictError: a row_key has two contents.
    """
    bad: list[BadRow] = []
    count = 0
    check = _RowCheck(settings)
    source = Path(manifest).name if isinstance(manifest, str | os.PathLike) else "rows"

    def rows() -> Iterator[Row | BadRow]:
        nonlocal count
        for row in read(manifest, allow_columns=allow_columns):
            problem = row if isinstance(row, BadRow) else check(row)
            if problem is None:
                yield row
                continue
            count += 1
            if len(bad) < MAX_SHOWN:
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
            message = str(error).partition("\n")[0].rstrip(":")
            ledger.update_fact("refused", lambda _: f"{source}: {message}")
        raise
    return Loading(loaded, bad)


class _RowCheck:
    """Checks a row with the client's own checks. Values that passed once are not checked again."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._checked: set[str] = set()

    def __call__(self, row: Row) -> BadRow | None:
        rest = {name: value for name, value in row.params.items() if name not in _FILES}
        # Many rows have the same hosts and options: check each of them once.
        facts = {canonical(rest) if rest else "", *(row.params[name].split("/", 3)[2] for name in _MEDIA)}
        if facts <= self._checked:
            return None
        try:
            create(self._settings, **hide(row.params)).close()
        except InvalidArgumentError as error:
            value = str(row.params.get(error.field, ""))
            return BadRow(row.line, error.field, value, str(error).removeprefix(f"{error.field}: "))
        if len(self._checked) < 10_000:
            self._checked |= facts
        return None


_MEDIA = "image_url", "audio_url"
_FILES = frozenset({*_MEDIA, "project_id"})


@frozen
class _Rows:
    """A manifest of mappings, without a repr: tracebacks show variables, and its URLs may have signatures."""

    rows: Iterable[Mapping[str, Any]] = field(repr=False)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(self.rows)


class AsyncBatch:
    """Campaigns, for asyncio. Use it as `client.batch`."""

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

        Rows that the campaign already has are not added again. A row ends as `done`, `failed` or `unknown`.
        An unknown row may have a job, because its submission got no response; it is not sent again.

        Args:
            manifest: A CSV, JSONL or Parquet file, or an iterable of mappings. Without one, the campaign
                continues.
            ledger: The SQLite file that records the campaign, or the URL of a PostgreSQL database.
            campaign: The campaign's name. By default it is the name of the manifest's file, or `default` for
                mappings.
            skip_bad: Skip bad rows: they get the state `skipped`. Without it, one bad row stops the run
                before anything is sent.
            allow_columns: Accept these columns, although their names look like misspelt fields.
            on_conflict: What to do if the content of a row_key has changed: `stop`, `keep` the first
                content, or `replace` it if there is no job.
            on_removed: What to do with pending rows that are no longer in the manifest: `stop`, `submit`
                them as well, or `withdraw` them. By default `stop` for a file without `campaign`, otherwise
                `submit`.
            dispatcher: Hands the rows of a PostgreSQL ledger to workers. Default: Procrastinate.
            on_progress: Called with the `Run` about ten times per second.
            options: See `RunOptions`.

        Raises:
            ManifestError, BadManifestError, RowConflictError: the manifest is invalid. Nothing was sent.
            LedgerError: the ledger cannot be used, or another process is running one of its campaigns.
            InvalidArgumentError: an option is wrong.
            APIConnectionError, AuthenticationError: the API cannot be reached, or rejects the key. Nothing
                was submitted.
            NoProgressError: nothing succeeded for `give_up_after` seconds.

        >>> rows = [{"image_url": "https://a.example/i.png", "audio_url": "https://a.example/a.mp3"}]
        >>> [row.state.value async for row in client.batch.run(rows, ledger=folder / "ledger.sqlite")]
        ['done']
        """
        self._session.check_loop()
        if manifest and not isinstance(manifest, str | os.PathLike):
            manifest = _Rows(manifest)
        chosen = Options.of(options)
        chosen.make_folder()
        with (
            open_campaign(ledger, self._session.settings, campaign, manifest) as opened,
            opened.exclusive_lock(),
        ):
            if manifest is not None:
                await asyncio.to_thread(
                    load,
                    opened,
                    manifest,
                    self._session.settings,
                    skip_bad=skip_bad,
                    allow_columns=allow_columns,
                    on_conflict=on_conflict,
                    on_removed=on_removed or removed_rows_of(manifest, campaign),
                    approve=lambda _: chosen.check_names(opened.entries),
                )
            else:
                await asyncio.to_thread(chosen.check_names, opened.entries)
            if await asyncio.to_thread(opened.is_pending):
                await self._session.run(probe(self._session.settings))
            # Close the run before the ledger: responses in flight must still be recorded.
            async with contextlib.aclosing(
                self._entries(opened, ledger, chosen, dispatcher, on_progress)
            ) as entries:
                async for entry in entries:
                    yield entry

    async def work(
        self,
        ledger: LedgerPath,
        *,
        campaign: str | None = None,
        stay: bool = False,
        wait_for_ledger: float = 0.0,
        dispatcher: Dispatcher | None = None,
        on_progress: OnProgress | None = None,
        **options: Unpack[RunOptions],
    ) -> AsyncGenerator[Entry]:
        """Work on a campaign together with other processes, and yield each row that ends in this process.

        Args:
            ledger: The URL of a PostgreSQL database: `postgresql://user@host/database`.
            campaign: The campaign's name. Not needed if the ledger has only one.
            stay: Wait for more rows when all rows have ended.
            wait_for_ledger: If the ledger does not exist yet or its database cannot be reached, wait for it
                this many seconds.
            dispatcher: Hands the rows to workers. Default: Procrastinate.
            on_progress: Called with the `Run` about ten times per second.
            options: See `RunOptions`.

        Raises:
            NoLedgerError, LedgerUnavailableError: the campaign does not exist, or its database is down.
            FailoverError: a standby took over the ledger, or a backup was restored.
            LedgerError: the ledger cannot be used, for example because it is not in PostgreSQL.
            InvalidArgumentError: an option is wrong.

        >>> async for row in client.batch.work(ledger_url):
        ...     print(row.state)
        """
        self._session.check_loop()
        chosen = Options.of({"give_up_after": None, **options})
        chosen.make_folder()
        with await open_when_ready(ledger, self._session.settings, campaign, wait_for_ledger) as opened:
            if not opened.is_shared:
                raise LedgerError(
                    f"{opened.name} is for one process at a time. Several workers need a ledger in PostgreSQL"
                )
            await asyncio.to_thread(chosen.check_names, opened.entries)
            joining = self._entries(opened, ledger, chosen, dispatcher, on_progress, joins=True, stay=stay)
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

        If a download fails, the row's `file` is None and `reason` says why.

        Args:
            ledger: The ledger of the campaign.
            out: The folder for the videos.
            name: The file name of a row's video, as in `RunOptions`.
            campaign: The campaign's name. Not needed if the ledger has only one.
            downloads: Downloads in flight.

        Raises:
            LedgerError: the ledger cannot be used.
            InvalidArgumentError: `out` is not writable.

        >>> rows = [{"image_url": "https://a.example/i.png", "audio_url": "https://a.example/a.mp3"}]
        >>> ended = [row async for row in client.batch.run(rows, ledger=folder / "ledger.sqlite")]
        >>> [row.file is not None async for row in client.batch.fetch(folder / "ledger.sqlite", out=folder)]
        [True]
        """
        self._session.check_loop()
        chosen = Options(out=out, name=name, downloads=downloads)
        chosen.make_folder()
        with open_campaign(ledger, self._session.settings, campaign) as opened:
            async with contextlib.aclosing(fetch(self._session, opened, chosen)) as entries:
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
        await asyncio.to_thread(ledger.restore)
        if ledger.is_shared:
            chosen = dispatcher or default_dispatcher(str(place), ledger.campaign.id)
            if not joins:
                bounds = await asyncio.to_thread(set_bounds, ledger, options)
                await enqueue(chosen, await asyncio.to_thread(ledger.chunks, bounds.last))
            session = await asyncio.to_thread(with_shared_limiter, self._session, ledger)
            run: Run = Worker(session, ledger, options, dispatcher=chosen, stay=stay)
        else:
            await asyncio.to_thread(ledger.expire_claims)
            run = Run(self._session, ledger, options)
        async with contextlib.aclosing(run.results()) as results, _progress(run, on_progress):
            async for entry in results:
                yield entry

    async def check_unknown(self, ledger: Ledger) -> int:
        """Look for the videos of unknown rows in storage. Return how many were found.

        A row with a video becomes `submitted`; run the campaign again to finish it. A video's path contains
        the job's id, so rows without a known id are not checked. Look for their project in your job service
        or webhook events.

        Args:
            ledger: The open ledger.

        Raises:
            APIError: the request to storage failed.

        >>> from techforge.batch import Ledger
        >>> with Ledger(folder / "ledger.sqlite") as ledger:
        ...     await client.batch.check_unknown(ledger)
        0
        """
        found = 0
        for entry in await asyncio.to_thread(lambda: list(ledger.entries(State.UNKNOWN))):
            if entry.job_id is None:
                continue
            job = Job(entry.job_id, entry.project_id, "unknown")
            if await self._session.run(poll_once(job, self._session.settings)):
                change = changes.submitted(entry.n, entry.attempts, entry.job_id, 0.0)
                found += sum(await asyncio.to_thread(ledger.apply, change))
        return found


class ThreadedBatch:
    """Runs the methods of `AsyncBatch` in a thread. `Batch`, which is generated, adds the public methods."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def _result(self, start: Callable[[AsyncBatch], Awaitable[T]]) -> T:
        async def run() -> T:
            async with _open_session(self._session.settings) as session:
                return await start(AsyncBatch(session))

        # In a thread, because the caller may be in an event loop, as in a notebook.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, run()).result()

    def _entries(self, start: Callable[[AsyncBatch], AsyncGenerator[Entry]]) -> Generator[Entry]:
        if self._session.driver.http_client is not None:
            raise ConfigurationError("batch: a client with its own http_client= cannot run campaigns")
        ended: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        failures: list[BaseException] = []
        loop = asyncio.new_event_loop()
        task = loop.create_task(_run(self._session.settings, ended, start))

        def work() -> None:
            try:
                loop.run_until_complete(task)
            except asyncio.CancelledError:
                pass
            except BaseException as error:  # noqa: BLE001 - it is raised in the caller
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
            with contextlib.suppress(RuntimeError):  # the loop is already closed
                loop.call_soon_threadsafe(task.cancel)
            thread.join()
        if failures:
            raise failures[0]


async def _run(
    settings: Settings,
    ended: queue.SimpleQueue[Entry | None],
    start: Callable[[AsyncBatch], AsyncGenerator[Entry]],
) -> None:
    async with (
        _open_session(settings) as session,
        contextlib.aclosing(start(AsyncBatch(session))) as results,
    ):
        async for entry in results:
            ended.put(entry)


@contextlib.asynccontextmanager
async def _open_session(settings: Settings) -> AsyncGenerator[AsyncSession]:
    session = AsyncSession(settings)
    try:
        yield session
    finally:
        await session.close()


@contextlib.asynccontextmanager
async def _progress(run: Run, on_progress: OnProgress | None) -> AsyncGenerator[None]:
    async def report() -> None:
        while on_progress is not None:
            on_progress(run)
            await asyncio.sleep(0.1)

    task = asyncio.create_task(report())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task  # an exception of the user's callback is raised here
        if on_progress is not None:
            on_progress(run)
