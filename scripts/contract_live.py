"""Ask the live API what costs nothing and changes nothing, and report where it differs from openapi.json.

Usage:
    python3 scripts/dev.py -s contract-live -- --dry-run                    say what it would send
    python3 scripts/dev.py -s contract-live -- --api-key-env TFI_API_KEY    say it, ask, and send it

The key is read from the environment variable that is named; a dry run needs none. What is sent obeys the
money rule, which `live/plan.py` states. A job is made with --paid-job only: one, sent once, whatever happens.

Exit codes: 0 all is as documented; 1 it is not, or could not be told; 2 nothing was sent; 3 stopped in doubt:
a job may exist; 130 interrupted. But for 2, the report says how far it came.
"""

import argparse
import hashlib
import io
import json
import math
import os
import re
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
from attrs import define, field, frozen

from live import plan
from live.plan import SAFE, Check, Json
from live.report import Masker, Report
from live.verdicts import DOCUMENTED, NOTED, UNKNOWN, Answer, Judge
from techforge import ConfigurationError, InvalidArgumentError, Job, _checks
from techforge._drivers.deadline import guard, until
from techforge._drivers.facade import NETWORK_ERRORS
from techforge._drivers.pool import tls_context
from techforge._version import __version__
from techforge.auth import check_api_key, check_key_for_host
from techforge.policy.retry_after import read_instant, read_retry_after

ROOT = Path(__file__).resolve().parent.parent

_BODY_LIMIT = 100_000
_ATTEMPTS = 4
"""Requests of one check, if all are answered 429."""


@frozen
class Pace:
    """How fast, and for how long. All in seconds."""

    pause: float = 1.0
    """Between two requests."""
    attempt: float = 30.0
    """For one request and its whole answer."""
    total: float = 300.0
    """For the free set, and again for the paid job."""
    look: float = 10.0
    """Between two looks for the paid job's output."""


class StopError(Exception):
    """A reason to send nothing further."""


class InDoubtError(StopError):
    """There may be a job that nobody knows of."""


