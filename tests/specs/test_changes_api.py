"""scripts/changes/api.py: what a difference of two contracts means to whoever calls the API, rule by rule."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator

from changes.api import compare
from changes.normal import normal

CONTRACT = json.loads((Path(__file__).parents[2] / "openapi.json").read_text(encoding="utf-8"))

TEXT, NUMBER = {"type": "string"}, {"type": "number"}
A, B = {"type": "object", "properties": {"a": TEXT}}, {"type": "object", "properties": {"b": TEXT}}
NULL = {"type": "null"}
PATTERNS = [{"pattern": "a"}, {"pattern": "b"}]
LIMITED = (".a: maxLength added: 1", "!", "+")


def lines(old: Any, new: Any) -> list[str]:
    """Compare, and write down what is found."""
    return list(map(str, compare(old, new)))


def document(schema: Any, *, answer: bool = False) -> dict[str, Any]:
    """Make a document with this schema for what is sent, or for what is answered."""
    body = {"content": {"application/json": {"schema": schema}}}
    operation = {"responses": {"200": body}} if answer else {"requestBody": body}
    return {"openapi": "3.1.0", "paths": {"/x": {"post": operation}}}


def edited(edit: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Return the contract after an edit."""
    contract = copy.deepcopy(CONTRACT)
    edit(contract)
    return contract


