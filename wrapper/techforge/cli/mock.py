"""Start a local mock of the API, for tests at no cost."""

from __future__ import annotations

import typer

from techforge.mock.__main__ import main

app = typer.Typer(rich_markup_mode=None, help=__doc__, add_completion=False)


@app.command(
    add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
)
def mock(context: typer.Context) -> None:
    """Start the mock; `python -m techforge.mock` parses the options."""
    raise typer.Exit(main(context.args, "techforge mock"))
