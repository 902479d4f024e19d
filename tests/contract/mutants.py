"""The catalogue of mutants: mock servers that deviate from the contract in one point each.

Most follow from the OpenAPI document, so that a new field brings its own. What an operation is promised to
do beyond that is in `_behaviours`, by hand.
"""

import json
import uuid
from collections.abc import Callable, Iterator
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

from attrs import evolve, frozen
from deviations import behaviours, deviations
from mutant_server import JSON, Answer, Ask, Json, Mutant, Request, Say, is_json, is_utf8, where
from odd_bodies import DEPTH, resolved, sample, validator

import techforge.mock.server
from techforge.mock.app import Api
from techforge.mock.contract import Contract, problems, read
from techforge.mock.signing import SignatureRefusedError, Signer
from techforge.mock.store import Store


def catalogue(document: Json) -> list[Mutant]:
    """Return every mutant of the server that `document` describes."""
    mutants = []
    for operation in _operations(document):
        families = {
            "statuses": _statuses(operation),
            "bodies of responses": _bodies(document, operation),
            "headers of responses": _headers(document, operation),
            "keys": _keys(operation),
            "invalid requests accepted": _accepted(document, operation),
            "valid requests refused": _refused(document, operation),
            "parameters": _parameters(document, operation),
            "methods, paths, media types": _http(operation),
        }
        mutants += [evolve(each, family=family) for family, some in families.items() for each in some]
        mutants += deviations(operation)
    mutants += [evolve(each, family="behaviour") for each in _behaviours()]
    # A contract without these operations has none of their mutants.
    return [*mutants, *behaviours()]


# What follows from the document.

