"""What a difference of two contracts means to those who call the API: each rule with an example."""

# ruff: noqa: E501 - one row of a table is one line

import copy
import json
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator
from ruamel.yaml import YAML

from changes.api import Comparison, compare
from changes.normal import normal
from changes.rules import RULES, At

CONTRACT = json.loads((Path(__file__).parents[2] / "openapi.json").read_text(encoding="utf-8"))
IMPACTS = {"!": "breaking", "+": "additive", ".": "doc-only"}
SAME = "written differently, with the same meaning"
# What the tables below write for short.
SHORT = {
    "$A": "{type: object, properties: {a: $T}}",
    "$B": "{type: object, properties: {b: $T}}",
    "$PATTERNS": "{pattern: a}, {pattern: b}",
    "$T": "{type: string}",
    "$N": "{type: number}",
    "$NULL": '{type: "null"}',
    "$OR_NULL": 'type: [string, "null"]',
    "$CREATE": "POST /jobs/v2",
    "$SIGN": "GET /storage/generate-signed-path",
    "$JUDGE": "judge it by hand",
    "$LOST": "no longer needs",
}


def table(text: str) -> list[tuple[str, ...]]:
    """Return the rows of a table."""
    for short, full in sorted(SHORT.items(), key=lambda pair: (pair[0] in {"$T", "$N"}, -len(pair[0]))):
        text = text.replace(short, full)
    return [tuple(cell.strip() for cell in row.split(" | ")) for row in text.strip().splitlines()]


def read(cell: str) -> Any:
    """Return the YAML in a cell."""
    return YAML(typ="safe", pure=True).load(cell)


def lines(old: Any, new: Any) -> list[str]:
    """Return the changes between two documents as text."""
    return list(map(str, compare(old, new)))


def document(schema: Any, *, answer: bool = False, version: str = "3.1.0") -> dict[str, Any]:
    """Return a document with this schema in a request or in a response."""
    body = {"content": {"application/json": {"schema": schema}}}
    operation = {"responses": {"200": body}} if answer else {"requestBody": body}
    return {"openapi": version, "paths": {"/x": {"post": operation}}}


