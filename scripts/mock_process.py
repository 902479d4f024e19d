"""A mock server in a process of its own, on free ports, for as long as a block lasts."""

import json
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import IO, NamedTuple, TypedDict


class Address(TypedDict):
    """Where a mock server listens, in its own words."""

    url: str
    storage_url: str
    api_key: str


class Mock(NamedTuple):
    """A mock server that runs."""

    process: subprocess.Popen[bytes]
    address: Address


@contextmanager
def mock_server(*arguments: str, stderr: IO[bytes] | None = None) -> Generator[Mock]:
    """Run `python -m techforge.mock` with these arguments; the end of the block ends it."""
    command = [sys.executable, "-m", "techforge.mock", "--port", "0", "--json", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr) as process:
        try:
            announced = next((line for line in process.stdout or () if line.startswith(b"{")), None)
            if announced is None:
                sys.exit("The mock server did not start; it says why above.")
            address: Address = json.loads(announced)
            yield Mock(process, address)
        finally:
            process.terminate()
