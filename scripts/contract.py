"""Hold the mock server to openapi.json: schemathesis asks it everything the contract allows, and more.

`nox -s contract` runs this; further arguments go to schemathesis. `nox -s contract -- replay ID` sends once
more what has led to a failure, to a new mock server.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import contract_target
from mock_process import mock_server

ROOT = Path(__file__).resolve().parent.parent
CHECKS = ROOT / "tests" / "contract"
REPORTS = ROOT / "reports" / "contract"

# Where `python -m techforge.mock` listens unless it is told otherwise.
USUAL_URL = "http://127.0.0.1:8642"
# So short that a check can wait for the end of a signed URL.
URL_SECONDS = 4
MOCK_OPTIONS = ("--no-render", "--job-polls", "0", "--ttl", str(URL_SECONDS))
CASE = re.compile(r"Test Case ID: (\w+)")
REPLAY = "python3 scripts/dev.py -s contract -- replay"


def settings() -> list[str]:
    """Return the arguments of schemathesis, whatever it is to do."""
    return ["--config-file", str(CHECKS / "schemathesis.toml")]


def suite(url: str, api_key: str) -> list[str]:
    """Return the arguments of schemathesis that make it run the whole suite."""
    return [*settings(), "run", str(ROOT / "openapi.json"), "--url", url, "--header", f"x-api-key: {api_key}"]


def main(arguments: list[str]) -> int:
    """Run schemathesis against a mock server, or against `--target`; the result is its exit code."""
    if any(argument.partition("=")[0] == "--target" for argument in arguments):
        return contract_target.main(arguments)
    if any(argument.startswith(("-u", "--url", "--origin")) for argument in arguments):
        print("contract: nothing was sent: use --target for another server: it limits jobs.", file=sys.stderr)
        return 2
    if arguments[:1] != ["replay"]:
        shutil.rmtree(REPORTS, ignore_errors=True)
    with mock() as (url, key):
        if arguments[:1] == ["replay"]:
            # Kept, so that the next attempt at a repair can be tried, too.
            access = ["--url", url, "--header", f"x-api-key: {key}", "--keep"]
            return schemathesis([*settings(), *arguments, *access], url)
        junit, html = REPORTS / "junit.xml", REPORTS / "html"
        reports = ["--report-junit-path", str(junit), "--report-html-path", str(html)]
        status = schemathesis([*suite(url, key), *reports, *arguments], url)
    for report in (junit, html / "index.html"):
        if report.exists():
            report.write_text(reproducible(report.read_text("utf-8"), url), "utf-8")
    if junit.exists():
        named = CASE.sub(rf"\g<0> ({REPLAY} \1)", junit.read_text("utf-8"))
        junit.write_text(named, "utf-8")
    return status


@contextmanager
def mock() -> Generator[tuple[str, str]]:
    """Run a mock server, and give its URL and its key."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    log = REPORTS / "mock.log"
    try:
        # A mistake in the mock is a traceback for each of thousands of requests.
        with (
            log.open("wb") as stderr,
            mock_server(*MOCK_OPTIONS, stderr=stderr) as (_, server),
        ):
            yield server["url"], server["api_key"]
    finally:
        if log.stat().st_size:
            print(f"What the mock server said meanwhile: {log}")


def schemathesis(arguments: list[str], url: str) -> int:
    """Run schemathesis, and pass on what it says."""
    command = [sys.executable, "-m", "schemathesis.cli", *arguments]
    path = os.pathsep.join(filter(None, [str(CHECKS), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {
        "PYTHONPATH": path,
        "PYTHONUTF8": "1",
        "CONTRACT_URL_SECONDS": str(URL_SECONDS),
    }
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        for line in process.stdout or ():
            print(reproducible(line, url), end="", flush=True)
    return process.returncode


def reproducible(text: str, url: str) -> str:
    """Replace what no longer works once the run's mock server is gone."""
    return text.replace(url, USUAL_URL).replace("st replay", REPLAY)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
