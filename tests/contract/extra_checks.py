"""What the contract promises beyond what schemathesis checks by itself; schemathesis.toml loads it.

All of it follows from the document, but for what the signed URL is good for. A `Probe` sends requests of its
own, until it has passed once for each operation: a failure can be repeated.
"""

import base64
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from uuid import UUID

import requests
import schemathesis
from jsonschema_rs import Draft202012Validator
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)

JSON = "application/json"
SECONDS = 10
METHODS = ("GET", "PUT", "POST", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE")

ODD: dict[str, list[Any]] = {
    "string": ["", "x" * 1000, "naïve 你好", "😀", "two\nlines", "CAPITALS", " ", "<&\"'\\>"],
    "uri": [
        "http://example.com/",
        f"https://example.com/{'x' * 1000}",
        "https://example.com/a.png?b=c&d=%20#e",
    ],
    "uuid": ["468EA7A0-66E1-4357-A760-236E54167F3E", str(UUID(int=0))],
    "date-time": ["2024-12-01T12:00:00Z", "2024-12-01T12:00:00.5+02:00"],
    "integer": [0, -1, 1, 2**31, 2**63, 1.0],
    "number": [0, -1, 0.5, 1e18, 1e-9, -1.5],
    "boolean": [True, False],
}
"""Values that a type or format allows, and that a careless server may not."""
ROUNDS = max(map(len, ODD.values()))

EXPRESSION = re.compile(r"\{\$(request|response)\.body#/(\w+)\}")
made: dict[str, dict[str, str]] = {}
"""The parameters of operations to which links have led."""


@schemathesis.hook
def before_load_schema(_context: Any, raw_schema: Any) -> None:
    """Add examples to each request body: odd but valid values, no optional field, an unknown field."""
    for item in raw_schema["paths"].values():
        for operation in item.values():
            body = resolved(raw_schema, operation.get("requestBody", {}))
            if JSON not in body.get("content", {}):
                continue
            media = body["content"][JSON]
            schema = resolved(raw_schema, media["schema"])
            values = [odd(raw_schema, schema, at) for at in range(ROUNDS)]
            needed = {name: values[0][name] for name in schema.get("required", ())}
            values += [needed, values[0] | {"x_unknown": [None]}] if "properties" in schema else []
            examples = {f"odd {at}": {"value": value} for at, value in enumerate(values)}
            media["examples"] = media.get("examples", {}) | examples


@schemathesis.hook
def before_add_examples(context: Any, examples: list[Any]) -> None:
    """Add what a link of another operation has led to: without it, no example of a path is there."""
    query = made.get(context.operation.definition.raw["operationId"])
    if query:
        examples.append(context.operation.Case(query=query))


def filled(template: str, bodies: dict[str, Any]) -> str:
    """Fill in what a link takes from request and response."""
    return EXPRESSION.sub(lambda found: bodies[found[1]][found[2]], template)


def odd(document: Any, schema: Any, at: int) -> Any:
    """Return a valid value, another one for each `at`."""
    schema = resolved(document, schema)
    if "enum" in schema:
        return schema["enum"][at % len(schema["enum"])]
    if "properties" in schema:
        return {name: odd(document, each, at) for name, each in schema["properties"].items()}
    if "items" in schema:
        item = odd(document, schema["items"], at)
        return ([], [item], [item, item], [odd(document, schema["items"], n) for n in range(30)])[at % 4]
    known = ODD.get(schema.get("format")) or ODD.get(schema.get("type", "string"), [])
    valid = Draft202012Validator(schema, validate_formats=True).is_valid
    values = [value for value in known if valid(value)]
    if not values:
        raise LookupError(f"ODD in {__file__} has no value for {schema}; add some.")
    return values[at % len(values)]


def resolved(document: Any, node: Any) -> Any:
    """Follow a reference."""
    while "$ref" in node:
        target = document
        for name in node["$ref"].removeprefix("#/").split("/"):
            target = target[name]
        node = target
    return node


def send(request: requests.PreparedRequest, url: str | None = None, **changes: Any) -> requests.Response:
    """Send a request once more, with another method, URL or body, or with other headers; None drops one."""
    changed = request.copy()
    changed.prepare_url(url or request.url, None)
    changed.method = changes.get("method", request.method)
    if "body" in changes:
        changed.headers.pop("content-length", None)
        changed.prepare_body(changes["body"], None)
    for name, value in changes.get("headers", {}).items():
        changed.headers.pop(name, None)
        if value is not None:
            changed.headers[name] = value
    with requests.Session() as session:
        return session.send(changed, timeout=SECONDS, allow_redirects=False)


class Probe:
    """A check that sends requests of its own, once for each operation."""

    def __init__(self) -> None:
        self.passed: set[str] = set()

    def after_response(self, _ctx: Any, response: Any, case: Any) -> None:
        """Probe the operation, with a valid request that it has just answered at hand."""
        valid = case.meta is not None and case.meta.generation.mode.is_positive and response.status_code < 500
        if valid and case.operation.label not in self.passed:
            for what, answer, expected in self.asked(response.request, case):
                said = answer.status_code
                assert said == expected, f"{what}: {said} instead of {expected}\n\n{answer.text[:300]}"
            self.passed.add(case.operation.label)


@schemathesis.check
class key_is_needed(Probe):  # noqa: N801 - the name of a check
    """Nothing but the whole key in its own header opens an operation."""

    def asked(self, request: Any, case: Any) -> Iterator[tuple[str, Any, int]]:
        """Try other keys, and the key in other places."""
        for header in key_headers(case):
            key = request.headers[header]
            url = urlsplit(request.url)
            inside = urlunsplit(
                url._replace(query="&".join(filter(None, [url.query, urlencode({header: key})])))
            )
            basic = base64.b64encode(f"{key}:".encode()).decode()
            for what, value in {
                "without a key": None,
                "with an empty key": "",
                "with a wrong key": "wrong",
                "with the key's beginning": key[:-1],
                "with more than the key": f"{key}x",
                "with the key in capitals": key.upper(),
            }.items():
                yield what, send(request, headers={header: value}), 401
            for what, others in {
                "with the key as a cookie": {"cookie": f"{header}={key}"},
                "with the key as a bearer token": {"authorization": f"Bearer {key}"},
                "with the key in HTTP Basic": {"authorization": f"Basic {basic}"},
            }.items():
                yield what, send(request, headers={header: None, **others}), 401
            yield "with the key in the query", send(request, inside, headers={header: None}), 401


@schemathesis.check
class only_what_is_listed_is_taken(Probe):  # noqa: N801
    """A field whose values are listed takes none that is not, however near it is."""

    def asked(self, request: Any, case: Any) -> Iterator[tuple[str, Any, int]]:
        """Try the next number, or a longer word."""
        if not isinstance(case.body, dict):
            return
        document = case.operation.schema.raw_schema
        body = resolved(document, case.operation.definition.raw["requestBody"])
        fields = resolved(document, body["content"][JSON]["schema"]).get("properties", {})
        for name, field in fields.items():
            values = resolved(document, field).get("enum")
            if values:
                other = max(values) + (1 if isinstance(values[0], int) else "x")
                answer = send(request, body=json.dumps(case.body | {name: other}).encode())
                yield f"{name}: {other}", answer, 400


@schemathesis.check
class only_json_is_taken(Probe):  # noqa: N801
    """A body has to be JSON, and to say so."""

    def asked(self, request: Any, case: Any) -> Iterator[tuple[str, Any, int]]:
        """Try other media types, and what is not quite JSON."""
        if not isinstance(case.body, dict):
            return
        body = json.dumps(case.body).encode()
        for media_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None):
            answer = send(request, body=body, headers={"content-type": media_type})
            yield f"JSON that says that it is {media_type}", answer, 400
        for what, bad in {
            "no body": b"",
            "a body that breaks off": body[:-1],
            "a body with more behind it": body + b"}",
            "a body in single quotes": body.replace(b'"', b"'"),
            "a body with NaN": body[:-1] + b', "x_unknown": NaN}',
            "a body in Latin-1": body[:-1] + ', "x_unknown": "ï"}'.encode("latin-1"),
        }.items():
            yield what, send(request, body=bad, headers={"content-type": JSON}), 400


