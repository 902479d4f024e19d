"""What is in storage."""

# ruff: noqa: FBT002
# Typer's options are arguments with defaults.

from __future__ import annotations

from typing import Annotated

import typer

from techforge.cli.client import connected
from techforge.cli.told import Known, result, told

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=__doc__)


@app.callback()
def _commands() -> None:
    """What is in storage."""


@app.command()
def sign(
    path: Annotated[
        str, typer.Argument(help="A storage key, e.g. ai-talking-videos/PROJECT/outputs/JOB.mp4.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout, with the expiry.")] = False,
) -> None:
    """Print a short-lived URL for a storage key. Whoever has it has the video: do not publish it."""
    with told(Known(as_json)), connected() as client:
        signed = client.storage.sign(path)
        if as_json:
            until = signed.expires_at.isoformat() if signed.expires_at else None
            result({"path": signed.path, "url": str(signed.url), "expires_at": until})
        else:
            typer.echo(str(signed.url))
