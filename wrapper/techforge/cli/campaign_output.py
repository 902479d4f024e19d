"""What `techforge batch` prints, and the checks that end a command with a sentence."""

from __future__ import annotations

import json
import shlex
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from techforge._config import normalized_url
from techforge._masking import mask, printable
from techforge.batch import Entry, Ledger, Loaded, State
from techforge.batch.database import without_password
from techforge.batch.pause import pause_of
from techforge.batch.progress import duration
from techforge.batch.wording import counted
from techforge.cli import keys
from techforge.cli.campaign_options import DEFAULT_LEDGER
from techforge.cli.exit_codes import ExitCode
from techforge.cli.messages import note
from techforge.errors import InvalidArgumentError

if TYPE_CHECKING:
    from decimal import Decimal

    from techforge.batch.campaign import Loading


def api_address() -> str:
    """Return the API's address. It identifies the campaign if several have the same name."""
    with suppress(ValueError):
        return normalized_url(keys.base_url())
    return keys.base_url()


def open_ledger(ledger_path: str, campaign: str) -> Ledger:
    """Open a campaign that exists."""
    return Ledger(ledger_path, campaign, api=api_address(), new=False)


def check_loaded(ledger: Ledger) -> None:
    """Exit with a message if the campaign has no rows."""
    if any(ledger.counts().values()):
        return
    problem = ledger.get_fact("refused")
    why = f"the manifest was rejected. {problem}" if problem else "its manifest had no rows."
    print_note(f"The campaign {ledger.campaign_name!r} has no rows: {why}")
    raise typer.Exit(ExitCode.USAGE)


def check_keys(ledger: Ledger, keys: list[str] | None, state: State, rule: str) -> None:
    """Raise unless rows with these keys exist in a state, without a job."""
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


def print_note(text: str) -> None:
    """Print a note on stderr, in one line: it may be a command to copy."""
    note(text)


def print_skipped(loading: Loading) -> None:
    """Print the rows that were skipped."""
    for bad in loading.bad:
        note(f"skipped: {bad}", typer.colors.YELLOW)
    more = loading.loaded.skipped - len(loading.bad)
    if more > 0:
        note(f"… and {more:,} more", typer.colors.YELLOW)


def print_loaded(loaded: Loaded) -> None:
    """Print what became of the rows of a manifest."""
    parts = [counted(loaded.new, "new row")]
    parts += [f"{loaded.known:,} known from earlier runs"] if loaded.known else []
    parts += [counted(loaded.duplicates, "duplicate") + " in the manifest"] if loaded.duplicates else []
    parts += [f"{loaded.replaced:,} replaced"] if loaded.replaced else []
    parts += [f"{loaded.skipped:,} skipped"] if loaded.skipped else []
    parts += [f"{loaded.withdrawn:,} withdrawn"] if loaded.withdrawn else []
    print_note(", ".join(parts) + ".")


def print_counts(counts: dict[State, int]) -> None:
    """Print the number of rows in each state."""
    for state, count in counts.items():
        if count:
            typer.echo(f"{state:10} {count:>10,}")


def print_blocked(count: int, ledger_path: str, ledger: Ledger) -> None:
    """Print that videos were not downloaded because of other files, and where to download them."""
    places = "its place" if count == 1 else "their places"
    files = "another file is" if count == 1 else "other files are"
    rows_command = command_line("rows --state done", ledger_path, ledger)
    fetch_command = command_line("fetch --out OTHER-FOLDER", ledger_path, ledger)
    print_note(
        f"{counted(count, 'video')} not downloaded: {files} in {places} (reason: {rows_command}). "
        f"Download to another folder with: {fetch_command}"
    )


def print_cost(ledger: Ledger, price: Decimal | None) -> None:
    """Print the cost of the jobs, if the user gave a price."""
    if price is None:
        return
    known, possible = ledger.job_counts()
    more = (
        f"; up to {price * possible} more for {counted(possible, 'job')} that may exist" if possible else ""
    )
    print_note(f"Cost at {price} per job: {price * known} for {counted(known, 'job')}{more}.")


def print_pause(ledger: Ledger, command: str) -> None:
    """Print the end and the reason of the campaign's pause, if there is one."""
    pause = pause_of(ledger)
    if pause is None:
        return
    seconds = pause.until - ledger.now()
    try:
        end = f"until {datetime.fromtimestamp(pause.until, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError, OSError):
        end = "for longer than a calendar reaches"
    print_note(
        f"Paused {end} (for {duration(seconds)}), because {mask(pause.reason)}. To continue now: {command}"
    )


def rows_are(count: int) -> str:
    """Return the number of rows, with its verb."""
    return f"{counted(count, 'row')} {'is' if count == 1 else 'are'}"


def plain_counts(counts: dict[State, int]) -> dict[str, int]:
    """Return counts that can be printed as JSON."""
    return {str(state): count for state, count in counts.items()}


def print_json(value: object) -> None:
    """Print a line of JSON on stdout."""
    print(json.dumps(value, ensure_ascii=False), flush=True)  # noqa: T201


ROW_FIELDS = "key", "line", "state", "attempts", "job_id", "project_id", "file", "reason"


def row_fields(entry: Entry) -> dict[str, Any]:
    """Return what a row shows to programs."""
    fields = {name: getattr(entry, name) for name in ROW_FIELDS} | {"metadata": entry.metadata}
    return fields | {"reason": entry.reason and printable(mask(entry.reason))}


def command_line(arguments: str, ledger_path: str, ledger: Ledger) -> str:
    """Return a command to copy. It has no password; the user can set PGPASSWORD or use a service file."""
    words = ["techforge batch", arguments]
    if ledger_path != DEFAULT_LEDGER:
        words += ["--ledger", shlex.quote(without_password(ledger_path))]
    if len(ledger.campaigns()) > 1:
        words += ["--campaign", shlex.quote(ledger.campaign_name)]
    return " ".join(words)
