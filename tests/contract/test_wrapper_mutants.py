"""Whatever the wrapper might send wrong is noticed: mutants of its requests, one deviation each.

What follows from the fields of a job, `from_the_document` makes by itself. Any other is a line in `BY_HAND`,

    "name": (mutation, seen_by),

whose `mutation` is made by a function that says where to break a request: `body`, `creating`, `signing`,
`params`, `request`, `content`, `query`, `storage`. `seen_by` is who must see it: "contract" if the guard does
by itself, in any test; "journal" if the contract cannot know it, so that what reached the mock is compared
with what was asked for. Then see it caught, and the intact wrapper pass:

    python3 scripts/dev.py -s tests-3.11 -- tests/contract/test_wrapper_mutants.py
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus, urlencode

import httpx
import pytest
from attrs import evolve, frozen
from jsonschema_rs import Draft202012Validator
from openapi_core import OpenAPI
from support import contract_guard
from support.contract_guard import DOCUMENT, Message, request_problems
from support.secret_guard import CANARY

from techforge import Job, JobParams, TechForgeError
from techforge._drivers import aio_http, facade, sync_http
from techforge_api.api.jobs import create_job
from techforge_api.api.storage import generate_signed_path
from techforge_api.types import UNSET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from support.contract_guard import ContractGuard

    from techforge._drivers.pool import Request
    from techforge.mock import MockServer

    Kwargs = dict[str, Any]
    Change = Callable[[Any], Any]
    Mutation = Callable[[pytest.MonkeyPatch], None]

JOB = DOCUMENT["components"]["schemas"]["JobRequest"]
_CONTENT = DOCUMENT["paths"]["/jobs/v2"]["post"]["requestBody"]["content"]["application/json"]
EVERY = {**_CONTENT["examples"]["talkingVideo"]["value"], "language": "zh-Hänt", "values": ["a", "b"]}
LEAST = {name: value for name, value in EVERY.items() if name in JOB["required"]}
LACKING = JOB["properties"].keys() - JobParams.__required_keys__ - JobParams.__optional_keys__
AWKWARD = "a b&x=1#c+d%41e;ü?=/(f).mp4"

WRONG = {
    "string": 7,
    "integer": "7",
    "number": "0.5",
    "boolean": "true",
    "array": "a,b",
    "object": "o",
    "uuid": "u",
    "uri": "i",
    "date-time": "2024-12-01 12:00",
}
"""What is no value of a type, or of a format."""

BEYOND: dict[str, Callable[[Any], Any]] = {
    "minimum": lambda limit: limit - 1,
    "maximum": lambda limit: limit + 1,
    "exclusiveMinimum": lambda limit: limit,
    "exclusiveMaximum": lambda limit: limit,
    "minLength": lambda _: "",
    "maxLength": lambda limit: "x" * (limit + 1),
    "minItems": lambda _: [],
}
"""What a limit does not allow."""


# --- places where a request can be broken -----------------------------------------------------------


def kwargs_of(endpoint: Any, change: Callable[[Kwargs], Kwargs]) -> Mutation:
    """Break what a generated function asks for."""
    intact = endpoint._get_kwargs
    return lambda patch: patch.setattr(endpoint, "_get_kwargs", lambda **given: change(intact(**given)))


def body(change: Callable[[Kwargs], Any]) -> Mutation:
    """Break the fields of a job."""
    return kwargs_of(create_job, lambda kwargs: {**kwargs, "json": change(kwargs["json"])})


def creating(**changes: Any) -> Mutation:
    """Break what else there is to a submission."""
    return kwargs_of(create_job, lambda kwargs: {**kwargs, **changes})


def signing(**changes: Any) -> Mutation:
    """Break what there is to signing."""
    return kwargs_of(generate_signed_path, lambda kwargs: {**kwargs, **changes})


def params(change: Callable[[Kwargs], Kwargs]) -> Mutation:
    """Break the parameters of signing."""
    return kwargs_of(generate_signed_path, lambda kwargs: {**kwargs, "params": change(kwargs["params"])})


def request(change: Callable[[httpx.Request], httpx.Request | None], method: str = "") -> Mutation:
    """Break a request of the API as a whole, of one method if given."""
    intact = facade.Facade.build

    def build(self: facade.Facade, *args: Any, **kwargs: Any) -> Request:
        built = intact(self, *args, **kwargs)
        if method not in {"", built.method}:
            return built
        changed = built.for_httpx()
        changed = change(changed) or changed
        return evolve(
            built,
            method=changed.method,
            target=str(changed.url).removeprefix(built.base_url),
            headers=[p for p in changed.headers.multi_items() if p[0] not in {"host", "content-length"}],
            content=changed.content or None,
        )

    return lambda patch: patch.setattr(facade.Facade, "build", build)


def storage(change: Callable[[httpx.Request], httpx.Request | None]) -> Mutation:
    """Break a request to storage."""

    def broken(command: Any) -> httpx.Request:
        built = facade.storage_request(command)
        return change(built) or built

    def apply(patch: pytest.MonkeyPatch) -> None:
        for driver in (sync_http, aio_http):
            patch.setattr(driver, "storage_request", broken)

    return apply


def again(built: httpx.Request, **changes: Any) -> httpx.Request:
    """Return a request with some parts of it changed."""
    headers = {name: value for name, value in built.headers.items() if name not in {"host", "content-length"}}
    parts = {"method": built.method, "url": built.url, "headers": headers, "content": built.content} | changes
    return httpx.Request(**parts, extensions=built.extensions)


def headers(**changes: str | None) -> Callable[[httpx.Request], None]:
    """Set or remove headers."""

    def change(built: httpx.Request) -> None:
        for name, value in changes.items():
            field = name.replace("_", "-")
            built.headers.pop(field, None)
            if value is not None:
                built.headers[field] = value

    return change


def renamed_header(built: httpx.Request, name: str, new: str) -> None:
    """Send a header under another name."""
    built.headers[new] = built.headers.pop(name)


def content(change: Callable[[bytes], bytes], content_type: str = "application/json") -> Mutation:
    """Break the bytes of a submission."""

    def changed(built: httpx.Request) -> httpx.Request:
        built.headers["content-type"] = content_type
        return again(built, content=change(built.content))

    return request(changed, "POST")


def query(encode: Callable[[str], str]) -> Mutation:
    """Break the encoding of the storage key."""

    def change(built: httpx.Request) -> httpx.Request:
        path = dict(built.url.params)["path"]
        return again(built, url=f"{str(built.url).partition('?')[0]}?path={encode(path)}")

    return request(change, "GET")


# --- the mutants ------------------------------------------------------------------------------------


def _renamed(name: str, new: str, fields: Kwargs) -> Kwargs:
    return {new if field == name else field: value for field, value in fields.items()}


def _without(name: str, fields: Kwargs) -> Kwargs:
    return {field: value for field, value in fields.items() if field != name}


def _with(name: str, value: Any, fields: Kwargs) -> Kwargs:
    return {**fields, name: value} if name in fields else fields


def _inside(path: Iterable[str], change: Change, value: Any) -> Any:
    """Change what lies at a path."""
    if not path:
        return change(value)
    name, *rest = path
    if name == "[]":
        return [_inside(rest, change, item) for item in value]
    return {**value, name: _inside(rest, change, value[name])} if name in value else value


@frozen
class Field:
    """A field of a job, at whatever depth."""

    path: tuple[str, ...]
    schema: Any
    required: bool
    closed: bool
    """Whether no other field may be beside it."""
    given: bool
    """Whether the example has it."""

    @property
    def name(self) -> str:
        """Its path, for people."""
        return ".".join(self.path).replace(".[]", "[]")


def resolved(document: Any, schema: Any) -> Any:
    """Follow a reference; what is said beside it counts, too."""
    if "$ref" not in schema:
        return schema
    target = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return resolved(document, target) | {name: value for name, value in schema.items() if name != "$ref"}


def fields_of(document: Any, schema: Any, example: Any, path: tuple[str, ...] = ()) -> Iterator[Field]:
    """Yield the fields of an object, and what is inside of those that the example has."""
    schema = resolved(document, schema)
    if isinstance(example, list) and example:
        yield from fields_of(document, schema.get("items", {}), example[0], (*path, "[]"))
    if isinstance(example, dict):
        for name, field in schema.get("properties", {}).items():
            inner = (*path, name)
            yield Field(
                inner,
                resolved(document, field),
                required=name in schema.get("required", ()),
                closed=not schema.get("additionalProperties"),
                given=name in example,
            )
            if name in example:
                yield from fields_of(document, field, example[name], inner)


def no(kind: str) -> Any:
    """Return what is no value of a type, or of a format."""
    if kind not in WRONG:
        raise LookupError(f"WRONG in tests/contract/test_wrapper_mutants.py has no value for {kind}; add one")
    return WRONG[kind]


def suspects(document: Any, schema: Any) -> Iterator[tuple[str, Any]]:
    """Yield what each part of a schema does not allow, each with what is wrong with it."""
    schema = resolved(document, schema)
    types = schema.get("type", ())
    kinds = [types] if isinstance(types, str) else [*types]
    for kind in (*kinds, schema.get("format", "null")):
        if kind != "null":
            yield f"no {kind}", no(kind)
    if "enum" in schema:
        values = [value for value in schema["enum"] if value is not None]
        last = max(value for value in values if type(value) is type(values[0]))
        yield "not in the enum", last + ("x" if isinstance(last, str) else 1)
    for word, beyond in BEYOND.items():
        if word in schema:
            yield f"beyond its {word}", beyond(schema[word])
    for word in ("allOf", "anyOf", "oneOf"):
        for part in schema.get(word, ()):
            yield from suspects(document, part)


def wrong_values(document: Any, schema: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield what a schema as a whole does not allow, each with what is wrong with it."""
    # Not every validator knows every format. What is in WRONG breaks it, whoever judges.
    formats = {kind: lambda value, wrong=wrong: value != wrong for kind, wrong in WRONG.items()}
    whole = resolved(document, schema) | {"components": document["components"]}
    allows = Draft202012Validator(whole, validate_formats=True, formats=formats).is_valid
    wrong = {"null": None} | dict(suspects(document, schema))
    yield from ((f"{name} {what}", value) for what, value in wrong.items() if not allows(value))
    if "items" in whole:
        yield from ((what, [item]) for what, item in wrong_values(document, whole["items"], f"{name}[]"))


