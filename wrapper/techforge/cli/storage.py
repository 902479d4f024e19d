"""Get URLs of files in storage."""

# ruff: noqa: FBT002
# Typer's options are arguments with defaults.

from __future__ import annotations

from typing import Annotated

import typer

from techforge._masking import printable
from techforge.cli.client import connected
from techforge.cli.messages import SubmissionProgress, print_json, reporting_errors

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=__doc__)


@app.callback()
def _commands() -> None:
    """Get URLs of files in storage."""


@app.command()
def sign(
    path: Annotated[
        str, typer.Argument(help="A storage key, e.g. ai-talking-videos/PROJECT/outputs/JOB.mp4.")
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print only JSON on stdout, with the expiry.")
    ] = False,
) -> None:
    """Print a short-lived URL for a storage key. Anyone with this URL can download the file."""
    with reporting_errors(SubmissionProgress(as_json)), connected() as client:
        signed = client.storage.sign(path)
        if as_json:
            expires_at = signed.expires_at.isoformat() if signed.expires_at else None
            print_json({"path": signed.path, "url": str(signed.url), "expires_at": expires_at})
        else:
            typer.echo(printable(str(signed.url)))