# before | after | report | verdict in a request, and in a response
SCHEMAS = """
$T | {$OR_NULL} | type changed from string to null or string | +!
$N | {type: integer} | type changed from number to integer | !+
$T | $N | type changed from string to number | !!
$T | {} | type changed from string to anything | +!
{} | $T | type changed from anything to string | !+
{type: array, items: $T, maxItems: 9} | {type: object, minProperties: 1} | type changed from array to object | !!
{enum: [1]} | {enum: [1, b]} | enum grown: b | +!
{enum: [1, 2]} | {enum: [2]} | enum shrunk: 1 | !+
{} | {enum: [1, 2]} | now limited to 1, 2 | !+
{enum: [1, 2]} | {} | no longer limited to 1, 2 | +!
{enum: [1, 2]} | {enum: [1, 2, true]} | enum grown: true | +!
{const: a} | {enum: [a, b]} | enum grown: b | +!
$T | {type: string, format: uuid} | format added: uuid | !+
{type: string, format: date} | $T | format removed: date | +!
{format: uri} | {format: uuid} | format changed from uri to uuid | !!
{pattern: a} | {pattern: b} | pattern changed from a to b | !!
{} | {multipleOf: 2} | multipleOf added: 2 | !+
{minimum: 1} | {minimum: 2} | minimum changed from 1 to 2 | !+
{minimum: 1} | {minimum: 0.5} | minimum changed from 1 to 0.5 | +!
{exclusiveMaximum: 1} | {exclusiveMaximum: 2} | exclusiveMaximum changed from 1 to 2 | +!
{minProperties: 2} | {minProperties: 1} | minProperties changed from 2 to 1 | +!
{} | {minLength: 2} | minLength added: 2 | !+
{maxItems: 2} | {maxItems: 1} | maxItems changed from 2 to 1 | !+
{maxItems: 2} | {} | maxItems removed: 2 | +!
{} | {exclusiveMinimum: true} | exclusiveMinimum added: true | !+
{} | {uniqueItems: true} | uniqueItems now holds | !+
{uniqueItems: true} | {} | uniqueItems no longer holds | +!
{} | {additionalProperties: false} | unknown fields no longer allowed | !+
{additionalProperties: false} | {} | unknown fields now allowed | +!
{additionalProperties: $T} | {additionalProperties: $N} | .*: type changed from string to number | !!
{items: $T} | {items: $N} | []: type changed from string to number | !!
{} | false | not added: {} | !+
{properties: {}} | {properties: {a: $T}} | .a: new optional field | ++
{} | {properties: {a: {}}, required: [a]} | .a: new required field | !+
{properties: {a: $T}} | {properties: {}} | .a: field removed | !!
{properties: {a: $T}} | {properties: {a: $N}} | .a: type changed from string to number | !!
{properties: {a: {}}} | {properties: {a: {}}, required: [a]} | .a: now required | !+
{properties: {a: {}}, required: [a]} | {properties: {a: {}}} | .a: no longer required | +!
{anyOf: [$A, $B]} | {anyOf: [$B, $T, $A]} | anyOf added: string | +!
{oneOf: [$A, $T]} | {oneOf: [$A]} | oneOf removed: string | !+
$A | {anyOf: [$A, $T]} | anyOf added: string | +!
$A | {anyOf: [$A, $NULL]} | type changed from object to null or object | +!
{anyOf: [$A, $T]} | {anyOf: [$N, $A]} | type changed from string to number | !!
$T | {type: string, anyOf: [{minLength: 2}, {maxLength: 1}]} | anyOf added: anything, anything | !+
{type: string, anyOf: [{minLength: 2}, {maxLength: 1}]} | $T | anyOf removed: anything, anything | +!
{format: int32} | {format: int64} | format changed from int32 to int64 | +!
{format: double} | {format: float} | format changed from double to float | !+
{allOf: [$A]} | {allOf: [$A, $B]} | .b: new optional field | ++
{allOf: [$A, $B]} | {allOf: [$A]} | .b: field removed | !!
$A | {allOf: [$A, {properties: {a: {maxLength: 1}}}]} | .a: maxLength added: 1 | !+
{allOf: [$PATTERNS]} | {allOf: [$PATTERNS, {pattern: c}]} | allOf added: anything | !+
{allOf: [$PATTERNS, {pattern: c}]} | {allOf: [$PATTERNS]} | allOf removed: anything | +!
{default: 1} | {default: 2} | default changed | !.
{description: a} | {description: b} | description changed | ..
{} | {example: b} | example added | ..
{} | {deprecated: true} | now deprecated | ++
{deprecated: true} | {} | deprecated removed | ..
{} | {then: {maxLength: 1}} | then added: {"maxLength": 1} | !+
{prefixItems: [$T]} | {} | prefixItems removed: {"type": "string"} | +!
{dependentRequired: {a: [b]}} | {dependentRequired: {a: [c]}} | dependentRequired changed from {"a": ["b"]} to {"a": ["c"]} | !!
{} | {readOnly: true} | now read-only | !.
{readOnly: true} | {} | no longer read-only | +.
{} | {writeOnly: true} | now write-only | .!
{writeOnly: true} | {} | no longer write-only | .+
{oneOf: [$A, $B]} | {oneOf: [$A, $B], discriminator: {propertyName: a}} | discriminator added | ..
{} | {xml: {name: a}} | xml added | ..
{} | {madeUp: 1} | madeUp added | ..
{x-a: 1} | {x-a: 2} | x-a changed | ..
{} | {$dynamicAnchor: a} | something else added: $dynamicAnchor; $JUDGE | !!
{enum: [1, 2]} | {enum: [2, 1]} | written differently, with the same meaning | ..
"""


