"""Compare two OpenAPI documents. This walks; `rules` judges."""

import json
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from itertools import product
from typing import Any, TypeAlias, cast

from attrs import define, evolve, field

from changes import Change, Impact
from changes.document import DOCUMENTATION, Document, Node, references, same
from changes.normal import normal, split, types_of
from changes.rules import At

Changes: TypeAlias = Iterable[Change]
Walker: TypeAlias = Callable[["Comparison", Node, Node, str, At], Changes]
"""Compares the values of one keyword in two nodes."""


def compare(old: Node, new: Node) -> list[Change]:
    """Return every change between two documents; none if they are the same."""
    comparison = Comparison(Document(old), Document(new))
    at = At("the document")
    one, other = ({key: value for key, value in x.items() if key != "components"} for x in (old, new))
    found = {*comparison.walk(DOCUMENT, one, other, at), *comparison.components()}
    if not found and not same(old, new):
        found = {at.note("written differently")}
    return sorted(found)


@define
class Comparison:
    """Two documents, and what is known of the pairs of references that were compared already."""

    old: Document
    new: Document
    _known: dict[tuple[Any, ...], list[Change]] = field(factory=dict[tuple[Any, ...], list[Change]])

    def walk(self, keywords: dict[str, Walker], old: Node, new: Node, at: At) -> Iterator[Change]:
        """Compare two nodes keyword by keyword."""
        found = False
        for key, one, other in pairs(old, new):
            if key in keywords:
                changes = keywords[key](self, old, new, key, at)
            elif same(one, other) and (key in old) == (key in new):
                continue
            elif key in DOCUMENTATION:
                changes = [at.note("documentation changed", key=key, fate=fate(one, other))]
            elif key == "deprecated":
                rule = "deprecated" if other else "documentation changed"
                changes = [at.note(rule, key=key, fate=fate(one, other))]
            else:
                changes = [at.note("something else", key=key, fate=fate(one, other))]
            for change in changes:
                found = True
                yield change
        if not found and not same(old, new):
            yield at.note("written differently")

    def schema(self, old: Any, new: Any, at: At) -> Changes:
        """Compare two schemas; the same pair is compared once for requests and once for responses."""
        if self.old.is_3_0 == self.new.is_3_0 and same(old, new) and self._unchanged >= {*references(old)}:
            return ()
        pair = (json.dumps(old), json.dumps(new), at.sent, at.typed)
        if pair not in self._known:
            # A schema that contains itself: what differs in it is found where it is first met.
            self._known[pair] = []
            self._known[pair] = list(self._schema(old, new, evolve(at, place="")))
        return [evolve(change, where=at.place + change.where) for change in self._known[pair]]

    def _schema(self, old: Any, new: Any, at: At) -> Iterator[Change]:
        one, other = self.normal(old, self.old), self.normal(new, self.new)
        for kind in ("anyOf", "oneOf"):
            # `X` and `anyOf: [X]` are the same.
            if kind in one and kind not in other and not split(one)[1].keys() - {kind}:
                other = split(other)[0] | {kind: [split(other)[1]]}
            elif kind in other and kind not in one and not split(other)[1].keys() - {kind}:
                one = split(one)[0] | {kind: [split(one)[1]]}
        if not types_of(one) & types_of(other):
            # Without a common value, only the types matter.
            one, other = ({k: v for k, v in x.items() if k in {"type"} | DOCUMENTATION} for x in (one, other))
        yield from self.walk(SCHEMA, one, other, at)

    @cached_property
    def _unchanged(self) -> set[str]:
        """References to what is the same in both documents, with everything that it refers to."""
        found = self.old.references & self.new.references
        uses = {name: set(references(self.old.find(name))) for name in found}
        found = {name for name in found if same(self.old.find(name), self.new.find(name))}
        while changed := {name for name in found if not uses[name] <= found}:
            found -= changed
        return found

    @staticmethod
    def normal(node: Any, document: Document) -> Node:
        """Return a schema of a document in the one form that is compared."""
        return normal(node, document.resolve, nullable=document.is_3_0)

    def alike(self, keywords: dict[str, Walker] | None, one: Any, other: Any) -> bool:
        """Return whether two nodes (two schemas without `keywords`) differ in name and words at most."""
        if keywords is None:
            changes = self.schema(one, other, At())
        else:
            changes = self.walk(keywords, one | {"in": ""}, other | {"in": ""}, At())
        return all(change.impact is Impact.DOC_ONLY for change in changes)

    def components(self) -> Iterator[Change]:
        """Compare the components that no operation uses, and what security schemes say beside their kind."""
        before, after = (x.source.get("components", {}) for x in (self.old, self.new))
        used = self.old.used() | self.new.used()
        for section in sorted(before.keys() | after.keys()):
            for name, one, other in pairs(before.get(section, {}), after.get(section, {})):
                at = At(f"components.{section}.{name}")
                if section == "securitySchemes" and one and other:
                    # `security` of each operation tells of these.
                    kind = dict.fromkeys(("type", "in", "name", "scheme"))
                    yield from self.walk({}, one | kind, other | kind, at)
                elif (section, name) not in used and not same(one, other):
                    yield at.note("unused component changed", fate=fate(one, other))