# Each row: the schemas of before and after, the same words for both directions, and the two verdicts.
SCHEMAS = {
    "type wider": (
        TEXT,
        {"type": ["string", "null"]},
        "type changed from string to null or string",
        "+",
        "!",
    ),
    "type narrower": (NUMBER, {"type": "integer"}, "type changed from number to integer", "!", "+"),
    "type other": (TEXT, NUMBER, "type changed from string to number", "!", "!"),
    "type removed": (TEXT, {}, "type changed from string to anything", "+", "!"),
    "type added": ({}, TEXT, "type changed from anything to string", "!", "+"),
    "nullable": (TEXT, TEXT | {"nullable": True}, "type changed from string to null or string", "+", "!"),
    "enum grown": ({"enum": [1]}, {"enum": [1, "b"]}, "enum grown: b", "+", "!"),
    "enum shrunk": ({"enum": [1, 2]}, {"enum": [2]}, "enum shrunk: 1", "!", "+"),
    "enum added": ({}, {"enum": [1, 2]}, "now limited to 1, 2", "!", "+"),
    "enum removed": ({"enum": [1, 2]}, {}, "no longer limited to 1, 2", "+", "!"),
    "enum knows True from 1": ({"enum": [1, 2]}, {"enum": [1, 2, True]}, "enum grown: true", "+", "!"),
    "const": ({"const": "a"}, {"enum": ["a", "b"]}, "enum grown: b", "+", "!"),
    "format added": (TEXT, TEXT | {"format": "uri"}, "format added: uri", "!", "+"),
    "format removed": (TEXT | {"format": "uri"}, TEXT, "format removed: uri", "+", "!"),
    "format other": ({"format": "uri"}, {"format": "uuid"}, "format changed from uri to uuid", "!", "!"),
    "pattern": ({"pattern": "a"}, {"pattern": "b"}, "pattern changed from a to b", "!", "!"),
    "multipleOf": ({}, {"multipleOf": 2}, "multipleOf added: 2", "!", "+"),
    "minimum raised": ({"minimum": 1}, {"minimum": 2}, "minimum changed from 1 to 2", "!", "+"),
    "minimum lowered": ({"minimum": 1}, {"minimum": 0.5}, "minimum changed from 1 to 0.5", "+", "!"),
    "minLength added": ({}, {"minLength": 2}, "minLength added: 2", "!", "+"),
    "maxLength raised": ({"maxLength": 1}, {"maxLength": 2}, "maxLength changed from 1 to 2", "+", "!"),
    "maxItems lowered": ({"maxItems": 2}, {"maxItems": 1}, "maxItems changed from 2 to 1", "!", "+"),
    "maxItems removed": ({"maxItems": 2}, {}, "maxItems removed: 2", "+", "!"),
    "exclusiveMinimum of 3.0": ({}, {"exclusiveMinimum": True}, "exclusiveMinimum added: true", "!", "+"),
    "uniqueItems": ({}, {"uniqueItems": True}, "uniqueItems now holds", "!", "+"),
    "uniqueItems gone": ({"uniqueItems": True}, {}, "uniqueItems no longer holds", "+", "!"),
    "no unknown fields": ({}, {"additionalProperties": False}, "unknown fields no longer allowed", "!", "+"),
    "unknown fields": ({"additionalProperties": False}, {}, "unknown fields now allowed", "+", "!"),
    "typed unknown fields": (
        {"additionalProperties": TEXT},
        {"additionalProperties": NUMBER},
        ".*: type changed from string to number",
        "!",
        "!",
    ),
    "items": ({"items": TEXT}, {"items": NUMBER}, "[]: type changed from string to number", "!", "!"),
    "nothing fits": ({}, False, "not added: {}", "!", "+"),
    "optional field added": (
        {"properties": {}},
        {"properties": {"a": TEXT}},
        ".a: new optional field",
        "+",
        "+",
    ),
    "required field added": (
        {},
        {"properties": {"a": {}}, "required": ["a"]},
        ".a: new required field",
        "!",
        "+",
    ),
    "field removed": ({"properties": {"a": TEXT}}, {"properties": {}}, ".a: field removed", "!", "!"),
    "field retyped": (
        {"properties": {"a": TEXT}},
        {"properties": {"a": NUMBER}},
        ".a: type changed from string to number",
        "!",
        "!",
    ),
    "field required": (A, A | {"required": ["a"]}, ".a: now required", "!", "+"),
    "field optional": (A | {"required": ["a"]}, A, ".a: no longer required", "+", "!"),
    "anyOf grown": ({"anyOf": [A, B]}, {"anyOf": [B, TEXT, A]}, "anyOf added: string", "+", "!"),
    "oneOf shrunk": ({"oneOf": [A, TEXT]}, {"oneOf": [A]}, "oneOf removed: string", "!", "+"),
    "anyOf of one": (A, {"anyOf": [A, TEXT]}, "anyOf added: string", "+", "!"),
    "or null": (A, {"anyOf": [A, NULL]}, "type changed from object to null or object", "+", "!"),
    "or null by reference": (
        TEXT,
        {"allOf": [TEXT], "nullable": True},
        "type changed from string to null or string",
        "+",
        "!",
    ),
    "nullable without a type": (
        {},
        {"nullable": True},
        "something else added: nullable; judge it by hand",
        "!",
        "!",
    ),
    "anyOf other": (
        {"anyOf": [A, TEXT]},
        {"anyOf": [NUMBER, A]},
        "type changed from string to number",
        "!",
        "!",
    ),
    "anyOf added to more": (
        TEXT,
        TEXT | {"anyOf": [{"minLength": 2}, {"maxLength": 1}]},
        "anyOf added: anything, anything",
        "!",
        "+",
    ),
    "anyOf too far": ({"anyOf": [A, B]}, {"anyOf": [TEXT]}, "anyOf changed; judge it by hand", "!", "!"),
    "allOf of fields grown": ({"allOf": [A]}, {"allOf": [A, B]}, ".b: new optional field", "+", "+"),
    "allOf of fields shrunk": ({"allOf": [A, B]}, {"allOf": [A]}, ".b: field removed", "!", "!"),
    "allOf of one field": (A, {"allOf": [A, {"properties": {"a": {"maxLength": 1}}}]}, *LIMITED),
    "allOf grown": (
        {"allOf": PATTERNS},
        {"allOf": [*PATTERNS, {"pattern": "c"}]},
        "allOf added: anything",
        "!",
        "+",
    ),
    "allOf shrunk": (
        {"allOf": [*PATTERNS, {"pattern": "c"}]},
        {"allOf": PATTERNS},
        "allOf removed: anything",
        "+",
        "!",
    ),
    "default": ({"default": 1}, {"default": 2}, "default changed", "!", "."),
    "description": ({"description": "a"}, {"description": "b"}, "description changed", ".", "."),
    "example": ({}, {"example": "b"}, "example added", ".", "."),
    "deprecated": ({}, {"deprecated": True}, "deprecated added", ".", "."),
    "unknown": ({}, {"if": {}}, "something else added: if; judge it by hand", "!", "!"),
    "extension": ({"x-a": 1}, {"x-a": 2}, "something else changed: x-a; judge it by hand", "!", "!"),
    "order": ({"enum": [1, 2]}, {"enum": [2, 1]}, "written differently, with the same meaning", ".", "."),
}
IMPACTS = {"!": "breaking", "+": "additive", ".": "doc-only"}


