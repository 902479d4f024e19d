"""Whatever the wrapper might send wrong is noticed: mutants of its requests, one deviation each.

`contract` says that the guard sees it by itself, in any test; `journal` that the contract cannot know it, so
that what reached the mock is compared with what was asked for.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus, urlencode

import httpx
import pytest
from support.contract_guard import DOCUMENT

from techforge import Job, TechForgeError
from techforge._drivers import aio, facade, sync
from techforge_api.api.jobs import create_job
from techforge_api.api.storage import generate_signed_path
from techforge_api.types import UNSET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.contract_guard import ContractGuard

    from techforge.mock import MockServer

    Kwargs = dict[str, Any]
    Mutation = Callable[[pytest.MonkeyPatch], None]

SCHEMAS = DOCUMENT["components"]["schemas"]
FIELDS = SCHEMAS["JobRequest"]["properties"]
REQUIRED = SCHEMAS["JobRequest"]["required"]
_CONTENT = DOCUMENT["paths"]["/jobs/v2"]["post"]["requestBody"]["content"]["application/json"]
EVERY = {**_CONTENT["examples"]["talkingVideo"]["value"], "language": "zh-Hänt", "values": ["a", "b"]}
LEAST = {name: EVERY[name] for name in REQUIRED}
AWKWARD = "a b&x=1#c+d%41e;ü?=/(f).mp4"

WRONG = {
    "string": 7,
    "integer": "7",
    "number": "0.5",
    "boolean": "true",
    "array": "a,b",
    "uuid": "u",
    "uri": "i",
}
"""What is no value of a type, or of a format."""


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

    def build(self: facade.Facade, *args: Any, **kwargs: Any) -> httpx.Request:
        built = intact(self, *args, **kwargs)
        return (change(built) or built) if method in {"", built.method} else built

    return lambda patch: patch.setattr(facade.Facade, "build", build)


def storage(change: Callable[[httpx.Request], httpx.Request | None]) -> Mutation:
    """Break a request to storage."""

    def broken(command: Any) -> httpx.Request:
        built = facade.storage_request(command)
        return change(built) or built

    def apply(patch: pytest.MonkeyPatch) -> None:
        for driver in (sync, aio):
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


def from_the_document() -> Iterator[Any]:
    """Yield what follows from the contract's schema of a job: a new field brings its own mutants."""
    for name, field in FIELDS.items():
        schema = SCHEMAS[field["$ref"].rpartition("/")[2]] if "$ref" in field else field
        camel = re.sub("_(.)", lambda match: match[1].upper(), name)
        casing = camel if camel != name else name.capitalize()
        yield pytest.param(body(partial(_renamed, name, casing)), "contract", id=f"{casing} for {name}")
        yield pytest.param(body(partial(_renamed, name, f"{name}_")), "contract", id=f"{name} misspelt")
        seen_by = "contract" if name in REQUIRED else "journal"
        yield pytest.param(body(partial(_without, name)), seen_by, id=f"{name} dropped")
        yield pytest.param(body(partial(_with, name, None)), "contract", id=f"{name} null")
        for kind in filter(None, (schema["type"], schema.get("format"))):
            wrong = body(partial(_with, name, WRONG[kind]))
            yield pytest.param(wrong, "contract", id=f"{name} no {kind}")
        if "enum" in schema:
            wrong = body(partial(_with, name, max(schema["enum"]) + 1))
            yield pytest.param(wrong, "contract", id=f"{name} not in the enum")
        if "items" in schema:
            wrong = body(partial(_with, name, [WRONG[schema["items"]["type"]]]))
            yield pytest.param(wrong, "contract", id=f"{name} of no {schema['items']['type']}s")


def _all(value: Any, fields: Kwargs) -> Kwargs:
    return {**dict.fromkeys(FIELDS, value), **fields}


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
        request(lambda r: again(r, content=r.content[:-1] + b',"key":"techforge-mock-key"}'), "POST"),
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
    "key to storage under another name": (storage(headers(x_user="techforge-mock-key")), "contract"),
    "a cookie to storage": (storage(headers(cookie="a=b")), "contract"),
    "POST to storage": (storage(lambda r: again(r, method="POST", content=b"x")), "contract"),
    "a signed URL that was changed": (
        storage(lambda r: again(r, url=httpx.URL.__str__(r.url) + "&x=1")),
        "contract",
    ),
}
MUTANTS = [
    *from_the_document(),
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


def test_the_intact_wrapper_passes(both: Any, mock: MockServer, guard: ContractGuard) -> None:
    """What the mutants are mutants of keeps to the contract, and says what was asked for."""
    assert json.dumps(received(mock)) == "[]"
    asked = scenario(both, mock)
    assert json.dumps(received(mock), sort_keys=True) == json.dumps(asked, sort_keys=True)
    assert (guard.problems, guard.lies, len(guard.requests), len(guard.storage)) == ([], [], 3, 1)


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
        assert problems
    else:
        assert problems == []
        assert json.dumps(received(mock), sort_keys=True) != json.dumps(asked, sort_keys=True)


def test_there_are_mutants_of_every_field() -> None:
    """The catalogue grows with the contract."""
    assert len(MUTANTS) >= 4 * len(FIELDS) + len(BY_HAND) >= 100
