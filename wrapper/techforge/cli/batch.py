"""Campaigns from a file, with a ledger that survives anything."""

# ruff: noqa: FBT002, PLR0917
# Typer's options are arguments with defaults.

from __future__ import annotations

import asyncio
import csv
import json
import shlex
import signal
import sys
from contextlib import ExitStack, contextmanager, suppress
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast
from uuid import UUID

import typer
from attrs import frozen
from rich.console import Console

from techforge._config import normalized_url
from techforge._masking import mask, mask_all
from techforge._session import session_of
from techforge.batch import Entry, Ledger, LedgerError, Loaded, State, bar, load, read, write_report
from techforge.batch.campaign import LEDGER, Loading, open_campaign, removed_rows_of
from techforge.batch.database import postgres_url, without_password
from techforge.batch.dispatch import default_dispatcher, enqueue
from techforge.batch.options import Options
from techforge.batch.wording import counted
from techforge.batch.worker import Bounds
from techforge.cli import keys
from techforge.cli.client import connected
from techforge.cli.exits import Code, code_of
from techforge.cli.told import told
from techforge.errors import (
    APIConnectionError,
    APIError,
    AuthenticationError,
    InvalidArgumentError,
    PermissionDeniedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from techforge import ClientOptions, TechForge
    from techforge.batch.loading import OnConflict, OnRemoved
    from techforge.batch.options import RunOptions

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=__doc__)
out, err = Console(), Console(stderr=True)


class Conflicts(StrEnum):
    """What to do with a row_key whose content has changed."""

    STOP = "stop"
    KEEP = "keep"
    REPLACE = "replace"


class Removed(StrEnum):
    """What to do with pending rows that are no longer in the manifest."""

    STOP = "stop"
    SUBMIT = "submit"
    WITHDRAW = "withdraw"


class Retryable(StrEnum):
    """The states whose rows `retry` submits again."""

    FAILED = "failed"


