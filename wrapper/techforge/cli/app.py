"""What `techforge` can do, one group of commands each."""

import typer

from techforge.cli import batch

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # they would show variables, and with them the key
    context_settings={"help_option_names": ["-h", "--help"]},
    help="The TechForge Innovate talking-video API. The key is read from TFI_API_KEY.",
)
app.add_typer(batch.app, name="batch")


@app.callback()
def _commands() -> None:
    """Make `batch` a group also while it is the only one."""
