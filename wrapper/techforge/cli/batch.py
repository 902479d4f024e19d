"""Make many videos from a file. A stopped run continues where it was."""

# ruff: noqa: FBT002, PLR0917
# Typer's options are arguments with defaults.

from __future__ import annotations

import asyncio
import csv
import shlex
import sys
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast
from uuid import UUID

import typer
from attrs import define, frozen

from techforge._masking import mask, printable
from techforge._session import session_of
from techforge.batch import Entry, Ledger, Loaded, State, bar, write_report
from techforge.batch.campaign import open_campaign, open_when_ready
from techforge.batch.database import postgres_url
from techforge.batch.dispatch import default_dispatcher, enqueue
from techforge.batch.options import Options
from techforge.batch.pause import end_pause
from techforge.batch.wording import counted
from techforge.batch.worker import Bounds
from techforge.cli import keys, signals
from techforge.cli.campaign_options import (
    ASK_ABOVE,
    DEFAULT_LEDGER,
    GIVE_UP_AFTER,
    AfterFailover,
    AllowColumn,
    AllowPrivateMedia,
    AsJson,
    AskAbove,
    CampaignName,
    Concurrency,
    Conflicts,
    GiveUpAfter,
    JobTimeout,
    Keys,
    LedgerPlace,
    ManifestFile,
    MaxFailures,
    MaxJobs,
    MaxOutstanding,
    MaxRate,
    Name,
    OnConflictOption,
    OnRemovedOption,
    OutDir,
    Pending,
    Price,
    Retryable,
    RetryServerErrors,
    SkipBad,
    Unpause,
    WaitForLedger,
    Yes,
)
from techforge.cli.campaign_order import (
    Order,
    Source,
    load_manifest,
    locked,
    parse_price,
)
from techforge.cli.campaign_output import (
    ROW_FIELDS,
    api_address,
    check_keys,
    check_loaded,
    command_line,
    open_ledger,
    plain_counts,
    print_blocked,
    print_cost,
    print_counts,
    print_json,
    print_note,
    print_pause,
    row_fields,
    rows_are,
)
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
    from collections.abc import Callable, Generator

    from techforge import ClientOptions, TechForge
    from techforge.batch.options import RunOptions
    from techforge.batch.runner import Run

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=__doc__)


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
        "price": None if price is None else str(parse_price(price)),
    }
    source = Source(manifest, skip_bad, tuple(allow_column or ()), on_conflict, on_removed, campaign)
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
            order = Order(options.price, max_jobs, ask_above, is_approved=yes, is_dry_run=dry_run)
            with locked(ledger):
                if not load_manifest(ledger, source, client, order, checked):
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
    source = Source(manifest, skip_bad, tuple(allow_column or ()), on_conflict, on_removed, campaign)
    with reporting_errors(), connected(shows_warnings=True) as client:
        source.check_readable()
        with open_campaign(ledger_path, session_of(client).settings, campaign, manifest) as ledger:
            options = _SavedOptions.of(ledger.saved_options())
            client = options.applied_to(client)  # noqa: PLW2901
            # With SQLite, `resume` asks before it submits. Workers on PostgreSQL submit the rows immediately.
            order = Order(
                options.price,
                None,
                ask_above,
                is_approved=yes or not ledger.is_shared,
                submits="Workers submit" if ledger.is_shared else "resume submits",
            )
            if load_manifest(ledger, source, client, order, Options.of(options.run)) and ledger.is_shared:
                asyncio.run(enqueue(default_dispatcher(ledger_path, ledger.campaign.id), ledger.chunks()))


@app.command()
def resume(
    ledger_path: LedgerPlace = DEFAULT_LEDGER,
    campaign: CampaignName = None,
    max_jobs: MaxJobs = None,
    ask_above: AskAbove = ASK_ABOVE,
    yes: Yes = False,
    after_failover: AfterFailover = False,
    unpause: Unpause = False,
    as_json: AsJson = False,
) -> None:
    """Continue a campaign with the options of its last run."""
    with reporting_errors(), connected(shows_warnings=True) as client:
        with open_campaign(ledger_path, session_of(client).settings, campaign) as ledger:
            check_loaded(ledger)
            if after_failover and ledger.is_shared:
                ledger.restore()
                count = ledger.confirm_failover()
                print_note(f"Confirmed. {_unknown(count)}." if count else "Confirmed.")
            ledger.check_server()
            if unpause:
                end_pause(ledger)
            options = _SavedOptions.of(ledger.saved_options())
            order = Order(options.price, max_jobs, ask_above, is_approved=yes)
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
    wait_for_ledger: WaitForLedger = 0,
    as_json: AsJson = False,
) -> None:
    """Join a campaign whose ledger is in PostgreSQL. The campaign's last run provides the other options."""
    own = {
        "out": None if output is None else str(output),
        "concurrency": concurrency,
        "give_up_after": give_up_after,
    }
    with reporting_errors(), connected(shows_warnings=True) as client:
        opening = open_when_ready(ledger_path, session_of(client).settings, campaign, wait_for_ledger)
        with asyncio.run(opening) as ledger:
            saved = ledger.saved_options() | {n: value for n, value in own.items() if value is not None}
            campaign = ledger.campaign_name
        more = {"stay": stay, "wait_for_ledger": wait_for_ledger}
        _run(client, ledger_path, campaign, "work", _SavedOptions.of(saved), more, as_json=as_json)


