"""The command line: `techforge`, with the extra `techforge[cli]`."""

import sys

from techforge.cli import signals


def main() -> None:
    """Run the command line, or say which extra to install."""
    try:
        from techforge.cli.app import app  # noqa: PLC0415

        signals.install()
        app(prog_name="techforge")
    except ModuleNotFoundError as error:
        if error.name not in {"typer", "rich", "click"}:
            raise
        sys.exit("The command line needs more packages: pip install 'techforge[cli]'")
    except KeyboardInterrupt as interruption:
        sys.exit(signals.exit_code_of(interruption))
    except signals.StdoutError as error:  # from --help or --version
        signals.silence_stdout()
        print(error, file=sys.stderr)  # noqa: T201
        sys.exit(signals.exit_code_of(error))
    except SystemExit as ended:
        sys.exit(signals.final_code(ended.code))
