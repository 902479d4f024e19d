"""The options of `techforge batch`: their types, limits and help texts."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from techforge.batch.campaign import LEDGER


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
WaitForLedger = Annotated[
    float,
    typer.Option(
        min=0,
        help="If there is no ledger yet, or its database is down or has no free connection, wait for it this "
        "many seconds.",
    ),
]
Unpause = Annotated[
    bool, typer.Option("--unpause", help="End a pause that is stored in the ledger, such as a Retry-After.")
]
AfterFailover = Annotated[
    bool,
    typer.Option(
        "--after-failover",
        help="A standby took over the ledger, or you restored a backup: submit again. First read 'Failover "
        "and backups' in docs/workers.md.",
    ),
]
Pending = Annotated[
    bool,
    typer.Option(
        "--pending",
        help="Mark all pending rows as unknown, because the ledger is a backup that may not know their jobs.",
    ),
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
