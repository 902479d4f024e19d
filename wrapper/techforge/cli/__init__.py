"""The command line: `techforge`, with the extra `techforge[cli]`."""

import sys


def main() -> None:
    """Run the command line; without its extra, say how to get it."""
    try:
        from techforge.cli.app import app  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name not in {"typer", "rich", "click"}:
            raise
        sys.exit("The command line needs its extra: pip install 'techforge[cli]'")
    except KeyboardInterrupt:
        sys.exit(130)
    app(prog_name="techforge")