def from_the_document(document: Any, example: Any) -> Iterator[tuple[str, Change, str]]:
    """Yield what follows from the contract's schema of a job: a new field brings its own mutants."""
    for field in fields_of(document, document["components"]["schemas"]["JobRequest"], example):
        if not field.given:
            continue
        *parents, name = field.path
        camel = re.sub("_(.)", lambda match: match[1].upper(), name)
        casing = camel if camel != name else name.capitalize()
        dropped = "contract" if field.required else "journal"
        renamed = "contract" if field.closed else dropped
        changes: list[tuple[str, Change, str]] = [
            (f"{casing} for {field.name}", partial(_renamed, name, casing), renamed),
            (f"{field.name} misspelt", partial(_renamed, name, f"{name}_"), renamed),
            (f"{field.name} dropped", partial(_without, name), dropped),
        ]
        for what, value in wrong_values(document, field.schema, field.name):
            changes.append((what, partial(_with, name, value), "contract"))
        for what, change, seen_by in changes:
            yield what, partial(_inside, parents, change), seen_by


def _all(value: Any, fields: Kwargs) -> Kwargs:
    return {**dict.fromkeys(JOB["properties"], value), **fields}


PROJECT = EVERY["project_id"]

BY_HAND = {
    # what the key may suffer
    "no key": (request(headers(x_api_key=None)), "contract"),
    "key under another name": (request(lambda r: renamed_header(r, "x-api-key", "api-key")), "contract"),
    "key with underscores": (request(lambda r: renamed_header(r, "x-api-key", "x_api_key")), "contract"),
    "key empty": (request(headers(x_api_key="")), "contract"),
    "key as a bearer token": (
        request(lambda r: headers(authorization=f"Bearer {r.headers['x-api-key']}", x_api_key=None)(r)),
        "contract",
    ),
    "key as a bearer token, too": (
        request(lambda r: headers(authorization=f"Bearer {r.headers['x-api-key']}")(r)),
        "contract",
    ),
    "key in another header, too": (
        request(lambda r: headers(x_request_id=r.headers["x-api-key"])(r)),
        "contract",
    ),
    "key twice": (
        request(lambda r: again(r, headers=[*r.headers.multi_items(), ("x-api-key", "other")])),
        "contract",
    ),
    "key in the query, too": (
        request(lambda r: again(r, url=r.url.copy_add_param("x-api-key", r.headers["x-api-key"]))),
        "contract",
    ),
    "key in the body, too": (
        request(lambda r: again(r, content=r.content[:-1] + f',"key":"{CANARY}"}}'.encode()), "POST"),
        "contract",
    ),
    "a cookie": (request(headers(cookie="a=b")), "contract"),
    # what a body may suffer
    "UNSET as null": (body(partial(_all, None)), "contract"),
    "UNSET as its repr": (body(partial(_all, repr(UNSET))), "contract"),
    "UNSET as an empty text": (body(partial(_all, "")), "contract"),
    "UUID without hyphens": (body(partial(_with, "project_id", PROJECT.replace("-", ""))), "contract"),
    "UUID as a URN": (body(partial(_with, "project_id", f"urn:uuid:{PROJECT}")), "contract"),
    "UUID in braces": (body(partial(_with, "project_id", f"{{{PROJECT}}}")), "contract"),
    "another UUID": (body(partial(_with, "project_id", f"{PROJECT[:-1]}0")), "journal"),
    "URL without a scheme": (body(partial(_with, "image_url", "//cdn.example.com/i.png")), "contract"),
    "URL with a space": (body(partial(_with, "image_url", "https://cdn.example.com/a b")), "contract"),
    "URL that is an IRI": (body(partial(_with, "image_url", "https://cdn.example.com/ä")), "contract"),
    "enum by its name": (body(partial(_with, "version", "VALUE_6")), "contract"),
    "enum as a text": (body(partial(_with, "version", "6")), "contract"),
    "boolean as a number": (body(partial(_with, "crop", 1)), "contract"),
    "integer with a fraction": (body(partial(_with, "output_size", 400.5)), "contract"),
    "integer as a boolean": (body(partial(_with, "iteration_count", True)), "contract"),
    "number cut to an integer": (body(partial(_with, "expand_ratio", 0)), "journal"),
    "list in a list": (body(partial(_with, "values", [["a", "b"]])), "contract"),
    "image and audio exchanged": (
        body(lambda f: {**f, "image_url": f["audio_url"], "audio_url": f["image_url"]}),
        "journal",
    ),
    "a default of our own": (body(lambda f: {"language": "en", **f}), "journal"),
    "an unknown field": (body(lambda f: {**f, "user": "u"}), "contract"),
    "fields one level deeper": (body(lambda f: {"job": f}), "contract"),
    "fields in a list": (body(lambda f: [f]), "contract"),
    "JSON in JSON": (body(json.dumps), "contract"),
    "no body": (creating(json=None), "contract"),
    "an empty body": (content(lambda _: b""), "contract"),
    "null for a body": (content(lambda _: b"null"), "contract"),
    "NaN": (content(lambda raw: raw.replace(b'"expand_ratio":0.5', b'"expand_ratio":NaN')), "contract"),
    "a name twice": (content(lambda raw: raw[:-1] + b',"job_type":"other"}'), "contract"),
    "Latin-1": (
        content(lambda raw: json.dumps(json.loads(raw), ensure_ascii=False).encode("latin-1")),
        "contract",
    ),
    "half of the body": (content(lambda raw: raw[: len(raw) // 2]), "contract"),
    "two bodies": (content(lambda raw: raw * 2), "contract"),
    "a form": (
        content(lambda raw: urlencode(json.loads(raw)).encode(), "application/x-www-form-urlencoded"),
        "contract",
    ),
    "JSON called a form": (content(bytes, "application/x-www-form-urlencoded"), "contract"),
    "JSON called text": (content(bytes, "text/plain"), "contract"),
    "JSON called Latin-1": (content(bytes, "application/json; charset=iso-8859-1"), "contract"),
    "no content type": (request(headers(content_type=None), "POST"), "contract"),
    # where a request may go astray
    "PUT for POST": (creating(method="put"), "contract"),
    "GET for POST": (creating(method="get"), "contract"),
    "a slash after jobs": (creating(url="/jobs/v2/"), "contract"),
    "two slashes": (creating(url="//jobs/v2"), "contract"),
    "an encoded slash": (creating(url="/jobs%2Fv2"), "contract"),
    "jobs in capitals": (creating(url="/Jobs/v2"), "contract"),
    "the version before": (creating(url="/jobs/v1"), "contract"),
    "the path twice": (creating(url="/jobs/v2/jobs/v2"), "contract"),
    "an empty query": (creating(url="/jobs/v2?"), "contract"),
    "a parameter of a job": (creating(params={"debug": "1"}), "contract"),
    "POST for GET": (signing(method="post"), "contract"),
    "HEAD for GET": (signing(method="head"), "contract"),
    "a slash after signing": (signing(url="/storage/generate-signed-path/"), "contract"),
    "a body for GET": (signing(json={}), "contract"),
    "the parameter in the body": (
        kwargs_of(generate_signed_path, lambda k: {**k, "params": None, "json": k["params"]}),
        "contract",
    ),
    "the parameter in the path": (
        kwargs_of(
            generate_signed_path, lambda k: {**k, "params": None, "url": f"{k['url']}/{k['params']['path']}"}
        ),
        "contract",
    ),
    "no parameter": (signing(params=None), "contract"),
    "the parameter misnamed": (params(partial(_renamed, "path", "key")), "contract"),
    "the parameter in capitals": (params(partial(_renamed, "path", "Path")), "contract"),
    "the parameter empty": (params(partial(_with, "path", "")), "contract"),
    "the parameter twice": (request(lambda r: again(r, url=f"{r.url}&path=b"), "GET"), "contract"),
    "a parameter nobody knows": (params(lambda p: {**p, "expires": 60}), "contract"),
    "the parameter cut": (params(lambda p: {"path": p["path"][1:]}), "journal"),
    # how a key may be encoded
    "nothing encoded": (query(lambda path: path), "contract"),
    "ampersand not encoded": (query(lambda path: quote(path, safe="&")), "contract"),
    "hash not encoded": (query(lambda path: quote(path, safe="#")), "contract"),
    "plus not encoded": (query(lambda path: quote(path, safe="+")), "contract"),
    "slash not encoded": (query(quote), "contract"),
    "equals sign not encoded": (query(lambda path: quote(path, safe="=")), "contract"),
    "semicolon not encoded": (query(lambda path: quote(path, safe=";")), "contract"),
    "question mark not encoded": (query(lambda path: quote(path, safe="?")), "contract"),
    "percent sign not encoded": (query(lambda path: quote(path, safe="").replace("%25", "%")), "journal"),
    "space as a plus": (query(quote_plus), "contract"),
    "encoded twice": (query(lambda path: quote(quote(path, safe=""), safe="")), "journal"),
    "encoded as Latin-1": (query(lambda path: quote(path, safe="", encoding="latin-1")), "contract"),
    "in lower case": (query(lambda path: quote(path.lower()[:-4] + ".MP4", safe="")), "journal"),
    # what storage is not to see
    "key to storage": (storage(headers(x_api_key="k")), "contract"),
    "key to storage under another name": (storage(headers(x_user=CANARY)), "contract"),
    "a cookie to storage": (storage(headers(cookie="a=b")), "contract"),
    "POST to storage": (storage(lambda r: again(r, method="POST", content=b"x")), "contract"),
    "a signed URL that was changed": (
        storage(lambda r: again(r, url=httpx.URL.__str__(r.url) + "&x=1")),
        "contract",
    ),
}
MUTANTS = [
    *(
        pytest.param(body(change), seen_by, id=name)
        for name, change, seen_by in from_the_document(DOCUMENT, EVERY)
    ),
    *(pytest.param(mutation, seen_by, id=name) for name, (mutation, seen_by) in BY_HAND.items()),
]


# --- what is done with each -------------------------------------------------------------------------


def scenario(client: Any, mock: MockServer) -> list[tuple[str, Any]]:
    """Do what users do, and return what the API should have been asked for by it."""
    mock.store.put(AWKWARD, b"video")
    for act in (
        lambda: client.jobs.create(**EVERY),
        lambda: client.jobs.create(**LEAST),
        lambda: client.jobs.find(Job("id", PROJECT, output_path=AWKWARD)),
    ):
        # What the mock refuses is no matter here.
        with suppress(TechForgeError):
            act()
    return [("createJob", EVERY), ("createJob", LEAST), ("generateSignedPath", AWKWARD)]


def received(mock: MockServer) -> list[tuple[str | None, Any]]:
    """Return what the API was asked for, according to the mock's journal."""
    return [
        (
            record.operation,
            json.loads(record.body) if record.body else httpx.QueryParams(record.query).get("path"),
        )
        for record in mock.journal.requests(server="api")
    ]


def said(requests: list[tuple[str | None, Any]]) -> str:
    """Return requests as a text to compare: RFC 3339 writes UTC in two ways, which say the same."""
    return json.dumps(requests, sort_keys=True).replace('+00:00"', 'Z"')


needs_every_argument = pytest.mark.skipif(
    bool(LACKING), reason=f"`JobParams` lacks {', '.join(sorted(LACKING))}: see test_every_field_is_sent"
)


@needs_every_argument
def test_the_intact_wrapper_passes(both: Any, mock: MockServer, guard: ContractGuard) -> None:
    """What the mutants are mutants of keeps to the contract, and says what was asked for."""
    assert received(mock) == []
    asked = scenario(both, mock)
    assert said(received(mock)) == said(asked)
    assert (guard.problems, guard.lies, len(guard.requests), len(guard.storage)) == ([], [], 3, 1)


@needs_every_argument
@pytest.mark.leaking("some mutants send the key where it is logged")
@pytest.mark.parametrize(("mutation", "seen_by"), MUTANTS)
def test_a_mutant_is_caught(
    both: Any,
    mock: MockServer,
    guard: ContractGuard,
    monkeypatch: pytest.MonkeyPatch,
    mutation: Mutation,
    seen_by: str,
) -> None:
    """A request that deviates is objected to: by the guard if the contract can know, else by the journal."""
    both = both.with_options(max_retries=0)
    mutation(monkeypatch)
    asked = scenario(both, mock)
    problems = guard.forgive()
    if seen_by == "contract":
        assert problems, (
            "SURVIVED: the guard saw nothing. If the contract cannot know it, say 'journal';"
            " else teach tests/support/contract_guard.py"
        )
    else:
        assert problems == [], "the guard saw it by itself: say 'contract'"
        assert said(received(mock)) != said(asked), (
            "SURVIVED: the mock received what was asked for. Does the mutation reach a request of `scenario`?"
        )


def test_every_field_is_sent() -> None:
    """What no request has cannot be broken: the wrapper takes every field, and the example gives it."""
    checklist = 'CONTRIBUTING, "When the contract changes", step'
    lacking = [
        f"openapi.json has {name}, `JobParams` does not: {checklist} 3" for name in sorted(LACKING)
    ] + [
        f"openapi.json has {field.name}, its example of createJob does not: {checklist} 4"
        for field in fields_of(DOCUMENT, JOB, EVERY)
        if not field.given
    ]
    if lacking:
        pytest.fail("\n".join(lacking), pytrace=False)


NEW = {
    "tone": ({"type": "string", "enum": ["warm", "cool"]}, "cool"),
    "gain": ({"type": "number", "minimum": 0, "exclusiveMaximum": 2}, 0.5),
    "note": ({"type": ["string", "null"], "minLength": 1, "maxLength": 9}, "n"),
    "mood": ({"anyOf": [{"type": "string", "enum": ["calm"]}, {"type": "null"}]}, "calm"),
    "guide": ({"oneOf": [{"type": "string", "format": "uri"}, {"type": "integer"}]}, "https://a.example"),
    "due": ({"type": "string", "format": "date-time"}, "2030-01-01T00:00:00Z"),
    "draft": ({"type": "boolean"}, True),
    "frames": ({"type": "array", "minItems": 1, "items": {"type": "integer"}}, [1, 2]),
    "level": ({"$ref": "#/components/schemas/Level", "maximum": 2}, 1),
    "crew": (
        {
            "type": "array",
            "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
        },
        [{"name": "a"}, {"name": "b"}],
    ),
    "frame": (
        {"type": "object", "additionalProperties": True, "properties": {"line_width": {"type": "integer"}}},
        {"line_width": 1},
    ),
}
"""Fields such as the contract may get, each with a value."""


def test_new_fields_bring_their_mutants(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the contract gets, its mutants are made, and a guard that holds to it sees them."""
    document = deepcopy(DOCUMENT)
    document["components"]["schemas"] |= {
        "JobRequest": {"type": "object", "properties": {name: schema for name, (schema, _) in NEW.items()}},
        "Level": {"type": "integer", "enum": [1, 2, 3]},
    }
    example = {name: value for name, (_, value) in NEW.items()}
    sent = OpenAPI.from_dict(document, config=contract_guard.SENT.config)
    monkeypatch.setattr(contract_guard, "SENT", sent)
    # It remembers what the contract itself says of a request.
    monkeypatch.setattr(contract_guard, "_judged", contract_guard._judged.__wrapped__)

    def problems(fields: Kwargs) -> list[str]:
        headers = (("x-api-key", "k"), ("content-type", "application/json"))
        return request_problems(Message("post", "/jobs/v2", headers, json.dumps(fields).encode()))

    assert problems(example) == []
    mutants = list(from_the_document(document, example))
    assert len(mutants) == 77
    for name, change, seen_by in mutants:
        assert json.dumps(change(example)) != json.dumps(example), name
        assert bool(problems(change(example))) is (seen_by == "contract"), name


def test_the_readme_counts_the_mutants() -> None:
    """A number there is how many are tried."""
    readme = (contract_guard.ROOT / "README.md").read_text("utf-8")
    claims = [f"caught: **{len(MUTANTS)} of {len(MUTANTS)}**"]
    assert [claim for claim in claims if claim not in readme] == []
