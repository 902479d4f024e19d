"""What `contract --target` adds to the suite: it limits jobs, waits for videos, and stops if nothing works.

schemathesis loads this instead of extra_checks.py. All requests of the suite pass `Guard.send`.
"""

import atexit
import functools
import json
import os
import re
import signal
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import extra_checks  # noqa: F401 - schemathesis knows the checks of a module once it is loaded
import requests
from odd_bodies import validator
from probes import EXPRESSION, JSON, METHODS, NOT_SENT, PARAMETER, links, pattern
from requests.adapters import HTTPAdapter
from schemathesis.checks import CHECKS, is_check_class, load_all_checks

from money_rule import carries_value
from techforge._masking import mask, printable

POLL_SECONDS = (0.25, 5.0)
"""The first and the longest pause between two requests for a video that is not done yet."""
MAX_RETRIES = 3
"""How often a 429 is tried again: it refuses a request, so repeating it orders nothing twice."""
FAILURES_IN_A_ROW = 10
"""After so many responses of 5xx or 429, or none at all, the server is not worth more requests."""
READING = {"GET", "HEAD", "OPTIONS", "TRACE"}
# These need a few jobs and say the most, so they come before the checks that use up the limit.
FIRST = ("links_lead_somewhere", "identifiers_are_new")

Place = tuple[str, str, frozenset[tuple[str, str]]]
"""A request, as far as a link can describe it: the method, the path, and the query."""


class NotSentError(Exception):
    """The request could create a job beyond the limit, so it was not sent."""


class Guard:
    """Between the suite and the server: what may be sent, and what is sent again."""

    def __init__(self, document: Any, url: str, api_key: str, may_create: int, job_seconds: float) -> None:
        self._document, self._key = document, api_key
        self._host, self._prefix = urlsplit(url).netloc, urlsplit(url).path.rstrip("/")
        self._job_seconds = job_seconds
        # One job of the limit is for requests that must be rejected: a wrong server may accept one of them.
        # It is free again after each rejection, so all of these requests are sent, one after the other.
        self._left = {True: max(may_create - 1, 0), False: min(may_create, 1)}
        self._one_at_a_time = threading.Lock()
        self._lock = threading.Lock()
        self._expected: dict[Place, float] = {}
        self._failures = 0
        self._thread = threading.local()
        self.sent = 0
        self.created = 0
        self.refused: Counter[str] = Counter()

    @property
    def last_was_refused(self) -> bool:
        """Whether this thread's last request was not sent."""
        return getattr(self._thread, "refused", False)

    def send(self, request: requests.PreparedRequest, forward: Any) -> requests.Response:
        """Send a request with `forward`, unless it could create a job beyond the limit."""
        self._thread.refused = False
        if urlsplit(request.url).netloc != self._host:
            return forward()
        if self._failures >= FAILURES_IN_A_ROW:
            raise requests.ConnectionError("the run has been stopped")
        is_valid = self._is_valid(request)
        body = request.body.encode() if isinstance(request.body, str) else request.body
        has_value = carries_value(body) if isinstance(body, bytes | None) else True
        if not has_value and (str(request.method).upper() in READING or not is_valid):
            return self._forward(request, forward)
        if is_valid:
            return self._order(request, forward, is_valid=True)
        with self._one_at_a_time:
            return self._order(request, forward, is_valid=False)

    def _order(self, request: requests.PreparedRequest, forward: Any, *, is_valid: bool) -> requests.Response:
        """Send a request that may create a job, if the limit allows one more."""
        with self._lock:
            is_allowed = self._left[is_valid] > 0
            self._left[is_valid] -= is_allowed
        if not is_allowed:
            self._thread.refused = True
            self.refused[f"{request.method} {urlsplit(request.url).path}"] += 1
            return refusal(request)
        outcome = "no response"
        may_exist = True
        try:
            response = self._forward(request, forward)
            outcome = f"{response.status_code} {printable(mask(response.text[:300]))}"
            # 408: the server did not wait for the request, or for its own answer.
            may_exist = not 400 <= response.status_code < 500 or response.status_code == 408
        finally:
            with self._lock:
                self.created += may_exist
                self._left[is_valid] += not may_exist
            if may_exist:
                # In one piece: other threads print, too.
                sys.stdout.write(f"\nA JOB MAY EXIST: {outcome}\n")
                sys.stdout.flush()
        if may_exist:
            self._expect(request, response)
        return response

    def _forward(self, request: requests.PreparedRequest, forward: Any) -> requests.Response:
        """Send a request; send it again after a 429, or if it asks for a video that is not done yet."""
        retries, pause = 0, POLL_SECONDS[0]
        deadline = self._expected.get(place(request), 0.0)
        while True:
            self.sent += 1
            try:
                response = forward()
            except requests.RequestException:
                self._count(is_failure=True)
                raise
            if response.status_code == 404 and time.monotonic() < deadline:
                time.sleep(pause)
                pause = min(2 * pause, POLL_SECONDS[1])
            elif response.status_code == 429 and retries < MAX_RETRIES:
                self._count(is_failure=True)
                given = response.headers.get("retry-after", "")
                time.sleep(min(int(given), 60) if given.isdecimal() else 2**retries)
                retries += 1
            else:
                self._count(is_failure=response.status_code >= 500 or response.status_code == 429)
                return response
            response.close()

    def _count(self, *, is_failure: bool) -> None:
        self._failures = self._failures + 1 if is_failure else 0
        if self._failures == FAILURES_IN_A_ROW:
            print(f"\nSTOPPED: {self._failures} failures in a row: no response, 429, or 5xx.")  # noqa: T201
            # schemathesis ends as after Ctrl-C: with its report.
            os.kill(os.getpid(), signal.SIGINT)

    def _is_valid(self, request: requests.PreparedRequest) -> bool:
        """Whether the contract lets the server accept a request. In doubt it does."""
        item = next(
            (item for path, item in self._document["paths"].items() if self._is_at(request, path)), {}
        )
        definition = item.get(str(request.method).lower())
        headers = {str(name).lower(): str(value).strip() for name, value in request.headers.items()}
        if definition is None or self._key not in headers.values():
            return False
        content = definition.get("requestBody", {}).get("content", {})
        if content and not request.body:
            return not definition["requestBody"].get("required", False)
        if JSON not in content or not isinstance(request.body, str | bytes):
            return True
        try:
            body = json.loads(request.body)
        except ValueError:
            return False
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        return media_type == JSON and validator(self._document, content[JSON]["schema"]).is_valid(body)

    def _is_at(self, request: requests.PreparedRequest, template: str) -> bool:
        """Whether a request is for a path of the contract, however it is spelt."""
        path = unquote(urlsplit(request.url).path).removeprefix(self._prefix)
        return re.fullmatch(pattern(template), path) is not None

    def _expect(self, request: requests.PreparedRequest, response: requests.Response) -> None:
        """Remember what the links of the new job lead to."""
        for path, method, _, link in links(self._document):
            if method.upper() == request.method and self._is_at(request, path):
                # Without an id there is nothing to wait for; the checks say what is wrong with the response.
                with suppress(ValueError, LookupError, TypeError):
                    bodies = {"request": json.loads(request.body or b"null"), "response": response.json()}
                    self._expected[self._linked(link, bodies)] = time.monotonic() + self._job_seconds

    def _linked(self, link: Any, bodies: Any) -> Place:
        """Return what a link leads to."""
        values = {
            name.rpartition(".")[2]: EXPRESSION.sub(lambda found: str(bodies[found[1]][found[2]]), template)
            for name, template in link["parameters"].items()
        }
        path, method = next(
            (path, method)
            for path, item in self._document["paths"].items()
            for method, definition in item.items()
            if method.upper() in METHODS and definition.get("operationId") == link["operationId"]
        )
        filled = PARAMETER.sub(lambda found: quote(values.pop(found[1]), safe=""), path)
        return method.upper(), self._prefix + filled, frozenset(values.items())

    def summary(self) -> str:
        """Say what was sent and what was not."""
        lines = [f"{self.sent} requests were sent; {self.created} of them may have created a job."]
        for what, count in sorted(self.refused.items()):
            lines.append(f"Not sent, because of --may-create-jobs: {what}, {count} times")
        return "\n".join(lines)