@pytest.mark.parametrize("rule", SCHEMAS)
@pytest.mark.parametrize("answer", [False, True], ids=["request", "answer"])
def test_schemas(rule: str, answer: bool) -> None:
    """What is sent may get wider and what is answered narrower; the other way round breaks."""
    old, new, words, *verdicts = SCHEMAS[rule]
    place = "POST /x 200 body" if answer else "POST /x request body"
    place += words if words.startswith((".", "[")) else f": {words}"

    assert lines(document(old, answer=answer), document(new, answer=answer)) == [
        f"{IMPACTS[verdicts[answer]]}: {place}"
    ]


SHORT = TEXT | {"maxLength": 9}
# Each row: a schema, and the same one as others write it.
SYNONYMS = {
    "allOf of one": (A, {"allOf": [A]}),
    "allOf of one, with words": (
        A | {"description": "x"},
        {"allOf": [A | {"description": "y"}], "description": "x"},
    ),
    "allOf of what is a reference to itself": ({"$ref": "#"}, {"allOf": [{"$ref": "#"}]}),
    "allOf of an extension": (A | {"x-a": 1}, {"allOf": [A], "x-a": 1}),
    "allOf in allOf": (A, {"allOf": [{"allOf": [A]}, True]}),
    "allOf of objects": (
        {
            "type": "object",
            "properties": {"a": TEXT, "b": TEXT},
            "required": ["a", "b"],
        },
        {"allOf": [A | {"required": ["a"]}, B | {"required": ["b"]}]},
    ),
    "allOf of a field twice": (A, {"allOf": [A, {"properties": {"a": TEXT}}]}),
    "allOf of types": (TEXT, {"allOf": [{"type": ["string", "null"]}, TEXT]}),
    "allOf of a closed object": (
        A | {"additionalProperties": False, "required": ["a"]},
        {"allOf": [A | {"additionalProperties": False}, {"required": ["a"]}]},
    ),
    "oneOf of one": (A, {"oneOf": [A]}),
    "anyOf of one, beside more": (A | {"minProperties": 1}, {"anyOf": [A], "minProperties": 1}),
    "anyOf null": ({"type": ["null", "string"], "maxLength": 9}, {"anyOf": [SHORT, NULL]}),
    "oneOf null": ({"type": ["string", "null"], "maxLength": 9}, {"oneOf": [NULL, SHORT]}),
    "nullable": (SHORT | {"nullable": True}, {"anyOf": [NULL, SHORT]}),
    "nullable by reference": (SHORT | {"nullable": True}, {"allOf": [SHORT], "nullable": True}),
    "not nullable": (SHORT, SHORT | {"nullable": False}),
    "null among values": (
        {"type": ["string", "null"], "enum": ["a", None]},
        {"anyOf": [TEXT | {"enum": ["a"]}, {"const": None, "type": "null"}]},
    ),
    "anyOf of types": ({"type": ["string", "number"]}, {"anyOf": [NUMBER, TEXT]}),
    "anyOf with words": (
        {"type": ["string", "null"], "description": "x"},
        {"anyOf": [TEXT | {"description": "x"}, NULL | {"description": "y"}]},
    ),
}


