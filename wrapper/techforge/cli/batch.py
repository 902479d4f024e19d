"""Campaigns from a file, with a ledger that survives anything."""

# ruff: noqa: SLF001, FBT002, PLR0917
# pyright: reportPrivateUsage=false
# The client's settings are of the same package; and Typer's options are arguments with defaults.

from __future__ import annotations

import asyncio
import itertools
import json
import shlex
import signal
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from techforge.batch import Entry, Ledger, Loading, NoLedgerError, State, bar, load, read, write_report
from techforge.batch.campaign import LEDGER
from techforge.batch.database import without_password
from techforge.batch.dispatch import default_dispatcher, enqueue
from techforge.batch.worker import Bounds
from techforge.cli.client import connected
from techforge.cli.exits import Code
from techforge.cli.told import told
from techforge.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from techforge import TechForge

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=__doc__)
out, err = Console(), Console(stderr=True)

LedgerPlace = Annotated[
    str, typer.Option("--ledger", help="Where what is known of each row is kept: a file, or postgresql://…")
]
OutDir = Annotated[Path | None, typer.Option("--out", help="Directory for the videos.")]
Name = Annotated[str, typer.Option(help="What a row's file is called; {row_key}, {job_id}, any column.")]
Concurrency = Annotated[int, typer.Option(min=1, help="Submissions under way at once.")]
MaxRate = Annotated[float | None, typer.Option(help="Requests a second, if the account's limit is known.")]
MaxOutstanding = Annotated[int | None, typer.Option(min=1, help="Jobs under way at the API at once.")]
MaxJobs = Annotated[int | None, typer.Option(min=1, help="Jobs to submit, at the most; the rest waits.")]
MaxFailures = Annotated[int | None, typer.Option(min=1, help="Failed rows after which nothing is submitted.")]
RetryServerErrors = Annotated[
    bool,
    typer.Option("--retry-server-errors", help="Submit again after a 5xx, up to twice: each may be paid."),
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave bad rows out; else nothing is sent.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and nothing else there.")]
DEFAULT = LEDGER


@app.command()
def run(
    manifest: Annotated[Path, typer.Argument(help="A CSV, TSV, JSONL or Parquet file.")],
    ledger: LedgerPlace = DEFAULT,
    output: OutDir = None,
    name: Name = "{row_key}.mp4",
    concurrency: Concurrency = 32,
    max_rate: MaxRate = None,
    max_outstanding: MaxOutstanding = None,
    max_jobs: MaxJobs = None,
    max_failures: MaxFailures = None,
    retry_server_errors: RetryServerErrors = False,
    skip_bad: SkipBad = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and count; send nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Submit every row of a manifest once, wait for the jobs, and fetch the videos.

    Running it again goes on where it was stopped, and adds rows that are new.
    """
    options = {
        "out": None if output is None else str(output),
        "name": name,
        "concurrency": concurrency,
        "max_outstanding": max_outstanding,
        "retry_server_errors": retry_server_errors,
    }
    # What a budget allows, it allows one run.
    budget = {"max_jobs": max_jobs, "max_failures": max_failures}
    with told(), _client(max_rate) as client:
        next(read(manifest), None)  # a file that cannot be read leaves no ledger behind
        if dry_run:
            _dry_run(client, manifest, ledger, max_rate, skip_bad=skip_bad)
            return
        with Ledger(ledger) as book:
            _say_loaded(load(book, manifest, client._settings, skip_bad=skip_bad))
            book.remember({**options, "max_rate": max_rate})
        _run(ledger, client.batch.run, options | budget, as_json=as_json)


@app.command("load")
def load_rows(
    manifest: Annotated[Path, typer.Argument(help="A CSV, TSV, JSONL or Parquet file.")],
    ledger: LedgerPlace = DEFAULT,
    skip_bad: SkipBad = False,
) -> None:
    """Check a manifest, and add the rows that are new.

    `resume`, or workers, submit them; where the last run had a budget, `resume` lifts it.
    """
    with told(), _client(None) as client:
        next(read(manifest), None)
        with Ledger(ledger) as book:
            _say_loaded(load(book, manifest, client._settings, skip_bad=skip_bad))
            if book.is_shared:
                asyncio.run(enqueue(default_dispatcher(ledger), book.chunks()))


@app.command()
def worker(
    ledger: LedgerPlace,
    output: OutDir = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Submissions under way at once.")] = None,
    stay: Annotated[bool, typer.Option("--stay", help="Wait for more rows when all have ended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Join a campaign whose ledger is in PostgreSQL; the other options are those of its last run."""
    with told():
        with Ledger(ledger, new=False) as book:
            options = book.remembered()
        own = {"out": None if output is None else str(output), "concurrency": concurrency}
        options |= {name: value for name, value in own.items() if value is not None}
        with _client(options.pop("max_rate", None)) as client:
            _run(ledger, client.batch.work, {**options, "stay": stay}, again="worker", as_json=as_json)


@app.command()
def resume(ledger: LedgerPlace = DEFAULT, as_json: AsJson = False) -> None:
    """Go on with a campaign, with the options that it was last run with."""
    with told():
        with Ledger(ledger, new=False) as book:
            options = book.remembered()
        with _client(options.pop("max_rate", None)) as client:
            _run(ledger, client.batch.run, options, as_json=as_json)


@app.command()
def status(ledger: LedgerPlace = DEFAULT, as_json: AsJson = False) -> None:
    """Say how many rows are in each state; also while the campaign runs."""
    with told(), Ledger(ledger, new=False) as book:
        _say_counts(book.counts(), as_json=as_json)


@app.command()
def retry(
    state: Annotated[
        State, typer.Option(help="The rows to submit again; `unknown` has a command of its own.")
    ],
    ledger: LedgerPlace = DEFAULT,
) -> None:
    """Let rows be submitted again: `resume` does it."""
    if state is not State.FAILED:
        _say("Only failed rows can be tried again; for unknown ones see: techforge batch unknown")
        raise typer.Exit(Code.USAGE)
    with told(), Ledger(ledger, new=False) as book, book.alone():
        _say(f"{book.retry(state)} rows are pending again. Next: {_command('resume', ledger)}")


@app.command()
def unknown(
    check: Annotated[bool, typer.Option("--check", help="Ask storage whether videos have appeared.")] = False,
    resubmit: Annotated[
        bool, typer.Option("--resubmit", help="Submit them again: some may be paid twice.")
    ] = False,
    job: Annotated[
        list[str] | None,
        typer.Option(
            "--job", help="PROJECT=JOB: a job of which you know, from your webhook say; repeatable."
        ),
    ] = None,
    ledger: LedgerPlace = DEFAULT,
) -> None:
    """List the rows of which nobody knows whether a job was made, and settle them."""
    with told(), Ledger(ledger, new=False) as book, book.alone():
        book.abandon(book.now() if book.is_shared else None)
        for known in job or ():
            project, _, job_id = known.partition("=")
            if not job_id or not book.settle(project, job_id):
                raise InvalidArgumentError(
                    "job", f"there is no unknown row for {known!r}; PROJECT=JOB is wanted"
                )
            _say(f"Project {project} has job {job_id} now. Next: {_command('resume', ledger)}")
        if check:
            with _client(None) as client:
                found = client.batch.check_unknown(book)
            _say(f"{found} of them have a video, and are submitted now. Next: {_command('resume', ledger)}")
        if resubmit:
            _say(f"{book.retry(State.UNKNOWN)} rows are pending again. Next: {_command('resume', ledger)}")
            return
        for entry in book.entries(State.UNKNOWN):
            out.print(
                f"{entry.key}  project {entry.project_id}  {entry.reason}", markup=False, soft_wrap=True
            )


@app.command()
def report(
    to: Annotated[Path, typer.Argument(help="A .csv, .parquet or .html file.")],
    ledger: LedgerPlace = DEFAULT,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> None:
    """Write what became of every row."""
    with told(), Ledger(ledger, new=False) as book:
        if to.exists() and not overwrite:
            # It may well be the manifest.
            raise InvalidArgumentError("to", f"{to} is there already; give another name, or --overwrite")
        _say(f"Written: {write_report(book, to)}")


# --- running --------------------------------------------------------------------------------------


def _run(
    ledger: str,
    begin: Callable[..., Iterable[Entry]],
    options: dict[str, Any],
    *,
    again: str = "resume",
    as_json: bool,
) -> None:
    # Who is told to end, by a deployment say, ends in order, as by Ctrl-C: answers under way are noted.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with bar() as on_progress:
            for entry in begin(ledger=ledger, on_progress=on_progress, **options):
                if as_json:
                    print(json.dumps(_fields(entry), ensure_ascii=False), flush=True)  # noqa: T201
    except KeyboardInterrupt:
        _say(f"Stopped. Go on with: {_command(again, ledger)}")
        raise typer.Exit(Code.INTERRUPTED) from None
    with Ledger(ledger) as book:
        counts, bounds = book.counts(), Bounds.kept_in(book)
    if not as_json:
        _say_counts(counts, as_json=False)
    if counts[State.UNKNOWN]:
        _say(f"Of unknown rows a job may exist; see: {_command('unknown --check', ledger)}")
    left = counts[State.PENDING] + counts[State.POSTING] + counts[State.SUBMITTED]
    if counts[State.PENDING] and (bounds.last or bounds.failed):
        again = "resume"
        _say("A budget of the last run keeps rows back, and is lifted for all workers by the next one.")
    if left:
        _say(f"{left} rows are left. Go on with: {_command(again, ledger)}")
    raise typer.Exit(_code(counts, left))


def _code(counts: dict[State, int], left: int) -> int:
    if counts[State.UNKNOWN]:
        return Code.UNKNOWN
    if counts[State.FAILED]:
        return Code.FAILED
    return Code.NOT_YET if left else Code.DONE


def _dry_run(
    client: TechForge, manifest: Path, ledger: str, max_rate: float | None, *, skip_bad: bool
) -> None:
    with Ledger(":memory:") as book:
        with suppress(NoLedgerError), Ledger(ledger, new=False) as real:
            book.load(real.rows())
        loading = load(book, manifest, client._settings, skip_bad=skip_bad)
        _say_loaded(loading)
        if loading.loaded.new and max_rate:
            minutes = loading.loaded.new / max_rate / 60
            err.print(f"At {max_rate:g} a second, submitting them takes {minutes:.1f} min.")
        for entry in itertools.islice((e for e in book.entries() if e.state is State.PENDING), 1):
            sent = {**entry.params, "project_id": entry.project_id}
            err.print(
                f"The first: POST /jobs/v2 {json.dumps(sent, ensure_ascii=False)}",
                markup=False,
                soft_wrap=True,
            )
        err.print("Nothing was sent.")


# --- what is said ---------------------------------------------------------------------------------


def _say(text: str) -> None:
    # As it is, and in one line: it may be a command to copy.
    err.print(text, markup=False, highlight=False, soft_wrap=True)


def _say_loaded(loading: Loading) -> None:
    for bad in loading.bad:
        err.print(f"left out: {bad}", markup=False, style="yellow")
    more = loading.bad_count - len(loading.bad)
    if more > 0:
        err.print(f"… and {more} more", style="yellow")
    err.print(f"{loading.loaded.new:,} new rows, {loading.loaded.known:,} known.", highlight=False)


def _say_counts(counts: dict[State, int], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({str(state): count for state, count in counts.items()}))  # noqa: T201
        return
    for state, count in counts.items():
        if count:
            out.print(f"{state:10} {count:>10,}", highlight=False)


def _fields(entry: Entry) -> dict[str, Any]:
    names = "key", "line", "state", "job_id", "project_id", "file", "reason", "attempts"
    return {name: getattr(entry, name) for name in names} | {"metadata": entry.metadata}


def _command(what: str, ledger: str) -> str:
    """Return what to type; a password is not shown, and is best kept in PGPASSWORD or a service file."""
    return f"techforge batch {what}" + (
        "" if ledger == DEFAULT else f" --ledger {shlex.quote(without_password(ledger))}"
    )


@contextmanager
def _client(max_rate: float | None) -> Generator[TechForge]:
    with connected() as client:
        yield client if max_rate is None else client.with_options(max_rate=max_rate)