@pytest.mark.parametrize(("old", "new", "words", "verdicts"), table(SCHEMAS))
@pytest.mark.parametrize("answer", [False, True], ids=["request", "answer"])
def test_schemas(old: str, new: str, words: str, verdicts: str, answer: bool) -> None:
    """A request may allow more and a response may have less; the reverse is breaking."""
    place = "POST /x 200 body" if answer else "POST /x request body"
    place += words if words.startswith((".", "[")) else f": {words}"
    before, after = document(read(old), answer=answer), document(read(new), answer=answer)
    assert lines(before, after) == [f"{IMPACTS[verdicts[answer]]}: {place}"]


# a schema | the same in other words
SYNONYMS = """
$A | {allOf: [$A]}
{type: object, properties: {a: {}}, description: x} | {allOf: [{type: object, properties: {a: {}}}], description: x}
{$ref: "#/components/schemas/S"} | {allOf: [{$ref: "#/components/schemas/S"}]}
{x-a: 1, type: object} | {allOf: [{type: object}], x-a: 1}
$A | {allOf: [{allOf: [$A]}, true]}
{properties: {a: $T, b: $T}, required: [a, b]} | {allOf: [{properties: {a: $T}, required: [a]}, {properties: {b: $T}, required: [b]}]}
$A | {allOf: [$A, {properties: {a: $T}}]}
$T | {allOf: [{$OR_NULL}, $T]}
{properties: {a: {}}, additionalProperties: false, required: [a]} | {allOf: [{properties: {a: {}}, additionalProperties: false}, {required: [a]}]}
$A | {oneOf: [$A]}
{type: object, minProperties: 1} | {anyOf: [{type: object}], minProperties: 1}
{$OR_NULL, maxLength: 9} | {anyOf: [{type: string, maxLength: 9}, $NULL]}
{$OR_NULL, maxLength: 9} | {oneOf: [$NULL, {type: string, maxLength: 9}]}
$T | {type: string, nullable: false}
$T | {type: string, nullable: true}
{$OR_NULL, enum: [a, null]} | {anyOf: [{type: string, enum: [a]}, {const: null, type: "null"}]}
{type: [string, number]} | {anyOf: [$N, $T]}
{$OR_NULL, description: x} | {anyOf: [{type: string, description: x}, {type: "null", description: y}]}
"""


@pytest.mark.parametrize(("one", "other"), table(SYNONYMS))
@pytest.mark.parametrize("answer", [False, True], ids=["request", "answer"])
def test_the_same_in_other_words(one: str, other: str, answer: bool) -> None:
    """Two schemas with the same meaning are no change, in a field as well."""
    for wrap in ("{}", "{{properties: {{x: {}}}}}"):
        schemas = [document(read(wrap.format(each)), answer=answer) for each in (one, other)]
        for old, new in (schemas, reversed(schemas)):
            assert [line.partition(": ")[0] for line in lines(old, new)] == ["doc-only"]
            assert lines(old, new)[0].endswith(SAME)


@pytest.mark.parametrize("nullable", ["{type: string, nullable: true}", "{allOf: [$T], nullable: true}"])
def test_nullable_counts_in_openapi_3_0_only(nullable: str) -> None:
    """3.0 has `nullable`, and 3.1 has null among the types: moving from one to the other is no change."""
    ((cell,), (types,)) = table(f"{nullable}\n{{$OR_NULL}}")
    old, new = document(read(cell), version="3.0.3"), document(read(types))
    assert all(line.startswith("doc-only") for line in lines(old, new))
    plain = document({"type": "string"}, version="3.0.3")
    assert lines(plain, old) == ["additive: POST /x request body: type changed from string to null or string"]


# a schema | one that looks the same, and is not
FALSE_FRIENDS = """
{properties: {a: {}, b: {}}, additionalProperties: false} | {allOf: [{properties: {a: {}}, additionalProperties: false}, {properties: {a: {}, b: {}}}]}
{properties: {a: {}, b: {}}, additionalProperties: false} | {allOf: [{properties: {a: {}, b: {}}}, {properties: {a: {}}, additionalProperties: false}]}
{if: $NULL, then: false, $OR_NULL} | {anyOf: [{type: string, if: $NULL, then: false}, $NULL]}
{type: [number, integer]} | {oneOf: [$N, {type: integer}]}
{$OR_NULL} | {oneOf: [{$OR_NULL}, $NULL]}
{$OR_NULL, not: {enum: [null]}} | {anyOf: [{type: string, not: {enum: [null]}}, $NULL]}
{maxLength: 3} | {allOf: [{maxLength: 5}, {maxLength: 3}]}
$NULL | {type: string, enum: [null]}
$T | {allOf: [$T, $N]}
{if: $T, then: {maxLength: 2}} | {allOf: [{if: $T}, {then: {maxLength: 2}}]}
"""


