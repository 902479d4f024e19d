"""Variations of a valid body, each with one thing changed: what a careless server may take, or refuse.

Which of them are valid is for the schema to say. They are made of what is common to all APIs, of the limits
that the schema states, and of the words that it lists.
"""

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from jsonschema_rs import Draft202012Validator

Json = Any
Path = tuple[str | int, ...]

VALUES: dict[str, list[Json]] = {
    "null": [None],
    "boolean": [True, False],
    "integer": [0, 1, -1, 1.0, 2, 99, 2**31, 2**63, 10**20],
    "number": [0.5, -1.5, 1e18, 1e-9, 1e200],
    "string": [
        *("x", "7", "true", "", " ", "null", "-1.5", "x" * 1000, "CAPITALS", "two\nlines", "<&\"'\\>"),
        *("naïve 你好", "שלום", "😀"),
    ],
    "array": [["x"], [], [1], [None], [[]], ["x", "x"], ["x"] * 200, ["x"] * 1000],
    "object": [{"x": "x"}, {}],
}
"""Values of each type."""
OF_ANOTHER_TYPE = 3
"""How many of them a field of another type is tried with."""

FORMATS: dict[str, list[str]] = {
    "uri": [
        *("http://example.com/", "HTTPS://EXAMPLE.COM/A", "https://example.com/a.png?b=c&d=%20#e"),
        *("https://example.com/" + "x" * 1000, "s3://bucket/key", "urn:example:a"),
        *(
            "http://127.0.0.1/a",
            "http://localhost/a",
            "https://example.com:8443/a",
            "https://a:b@example.com/a",
        ),
        *(
            "http://[::1]/a",
            "https://example.com",
            "data:image/png;base64,AAAA",
            "https://example.com/" + "x" * 8000,
        ),
        *("https://example.com/ä", "https://example.com/%zz", "https://example.com/<a>"),
        *("example.com/a.png", "/a.png", "//example.com/a.png", "https://example.com/a b", "https://", ":"),
    ],
    "uuid": [
        *("468EA7A0-66E1-4357-A760-236E54167F3E", str(UUID(int=0)), "00000000-0000-7000-8000-000000000000"),
        *("468ea7a066e14357a760236e54167f3e", "{468ea7a0-66e1-4357-a760-236e54167f3e}"),
        *("urn:uuid:468ea7a0-66e1-4357-a760-236e54167f3e", "468ea7a0-66e1-4357-a760-236e54167f3"),
        *("468ea7a0-66e1-4357-a760-236e54167f3e0", "468ea7a0-66e1-4357-a760-236e54167f3g"),
    ],
    "date-time": [
        *("2024-12-01T12:00:00Z", "2024-12-01T12:00:00.5+02:00", "2024-12-01T12:00:00", "2024-12-01"),
        *("2024-12-01 12:00", "2024-13-01T12:00:00Z", "1733054400"),
    ],
}
"""Texts that are, or are nearly, of a format."""

DEPTH = 6
"""How many fields within fields are looked at: a schema may contain itself."""
_ABSENT = object()


def variations(document: Json, schema: Json, valid: Json) -> Iterator[tuple[str, Json]]:
    """Yield what is changed, and the body with the change."""
    required = resolved(document, schema).get("required", ())
    if isinstance(valid, dict):
        yield "there is only what is required", {name: valid[name] for name in required if name in valid}
    for path, node in places(document, schema):
        name = ".".join(map(str, path)) or "the body"
        if path and isinstance(path[-1], str):
            yield f"{name} is left out", _put(document, schema, valid, path, _ABSENT)
        if "object" in types(document, node):
            yield f"{name} has an unknown field", _put(document, schema, valid, (*path, "x_unknown"), [None])
        tried = {json.dumps(value, ensure_ascii=False): value for value in values(document, node)}
        for text, value in tried.items():
            shown = text if len(text) < 60 else f"{text[:50]}… ({len(text)} characters)"
            yield f"{name} is {shown}", _put(document, schema, valid, path, value)


def choices(document: Json, schema: Json, valid: Json) -> Iterator[tuple[str, Json]]:
    """Yield valid bodies that a server may treat differently: listed values, optional fields, ids."""
    is_valid = validator(document, schema).is_valid
    yield "nothing is changed", valid
    for what, body in variations(document, schema, valid):
        if what.endswith((" is left out", " has an unknown field", "only what is required")) and is_valid(
            body
        ):
            yield what, body
    for path, node in places(document, schema):
        kinds = types(document, node)
        some = (
            [True, False] if "boolean" in kinds else FORMATS["uuid"] if node.get("format") == "uuid" else []
        )
        for value in node.get("enum", some):
            body = _put(document, schema, valid, path, value)
            if is_valid(body):
                yield f"{'.'.join(map(str, path))} is {json.dumps(value)}", body