# How operations are compared


def _operations(c: Comparison, _old: Node, _new: Node, key: str, at: At) -> Changes:
    """Operations by method and path; one that is gone may be another one with its operationId."""
    before, after = c.old.operations(key), c.new.operations(key)
    kind = "operation" if key == "paths" else "webhook"
    for name, one, other in pairs(before, after):
        # A service sends a webhook, and the client answers.
        at = At(name, sent=True, typed=True) if key == "paths" else At(f"webhook {name}", sent=False)
        moved = [x for x in after.keys() - before.keys() if one and _id(after[x]) == _id(one) is not None]
        if (one is not None and other is not None) or " " not in name:
            yield from c.walk(OPERATION, one or {}, other or {}, evolve(at, typed=False))
        elif one is None:
            yield at.note(f"{kind} added")
        elif moved:
            yield at.note(f"{kind} moved", new=moved[0])
            yield from c.walk(OPERATION, one, after[moved[0]], At(moved[0]))
        else:
            yield at.note(f"{kind} removed")


def _id(operation: Node) -> Any:
    return operation.get("operationId")


def _inherited(_c: Comparison, _old: Node, _new: Node, _key: str, _at: At) -> Changes:
    """Report nothing: the operations have it."""
    return ()


def _operation_id(_c: Comparison, old: Node, new: Node, key: str, at: At) -> Changes:
    if _id(old) != _id(new):
        yield at.note("operationId changed", old=str(old.get(key)), new=str(new.get(key)))


def _security(_c: Comparison, old: Node, new: Node, key: str, at: At) -> Changes:
    """Ways to be authorized: of each, everything is needed."""
    gone, come = old.get(key, {}).keys() - new.get(key, {}), new.get(key, {}).keys() - old.get(key, {})
    if len(old.get(key, {})) == len(new.get(key, {})) == 1 and gone:
        before, after = (set("".join(x).split(" and ")) - {"nothing"} for x in (gone, come))
        yield from (at.note("security needs more", new=each) for each in after - before)
        yield from (at.note("security needs less", old=each) for each in before - after)
    else:
        yield from (at.note("security accepts less", old=each) for each in gone)
        yield from (at.note("security accepts more", new=each) for each in come)


def _parameters(c: Comparison, old: Node, new: Node, key: str, at: At) -> Changes:
    before, after = old.get(key, {}), new.get(key, {})
    for name, one, other in pairs(before, after):
        there = evolve(at.inside(f" {name}"), typed=True)
        if one is None:
            yield there.note(f"{_need(other)} parameter added")
        elif other is None:
            twins = [x for x in after if x not in before and c.alike(PARAMETER, one, after[x])]
            yield there.note("parameter removed", renamed=_renamed(twins))
        else:
            yield from c.walk(PARAMETER, one | {"in": ""}, other | {"in": ""}, there)


def _body(c: Comparison, old: Node, new: Node, key: str, at: At) -> Changes:
    one, other = _resolved(c, old.get(key), new.get(key))
    there = evolve(at.inside(" request"), typed=True)
    if one is None or other is None:
        yield there.note("body removed" if other is None else f"{_need(other)} body added")
    else:
        yield from c.walk(BODY, one, other, there)


def _responses(c: Comparison, old: Node, new: Node, key: str, at: At) -> Changes:
    for status, *both in pairs(old.get(key, {}), new.get(key, {})):
        one, other = _resolved(c, *both)
        success = status.startswith("2")
        there = At(f"{at.place} {status}", sent=not at.sent, typed=success)
        if one is None or other is None:
            yield there.note(f"{'success' if success else 'error'} {fate(one, other)}")
        else:
            yield from c.walk(RESPONSE, one, other, there)