@schemathesis.check
class nothing_else_is_served(Probe):  # noqa: N801
    """There are no other paths, and no other methods."""

    def asked(self, request: Any, case: Any) -> Iterator[tuple[str, Any, int]]:
        """Try some."""
        url = urlsplit(request.url)
        for path in (f"{url.path}/x", url.path.upper(), url.path.rpartition("/")[0], f"{url.path}/"):
            # Without a key, an operation would be known by its 401.
            other = send(
                request, urlunsplit(url._replace(path=path)), headers=dict.fromkeys(key_headers(case))
            )
            yield path, other, 404
        allowed = [name.upper() for name in case.operation.schema.raw_schema["paths"][case.operation.path]]
        for method in METHODS:
            if method not in allowed:
                answer = send(request, method=method)
                yield method, answer, 405
                assert answer.headers.get("allow") == ", ".join(allowed), (
                    f"{method}: the Allow header is wrong"
                )


@schemathesis.check
class errors_are_as_documented(Probe):  # noqa: N801
    """Errors that a good server seldom has keep to the contract, too: the mock makes them on demand."""

    def asked(self, request: Any, case: Any) -> Iterator[tuple[str, Any, int]]:
        """Ask for each error that is documented, and for each form of Retry-After."""
        document = case.operation.schema.raw_schema
        definition = case.operation.definition.raw
        for documented, response in definition["responses"].items():
            status = int(documented.replace("XX", "03"))
            if status < 400:
                continue
            waits = "Retry-After" in resolved(document, response).get("headers", {})
            for wait in (None, "2", "date:2") if waits else (None,):
                fault = f"status={status}" + (f";retry-after={wait}" if wait else "")
                answer = send(request, headers={"x-mock-fault": fault})
                yield fault, answer, status
                case.validate_response(
                    answer,
                    checks=[
                        content_type_conformance,
                        response_headers_conformance,
                        response_schema_conformance,
                    ],
                )
                # The contract lets a server leave it out; the mock promises it to whoever asks for it.
                assert not wait or "retry-after" in answer.headers, "Retry-After is missing, though asked for"