@pytest.mark.parametrize(("one", "other"), table(FALSE_FRIENDS))
def test_what_is_not_simple_is_reported(one: str, other: str) -> None:
    """If schemas cannot be rewritten, the report has a change too many rather than one too few."""
    changes = lines(document(read(one)), document(read(other)))
    assert [line for line in changes if not line.startswith("doc-only")]


TEXT = {"type": "string"}
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
def test_a_rewritten_schema_means_the_same(schema: Any) -> None:
    """An independent validator accepts the same values before and after the rewriting."""
    before, after = (Draft202012Validator(each) for each in (schema, normal(schema)))
    for value in VALUES:
        assert before.is_valid(value) == after.is_valid(value), value


def test_a_renamed_field() -> None:
    """The report suggests a new name only if one field alone came with the shape of the one that is gone."""
    old, one = (document({"properties": {name: TEXT | {"description": name}}}) for name in "ab")
    two = document({"properties": {"b": TEXT, "c": TEXT}})
    assert lines(old, one) == [
        "additive: POST /x request body.b: new optional field",
        "breaking: POST /x request body.a: field removed (renamed to b?)",
    ]
    assert "breaking: POST /x request body.a: field removed" in lines(old, two)


# where in openapi.json | its new value, or - to remove it | the changes, separated by semicolons
DOCUMENTS = """
paths > /jobs/v2 | - | !$CREATE: operation removed
paths > /jobs/{id} | {get: {operationId: getJob}} | +GET /jobs/{id}: operation added
create > operationId | submit | .$CREATE: operationId changed from createJob to submit
create > summary | - | .$CREATE: summary removed
create > tags | [x] | .$CREATE: tags changed
create > deprecated | true | +$CREATE: now deprecated
create > callbacks | {done: {}} | +$CREATE callback done: callback added
sign > parameters > 1 | {name: ttl, in: query, schema: $N} | +$SIGN query ttl: new optional parameter
sign > parameters > 1 | {name: ttl, in: query, required: true} | !$SIGN query ttl: new required parameter
paths > /jobs/v2 > parameters | [{name: id, in: path, required: true}] | !$CREATE path id: new required parameter
sign > parameters | [] | !$SIGN query path: parameter removed
sign > parameters > 0 > name | key | !$SIGN query key: new required parameter; !$SIGN query path: parameter removed (renamed to query key?)
sign > parameters > 0 > in | header | !$SIGN header path: new required parameter; !$SIGN query path: parameter removed (renamed to header path?)
sign > parameters > 0 > required | - | +$SIGN query path: no longer required
sign > parameters > 0 > schema | $N | !$SIGN query path: type changed from string to number
sign > parameters > 0 > style | form | .the document: written differently, with the same meaning
sign > parameters > 0 > style | spaceDelimited | !$SIGN query path: explode changed; !$SIGN query path: style changed
sign > parameters > 0 > explode | false | !$SIGN query path: explode changed
sign > parameters > 0 > allowReserved | true | +$SIGN query path: allowReserved now holds
create > requestBody > content > application/json > encoding | {a: {style: form}} | !$CREATE request body: encoding added
create > requestBody > required | - | +$CREATE request: no longer required
create > requestBody | - | !$CREATE request: body removed
sign > requestBody | {content: {}} | +$SIGN request: body added
sign > requestBody | {required: true} | !$SIGN request: body added
create > requestBody > content > application/xml | {} | +$CREATE request body (application/xml): content type application/xml added
create > requestBody > content | {} | !$CREATE request body: content type application/json removed
create > responses > 202 | - | !$CREATE 202: status removed
create > responses > 200 | {description: x} | !$CREATE 200: status added
create > responses > 429 | - | +$CREATE 429: status removed
create > responses > 402 | {description: x} | +$CREATE 402: status added
components > responses > TooManyRequests > headers | - | !$SIGN 429 header Retry-After: header removed; !$CREATE 429 header Retry-After: header removed
sign > responses > 200 > headers | {ETag: {schema: $T}} | +$SIGN 200 header ETag: header added
components > headers > RetryAfter > required | true | +$SIGN 429 header Retry-After: now required; +$CREATE 429 header Retry-After: now required
create > responses > 202 > links | - | !$CREATE 202 link signOutput: link removed
create > responses > 202 > links > x | {} | +$CREATE 202 link x: link added
create > responses > 202 > links > signOutput > operationId | createJob | !$CREATE 202 link signOutput: operationId changed
create > security | [{apiKey: [], tenant: []}] | !$CREATE: security: now needs unknown scheme tenant
create > security | [] | +$CREATE: security: $LOST header x-api-key
create > security | [{apiKey: []}, {tenant: []}] | +$CREATE: security: also accepts unknown scheme tenant
components > securitySchemes > apiKey > name | x-key | +$SIGN: security: $LOST header x-api-key; +$CREATE: security: $LOST header x-api-key; !$SIGN: security: now needs header x-key; !$CREATE: security: now needs header x-key
components > securitySchemes > apiKey > bearerFormat | JWT | .components.securitySchemes.apiKey: bearerFormat added
components > securitySchemes > apiKey > flows | {} | !components.securitySchemes.apiKey: flows added
components > securitySchemes > tenant | {type: apiKey, in: header, name: x} | .components.securitySchemes.tenant: added, no operation uses it
servers > 0 > url | https://api.example.com | +the document: server https://api.example.com added; !the document: server https://api.techforgeinnovate.com removed
servers > 0 > description | x | .the document server https://api.techforgeinnovate.com: description changed
servers > 0 > variables | {a: {default: b}} | !the document server https://api.techforgeinnovate.com: variables added
create > servers | [{url: "https://jobs.example.com"}] | +$CREATE: server https://jobs.example.com added
info > version | 2.0.0 | .the document: info changed
webhooks | {done: {post: {}}} | +webhook POST done: webhook added
components > schemas > Spare | $T | .components.schemas.Spare: added, no operation uses it
"""


