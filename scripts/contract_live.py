"""Compare the live API with openapi.json, using only requests that cost nothing and change nothing.

Usage:
    python3 scripts/dev.py contract-live --dry-run                    print the requests, send nothing
    python3 scripts/dev.py contract-live --api-key-env TFI_API_KEY    print them, ask, send them

The key is read from the environment variable that you name. Only `--paid-job` creates a job: one, sent once.

Money rule: the service may ignore keys, ignore its own validation, or have changed, so no free request may
be able to create a job.
1. A free request has no value in its body: the body is missing, broken, empty, or has only `null` fields.
   This includes the requests with a wrong key.
2. A request that could change something is sent only if openapi.json rejects its body.
3. Any success of such a request ends the run.

Exit codes: 0 the service is as documented; 1 it differs, or that is not known; 2 nothing was sent; 3 stopped
because a job may exist; 130 interrupted. Except for 2, the report says how far the run came.
"""

import argparse
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import httpx
from attrs import define, field, frozen
from openapi_core import Config, OpenAPI
from openapi_core.testing import MockRequest, MockResponse
from openapi_core.validation.request.exceptions import RequestBodyValidationError

from money_rule import carries_value
from techforge import ConfigurationError, Job, __version__
from techforge._masking import mask
from techforge._responses import job_in
from techforge.auth import check_api_key, check_key_for_host

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT: dict[str, Any] = json.loads((ROOT / "openapi.json").read_bytes())
IS_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+").fullmatch  # openapi-core does not check this format
CONTRACT = OpenAPI.from_dict(
    DOCUMENT, Config(extra_format_validators={"uri": lambda value: bool(IS_URI(str(value)))})
)
LIVE: str = DOCUMENT["servers"][0]["url"]
PAUSE, TIMEOUT = 1.0, 30.0
"""Seconds between two requests, and for one response."""
BODY_LIMIT, EXCERPT = 100_000, 600
WRONG_KEY = "made-up-by-contract-live"
JSON = "application/json"
UNKNOWN_OBJECT = Job(str(uuid4()), str(uuid4())).output_path
JOB_ID = re.compile(r"job[^\s?&#]{0,80}?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})", re.IGNORECASE)


@frozen
class Check:
    """One request, and the status that openapi.json promises for it."""

    operation: str  # its operationId
    name: str
    expected: str
    key: str = "yours"  # or "wrong", or "none"
    method: str = "POST"
    path: str = "/jobs/v2"
    query: str = ""  # the parameter `path`
    body: bytes | None = None
    media_type: str = JSON

    def __str__(self) -> str:
        query = f" path={self.query}" if self.query else ""
        body = f" {self.media_type}: {self.body.decode()}" if self.body is not None else ""
        return f"{self.operation}: {self.name}: {self.method} {self.path}{query}{body}"

    @property
    def request(self) -> MockRequest:
        """The request as openapi-core reads it, with the body taken for JSON."""
        headers = {"x-api-key": WRONG_KEY}
        return MockRequest(LIVE, self.method, self.path, headers=headers, data=self.body, content_type=JSON)

    @property
    def is_safe(self) -> bool:
        """Whether the request cannot create a job, whatever the service does with it (the money rule)."""
        return self.method in {"GET", "HEAD"} or (
            not carries_value(self.body)
            and any(
                isinstance(e, RequestBodyValidationError) for e in CONTRACT.iter_request_errors(self.request)
            )
        )


def get(name: str, expected: str, query: str = "", key: str = "yours") -> Check:
    """Return a request that asks to sign a storage key."""
    return Check("generateSignedPath", name, expected, key, "GET", "/storage/generate-signed-path", query)


