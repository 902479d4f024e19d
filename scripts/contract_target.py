"""Run the contract tests against any server: staging, a proxy, Prism.

Usage:
    python3 scripts/dev.py contract --target URL --api-key-env VAR [--may-create-jobs N]

The key is read from the environment variable that you name. Replay commands contain that variable.

Money rule: no more jobs than N. Each request that could create one counts until it is rejected with a 4xx;
beyond N it is not sent. With N = 0 (the default), only requests without a value in their body are sent to an
operation that creates jobs. The live API also needs --paid-job.

Exit codes: 0 the server is as documented; 1 it differs, or that is not known; 2 nothing was sent; 130
interrupted.
"""

import argparse
import base64
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urlsplit

from techforge import ConfigurationError
from techforge._masking import mask
from techforge.auth import LIVE_HOST, check_api_key, check_key_for_host

ROOT = Path(__file__).resolve().parent.parent
CHECKS = ROOT / "tests" / "contract"
MIN_KEY_LENGTH = 8
SIGNED = re.compile(r"[?&][^=&\s]*(sig|token|expires|credential|policy|secret)[^=&\s]*=", re.IGNORECASE)
NEEDS_THE_MOCK = """\
Skipped, because it needs the mock server's controls:
    errors_are_as_documented: 429 with each form of Retry-After, 5xx and other rare errors on demand
    works_until_it_expires: a signed URL just before and after it expires"""


def main(arguments: list[str]) -> int:
    """Check the options, run schemathesis, and report; return the exit code."""
    options = _parse(arguments)
    try:
        check_url(options.target, may_be_live=options.paid_job)
        key = _key(options)
        options.report.parent.mkdir(parents=True, exist_ok=True)
        report = options.report.open("w", encoding="utf-8")
    except (ConfigurationError, OSError, ValueError) as error:
        print(f"contract: nothing was sent: {error}", file=sys.stderr)
        return 2
    censor = Censor(key, options.api_key_env, options.target)

    def say(text: str) -> None:
        print(text, flush=True)
        print(text, file=report, flush=True)

    with report:
        say(f"{options.target}: at most {options.may_create_jobs} jobs.\n{NEEDS_THE_MOCK}\n")
        # Nothing that schemathesis writes beside its report may stay.
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CHECKS / "target.toml")]
            command += ["run", str(ROOT / "openapi.json"), "--url", options.target, "--no-color"]
            command += [f"--max-failures={options.max_failures}", f"--max-examples={options.max_examples}"]
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=_environment(options, key),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
            )
            with process:
                code = _pass_on(process, lambda line: say(censor(line)))
        print(f"The report: {options.report}")
    return code


def _pass_on(process: subprocess.Popen[str], say: Callable[[str], None]) -> int:
    """Print what schemathesis says, to its end, and return the exit code of the run."""
    has_stopped = was_interrupted = False
    lines = iter(process.stdout or ())
    while True:
        try:
            for line in lines:
                has_stopped |= line.startswith("STOPPED: ")
                say(line.rstrip("\n"))
            failed = process.wait() != 0
        except KeyboardInterrupt:
            # The terminal interrupts schemathesis, too: it still prints jobs and its report.
            was_interrupted = True
        else:
            return 130 if was_interrupted else int(failed or has_stopped)


class Censor:
    """Replaces the key by its variable, and removes the queries of signed URLs."""

    def __init__(self, key: str, variable: str, target: str) -> None:
        self._target = target.rstrip("/")
        whole = f"${variable}"
        spellings = {
            key.upper(): f"${{{variable}^^}}",
            key.lower(): f"${{{variable},,}}",
            key[:-1]: f"${{{variable}%?}}",
            key[1:]: f"${{{variable}#?}}",
            **{
                base64.b64encode(text.replace("KEY", key).encode()).decode(): (
                    f'$(printf %s "{text.replace("KEY", whole)}" | base64 -w0)'
                )
                for text in ("KEY:", ":KEY", "KEY")
            },
            key: whole,
        }
        # The same as a shell, JSON and a URL spell it.
        for text, variable_for_it in list(spellings.items()):
            for other in (text.replace("'", "'\"'\"'"), json.dumps(text)[1:-1], quote(text, safe="")):
                spellings.setdefault(other, variable_for_it)
        self._spellings = dict(sorted(spellings.items(), key=lambda each: -len(each[0])))
        self._secrets = re.compile("|".join(map(re.escape, self._spellings)))

    def __call__(self, line: str) -> str:
        """Return a line as it may be shown."""
        is_command = line.lstrip().startswith("curl ")
        # A command keeps the queries that it tests.
        line = re.sub(
            r"[a-z][a-z0-9+.-]*://[^\s'\"`<>]+", lambda url: self._url(url[0], is_command=is_command), line
        )
        # curl's arguments are in single quotes, where the shell replaces nothing.
        form = "'\"{}\"'" if is_command else "{}"
        return self._secrets.sub(lambda found: form.format(self._spellings[found[0]]), line)

    def _url(self, url: str, *, is_command: bool) -> str:
        keeps = is_command and url.startswith(self._target) and not SIGNED.search(url)
        return url if keeps else mask(url)