def edited(where: str, value: str) -> dict[str, Any]:
    """Return the contract with one value replaced, or removed."""
    contract = node = copy.deepcopy(CONTRACT)
    where = where.replace("create", "paths > /jobs/v2 > post")
    *way, last = where.replace("sign >", "paths > /storage/generate-signed-path > get >").split(" > ")
    for name in way:
        node = node[int(name) if isinstance(node, list) else name]
    if value == "-":
        del node[last]
    elif isinstance(node, list):
        node[int(last) : int(last) + 1] = [read(value)]
    else:
        node[last] = read(value)
    return contract


@pytest.mark.parametrize(("where", "value", "changes"), table(DOCUMENTS))
def test_documents(where: str, value: str, changes: str) -> None:
    """Operations, parameters, statuses, content types, security, servers: each change has its verdict."""
    expected = [f"{IMPACTS[change[0]]}: {change[1:]}" for change in changes.split("; ")]
    found = [line.replace("; ", ", ") for line in lines(CONTRACT, edited(where, value))]
    assert found == sorted(expected)


def test_a_moved_operation() -> None:
    """An operation at another path is compared with the one that had its operationId."""
    contract = copy.deepcopy(CONTRACT)
    contract["paths"]["/jobs/v3"] = contract["paths"].pop("/jobs/v2")
    contract["paths"]["/jobs/v3"]["post"]["summary"] = "x"
    assert lines(CONTRACT, contract) == [
        "additive: POST /jobs/v3: operation added",
        "breaking: POST /jobs/v2: operation removed (moved to POST /jobs/v3?)",
        "doc-only: POST /jobs/v3: summary changed",
    ]