def places(document: Json, schema: Json, path: Path = ()) -> Iterator[tuple[Path, Json]]:
    """Yield the schema, and those of its fields and items, each with where its value is in the body."""
    node = resolved(document, schema)
    if len(path) > DEPTH:
        return
    yield path, node
    for branch in branches(document, node):
        for name, field in branch.get("properties", {}).items():
            yield from places(document, field, (*path, name))
        if "items" in branch:
            # A careless server looks at the first one only.
            yield from places(document, branch["items"], (*path, 0))
            yield from places(document, branch["items"], (*path, 1))


def branches(document: Json, schema: Json) -> Iterator[Json]:
    """Yield a schema and its alternatives."""
    node = resolved(document, schema)
    yield node
    for kind in ("allOf", "anyOf", "oneOf"):
        for each in node.get(kind, ()):
            yield from branches(document, each)


def values(document: Json, schema: Json) -> Iterator[Json]:
    """Yield values that are of the schema's type, and some that are not, valid or nearly so."""
    own = types(document, schema)
    for kind, some in VALUES.items():
        yield from some if kind in own or not own else some[:OF_ANOTHER_TYPE]
    for branch in branches(document, schema):
        yield from FORMATS.get(branch.get("format", ""), ())
        yield from _near_what_is_listed(branch)
        yield from _near_limits(document, branch)


def types(document: Json, schema: Json) -> set[str]:
    """Return the types that a schema and its alternatives name."""
    named = [branch["type"] for branch in branches(document, schema) if "type" in branch]
    return {name for each in named for name in ([each] if isinstance(each, str) else each)}


def _near_what_is_listed(schema: Json) -> Iterator[Json]:
    listed = schema.get("enum", [schema["const"]] if "const" in schema else [])
    yield from listed
    for value in listed:
        if isinstance(value, str):
            yield from (value + "x", value[:-1], value.upper(), value.capitalize(), f" {value}")
        elif not isinstance(value, bool) and value is not None:
            yield from (float(value), value + 1, value - 1, value + 0.5, str(value), [value])


def _near_limits(document: Json, schema: Json) -> Iterator[Json]:
    for limit in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"):
        if limit in schema:
            bound = schema[limit]
            yield from (bound, float(bound), bound - 1, bound + 1, bound * 2, bound * 1.5)
    for limit in ("minLength", "maxLength"):
        if limit in schema:
            yield from ("x" * length for length in range(max(schema[limit] - 1, 0), schema[limit] + 2))
    for limit in ("minItems", "maxItems"):
        if limit in schema:
            item = sample(document, schema.get("items", {}))
            yield from ([item] * count for count in range(max(schema[limit] - 1, 0), schema[limit] + 2))


def sample(document: Json, schema: Json) -> Json:
    """Return a valid value, or None where none is known."""
    node = resolved(document, schema)
    if "properties" in node:
        return {name: sample(document, node["properties"].get(name, {})) for name in node.get("required", ())}
    known = [*node.get("examples", ()), *(node[key] for key in ("example", "default") if key in node)]
    valid = validator(document, node).is_valid
    return next((value for value in (*known, *values(document, node)) if valid(value)), None)


def _put(document: Json, schema: Json, body: Json, path: Path, value: Json) -> Json:
    """Return the body with a value in a place, and whatever has to be around it."""
    if not path:
        return value
    name, *rest = path
    within = list(branches(document, schema))
    if isinstance(name, int):
        inner = next((branch["items"] for branch in within if "items" in branch), {})
        before = (body if isinstance(body, list) else [])[:name]
        items = before + [sample(document, inner)] * (name + 1 - len(before))
        return [*items[:name], _put(document, inner, items[name], tuple(rest), value)]
    fields = dict(body if isinstance(body, dict) else sample(document, schema) or {})
    inner = next((each["properties"][name] for each in within if name in each.get("properties", {})), {})
    if value is _ABSENT and not rest:
        fields.pop(name, None)
    else:
        fields[name] = _put(document, inner, fields.get(name), tuple(rest), value)
    return fields


def resolved(document: Json, node: Json) -> Json:
    """Follow references."""
    while isinstance(node, dict) and "$ref" in node:
        target = document
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part.replace("~1", "/").replace("~0", "~")]
        node = target
    # A schema may also be true, which is all, or false.
    return {} if node is True else {"not": {}} if node is False else node


def validator(document: Json, schema: Json) -> Draft202012Validator:
    """Return what judges a value."""
    # The components come along, so that references keep their meaning.
    return Draft202012Validator(
        {"components": document.get("components", {}), "allOf": [schema]}, validate_formats=True
    )
