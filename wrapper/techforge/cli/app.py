"""What `techforge` can do, one group of commands each."""

# ruff: noqa: FBT001, FBT002
# Typer's options are arguments with defaults.

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from techforge._version import __version__

COMMANDS = {
    "video": "Submit a job, wait for its video, fetch it.",
    "batch": "Campaigns from a file, with a ledger that survives anything.",
    "storage": "What is in storage.",
    "auth": "Keep an API key in the system's keyring.",
    "mock": "Start a mock of the API, which costs nothing.",
    "doctor": "Find out what is wrong, and what to do about it.",
}
"""Each is a module of this package. What they load is loaded when they are called: --help need not wait."""


class Lazy(TyperGroup):
    """A group that loads a command when it is called; till then it knows what the help says of it."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, text in COMMANDS.items():
            self.add_command(TyperCommand(name, help=text))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command itself."""
        name, stub, rest = super().resolve_command(ctx, args)
        return name, stub and get_command(import_module(f"techforge.cli.{name}").app), rest


app = typer.Typer(
    cls=Lazy,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # they would show variables, and with them the key
    rich_markup_mode=None,  # rich doubles the time that --help takes
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "The TechForge Innovate talking-video API. The key is read from TFI_API_KEY, else from the system's "
        "keyring (techforge auth login)."
    ),
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"techforge {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that belong to no command."""
    del version