def _named(kind: str, keywords: dict[str, Walker]) -> Walker:
    """Return the walker for things with names, such as headers."""

    def walker(c: Comparison, old: Node, new: Node, key: str, at: At) -> Changes:
        before, after = (_by_name(node.get(key, {})) for node in (old, new))
        for name, *both in pairs(before, after):
            one, other = _resolved(c, *both)
            there = at
            if kind == "content type":
                there = at.inside(" body" if name == "application/json" else f" body ({name})")
            elif kind != "server" or (one and other):
                there = evolve(at.inside(f" {kind} {name}"), typed=False)
            if one is None or other is None:
                yield there.note(f"{kind} {fate(one, other)}", name=name)
            else:
                yield from c.walk(keywords, one, other, there)

    return walker


# How schemas are compared


def _nested(suffix: str) -> Walker:
    """Return the walker for a schema; without it, everything is allowed."""

    def walker(c: Comparison, old: Node, new: Node, key: str, at: At) -> Changes:
        return c.schema(old.get(key, {}), new.get(key, {}), at.inside(suffix))

    return walker


def _types(_c: Comparison, old: Node, new: Node, _key: str, at: At) -> Changes:
    one, other = types_of(old), types_of(new)
    if one != other:
        how = "wider" if one < other else "narrower" if other < one else "changed"
        yield at.note(f"type {how}", old=_type_names(old), new=_type_names(new))


def _type_names(node: Node) -> str:
    return " or ".join(node.get("type", ["anything"]))


def _values(_c: Comparison, old: Node, new: Node, key: str, at: At) -> Changes:
    if key not in old or key not in new:
        one, other = old.get(key), new.get(key)
        yield at.note(f"enum {fate(one, other)}", old=_text(one), new=_text(other))
        return
    gone, come = (
        [each for each in one[key] if not any(same(each, known) for known in other[key])]
        for one, other in ((old, new), (new, old))
    )
    yield from [at.note("enum grown", new=_text(come))] if come else []
    yield from [at.note("enum shrunk", old=_text(gone))] if gone else []


def _constraint(kind: str = "") -> Walker:
    """Return the walker for what allows less with it than without it; of two limits, it knows the tighter."""

    def walker(_c: Comparison, old: Node, new: Node, key: str, at: At) -> Changes:
        one, other = old.get(key), new.get(key)
        if kind == "flag":
            one, other = bool(one), bool(other)
        if same(one, other):
            return
        # Generated code has types for these formats.
        rule = "typed format" if key == "format" and {one, other} & TYPED_FORMATS else "constraint"
        rule = f"{rule} {fate(one, other)}"
        if kind == "flag":
            rule = "flag on" if other else "flag off"
        # In OpenAPI 3.0, exclusiveMinimum is a bool.
        elif kind and {type(one), type(other)} <= {int, float}:
            raised = cast("float", other) > cast("float", one)
            rule = "limit tighter" if raised == (kind == "lower") else "limit looser"
        yield at.note(rule, key=key, old=_text(one), new=_text(other))

    return walker


def _fields(c: Comparison, old: Node, new: Node, key: str, at: At) -> Changes:
    before, after = old.get(key, {}), new.get(key, {})
    for name, one, other in pairs(before, after):
        there = at.inside(f".{name}")
        if one is None:
            yield there.note(f"{_need({'required': name in new.get('required', [])})} field added")
        elif other is None:
            twins = [x for x in after if x not in before and c.alike(None, one, after[x])]
            yield there.note("field removed", renamed=_renamed(twins))
        else:
            yield from c.schema(one, other, there)


def _required(_c: Comparison, old: Node, new: Node, key: str, at: At) -> Changes:
    """Fields that were there before and after; `_fields` has the others."""
    if isinstance(old.get(key, new.get(key)), bool):
        # A parameter, a header or a body.
        if bool(old.get(key)) != bool(new.get(key)):
            yield at.note("now required" if new.get(key) else "no longer required")
        return
    before, after = set(old.get(key, [])), set(new.get(key, []))
    for name in before ^ after:
        if (name in old.get("properties", {})) == (name in new.get("properties", {})):
            yield at.inside(f".{name}").note("now required" if name in after else "no longer required")


def _unknown_fields(c: Comparison, old: Node, new: Node, key: str, at: At) -> Changes:
    one, other = old.get(key, True), new.get(key, True)
    if (one is False) != (other is False):
        yield at.note(f"unknown fields {'rejected' if other is False else 'allowed'}")
    elif one is not False:
        yield from c.schema(one, other, at.inside(".*"))


