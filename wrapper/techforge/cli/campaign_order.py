"""What a command of `techforge batch` is about to submit, and whether the user agrees to pay for it."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack, contextmanager
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, cast

import typer
from attrs import frozen

from techforge._masking import mask_all
from techforge._session import session_of
from techforge.batch import Entry, Ledger, LedgerError, Loaded, load, read
from techforge.batch.campaign import Loading, removed_rows_of
from techforge.batch.wording import counted
from techforge.cli.campaign_output import print_loaded, print_note, print_skipped
from techforge.cli.exit_codes import ExitCode
from techforge.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from techforge import TechForge
    from techforge.batch.loading import OnConflict, OnRemoved
    from techforge.batch.options import Options
    from techforge.cli.campaign_options import Conflicts, Removed


@frozen
class Source:
    """A manifest and the options for reading it."""

    manifest: Path
    skip_bad: bool
    allow_columns: tuple[str, ...]
    on_conflict: Conflicts
    on_removed: Removed | None
    campaign: str | None

    def check_readable(self) -> None:
        """Raise if the manifest cannot be read, before a ledger is created."""
        next(read(self.manifest, allow_columns=self.allow_columns), None)

    def load(
        self, ledger: Ledger, client: TechForge, approve: Callable[[Loaded], object] | None = None
    ) -> Loading:
        """Load the manifest into a ledger."""
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
class Order:
    """The jobs that a command will submit, their price, and whether the user approved them."""

    price: Decimal | None
    max_jobs: int | None
    ask_above: int
    is_approved: bool = False
    is_dry_run: bool = False
    submits: str = "This run submits"

    def jobs(self, loaded: Loaded) -> int:
        """Return how many jobs are submitted."""
        return loaded.pending if self.max_jobs is None else min(loaded.pending, self.max_jobs)

    def needs_approval(self, loaded: Loaded) -> bool:
        """Return whether the user must agree first."""
        return not self.is_approved and self.jobs(loaded) > self.ask_above

    def print_summary(self, loaded: Loaded) -> None:
        """Print how many jobs are submitted, and what they cost."""
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
        print_note(f"{submits} {counted(jobs, 'job')}{of}.{cost}")
        held_back = loaded.pending - jobs
        if held_back:
            print_note(
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
        print_note("Nothing was submitted.")
        raise typer.Exit(ExitCode.NOT_YET)


class _NotApprovedYet(Exception):  # noqa: N818 - not an error
    """Rolls back a load until the user has approved it."""

    def __init__(self, loaded: Loaded, first: Entry | None) -> None:
        self.loaded, self.first = loaded, first


def load_manifest(ledger: Ledger, source: Source, client: TechForge, order: Order, checked: Options) -> bool:
    """Load a manifest after the user approved the cost. Return False for a dry run."""

    def require_approval(loaded: Loaded) -> None:
        checked.check_names(ledger.entries)
        if order.is_dry_run or order.needs_approval(loaded):
            raise _NotApprovedYet(loaded, next(iter(ledger.pending(float("inf"), 1)), None))

    try:
        loading = source.load(ledger, client, require_approval)
    except _NotApprovedYet as pending:
        print_loaded(pending.loaded)
        if order.is_dry_run:
            order.print_summary(pending.loaded)
            if pending.first is not None:
                body = mask_all({**pending.first.params, "project_id": pending.first.project_id})
                print_note(f"First request: POST /jobs/v2 {json.dumps(body, ensure_ascii=False)}")
            print_note("Nothing was sent.")
            ledger.remove_if_empty()
            return False
        try:
            order.approve(pending.loaded)
        except BaseException:
            ledger.remove_if_empty()
            raise
        print_skipped(source.load(ledger, client))
    else:
        print_skipped(loading)
        print_loaded(loading.loaded)
        order.print_summary(loading.loaded)
    return True


def parse_price(text: str) -> Decimal:
    """Return the price of a job."""
    try:
        price = Decimal(text)
    except InvalidOperation:
        price = Decimal(-1)
    if not price.is_finite() or price < 0:
        raise typer.BadParameter(f"{text!r} is not a price such as 0.40", param_hint="--price")
    return price


@contextmanager
def locked(ledger: Ledger) -> Generator[None]:
    """Lock the ledger. If another process holds the lock, remove the campaign that this command created."""
    with ExitStack() as stack:
        try:
            stack.enter_context(ledger.exclusive_lock())
        except LedgerError:
            ledger.remove_if_empty()
            raise
        yield