NULLS = b'{"image_url": null, "audio_url": null, "job_type": null, "project_id": null}'
FREE = [
    Check("createJob", "no key", "401", "none", body=b"{}"),
    Check("createJob", "a wrong key", "401", "wrong", body=b"{}"),
    Check("createJob", "an empty object", "400", body=b"{}"),
    Check("createJob", "nothing but nulls", "400", body=NULLS),
    Check("createJob", "a list", "400", body=b"[]"),
    Check("createJob", "broken JSON", "400", body=b"{"),
    Check("createJob", "no body", "400"),
    Check("createJob", "plain text", "400", body=b"{}", media_type="text/plain"),
    get("no key", "401", UNKNOWN_OBJECT, "none"),
    get("a wrong key", "401", UNKNOWN_OBJECT, "wrong"),
    get("no path", "400"),
    get("an unknown object", "404", UNKNOWN_OBJECT),
]


# The responses


@define
class Answer:
    """A response, as far as it could be read."""

    status: int
    headers: httpx.Headers
    body: bytes = field(default=b"", repr=False)
    incomplete: str = ""  # why the body is not whole

    @property
    def job_id(self) -> str | None:
        """The id of a job that the body or a header names."""
        named = JOB_ID.search("\n".join(f"{name}:{value}" for name, value in self.headers.items()))
        return job_in(self.body)[0] or (named[1] if named else None)

    def shown(self, key: str) -> str:
        """Return what may be printed: a response to your key may repeat it in any encoding, or sign a URL."""
        text = self.body.decode("utf-8", "replace").replace("\\/", "/")
        return f"{self.status} {f'{len(self.body)} bytes' if key == 'yours' else text}"[:EXCERPT]


def judge(check: Check, answer: Answer) -> tuple[str, list[str]]:
    """Return the verdict on a response, and the reasons."""
    reasons = [] if str(answer.status) == check.expected else [f"{answer.status} instead of {check.expected}"]
    if check.expected == "404" and answer.status == 200:
        reasons.append("the vendor's later documents say that it may sign any key")
    if answer.incomplete:
        return "could not tell", [*reasons, answer.incomplete]
    if differences := list(_differences(check, answer)):
        return "contract broken", [*reasons, *differences]
    unclear = ""
    if answer.status == 429 or answer.status >= 500:
        unclear = "this documented error does not answer the question"
    elif check.body is not None and answer.status == 400:
        unclear = "the body was rejected first, and a valid one must not be sent"
    verdict = "as documented" if not reasons else "could not tell" if unclear else "unexpected"
    return verdict, [*reasons, unclear] if reasons and unclear else reasons


def _differences(check: Check, answer: Answer) -> Iterator[str]:
    """Say what openapi.json does not allow, without a value from the response: it may repeat the key."""
    content_type = answer.headers.get("content-type", "")
    response = MockResponse(answer.body, answer.status, dict(answer.headers), content_type)
    try:
        for error in CONTRACT.iter_response_errors(check.request, response):
            cause = error.__cause__ or error
            for problem in getattr(cause, "schema_errors", ()):
                place = getattr(error, "name", "") or ".".join(map(str, problem.absolute_path)) or "body"
                yield f"{place}: must have {problem.validator} {json.dumps(problem.validator_value)[:200]}"
            if not hasattr(cause, "schema_errors"):
                yield re.sub(r"(?<!^)(?=[A-Z])", " ", type(cause).__name__).lower()
    # The validator fails on some content types and bodies.
    except (ValueError, LookupError, RecursionError) as error:
        yield f"it cannot be read ({type(error).__name__})"


# The run


class JobMayExistError(Exception):
    """The service may have created a job."""