METHODS = ("GET", "PUT", "POST", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE")
SUCCESSES = ("200", "201", "202", "204")
NEVER = (302, 403, 409, 422, 500, 503)
"""Statuses that no contract asks for without a reason."""

INSTEAD = {
    "400": (200, 401, 404, 422, 500),
    "401": (200, 400, 403, 404, 500),
    "404": (200, 400, 401, 410, 500),
}
"""Statuses that are tempting in the place of others."""

WRONG = {
    "string": (7, True, ["text"], {"text": "text"}, None),
    "integer": ("7", 7.5, True, [7], None),
    "number": ("7", True, [7], None),
    "boolean": ("true", 1, None),
    "array": ("text", {}, None),
    "object": ("text", [], None),
}
"""Values of other types."""

BAD_FORMATS = {
    "uuid": ("468ea7a066e14357a760236e54167f3", "job-1", ""),
    "uri": ("/video.mp4", "no uri at all", ""),
    "date-time": ("2024-12-01 12:00", "1733054400", "tomorrow"),
}

NARROWER: dict[str, dict[str, tuple[Json, Json]]] = {
    "string": {
        "empty": ({"minLength": 1}, ""),
        "long": ({"maxLength": 255}, "x" * 256),
        "not ASCII": ({"pattern": "^[ -~]*$"}, "naïve"),
        "from right to left": ({"pattern": "^[^\u0590-\u08ff]*$"}, "שלום"),
        "beyond the BMP": ({"pattern": "^[\u0000-\uffff]*$"}, "😀"),
        "of several lines": ({"pattern": "^[^\n]*$"}, "two\nlines"),
        "in capitals": ({"pattern": "^[^A-Z]*$"}, "CAPITALS"),
        "that looks like a number": ({"not": {"pattern": "^[0-9.]+$"}}, "7"),
    },
    "uri": {
        "long": ({"maxLength": 255}, "https://example.com/" + "x" * 255),
        "with a query": ({"pattern": "^[^?]*$"}, "https://example.com/?a=b"),
        "of another scheme than https": ({"pattern": "^https:"}, "http://example.com/"),
        "of another scheme than HTTP's": ({"pattern": "^[Hh]"}, "s3://bucket/key"),
        "in capitals": ({"pattern": "^[^A-Z]*$"}, "HTTPS://EXAMPLE.COM/A"),
    },
    "uuid": {
        "in capitals": ({"pattern": "^[^A-F]*$"}, "468EA7A0-66E1-4357-A760-236E54167F3E"),
        "nil": ({"not": {"pattern": "^[0-]*$"}}, "00000000-0000-0000-0000-000000000000"),
        "of another version than 4": ({"pattern": "^.{14}4"}, "00000000-0000-7000-8000-000000000000"),
    },
    "date-time": {"with an offset": ({"pattern": "Z$"}, "2024-12-01T12:00:00+02:00")},
    "integer": {
        "zero": ({"not": {"const": 0}}, 0),
        "negative": ({"minimum": 0}, -1),
        "beyond 32 bits": ({"maximum": 2**31 - 1}, 2**31),
        "beyond 64 bits": ({"maximum": 2**63 - 1}, 2**63),
        "odd": ({"multipleOf": 2}, 1),
        "even": ({"not": {"multipleOf": 2}}, 2),
    },
    "number": {
        "zero": ({"not": {"const": 0}}, 0),
        "negative": ({"minimum": 0}, -1.5),
        "a fraction": ({"type": "integer"}, 0.5),
        "huge": ({"maximum": 1e15}, 1e18),
        "tiny": ({"not": {"exclusiveMinimum": 0, "maximum": 1e-6}}, 1e-9),
    },
    "boolean": {"true": ({"enum": [False]}, True), "false": ({"enum": [True]}, False)},
    "array": {
        "empty": ({"minItems": 1}, []),
        "long": ({"maxItems": 20}, ["x"] * 21),
        "very long": ({"maxItems": 100}, ["x"] * 101),
        "of one": ({"not": {"minItems": 1, "maxItems": 1}}, ["x"]),
        "with a repeated item": ({"uniqueItems": True}, ["x", "x"]),
    },
}
"""What a careless server would not take, though it is valid: how it would say so, and an example."""

WIDER: dict[str, dict[str, tuple[Json, Json]]] = {
    "string": {"a number": ({"type": "number"}, 7), "true or false": ({"type": "boolean"}, True)},
    "uri": {
        "any text but the empty one": ({"type": "string", "minLength": 1}, "x"),
        "a URL without its scheme": ({"type": "string", "pattern": r"^\w+\.\w+/"}, "example.com/a.png"),
        "a path": ({"type": "string", "pattern": "^/[^/]"}, "/a.png"),
        "a URL with a blank": ({"type": "string", "pattern": "^https://.* "}, "https://example.com/a b"),
    },
    "uuid": {
        "any text but the empty one": ({"type": "string", "minLength": 1}, "x"),
        "a UUID without hyphens": (
            {"type": "string", "pattern": "^[0-9a-f]{32}$"},
            "468ea7a066e14357a760236e54167f3e",
        ),
        "36 characters": (
            {"type": "string", "pattern": "^[0-9a-z-]{36}$"},
            "468ea7a0-66e1-4357-a760-236e54167f3g",
        ),
        "a UUID and more": (
            {"type": "string", "pattern": "^[0-9a-f-]{36}"},
            "468ea7a0-66e1-4357-a760-236e54167f3e0",
        ),
    },
    "date-time": {
        "a time without its zone": ({"type": "string", "pattern": "T[0-9:]+$"}, "2024-12-01T12:00:00"),
        "a date": ({"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"}, "2024-12-01"),
    },
    "integer": {
        "a text": ({"type": "string"}, "x"),
        "digits in a text": ({"type": "string", "pattern": "^-?[0-9]+$"}, "7"),
        "a fraction": ({"type": "number", "not": {"type": "integer"}}, 0.5),
        "true or false": ({"type": "boolean"}, True),
        "any number above 9": ({"type": "integer", "minimum": 10}, 10),
        "any negative number": ({"type": "integer", "maximum": -1}, -1),
    },
    "number": {
        "a text": ({"type": "string"}, "x"),
        "digits in a text": ({"type": "string", "pattern": "^-?[0-9]+$"}, "7"),
        "true or false": ({"type": "boolean"}, True),
    },
    "boolean": {
        "a text": ({"type": "string"}, "x"),
        "true in a text": ({"enum": ["true"]}, "true"),
        "0 or 1": ({"enum": [0, 1]}, 1),
    },
    "array": {
        "a single item": ({"not": {"type": ["array", "object", "null"]}}, "x"),
        "an object": ({"type": "object"}, {}),
    },
    "object": {"a text": ({"type": "string"}, "x"), "an array": ({"type": "array"}, [])},
}
"""What a careless server would take, though it is not valid."""

CRASHES = ("empty", "long", "not ASCII", "zero", "negative", "beyond 64 bits", "a fraction", "huge")
"""Those of the narrower ones that are known to bring servers down."""


def _statuses(operation: "_Operation") -> Iterator[Mutant]:
    for documented in operation.responses:
        here = _answers(operation, documented)
        wrong = (
            (*map(int, SUCCESSES), *NEVER, 429) if documented in SUCCESSES else INSTEAD.get(documented, ())
        )
        for status in wrong:
            if str(status) != documented:
                yield Mutant(
                    f"{operation.id}: {status} instead of {documented}",
                    say=where(here, lambda answer, status=status: evolve(answer, status=status)),
                )


def _bodies(document: Json, operation: "_Operation") -> Iterator[Mutant]:
    for status, response in operation.responses.items():
        here, name = _answers(operation, status), f"{operation.id}: {status}"
        if JSON not in response.get("content", {}):
            continue
        changes: dict[str, Callable[[Answer], Answer]] = {
            "is not JSON": lambda answer: evolve(answer, body=b"<h1>It works!</h1>"),
            "breaks off": lambda answer: evolve(answer, body=answer.body[:-1]),
            "has no body": lambda answer: evolve(answer, body=b""),
            "says that it is HTML": lambda answer: answer.with_header("content-type", "text/html"),
            "says that it is text": lambda answer: answer.with_header("content-type", "text/plain"),
            "does not say what it is": lambda answer: answer.without_header("content-type"),
        }
        for what, change in changes.items():
            yield Mutant(f"{name} {what}", say=where(here, change))
        for node in operation.response_nodes[status]:
            for what, change in _wrong_values(document, node):
                yield Mutant(f"{name}: {node.name} {what}", say=where(here, change))


def _wrong_values(document: Json, node: "_Node") -> Iterator[tuple[str, Callable[[Answer], Answer]]]:
    def put(value: Json) -> Callable[[Answer], Answer]:
        return lambda answer: answer.with_json(node.put(answer.json, value))

    if node.path and node.required:
        yield "is missing", lambda answer: answer.with_json(node.put(answer.json, _MISSING))
    wrong = [value for name in _types(node.schema) for value in WRONG.get(name, ())]
    wrong += BAD_FORMATS.get(node.schema.get("format"), ())
    if "enum" in node.schema:
        wrong += ["archived", 0, "", str(node.schema["enum"][0]).upper()]
    for value in {json.dumps(value): value for value in wrong}.values():
        if not _allows(document, node.schema, value):
            yield f"is {json.dumps(value)}", put(value)


def _headers(document: Json, operation: "_Operation") -> Iterator[Mutant]:
    for status, response in operation.responses.items():
        for header, node in response.get("headers", {}).items():
            schema = resolved(document, node)["schema"]
            here, name = _answers(operation, status), header.lower()
            for value in ("", "soon", "-1", "1.5", "2s", "Wed, 21 Oct 2026 07:28:00 +0200"):
                if not _allows(document, schema, value):
                    yield Mutant(
                        f"{operation.id}: {status}: {header} is {value!r}",
                        say=where(here, lambda answer, n=name, v=value: answer.with_header(n, v)),
                    )
            # The contract leaves the header open; the mock promises it to whoever asks for it.
            yield Mutant(
                f"{operation.id}: {status}: {header} is left out",
                say=where(here, lambda answer, n=name: answer.without_header(n)),
            )
            for value in ("0", "86400", "Wed, 21 Oct 2015 07:28:00 GMT"):
                if _allows(document, schema, value):
                    yield Mutant(
                        f"{operation.id}: {status}: {header} is not what was asked for, but {value}",
                        say=where(
                            here, lambda a, n=name, v=value: a.with_header(n, v) if n in a.headers else a
                        ),
                    )


def _keys(operation: "_Operation") -> Iterator[Mutant]:
    for scheme in operation.keys:
        header = scheme["name"].lower()

        def accept(what: str, accepts: Callable[[Request, str], bool], header: str = header) -> Mutant:
            def ask(request: Request) -> Request:
                if operation.serves(request) and accepts(request, request.headers.get(header, "-")):
                    return request.with_header(header, KEY)
                return request

            return Mutant(f"{operation.id}: {what}", ask=ask)

        def other(name: str, key: str = "{}") -> Callable[[Request, str], bool]:
            return lambda request, _: request.headers.get(name) == key.format(KEY)

        yield accept("no key is needed", lambda request, _, h=header: h not in request.headers)
        yield accept("any key will do", lambda request, _, h=header: h in request.headers)
        yield accept("an empty key will do", lambda _, key: not key)
        yield accept("the beginning of a key will do", lambda _, key: len(key) > 1 and KEY.startswith(key))
        yield accept("more than the key will do", lambda _, key: key.startswith(KEY))
        yield accept("the key in capitals will do", lambda _, key: key.lower() == KEY)
        yield accept("the key may be in a list of keys", lambda _, key: KEY in key.split(", "))
        yield accept("the key may be in the query", lambda request, _: KEY in request.query)
        yield accept(
            "the key may be in the query, as api_key", lambda request, _: f"api_key={KEY}" in request.query
        )
        yield accept("the key may be a cookie", lambda request, _: KEY in request.headers.get("cookie", ""))
        yield accept("the key may be a bearer token", other("authorization", "Bearer {}"))
        yield accept("the key may be in Authorization", other("authorization"))
        for name in ("api-key", "apikey", "x-auth-token"):
            yield accept(f"the key may be in {name}", other(name))
        yield accept(
            "HTTP Basic will do", lambda r, _: r.headers.get("authorization", "").startswith("Basic")
        )
        yield Mutant(
            f"{operation.id}: the right key is refused at times",
            ask=_every(7, lambda request, h=header: request.with_header(h, "wrong")),
        )


def _accepted(document: Json, operation: "_Operation") -> Iterator[Mutant]:
    """Invalid requests that are carried out: one constraint less."""
    for node in operation.body_nodes:
        name = f"{operation.id}: {node.name}"
        schema = node.schema
        if node.required and node.parent:
            # A parent that is not followed further needs nothing to be there.
            yield Mutant(f"{name} may be missing", node.changed(document, required=False))
        wide = {key: value for key, value in schema.items() if key not in {"type", "enum", "format"}}
        if _types(schema):
            yield Mutant(f"{name} may be anything", node.changed(document, wide))
        if _types(schema) and "null" not in _types(schema):
            yield Mutant(f"{name} may be null", node.changed(document, {"anyOf": [schema, {"type": "null"}]}))
        for what, wider in _telling(document, schema, WIDER, "anyOf"):
            yield Mutant(f"{name} may be {what}", node.changed(document, wider))
        for keyword in sorted(schema.keys() - {"type", "required", "properties", *_ANNOTATIONS}):
            if keyword == "format" and _allows(document, {"format": schema["format"]}, "\0"):
                continue  # a format that nobody knows
            less = {key: value for key, value in schema.items() if key != keyword}
            yield Mutant(f"{name}: {keyword} is not checked", node.changed(document, less))
        if "items" in schema:
            less = {key: value for key, value in schema.items() if key != "items"}
            changed = node.changed(document, less | {"prefixItems": [schema["items"]]})
            yield Mutant(f"{name}: only the first item is checked", changed)
        if "enum" in schema:
            last = max(value for value in schema["enum"] if isinstance(value, type(schema["enum"][0])))
            more = last + ("x" if isinstance(last, str) else 1)
            changed = schema | {"enum": [*schema["enum"], more]}
            yield Mutant(f"{name} may be {more}", node.changed(document, changed))


def _parameters(document: Json, operation: "_Operation") -> Iterator[Mutant]:
    """What is invalid in the query and carried out, or valid and refused."""
    for node in operation.query_nodes:
        name = f"{operation.id}: {node.name}"
        if node.required:
            yield Mutant(
                f"{name} may be missing",
                ask=lambda request, node=node: (
                    request
                    if not operation.serves(request)
                    or node.name in parse_qs(request.query, keep_blank_values=True)
                    else request.with_query(**{node.name: "x"})
                ),
            )
        for what, narrower in _telling(document, node.schema, NARROWER, "allOf"):
            yield Mutant(f"{name}: {what} is refused", node.changed(document, narrower))


def _refused(document: Json, operation: "_Operation") -> Iterator[Mutant]:
    """Valid requests that are refused, or bring the server down: one constraint more."""
    for node in operation.body_nodes:
        name = f"{operation.id}: {node.name}"
        schema = node.schema
        if node.parent and not node.required:
            yield Mutant(f"{name} is required", node.changed(document, required=True))
            yield Mutant(f"{name} is refused", node.changed(document, {"not": {}}))
        if "object" in _types(schema) and "additionalProperties" not in schema:
            yield Mutant(
                f"{name}: unknown fields are refused",
                node.changed(document, schema | {"additionalProperties": False}),
            )
        for value in schema.get("enum", ()):
            less = schema | {"enum": [each for each in schema["enum"] if each != value]}
            yield Mutant(f"{name}: {json.dumps(value)} is refused", node.changed(document, less))
        for what, narrower in _telling(document, schema, NARROWER, "allOf"):
            changed = node.changed(document, narrower)
            yield Mutant(f"{name}: {what} is refused", changed)
            if what in CRASHES:
                crash = _crash(operation, read(document), read(changed))
                yield Mutant(f"{name}: {what} brings 500", changed, say=crash)
        if "integer" in _types(schema) and "[]" not in node.path:
            yield Mutant(f"{name}: 1.0 for 1 is refused", ask=_without_floats(operation, node))


def _telling(
    document: Json, schema: Json, table: dict[str, dict[str, tuple[Json, Json]]], kind: str
) -> Iterator[tuple[str, Json]]:
    """Yield what of a table changes anything here: a minimum of 10 refuses negative numbers already."""
    rows: dict[str, tuple[Json, Json]] = {}
    for name in (*_types(schema), schema.get("format")):
        rows |= table.get(name, {})
    for what, (other, example) in rows.items():
        changed = {kind: [schema, other]}
        if _allows(document, schema, example) != _allows(document, changed, example):
            yield what, changed


def _allows(document: Json, schema: Json, value: Json) -> bool:
    return validator(document, schema).is_valid(value)


def _http(operation: "_Operation") -> Iterator[Mutant]:
    """What HTTP asks for: methods, paths and media types."""
    for method in METHODS:
        if method not in operation.methods:
            yield Mutant(
                f"{operation.id}: {method} is answered, too",
                ask=lambda request, method=method: (
                    evolve(request, method=operation.method)
                    if operation.at(request.path) and request.method == method
                    else request
                ),
            )
    refusals: dict[str, Callable[[Answer], Answer]] = {
        "404": lambda answer: evolve(answer, status=404),
        "500": lambda answer: evolve(answer, status=500),
        "405 without Allow": lambda answer: answer.without_header("allow"),
    }
    for what, change in refusals.items():
        yield Mutant(
            f"{operation.id}: another method brings {what}",
            say=lambda request, answer, change=change: (
                change(answer) if operation.at(request.path) and answer.status == 405 else answer
            ),
        )
    for what, real in {
        "a longer path": lambda path: path.rpartition("/")[0],
        "a path in capitals": lambda path: path.lower(),
        "a shorter path": lambda path: (
            operation.example_path if path == operation.example_path.rpartition("/")[0] else path
        ),
        "a path with two slashes": lambda path: path.removeprefix("/"),
        "a path with .json": lambda path: path.removesuffix(".json"),
    }.items():
        yield Mutant(
            f"{operation.id}: {what} is answered, too",
            ask=lambda request, real=real: (
                evolve(request, path=real(request.path))
                if not operation.is_known(request.path) and operation.at(real(request.path))
                else request
            ),
        )
    yield from _media(operation)


def _media(operation: "_Operation") -> Iterator[Mutant]:
    if "examples" not in operation.body.get("content", {}).get(JSON, {}):
        return
    valid = operation.example

    def accept(what: str, accepts: Callable[[Request], bool]) -> Mutant:
        def ask(request: Request) -> Request:
            if operation.serves(request) and accepts(request):
                return evolve(request.with_header("content-type", JSON), body=valid)
            return request

        return Mutant(f"{operation.id}: {what}", ask=ask)

    def media_type(request: Request) -> str:
        return request.headers.get("content-type", "")

    def ends(suffix: bytes) -> Callable[[Request], bool]:
        return lambda request: request.body.endswith(suffix) and not is_json(request.body)

    def has(part: bytes) -> Callable[[Request], bool]:
        return lambda request: part in request.body and not is_json(request.body)

    yield accept("JSON may say that it is text", lambda request: media_type(request).startswith("text/"))
    yield accept("JSON may say that it is a form", lambda request: "form" in media_type(request))
    yield accept("JSON may say that it is something+json", lambda request: "+json" in media_type(request))
    yield accept("JSON need not say what it is", lambda request: not media_type(request))
    yield accept("no body will do", lambda request: not request.body)
    yield accept("malformed JSON will do", lambda request: request.body and not is_json(request.body))
    yield accept(
        "JSON may break off", lambda request: request.body.startswith(b"{") and request.body[-1:] != b"}"
    )
    yield accept("NaN is a number", has(b": NaN"))
    yield accept("Infinity is a number", has(b"Infinity"))
    yield accept("01 is a number", has(b": 01"))
    yield accept("JSON may be followed by more", lambda request: is_json(request.body[:-1]))
    yield accept("JSON may have a comma at its end", ends(b",}"))
    yield accept("JSON may have comments", has(b"/*"))
    yield accept(
        "JSON may be Latin-1", lambda request: not is_utf8(request.body) and b"\0" not in request.body
    )
    yield accept("JSON may be UTF-16", lambda request: b"\0" in request.body)
    yield accept("JSON may have a byte order mark", lambda request: request.body.startswith(b"\xef\xbb\xbf"))

    def refuse(what: str, refuses: Callable[[Request], bool]) -> Mutant:
        def ask(request: Request) -> Request:
            refused = operation.serves(request) and refuses(request)
            return evolve(request, body=b"") if refused else request

        return Mutant(f"{operation.id}: {what}", ask=ask)

    yield refuse("a charset is refused", lambda request: "charset" in media_type(request))
    yield refuse(
        "a media type in capitals is refused",
        lambda request: media_type(request) != media_type(request).lower(),
    )
    yield refuse("a body in chunks is refused", lambda request: "transfer-encoding" in request.headers)
    yield refuse("JSON in lines is refused", lambda request: request.body.strip() != request.body)


# What the operations are promised to do beyond their schemas, by hand.


def _behaviours() -> Iterator[Mutant]:
    def create(what: str, change: Callable[[Answer], Answer]) -> Mutant:
        return Mutant(f"createJob: {what}", say=where(_success("/jobs/v2"), change))

    def sign(what: str, change: Callable[[Json], Json]) -> Mutant:
        return Mutant(
            f"generateSignedPath: {what}",
            say=where(
                _success("/storage/generate-signed-path"),
                lambda answer: answer.with_json(change(answer.json)),
            ),
        )

    def expire(**after: float) -> Callable[[Json], Json]:
        def change(body: Json) -> Json:
            moment = datetime.now(UTC) + timedelta(**after)
            return body | {"expiresAt": moment.strftime("%Y-%m-%dT%H:%M:%SZ")}

        return change

    def store(what: str, change: Callable[[Answer], Answer]) -> Mutant:
        return Mutant(
            f"storage: {what}",
            storage=lambda _, answer: change(answer) if answer.status < 300 else answer,
        )

    ids: list[str] = []

    def same_id(answer: Answer) -> Answer:
        ids.append(answer.json["jobId"])
        return answer.with_json(answer.json | {"jobId": ids[0]})

    yield create("an accepted job is forgotten", lambda a: a.with_json(a.json | {"jobId": str(uuid.uuid4())}))
    yield create("every job has the same id", same_id)
    yield create("every second job has its predecessor's id", _pairs())
    yield Mutant(
        "createJob: the video lies elsewhere",
        patches=(
            (
                techforge.mock.server,
                "contract",
                lambda contract=techforge.mock.server.contract: _Elsewhere(contract()),
            ),
        ),
    )
    yield Mutant(
        "createJob: no job is ever done",
        patches=((Store, "find_object", lambda _store, _path: None),),
    )
    yield Mutant(
        "generateSignedPath: signs what is not there",
        patches=((Api, "_sign", _sign_anything),),
    )
    yield sign(
        "the signed URL leads nowhere", lambda b: b | {"signedUrl": b["signedUrl"].replace("/", "/x/", 3)}
    )
    yield sign("the signed URL leads to a closed port", lambda b: b | {"signedUrl": "http://127.0.0.1:9/x"})
    yield sign("the signed URL is not signed", lambda b: b | {"signedUrl": b["signedUrl"].partition("?")[0]})
    yield sign("the signature is wrong", lambda b: b | {"signedUrl": b["signedUrl"] + "0"})
    for what, alike in {
        "in capitals": lambda path, key: path.lower() == key.lower(),
        "with more behind it": lambda path, key: path.startswith(key),
        "that breaks off": lambda path, key: len(path) > 20 and key.startswith(path),
        "with a slash before it": lambda path, key: path.lstrip("/") == key,
        "of a folder": lambda path, key: path == key.rpartition("/")[0],
        "that is empty": lambda path, _: not path,
    }.items():
        yield Mutant(
            f"generateSignedPath: finds a key {what}", patches=((Store, "find_object", _alike(alike)),)
        )
    yield Mutant("generateSignedPath: the first of two keys counts", ask=_with_first_key)
    yield sign("the URL has expired in the past", expire(hours=-1))
    yield sign("the URL works for ever", expire(days=365_000))
    yield sign("the URL expires at once", expire(seconds=0))
    yield Mutant(
        "generateSignedPath: the signed URL works no more",
        storage=lambda _, answer: evolve(answer, status=403) if answer.status < 300 else answer,
    )
    yield Mutant("storage: no signature is checked", patches=((Signer, "check", lambda *_: None),))
    yield Mutant("storage: any signature will do", patches=((Signer, "check", _check_presence),))
    yield Mutant("storage: the expiry is not signed", patches=((Signer, "_signature", _sign_path_only),))
    yield Mutant(
        "storage: a signature opens every path", patches=((Signer, "_signature", _sign_expiry_only),)
    )
    yield Mutant("storage: needs the key", storage=_needs_key)
    yield store(
        "answers with nothing", lambda answer: evolve(answer, body=b"").without_header("content-length")
    )
    yield store("answers with an error page", lambda a: a.with_header("content-type", "text/html"))
    yield store("redirects", lambda a: evolve(a, status=302).with_header("location", "/"))


def _sign_anything(api: Api, path: str) -> tuple[int, Json]:
    signed = api.signer.sign(api.storage_url(), path)
    return 200, {"signedUrl": signed.url, "expiresAt": signed.expires_at}


_find_object = Store.find_object


def _alike(alike: Callable[[str, str], bool]) -> Callable[[Store, str], Any]:
    """Make of the exact search for a key one that finds what is alike."""

    def find_object(store: Store, path: str) -> Any:
        keys = [path] if path in store._owners else [key for key in store._owners if alike(path, key)]
        return _find_object(store, keys[0] if keys else path)

    return find_object


def _with_first_key(request: Request) -> Request:
    keys = parse_qs(request.query).get("path", [])
    return evolve(request, query=urlencode({"path": keys[0]})) if len(keys) > 1 else request


def _check_presence(_signer: Signer, _path: str, expires: str | None, signature: str | None) -> None:
    if not expires or not signature:
        raise SignatureRefusedError("The URL is not signed.")


_signature = Signer._signature


def _sign_path_only(signer: Signer, path: str, _expires: str) -> str:
    return _signature(signer, path, "")


def _sign_expiry_only(signer: Signer, _path: str, expires: str) -> str:
    return _signature(signer, "", expires)


def _needs_key(request: Request, answer: Answer) -> Answer:
    return answer if "x-api-key" in request.headers else evolve(answer, status=401)


def _pairs() -> Callable[[Answer], Answer]:
    last: list[str] = []

    def change(answer: Answer) -> Answer:
        if last:
            return answer.with_json(answer.json | {"jobId": last.pop()})
        last.append(answer.json["jobId"])
        return answer

    return change


class _Elsewhere:
    """A contract whose link is not followed."""

    def __init__(self, contract: Any) -> None:
        self._contract = contract

    def __getattr__(self, name: str) -> Any:
        return getattr(self._contract, name)

    def output_path(self, request: Json, answer: Json) -> str:
        """Return another key than the link says."""
        return self._contract.output_path(request, answer).replace("outputs", "output")


# Reading the document.

KEY = techforge.mock.TEST_API_KEY
_MISSING = object()
_Pointer = tuple[Any, ...]
_ANNOTATIONS = ("$ref", "description", "title", "default", "example", "examples", "deprecated")


@frozen
class _Operation:
    id: str
    method: str
    path: str
    methods: set[str]
    """All methods of its path."""
    example_path: str
    """Its path with an example of each parameter."""
    query_nodes: list["_Node"]
    body: Json
    body_nodes: list["_Node"]
    responses: dict[str, Json]
    response_nodes: dict[str, list["_Node"]]
    keys: list[Json]
    served: Contract
    """All operations of the document."""

    def serves(self, request: Request) -> bool:
        """Whether a request means this operation."""
        found = self.served.find(request.method, request.raw_path)
        return found is not None and found.id == self.id

    def at(self, path: str) -> bool:
        """Whether a path is that of this operation."""
        found = self.served.find(self.method, quote(path))
        return found is not None and found.id == self.id

    def is_known(self, path: str) -> bool:
        """Whether any operation has a path."""
        return bool(self.served.methods(quote(path)))

    @property
    def example(self) -> bytes:
        """A valid body."""
        (example, *_) = self.body["content"][JSON]["examples"].values()
        return json.dumps(example["value"]).encode()


@frozen
class _Node:
    """A schema inside a body, and where it is."""

    pointer: "_Pointer"
    """Where the schema is in the document."""
    schema: Json
    path: tuple[str, ...] = ()
    """Where its value is in the body; `[]` means each item."""
    required: bool = True
    parent: "_Pointer" = ()
    """Where the object schema is whose property this is."""

    @property
    def name(self) -> str:
        """Its path, for people."""
        return ".".join(self.path).replace(".[]", "[]") or "the body"

    def put(self, body: Json, value: Json) -> Json:
        """Return the body with another value in this place."""
        return _put(body, self.path, value)

    def changed(self, document: Json, schema: Json = None, *, required: bool | None = None) -> Json:
        """Return the document with another schema in this place, or with this field required or not."""
        changed = deepcopy(document)
        if schema is not None:
            _at(changed, self.pointer[:-1])[self.pointer[-1]] = schema
        if required is not None:
            parent, name = _at(changed, self.parent), self.path[-1]
            others = [each for each in parent.get("required", []) if each != name]
            parent["required"] = [*others, name] if required else others
        return changed


def _operations(document: Json) -> Iterator[_Operation]:
    served = read(document)
    for path, item in document["paths"].items():
        methods = {name.upper() for name in item if name.upper() in METHODS}
        for method in map(str.lower, sorted(methods)):
            spec = item[method]
            at = ("paths", path, method)
            responses = {
                status: _locate(document, (*at, "responses", status)) for status in spec["responses"]
            }
            schemes = document["components"]["securitySchemes"]
            yield _Operation(
                id=spec["operationId"],
                method=method.upper(),
                path=path,
                methods=methods,
                example_path=_example_path(
                    document, path, [*item.get("parameters", []), *spec.get("parameters", [])]
                ),
                served=served,
                query_nodes=list(_query_nodes(document, at)),
                body=_at(document, _locate(document, (*at, "requestBody"))) if "requestBody" in spec else {},
                body_nodes=_nodes_of(document, (*at, "requestBody")) if "requestBody" in spec else [],
                responses={status: _at(document, where) for status, where in responses.items()},
                response_nodes={status: _nodes_of(document, where) for status, where in responses.items()},
                keys=[
                    schemes[name]
                    for choice in spec.get("security", document.get("security", []))
                    for name in choice
                ],
            )


def _example_path(document: Json, path: str, parameters: list[Json]) -> str:
    for each in parameters:
        parameter = resolved(document, each)
        if parameter["in"] == "path":
            shown = [each["value"] for each in parameter.get("examples", {}).values()]
            known = [*shown, *(parameter[key] for key in ("example",) if key in parameter)]
            value = next(iter(known), None) or sample(document, parameter["schema"])
            path = path.replace(f"{{{parameter['name']}}}", quote(str(value), safe=""))
    return path


def _query_nodes(document: Json, at: _Pointer) -> Iterator[_Node]:
    for index, _ in enumerate(_at(document, at).get("parameters", [])):
        pointer = _locate(document, (*at, "parameters", index))
        parameter = _at(document, pointer)
        if parameter["in"] == "query":
            place = {"path": (parameter["name"],), "required": parameter.get("required", False)}
            yield next(_nodes(document, (*pointer, "schema"), **place))


def _nodes_of(document: Json, where: _Pointer) -> list[_Node]:
    pointer = _locate(document, where)
    if JSON not in _at(document, pointer).get("content", {}):
        return []
    return list(_nodes(document, (*pointer, "content", JSON, "schema")))


def _types(schema: Json) -> list[str]:
    """Return the types that a schema names."""
    named = schema.get("type", [])
    return [named] if isinstance(named, str) else named


def _nodes(document: Json, where: _Pointer, **place: Any) -> Iterator[_Node]:
    pointer = _locate(document, where)
    schema = _at(document, pointer)
    node = _Node(pointer, schema, **place)
    # A schema may be no more than true, or contain itself.
    if isinstance(schema, bool) or len(node.path) > DEPTH:
        return
    yield node
    for name in schema.get("properties", {}):
        yield from _nodes(
            document,
            (*pointer, "properties", name),
            path=(*node.path, name),
            required=name in schema.get("required", ()),
            parent=pointer,
        )
    if "items" in schema:
        yield from _nodes(document, (*pointer, "items"), path=(*node.path, "[]"))


def _locate(document: Json, where: _Pointer) -> _Pointer:
    """Say where something is once its references are followed."""
    node = _at(document, where)
    return _locate(document, _target(node)) if isinstance(node, dict) and "$ref" in node else where


def _target(node: Json) -> _Pointer:
    parts = node["$ref"].removeprefix("#/").split("/")
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in parts)


