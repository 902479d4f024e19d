"""What checks are made of: valid requests that are sent again with changes, and what judges the responses."""

import functools
import json
import os
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import requests
import schemathesis
from attrs import evolve, frozen
from odd_bodies import resolved, validator
from schemathesis.core import curl
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)
from urllib3 import HTTPHeaderDict
from urllib3.util import SKIP_HEADER

JSON = "application/json"
SECONDS = 10
METHODS = ("GET", "PUT", "POST", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE")
EXPRESSION = re.compile(r"\{?\$(request|response)\.body#/(\w+)\}?")
PARAMETER = re.compile(r"\{([^{}]+)\}")

NOT_SENT = "not sent"
"""The reason phrase of a response that no server gave: see target.py."""

Said = tuple[str, requests.Response, Collection[int]]
"""What was asked, the answer, and the statuses that would be right."""


@frozen
class Probe:
    """A valid request, to be sent again with something changed."""

    request: requests.PreparedRequest
    case: Any
    session: requests.Session
    accepted: list[int]
    """The statuses that mean that a request was accepted as this one was."""

    @property
    def document(self) -> Any:
        """The contract."""
        return self.case.operation.schema.raw_schema

    @property
    def definition(self) -> Any:
        """The contract of the operation."""
        return self.case.operation.definition.raw

    @property
    def successes(self) -> list[int]:
        """The statuses of success that are documented."""
        return successes(self.definition)

    @property
    def key_headers(self) -> list[str]:
        """The headers that carry a key."""
        security = self.definition.get("security", self.document.get("security", []))
        known = self.document["components"]["securitySchemes"]
        schemes = [known[name] for choice in security for name in choice]
        return [each["name"] for each in schemes if each["type"] == "apiKey" and each["in"] == "header"]

    @property
    def body_schema(self) -> Any:
        """The schema of the body, None if there is no JSON to send."""
        body = resolved(self.document, self.definition.get("requestBody", {}))
        return body.get("content", {}).get(JSON, {}).get("schema")

    def is_valid(self, body: Any) -> bool:
        """Whether the schema allows a body."""
        return validator(self.document, self.body_schema).is_valid(body)

    def judged(self, body: Any) -> list[int]:
        """Return the statuses that are right for a body."""
        return self.accepted if self.is_valid(body) else [400]

    @property
    def prefix(self) -> str:
        """The path of the server's URL."""
        return urlsplit(self.case.operation.base_url).path.rstrip("/")

    def send(self, **changes: Any) -> requests.Response:
        """Send it with another method, URL or body, or with other headers; None drops one.

        `path` is sent as it is. So are `lines`, which replace the headers of their names.
        """
        changed = self.request.copy()
        changed.prepare_url(changes.get("url", self.request.url), None)
        if "path" in changes:
            changed.url = urlunsplit(urlsplit(changed.url)._replace(path=changes["path"]))
        changed.method = changes.get("method", self.request.method)
        if "body" in changes:
            changed.headers.pop("content-length", None)
            changed.prepare_body(changes["body"], None)
        for name, value in changes.get("headers", {}).items():
            changed.headers.pop(name, None)
            if value is not None:
                changed.headers[name] = value
            elif name == "user-agent":
                # urllib3 would send one of its own.
                changed.headers[name] = SKIP_HEADER
        if "lines" in changes:
            changed.headers = with_lines(changed.headers, changes["lines"])
        return changes.get("session", self.session).send(changed, timeout=SECONDS, allow_redirects=False)

    def is_served(self, path: str) -> bool:
        """Whether the contract has a path, as it is sent."""
        templates = (f"{self.prefix}{template}" for template in self.document["paths"])
        return any(re.fullmatch(pattern(template), path) for template in templates)

    def url(self, query: dict[str, Any], path: str | None = None, *, keep: bool = True) -> str:
        """Return its URL with more in its query, which is kept or replaced, and with another path."""
        url = urlsplit(self.request.url)
        kept = parse_qs(url.query) if keep else {}
        given = {name: values for name, values in kept.items() if name not in query}
        return urlunsplit(url._replace(path=path or url.path, query=urlencode(given | query, doseq=True)))


def successes(definition: Any) -> list[int]:
    """Return the statuses of success that an operation documents."""
    return [int(status) for status in definition["responses"] if status.startswith("2")]


def same_target(one: requests.PreparedRequest, other: requests.PreparedRequest) -> bool:
    """Whether two requests mean the same operation."""
    return one.method == other.method and urlsplit(one.url).path == urlsplit(other.url).path


def prepared(response: Any, case: Any, session: requests.Session) -> Probe:
    """Return the request of a response; if it found nothing, one like it that a link leads to."""
    ask = Probe(response.request, case, session, [])
    if response.status_code < 300:
        return evolve(ask, accepted=ask.successes)
    operation = case.operation.definition.raw["operationId"]
    for path, method, definition, link in links(ask.document):
        body = example(ask.document, definition)
        if link["operationId"] == operation and body is not None:
            made = ask.send(
                method=method.upper(),
                url=ask.url({}, f"{ask.prefix}{path}", keep=False),
                body=json.dumps(body).encode(),
                headers={"content-type": JSON},
            )
            if made.status_code < 300:
                target = Linked(ask, link)
                found = target.send(target.values(body, made))
                if found.status_code < 300:
                    return Probe(found.request, case, session, ask.successes)
    return evolve(ask, accepted=[response.status_code])


def links(document: Any) -> Iterator[tuple[str, str, Any, Any]]:
    """Yield each link of a document, with the path, the method and the definition that it belongs to."""
    for path, item in document["paths"].items():
        for method, definition in item.items():
            if method.upper() in METHODS:
                for response in definition["responses"].values():
                    for link in resolved(document, response).get("links", {}).values():
                        yield path, method, definition, resolved(document, link)


def example(document: Any, definition: Any) -> Any:
    """Return an example of the body that an operation is sent."""
    body = resolved(document, definition.get("requestBody", {}))
    examples = body.get("content", {}).get(JSON, {}).get("examples", {})
    return next((resolved(document, each)["value"] for each in examples.values()), None)


class Linked:
    """The operation that a link leads to."""

    def __init__(self, ask: Probe, link: Any) -> None:
        self.ask, self.link = ask, link
        self.target = ask.case.operation.schema.find_operation_by_id(link["operationId"])
        shared = ask.document["paths"][self.target.path].get("parameters", [])
        own = self.target.definition.raw.get("parameters", [])
        self.parameters = {
            parameter["name"]: parameter
            for parameter in (resolved(ask.document, each) for each in (*shared, *own))
        }

    def values(self, sent: Any, made: requests.Response) -> dict[str, str]:
        """Return the parameters that the link takes from a request and its response."""
        bodies = {"request": sent, "response": made.json()}
        return {
            name: EXPRESSION.sub(lambda found: str(bodies[found[1]][found[2]]), template)
            for name, template in self.link["parameters"].items()
        }

    @property
    def successes(self) -> list[int]:
        """The statuses of success that are documented."""
        return successes(self.target.definition.raw)

    def place(self, name: str) -> str:
        """Return where a parameter is."""
        # A link may name the place, too: `path.id`.
        return str(self.parameters[name.rpartition(".")[2]]["in"])

    def is_same(self, name: str, one: str, other: str) -> bool:
        """Whether two values of a parameter mean the same."""
        schema = resolved(self.ask.document, self.parameters[name.rpartition(".")[2]]["schema"])
        # RFC 9562, section 4: case does not matter in a UUID.
        return one.lower() == other.lower() if schema.get("format") == "uuid" else one == other

    def send(self, values: dict[str, Any]) -> requests.Response:
        """Send the request that the link describes."""
        given = {name.rpartition(".")[2]: value for name, value in values.items()}
        path = PARAMETER.sub(lambda found: quote(given[found[1]], safe=""), self.target.path)
        query = {name: value for name, value in given.items() if self.place(name) == "query"}
        return self.ask.send(
            url=self.ask.url(query, f"{self.ask.prefix}{path}", keep=False),
            method=self.target.method.upper(),
            body=None,
            headers={"content-type": None},
        )

    def case(self, values: dict[str, str]) -> Any:
        """Return the request for schemathesis."""
        given = {name.rpartition(".")[2]: value for name, value in values.items()}
        places = {"query": "query", "path": "path_parameters"}
        return self.target.Case(
            **{
                argument: {name: value for name, value in given.items() if self.place(name) == place}
                for place, argument in places.items()
            }
        )

    def nothing(self, name: str) -> list[int]:
        """Return the statuses that are right for a value that names nothing."""
        # A schema may forbid a value in a path; an empty one is another path.
        return [404] if self.place(name) == "query" else [400, 404, 405]


def with_lines(headers: Any, lines: Collection[tuple[str, str]]) -> HTTPHeaderDict:
    """Return headers in which each line is sent as it is."""
    replaced = {name.lower() for name, _ in lines}
    kept = [(name, value) for name, value in headers.items() if name.lower() not in replaced]
    return HTTPHeaderDict([*kept, *lines])


def pattern(template: str) -> str:
    """Return the pattern of the paths of a template."""
    parts = PARAMETER.split(template)
    return "".join(re.escape(part) if at % 2 == 0 else "[^/]+" for at, part in enumerate(parts))


def parse_qs(query: str) -> dict[str, list[str]]:
    """Read a query, empty values included."""
    read: dict[str, list[str]] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        read.setdefault(name, []).append(value)
    return read


STOP = "CONTRACT_STOP"
"""The variable that makes probes stop at the first failure: mutants need no more."""
_failures: list[AssertionError] = []


@contextmanager
def noted_failure() -> Iterator[None]:
    """Note that a probe has failed."""
    try:
        yield
    except AssertionError as error:
        _failures.append(error)
        raise


def probe(asked: Callable[[Probe], Iterator[Said]]) -> Callable[..., None]:
    """Make a check that sends requests of its own, until it has passed once for each operation."""
    passed: set[str] = set()

    @functools.wraps(asked)
    def check(_ctx: Any, response: Any, case: Any) -> None:
        operation = case.operation.label
        # What is wrong with the answer itself, other checks say.
        valid = case.meta is not None and case.meta.generation.mode.is_positive
        if _failures and STOP in os.environ:
            return
        if operation in passed or not valid or not case.operation.is_valid_response(response):
            return
        with requests.Session() as session, noted_failure():
            ask = prepared(response, case, session)
            for what, answer, right in asked(ask):
                if answer.reason == NOT_SENT:
                    continue
                assert answer.status_code in right, told(
                    f"{what}: {answer.status_code} instead of {' or '.join(map(str, right))}", answer
                )
                if same_target(answer.request, ask.request):
                    conforms(case, what, answer)
        passed.add(operation)

    # Schemathesis repeats plain functions only.
    return schemathesis.check(check)


def told(what: str, answer: requests.Response) -> str:
    """Say what is wrong with an answer, and how to get it again."""
    request = answer.request
    command = curl.generate(
        method=str(request.method),
        url=str(request.url),
        body=request.body,
        verify=True,
        headers=dict(request.headers),
        known_generated_headers={},
    ).command
    return f"{what}\n\n{answer.text[:300]}\n\nAsked for with:\n\n    {command}\n"


def conforms(case: Any, what: str, answer: requests.Response) -> None:
    """Hold an answer to the contract."""
    checks = [content_type_conformance, response_headers_conformance, response_schema_conformance]
    try:
        case.validate_response(answer, checks=checks)
        well_formed(answer.status_code, answer.content, answer.raw.headers)
    except AssertionError as error:
        raise AssertionError(told(f"{what}: {error}", answer)) from None
    except FailureGroup as group:
        reasons = "; ".join(f"{each.title}: {each.message}" for each in group.exceptions)
        raise AssertionError(told(f"{what}: {reasons}", answer)) from None


SINGLE = (
    "content-type",
    "content-length",
    "content-range",
    "date",
    "etag",
    "expires",
    "location",
    "retry-after",
)
"""Headers that a response has once at most: their values are no lists."""
CHALLENGE = re.compile(r"[\w!#$%&'*+.^`|~-]+( .*)?")


def well_formed(status: int, body: bytes, headers: HTTPHeaderDict) -> None:
    """Hold a response to RFC 9110 (HTTP) and RFC 8259 (JSON), whatever its schema says."""
    for name in SINGLE:
        assert len(headers.getlist(name)) <= 1, f"{name} is there {len(headers.getlist(name))} times"
    if "date" in headers:
        parsedate_to_datetime(headers["date"])
    if status == 401:
        challenge = headers.get("www-authenticate", "")
        assert CHALLENGE.fullmatch(challenge), f"a 401 needs a challenge, not {challenge!r}"
    if headers.get("content-type", "").partition(";")[0].strip().lower() == JSON:
        strict_json(body)


def strict_json(body: bytes) -> None:
    """Read JSON as RFC 8259 defines it: in UTF-8, without a byte order mark, NaN or repeated names."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON value")

    def fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        assert len(set(names)) == len(names), f"a name is repeated among {', '.join(names)}"
        return dict(pairs)

    try:
        json.loads(body.decode(), parse_constant=refuse, object_pairs_hook=fields)
    except ValueError as error:
        raise AssertionError(f"the body is no JSON: {error}") from None


@schemathesis.check
def responses_are_well_formed(_ctx: Any, response: Any, _case: Any) -> None:
    """Each response keeps to HTTP and JSON."""
    lines = [(name, value) for name, values in response.headers.items() for value in values]
    well_formed(response.status_code, response.content, HTTPHeaderDict(lines))
