"""Hold the mock server to openapi.json: schemathesis asks it everything the contract allows, and more.

`nox -s contract` runs this; further arguments go to schemathesis.
"""

import json
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = ROOT / "tests" / "contract" / "schemathesis.toml"
REPORT = ROOT / "reports" / "contract.xml"

MOCK = [sys.executable, "-m", "techforge.mock", "--no-render", "--job-looks", "0"]


class Address(TypedDict):
    """Where a mock server listens, in its own words."""

    url: str
    storage_url: str
    api_key: str


@contextmanager
def mock_server() -> Generator[Address]:
    """Run a mock server on a free port for as long as the block lasts."""
    with subprocess.Popen([*MOCK, "--port", "0", "--print-json"], stdout=subprocess.PIPE) as server:
        try:
            facts = next((line for line in server.stdout or () if line.startswith(b"{")), None)
            if facts is None:
                sys.exit("The mock server did not start; it says why above.")
            address: Address = json.loads(facts)
            yield address
        finally:
            server.terminate()


def main(arguments: list[str]) -> int:
    """Run schemathesis against a mock server; the result is its exit code."""
    with mock_server() as server:
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(SETTINGS)]
        command += ["run", str(ROOT / "openapi.json"), "--url", server["url"]]
        command += ["--header", f"x-api-key: {server['api_key']}"]
        command += ["--report", "junit", "--report-junit-path", str(REPORT), *arguments]
        return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
