"""Compare two JSON Schemas, as OpenAPI 3.0 and 3.1 use them."""

from collections.abc import Iterator
from itertools import product
from typing import Any, cast

from changes import Change
from changes.normal import normal, split, types_of
from changes.walk import DOCUMENTATION, At, Node, Rule, alike, fate, listed, pairs, renamed, same, walk

# Those that Python has types for.
TYPED_FORMATS = frozenset({"uuid", "date", "date-time", "binary"})


def schema(old: Any, new: Any, at: At) -> Iterator[Change]:
    """Compare two schemas, whichever way they are written."""
    one, other = normal(old), normal(new)
    for kind in ("anyOf", "oneOf"):
        # `X` and `anyOf: [X]` are the same.
        if kind in one and kind not in other and not one.keys() - {kind} - DOCUMENTATION:
            other = _one_alternative(other, kind)
        elif kind in other and kind not in one and not other.keys() - {kind} - DOCUMENTATION:
            one = _one_alternative(one, kind)
    if not types_of(one) & types_of(other):
        # Of two things that have nothing in common, the rest is no matter.
        one, other = ({k: v for k, v in x.items() if k in {"type"} | DOCUMENTATION} for x in (one, other))
    yield from walk(SCHEMA, one, other, at)


def _one_alternative(plain: Node, kind: str) -> Node:
    words, rest = split(plain)
    return {**words, kind: [rest]}


def nested(suffix: str) -> Rule:
    """Make the rule for a schema inside: left out, it allows everything."""

    def rule(old: Node, new: Node, key: str, at: At) -> Iterator[Change]:
        yield from schema(old.get(key, {}), new.get(key, {}), at.inside(suffix))

    return rule


def types(old: Node, new: Node, key: str, at: At) -> Iterator[Change]:
    """A list of types."""
    del key
    one, other = types_of(old), types_of(new)
    words = f"type changed from {_type_names(old)} to {_type_names(new)}"
    if one != other:
        yield at.wider(words) if one < other else at.narrower(words) if other < one else at.breaking(words)


def _type_names(node: Node) -> str:
    return " or ".join(node.get("type", ["anything"]))


def values(old: Node, new: Node, key: str, at: At) -> Iterator[Change]:
    """A closed list of values."""
    if key not in old:
        yield at.narrower(f"now limited to {listed(new[key])}")
    elif key not in new:
        yield at.wider(f"no longer limited to {listed(old[key])}")
    else:
        if grown := [each for each in new[key] if not any(same(each, known) for known in old[key])]:
            yield at.untyped().wider(f"enum grown: {listed(grown)}")
        if shrunk := [each for each in old[key] if not any(same(each, known) for known in new[key])]:
            yield at.narrower(f"enum shrunk: {listed(shrunk)}")


def constraint(old: Node, new: Node, key: str, at: At) -> Iterator[Change]:
    """What is allowed less with it than without; of two, none is the wider one."""
    if key not in old:
        yield at.narrower(f"{key} added: {listed([new[key]])}")
    elif key not in new:
        yield at.wider(f"{key} removed: {listed([old[key]])}")
    else:
        yield at.breaking(f"{key} changed from {listed([old[key]])} to {listed([new[key]])}")


def kind_of_text(old: Node, new: Node, key: str, at: At) -> Iterator[Change]:
    """A format, which may be a type of its own."""
    typed = TYPED_FORMATS & {old.get(key), new.get(key)}
    yield from constraint(old, new, key, at if typed else at.untyped())


def limit(sign: int) -> Rule:
    """Make the rule for a lower (+1) or an upper limit (-1)."""

    def rule(old: Node, new: Node, key: str, at: At) -> Iterator[Change]:
        one, other = old.get(key), new.get(key)
        # In OpenAPI 3.0, exclusiveMinimum says True or False.
        if {type(one), type(other)} <= {int, float}:
            raised = sign * (cast("float", other) - cast("float", one)) > 0
            yield (at.narrower if raised else at.wider)(f"{key} changed from {one} to {other}")
        else:
            yield from constraint(old, new, key, at)

    return rule


