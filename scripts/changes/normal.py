"""Write a JSON Schema the one way in which the rules read it, where that is simple.

Much can be said in two ways: OpenAPI 3.0 has `nullable`, and 3.1 has null among the types; what a reference
needs beside it stands in an `allOf` of one; what may be null is often an `anyOf`. What is not simple stays as
it is: the rules then say too much rather than too little.
"""

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
# The other keywords limit one type each, so null passes them; of enum, `_or_null` knows.
_OF_EVERY_TYPE = frozenset(
    {"$ref", "$dynamicRef", "const", "not", "anyOf", "oneOf", "allOf", "if", "then", "else", "discriminator"}
)


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


def _flat(plain: Node, kind: str) -> Node:
    """Write a list of schemas into the schema that has it."""
    schemas = [normal(each) for each in plain.get(kind, [])]
    if kind != "allOf" and len(schemas) > 1:
        union = _union(schemas)
        schemas = [] if union is None else [union]
    whole: Node | None = {key: value for key, value in plain.items() if key != kind}
    for schema in schemas:
        whole = None if whole is None else _both(whole, schema)
    return plain if whole is None or not schemas else whole


def _union(schemas: list[Node]) -> Node | None:
    """Write alternatives as one: nothing but types, or a schema and null."""
    words = {key: value for each in reversed(schemas) for key, value in _words(each).items()}
    types: list[str] = []
    rest: list[Node] = []
    for schema in map(_bare, schemas):
        if schema.keys() == {"type"}:
            types += schema["type"]
        else:
            rest.append(schema)
    # A value of two types would fit anyOf, and not oneOf.
    if not rest and len(set(types)) == len(types) and not {"number", "integer"} <= set(types):
        return {**words, "type": sorted(types)}
    if len(rest) == 1 and types == ["null"] and "null" not in types_of(rest[0]):
        return None if rest[0].keys() & _OF_EVERY_TYPE else {**words, **_or_null(rest[0])}
    return None


def _or_null(schema: Node) -> Node:
    values = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return {**schema, "type": sorted([*schema["type"], "null"]), **values}


def _both(one: Node, other: Node) -> Node | None:
    """Write as one schema what has to fit two; the words of the first come first."""
    first, second, words = _bare(one), _bare(other), {**_words(other), **_words(one)}
    if not first or not second:
        return {**first, **second, **words}
    if (first.keys() | second.keys()) & _ENTANGLED:
        return None
    for mine, others in ((first, second), (second, first)):
        unknown = others.get("properties", {}).keys() - mine.get("properties", {}).keys()
        if "additionalProperties" in mine and unknown:
            return None
    shared = {key: _join(key, first[key], second[key]) for key in first.keys() & second.keys()}
    return None if None in shared.values() else {**first, **second, **shared, **words}


def _join(key: str, one: Any, other: Any) -> Any:
    """Return what has to fit two values of a keyword; None where that is not simple."""
    if same(one, other):
        return one
    match key:
        case "type":
            return sorted({*one} & {*other}) or None
        case "required":
            return sorted({*one, *other})
        case "properties":
            both = {name: {"allOf": [one[name], other[name]]} for name in one.keys() & other.keys()}
            return {**one, **other, **both}
        case _:
            return None


def _words(schema: Node) -> Node:
    return {key: value for key, value in schema.items() if key in DOCUMENTATION}


def _bare(schema: Node) -> Node:
    return {key: value for key, value in schema.items() if key not in DOCUMENTATION}