@app.command()
def status(
    ledger_path: LedgerPlace = DEFAULT_LEDGER, campaign: CampaignName = None, as_json: AsJson = False
) -> None:
    """Show how many rows are in each state. It works during a run."""
    with reporting_errors(), Ledger(ledger_path, campaign, api=api_address(), new=False) as ledger:
        campaigns = ledger.campaigns()
        if campaign is None and len(campaigns) > 1:
            found: dict[str, dict[State, int]] = {}
            for each in campaigns:
                with Ledger(ledger_path, each.name, api=each.api, new=False) as other:
                    found[str(each)] = other.counts()
                    if not as_json:
                        print_note(str(each))
                        print_counts(found[str(each)])
            if as_json:
                print_json({name: plain_counts(counts) for name, counts in found.items()})
            return
        if as_json:
            print_json(plain_counts(ledger.counts()))
        check_loaded(ledger)
        if not as_json:
            print_counts(ledger.counts())
            print_pause(ledger, command_line("resume --unpause", ledger_path, ledger))
            print_cost(ledger, _SavedOptions.of(ledger.saved_options()).price)


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
    with reporting_errors(), Ledger(ledger_path, campaign, api=api_address(), new=False) as ledger:
        check_loaded(ledger)
        table = csv.writer(sys.stdout, delimiter="\t", lineterminator="\n")
        columns: list[str] = (
            [] if as_json else sorted({name for e in ledger.entries(state) for name in e.metadata})
        )
        if not as_json:
            table.writerow([*ROW_FIELDS, *columns])
        for entry in ledger.entries(state):
            if as_json:
                print_json(row_fields(entry))
            else:
                own = (entry.metadata.get(name) for name in columns)
                table.writerow([*(row_fields(entry)[name] for name in ROW_FIELDS), *own])


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
            check_loaded(ledger)
            options = _SavedOptions.of(ledger.saved_options() | ({} if name is None else {"name": name}))
            campaign, done = ledger.campaign_name, ledger.counts()[State.DONE]
        fetched = failed = 0
        template = options.run.get("name", Options().name)
        for entry in client.batch.fetch(ledger_path, out=output, name=template, campaign=campaign):
            fetched, failed = fetched + (entry.file is not None), failed + (entry.file is None)
            if as_json:
                print_json(row_fields(entry))
            elif entry.file is None:
                print_note(f"{entry.key}: {entry.reason}")
        existing = done - fetched - failed
        print_note(
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
        Ledger(ledger_path, campaign, api=api_address(), new=False) as ledger,
        ledger.exclusive_lock(),
    ):
        if not key and state is None:
            raise InvalidArgumentError("retry", "give the keys of the rows, or --state failed")
        check_keys(ledger, key, State.FAILED, "Only failed rows can be retried")
        count = ledger.retry(State.FAILED, key or None)
        print_note(f"{rows_are(count)} pending again. Next: {command_line('resume', ledger_path, ledger)}")


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
    pending: Pending = False,
    ledger_path: LedgerPlace = DEFAULT_LEDGER,
    campaign: CampaignName = None,
) -> None:
    """List the rows for which a job may exist, and resolve them."""
    with (
        reporting_errors(),
        Ledger(ledger_path, campaign, api=api_address(), new=False) as ledger,
        ledger.exclusive_lock(),
    ):
        check_loaded(ledger)
        ledger.expire_claims(ledger.now() if ledger.is_shared else None)
        resume_command = command_line("resume", ledger_path, ledger)
        if pending:
            count = ledger.doubt_pending()
            list_command = command_line("unknown", ledger_path, ledger)
            print_note(f"{rows_are(count)} unknown now. List with: {list_command}")
            return
        check_keys(ledger, key, State.UNKNOWN, "This command is for unknown rows only")
        for assignment in job or ():
            _assign_job(ledger, assignment)
            print_note(f"Recorded: {assignment}. Next: {resume_command}")
        if check:
            with connected(shows_warnings=True) as client:
                found = client.batch.check_unknown(ledger)
            print_note(f"Found {counted(found, 'video')}. Next: {resume_command}")
        if resubmit:
            count = ledger.retry(State.UNKNOWN, key or None)
            print_note(f"{rows_are(count)} pending again. Next: {resume_command}")
            return
        for entry in ledger.entries(State.UNKNOWN):
            if not key or entry.key in key:
                line = f"{entry.key}  project {entry.project_id}  {printable(mask(entry.reason or ''))}"
                typer.echo(line)