@define
class Run:
    """One run against one service."""

    document: Json
    judge: Judge
    base_url: str
    key: str = field(repr=False)
    pace: Pace
    report: Report
    deadline: float
    connected: bool = True
    """Whether the last request that had no answer may have been read."""

    def free(self, checks: list[Check]) -> None:
        """Carry the free checks out, one after the other."""
        self.report.not_checked[:0] = [f"{check.subject}: {check.name}" for check in checks]
        for check in checks:
            answer = self._asked(check)
            del self.report.not_checked[0]
            # Any success, whatever it says, and any redirect, which may be to what was made: nothing that
            # was sent deserved one.
            if answer and (answer.job_id or (check.method not in SAFE and answer.status < 400)):
                raise InDoubtError(
                    f"A JOB MAY EXIST: {answer.job_id or 'its id is unknown'}, after {check.sent}."
                )

    def paid(self, job: Check, wait: int) -> None:
        """Create one job, and look for its output."""
        project_id: str = json.loads(job.body or b"")["project_id"]
        doubt = f"A JOB MAY EXIST in project {project_id}: ask your job service or TechForge's support."
        self.deadline = time.monotonic() + self.pace.total
        try:
            answer = self._asked(job, attempts=1)
        except KeyboardInterrupt:
            raise InDoubtError(f"Interrupted while the paid job was sent. {doubt}") from None
        job_id = answer.job_id if answer else None
        if job_id is None:
            if answer is None and self.connected:
                raise InDoubtError(f"The answer to the paid job was lost. {doubt}")
            if answer and (answer.status < 400 or answer.status >= 500):
                raise InDoubtError(f"The paid job was answered {answer.status}, without an id. {doubt}")
            return
        self.report.head["job"] = self.report.masked(f"{job_id} in project {project_id}")
        print(f"job {self.report.head['job']}", flush=True)
        with suppress(OSError):  # its end is written, too, or said not to be
            self.report.write()
        output = plan.output_check(self.document, Job(job_id, project_id).output_path)
        until_when = time.monotonic() + wait
        self.deadline = until_when + self.pace.total
        while True:
            found = self._asked(output)
            if found is None or found.status != 404 or time.monotonic() + self.pace.look > until_when:
                return
            self.report.checks.pop()  # one look is told of: the last
            time.sleep(self.pace.look)

    def _asked(self, check: Check, attempts: int = _ATTEMPTS) -> Answer | None:
        """Send a request, again after a 429, and report what came of it; return the answer, if any."""
        for attempt in range(1, attempts + 1):
            time.sleep(self.pace.pause)
            if time.monotonic() > self.deadline:
                raise StopError("The time for this was up.")
            try:
                answer = self._send(check)
            except NETWORK_ERRORS as error:
                self.connected = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                self.report.add(check, None, UNKNOWN, [f"no answer: {type(error).__name__}: {error}"])
                return None
            again = answer.status == 429 and attempts > 1 and not answer.job_id
            self.report.add(check, answer, *self.judge(check, answer, again=again))
            if not again:
                return answer
            self._wait(answer, self.pace.pause * 2**attempt)
        raise StopError(f"{attempts} times 429 in a row: the service wants no more.")

    def _send(self, check: Check) -> Answer:
        # A client of its own for each request: no cookie, and no connection that may have gone stale.
        headers = {"user-agent": f"techforge-contract-live/{__version__}", "accept": plan.JSON}
        if check.key != "none":
            key = self.key if check.key == "yours" else plan.NOBODYS_KEY
            headers[plan.key_header(self.document)] = key
        if check.body is not None:
            headers["content-type"] = check.media_type
        local = _checks.is_loopback(urlsplit(self.base_url).hostname)
        with (
            httpx.Client(verify=tls_context(), timeout=self.pace.attempt, trust_env=not local) as client,
            until(time.monotonic() + self.pace.attempt),
        ):
            guard(client, threading.Event())
            url = self.base_url + check.path
            with client.stream(
                check.method, url, params=check.query or None, content=check.body, headers=headers
            ) as response:
                answer = Answer(response.status_code, response.headers)
                try:
                    for chunk in response.iter_bytes():
                        answer.body += chunk
                        if len(answer.body) > _BODY_LIMIT:
                            answer.lost = f"the body is longer than {_BODY_LIMIT} bytes"
                            break
                except NETWORK_ERRORS as error:
                    answer.lost = f"the body was cut off: {type(error).__name__}"
                return answer

    def _wait(self, answer: Answer, at_least: float) -> None:
        now = read_instant(answer.headers.get("date")) or datetime.now(UTC)
        given = answer.headers.get("retry-after", "")
        asked = read_retry_after(given, now)
        if asked is None and re.search(r"\d{309}", given):
            asked = math.inf  # a number that no float holds
        seconds = max(at_least, asked or 0.0)
        if time.monotonic() + seconds > self.deadline:
            raise StopError(f"429: the service wants a pause of {seconds:g} s, too long for this run.")
        print(f"  429: waiting {seconds:g} s", flush=True)
        time.sleep(seconds)