@define
class Run:
    """One run against one service. The report has every line that is printed, as soon as it is printed."""

    client: httpx.Client
    key: str = field(repr=False)
    report: TextIO | None = None
    left: list[Check] = field(factory=list[Check])  # still to be sent
    differs: bool = False

    def say(self, text: str, console: TextIO | None = None) -> None:
        """Print a text, and write it to the report: without the key, URL queries and control characters."""
        # A console that cannot show a character must not end the run.
        text = "".join(c if " " <= c <= "~" or c == "\n" else "?" for c in text)
        text = mask(re.sub(re.escape(self.key) or "(?!)", "***", text, flags=re.IGNORECASE))
        print(text, file=console, flush=True)
        if self.report:
            # A full disk must not keep the id of a job from being printed.
            with suppress(OSError):
                print(text, file=self.report, flush=True)

    def free(self) -> None:
        """Send the free requests one after the other."""
        while self.left:
            check = self.left[0]
            assert check.is_safe  # noqa: S101 - the money rule, whatever called this
            answer, _ = self.ask(check)
            del self.left[0]
            if answer is None:
                continue
            # A redirect may lead to the job.
            if answer.job_id or (check.method == "POST" and answer.status < 400):
                raise JobMayExistError(
                    f"A JOB MAY EXIST: {answer.job_id or 'its id is unknown'}, after {check}"
                )
            if answer.status == 429:
                raise TimeoutError(
                    f"429, retry after {answer.headers.get('retry-after')}: run it again later"
                )

    def paid(self, job: Check, project_id: str) -> None:
        """Create one job."""
        doubt = f"A JOB MAY EXIST in project {project_id}: ask your job service or TechForge's support."
        try:
            answer, may_exist = self.ask(job)
        except KeyboardInterrupt:
            raise JobMayExistError(f"Interrupted while the paid job was sent. {doubt}") from None
        if answer is None or answer.job_id is None:
            if may_exist:
                raise JobMayExistError(f"The response to the paid job has no id. {doubt}")
            return
        self.say(f"job {answer.job_id} in project {project_id}; to wait for its video:")
        self.say(f"    techforge video wait {answer.job_id} {project_id}")

    def ask(self, check: Check) -> tuple[Answer | None, bool]:
        """Send a request once; report and return the response, and whether the request may have succeeded."""
        time.sleep(PAUSE)
        try:
            answer = self._send(check)
        except httpx.HTTPError as error:
            self.differs = True
            self.say(f"could not tell: {check}\n    no response: {type(error).__name__}: {error}")
            return None, not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        verdict, reasons = judge(check, answer)
        self.differs |= verdict != "as documented"
        self.say("\n    ".join([f"{verdict}: {check}", *reasons, answer.shown(check.key)]))
        return answer, answer.status < 400 or answer.status >= 500

    def _send(self, check: Check) -> Answer:
        headers = {"user-agent": f"techforge-contract-live/{__version__}", "accept": JSON}
        if check.key != "none":
            headers["x-api-key"] = self.key if check.key == "yours" else WRONG_KEY
        if check.body is not None:
            headers["content-type"] = check.media_type
        self.client.cookies.clear()
        query = {"path": check.query} if check.query else None
        end = time.monotonic() + TIMEOUT
        with self.client.stream(
            check.method, check.path, params=query, content=check.body, headers=headers
        ) as response:
            answer = Answer(response.status_code, response.headers)
            try:
                for chunk in response.iter_bytes():
                    answer.body += chunk
                    if len(answer.body) > BODY_LIMIT or time.monotonic() > end:
                        answer.incomplete = f"the body is longer than {BODY_LIMIT} bytes, or too slow"
                        break
            except httpx.HTTPError as error:
                answer.incomplete = f"the body was cut off: {type(error).__name__}"
        return answer


# The command line


def main(arguments: list[str]) -> int:
    """Print the requests, ask, and send them; return the exit code."""
    options = _parse(arguments)
    project_id = options.project_id or str(uuid4())
    try:
        job = _job(options, project_id)
        run = Run(_client(options.base_url), "" if options.dry_run else _key(options))
        run.left = [check for check in FREE if check.is_safe]
        run.say(f"{len(run.left)} free requests to {options.base_url}:")
        for check in FREE:
            skipped = "" if check.is_safe else "NOT SENT: openapi.json may accept it: "
            run.say(f"  {skipped}{check} (key: {check.key}); expected: {check.expected}")
        if job:
            run.say(f"AND ONE THAT COSTS MONEY, sent once:\n  {job}; expected: 202")
        if options.dry_run:
            print("Nothing was sent: this was a dry run.")
            return 0
        if not options.yes:
            _confirm()
        options.report.parent.mkdir(parents=True, exist_ok=True)
        report = run.report = options.report.open("w", encoding="utf-8")
    except (ConfigurationError, OSError, ValueError) as error:
        print(f"contract-live: nothing was sent: {error}", file=sys.stderr)
        return 2
    with report, run.client:
        return _carry_out(run, options, job, project_id)