@pytest.mark.parametrize("kind", SYNONYMS)
@pytest.mark.parametrize("answer", [False, True], ids=["request", "answer"])
def test_the_same_in_other_words(kind: str, answer: bool) -> None:
    """However a schema is written, what means the same is no change, in a field as well."""
    for one, other in (SYNONYMS[kind], [{"properties": {"x": each}} for each in SYNONYMS[kind]]):
        old, new = document(one, answer=answer), document(other, answer=answer)
        said = "written differently, with the same meaning"
        for told in (lines(old, new), lines(new, old)):
            assert [line.partition(": ")[0] for line in told] == ["doc-only"]
            assert told[0].endswith(said)


CLOSED = {"properties": {"a": TEXT}, "additionalProperties": False}
BOTH = {"properties": {"a": TEXT, "b": TEXT}}
NOT_NULL = {"if": NULL, "then": False}
# Each row: a schema, and one that some would take for it.
FALSE_FRIENDS = {
    "a closed part": (CLOSED | BOTH, {"allOf": [CLOSED, BOTH]}),
    "a closed part at the end": (CLOSED | BOTH, {"allOf": [BOTH, CLOSED]}),
    "two closed parts": (CLOSED, {"allOf": [CLOSED, {"additionalProperties": False}]}),
    "a condition for null": (NOT_NULL | {"type": ["string", "null"]}, {"anyOf": [TEXT | NOT_NULL, NULL]}),
    "an integer is a number": ({"type": ["number", "integer"]}, {"oneOf": [NUMBER, {"type": "integer"}]}),
    "null twice": ({"type": ["string", "null"]}, {"oneOf": [{"type": ["string", "null"]}, NULL]}),
    "not null": (
        {"type": ["string", "null"], "not": {"enum": [None]}},
        {"anyOf": [TEXT | {"not": {"enum": [None]}}, NULL]},
    ),
    "two limits": ({"maxLength": 3}, {"allOf": [{"maxLength": 5}, {"maxLength": 3}]}),
    "null that is a string": (NULL, TEXT | {"enum": [None]}),
    "nothing in common": (TEXT, {"allOf": [TEXT, NUMBER]}),
    "a condition in parts": (
        {"if": TEXT, "then": {"maxLength": 2}},
        {"allOf": [{"if": TEXT}, {"then": {"maxLength": 2}}]},
    ),
}


@pytest.mark.parametrize("kind", FALSE_FRIENDS)
def test_what_is_not_simple_is_told(kind: str) -> None:
    """Of schemas that cannot be written as one, a change is told rather than lost."""
    one, other = FALSE_FRIENDS[kind]

    assert [line for line in lines(document(one), document(other)) if not line.startswith("doc-only")]


LEAVES = st.sampled_from(
    [
        *({"type": each} for each in ("null", "string", "number", "integer", "object", ["object", "null"])),
        *({"enum": each} for each in ([1, None], ["a", "bc"])),
        *({key: 1} for key in ("minimum", "maxLength", "minProperties", "const", "multipleOf")),
        *({key: each} for key in ("not", "additionalProperties", "if", "then") for each in (TEXT, False)),
        *({"required": [each]} for each in "ab"),
        True,
        False,
        {},
    ]
)