def _alternatives(c: Comparison, old: Node, new: Node, key: str, at: At) -> Changes:
    """Compare lists of schemas, of which one (anyOf, oneOf) or all (allOf) must match, in any order."""
    before, after = old.get(key, []), new.get(key, [])
    gone, come = [x for x in before if x not in after], [x for x in after if x not in before]
    for one in [x for x in before if x in after]:
        yield from c.schema(one, one, at)
    for one, other in product(tuple(gone), tuple(come)):
        if one in gone and other in come and c.alike(None, one, other):
            gone.remove(one)
            come.remove(other)
            yield from c.schema(one, other, at)
    if len(gone) == len(come):
        for one, other in zip(gone, come, strict=True):
            yield from c.schema(one, other, at)
    elif gone and come:
        yield at.note("alternatives changed", key=key)
    else:
        # Without a list, everything was allowed.
        kind = "alternative" if key != "allOf" and key in old and key in new else "condition"
        normalized = [*(c.normal(x, c.old) for x in gone), *(c.normal(x, c.new) for x in come)]
        kinds = _text([_type_names(each) for each in normalized])
        yield at.note(f"{kind} {fate(gone or None, come or None)}", key=key, old=kinds, new=kinds)


def _default(_c: Comparison, old: Node, new: Node, key: str, at: At) -> Changes:
    if not same(old.get(key), new.get(key)) or (key in old) != (key in new):
        yield at.note("default changed", fate=fate(old.get(key), new.get(key)))


# Helpers


def _resolved(c: Comparison, one: Any, other: Any) -> tuple[Any, Any]:
    return c.old.resolve(one)[0], c.new.resolve(other)[0]


def _by_name(things: Any) -> Node:
    """Return things that have names by name, and servers by URL."""
    if isinstance(things, dict):
        return cast("Node", things)
    return {str(each.get("url")): each for each in cast("Iterable[Node]", things)}


def _need(node: Node) -> str:
    return "required" if node.get("required") else "optional"


def _renamed(twins: list[str]) -> str:
    """Suggest that what is gone is now the only thing of its shape that came."""
    return f" (renamed to {twins[0]}?)" if len(twins) == 1 else ""


def _text(value: Any) -> str:
    """Return JSON values as text."""
    values = cast("Iterable[Any]", value) if isinstance(value, list) else [value]
    return ", ".join(each if isinstance(each, str) else json.dumps(each) for each in values)


def fate(before: Any, after: Any) -> str:
    """Return what happened to something that differs; None means that it is not there."""
    return "added" if before is None else "removed" if after is None else "changed"


def pairs(old: Node, new: Node) -> Iterator[tuple[str, Any, Any]]:
    """Return every name of either with both values; None means that there is none."""
    for name in sorted(old.keys() | new.keys()):
        yield name, old.get(name), new.get(name)


LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
TYPED_FORMATS = {"uuid", "date", "date-time", "binary"}
SCHEMA: dict[str, Walker] = {
    "type": _types,
    "enum": _values,
    **dict.fromkeys(("format", "pattern", "multipleOf", "not"), _constraint()),
    **dict.fromkeys(LOWER, _constraint("lower")),
    **dict.fromkeys(UPPER, _constraint("upper")),
    "uniqueItems": _constraint("flag"),
    "properties": _fields,
    "required": _required,
    "additionalProperties": _unknown_fields,
    "items": _nested("[]"),
    **dict.fromkeys(("anyOf", "oneOf", "allOf"), _alternatives),
    "default": _default,
}
MEDIA_TYPE: dict[str, Walker] = {"schema": _nested("")}
PARAMETER: dict[str, Walker] = {"required": _required, "schema": _nested("")}
CONTENT = _named("content type", MEDIA_TYPE)
BODY: dict[str, Walker] = {"required": _required, "content": CONTENT}
RESPONSE: dict[str, Walker] = {
    "content": CONTENT,
    "headers": _named("header", PARAMETER),
    "links": _named("link", {}),
}
SERVERS = _named("server", {})
OPERATION: dict[str, Walker] = {
    "operationId": _operation_id,
    "parameters": _parameters,
    "requestBody": _body,
    "responses": _responses,
    "security": _security,
    "servers": SERVERS,
    "callbacks": _named("callback", {}),
}
DOCUMENT: dict[str, Walker] = {
    "servers": SERVERS,
    "paths": _operations,
    "webhooks": _operations,
    "security": _inherited,
}