def test_what_else_has_a_rule() -> None:
    """Removing a callback or a webhook, or a way to be authorized, breaks those who use it."""
    post = {"callbacks": {"done": {}}, "security": [{"a": []}, {"b": []}]}
    hook = {"done": {"post": {"requestBody": {"content": {"application/json": {"schema": TEXT}}}}}}
    get = {"parameters": [{"name": "a", "in": "query", "allowReserved": True}]}
    old = {"openapi": "3.1.0", "paths": {"/x": {"post": post, "get": get}}, "webhooks": hook}
    new = copy.deepcopy(old)
    new["paths"]["/x"]["post"] = {"security": [{"a": []}]}
    new["paths"]["/x"]["get"] = {"parameters": [{"name": "a", "in": "query"}]}
    del new["webhooks"]
    assert sorted(lines(old, new)) == [
        "breaking: GET /x query a: allowReserved no longer holds",
        "breaking: POST /x callback done: callback removed",
        "breaking: POST /x: security: no longer accepts unknown scheme b",
        "breaking: webhook POST done: webhook removed",
    ]


def test_what_the_service_sends() -> None:
    """A client receives the body of a webhook and of a callback: a wider one breaks it, a narrower one does not."""
    old, new = (
        {"requestBody": {"content": {"application/json": {"schema": {"type": types}}}}}
        for types in ("string", ["string", "null"])
    )
    for before, after, impact in ((old, new, "breaking"), (new, old, "additive")):
        one, other = (
            {
                "openapi": "3.1.0",
                "paths": {"/x": {"post": {"callbacks": {"done": {"{$url}": {"post": each}}}}}},
                "webhooks": {"done": {"post": each}},
            }
            for each in (before, after)
        )
        assert [line.partition(" body: type changed")[0] for line in lines(one, other)] == [
            f"{impact}: POST /x callback done POST {{$url}} request",
            f"{impact}: webhook POST done request",
        ]


def test_other_alternatives() -> None:
    """Of two lists of different length, the alternatives that came and that went are both reported."""
    ((old, new),) = table("{anyOf: [$A, $B]} | {anyOf: [$T, $N, {type: array}]}")
    for answer, impacts in ((False, ["additive", "breaking"]), (True, ["additive", "breaking"])):
        found = lines(document(read(old), answer=answer), document(read(new), answer=answer))
        assert [line.partition(":")[0] for line in found] == impacts, found