@schemathesis.check
def link_leads_somewhere(ctx: Any, response: Any, case: Any) -> None:
    """What a link of an accepted request leads to is there."""
    parent = ctx.internals.find_parent(case_id=case.id)
    source = parent and ctx.internals.find_response(case_id=parent.id)
    # Now and then schemathesis does not follow the link, but sends something of its own.
    linked = source and source.status_code < 300 and followed(source.json(), response.request.url)
    if linked or case.query == made.get(case.operation.definition.raw["operationId"]):
        assert response.status_code < 300, f"A link leads to nothing: {case.query}"


def followed(made: Any, url: str) -> bool:
    """Tell from a URL whether it was made of what an answer names."""
    return any(
        isinstance(value, str) and len(value) == len(str(UUID(int=0))) and value in url
        for value in made.values()
    )


@schemathesis.check
class identifiers_are_new(Probe):  # noqa: N801
    """No two answers name the same thing as new."""

    def asked(self, request: Any, case: Any) -> Iterator[tuple[str, Any, int]]:
        """Make two more."""
        definition = case.operation.definition.raw
        document = case.operation.schema.raw_schema
        for status, response in definition["responses"].items():
            schema = resolved(document, response).get("content", {}).get(JSON, {}).get("schema", {})
            properties = resolved(document, schema).get("properties", {})
            names = [
                name for name, each in properties.items() if resolved(document, each).get("format") == "uuid"
            ]
            if names and status.startswith("2"):
                answers = [send(request) for _ in range(3)]
                if not all(good(answer, case, int(status)) for answer in answers):
                    return
                for name in names:
                    values = {answer.json()[name] for answer in answers}
                    assert len(values) == len(answers), f"{name} is the same in several answers"
                yield "the same again", answers[-1], int(status)
                for link in resolved(document, response).get("links", {}).values():
                    bodies = {"request": case.body, "response": answers[-1].json()}
                    made.setdefault(link["operationId"], {}).update(
                        {name: filled(value, bodies) for name, value in link["parameters"].items()}
                    )


@schemathesis.check
class signed_url_opens(Probe):  # noqa: N801
    """A signed URL serves its object without a key, until it expires; any other URL does not."""

    def after_response(self, _ctx: Any, response: Any, case: Any) -> None:
        """Follow each signed URL."""
        if case.operation.definition.raw["operationId"] != "generateSignedPath":
            return
        if not good(response, case, 200):
            return
        signed = response.json()
        expires = datetime.fromisoformat(signed["expiresAt"])
        assert expires > datetime.now(UTC), f"It has expired already: {expires}"
        try:
            served = requests.get(signed["signedUrl"], timeout=SECONDS, allow_redirects=False)
        except requests.RequestException as error:
            raise AssertionError(f"The signed URL leads nowhere: {error}") from error
        assert served.status_code == 200, f"The signed URL brings {served.status_code}"
        assert served.content, "The signed URL brings nothing"
        assert served.headers["content-type"].startswith("video/"), "The signed URL brings no video"
        if case.operation.label in self.passed:
            return
        for url in forged(signed["signedUrl"]):
            status = requests.get(url, timeout=SECONDS, allow_redirects=False).status_code
            assert status == 403, f"A URL that was never signed brings {status}: {url}"
        self.passed.add(case.operation.label)


def forged(signed: str) -> Iterator[str]:
    """Change a signed URL in each way that must break its signature."""
    url = urlsplit(signed)
    yield urlunsplit(url._replace(query=""))
    yield urlunsplit(url._replace(path=f"{url.path}.bak"))
    query = parse_qsl(url.query)
    for at, (name, value) in enumerate(query):
        other = str(int(value) + 3600) if value.isdecimal() else value[::-1]
        yield urlunsplit(url._replace(query=urlencode([*query[:at], (name, other), *query[at + 1 :]])))


def good(response: Any, case: Any, status: int) -> bool:
    """Whether an answer keeps to the contract; what is wrong with it otherwise, other checks say."""
    return response.status_code == status and case.operation.is_valid_response(response)


def key_headers(case: Any) -> list[str]:
    """Return the headers that carry a key."""
    document = case.operation.schema.raw_schema
    security = case.operation.definition.raw.get("security", document.get("security", []))
    schemes = [document["components"]["securitySchemes"][name] for choice in security for name in choice]
    return [scheme["name"] for scheme in schemes if scheme["type"] == "apiKey" and scheme["in"] == "header"]