@app.command()
def report(
    to: Annotated[Path, typer.Argument(help="A .csv, .parquet or .html file.")],
    ledger_path: LedgerPlace = DEFAULT_LEDGER,
    campaign: CampaignName = None,
    price: Price = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Write a report with one line per row."""
    with reporting_errors(), Ledger(ledger_path, campaign, api=api_address(), new=False) as ledger:
        check_loaded(ledger)
        if to.exists() and not overwrite:
            # The file may be the manifest.
            raise InvalidArgumentError("to", f"{to} already exists. Choose another name, or add --overwrite")
        own = _SavedOptions.of(ledger.saved_options()).price if price is None else parse_price(price)
        print_note(f"Wrote {write_report(ledger, to, price=own)}")


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
    client = options.applied_to(client)
    entries: Callable[..., Generator[Entry]] = getattr(client.batch, method)
    next_command = "worker" if method == "work" else "resume"
    with open_ledger(ledger_path, campaign) as ledger:
        next_steps = _NextSteps(
            command_line(next_command, ledger_path, ledger),
            command_line("unknown --check", ledger_path, ledger),
        )
        fetch_command = command_line("fetch --out DIR", ledger_path, ledger)
    if not options.run.get("out"):
        print_note(f"Videos are not downloaded without --out. To download them later: {fetch_command}")
    try:
        with bar() as show, signals.describing(next_steps.in_doubt):

            def on_progress(run: Run) -> None:
                next_steps.run = run
                show(run)

            with closing(
                entries(ledger=ledger_path, campaign=campaign, on_progress=on_progress, **options.run, **more)
            ) as results:
                for entry in results:
                    if as_json:
                        print_json(row_fields(entry))
    except (APIConnectionError, AuthenticationError, PermissionDeniedError) as error:
        # Only the check request before the first submission raises these.
        print_note(_why_not_started(error))
        raise typer.Exit(code_of(error)) from None
    except (KeyboardInterrupt, BrokenPipeError, signals.StdoutError) as interruption:
        if isinstance(interruption, signals.StdoutError):
            print_note(str(interruption))
        next_steps.print_after_stop()
        if isinstance(interruption, OSError):
            signals.silence_stdout()
        raise typer.Exit(signals.exit_code_of(interruption)) from None
    with open_ledger(ledger_path, campaign) as ledger:
        _finish(
            ledger,
            ledger_path,
            next_command,
            options.price,
            str(options.run.get("out") or ""),
            as_json=as_json,
        )


@define
class _NextSteps:
    """What to do after a run that was interrupted."""

    continue_command: str
    check_command: str
    run: Run | None = None

    def in_doubt(self) -> str:
        """Name the rows for which a job may exist, if the process ends at once."""
        keys = list(self.run.unanswered.values()) if self.run else []
        if not keys:
            return f"Continue with: {self.continue_command}"
        return (
            f"{_unknown(len(keys))}: {', '.join(keys)}. Continue with: {self.continue_command}. "
            f"Then check with: {self.check_command}"
        )

    def print_after_stop(self) -> None:
        """Print how many rows have an unknown outcome, and how to continue."""
        # Not from the ledger: its database may be the reason for the interruption.
        count = self.run.counts[State.UNKNOWN] if self.run else 0
        if count:
            print_note(f"{_unknown(count)}. Check with: {self.check_command}")
        print_note(f"Stopped. Continue with: {self.continue_command}")


def _unknown(count: int) -> str:
    if count == 1:
        return "1 row has an unknown outcome: a job may exist"
    return f"{counted(count, 'row')} have an unknown outcome: a job may exist for each"


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
        print_counts(counts)
    print_cost(ledger, price)
    if counts[State.UNKNOWN]:
        check_command = command_line("unknown --check", ledger_path, ledger)
        print_note(f"{_unknown(counts[State.UNKNOWN])}. Check with: {check_command}")
    if counts[State.SKIPPED]:
        print_note(
            f"{counted(counts[State.SKIPPED], 'row')} skipped. "
            f"List with: {command_line('rows --state skipped', ledger_path, ledger)}"
        )
    missing, blocked = ledger.count_without_file()
    if blocked:
        print_blocked(blocked, ledger_path, ledger)
    if out and missing > blocked:
        fetch_command = command_line(f"fetch --out {shlex.quote(out)}", ledger_path, ledger)
        videos = counted(missing - blocked, "video")
        print_note(f"{videos} not downloaded to {out}. Download with: {fetch_command}")
    left = counts[State.PENDING] + counts[State.POSTING] + counts[State.SUBMITTED]
    if counts[State.PENDING] and (bounds.last or bounds.failed):
        next_command = "resume"
        print_note(
            "The last run stopped at its budget (--max-jobs or --max-failures). `resume` continues without "
            "it."
        )
    if left:
        print_note(
            f"{counted(left, 'row')} left. Continue with: {command_line(next_command, ledger_path, ledger)}"
        )
    raise typer.Exit(_code(counts, left, blocked))


def _code(counts: dict[State, int], left: int, blocked: int) -> int:
    if counts[State.UNKNOWN]:
        return ExitCode.UNKNOWN
    if counts[State.FAILED] or counts[State.SKIPPED]:
        return ExitCode.FAILED
    if left:
        return ExitCode.NOT_YET
    return ExitCode.FILE if blocked else ExitCode.DONE


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