def check_url(url: str, *, may_be_live: bool) -> None:
    """Raise ValueError unless the suite may be sent to this URL, with the key."""
    parts = urlsplit(url)
    local = parts.hostname in {"localhost", "127.0.0.1", "::1"}
    if not parts.hostname or (parts.scheme != "https" and not (local and parts.scheme == "http")):
        raise ValueError("--target must be https, or http on this machine: your key is sent there")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("--target must have no user, no query and no fragment")
    if is_live(url) and not may_be_live:
        raise ValueError("this is the live API: jobs cost money, so it also needs --paid-job")


def is_live(url: str) -> bool:
    """Return whether a URL is that of the live API."""
    return (urlsplit(url).hostname or "").rstrip(".") == LIVE_HOST


def _key(options: argparse.Namespace) -> str:
    """Return the key. No message repeats the argument, which may be the key itself by mistake."""
    if not re.fullmatch(r"[A-Za-z_]\w*", options.api_key_env) or not os.environ.get(options.api_key_env):
        raise ConfigurationError(
            "name an environment variable that holds the key (--api-key-env TFI_API_KEY); never pass the key"
        )
    key = check_api_key(os.environ[options.api_key_env])
    if len(key) < MIN_KEY_LENGTH:
        raise ConfigurationError(
            f"the key has fewer than {MIN_KEY_LENGTH} characters: too short to be hidden in the output"
        )
    check_key_for_host(key, LIVE_HOST if is_live(options.target) else "")
    return key


def _environment(options: argparse.Namespace, key: str) -> dict[str, str]:
    # Schemathesis has settings of its own there, and some of them write files.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SCHEMATHESIS_")}
    path = os.pathsep.join(filter(None, [str(CHECKS), str(ROOT / "scripts"), os.environ.get("PYTHONPATH")]))
    return kept | {
        "PYTHONPATH": path,
        "PYTHONUTF8": "1",
        "CONTRACT_TARGET": options.target,
        "CONTRACT_DOCUMENT": str(ROOT / "openapi.json"),
        "CONTRACT_API_KEY": str(key),
        "CONTRACT_MAY_CREATE_JOBS": str(options.may_create_jobs),
        "CONTRACT_JOB_SECONDS": str(options.job_timeout),
    }


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="contract",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # so that no typing error is a flag that costs money
    )
    parser.add_argument("--target", required=True, metavar="URL", help="the server's base URL")
    parser.add_argument("--api-key-env", default="", help="environment variable with the key; not the key")
    parser.add_argument("--may-create-jobs", type=_count, default=0, metavar="N", help="default: 0")
    parser.add_argument(
        "--job-timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="how long to wait for a job's video; default: %(default)s",
    )
    parser.add_argument(
        "--max-failures",
        type=_count,
        default=10,
        metavar="N",
        help="stop a phase after as many different failures; default: %(default)s",
    )
    parser.add_argument(
        "--max-examples",
        type=_count,
        default=100,
        metavar="N",
        help="random requests for each operation; default: %(default)s",
    )
    parser.add_argument("--report", type=Path, default=ROOT / "reports" / "contract-target.txt")
    parser.add_argument("--paid-job", action="store_true", help="for the live API: jobs may cost money")
    return parser.parse_args(arguments)


def _count(text: str) -> int:
    if (number := int(text)) < 0:
        raise ValueError
    return number


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