def test_every_rule_has_an_example(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that no example of these tables reaches is not needed, or not tested."""
    used: set[str] = set()
    note = At.note
    monkeypatch.setattr(At, "note", lambda at, rule, /, **words: used.add(rule) or note(at, rule, **words))
    for old, new, *_ in table(SCHEMAS):
        compare(document(read(old)), document(read(new)))
    for where, value, _ in table(DOCUMENTS):
        compare(CONTRACT, edited(where, value))
    test_a_moved_operation()
    test_what_else_has_a_rule()
    test_other_schemas_in_the_same_place()
    assert used == RULES.keys()


def test_a_schema_is_compared_where_it_is_defined() -> None:
    """A schema that many places use is reported once, by its name, with the number of operations."""
    page = {"type": "object", "properties": {"items": {"type": "array", "items": TREE}, "next": TREE}}
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Page"}}}
    get = {"responses": {"200": {"content": content}, "400": {"content": content}}}
    old = {
        "openapi": "3.1.0",
        "paths": {"/a": {"get": get, "post": {"requestBody": {"content": content}}}, "/b": {"get": get}},
        "components": {"schemas": {"Page": page, "Tree": {"properties": {"name": TEXT, "child": TREE}}}},
    }
    new = copy.deepcopy(old)
    del new["components"]["schemas"]["Tree"]["properties"]["name"]["type"]
    new["components"]["schemas"]["Page"]["properties"]["more"] = {}
    assert lines(old, new) == [
        "additive: POST /a request body.more: new optional field",
        "additive: components.schemas.Page.more: new optional field; in responses of 2 operations",
        "additive: components.schemas.Tree.name: type changed from string to anything; in requests of 1 operation",
        "breaking: components.schemas.Tree.name: type changed from string to anything; in responses of 2 operations",
    ]
    # mypy sees what is in a success.
    assert [change.silent for change in compare(old, new)] == [False] * 4


def test_other_schemas_in_the_same_place() -> None:
    """A schema in place of another is compared with it; what both consist of is not: there may be no end to it."""
    schemas = {
        "One": {"properties": {"a": TEXT, "b": {"$ref": "#/components/schemas/Two"}}},
        "Two": {"properties": {"a": TEXT, "b": {"$ref": "#/components/schemas/One"}}},
        "Three": {"properties": {"a": {"type": "number"}, "b": {"$ref": "#/components/schemas/Three"}}},
    }
    old, new = (
        document({"$ref": f"#/components/schemas/{name}"}) | {"components": {"schemas": schemas}}
        for name in ("One", "Three")
    )
    assert lines(old, new) == [
        "breaking: POST /x request body.a: type changed from string to number",
        "breaking: POST /x request body.b: Three instead of Two",
    ]


def test_renamed_schemas() -> None:
    """Schemas with other names and the same fields are no change, also if they refer to each other."""
    leaf = {"properties": {"parent": TREE, "name": TEXT}}
    old = document(TREE)
    old["components"] = {
        "schemas": {"Tree": {"properties": {"leaf": {"$ref": "#/components/schemas/Leaf"}}}, "Leaf": leaf}
    }
    new = json.loads(json.dumps(old).replace("Tree", "Tree2").replace("Leaf", "Leaf2"))
    assert {line.partition(":")[0] for line in lines(old, new)} == {"doc-only"}
    new["components"]["schemas"]["Leaf2"]["properties"]["name"] = {"type": "number"}
    assert [line for line in lines(old, new) if not line.startswith("doc-only")] == [
        "breaking: components.schemas.Leaf2.name: type changed from string to number; in requests of 1 operation"
    ]


def test_the_work_grows_with_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice as many schemas that all refer to each other take twice as many steps."""
    counts: list[int] = []
    walk = Comparison.walk

    def counted(*arguments: Any) -> Any:
        counts[-1] += 1
        return walk(*arguments)

    monkeypatch.setattr(Comparison, "walk", counted)
    path = Path(__file__).parents[2] / "benchmarks" / "specs.py"
    benchmark = runpy.run_path(str(path))
    for schemas in (100, 200, 400):
        counts.append(0)
        old = benchmark["generate"](schemas)
        assert len(compare(old, benchmark["change"](old))) > schemas / 4
    assert counts[2] < 2.5 * counts[1] < 6.25 * counts[0]


def test_a_single_use_is_reported_there() -> None:
    """A schema that one place uses is reported at that place, through others that one place uses."""
    old = document(TREE)
    old["components"] = {"schemas": {"Tree": {"items": {"$ref": "#/components/schemas/Leaf"}}, "Leaf": TEXT}}
    new = copy.deepcopy(old)
    new["components"]["schemas"]["Leaf"] = {"type": "number"}
    assert lines(old, new) == ["breaking: POST /x request body[]: type changed from string to number"]


def test_schemas_that_contain_each_other() -> None:
    """Two schemas that contain each other are compared once each."""
    leaf = {"properties": {"parent": TREE, "name": TEXT}}
    old = document(TREE)
    old["components"] = {
        "schemas": {"Tree": {"properties": {"leaf": {"$ref": "#/components/schemas/Leaf"}}}, "Leaf": leaf}
    }
    new = copy.deepcopy(old)
    new["components"]["schemas"]["Leaf"]["properties"]["name"] = {"type": "number"}
    assert lines(old, new) == [
        "breaking: components.schemas.Leaf.name: type changed from string to number; in requests of 1 operation"
    ]


@pytest.mark.parametrize("names", [("X-Tenant", "x-tenant")])
def test_headers_have_no_case(names: tuple[str, str]) -> None:
    """To HTTP, `X-Tenant` and `x-tenant` are one header."""
    old, new = (
        {"openapi": "3.1.0", "paths": {"/x": {"get": {"parameters": [{"name": name, "in": "header"}]}}}}
        for name in names
    )
    assert lines(old, new) == [f"doc-only: the document: {SAME}"]


def test_security_is_inherited() -> None:
    """What the document requires is required by each operation that says nothing itself."""
    paths = {"/x": {"get": {}}, "/y": {"get": {"security": []}}}
    schemes = {"securitySchemes": {"basic": {"type": "http", "scheme": "basic"}}}
    old, new = (
        {"openapi": "3.1.0", "paths": paths, "components": schemes, "security": each}
        for each in ([], [{"basic": []}])
    )
    assert lines(old, new) == [
        "breaking: GET /x: security: now needs http basic",
    ]


def test_a_reference_is_what_it_refers_to() -> None:
    """Moving a schema into the components is no change."""
    inline = document({"properties": {"a": {"type": "string", "description": "b"}}})
    schema = {"properties": {"a": {"$ref": "#/components/schemas/T", "description": "b"}}}
    referring = document({"$ref": "#/components/schemas/Some~1Thing"})
    referring["components"] = {"schemas": {"Some/Thing": schema, "T": TEXT}}
    assert lines(inline, referring) == [f"doc-only: POST /x request body: {SAME}"]


def test_what_is_beside_a_reference() -> None:
    """In 3.1 both count, in 3.0 only the reference; a schema may also be `true`."""
    ((cell,),) = table("$A")
    plain, beside = (
        read(cell),
        {"$ref": "#/components/schemas/A", "properties": {"b": TEXT}, "required": ["b"]},
    )
    both = plain | {"properties": {"a": TEXT, "b": TEXT}, "required": ["b"]}
    for version, schema, other in (("3.1.0", both, plain), ("3.0.3", plain, both)):
        referring = document(beside, version=version) | {"components": {"schemas": {"A": plain}}}
        assert lines(document(schema, version=version), referring) == [
            f"doc-only: POST /x request body: {SAME}"
        ]
        assert not lines(document(other, version=version), referring)[0].startswith("doc-only")
    old = document({"$ref": "#/components/schemas/Any", "description": "x"}) | {
        "components": {"schemas": {"Any": True}}
    }
    assert all(line.startswith("doc-only: ") for line in lines(old, document({"description": "x"})))


TREE = {"$ref": "#/components/schemas/Tree"}


@pytest.mark.parametrize("child", [TREE, {"anyOf": [TREE, {"type": "null"}]}, {"allOf": [TREE]}])
def test_a_schema_may_contain_itself(child: Any) -> None:
    """A schema that refers to itself is compared once, and its changes are found."""
    old = document(TREE)
    fields = {"name": TEXT, "child": child}
    old["components"] = {"schemas": {"Tree": {"properties": fields}}}
    new = copy.deepcopy(old)
    new["components"]["schemas"]["Tree"]["properties"]["name"] = {"type": "number"}
    assert lines(old, old) == []
    assert "breaking: POST /x request body.name: type changed from string to number" in lines(old, new)


def points(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Return the path of every node of a document."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in children:
        yield (*path, key)
        yield from points(value, (*path, key))


def remove(parent: Any, key: Any) -> None:
    """Remove a node."""
    del parent[key]


def change(parent: Any, key: Any) -> None:
    """Give a leaf another value of its type, or a node something more."""
    value = parent[key]
    match value:
        case bool():
            parent[key] = not value
        case int() | float() | str():
            parent[key] = value + ("x" if isinstance(value, str) else 1)
        case list():
            value.append(value[0] if value else "x")
        case dict():
            value["x-new"] = {}


def rename(parent: Any, key: Any) -> None:
    """Put a node under another name."""
    value = parent.pop(key)
    if isinstance(key, str):
        parent[f"{key}x"] = value


@pytest.mark.parametrize("mutate", [remove, change, rename])
def test_no_difference_is_dropped(mutate: Callable[[Any, Any], None]) -> None:
    """Whatever single thing differs, the report has it; for the same document it is empty."""
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
