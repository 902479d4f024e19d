"""Hold the mock server to openapi.json: schemathesis asks it everything the contract allows, and more.

`nox -s contract` runs this; further arguments go to schemathesis.
"""

import subprocess
import sys
from pathlib import Path

from mock_process import mock_server

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = ROOT / "tests" / "contract" / "schemathesis.toml"
REPORT = ROOT / "reports" / "contract.xml"


def main(arguments: list[str]) -> int:
    """Run schemathesis against a mock server; the result is its exit code."""
    with mock_server("--no-render", "--job-looks", "0") as (_, server):
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
