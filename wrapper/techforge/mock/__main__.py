"""The command `python -m techforge.mock`; `techforge mock` has the same options."""

import argparse
import asyncio
import json
import logging
import math
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from techforge.auth import TEST_API_KEY

if TYPE_CHECKING:
    from techforge.mock import MockServer

_USAGE, _NETWORK = 2, 8
"""Exit codes, as in docs/cli.md."""


def main(arguments: Sequence[str] | None = None, program: str = "python -m techforge.mock") -> int:
    """Serve until a signal arrives; return the exit code. Default: the arguments of the process."""
    parser = _parser(program)
    options = parser.parse_args(arguments)
    try:
        # Here, so that --help works without the extra.
        from techforge.mock import MockServer  # noqa: PLC0415
        from techforge.mock.faults import parse_faults  # noqa: PLC0415
    except ImportError as error:
        return _fail(str(error), _USAGE)
    try:
        faults = [fault for spec in options.fault for fault in parse_faults(spec)]
    except ValueError as error:
        parser.error(f"argument --fault: {error}")
    if options.webhook_secret and not options.webhook:
        parser.error("--webhook-secret needs --webhook")
    if options.failure_rate:
        faults += parse_faults(f"status=503;share={options.failure_rate};times=0")
    server = MockServer(
        host=options.host,
        port=options.port,
        storage_port=options.storage_port,
        job_seconds=options.job_seconds,
        job_polls=options.job_polls,
        render=options.render,
        faults=faults,
        ttl=options.ttl,
        api_keys=options.api_key or [TEST_API_KEY],
        latency=options.latency,
        webhook=options.webhook,
        webhook_secret=options.webhook_secret,
    )
    try:
        asyncio.run(_serve(server, as_json=options.json))
    except (OSError, OverflowError) as error:
        return _fail(
            f"The mock cannot listen on {options.host}, port {options.port}: {error}. "
            "To use any free port, pass --port 0.",
            _NETWORK,
        )
    except KeyboardInterrupt:  # on Windows, where asyncio handles no signals
        return 130
    return 0


def _fail(text: str, code: int) -> int:
    print(text, file=sys.stderr)  # noqa: T201 - this is a command
    return code


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description="Start a mock of the API. It costs nothing. It prints two lines: run them in the shell "
        "of your program to use the mock. Ctrl-C stops it.",
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    add(
        "--port",
        type=int,
        default=8642,
        metavar="N",
        help="port of the API; 0 for any free port (%(default)s)",
    )
    add("--storage-port", type=int, default=0, metavar="N", help="port of storage; 0 for any free port (0)")
    duration = parser.add_mutually_exclusive_group()
    duration.add_argument(
        "--job-seconds",
        type=_number,
        default=2.0,
        metavar="S",
        help="duration of a job in seconds (%(default)g)",
    )
    duration.add_argument("--job-polls", type=_count, metavar="N", help="finish a job after N polls instead")
    add(
        "--render",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="render a video from each job's image and audio (default), or serve one tiny video for all jobs",
    )
    add(
        "--failure-rate",
        type=_share,
        default=0.0,
        metavar="SHARE",
        help="share of API requests that fail with 503, from 0 to 1",
    )
    add("--latency", type=_number, default=0.0, metavar="S", help="seconds to delay each response")
    add(
        "--fault",
        action="append",
        default=[],
        metavar="SPEC",
        help="inject a fault, e.g. 'status=429;retry-after=2;times=3'; repeatable; docs/mock.md lists all",
    )
    add(
        "--ttl",
        type=_number,
        default=300.0,
        metavar="S",
        help="seconds until a signed URL expires (%(default)g)",
    )
    add("--api-key", action="append", metavar="KEY", help=f"accept this key; repeatable ({TEST_API_KEY})")
    add("--webhook", type=_url, metavar="URL", help="send a POST to this URL when a job ends")
    add("--webhook-secret", metavar="SECRET", help="sign webhooks with this secret; docs/mock.md says how")
    add("--json", action="store_true", help="print the URLs and the key as one line of JSON instead")
    return parser


def _number(text: str, maximum: float = math.inf) -> float:
    value = float(text)
    if not 0 <= value <= maximum:
        raise argparse.ArgumentTypeError(
            f"{text} is not from 0 to {maximum}" if maximum < math.inf else f"{text} is less than 0"
        )
    return value


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"{text} is not an http or https URL")
    return text


def _share(text: str) -> float:
    return _number(text, 1)


def _count(text: str) -> int:
    _number(text)
    return int(text)


async def _serve(server: "MockServer", *, as_json: bool) -> None:
    stop = asyncio.Event()
    if sys.platform != "win32":
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with server.serving():
        if as_json:
            facts = {"url": server.url, "storage_url": server.storage_url, "api_key": server.api_key}
            print(json.dumps(facts), flush=True)  # noqa: T201
        else:
            # The log is the only place that says why a job failed: the API does not report it.
            logging.basicConfig(format="%(message)s")
            logging.getLogger("techforge.mock").setLevel(logging.INFO)
            lines = f"export TFI_BASE_URL={server.url}\nexport TFI_API_KEY={server.api_key}"
            print(lines, flush=True)  # noqa: T201
            note = "The mock is running. Run the two lines above in your program's shell. Ctrl-C stops it."
            print(note, file=sys.stderr)  # noqa: T201
        await stop.wait()


if __name__ == "__main__":
    sys.exit(main())