ManifestFile = Annotated[Path, typer.Argument(metavar="MANIFEST", help="A CSV, TSV, JSONL or Parquet file.")]
Keys = Annotated[list[str] | None, typer.Argument(metavar="[KEY]...", help="Only the rows with these keys.")]
LedgerPlace = Annotated[
    str, typer.Option("--ledger", help="Where the state of each row is kept: a file, or postgresql://…")
]
CampaignName = Annotated[
    str | None,
    typer.Option("--campaign", help="The campaign; else it is named after its manifest, or the only one."),
]
OutDir = Annotated[Path | None, typer.Option("--out", help="Folder for the videos.")]
Name = Annotated[
    str | None, typer.Option(help="File name of a row's video: {row_key}, {job_id}, any column.")
]
Concurrency = Annotated[int | None, typer.Option(min=1, help="Submissions in flight; else 32.")]
MaxRate = Annotated[float | None, typer.Option(help="Requests per second, if the account's limit is known.")]
MaxOutstanding = Annotated[int | None, typer.Option(min=1, help="Jobs that the API may work on at once.")]
MaxJobs = Annotated[int | None, typer.Option(min=1, help="Jobs that this run may submit; other rows wait.")]
MaxFailures = Annotated[
    int | None, typer.Option(min=1, help="Failed rows after which nothing more is submitted.")
]
RetryServerErrors = Annotated[
    bool | None, typer.Option(help="Submit again after a 5xx, at most twice; you may pay for each.")
]
GiveUpAfter = Annotated[
    float | None, typer.Option(min=0, help="Seconds without any progress that end the run; 0 never does.")
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Skip bad rows; else one bad row stops the run.")]
AllowColumn = Annotated[
    list[str] | None,
    typer.Option(help="A column of your own whose name looks like a misspelt field; repeatable."),
]
AllowPrivateMedia = Annotated[
    bool | None, typer.Option(help="Allow media URLs in a private network, if your API can reach them.")
]
OnConflictOption = Annotated[
    Conflicts, typer.Option(help="If the content under a row_key has changed: stop, keep the first, replace.")
]
OnRemovedOption = Annotated[
    Removed | None,
    typer.Option(
        help="If pending rows are no longer in the manifest: stop, submit them as well, withdraw them. "
        "With --campaign they are submitted, else the run stops."
    ),
]
JobTimeout = Annotated[
    float | None,
    typer.Option(min=0, help="Seconds to poll a job; then its row stays `submitted`. Else a day."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Submit without asking.")]
AskAbove = Annotated[int, typer.Option(min=0, help="Ask before a run that submits more jobs than this.")]
Price = Annotated[str | None, typer.Option(help="Your price for one job, to show what a run costs.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and nothing else there.")]
DEFAULT = LEDGER
ASK_ABOVE = 100
GIVE_UP_AFTER = 600.0


@app.command()
def run(
    manifest: ManifestFile,
    ledger: LedgerPlace = DEFAULT,
    campaign: CampaignName = None,
    output: OutDir = None,
    name: Name = None,
    concurrency: Concurrency = None,
    max_rate: MaxRate = None,
    max_outstanding: MaxOutstanding = None,
    max_jobs: MaxJobs = None,
    max_failures: MaxFailures = None,
    retry_server_errors: RetryServerErrors = None,
    give_up_after: GiveUpAfter = None,
    job_timeout: JobTimeout = None,
    allow_private_media: AllowPrivateMedia = None,
    skip_bad: SkipBad = False,
    allow_column: AllowColumn = None,
    on_conflict: OnConflictOption = Conflicts.STOP,
    on_removed: OnRemovedOption = None,
    price: Price = None,
    ask_above: AskAbove = ASK_ABOVE,
    yes: Yes = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and count; submit nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Submit every row of a manifest once, wait for the jobs, and download the videos.

    Run it again to continue where it stopped, and to add new rows. Options that you leave out are those of
    the campaign's last run.
    """
    given = {
        "out": None if output is None else str(output),
        "name": name,
        "concurrency": concurrency,
        "max_outstanding": max_outstanding,
        "retry_server_errors": retry_server_errors,
        "give_up_after": give_up_after,
        "job_timeout": job_timeout,
        "max_rate": max_rate,
        "allow_private_media": allow_private_media,
        "price": None if price is None else str(_price(price)),
    }
    source = _Source(manifest, skip_bad, tuple(allow_column or ()), on_conflict, on_removed, campaign)
    with told(), connected(shows_warnings=True) as client:
        source.check_readable()  # before a ledger is made
        # Nothing is left behind by a dry run.
        is_new = postgres_url(ledger) is None and not Path(ledger).exists()
        place = ":memory:" if dry_run and is_new else ledger
        with open_campaign(place, session_of(client).settings, campaign, manifest) as book:
            remembered = book.remembered() | {n: value for n, value in given.items() if value is not None}
            options = _Remembered.of(remembered)
            client = options.applied_to(client)  # noqa: PLW2901
            try:
                checked = Options.of(options.run)
                if not dry_run:
                    checked.make_folder()
            except InvalidArgumentError:
                book.remove_if_empty()
                raise
            order = _Order(options.price, max_jobs, ask_above, is_approved=yes, is_dry_run=dry_run)
            with _alone(book):
                if not _load(book, source, client, order):
                    return
                book.remember(remembered)
            campaign = book.campaign_name
        budget = {"max_jobs": max_jobs, "max_failures": max_failures}
        _run(client, ledger, campaign, "run", options, budget, as_json=as_json)


@app.command("load")
def load_rows(
    manifest: ManifestFile,
    ledger: LedgerPlace = DEFAULT,
    campaign: CampaignName = None,
    skip_bad: SkipBad = False,
    allow_column: AllowColumn = None,
    on_conflict: OnConflictOption = Conflicts.STOP,
    on_removed: OnRemovedOption = None,
    ask_above: AskAbove = ASK_ABOVE,
    yes: Yes = False,
) -> None:
    """Check a manifest, and add the rows that are new.

    `resume`, or workers, submit them. If the last run stopped at a budget, `resume` continues without it.
    """
    source = _Source(manifest, skip_bad, tuple(allow_column or ()), on_conflict, on_removed, campaign)
    with told(), connected(shows_warnings=True) as client:
        source.check_readable()
        with open_campaign(ledger, session_of(client).settings, campaign, manifest) as book:
            options = _Remembered.of(book.remembered())
            client = options.applied_to(client)  # noqa: PLW2901
            # Nobody submits the rows of a file before `resume`, which asks; workers may be waiting for them.
            order = _Order(
                options.price,
                None,
                ask_above,
                is_approved=yes or not book.is_shared,
                submits="Workers submit" if book.is_shared else "resume submits",
            )
            if _load(book, source, client, order) and book.is_shared:
                asyncio.run(enqueue(default_dispatcher(ledger, book.campaign.id), book.chunks()))


@app.command()
def resume(
    ledger: LedgerPlace = DEFAULT,
    campaign: CampaignName = None,
    max_jobs: MaxJobs = None,
    ask_above: AskAbove = ASK_ABOVE,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Continue a campaign with the options of its last run."""
    with told(), connected(shows_warnings=True) as client:
        with open_campaign(ledger, session_of(client).settings, campaign) as book:
            _check_loaded(book)
            options = _Remembered.of(book.remembered())
            order = _Order(options.price, max_jobs, ask_above, is_approved=yes)
            if not order.approve(Loaded(waiting=book.counts()[State.PENDING])):
                return
            campaign = book.campaign_name
        _run(client, ledger, campaign, "run", options, {"max_jobs": max_jobs}, as_json=as_json)


@app.command()
def worker(
    ledger: LedgerPlace,
    campaign: CampaignName = None,
    output: OutDir = None,
    concurrency: Concurrency = None,
    stay: Annotated[bool, typer.Option("--stay", help="Wait for more rows when all have ended.")] = False,
    give_up_after: GiveUpAfter = 0,
    as_json: AsJson = False,
) -> None:
    """Join a campaign whose ledger is in PostgreSQL; the other options are those of its last run."""
    own = {
        "out": None if output is None else str(output),
        "concurrency": concurrency,
        "give_up_after": give_up_after,
    }
    with told(), connected(shows_warnings=True) as client:
        with open_campaign(ledger, session_of(client).settings, campaign) as book:
            remembered = book.remembered() | {n: value for n, value in own.items() if value is not None}
            campaign = book.campaign_name
        _run(client, ledger, campaign, "work", _Remembered.of(remembered), {"stay": stay}, as_json=as_json)


@app.command()
def status(ledger: LedgerPlace = DEFAULT, campaign: CampaignName = None, as_json: AsJson = False) -> None:
    """Show how many rows are in each state, also while the campaign runs."""
    with told(), Ledger(ledger, campaign, api=_api(), new=False) as book:
        there = book.campaigns()
        if campaign is None and len(there) > 1:
            found: dict[str, dict[State, int]] = {}
            for one in there:
                with Ledger(ledger, one.name, api=one.api, new=False) as other:
                    found[str(one)] = other.counts()
                    if not as_json:
                        err.print(str(one), markup=False, highlight=False)
                        _say_counts(found[str(one)])
            if as_json:
                _print_json({name: _plain(counts) for name, counts in found.items()})
            return
        if as_json:
            _print_json(_plain(book.counts()))
        _check_loaded(book)
        if not as_json:
            _say_counts(book.counts())
            _say_cost(book, _Remembered.of(book.remembered()).price)


@app.command()
def rows(
    ledger: LedgerPlace = DEFAULT,
    campaign: CampaignName = None,
    state: Annotated[State | None, typer.Option(help="Only the rows in this state.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the rows: key, line, state, attempts, ids, file, reason, and your own columns.

    Separated by tabs, or with --json a line of JSON for each row.
    """
    with told(), Ledger(ledger, campaign, api=_api(), new=False) as book:
        _check_loaded(book)
        table = csv.writer(sys.stdout, delimiter="\t", lineterminator="\n")
        columns: list[str] = (
            [] if as_json else sorted({name for e in book.entries(state) for name in e.metadata})
        )
        if not as_json:
            table.writerow([*_FIELDS, *columns])
        for entry in book.entries(state):
            if as_json:
                _print_json(_fields(entry))
            else:
                own = (entry.metadata.get(name) for name in columns)
                table.writerow([*(_fields(entry)[name] for name in _FIELDS), *own])


@app.command()
def fetch(
    output: Annotated[Path, typer.Option("--out", help="Folder for the videos.")],
    ledger: LedgerPlace = DEFAULT,
    campaign: CampaignName = None,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """Download every finished video that is not in the folder yet."""
    with told(), connected(shows_warnings=True) as client:
        with open_campaign(ledger, session_of(client).settings, campaign) as book:
            _check_loaded(book)
            options = _Remembered.of(book.remembered() | ({} if name is None else {"name": name}))
            campaign, done = book.campaign_name, book.counts()[State.DONE]
        fetched = failed = 0
        wanted = options.run.get("name", Options().name)
        for entry in client.batch.fetch(ledger, out=output, name=wanted, campaign=campaign):
            fetched, failed = fetched + (entry.file is not None), failed + (entry.file is None)
            if as_json:
                _print_json(_fields(entry))
            elif entry.file is None:
                _say(f"{entry.key}: {entry.reason}")
        there = done - fetched - failed
        _say(
            f"{counted(fetched, 'video')} downloaded to {output}, {there:,} there already, {failed:,} failed."
        )
        raise typer.Exit(Code.FAILED if failed else Code.DONE)


@app.command()
def retry(
    key: Keys = None,
    state: Annotated[
        Retryable | None, typer.Option(help="All rows in this state; for unknown rows see `unknown`.")
    ] = None,
    ledger: LedgerPlace = DEFAULT,
    campaign: CampaignName = None,
) -> None:
    """Let failed rows be submitted again by `resume`: those with these keys, or all with `--state failed`."""
    with told(), Ledger(ledger, campaign, api=_api(), new=False) as book, book.alone():
        if not key and state is None:
            raise InvalidArgumentError("retry", "name the rows by their keys, or give --state failed")
        _check_keys(book, key, State.FAILED, "Only failed rows can be retried")
        count = book.retry(State.FAILED, key or None)
        _say(f"{_are(count)} pending again. Next: {_command('resume', ledger, book)}")


@app.command()
def unknown(
    key: Keys = None,
    check: Annotated[bool, typer.Option("--check", help="Look in storage for their videos.")] = False,
    resubmit: Annotated[
        bool, typer.Option("--resubmit", help="Submit them again: you may pay for some twice.")
    ] = False,
    job: Annotated[
        list[str] | None,
        typer.Option("--job", help="KEY=JOB or PROJECT=JOB: a job that you know of; repeatable."),
    ] = None,
    ledger: LedgerPlace = DEFAULT,
    campaign: CampaignName = None,
) -> None:
    """List the rows for which a job may exist, and settle them."""
    with told(), Ledger(ledger, campaign, api=_api(), new=False) as book, book.alone():
        _check_loaded(book)
        book.abandon(book.now() if book.is_shared else None)
        resume_command = _command("resume", ledger, book)
        _check_keys(book, key, State.UNKNOWN, "Only unknown rows can be settled here")
        for known in job or ():
            _settle(book, known)
            _say(f"Settled: {known}. Next: {resume_command}")
        if check:
            with connected(shows_warnings=True) as client:
                found = client.batch.check_unknown(book)
            are = "is" if found == 1 else "are"
            _say(
                f"Videos found for {counted(found, 'row')}, which {are} submitted now. Next: {resume_command}"
            )
        if resubmit:
            count = book.retry(State.UNKNOWN, key or None)
            _say(f"{_are(count)} pending again. Next: {resume_command}")
            return
        for entry in book.entries(State.UNKNOWN):
            if not key or entry.key in key:
                line = f"{entry.key}  project {entry.project_id}  {mask(entry.reason or '')}"
                out.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command()
def report(
    to: Annotated[Path, typer.Argument(help="A .csv, .parquet or .html file.")],
    ledger: LedgerPlace = DEFAULT,
    campaign: CampaignName = None,
    price: Price = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Write what became of every row."""
    with told(), Ledger(ledger, campaign, api=_api(), new=False) as book:
        _check_loaded(book)
        if to.exists() and not overwrite:
            # It may well be the manifest.
            raise InvalidArgumentError("to", f"{to} exists already; give another name, or --overwrite")
        own = _Remembered.of(book.remembered()).price if price is None else _price(price)
        _say(f"Written: {write_report(book, to, price=own)}")


# --- what is ordered, and whether it is approved ----------------------------------------------------


@frozen
class _Source:
    """A manifest, and how it is read."""

    manifest: Path
    skip_bad: bool
    allow_columns: tuple[str, ...]
    on_conflict: Conflicts
    on_removed: Removed | None
    campaign: str | None

    def check_readable(self) -> None:
        next(read(self.manifest, allow_columns=self.allow_columns), None)

    def load(
        self, book: Ledger, client: TechForge, approve: Callable[[Loaded], object] | None = None
    ) -> Loading:
        return load(
            book,
            self.manifest,
            session_of(client).settings,
            skip_bad=self.skip_bad,
            allow_columns=self.allow_columns,
            on_conflict=cast("OnConflict", str(self.on_conflict)),
            on_removed=cast("OnRemoved", str(self.on_removed))
            if self.on_removed
            else removed_rows_of(self.manifest, self.campaign),
            approve=approve,
        )


@frozen
class _Order:
    """What a command is about to spend, and whether the user has agreed to that."""

    price: Decimal | None
    max_jobs: int | None
    ask_above: int
    is_approved: bool = False
    is_dry_run: bool = False
    submits: str = "This run submits"

    def jobs(self, loaded: Loaded) -> int:
        return loaded.pending if self.max_jobs is None else min(loaded.pending, self.max_jobs)

    def needs_answer(self, loaded: Loaded) -> bool:
        return not self.is_approved and self.jobs(loaded) > self.ask_above

    def say(self, loaded: Loaded) -> None:
        jobs = self.jobs(loaded)
        parts = [counted(loaded.new, "new row")] if loaded.new else []
        if loaded.waiting:
            parts.append(f"{counted(loaded.waiting, 'row')} still pending from earlier runs")
        of = (
            f" of {' and '.join(parts)}"
            if jobs < loaded.pending
            else f": {' and '.join(parts)}"
            if parts
            else ""
        )
        cost = f" Cost at {self.price} per job: {self.price * jobs}." if self.price is not None else ""
        submits = "This run would submit" if self.is_dry_run else self.submits
        _say(f"{submits} {counted(jobs, 'job')}{of}.{cost}")
        held_back = loaded.pending - jobs
        if held_back:
            _say(f"{counted(held_back, 'row')} held back by --max-jobs {self.max_jobs}.")

    def approve(self, loaded: Loaded) -> bool:
        """Say what a run submits, and ask if that is a lot; False if the user says no."""
        self.say(loaded)
        if not self.needs_answer(loaded):
            return True
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            if self.max_jobs is not None:
                return True
            raise InvalidArgumentError(
                "run",
                f"{counted(self.jobs(loaded), 'job')} need your approval, and there is no terminal to ask "
                "on. Nothing was submitted. Add --yes, or --max-jobs N",
            )
        if typer.confirm("Submit them?", err=True):
            return True
        _say("Nothing was submitted.")
        raise typer.Exit(Code.NOT_YET)


class _NotApprovedYet(Exception):  # noqa: N818 - nothing is wrong
    """Rolls a load back that needs an answer first."""

    def __init__(self, loaded: Loaded, first: Entry | None) -> None:
        self.loaded, self.first = loaded, first


def _load(book: Ledger, source: _Source, client: TechForge, order: _Order) -> bool:
    """Load a manifest when the user has approved what it costs; False for a dry run."""

    def ask_first(loaded: Loaded) -> None:
        if order.is_dry_run or order.needs_answer(loaded):
            raise _NotApprovedYet(loaded, next(iter(book.pending(float("inf"), 1)), None))

    try:
        loading = source.load(book, client, ask_first)
    except _NotApprovedYet as asked:
        _say_loaded(asked.loaded)
        if order.is_dry_run:
            order.say(asked.loaded)
            if asked.first is not None:
                sent = mask_all({**asked.first.params, "project_id": asked.first.project_id})
                _say(f"The first: POST /jobs/v2 {json.dumps(sent, ensure_ascii=False)}")
            _say("Nothing was sent.")
            book.remove_if_empty()
            return False
        try:
            order.approve(asked.loaded)
        except BaseException:
            book.remove_if_empty()
            raise
        _say_skipped(source.load(book, client))
    else:
        _say_skipped(loading)
        _say_loaded(loading.loaded)
        order.say(loading.loaded)
    return True


def _price(text: str) -> Decimal:
    try:
        price = Decimal(text)
    except InvalidOperation:
        price = Decimal(-1)
    if not price.is_finite() or price < 0:
        raise typer.BadParameter(f"{text!r} is not a price such as 0.40", param_hint="--price")
    return price


@contextmanager
def _alone(book: Ledger) -> Generator[None]:
    """Keep other processes from running campaigns of a file; if one does, nothing is left behind."""
    with ExitStack() as stack:
        try:
            stack.enter_context(book.alone())
        except LedgerError:
            book.remove_if_empty()
            raise
        yield


# --- running --------------------------------------------------------------------------------------


@frozen
class _Remembered:
    """The options of a campaign's last run: those of the run itself, of the client, and the price."""

    run: RunOptions
    client: ClientOptions
    price: Decimal | None

    @classmethod
    def of(cls, kept: dict[str, Any]) -> _Remembered:
        rest = dict(kept)
        client = {name: rest.pop(name, None) for name in ("max_rate", "allow_private_media")}
        price = rest.pop("price", None)
        rest["give_up_after"] = rest.get("give_up_after", GIVE_UP_AFTER) or None
        given = {name: value for name, value in client.items() if value is not None}
        return cls(cast("RunOptions", rest), cast("ClientOptions", given), Decimal(price) if price else None)

    def applied_to(self, client: TechForge) -> TechForge:
        return client.with_options(**self.client) if self.client else client


def _run(
    client: TechForge,
    ledger: str,
    campaign: str,
    begin: str,
    options: _Remembered,
    more: dict[str, Any],
    *,
    as_json: bool,
) -> None:
    # SIGTERM, from a deployment for example, ends a run like Ctrl-C: responses in flight are noted.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    client = options.applied_to(client)
    entries: Callable[..., Iterable[Entry]] = getattr(client.batch, begin)
    again = "worker" if begin == "work" else "resume"
    if not options.run.get("out"):
        with _open(ledger, campaign) as book:
            later = _command("fetch --out DIR", ledger, book)
            _say(f"Without --out, videos are not downloaded. Later: {later}")
    try:
        with bar() as on_progress:
            for entry in entries(
                ledger=ledger, campaign=campaign, on_progress=on_progress, **options.run, **more
            ):
                if as_json:
                    _print_json(_fields(entry))
    except (APIConnectionError, AuthenticationError, PermissionDeniedError) as error:
        # Only the request before the first row raises these: nothing was submitted.
        _say(_why_not_begun(error))
        raise typer.Exit(code_of(error)) from None
    except KeyboardInterrupt:
        with _open(ledger, campaign) as book:
            _say(f"Stopped. Continue with: {_command(again, ledger, book)}")
        raise typer.Exit(Code.INTERRUPTED) from None
    with _open(ledger, campaign) as book:
        _end(book, ledger, again, options.price, str(options.run.get("out") or ""), as_json=as_json)


def _why_not_begun(error: APIError) -> str:
    """Say it as `techforge doctor` does."""
    if isinstance(error, APIConnectionError):
        from techforge.cli.doctor import explain  # noqa: PLC0415 - only a failure needs it

        return f"{'. '.join(explain(error))} Nothing was submitted."
    refused = f"{keys.origin()} does not take this key ({error.status_code})."
    return f"{refused} {keys.WEB_APP} Nothing was submitted."


def _end(book: Ledger, ledger: str, again: str, price: Decimal | None, out: str, *, as_json: bool) -> None:
    counts, bounds = book.counts(), Bounds.kept_in(book)
    if not as_json:
        _say_counts(counts)
    _say_cost(book, price)
    if counts[State.UNKNOWN]:
        count = counts[State.UNKNOWN]
        said = (
            "has an unknown outcome: a job may exist" if count == 1 else "have an unknown outcome: a job may "
        )
        said += "" if count == 1 else "exist for each"
        _say(f"{counted(count, 'row')} {said}. Next: {_command('unknown --check', ledger, book)}")
    if counts[State.SKIPPED]:
        _say(
            f"{counted(counts[State.SKIPPED], 'row')} skipped. "
            f"See: {_command('rows --state skipped', ledger, book)}"
        )
    missing = book.count_without_file()
    if out and missing:
        later = _command(f"fetch --out {shlex.quote(out)}", ledger, book)
        _say(f"{counted(missing, 'video')} not downloaded to {out}. Next: {later}")
    left = counts[State.PENDING] + counts[State.POSTING] + counts[State.SUBMITTED]
    if counts[State.PENDING] and (bounds.last or bounds.failed):
        again = "resume"
        _say("The last run stopped at its budget; resume continues without it, for all workers.")
    if left:
        _say(f"{counted(left, 'row')} left. Continue with: {_command(again, ledger, book)}")
    raise typer.Exit(_code(counts, left))


def _code(counts: dict[State, int], left: int) -> int:
    if counts[State.UNKNOWN]:
        return Code.UNKNOWN
    if counts[State.FAILED] or counts[State.SKIPPED]:
        return Code.FAILED
    return Code.NOT_YET if left else Code.DONE


def _settle(book: Ledger, known: str) -> None:
    row, _, job_id = known.rpartition("=")
    try:
        UUID(job_id)
    except ValueError:
        raise InvalidArgumentError(
            "job", f"{known!r} is not KEY=JOB or PROJECT=JOB with a job's UUID"
        ) from None
    # A key may be corrected until the video is found; a project stands for an unknown row only.
    if not book.correct(row, job_id) and not book.settle(row, job_id):
        raise InvalidArgumentError("job", f"no unknown row has the key or project {row!r}")


# --- what is said ---------------------------------------------------------------------------------


def _api() -> str:
    """Return the API's address: it chooses between campaigns of the same name."""
    with suppress(ValueError):
        return normalized_url(keys.base_url())
    return keys.base_url()


def _open(ledger: str, campaign: str) -> Ledger:
    return Ledger(ledger, campaign, api=_api(), new=False)


def _check_loaded(book: Ledger) -> None:
    """Leave if the campaign has no rows, and say why."""
    if any(book.counts().values()):
        return
    refused = book.kept("refused")
    why = f"the manifest was refused. {refused}" if refused else "its manifest had no rows."
    _say(f"Nothing was loaded into the campaign {book.campaign_name!r}: {why}")
    raise typer.Exit(Code.USAGE)


def _check_keys(book: Ledger, keys: list[str] | None, state: State, rule: str) -> None:
    for key in keys or ():
        entry = book.row_of(key)
        if entry is None:
            raise InvalidArgumentError("key", f"the campaign {book.campaign_name!r} has no row {key!r}")
        if entry.state is not state:
            raise InvalidArgumentError("key", f"row {key!r} is {entry.state}. {rule}")
        if entry.job_id:
            raise InvalidArgumentError(
                "key", f"row {key!r} has the job {entry.job_id}, which is paid for: it is not submitted again"
            )


def _say(text: str) -> None:
    # As it is, and in one line: it may be a command to copy.
    err.print(text, markup=False, highlight=False, soft_wrap=True)


def _say_skipped(loading: Loading) -> None:
    for bad in loading.bad:
        err.print(f"skipped: {bad}", markup=False, style="yellow", soft_wrap=True)
    more = loading.loaded.skipped - len(loading.bad)
    if more > 0:
        err.print(f"… and {more:,} more", style="yellow")


def _say_loaded(loaded: Loaded) -> None:
    parts = [counted(loaded.new, "new row")]
    parts += [f"{loaded.known:,} known from earlier runs"] if loaded.known else []
    parts += [counted(loaded.duplicates, "duplicate") + " in the manifest"] if loaded.duplicates else []
    parts += [f"{loaded.replaced:,} replaced"] if loaded.replaced else []
    parts += [f"{loaded.skipped:,} skipped"] if loaded.skipped else []
    parts += [f"{loaded.withdrawn:,} withdrawn"] if loaded.withdrawn else []
    _say(", ".join(parts) + ".")


def _say_counts(counts: dict[State, int]) -> None:
    for state, count in counts.items():
        if count:
            out.print(f"{state:10} {count:>10,}", highlight=False)


def _say_cost(book: Ledger, price: Decimal | None) -> None:
    if price is None:
        return
    known, possible = book.job_counts()
    more = (
        f"; up to {price * possible} more for {counted(possible, 'job')} that may exist" if possible else ""
    )
    _say(f"Cost at {price} per job: {price * known} for {counted(known, 'job')}{more}.")


def _are(count: int) -> str:
    return f"{counted(count, 'row')} {'is' if count == 1 else 'are'}"


def _plain(counts: dict[State, int]) -> dict[str, int]:
    return {str(state): count for state, count in counts.items()}


def _print_json(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False), flush=True)  # noqa: T201


_FIELDS = "key", "line", "state", "attempts", "job_id", "project_id", "file", "reason"


def _fields(entry: Entry) -> dict[str, Any]:
    fields = {name: getattr(entry, name) for name in _FIELDS} | {"metadata": entry.metadata}
    return fields | {"reason": entry.reason and mask(entry.reason)}


def _command(what: str, ledger: str, book: Ledger) -> str:
    """Return what to type; a password is not shown, and is best kept in PGPASSWORD or a service file."""
    words = ["techforge batch", what]
    if ledger != DEFAULT:
        words += ["--ledger", shlex.quote(without_password(ledger))]
    if len(book.campaigns()) > 1:
        words += ["--campaign", shlex.quote(book.campaign_name)]
    return " ".join(words)
