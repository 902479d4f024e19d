"""What the contract promises beyond what schemathesis checks by itself; schemathesis.toml loads it.

All of it follows from the document, but for what the signed URL is good for. Each check needs nothing but the
case that it is given, so that a failure can be repeated.
"""

import base64
import functools
import json
import re
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import requests
import schemathesis
from attrs import frozen
from odd_bodies import resolved, types, validator, values, variations
from schemathesis.core import curl
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)

JSON = "application/json"
SECONDS = 10
METHODS = ("GET", "PUT", "POST", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE")
EXPRESSION = re.compile(r"\{\$(request|response)\.body#/(\w+)\}")

Said = tuple[str, requests.Response, Collection[int]]
"""What was asked, the answer, and the statuses that would be right."""


@frozen
class Probe:
    """A valid request, to be sent again with something changed."""

    request: requests.PreparedRequest
    case: Any
    session: requests.Session

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
        return [int(status) for status in self.definition["responses"] if status.startswith("2")]

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

    def send(self, **changes: Any) -> requests.Response:
        """Send it with another method, URL or body, or with other headers; None drops one."""
        changed = self.request.copy()
        changed.prepare_url(changes.get("url", self.request.url), None)
        changed.method = changes.get("method", self.request.method)
        if "body" in changes:
            changed.headers.pop("content-length", None)
            changed.prepare_body(changes["body"], None)
        for name, value in changes.get("headers", {}).items():
            changed.headers.pop(name, None)
            if value is not None:
                changed.headers[name] = value
        return self.session.send(changed, timeout=SECONDS, allow_redirects=False)

    def url(self, query: dict[str, Any], path: str | None = None) -> str:
        """Return its URL with something else in its query, and with another path."""
        url = urlsplit(self.request.url)
        given = {name: values for name, values in parse_qs(url.query).items() if name not in query}
        return urlunsplit(url._replace(path=path or url.path, query=urlencode(given | query, doseq=True)))


def parse_qs(query: str) -> dict[str, list[str]]:
    """Read a query, empty values included."""
    read: dict[str, list[str]] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        read.setdefault(name, []).append(value)
    return read


def probe(asked: Callable[[Probe], Iterator[Said]]) -> Callable[..., None]:
    """Make a check that sends requests of its own, until it has passed once for each operation."""
    passed: set[str] = set()

    @functools.wraps(asked)
    def check(_ctx: Any, response: Any, case: Any) -> None:
        operation = case.operation.label
        # What is wrong with the answer itself, other checks say.
        valid = case.meta is not None and case.meta.generation.mode.is_positive
        if operation in passed or not valid or not case.operation.is_valid_response(response):
            return
        with requests.Session() as session:
            for what, answer, right in asked(Probe(response.request, case, session)):
                assert answer.status_code in right, told(
                    f"{what}: {answer.status_code} instead of {' or '.join(map(str, right))}", answer
                )
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


@probe
def key_is_needed(ask: Probe) -> Iterator[Said]:
    """Nothing but the whole key in its own header opens an operation."""
    for header in ask.key_headers:
        key = ask.request.headers[header]
        basic = base64.b64encode(f"{key}:".encode()).decode()
        for what, value in {
            "without a key": None,
            "with an empty key": "",
            "with a wrong key": "wrong",
            "with the key's beginning": key[:-1],
            "with more than the key": f"{key}x",
            "with the key in capitals": key.upper(),
            "with the key twice": f"{key}, {key}",
        }.items():
            yield what, ask.send(headers={header: value}), [401]
        for name, value in {
            "cookie": f"{header}={key}",
            "authorization": f"Bearer {key}",
            "proxy-authorization": f"Bearer {key}",
            **dict.fromkeys(("api-key", "apikey", "x-key", "x-auth-token", "x-access-token"), key),
        }.items():
            yield f"with the key in {name}", ask.send(headers={header: None, name: value}), [401]
        for what, value in {
            "as it is": key,
            "as Basic": f"Basic {basic}",
            "as Token": f"Token {key}",
        }.items():
            answer = ask.send(headers={header: None, "authorization": value})
            yield f"with the key in authorization, {what}", answer, [401]
        for name in (header, "api_key", "key", "token"):
            answer = ask.send(url=ask.url({name: key}), headers={header: None})
            yield f"with the key in the query, as {name}", answer, [401]


@probe
def only_what_is_valid_is_taken(ask: Probe) -> Iterator[Said]:
    """A body or a parameter is taken if the schema allows it, and refused if not."""
    if ask.body_schema is not None:
        valid = validator(ask.document, ask.body_schema).is_valid
        for what, body in variations(ask.document, ask.body_schema, ask.case.body):
            answer = ask.send(body=json.dumps(body).encode())
            yield what, answer, ask.successes if valid(body) else [400]
    for each in ask.definition.get("parameters", []):
        parameter = resolved(ask.document, each)
        # Of texts, the query has the form of the schema; of others, it would have to be guessed.
        if parameter["in"] != "query" or types(ask.document, parameter["schema"]) != {"string"}:
            continue
        name, valid = parameter["name"], validator(ask.document, parameter["schema"]).is_valid
        texts = [value for value in values(ask.document, parameter["schema"]) if isinstance(value, str)]
        given = next(value for value in texts if valid(value))
        for value in texts:
            answer = ask.send(url=ask.url({name: value}))
            yield f"{name} is {value[:50]!r}", answer, [*ask.successes, 404] if valid(value) else [400]
        yield f"{name} twice", ask.send(url=ask.url({name: [given, given]})), [400]
        wrong = [400] if parameter.get("required") else [*ask.successes, 404]
        yield f"without {name}", ask.send(url=ask.url({name: []})), wrong


@probe
def only_json_is_taken(ask: Probe) -> Iterator[Said]:
    """A body has to be JSON, and to say so, in any of the ways in which that is said."""
    if ask.body_schema is None:
        return
    body = json.dumps(ask.case.body).encode()
    for media_type in (
        *("text/plain", "text/json", "application/x-www-form-urlencoded", "multipart/form-data", None),
        *(
            "application/problem+json",
            "application/vnd.api+json",
            "application/json5",
            "application/x-ndjson",
        ),
    ):
        answer = ask.send(body=body, headers={"content-type": media_type})
        yield f"JSON that says that it is {media_type}", answer, [400]
    # RFC 9110, section 8.3.1: case does not matter, nor do blanks. RFC 8259, section 11: there is no charset.
    for media_type in (
        "Application/JSON",
        f"{JSON}; charset=utf-8",
        f"{JSON};charset=UTF-8",
        f"{JSON} ; a=b",
    ):
        answer = ask.send(body=body, headers={"content-type": media_type})
        yield f"JSON that says that it is {media_type}", answer, ask.successes
    said = {"content-type": JSON}
    yield "JSON in chunks", ask.send(body=iter([body[:9], body[9:]]), headers=said), ask.successes
    spaced = json.dumps(ask.case.body, indent=1).encode()
    yield "JSON in lines", ask.send(body=b"\r\n\t " + spaced + b"\n", headers=said), ask.successes
    for what, bad in {
        "no body": b"",
        "a body that breaks off": body[:-1],
        "a body with more behind it": body + b"}",
        "a body with another behind it": body + body,
        "a body in single quotes": body.replace(b'"', b"'"),
        "a body with a comma at its end": body[:-1] + b",}",
        "a body with a comment": b"/* a */" + body,
        "a body with NaN": body[:-1] + b', "x_unknown": NaN}',
        "a body with Infinity": body[:-1] + b', "x_unknown": Infinity}',
        "a body with -Infinity": body[:-1] + b', "x_unknown": -Infinity}',
        "a body with a number that begins with 0": body[:-1] + b', "x_unknown": 01}',
        "a body with a control character": body[:-1] + b', "x_unknown": "\x01"}',
        "a body in Latin-1": body[:-1] + ', "x_unknown": "ï"}'.encode("latin-1"),
        "a body in UTF-16": body.decode().encode("utf-16"),
        "a body with a byte order mark": b"\xef\xbb\xbf" + body,
    }.items():
        yield what, ask.send(body=bad, headers=said), [400]


@probe
def nothing_else_is_served(ask: Probe) -> Iterator[Said]:
    """There are no other paths, and no other methods."""
    url = urlsplit(ask.request.url)
    parent = url.path.rpartition("/")[0]
    for path in (
        f"{url.path}/x",
        url.path.upper(),
        parent,
        f"{url.path}/",
        f"/{url.path}",
        f"{url.path}.json",
    ):
        # Without a key, an operation would be known by its 401.
        other = urlunsplit(url._replace(path=path))
        yield path, ask.send(url=other, headers=dict.fromkeys(ask.key_headers)), [404]
    allowed = [name.upper() for name in ask.document["paths"][ask.case.operation.path]]
    for method in METHODS:
        if method not in allowed:
            answer = ask.send(method=method)
            yield method, answer, [405]
            listed = answer.headers.get("allow")
            assert listed == ", ".join(allowed), told(f"{method}: the Allow header is {listed}", answer)


@probe
def errors_are_as_documented(ask: Probe) -> Iterator[Said]:
    """Errors that a good server seldom has keep to the contract, too: the mock makes them on demand."""
    for documented, response in ask.definition["responses"].items():
        status = int(documented.replace("XX", "03"))
        if status < 400:
            continue
        waits = "Retry-After" in resolved(ask.document, response).get("headers", {})
        for wait in (None, "2", "date:2") if waits else (None,):
            fault = f"status={status}" + (f";retry-after={wait}" if wait else "")
            answer = ask.send(headers={"x-mock-fault": fault})
            yield fault, answer, [status]
            conforms(ask.case, fault, answer)
            given = answer.headers.get("retry-after")
            # The contract lets a server leave it out; the mock promises it to whoever asks for it.
            assert not wait or asked_for(given, wait), told(f"{fault}: Retry-After is {given}", answer)


def asked_for(given: str | None, wait: str) -> bool:
    """Tell whether a Retry-After is what the mock was asked for."""
    if given is None or not wait.startswith("date:"):
        return given == wait
    ahead = parsedate_to_datetime(given) - datetime.now(UTC)
    return timedelta(seconds=-SECONDS) < ahead <= timedelta(seconds=int(wait.removeprefix("date:")) + 1)


def conforms(case: Any, what: str, answer: requests.Response) -> None:
    """Hold an answer to the contract."""
    checks = [content_type_conformance, response_headers_conformance, response_schema_conformance]
    try:
        case.validate_response(answer, checks=checks)
    except FailureGroup as group:
        reasons = "; ".join(f"{each.title}: {each.message}" for each in group.exceptions)
        raise AssertionError(told(f"{what}: {reasons}", answer)) from None


@probe
def identifiers_are_new(ask: Probe) -> Iterator[Said]:
    """No two answers name the same thing as new."""
    for status in ask.successes:
        schema = resolved(ask.document, ask.definition["responses"][str(status)])["content"][JSON]["schema"]
        fields = resolved(ask.document, schema).get("properties", {})
        names = [
            name for name, each in fields.items() if resolved(ask.document, each).get("format") == "uuid"
        ]
        answers = [ask.send() for _ in range(3)] if names else []
        for answer in answers:
            yield "the same again", answer, [status]
            conforms(ask.case, "the same again", answer)
        for name in names:
            different = {answer.json()[name] for answer in answers}
            assert len(different) == len(answers), told(f"{name} is the same in several answers", answers[-1])


@probe
def links_lead_somewhere(ask: Probe) -> Iterator[Said]:
    """What the links of an accepted request lead to is there, and nothing that is named nearly so."""
    for status in ask.successes:
        response = resolved(ask.document, ask.definition["responses"][str(status)])
        for link in response.get("links", {}).values():
            made = ask.send()
            yield "the same again", made, [status]
            conforms(ask.case, "the same again", made)
            bodies = {"request": ask.case.body, "response": made.json()}
            query = {name: filled(value, bodies) for name, value in link["parameters"].items()}
            target = ask.case.operation.schema.find_operation_by_id(link["operationId"])
            path = urlsplit(ask.request.url).path.removesuffix(ask.case.operation.path) + target.path
            linked = {"method": target.method.upper(), "body": None, "headers": {"content-type": None}}
            found = ask.send(url=ask.url(query, path), **linked)
            yield f"a link to {query}", found, range(200, 300)
            linked_case = target.Case(query=query)
            conforms(linked_case, f"a link to {query}", found)
            opens(found, linked_case)
            for name, value in query.items():
                for near in (
                    f"{value}x",
                    value[:-1],
                    value.upper(),
                    f"/{value}",
                    value.rpartition("/")[0],
                    "",
                ):
                    answer = ask.send(url=ask.url(query | {name: near}, path), **linked)
                    yield f"nothing was made that is called {near!r}", answer, [404]


def filled(template: str, bodies: dict[str, Any]) -> str:
    """Fill in what a link takes from request and response."""
    return EXPRESSION.sub(lambda found: bodies[found[1]][found[2]], template)


@schemathesis.check
def signed_url_opens(_ctx: Any, response: Any, case: Any) -> None:
    """A signed URL serves its object without a key, until it expires; any other URL does not."""
    opens(response, case)


def opens(response: Any, case: Any) -> None:
    """Follow a signed URL, if there is one."""
    signs = case.operation.definition.raw["operationId"] == "generateSignedPath"
    if not signs or response.status_code != 200 or not case.operation.is_valid_response(response):
        return
    signed = response.json()
    left = datetime.fromisoformat(signed["expiresAt"]) - datetime.now(UTC)
    assert timedelta() < left < timedelta(days=1), f"A short-lived URL expires in {left}"
    try:
        served = requests.get(signed["signedUrl"], timeout=SECONDS, allow_redirects=False)
    except requests.RequestException as error:
        raise AssertionError(f"The signed URL leads nowhere: {error}") from error
    assert served.status_code == 200, told("The signed URL does not open", served)
    assert served.content, "The signed URL brings nothing"
    assert served.headers["content-type"].startswith("video/"), told("The signed URL brings no video", served)
    for url in forged(signed["signedUrl"]):
        refused = requests.get(url, timeout=SECONDS, allow_redirects=False)
        assert refused.status_code == 403, told(
            f"A URL that was never signed brings {refused.status_code}", refused
        )


def forged(signed: str) -> Iterator[str]:
    """Change a signed URL in each way that must break its signature."""
    url = urlsplit(signed)
    yield urlunsplit(url._replace(query=""))
    yield urlunsplit(url._replace(path=f"{url.path}.bak"))
    query = parse_qsl(url.query)
    for at, (name, value) in enumerate(query):
        other = str(int(value) + 3600) if value.isdecimal() else value[::-1]
        yield urlunsplit(url._replace(query=urlencode([*query[:at], (name, other), *query[at + 1 :]])))