def main(arguments: list[str], pace: Pace | None = None) -> int:
    """Plan, show the plan, ask, and send; the result is the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A console that cannot show what a service sends must not end the run.
            stream.reconfigure(errors="backslashreplace")
    pace = pace or Pace()
    text = (ROOT / "openapi.json").read_bytes()
    document: Json = json.loads(text)
    options = _parsed(arguments, document["servers"][0]["url"])
    judge = Judge(document)
    checks, left_out = plan.free_checks(document, judge.contract)
    try:
        base_url = _base_url(options.base_url)
        job = _job(options, document)
        key = "" if options.dry_run else _key(options.api_key_env, base_url)
    except (InvalidArgumentError, ConfigurationError) as error:
        return _refused(str(error))
    masked = Masker(key)
    _print_plan([*checks, *([job] if job else [])], left_out, base_url, masked)
    if options.dry_run:
        print("Nothing was sent: this was a dry run.")
        return 0
    head = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "base URL": masked(base_url),
        "openapi.json": f"{document['info']['version']}, sha256 {hashlib.sha256(text).hexdigest()}",
    }
    report = Report(options.report, masked, head, not_checked=left_out)
    if not options.yes and not _confirmed():
        return _refused("nothing was sent: confirm at a terminal, or give --yes")
    try:
        report.write()
    except OSError as error:
        return _refused(f"nothing was sent: the report cannot be written: {error}")
    run = Run(document, judge, base_url, key, pace, report, time.monotonic() + pace.total)
    return _carried_out(run, checks, job, options.wait)


def _carried_out(run: Run, checks: list[Check], job: Check | None, wait: int) -> int:
    report, code = run.report, 0
    try:
        run.free(checks)
        if job:
            run.paid(job, wait)
        report.end = "The run is complete."
    except InDoubtError as stop:
        report.end, code = f"STOPPED: {stop}", 3
    except StopError as stop:
        report.end, code = f"Stopped: {stop}", 1
    except KeyboardInterrupt:
        report.end, code = "Interrupted.", 130
    print(f"\n{report.masked.of_answer(report.end)}", file=sys.stderr if code else sys.stdout)
    try:
        report.write()
    except OSError as error:
        print(f"The report is not whole: {error}", file=sys.stderr)
        return code or 1
    print(f"The report: {report.markdown}, and as JSON beside it")
    return code or int(any(check["verdict"] not in {DOCUMENTED, NOTED} for check in report.checks))


def _parsed(arguments: list[str], live_url: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="contract_live.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--api-key-env", default="", help="the variable that holds the key; not the key")
    parser.add_argument("--base-url", default=live_url, help="default: %(default)s")
    parser.add_argument("--report", type=Path, default=ROOT / "reports" / "contract-live.md")
    parser.add_argument("--dry-run", action="store_true", help="print the plan, and send nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    paid = parser.add_argument_group("one job, which costs money")
    paid.add_argument("--paid-job", action="store_true", help="create it, after the free checks")
    paid.add_argument("--image-url")
    paid.add_argument("--audio-url")
    paid.add_argument("--project-id", help="default: a fresh UUID")
    paid.add_argument("--wait", type=int, default=0, help="seconds to look for its output; default: one look")
    return parser.parse_args(arguments)


def _job(options: argparse.Namespace, document: Json) -> Check | None:
    if not options.paid_job:
        if options.image_url or options.audio_url or options.project_id or options.wait:
            raise InvalidArgumentError("--paid-job", "is missing: the other arguments belong to it")
        return None
    return plan.job_check(
        document,
        _checks.http_url("--image-url", options.image_url),
        _checks.http_url("--audio-url", options.audio_url),
        str(_checks.uuid("--project-id", options.project_id or uuid4())),
    )


def _base_url(url: str) -> str:
    parts = urlsplit(_checks.http_url("--base-url", url))
    if parts.scheme != "https" and not _checks.is_loopback(parts.hostname):
        raise InvalidArgumentError("--base-url", "must be https, or on this machine: the key goes there")
    if parts.username is not None or parts.query or parts.fragment:
        raise InvalidArgumentError("--base-url", "must have no user, no query and no fragment")
    return url.rstrip("/")


def _key(variable: str, base_url: str) -> str:
    """Return the key; no message repeats the argument, which may be the key itself by mistake."""
    given = os.environ.get(variable)
    if not given:
        raise ConfigurationError(
            "nothing was sent: give the name of an environment variable that holds the key, e.g. "
            "--api-key-env TFI_API_KEY, and never the key itself"
        )
    key = check_api_key(given)
    check_key_for_host(key, urlsplit(base_url).hostname or "")
    try:
        httpx.Client(verify=tls_context()).close()
    except (ImportError, OSError, ValueError, httpx.InvalidURL) as error:
        # The message may have a part of a proxy's password.
        raise ConfigurationError(
            "nothing was sent: this environment gives no HTTP client; look at its proxy variables (a SOCKS "
            f"proxy is not supported) and at SSL_CERT_FILE ({type(error).__name__})"
        ) from None
    return key


def _print_plan(checks: list[Check], left_out: list[str], base_url: str, masked: Masker) -> None:
    print(f"{len(checks)} requests to {masked(base_url)}:\n")
    for check in checks:
        print(f"{check.subject}: {check.name}")
        print(f"    {masked(check.sent)}")
        print(f"    expected: {check.expectation}, since {check.reason}")
    for operation in left_out:
        print(f"not asked: {operation}")
    if all(check.free for check in checks):
        print("\nNone of these can make a job or cost anything.\n")
    else:
        print("\nTHE LAST ONE COSTS MONEY, the others cannot. After it, the job's output is looked for.\n")


def _confirmed() -> bool:
    if not sys.stdin.isatty():
        return False
    try:
        return input("Send them? [y/N] ").strip().lower() in {"y", "yes"}
    except EOFError:
        return False


def _refused(reason: str) -> int:
    print(f"contract-live: {reason}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
