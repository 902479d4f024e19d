"""The command line: python -m techforge.mock."""

import argparse
import asyncio
import json
import logging
import signal
import sys

try:
    from techforge.mock import TEST_API_KEY, MockServer
    from techforge.mock.faults import parse_faults
except ImportError as error:
    sys.exit(str(error))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m techforge.mock",
        description="A mock of the TechForge Innovate API: contract-true, stateful, and it really renders.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument(
        "--port", type=int, default=8642, help="port of the API; 0 takes a free one (%(default)s)"
    )
    parser.add_argument("--storage-port", type=int, default=0, help="port of storage; 0 takes a free one")
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument("--job-seconds", type=float, default=2.0, help="how long a job takes (%(default)s)")
    pace.add_argument(
        "--job-looks", type=int, metavar="N", help="instead: N looks at a job find it unfinished"
    )
    parser.add_argument(
        "--no-render", action="store_true", help="fetch nothing; every video is the same tiny one"
    )
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="SPEC",
        help="a fault, e.g. 'status=503;operation=createJob;times=2'; may be given again",
    )
    parser.add_argument(
        "--ttl", type=float, default=300.0, help="seconds that a signed URL lives (%(default)s)"
    )
    parser.add_argument("--api-key", action="append", metavar="KEY", help=f"a key to accept ({TEST_API_KEY})")
    parser.add_argument("--print-json", action="store_true", help="print the URLs as a line of JSON, too")
    options = parser.parse_args()
    try:
        options.fault = [fault for spec in options.fault for fault in parse_faults(spec)]
    except ValueError as error:
        parser.error(str(error))
    return options


async def _serve(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    server = MockServer(
        host=options.host,
        port=options.port,
        storage_port=options.storage_port,
        job_seconds=options.job_seconds,
        job_looks=options.job_looks,
        render=not options.no_render,
        faults=options.fault,
        ttl=options.ttl,
        api_keys=options.api_key or [TEST_API_KEY],
    )
    if sys.platform != "win32":
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with server.serving():
        lines = [f"Mock API at {server.url}, storage at {server.storage_url}, x-api-key: {server.api_key}"]
        if options.print_json:
            facts = {"url": server.url, "storage_url": server.storage_url, "api_key": server.api_key}
            lines.append(json.dumps(facts))
        else:
            # For people; a script that reads the JSON asks for what it wants to know.
            logging.basicConfig(format="%(message)s")
            logging.getLogger("techforge.mock").setLevel(logging.INFO)
        print(*lines, sep="\n", flush=True)  # noqa: T201 - this is a command
        await stop.wait()


def main() -> int:
    """Serve until told to stop."""
    options = _arguments()
    try:
        asyncio.run(_serve(options))
    except (OSError, OverflowError) as error:
        print(f"The mock cannot listen on {options.host}: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
