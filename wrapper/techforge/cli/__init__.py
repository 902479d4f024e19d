"""The command line: `techforge`, with the extra `techforge[cli]`."""

import sys


def main() -> None:
    """Run the command line, or say which extra to install."""
    try:
        from techforge.cli.app import app  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name not in {"typer", "rich", "click"}:
            raise
        sys.exit("The command line needs more packages: pip install 'techforge[cli]'")
    except KeyboardInterrupt:
        sys.exit(130)
    app(prog_name="techforge")