def _carry_out(run: Run, options: argparse.Namespace, job: Check | None, project_id: str) -> int:
    digest = hashlib.sha256((ROOT / "openapi.json").read_bytes()).hexdigest()
    date = datetime.now(UTC).isoformat(timespec="seconds")
    version = DOCUMENT["info"]["version"]
    run.say(f"\n{options.base_url} on {date}, compared with openapi.json {version}, sha256 {digest}\n")
    end, code = "The run is complete.", 0
    try:
        run.free()
        if job:
            run.paid(job, project_id)
    except JobMayExistError as stop:
        end, code = f"STOPPED: {stop}", 3
    except TimeoutError as stop:
        end, code = f"Stopped: {stop}", 1
    except KeyboardInterrupt:
        end, code = "Interrupted.", 130
    run.say("".join([*(f"not checked: {check}\n" for check in run.left), end]), sys.stderr if code else None)
    print(f"The report: {options.report}")
    return code or int(run.differs)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="contract_live.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # so that no typing error is a flag that costs money
    )
    parser.add_argument("--api-key-env", default="", help="environment variable with the key; not the key")
    parser.add_argument("--base-url", default=LIVE, help="default: %(default)s")
    parser.add_argument("--report", type=Path, default=ROOT / "reports" / "contract-live.txt")
    parser.add_argument("--dry-run", action="store_true", help="print the requests, send nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    paid = parser.add_argument_group("one job, which costs money")
    paid.add_argument("--paid-job", action="store_true", help="create it, after the free requests")
    paid.add_argument("--image-url", default="")
    paid.add_argument("--audio-url", default="")
    paid.add_argument("--project-id", default="", help="default: a new UUID")
    return parser.parse_args(arguments)


def _job(options: argparse.Namespace, project_id: str) -> Check | None:
    media = {"image_url": options.image_url, "audio_url": options.audio_url}
    if not options.paid_job:
        if options.project_id or any(media.values()):
            raise ValueError("the job's options need --paid-job")
        return None
    if not all(re.fullmatch(r"https?://[^\s/]+\S*", url) for url in media.values()):
        raise ValueError("--image-url and --audio-url must be absolute http(s) URLs")
    body = {**media, "job_type": "ai_talking_video", "project_id": str(UUID(project_id))}
    return Check("createJob", "a paid job", "202", body=json.dumps(body).encode())


def _key(options: argparse.Namespace) -> str:
    """Return the key. No message repeats the argument, which may be the key itself by mistake."""
    if not (key := os.environ.get(options.api_key_env)):
        raise ConfigurationError(
            "name an environment variable that holds the key (--api-key-env TFI_API_KEY); never pass the key"
        )
    check_key_for_host(check_api_key(key), urlsplit(str(options.base_url)).hostname or "")
    return key


def _client(url: str) -> httpx.Client:
    parts = urlsplit(url)
    local = parts.hostname in {"localhost", "127.0.0.1", "::1"}
    if parts.scheme != "https" and not (local and parts.scheme == "http"):
        raise ValueError("--base-url must be https, or http on this machine: your key is sent there")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("--base-url must have no user, no query and no fragment")
    # A new connection for each request: none can have been closed in the meantime.
    limits = httpx.Limits(max_keepalive_connections=0)
    try:
        return httpx.Client(base_url=url, timeout=TIMEOUT, limits=limits, trust_env=not local)
    except (ImportError, OSError, ValueError, httpx.InvalidURL) as error:
        # The error's own text may contain a proxy's password.
        raise ConfigurationError(
            "no HTTP client can be made; check the proxy variables (SOCKS is not supported) and "
            f"SSL_CERT_FILE ({type(error).__name__})"
        ) from None


def _confirm() -> None:
    with suppress(EOFError):
        if sys.stdin.isatty() and input("Send them? [y/N] ").strip().lower() in {"y", "yes"}:
            return
    raise ConfigurationError("confirm at a terminal, or pass --yes")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