def place(request: requests.PreparedRequest) -> Place:
    """Return what a link can describe of a request."""
    url = urlsplit(request.url)
    return str(request.method), url.path, frozenset(parse_qsl(url.query, keep_blank_values=True))


def refusal(request: requests.PreparedRequest) -> requests.Response:
    """Return the response that stands for a request that was not sent. Its body is not to be used."""
    response = Refusal()
    response.request, response.url = request, str(request.url)
    response.status_code, response.reason = 429, NOT_SENT
    response._content = b"{}"
    response.headers["content-type"] = JSON
    return response


class Refusal(requests.Response):
    """A response of no server."""

    def json(self, **_: Any) -> Any:
        """Stop a check that needs the response."""
        raise NotSentError


def tolerant(check: Any, guard: Guard) -> Any:
    """Return a check that passes over requests that were not sent."""

    @functools.wraps(check)
    def checked(ctx: Any, response: Any, case: Any) -> Any:
        if response.message == NOT_SENT:
            return None
        try:
            return check(ctx, response, case)
        except NotSentError:
            return None
        except AssertionError:
            if guard.last_was_refused:
                return None
            raise

    return checked


def install(guard: Guard) -> None:
    """Let all requests of this process pass the guard, and all checks respect it."""
    original = HTTPAdapter.send

    @functools.wraps(original)
    def send(adapter: HTTPAdapter, request: requests.PreparedRequest, *args: Any, **options: Any) -> Any:
        return guard.send(request, lambda: original(adapter, request, *args, **options))

    HTTPAdapter.send = send
    load_all_checks()
    known = {check.__name__: check for check in CHECKS.get_all() if not is_check_class(check)}
    for name in (*FIRST, *(name for name in known if name not in FIRST)):
        CHECKS.unregister(name)
        CHECKS.register(tolerant(known[name], guard))


if "CONTRACT_TARGET" in os.environ:
    GUARD = Guard(
        json.loads(Path(os.environ["CONTRACT_DOCUMENT"]).read_bytes()),
        os.environ["CONTRACT_TARGET"],
        os.environ["CONTRACT_API_KEY"],
        int(os.environ["CONTRACT_MAY_CREATE_JOBS"]),
        float(os.environ["CONTRACT_JOB_SECONDS"]),
    )
    install(GUARD)
    atexit.register(lambda: print(GUARD.summary(), flush=True))  # noqa: T201