def _at(document: Json, where: _Pointer) -> Json:
    for part in where:
        document = document[part]
    return document


def _put(body: Json, path: tuple[str, ...], value: Json) -> Json:
    if not path:
        return value
    name, *rest = path
    if name == "[]":
        return [_put(body[0] if body else None, rest, value), *(body or [])[1:]]
    fields = dict(body or {})
    if value is _MISSING and not rest:
        fields.pop(name, None)
    else:
        fields[name] = _put(fields.get(name), rest, value)
    return fields


# Changing requests and answers.


def _answers(operation: _Operation, status: str) -> Callable[[Request, Answer], bool]:
    """Tell the operation's answers with a status, or with one of a range such as 5XX."""
    return lambda request, answer: (
        operation.serves(request) and str(answer.status) in {status, *_range(status)}
    )


def _range(status: str) -> list[str]:
    return [f"{status[0]}{rest:02}" for rest in range(100)] if status.endswith("XX") else []


def _success(path: str) -> Callable[[Request, Answer], bool]:
    return lambda request, answer: request.path == path and answer.status < 300


def _every(count: int, change: Ask) -> Ask:
    number = iter(range(1, 10**9))
    return lambda request: request if next(number) % count else change(request)


def _crash(operation: _Operation, contract: Contract, changed: Contract) -> Say:
    """Make a failure of the refusal of what the contract allows, and the changed one does not."""
    allowed, refused = (
        next(each.bodies[JSON] for each in version.operations if each.id == operation.id)
        for version in (contract, changed)
    )

    def say(request: Request, answer: Answer) -> Answer:
        if operation.serves(request) and answer.status == 400 and is_json(request.body):
            body = json.loads(request.body)
            if problems(refused, body) and not problems(allowed, body):
                return evolve(answer, status=500)
        return answer

    return say


def _without_floats(operation: _Operation, node: _Node) -> Ask:
    """Take what is written as 1.0 for something else than a number."""

    def ask(request: Request) -> Request:
        if not operation.serves(request) or not is_json(request.body):
            return request
        body = json.loads(request.body)
        value = body
        for name in node.path:
            value = value.get(name) if isinstance(value, dict) else None
        if isinstance(value, float) and value.is_integer():
            return evolve(request, body=json.dumps(node.put(body, str(value))).encode())
        return request

    return ask
