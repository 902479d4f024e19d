"""Write a JSON Schema the one way in which the rules read it, where that is simple.

Much can be said in two ways: OpenAPI 3.0 has `nullable`, and 3.1 has null among the types; what a reference
needs beside it stands in an `allOf` of one; what may be null is often an `anyOf`. What is not simple stays as
it is: the rules then say too much rather than too little.
"""

from contextlib import suppress
from functools import reduce
from typing import Any, cast

from changes.walk import DOCUMENTATION, Node, same

EVERY_TYPE = frozenset({"null", "boolean", "object", "array", "number", "integer", "string"})
# What they mean depends on what stands beside them. So does additionalProperties, of which `_both` knows.
_ENTANGLED = frozenset(
    {
        *("$ref", "$dynamicRef", "$id", "$schema", "$defs", "discriminator", "if", "then", "else"),
        *("contains", "minContains", "maxContains", "prefixItems", "additionalItems", "unevaluatedItems"),
        *("patternProperties", "unevaluatedProperties"),
    }
)
# They ask something of null, too, as the other keywords do not: those limit one type each.
_OF_EVERY_TYPE = frozenset({"const", "not", "anyOf", "oneOf", "allOf"})


class _NotSimpleError(Exception):
    """A reason to leave a list of schemas as it is."""


def normal(node: Any) -> Node:
    """Return a schema that means the same; what it has inside, in its fields and items, is as it was."""
    if isinstance(node, bool):
        return {} if node else {"not": {}}
    plain = dict(cast("Node", node))
    if "const" in plain and "enum" not in plain:
        plain["enum"] = [plain.pop("const")]
    if "type" in plain:
        plain["type"] = sorted([plain["type"]] if isinstance(plain["type"], str) else plain["type"])
    if plain.get("enum") == [None] and "null" in types_of(plain):
        del plain["enum"]
        plain["type"] = ["null"]
    for kind in ("allOf", "anyOf", "oneOf"):
        with suppress(_NotSimpleError):
            plain = _flat(plain, kind)
    if not plain.get("nullable"):
        plain.pop("nullable", None)
    elif "type" in plain:
        plain["type"] = sorted({*plain["type"], "null"})
        del plain["nullable"]
    return plain


def types_of(plain: Node) -> set[str]:
    """Return the types that a schema allows: without a list all of them, and every integer is a number."""
    allowed = set(plain.get("type", EVERY_TYPE))
    return {*allowed, "integer"} if "number" in allowed else allowed


def split(schema: Node) -> tuple[Node, Node]:
    """Return the words of a schema, and what it asks for."""
    words = {key: value for key, value in schema.items() if key in DOCUMENTATION}
    return words, {key: value for key, value in schema.items() if key not in DOCUMENTATION}


def _flat(plain: Node, kind: str) -> Node:
    """Write a list of schemas into the schema that has it."""
    schemas = [normal(each) for each in plain.get(kind, [])]
    if not schemas:
        return plain
    if kind != "allOf" and len(schemas) > 1:
        schemas = [_union(schemas)]
    return reduce(_both, schemas, {key: value for key, value in plain.items() if key != kind})


def _union(schemas: list[Node]) -> Node:
    """Write alternatives as one: nothing but types, or a schema and null."""
    words: Node = {}
    types: list[str] = []
    rest: list[Node] = []
    for said, schema in map(split, schemas):
        words = said | words
        if schema.keys() == {"type"}:
            types += schema["type"]
        else:
            rest.append(schema)
    # A value of two types would fit anyOf, and not oneOf.
    if not rest and len(set(types)) == len(types) and not {"number", "integer"} <= set(types):
        return {**words, "type": sorted(types)}
    if len(rest) == 1 and types == ["null"] and not rest[0].keys() & (_ENTANGLED | _OF_EVERY_TYPE):
        (one,) = rest
        if "null" not in types_of(one):
            values = {"enum": [*one["enum"], None]} if "enum" in one else {}
            return {**words, **one, "type": sorted([*one["type"], "null"]), **values}
    raise _NotSimpleError


def _both(one: Node, other: Node) -> Node:
    """Write as one schema what has to fit two; the words of the first come first."""
    (my_words, mine), (other_words, others) = split(one), split(other)
    if mine and others:
        if (mine.keys() | others.keys()) & _ENTANGLED:
            raise _NotSimpleError
        for this, that in ((mine, others), (others, mine)):
            unknown = that.get("properties", {}).keys() - this.get("properties", {}).keys()
            if "additionalProperties" in this and unknown:
                raise _NotSimpleError
    shared = {key: _join(key, mine[key], others[key]) for key in mine.keys() & others.keys()}
    return {**mine, **others, **shared, **other_words, **my_words}


def _join(key: str, one: Any, other: Any) -> Any:
    """Return what has to fit two values of a keyword."""
    if same(one, other):
        return one
    if key == "type" and (types := {*one} & {*other}):
        return sorted(types)
    if key == "required":
        return sorted({*one, *other})
    if key == "properties":
        both = {name: {"allOf": [one[name], other[name]]} for name in one.keys() & other.keys()}
        return {**one, **other, **both}
    raise _NotSimpleError
