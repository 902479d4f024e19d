"""Start a mock of the API, which costs nothing."""

# ruff: noqa: FBT002, PLR0917, PLC0415
# Typer's options are arguments with defaults; and the mock needs an extra of its own.

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from techforge.cli.exits import Code
from techforge.cli.told import note, result, told
from techforge.errors import ConfigurationError, InvalidArgumentError

if TYPE_CHECKING:
    from techforge.mock import MockServer

app = typer.Typer(rich_markup_mode=None, help=__doc__)


@app.command()
def mock(
    port: Annotated[int, typer.Option(help="Port of the API; 0 takes a free one.")] = 8642,
    storage_port: Annotated[int, typer.Option(help="Port of storage; 0 takes a free one.")] = 0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    failure_rate: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the API's requests that fail with a 503.")
    ] = 0.0,
    latency: Annotated[float, typer.Option(min=0, help="Seconds that each answer takes longer.")] = 0.0,
    fault: Annotated[
        list[str] | None,
        typer.Option(help="A fault, e.g. 'status=429;retry-after=2;times=3'; repeatable, see docs/mock.md."),
    ] = None,
    job_seconds: Annotated[float, typer.Option(min=0, help="Seconds that a job takes.")] = 2.0,
    job_looks: Annotated[
        int | None, typer.Option(min=0, help="Instead: as many looks find a job unfinished.")
    ] = None,
    render: Annotated[
        bool, typer.Option(help="Render each job's image and audio; else all videos are the same tiny one.")
    ] = True,
    ttl: Annotated[float, typer.Option(min=0, help="Seconds that a signed URL lives.")] = 300.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print address and key as a line of JSON.")] = False,
) -> None:
    """Serve a mock of the API until Ctrl-C.

    On stdout are the two lines that point a program at it: eval them in its shell. Requests are not
    charged, jobs are rendered here, and what the contract forbids is refused.
    """
    with told():
        try:
            from techforge.mock import MockServer
            from techforge.mock.faults import parse_faults
        except ImportError as error:
            raise ConfigurationError(str(error)) from None
        try:
            faults = [one for spec in fault or [] for one in parse_faults(spec)]
        except ValueError as error:
            raise InvalidArgumentError("fault", str(error)) from None
        if failure_rate:
            faults += parse_faults(f"status=503;share={failure_rate};times=0")
        server = MockServer(
            host=host,
            port=port,
            storage_port=storage_port,
            job_seconds=job_seconds,
            job_looks=job_looks,
            render=render,
            faults=faults,
            ttl=ttl,
            latency=latency,
        )
        try:
            asyncio.run(_serve(server, as_json=as_json))
        except (OSError, OverflowError) as error:
            note(f"The mock cannot listen on {host}, port {port}: {error}. --port 0 takes a free one.")
            raise typer.Exit(Code.NETWORK) from None


async def _serve(server: MockServer, *, as_json: bool) -> None:
    stop = asyncio.Event()
    if sys.platform != "win32":
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with server.serving():
        if as_json:
            facts = {"url": server.url, "storage_url": server.storage_url, "api_key": server.api_key}
            result(facts)
        else:
            typer.echo(f"export TFI_BASE_URL={server.url}\nexport TFI_API_KEY={server.api_key}")
            note("Serving; give a program the two lines above. Ctrl-C ends it.")
            logging.basicConfig(format="%(message)s")
            logging.getLogger("techforge.mock").setLevel(logging.INFO)
        sys.stdout.flush()
        await stop.wait()
