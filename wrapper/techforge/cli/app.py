"""The `techforge` command and its subcommands."""

# ruff: noqa: FBT001, FBT002
# Typer's options are arguments with defaults.

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from techforge._version import __version__

COMMANDS = {
    "video": "Submit a job, wait for its video, and download it.",
    "batch": "Make many videos from a file. A stopped run continues where it was.",
    "storage": "Get URLs of files in storage.",
    "auth": "Manage the API key in the system's keyring.",
    "mock": "Start a local mock of the API, for tests at no cost.",
    "doctor": "Check the setup, and say how to fix it.",
}
"""A module of this package for each command. A command is imported when it runs, so that --help is fast."""


class LazyGroup(TyperGroup):
    """A group that imports a command when it runs, and knows its help text before."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, text in COMMANDS.items():
            self.add_command(TyperCommand(name, help=text))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Import and return the command."""
        name, stub, rest = super().resolve_command(ctx, args)
        return name, stub and get_command(import_module(f"techforge.cli.{name}").app), rest


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # they show local variables, and so the key
    rich_markup_mode=None,  # rich doubles the time that --help takes
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "The TechForge Innovate talking-video API. The key comes from TFI_API_KEY, or from the system's "
        "keyring (techforge auth login)."
    ),
)


def _version(is_requested: bool) -> None:
    if is_requested:
        typer.echo(f"techforge {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Define the options of `techforge` itself."""
    del version