def flag(old: Node, new: Node, key: str, at: At) -> Iterator[Change]:
    """A constraint that is on or off."""
    if bool(old.get(key)) != bool(new.get(key)):
        yield at.narrower(f"{key} now holds") if new.get(key) else at.wider(f"{key} no longer holds")


def fields(old: Node, new: Node, key: str, at: At) -> Iterator[Change]:
    """Fields by name. An answer may have more of them, a request need not."""
    before, after = old.get(key, {}), new.get(key, {})
    for name, one, other in pairs(before, after):
        there = at.inside(f".{name}")
        if one is not None and other is not None:
            yield from schema(one, other, there)
        elif one is None:
            required = name in new.get("required", [])
            words = f"new {'required' if required else 'optional'} field"
            yield (there.breaking if required and at.sent else there.additive)(words)
        else:
            twins = [x for x in after if x not in before and alike(SCHEMA, normal(one), normal(after[x]))]
            yield there.breaking(f"field removed{renamed(twins)}")


def required(old: Node, new: Node, key: str, at: At) -> Iterator[Change]:
    """Fields that were there before and after; `fields` tells of the others."""
    before, after = set(old.get(key, [])), set(new.get(key, []))
    for name in before ^ after:
        if (name in old.get("properties", {})) == (name in new.get("properties", {})):
            there = at.inside(f".{name}")
            yield there.narrower("now required") if name in after else there.wider("no longer required")


def further_fields(old: Node, new: Node, key: str, at: At) -> Iterator[Change]:
    """What fields without a name of their own may be; by default, everything."""
    one, other = old.get(key, True), new.get(key, True)
    if other is False:
        yield at.narrower("unknown fields no longer allowed")
    elif one is False:
        yield at.wider("unknown fields now allowed")
    else:
        yield from schema(one, other, at.inside(".*"))


def alternatives(old: Node, new: Node, key: str, at: At) -> Iterator[Change]:
    """Lists of schemas, of which one (anyOf, oneOf) or all (allOf) have to fit; their order is no matter."""
    gone, come = list(old.get(key, [])), list(new.get(key, []))
    for one, other in product(old.get(key, []), new.get(key, [])):
        if one in gone and other in come and alike(SCHEMA, normal(one), normal(other)):
            gone.remove(one)
            come.remove(other)
            yield from schema(one, other, at)
    if len(gone) == len(come):
        for one, other in zip(gone, come, strict=True):
            yield from schema(one, other, at)
    elif gone and come:
        yield at.breaking(f"{key} changed; judge it by hand")
    else:
        kinds = listed(_type_names(normal(each)) for each in gone or come)
        words = f"{key} {fate(gone or None, come or None)}: {kinds}"
        # Where there was no list, everything was allowed.
        more_is_wider = key != "allOf" and key in old and key in new
        yield at.wider(words) if more_is_wider == bool(come) else at.narrower(words)


def default(old: Node, new: Node, key: str, at: At) -> Iterator[Change]:
    """What leaving a field out means to the server."""
    words = f"default {fate(old.get(key), new.get(key))}"
    yield at.breaking(words) if at.sent else at.doc_only(words)


def untyped(rule: Rule) -> Rule:
    """Make the rule for what no type tells of."""

    def silent(old: Node, new: Node, key: str, at: At) -> Iterator[Change]:
        yield from rule(old, new, key, at.untyped())

    return silent


LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
SCHEMA: dict[str, Rule] = {
    "type": types,
    "enum": values,
    "format": kind_of_text,
    **dict.fromkeys(("pattern", "multipleOf", "not"), untyped(constraint)),
    **dict.fromkeys(LOWER, untyped(limit(+1))),
    **dict.fromkeys(UPPER, untyped(limit(-1))),
    "uniqueItems": untyped(flag),
    "properties": fields,
    "required": required,
    "additionalProperties": further_fields,
    "items": nested("[]"),
    **dict.fromkeys(("anyOf", "oneOf", "allOf"), alternatives),
    "default": untyped(default),
}
