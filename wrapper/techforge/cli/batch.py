"""Make many videos from a file. A stopped run continues where it was."""

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
from techforge.cli.exit_codes import ExitCode, code_of
from techforge.cli.messages import reporting_errors
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
Keys = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY]...", help="Only the rows with these row_key values.")
]
LedgerPlace = Annotated[
    str, typer.Option("--ledger", help="Where the state of each row is stored: a file, or postgresql://…")
]
CampaignName = Annotated[
    str | None,
    typer.Option(
        "--campaign",
        help="The campaign's name. Default: the manifest's name, or the only campaign in the ledger.",
    ),
]
OutDir = Annotated[Path | None, typer.Option("--out", help="Folder for the videos.")]
Name = Annotated[
    str | None,
    typer.Option(
        help="File name of each video. Placeholders: {row_key}, {job_id}, {project_id} and your own columns."
    ),
]
Concurrency = Annotated[
    int | None, typer.Option(min=1, help="Number of concurrent submissions. Default: 32.")
]
MaxRate = Annotated[
    float | None, typer.Option(help="Rate limit of your account, in requests per second, if you know it.")
]
MaxOutstanding = Annotated[int | None, typer.Option(min=1, help="Largest number of unfinished jobs.")]
MaxJobs = Annotated[
    int | None,
    typer.Option(min=1, help="Largest number of jobs to submit in this run. The other rows stay pending."),
]
MaxFailures = Annotated[int | None, typer.Option(min=1, help="Stop submitting after this many failed rows.")]
RetryServerErrors = Annotated[
    bool | None,
    typer.Option(help="Submit again after a 5xx, at most twice. You may pay for each submission."),
]
GiveUpAfter = Annotated[
    float | None,
    typer.Option(min=0, help="End the run after this many seconds without progress; 0 means never."),
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Skip invalid rows. Without it, an invalid row stops the run.")
]
AllowColumn = Annotated[
    list[str] | None,
    typer.Option(help="Accept a column whose name looks like a misspelt field; repeatable."),
]
AllowPrivateMedia = Annotated[bool | None, typer.Option(help="Allow media URLs in a private network.")]
OnConflictOption = Annotated[
    Conflicts,
    typer.Option(
        help="If the content of a row_key has changed: stop, keep the first content, or replace it."
    ),
]
OnRemovedOption = Annotated[
    Removed | None,
    typer.Option(
        help="If pending rows are no longer in the manifest: stop, submit them as well, or withdraw them. "
        "Default: submit with --campaign, otherwise stop."
    ),
]
JobTimeout = Annotated[
    float | None,
    typer.Option(
        min=0, help="Stop polling a job after this many seconds; its row stays `submitted`. Default: 1 day."
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Submit without confirmation.")]
AskAbove = Annotated[
    int, typer.Option(min=0, help="Ask for confirmation before submitting more jobs than this.")
]
Price = Annotated[str | None, typer.Option(help="Your price per job, to show the cost.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print only JSON on stdout.")]
DEFAULT_LEDGER = LEDGER
ASK_ABOVE = 100
GIVE_UP_AFTER = 600.0


@app.command()
def run(
    manifest: ManifestFile,
    ledger_path: LedgerPlace = DEFAULT_LEDGER,
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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and count the rows, and submit nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Submit every row of a manifest once, wait for the jobs, and download the videos.

    Run it again to continue, or to submit rows that you added. The campaign's last run provides the options
    that you leave out.
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
    with reporting_errors(), connected(shows_warnings=True) as client:
        source.check_readable()  # before a ledger is created
        # A dry run creates no file.
        is_new = postgres_url(ledger_path) is None and not Path(ledger_path).exists()
        place = ":memory:" if dry_run and is_new else ledger_path
        with open_campaign(place, session_of(client).settings, campaign, manifest) as ledger:
            saved = ledger.saved_options() | {n: value for n, value in given.items() if value is not None}
            options = _SavedOptions.of(saved)
            client = options.applied_to(client)  # noqa: PLW2901
            try:
                checked = Options.of(options.run)
                if not dry_run:
                    checked.make_folder()
            except InvalidArgumentError:
                ledger.remove_if_empty()
                raise
            order = _Order(options.price, max_jobs, ask_above, is_approved=yes, is_dry_run=dry_run)
            with _exclusive_lock(ledger):
                if not _load(ledger, source, client, order):
                    return
                ledger.save_options(saved)
            campaign = ledger.campaign_name
        budget = {"max_jobs": max_jobs, "max_failures": max_failures}
        _run(client, ledger_path, campaign, "run", options, budget, as_json=as_json)


@app.command("load")
def load_rows(
    manifest: ManifestFile,
    ledger_path: LedgerPlace = DEFAULT_LEDGER,
    campaign: CampaignName = None,
    skip_bad: SkipBad = False,
    allow_column: AllowColumn = None,
    on_conflict: OnConflictOption = Conflicts.STOP,
    on_removed: OnRemovedOption = None,
    ask_above: AskAbove = ASK_ABOVE,
    yes: Yes = False,
) -> None:
    """Check a manifest, and add its new rows without submitting them.

    `resume` or workers submit them. If the last run stopped at its budget, run `resume`: it continues without
    that budget.
    """
    source = _Source(manifest, skip_bad, tuple(allow_column or ()), on_conflict, on_removed, campaign)
    with reporting_errors(), connected(shows_warnings=True) as client:
        source.check_readable()
        with open_campaign(ledger_path, session_of(client).settings, campaign, manifest) as ledger:
            options = _SavedOptions.of(ledger.saved_options())
            client = options.applied_to(client)  # noqa: PLW2901
            # With SQLite, `resume` asks before it submits. Workers on PostgreSQL submit the rows immediately.
            order = _Order(
                options.price,
                None,
                ask_above,
                is_approved=yes or not ledger.is_shared,
                submits="Workers submit" if ledger.is_shared else "resume submits",
            )
            if _load(ledger, source, client, order) and ledger.is_shared:
                asyncio.run(enqueue(default_dispatcher(ledger_path, ledger.campaign.id), ledger.chunks()))


@app.command()
def resume(
    ledger_path: LedgerPlace = DEFAULT_LEDGER,
    campaign: CampaignName = None,
    max_jobs: MaxJobs = None,
    ask_above: AskAbove = ASK_ABOVE,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Continue a campaign with the options of its last run."""
    with reporting_errors(), connected(shows_warnings=True) as client:
        with open_campaign(ledger_path, session_of(client).settings, campaign) as ledger:
            _check_loaded(ledger)
            options = _SavedOptions.of(ledger.saved_options())
            order = _Order(options.price, max_jobs, ask_above, is_approved=yes)
            if not order.approve(Loaded(waiting=ledger.counts()[State.PENDING])):
                return
            campaign = ledger.campaign_name
        _run(client, ledger_path, campaign, "run", options, {"max_jobs": max_jobs}, as_json=as_json)


@app.command()
def worker(
    ledger_path: LedgerPlace,
    campaign: CampaignName = None,
    output: OutDir = None,
    concurrency: Concurrency = None,
    stay: Annotated[bool, typer.Option("--stay", help="Wait for more rows when all are done.")] = False,
    give_up_after: GiveUpAfter = 0,
    as_json: AsJson = False,
) -> None:
    """Join a campaign whose ledger is in PostgreSQL. The campaign's last run provides the other options."""
    own = {
        "out": None if output is None else str(output),
        "concurrency": concurrency,
        "give_up_after": give_up_after,
    }
    with reporting_errors(), connected(shows_warnings=True) as client:
        with open_campaign(ledger_path, session_of(client).settings, campaign) as ledger:
            saved = ledger.saved_options() | {n: value for n, value in own.items() if value is not None}
            campaign = ledger.campaign_name
        _run(client, ledger_path, campaign, "work", _SavedOptions.of(saved), {"stay": stay}, as_json=as_json)


@app.command()
def status(
    ledger_path: LedgerPlace = DEFAULT_LEDGER, campaign: CampaignName = None, as_json: AsJson = False
) -> None:
    """Show how many rows are in each state. It works during a run."""
    with reporting_errors(), Ledger(ledger_path, campaign, api=_api(), new=False) as ledger:
        campaigns = ledger.campaigns()
        if campaign is None and len(campaigns) > 1:
            found: dict[str, dict[State, int]] = {}
            for each in campaigns:
                with Ledger(ledger_path, each.name, api=each.api, new=False) as other:
                    found[str(each)] = other.counts()
                    if not as_json:
                        err.print(str(each), markup=False, highlight=False)
                        _print_counts(found[str(each)])
            if as_json:
                _print_json({name: _plain(counts) for name, counts in found.items()})
            return
        if as_json:
            _print_json(_plain(ledger.counts()))
        _check_loaded(ledger)
        if not as_json:
            _print_counts(ledger.counts())
            _print_cost(ledger, _SavedOptions.of(ledger.saved_options()).price)


@app.command()
def rows(
    ledger_path: LedgerPlace = DEFAULT_LEDGER,
    campaign: CampaignName = None,
    state: Annotated[State | None, typer.Option(help="Only the rows in this state.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the rows: key, line, state, attempts, ids, file, reason, and your own columns.

    Columns are separated by tabs. --json prints one JSON object per line.
    """
    with reporting_errors(), Ledger(ledger_path, campaign, api=_api(), new=False) as ledger:
        _check_loaded(ledger)
        table = csv.writer(sys.stdout, delimiter="\t", lineterminator="\n")
        columns: list[str] = (
            [] if as_json else sorted({name for e in ledger.entries(state) for name in e.metadata})
        )
        if not as_json:
            table.writerow([*_FIELDS, *columns])
        for entry in ledger.entries(state):
            if as_json:
                _print_json(_fields(entry))
            else:
                own = (entry.metadata.get(name) for name in columns)
                table.writerow([*(_fields(entry)[name] for name in _FIELDS), *own])


@app.command()
def fetch(
    output: Annotated[Path, typer.Option("--out", help="Folder for the videos.")],
    ledger_path: LedgerPlace = DEFAULT_LEDGER,
    campaign: CampaignName = None,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """Download every finished video that is not in the folder yet."""
    with reporting_errors(), connected(shows_warnings=True) as client:
        with open_campaign(ledger_path, session_of(client).settings, campaign) as ledger:
            _check_loaded(ledger)
            options = _SavedOptions.of(ledger.saved_options() | ({} if name is None else {"name": name}))
            campaign, done = ledger.campaign_name, ledger.counts()[State.DONE]
        fetched = failed = 0
        template = options.run.get("name", Options().name)
        for entry in client.batch.fetch(ledger_path, out=output, name=template, campaign=campaign):
            fetched, failed = fetched + (entry.file is not None), failed + (entry.file is None)
            if as_json:
                _print_json(_fields(entry))
            elif entry.file is None:
                _print(f"{entry.key}: {entry.reason}")
        existing = done - fetched - failed
        _print(
            f"{counted(fetched, 'video')} downloaded to {output}, {existing:,} existed already, {failed:,} "
            "failed."
        )
        raise typer.Exit(ExitCode.FAILED if failed else ExitCode.DONE)


@app.command()
def retry(
    key: Keys = None,
    state: Annotated[
        Retryable | None, typer.Option(help="All rows in this state. For unknown rows use `unknown`.")
    ] = None,
    ledger_path: LedgerPlace = DEFAULT_LEDGER,
    campaign: CampaignName = None,
) -> None:
    """Mark failed rows as pending, so that `resume` submits them again: these keys, or `--state failed`."""
    with (
        reporting_errors(),
        Ledger(ledger_path, campaign, api=_api(), new=False) as ledger,
        ledger.exclusive_lock(),
    ):
        if not key and state is None:
            raise InvalidArgumentError("retry", "give the keys of the rows, or --state failed")
        _check_keys(ledger, key, State.FAILED, "Only failed rows can be retried")
        count = ledger.retry(State.FAILED, key or None)
        _print(f"{_are(count)} pending again. Next: {_command('resume', ledger_path, ledger)}")


@app.command()
def unknown(
    key: Keys = None,
    check: Annotated[bool, typer.Option("--check", help="Look for their videos in storage.")] = False,
    resubmit: Annotated[
        bool, typer.Option("--resubmit", help="Submit them again. You may pay twice for some.")
    ] = False,
    job: Annotated[
        list[str] | None,
        typer.Option("--job", help="KEY=JOB or PROJECT=JOB: the job's id, if you know it; repeatable."),
    ] = None,
    ledger_path: LedgerPlace = DEFAULT_LEDGER,
    campaign: CampaignName = None,
) -> None:
    """List the rows for which a job may exist, and resolve them."""
    with (
        reporting_errors(),
        Ledger(ledger_path, campaign, api=_api(), new=False) as ledger,
        ledger.exclusive_lock(),
    ):
        _check_loaded(ledger)
        ledger.expire_claims(ledger.now() if ledger.is_shared else None)
        resume_command = _command("resume", ledger_path, ledger)
        _check_keys(ledger, key, State.UNKNOWN, "This command is for unknown rows only")
        for assignment in job or ():
            _assign_job(ledger, assignment)
            _print(f"Recorded: {assignment}. Next: {resume_command}")
        if check:
            with connected(shows_warnings=True) as client:
                found = client.batch.check_unknown(ledger)
            _print(f"Found {counted(found, 'video')}. Next: {resume_command}")
        if resubmit:
            count = ledger.retry(State.UNKNOWN, key or None)
            _print(f"{_are(count)} pending again. Next: {resume_command}")
            return
        for entry in ledger.entries(State.UNKNOWN):
            if not key or entry.key in key:
                line = f"{entry.key}  project {entry.project_id}  {mask(entry.reason or '')}"
                out.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command()
def report(
    to: Annotated[Path, typer.Argument(help="A .csv, .parquet or .html file.")],
    ledger_path: LedgerPlace = DEFAULT_LEDGER,
    campaign: CampaignName = None,
    price: Price = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Write a report with one line per row."""
    with reporting_errors(), Ledger(ledger_path, campaign, api=_api(), new=False) as ledger:
        _check_loaded(ledger)
        if to.exists() and not overwrite:
            # The file may be the manifest.
            raise InvalidArgumentError("to", f"{to} exists already. Give another name, or add --overwrite")
        own = _SavedOptions.of(ledger.saved_options()).price if price is None else _price(price)
        _print(f"Wrote {write_report(ledger, to, price=own)}")


# --- loading a manifest and approving its cost -------------------------------------------------------


@frozen
class _Source:
    """A manifest and the options for reading it."""

    manifest: Path
    skip_bad: bool
    allow_columns: tuple[str, ...]
    on_conflict: Conflicts
    on_removed: Removed | None
    campaign: str | None

    def check_readable(self) -> None:
        next(read(self.manifest, allow_columns=self.allow_columns), None)

    def load(
        self, ledger: Ledger, client: TechForge, approve: Callable[[Loaded], object] | None = None
    ) -> Loading:
        return load(
            ledger,
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
    """The jobs that a command will submit, their price, and whether the user approved them."""

    price: Decimal | None
    max_jobs: int | None
    ask_above: int
    is_approved: bool = False
    is_dry_run: bool = False
    submits: str = "This run submits"

    def jobs(self, loaded: Loaded) -> int:
        return loaded.pending if self.max_jobs is None else min(loaded.pending, self.max_jobs)

    def needs_approval(self, loaded: Loaded) -> bool:
        return not self.is_approved and self.jobs(loaded) > self.ask_above

    def print_summary(self, loaded: Loaded) -> None:
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
        _print(f"{submits} {counted(jobs, 'job')}{of}.{cost}")
        held_back = loaded.pending - jobs
        if held_back:
            _print(
                f"{counted(held_back, 'row')} stay{'s' if held_back == 1 else ''} pending because of "
                f"--max-jobs {self.max_jobs}."
            )

    def approve(self, loaded: Loaded) -> bool:
        """Print how many jobs will be submitted, and ask for confirmation if there are many."""
        self.print_summary(loaded)
        if not self.needs_approval(loaded):
            return True
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            if self.max_jobs is not None:
                return True
            raise InvalidArgumentError(
                "run",
                f"submitting {counted(self.jobs(loaded), 'job')} needs your approval, and there is no "
                "terminal to "
                "ask on. Nothing was submitted. Add --yes, or --max-jobs N",
            )
        if typer.confirm("Submit them?", err=True):
            return True
        _print("Nothing was submitted.")
        raise typer.Exit(ExitCode.NOT_YET)


class _NotApprovedYet(Exception):  # noqa: N818 - not an error
    """Rolls back a load until the user has approved it."""

    def __init__(self, loaded: Loaded, first: Entry | None) -> None:
        self.loaded, self.first = loaded, first


def _load(ledger: Ledger, source: _Source, client: TechForge, order: _Order) -> bool:
    """Load a manifest after the user approved the cost. Return False for a dry run."""

    def require_approval(loaded: Loaded) -> None:
        if order.is_dry_run or order.needs_approval(loaded):
            raise _NotApprovedYet(loaded, next(iter(ledger.pending(float("inf"), 1)), None))

    try:
        loading = source.load(ledger, client, require_approval)
    except _NotApprovedYet as pending:
        _print_loaded(pending.loaded)
        if order.is_dry_run:
            order.print_summary(pending.loaded)
            if pending.first is not None:
                body = mask_all({**pending.first.params, "project_id": pending.first.project_id})
                _print(f"First request: POST /jobs/v2 {json.dumps(body, ensure_ascii=False)}")
            _print("Nothing was sent.")
            ledger.remove_if_empty()
            return False
        try:
            order.approve(pending.loaded)
        except BaseException:
            ledger.remove_if_empty()
            raise
        _print_skipped(source.load(ledger, client))
    else:
        _print_skipped(loading)
        _print_loaded(loading.loaded)
        order.print_summary(loading.loaded)
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
def _exclusive_lock(ledger: Ledger) -> Generator[None]:
    """Lock the ledger. If another process holds the lock, remove the campaign that this command created."""
    with ExitStack() as stack:
        try:
            stack.enter_context(ledger.exclusive_lock())
        except LedgerError:
            ledger.remove_if_empty()
            raise
        yield


# --- running --------------------------------------------------------------------------------------


@frozen
class _SavedOptions:
    """The options of a campaign's last run, for the run and for the client, and the price."""

    run: RunOptions
    client: ClientOptions
    price: Decimal | None

    @classmethod
    def of(cls, saved: dict[str, Any]) -> _SavedOptions:
        rest = dict(saved)
        client = {name: rest.pop(name, None) for name in ("max_rate", "allow_private_media")}
        price = rest.pop("price", None)
        rest["give_up_after"] = rest.get("give_up_after", GIVE_UP_AFTER) or None
        given = {name: value for name, value in client.items() if value is not None}
        return cls(cast("RunOptions", rest), cast("ClientOptions", given), Decimal(price) if price else None)

    def applied_to(self, client: TechForge) -> TechForge:
        return client.with_options(**self.client) if self.client else client


def _run(
    client: TechForge,
    ledger_path: str,
    campaign: str,
    method: str,
    options: _SavedOptions,
    more: dict[str, Any],
    *,
    as_json: bool,
) -> None:
    # SIGTERM, for example from a deployment, ends a run like Ctrl-C: responses in flight are still recorded.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    client = options.applied_to(client)
    entries: Callable[..., Iterable[Entry]] = getattr(client.batch, method)
    next_command = "worker" if method == "work" else "resume"
    if not options.run.get("out"):
        with _open(ledger_path, campaign) as ledger:
            fetch_command = _command("fetch --out DIR", ledger_path, ledger)
            _print(f"Videos are not downloaded without --out. To download them later: {fetch_command}")
    try:
        with bar() as on_progress:
            for entry in entries(
                ledger=ledger_path, campaign=campaign, on_progress=on_progress, **options.run, **more
            ):
                if as_json:
                    _print_json(_fields(entry))
    except (APIConnectionError, AuthenticationError, PermissionDeniedError) as error:
        # Only the check request before the first submission raises these.
        _print(_why_not_started(error))
        raise typer.Exit(code_of(error)) from None
    except KeyboardInterrupt:
        with _open(ledger_path, campaign) as ledger:
            _print(f"Stopped. Continue with: {_command(next_command, ledger_path, ledger)}")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    with _open(ledger_path, campaign) as ledger:
        _finish(
            ledger,
            ledger_path,
            next_command,
            options.price,
            str(options.run.get("out") or ""),
            as_json=as_json,
        )


def _why_not_started(error: APIError) -> str:
    """Explain the error as `techforge doctor` does."""
    if isinstance(error, APIConnectionError):
        from techforge.cli.doctor import explain  # noqa: PLC0415 - needed after a failure only

        return f"{'. '.join(explain(error))} Nothing was submitted."
    rejected = f"{keys.origin()} does not accept this key ({error.status_code})."
    return f"{rejected} {keys.WEB_APP} Nothing was submitted."


def _finish(
    ledger: Ledger, ledger_path: str, next_command: str, price: Decimal | None, out: str, *, as_json: bool
) -> None:
    counts, bounds = ledger.counts(), Bounds.load(ledger)
    if not as_json:
        _print_counts(counts)
    _print_cost(ledger, price)
    if counts[State.UNKNOWN]:
        count = counts[State.UNKNOWN]
        outcome = "has an unknown outcome: a job may exist"
        if count > 1:
            outcome = "have an unknown outcome: a job may exist for each"
        check_command = _command("unknown --check", ledger_path, ledger)
        _print(f"{counted(count, 'row')} {outcome}. Check with: {check_command}")
    if counts[State.SKIPPED]:
        _print(
            f"{counted(counts[State.SKIPPED], 'row')} skipped. "
            f"List with: {_command('rows --state skipped', ledger_path, ledger)}"
        )
    missing = ledger.count_without_file()
    if out and missing:
        fetch_command = _command(f"fetch --out {shlex.quote(out)}", ledger_path, ledger)
        _print(f"{counted(missing, 'video')} not downloaded to {out}. Download with: {fetch_command}")
    left = counts[State.PENDING] + counts[State.POSTING] + counts[State.SUBMITTED]
    if counts[State.PENDING] and (bounds.last or bounds.failed):
        next_command = "resume"
        _print(
            "The last run stopped at its budget (--max-jobs or --max-failures). `resume` continues without "
            "it."
        )
    if left:
        _print(f"{counted(left, 'row')} left. Continue with: {_command(next_command, ledger_path, ledger)}")
    raise typer.Exit(_code(counts, left))


def _code(counts: dict[State, int], left: int) -> int:
    if counts[State.UNKNOWN]:
        return ExitCode.UNKNOWN
    if counts[State.FAILED] or counts[State.SKIPPED]:
        return ExitCode.FAILED
    return ExitCode.NOT_YET if left else ExitCode.DONE


def _assign_job(ledger: Ledger, assignment: str) -> None:
    row, _, job_id = assignment.rpartition("=")
    try:
        UUID(job_id)
    except ValueError:
        raise InvalidArgumentError(
            "job", f"{assignment!r} is not KEY=JOB or PROJECT=JOB with a job's UUID"
        ) from None
    # A key also names a submitted row whose job id was wrong. A project names unknown rows only.
    if not ledger.correct(row, job_id) and not ledger.settle(row, job_id):
        raise InvalidArgumentError("job", f"no unknown row has the key or project {row!r}")


# --- messages -------------------------------------------------------------------------------------


def _api() -> str:
    """Return the API's address. It identifies the campaign if several have the same name."""
    with suppress(ValueError):
        return normalized_url(keys.base_url())
    return keys.base_url()


def _open(ledger_path: str, campaign: str) -> Ledger:
    return Ledger(ledger_path, campaign, api=_api(), new=False)


def _check_loaded(ledger: Ledger) -> None:
    """Exit with a message if the campaign has no rows."""
    if any(ledger.counts().values()):
        return
    problem = ledger.get_fact("refused")
    why = f"the manifest was rejected. {problem}" if problem else "its manifest had no rows."
    _print(f"The campaign {ledger.campaign_name!r} has no rows: {why}")
    raise typer.Exit(ExitCode.USAGE)


def _check_keys(ledger: Ledger, keys: list[str] | None, state: State, rule: str) -> None:
    for key in keys or ():
        entry = ledger.row_of(key)
        if entry is None:
            raise InvalidArgumentError("key", f"the campaign {ledger.campaign_name!r} has no row {key!r}")
        if entry.state is not state:
            raise InvalidArgumentError("key", f"row {key!r} is {entry.state}. {rule}")
        if entry.job_id:
            raise InvalidArgumentError(
                "key",
                f"row {key!r} has a job, which you pay for, so it is not submitted again: {entry.job_id}",
            )


def _print(text: str) -> None:
    # No markup and no wrapping: the text may contain a command to copy.
    err.print(text, markup=False, highlight=False, soft_wrap=True)


def _print_skipped(loading: Loading) -> None:
    for bad in loading.bad:
        err.print(f"skipped: {bad}", markup=False, style="yellow", soft_wrap=True)
    more = loading.loaded.skipped - len(loading.bad)
    if more > 0:
        err.print(f"… and {more:,} more", style="yellow")


def _print_loaded(loaded: Loaded) -> None:
    parts = [counted(loaded.new, "new row")]
    parts += [f"{loaded.known:,} known from earlier runs"] if loaded.known else []
    parts += [counted(loaded.duplicates, "duplicate") + " in the manifest"] if loaded.duplicates else []
    parts += [f"{loaded.replaced:,} replaced"] if loaded.replaced else []
    parts += [f"{loaded.skipped:,} skipped"] if loaded.skipped else []
    parts += [f"{loaded.withdrawn:,} withdrawn"] if loaded.withdrawn else []
    _print(", ".join(parts) + ".")


def _print_counts(counts: dict[State, int]) -> None:
    for state, count in counts.items():
        if count:
            out.print(f"{state:10} {count:>10,}", highlight=False)


def _print_cost(ledger: Ledger, price: Decimal | None) -> None:
    if price is None:
        return
    known, possible = ledger.job_counts()
    more = (
        f"; up to {price * possible} more for {counted(possible, 'job')} that may exist" if possible else ""
    )
    _print(f"Cost at {price} per job: {price * known} for {counted(known, 'job')}{more}.")


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


def _command(arguments: str, ledger_path: str, ledger: Ledger) -> str:
    """Return a command to copy. It has no password; the user can set PGPASSWORD or use a service file."""
    words = ["techforge batch", arguments]
    if ledger_path != DEFAULT_LEDGER:
        words += ["--ledger", shlex.quote(without_password(ledger_path))]
    if len(ledger.campaigns()) > 1:
        words += ["--campaign", shlex.quote(ledger.campaign_name)]
    return " ".join(words)