def compound(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Put schemas together, as one, and in lists and fields."""
    several = st.lists(inner, min_size=1, max_size=3)
    fields = st.dictionaries(st.sampled_from("ab"), inner, min_size=1)
    lists = st.tuples(st.sampled_from(["allOf", "anyOf", "oneOf"]), several).map(lambda pair: dict([pair]))
    objects = fields.map(lambda each: {"properties": each})
    mixed = st.lists(inner | lists | objects, min_size=2, max_size=3).map(
        lambda parts: {key: value for each in parts if isinstance(each, dict) for key, value in each.items()}
    )
    return lists | objects | mixed


VALUES = [None, True, 0, 1, 1.5, "", "a", "bc", [], {}]
VALUES += [{"a": 1}, {"b": None}, {"a": "bc", "b": 2}, {"a": "a", "b": "a", "c": None}]


@given(st.recursive(LEAVES, compound, max_leaves=6))
@settings(max_examples=500, deadline=None)
def test_what_is_written_as_one_means_the_same(schema: Any) -> None:
    """A validator that is not ours accepts just the same values: else a change would be lost, or invented."""
    before, after = (Draft202012Validator(each) for each in (schema, normal(schema)))

    for value in VALUES:
        assert before.is_valid(value) == after.is_valid(value), value


def test_another_kind_of_thing_is_one_change() -> None:
    """Of two types without a common value, nothing else is compared."""
    old, new = {"type": "array", "items": TEXT, "maxItems": 9}, A | {"type": "object", "minProperties": 1}

    assert lines(document(old), document(new)) == [
        "breaking: POST /x request body: type changed from array to object"
    ]


@pytest.mark.parametrize("name", ["Length", "Items", "Properties", "imum", "Imum"])
def test_limits(name: str) -> None:
    """A higher lower limit and a lower upper limit allow less, whatever they limit."""
    least, most = ("exclusiveMinimum", "exclusiveMaximum") if name == "Imum" else (f"min{name}", f"max{name}")
    old, new = document({least: 1, most: 9}), document({least: 2, most: 8})

    assert lines(old, new) == [
        f"breaking: POST /x request body: {most} changed from 9 to 8",
        f"breaking: POST /x request body: {least} changed from 1 to 2",
    ]
    assert all(line.startswith("additive: ") for line in lines(new, old))


def test_a_field_that_came_for_another_of_its_shape() -> None:
    """A rename is told as such, with a question mark; when several have come, nobody is guessed."""
    old, one = (
        document({"properties": {"a": TEXT}}),
        document({"properties": {"b": TEXT | {"description": "b"}}}),
    )
    two = document({"properties": {"b": TEXT, "c": TEXT}})

    assert lines(old, one) == [
        "additive: POST /x request body.b: new optional field",
        "breaking: POST /x request body.a: field removed (renamed to b?)",
    ]
    assert "breaking: POST /x request body.a: field removed" in lines(old, two)


def with_header(name: str) -> dict[str, Any]:
    """Make a document of an operation that takes a header."""
    header = {"name": name, "in": "header"}
    return {"openapi": "3.1.0", "paths": {"/x": {"get": {"parameters": [header]}}}}


def test_headers_have_no_case() -> None:
    """To HTTP, `X-Tenant` and `x-tenant` are one header."""
    assert lines(with_header("X-Tenant"), with_header("x-tenant")) == [
        "doc-only: GET /x: written differently, with the same meaning"
    ]


def test_security_is_inherited() -> None:
    """What the document asks for, every operation does that says nothing itself."""
    old, new = (
        {
            "openapi": "3.1.0",
            "paths": {"/x": {"get": {}}, "/y": {"get": {"security": []}}},
            "components": {"securitySchemes": {"basic": {"type": "http", "scheme": "basic"}}},
            "security": security,
        }
        for security in ([], [{"basic": []}])
    )

    assert lines(old, new)[0] == "breaking: GET /x: security: now needs http basic"
    assert not [line for line in lines(old, new) if "/y" in line]


def create(contract: dict[str, Any]) -> dict[str, Any]:
    """Return the operation that submits a job."""
    return contract["paths"]["/jobs/v2"]["post"]


def sign(contract: dict[str, Any]) -> dict[str, Any]:
    """Return the operation that signs."""
    return contract["paths"]["/storage/generate-signed-path"]["get"]


def tenant(contract: dict[str, Any]) -> dict[str, Any]:
    """Add a second header to what proves who asks, and return the schemes."""
    schemes = contract["components"]["securitySchemes"]
    schemes["tenant"] = {"type": "apiKey", "in": "header", "name": "x-tenant"}
    return schemes


def move_the_parameter(contract: dict[str, Any]) -> None:
    """Expect in a header what was in the query."""
    sign(contract)["parameters"][0]["in"] = "header"


CREATE, SIGN = "POST /jobs/v2", "GET /storage/generate-signed-path"
PROBLEM, XML = "application/problem+json", "application/xml"
# Each row: an edit of openapi.json, and what is said of it.
DOCUMENTS: dict[str, tuple[Callable[[dict[str, Any]], object], list[str]]] = {
    "operation removed": (lambda c: c["paths"].pop("/jobs/v2"), [f"breaking: {CREATE}: operation removed"]),
    "operation added": (
        lambda c: c["paths"].update({"/jobs/{id}": {"get": {"operationId": "getJob"}}}),
        ["additive: GET /jobs/{id}: operation added"],
    ),
    "operation moved": (
        lambda c: c["paths"].update({"/jobs/v3": c["paths"].pop("/jobs/v2")}),
        [
            "additive: POST /jobs/v3: operation added",
            f"breaking: {CREATE}: operation removed (moved to POST /jobs/v3?)",
        ],
    ),
    "operationId": (
        lambda c: create(c).update(operationId="submit"),
        [f"doc-only: {CREATE}: operationId changed from createJob to submit"],
    ),
    "summary": (lambda c: create(c).pop("summary"), [f"doc-only: {CREATE}: summary removed"]),
    "tags": (lambda c: create(c).update(tags=["x"]), [f"doc-only: {CREATE}: tags changed"]),
    "callbacks": (
        lambda c: create(c).update(callbacks={}),
        [f"breaking: {CREATE}: something else added: callbacks; judge it by hand"],
    ),
    "optional parameter": (
        lambda c: sign(c)["parameters"].append({"name": "ttl", "in": "query", "schema": NUMBER}),
        [f"additive: {SIGN} query ttl: new optional parameter"],
    ),
    "required parameter": (
        lambda c: sign(c)["parameters"].append({"name": "ttl", "in": "query", "required": True}),
        [f"breaking: {SIGN} query ttl: new required parameter"],
    ),
    "parameter of a path": (
        lambda c: c["paths"]["/jobs/v2"].update(parameters=[{"name": "id", "in": "path", "required": True}]),
        [f"breaking: {CREATE} path id: new required parameter"],
    ),
    "parameter removed": (
        lambda c: sign(c)["parameters"].clear(),
        [f"breaking: {SIGN} query path: parameter removed"],
    ),
    "parameter renamed": (
        lambda c: sign(c)["parameters"][0].update(name="key"),
        [
            f"breaking: {SIGN} query key: new required parameter",
            f"breaking: {SIGN} query path: parameter removed (renamed to query key?)",
        ],
    ),
    "parameter moved": (
        move_the_parameter,
        [
            f"breaking: {SIGN} header path: new required parameter",
            f"breaking: {SIGN} query path: parameter removed (renamed to header path?)",
        ],
    ),
    "parameter optional": (
        lambda c: sign(c)["parameters"][0].pop("required"),
        [f"additive: {SIGN} query path: no longer required"],
    ),
    "parameter retyped": (
        lambda c: sign(c)["parameters"][0].update(schema=NUMBER),
        [f"breaking: {SIGN} query path: type changed from string to number"],
    ),
    "parameter style": (
        lambda c: sign(c)["parameters"][0].update(style="form"),
        [f"breaking: {SIGN} query path: something else added: style; judge it by hand"],
    ),
    "body optional": (
        lambda c: create(c)["requestBody"].pop("required"),
        [f"additive: {CREATE} request: no longer required"],
    ),
    "body removed": (lambda c: create(c).pop("requestBody"), [f"breaking: {CREATE} request: body removed"]),
    "body added": (
        lambda c: sign(c).update(requestBody={"content": {}}),
        [f"additive: {SIGN} request: body added"],
    ),
    "required body added": (
        lambda c: sign(c).update(requestBody={"required": True}),
        [f"breaking: {SIGN} request: body added"],
    ),
    "content type added": (
        lambda c: create(c)["requestBody"]["content"].update({XML: {}}),
        [f"additive: {CREATE} request body ({XML}): content type {XML} added"],
    ),
    "content type removed": (
        lambda c: create(c)["requestBody"]["content"].clear(),
        [f"breaking: {CREATE} request body: content type application/json removed"],
    ),
    "content type of an answer": (
        lambda c: create(c)["responses"]["202"].update(content={PROBLEM: {}}),
        [
            f"additive: {CREATE} 202 body ({PROBLEM}): content type {PROBLEM} added",
            f"breaking: {CREATE} 202 body: content type application/json removed",
        ],
    ),
    "success removed": (
        lambda c: create(c)["responses"].pop("202"),
        [f"breaking: {CREATE} 202: status removed"],
    ),
    "success added": (
        lambda c: create(c)["responses"].update({"200": {"description": "x"}}),
        [f"breaking: {CREATE} 200: status added"],
    ),
    "error removed": (
        lambda c: create(c)["responses"].pop("429"),
        [f"additive: {CREATE} 429: status removed"],
    ),
    "error added": (
        lambda c: create(c)["responses"].update({"402": {"description": "x"}}),
        [f"additive: {CREATE} 402: status added"],
    ),
    "header removed": (
        lambda c: c["components"]["responses"]["TooManyRequests"].pop("headers"),
        [f"breaking: {at} 429 header Retry-After: header removed" for at in (SIGN, CREATE)],
    ),
    "header added": (
        lambda c: sign(c)["responses"]["200"].update(headers={"ETag": {"schema": TEXT}}),
        [f"additive: {SIGN} 200 header ETag: header added"],
    ),
    "header required": (
        lambda c: c["components"]["headers"]["RetryAfter"].update(required=True),
        [f"additive: {at} 429 header Retry-After: now required" for at in (SIGN, CREATE)],
    ),
    "link removed": (
        lambda c: create(c)["responses"]["202"].pop("links"),
        [f"breaking: {CREATE} 202 link signOutput: link removed"],
    ),
    "link elsewhere": (
        lambda c: create(c)["responses"]["202"]["links"]["signOutput"].update(operationId="createJob"),
        [f"breaking: {CREATE} 202 link signOutput: something else changed: operationId; judge it by hand"],
    ),
    "security more": (
        lambda c: tenant(c) and create(c).update(security=[{"apiKey": [], "tenant": []}]),
        [f"breaking: {CREATE}: security: now needs header x-tenant"],
    ),
    "security less": (
        lambda c: create(c).update(security=[]),
        [f"additive: {CREATE}: security: no longer needs header x-api-key"],
    ),
    "security another way": (
        lambda c: tenant(c) and create(c).update(security=[{"apiKey": []}, {"tenant": []}]),
        [f"additive: {CREATE}: security: also accepts header x-tenant"],
    ),
    "security scheme": (
        lambda c: c["components"]["securitySchemes"]["apiKey"].update(name="x-key"),
        [f"additive: {at}: security: no longer needs header x-api-key" for at in (SIGN, CREATE)]
        + [f"breaking: {at}: security: now needs header x-key" for at in (SIGN, CREATE)],
    ),
    "security scheme's rest": (
        lambda c: c["components"]["securitySchemes"]["apiKey"].update(bearerFormat="JWT"),
        ["breaking: components.securitySchemes.apiKey: something else added: bearerFormat; judge it by hand"],
    ),
    "server changed": (
        lambda c: c["servers"][0].update(url="https://api.example.com"),
        [
            "additive: the document: server https://api.example.com added",
            "breaking: the document: server https://api.techforgeinnovate.com removed",
        ],
    ),
    "server's words": (
        lambda c: c["servers"][0].update(description="x"),
        ["doc-only: the document server https://api.techforgeinnovate.com: description changed"],
    ),
    "server of an operation": (
        lambda c: create(c).update(servers=[{"url": "https://jobs.example.com"}]),
        [f"additive: {CREATE}: server https://jobs.example.com added"],
    ),
    "info": (lambda c: c["info"].update(version="2.0.0"), ["doc-only: info.version: changed"]),
    "webhooks": (
        lambda c: c.update(webhooks={}),
        ["breaking: the document: something else added: webhooks; judge it by hand"],
    ),
    "unused component": (
        lambda c: c["components"]["schemas"].update(Spare=TEXT),
        ["doc-only: components.schemas.Spare: added; no operation uses it"],
    ),
}


@pytest.mark.parametrize("rule", DOCUMENTS)
def test_documents(rule: str) -> None:
    """Operations, parameters, statuses, content types, security, servers: a verdict for each."""
    edit, expected = DOCUMENTS[rule]

    assert lines(CONTRACT, edited(edit)) == sorted(expected)


def test_a_reference_is_what_it_refers_to() -> None:
    """Where a schema stands, and what it is called there, is no matter to the API's user."""
    inline = document({"properties": {"a": {"type": "string", "description": "b"}}})
    referring = document({"$ref": "#/components/schemas/Some~1Thing"}) | {
        "components": {
            "schemas": {
                "Some/Thing": {"properties": {"a": {"$ref": "#/components/schemas/T", "description": "b"}}},
                "T": TEXT,
            }
        }
    }

    assert lines(inline, referring) == ["doc-only: the document: written differently, with the same meaning"]


def beside_a_reference(version: str) -> dict[str, Any]:
    """Make a document in which something stands beside a reference."""
    schema = {
        "$ref": "#/components/schemas/A",
        "properties": {"b": TEXT},
        "required": ["b"],
        "description": "x",
    }
    return document(schema) | {"openapi": version, "components": {"schemas": {"A": A}}}


def test_what_stands_beside_a_reference() -> None:
    """In 3.1 both hold, and in 3.0 nothing but the reference: neither replaces what is referred to."""
    plain = document(A)
    both = document(A | {"properties": {"a": TEXT, "b": TEXT}, "required": ["b"], "description": "x"})
    same = ["doc-only: the document: written differently, with the same meaning"]

    assert lines(both, beside_a_reference("3.1.0"))[0].startswith("doc-only: POST /x request body: written")
    assert lines(plain, beside_a_reference("3.0.3") | {"openapi": "3.1.0"}) != same
    assert lines(plain | {"openapi": "3.0.3"}, beside_a_reference("3.0.3")) == same


def test_a_schema_may_be_all_or_nothing() -> None:
    """`true` is a schema, too, and may be referred to with words beside it."""
    old = document({"$ref": "#/components/schemas/Any", "description": "x"})
    old["components"] = {"schemas": {"Any": True}}

    assert lines(old, document({"description": "x"}))[0].startswith("doc-only: ")


def test_a_schema_may_contain_itself() -> None:
    """A tree has no end, but a comparison has one, and it still sees what differs."""
    old = document({"$ref": "#/components/schemas/Tree"})
    old["components"] = {
        "schemas": {"Tree": {"properties": {"name": TEXT, "child": {"$ref": "#/components/schemas/Tree"}}}}
    }
    new = copy.deepcopy(old)
    new["components"]["schemas"]["Tree"]["properties"]["name"] = NUMBER

    assert lines(old, old) == []
    assert "breaking: POST /x request body.name: type changed from string to number" in lines(old, new)


def points(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Return the path of every node of a document."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in children:
        yield (*path, key)
        yield from points(value, (*path, key))


def remove(parent: Any, key: Any) -> None:
    """Leave a node out."""
    del parent[key]


def change(parent: Any, key: Any) -> None:
    """Give a leaf another value of its type, or a node something more."""
    value = parent[key]
    match value:
        case bool():
            parent[key] = not value
        case int() | float():
            parent[key] = value + 1
        case str():
            parent[key] = value + "x"
        case list():
            value.append(value[0] if value else "x")
        case dict():
            value["x-new"] = {}


def rename(parent: Any, key: Any) -> None:
    """Put a node under another name."""
    if isinstance(key, str):
        parent[f"{key}x"] = parent.pop(key)
    else:
        del parent[key]


@pytest.mark.parametrize("mutate", [remove, change, rename])
def test_no_difference_is_dropped(mutate: Callable[[Any, Any], None]) -> None:
    """Whatever single thing differs, something is said of it; of the same document, nothing."""
    assert lines(CONTRACT, copy.deepcopy(CONTRACT)) == []
    silent = []
    for path in points(CONTRACT):
        mutant = copy.deepcopy(CONTRACT)
        parent = mutant
        for key in path[:-1]:
            parent = parent[key]
        mutate(parent, path[-1])
        if not compare(CONTRACT, mutant):
            silent.append(path)
    assert silent == []
