"""Rewrite a JSON Schema in the one form that the rules compare, where that is simple.

`nullable` (OpenAPI 3.0), a null among the types (3.1), and an `anyOf` with null mean the same; so do a schema
and an `allOf` of it alone. A schema that cannot be rewritten simply stays as it is: then the report says too
much rather than too little.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import reduce
from typing import Any, TypeAlias, cast

from changes.document import DOCUMENTATION, Node, same

EVERY_TYPE = frozenset({"null", "boolean", "object", "array", "number", "integer", "string"})
# The meaning of these depends on what is beside them.
_ENTANGLED = frozenset(
    {
        *("$ref", "$dynamicRef", "$id", "$schema", "$defs", "discriminator", "if", "then", "else"),
        *("contains", "minContains", "maxContains", "prefixItems", "additionalItems", "unevaluatedItems"),
        *("patternProperties", "unevaluatedProperties"),
    }
)
# These apply to null, too; other keywords apply to values of one type.
_OF_EVERY_TYPE = frozenset({"const", "not", "anyOf", "oneOf", "allOf"})
Resolve: TypeAlias = Callable[[Any, frozenset[str]], tuple[Any, frozenset[str]]]


class _NotSimpleError(Exception):
    """A reason to leave a list of schemas as it is."""


def unresolved(node: Any, through: frozenset[str]) -> tuple[Any, frozenset[str]]:
    """Return a node as it is."""
    return node, through


def normal(
    node: Any, resolve: Resolve = unresolved, *, nullable: bool = True, through: frozenset[str] = frozenset()
) -> Node:
    """Return a schema with the same meaning; schemas in its fields and items stay as they are.

    Args:
        node: the schema.
        resolve: follows a reference, unless it is one of those that were followed already.
        nullable: whether `nullable` means something, as it does in OpenAPI 3.0 only.
        through: the references that were followed already.
    """
    node, through = resolve(node, through)
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
        schemas = [normal(each, resolve, nullable=nullable, through=through) for each in plain.get(kind, [])]
        with suppress(_NotSimpleError):
            if schemas:
                parts = schemas if kind == "allOf" or len(schemas) == 1 else [_union(schemas)]
                plain = reduce(_both, parts, {key: value for key, value in plain.items() if key != kind})
    if not (nullable and plain.get("nullable")):
        plain.pop("nullable", None)
    elif "type" in plain:
        plain["type"] = sorted({*plain["type"], "null"})
        del plain["nullable"]
    return plain


def types_of(plain: Node) -> set[str]:
    """Return the types that a schema allows: all without a list, and every integer is a number."""
    allowed = set(plain.get("type", EVERY_TYPE))
    return {*allowed, "integer"} if "number" in allowed else allowed


def split(schema: Node) -> tuple[Node, Node]:
    """Return the documentation in a schema, and the rest."""
    words = {key: value for key, value in schema.items() if key in DOCUMENTATION}
    return words, {key: value for key, value in schema.items() if key not in words}


def _union(schemas: list[Node]) -> Node:
    """Return alternatives as one schema, if they are only types, or one schema and null."""
    words: Node = {}
    types: list[str] = []
    rest: list[Node] = []
    for documentation, schema in map(split, schemas):
        words = documentation | words
        if schema.keys() == {"type"}:
            types += schema["type"]
        else:
            rest.append(schema)
    # A value of two of the types would match anyOf, but not oneOf.
    if not rest and len(set(types)) == len(types) and not {"number", "integer"} <= set(types):
        return {**words, "type": sorted(types)}
    if len(rest) == 1 and types == ["null"] and not rest[0].keys() & (_ENTANGLED | _OF_EVERY_TYPE):
        (one,) = rest
        if "null" not in types_of(one):
            values = {"enum": [*one["enum"], None]} if "enum" in one else {}
            return {**words, **one, "type": sorted([*one["type"], "null"]), **values}
    raise _NotSimpleError


def _both(one: Node, other: Node) -> Node:
    """Return two schemas that must both match as one."""
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
    """Return the value of a keyword that stands for two values which must both match."""
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
