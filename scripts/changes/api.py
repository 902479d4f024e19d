"""Compare two OpenAPI documents. This walks; `rules` judges.

A schema that both documents refer to by the same name is compared once for requests and once for responses,
and is not expanded where it is used. So the time grows with the size of the documents.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from itertools import product
from typing import Any, TypeAlias, cast

from attrs import define, evolve, field, frozen

from changes import Change, Impact
from changes.document import DOCUMENTATION, Document, Node, reference_to, same, steps
from changes.normal import normal, split, types_of
from changes.rules import At


@frozen
class Use:
    """A place that refers to the same schema in both documents."""

    old: str
    new: str
    """The reference in each document; they differ if the schema was renamed."""
    at: At


Changes: TypeAlias = Iterable[Change | Use]
Walker: TypeAlias = Callable[["Comparison", Node, Node, str, At], Changes]
"""Compares the values of one keyword in two nodes."""


def compare(old: Node, new: Node) -> list[Change]:
    """Return every change between two documents; none if they are the same."""
    comparison = Comparison(Document(old), Document(new))
    at = At("the document")
    one, other = ({key: value for key, value in x.items() if key != "components"} for x in (old, new))
    schemas = Schemas(comparison)
    found = set(schemas.trace(comparison.walk(DOCUMENT, one, other, at), None))
    found |= {*schemas.changes(), *comparison.components()}
    if not found and not same(old, new):
        found = {at.note("written differently")}
    return sorted(found)


@define
class Comparison:
    """Two documents, and what is known of the pairs of schemas that were compared already."""

    old: Document
    new: Document
    _known: dict[tuple[Any, ...], list[Change | Use]] = field(
        factory=dict[tuple[Any, ...], list[Change | Use]]
    )

    def walk(self, keywords: dict[str, Walker], old: Node, new: Node, at: At) -> Iterator[Change | Use]:
        """Compare two nodes keyword by keyword."""
        found = False
        for key, one, other in pairs(old, new):
            if key in keywords:
                changes = keywords[key](self, old, new, key, at)
            elif same(one, other) and (key in old) == (key in new):
                continue
            elif key in DOCUMENTATION or key.startswith("x-"):
                changes = [at.note("documentation changed", key=key, fate=fate(one, other))]
            elif key == "deprecated":
                rule = "deprecated" if other else "documentation changed"
                changes = [at.note(rule, key=key, fate=fate(one, other))]
            else:
                changes = keywords.get("*", _by_hand)(self, old, new, key, at)
            for change in changes:
                found = found or isinstance(change, Change)
                yield change
        if not found and not same(old, new):
            yield at.note("written differently")

    def schema(self, old: Any, new: Any, at: At) -> Changes:
        """Compare two schemas; the same pair is compared once for requests and once for responses."""
        if self._same(old, new):
            return [Use(name, name, at.inside(place)) for place, name in _uses(old)]
        before, after = _names(old), _names(new)
        known = {self.renamed.get(name, name) for name in before}
        if "$ref" in old and "$ref" in new and known == after:
            one, other = ({key: x[key] for key in x.keys() & DOCUMENTATION} for x in (old, new))
            ignored = self.old.is_3_0 and self.new.is_3_0
            if ignored or {*old, *new} <= DOCUMENTATION | {"$ref"}:
                return [Use(old["$ref"], new["$ref"], at), *self.walk({}, one, other, at)]
        if known != after:
            followed = at.followed | {name for name, side in (("old", before), ("new", after)) if side}
            if at.followed and followed == BOTH:
                # What different components consist of would lead from each schema to each other one.
                return [at.note("schema replaced", old=_named_parts(before), new=_named_parts(after))]
            at = evolve(at, followed=followed)
        pair = (json.dumps(old), json.dumps(new), at.sent, at.typed, at.followed)
        if pair not in self._known:
            # A schema that contains itself: what differs in it is found where it is first met.
            self._known[pair] = []
            self._known[pair] = list(self._schema(old, new, evolve(at, place="")))
        return [_moved(each, at) for each in self._known[pair]]

    def _schema(self, old: Any, new: Any, at: At) -> Iterator[Change | Use]:
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

    def component(self, use: Use) -> Changes:
        """Compare a schema with what it became."""
        at, old, new = evolve(use.at, place=""), self.old.find(use.old), self.new.find(use.new)
        if old is not None and self._same(old, new):
            return self.schema(old, new, at)
        return self._schema({"$ref": use.old}, {"$ref": use.new}, at)

    def _same(self, old: Any, new: Any) -> bool:
        """Return whether two schemas differ at most in what they refer to."""
        return self.old.is_3_0 == self.new.is_3_0 and same(old, new)

    @cached_property
    def renamed(self) -> dict[str, str]:
        """New references by old ones: of a schema that is gone, and the only new one with the same fields."""
        before, after = (x.source.get("components", {}).get("schemas", {}) for x in (self.old, self.new))
        shapes: list[dict[str, list[str]]] = []
        for these, others in ((before, after), (after, before)):
            shapes.append({})
            for name in these.keys() - others.keys():
                shapes[-1].setdefault(_shape(these[name]), []).append(name)
        return {
            reference_to(one[0]): reference_to(other[0])
            for shape, one in shapes[0].items()
            if len(one) == len(other := shapes[1].get(shape, [])) == 1
        }

    @staticmethod
    def normal(node: Any, document: Document) -> Node:
        """Return a schema of a document in the one form that is compared."""
        return normal(node, document.resolve, nullable=document.is_3_0)

    def alike(self, keywords: dict[str, Walker] | None, one: Any, other: Any) -> bool:
        """Return whether two nodes (two schemas without `keywords`) differ in name and words at most."""
        if keywords is None:
            changes = self.schema(one, other, At(followed=BOTH))
        else:
            anywhere = {"in": "", "style": "", "explode": ""}
            changes = self.walk(keywords, one | anywhere, other | anywhere, At(followed=BOTH))
        return all(isinstance(change, Use) or change.impact is Impact.DOC_ONLY for change in changes)

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
                    for change in self.walk(SCHEME, one | kind, other | kind, at):
                        yield cast("Change", change)
                elif (section, name) not in used and not same(one, other):
                    yield at.note("unused component changed", fate=fate(one, other))


BOTH = frozenset({"old", "new"})
Direction: TypeAlias = tuple[str, str, bool]
"""The references to a schema in both documents, and whether clients send it."""


@define
class Schemas:
    """The schemas with the same name in both documents, each compared once, and the places that use them."""

    comparison: Comparison
    _found: dict[Direction, list[Change]] = field(factory=dict[Direction, list[Change]])
    _used: dict[Direction, dict[tuple[Direction | None, str], At]] = field(
        factory=dict[Direction, dict[tuple[Direction | None, str], At]]
    )
    _todo: list[Use] = field(factory=list[Use])
    _typed: set[Direction] = field(factory=set[Direction])

    def trace(self, changes: Changes, owner: Direction | None) -> Iterator[Change]:
        """Return the changes, and keep the uses of schemas."""
        for each in changes:
            if isinstance(each, Change):
                yield each
                continue
            direction = (each.old, each.new, each.at.sent)
            places = self._used.setdefault(direction, {})
            # A schema that generated code reads in errors only has no type for its users.
            if not places or (each.at.typed and direction not in self._typed):
                self._todo.append(each)
                self._typed |= {direction} if each.at.typed else set()
            if owner != direction:
                places[owner, each.at.place] = each.at

    def changes(self) -> Iterator[Change]:
        """Compare every schema that is used; a change has the place of the only use, or the schema's name."""
        while self._todo:
            use = self._todo.pop()
            direction = (use.old, use.new, use.at.sent)
            self._found[direction] = list(self.trace(self.comparison.component(use), direction))
        for direction, found in self._found.items():
            place = self._place(direction) if found else ""
            if place is not None:
                yield from (evolve(change, where=place + change.where) for change in found)
                continue
            operations = self._operations[direction]
            _, reference, sent = direction
            where = f"{'requests' if sent else 'responses'} of {operations} operation{'s' * (operations > 1)}"
            name = ".".join(steps(reference))
            for change in found:
                yield evolve(change, where=name + change.where, what=f"{change.what}; in {where}")

    def _place(self, direction: Direction) -> str | None:
        """Return the only place that uses a schema; None if there are several."""
        place = ""
        seen: set[Direction] = set()
        while direction not in seen and len(self._used[direction]) == 1:
            seen.add(direction)
            ((owner, inside),) = self._used[direction]
            place = inside + place
            if owner is None:
                return place
            direction = owner
        return None

    @cached_property
    def _operations(self) -> dict[Direction, int]:
        """How many operations use each schema, directly or by way of others."""
        names = {at.operation for places in self._used.values() for at in places.values()}
        bit_of = {name: 1 << number for number, name in enumerate(sorted(names))}
        # A set of operations is one integer: in large documents, most operations use most schemas.
        found = dict.fromkeys(self._used, 0)
        settled = False
        while not settled:
            settled = True
            for direction, places in self._used.items():
                bits = found[direction]
                for (owner, _), at in places.items():
                    bits |= bit_of[at.operation] if owner is None else found[owner]
                settled = settled and bits == found[direction]
                found[direction] = bits
        return {direction: bits.bit_count() for direction, bits in found.items()}


def _names(schema: Any) -> set[str]:
    """Return the components that a schema consists of; those in its fields and items do not count."""
    names: set[str] = set()
    todo = [schema]
    while todo:
        each = todo.pop()
        if isinstance(each, dict):
            fields = cast("Node", each)
            names |= {fields["$ref"]} if str(fields.get("$ref")).startswith("#/") else set()
            todo += [one for kind in ("allOf", "anyOf", "oneOf") for one in fields.get(kind, [])]
    return names


def _named_parts(references: set[str]) -> str:
    return " or ".join(steps(each)[-1] for each in sorted(references)) or "an unnamed schema"


def _shape(schema: Any) -> str:
    """Return what a schema is recognized by if it was renamed."""
    fields: Node = cast("Node", schema) if isinstance(schema, dict) else {}
    return json.dumps(sorted(fields.get("properties", {})) or split(fields)[1])


def _uses(schema: Any) -> Iterator[tuple[str, str]]:
    """Return the place below a schema of each reference in it, and the reference."""
    todo: list[tuple[str, Any]] = [("", schema)]
    while todo:
        place, each = todo.pop()
        if isinstance(each, list):
            todo += [(place, inner) for inner in cast("Iterable[Any]", each)]
            continue
        fields = cast("Node", each) if isinstance(each, dict) else {}
        if str(fields.get("$ref")).startswith("#/"):
            yield place, fields["$ref"]
        for key, value in fields.items():
            if key in {"properties", "patternProperties"}:
                todo += [(f"{place}.{name}", field) for name, field in value.items()]
            elif key in {"items", "additionalProperties"}:
                todo.append((place + ("[]" if key == "items" else ".*"), value))
            elif key not in {"discriminator", "example", "examples", "default", "enum", "const"}:
                todo.append((place, value))


def _moved(each: Change | Use, at: At) -> Change | Use:
    """Return a change or a use at a place below another one."""
    if isinstance(each, Change):
        return evolve(each, where=at.place + each.where)
    return evolve(each, at=at.inside(each.at.place))


# How operations are compared


def _operations(c: Comparison, old: Node, new: Node, key: str, _at: At) -> Changes:
    """Operations by method and path; one that is gone may be another one with its operationId."""
    before, after = c.old.operations(old.get(key, {})), c.new.operations(new.get(key, {}))
    for name, one, other in pairs(before, after):
        at = At(name, typed=True, operation=name)
        moved = [x for x in after.keys() - before.keys() if one and _id(after[x]) == _id(one) is not None]
        if (one is not None and other is not None) or " " not in name:
            yield from c.walk(OPERATION, one or {}, other or {}, evolve(at, typed=False))
        elif one is None:
            yield at.note("operation added")
        elif moved:
            yield at.note("operation moved", new=moved[0])
            yield from c.walk(OPERATION, one, after[moved[0]], At(moved[0], operation=moved[0]))
        else:
            yield at.note("operation removed")


def _webhooks(c: Comparison, old: Node, new: Node, key: str, _at: At) -> Changes:
    """Webhooks: the service sends them, and the client answers."""
    yield from _sent_by_the_service(c, old.get(key, {}), new.get(key, {}), "webhook", "webhook")


def _callbacks(c: Comparison, old: Node, new: Node, key: str, at: At) -> Changes:
    """Callbacks by name: of each, the requests to the URLs that an operation was given."""
    for name, *both in pairs(old.get(key, {}), new.get(key, {})):
        one, other = _resolved(c, *both)
        place = f"{at.place} callback {name}"
        if one is None or other is None:
            yield evolve(at, place=place).note(f"callback {fate(one, other)}")
        else:
            yield from _sent_by_the_service(c, one, other, "callback", place)


def _sent_by_the_service(c: Comparison, old: Node, new: Node, kind: str, place: str) -> Changes:
    for name, one, other in pairs(c.old.operations(old), c.new.operations(new)):
        there = At(f"{place} {name}", sent=False, operation=f"{place} {name}")
        if (one is None or other is None) and " " in name:
            yield evolve(there, sent=True).note(f"{kind} {fate(one, other)}")
        else:
            yield from c.walk(OPERATION, one or {}, other or {}, there)


def _id(operation: Node) -> Any:
    return operation.get("operationId")


def _elsewhere(_c: Comparison, _old: Node, _new: Node, _key: str, _at: At) -> Changes:
    """Report nothing: the places that use it do."""
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
        there = evolve(at, place=f"{at.place} {status}", sent=not at.sent, typed=success)
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
        if same(one, other):
            return
        # Generated code has types for these formats.
        rule = "typed format" if key == "format" and {one, other} & TYPED_FORMATS else "constraint"
        rule = f"{rule} {fate(one, other)}"
        if key == "format" and (one, other) in WIDER_FORMATS:
            rule = "limit looser"
        elif key == "format" and (other, one) in WIDER_FORMATS:
            rule = "limit tighter"
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
        return
    # Without a list, everything was allowed.
    kind = "alternative" if key != "allOf" and key in old and key in new else "condition"
    for schemas, document, what in ((gone, c.old, "removed"), (come, c.new, "added")):
        if schemas:
            kinds = _text([_type_names(c.normal(each, document)) for each in schemas])
            yield at.note(f"{kind} {what}", key=key, old=kinds, new=kinds)


def _flag(on: str, off: str) -> Walker:
    """Return the walker for a keyword that is true or false."""

    def walker(_c: Comparison, old: Node, new: Node, key: str, at: At) -> Changes:
        if bool(old.get(key)) != bool(new.get(key)):
            yield at.note(on if new.get(key) else off, key=key)

    return walker


def _differs(rule: str) -> Walker:
    """Return the walker for what is not looked into."""

    def walker(_c: Comparison, old: Node, new: Node, key: str, at: At) -> Changes:
        if not same(old.get(key), new.get(key)) or (key in old) != (key in new):
            yield at.note(rule, key=key, fate=fate(old.get(key), new.get(key)))

    return walker


_by_hand = _differs("something else")


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


LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties", "minContains")
UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties", "maxContains")
TYPED_FORMATS = {"uuid", "date", "date-time", "binary"}
WIDER_FORMATS = {("int32", "int64"), ("float", "double")}
CONSTRAINTS = (
    *(
        "format",
        "pattern",
        "multipleOf",
        "not",
        "if",
        "then",
        "else",
        "contains",
        "prefixItems",
        "propertyNames",
    ),
    *(
        "patternProperties",
        "dependentRequired",
        "dependentSchemas",
        "unevaluatedItems",
        "unevaluatedProperties",
    ),
    *("contentEncoding", "contentMediaType", "contentSchema"),
)
# What they mean depends on where a schema is and who reads it.
NOT_FOLLOWED = ("$ref", "$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$schema", "$vocabulary")
SCHEMA: dict[str, Walker] = {
    "type": _types,
    "enum": _values,
    **dict.fromkeys(CONSTRAINTS, _constraint()),
    **dict.fromkeys(LOWER, _constraint("lower")),
    **dict.fromkeys(UPPER, _constraint("upper")),
    "uniqueItems": _flag("flag on", "flag off"),
    "readOnly": _flag("read only", "no longer read only"),
    "writeOnly": _flag("write only", "no longer write only"),
    "properties": _fields,
    "required": _required,
    "additionalProperties": _unknown_fields,
    "items": _nested("[]"),
    **dict.fromkeys(("anyOf", "oneOf", "allOf"), _alternatives),
    "default": _differs("default changed"),
    # The references to them have them.
    "$defs": _elsewhere,
    **dict.fromkeys(NOT_FOLLOWED, _by_hand),
    # JSON Schema ignores unknown keywords; `discriminator` and `xml` change nothing about what is valid.
    "*": _differs("documentation changed"),
}
SERIALIZED = _differs("serialization changed")
MEDIA_TYPE: dict[str, Walker] = {"schema": _nested(""), "encoding": SERIALIZED}
CONTENT = _named("content type", MEDIA_TYPE)
PARAMETER: dict[str, Walker] = {
    "required": _required,
    "schema": _nested(""),
    "content": CONTENT,
    "style": SERIALIZED,
    "explode": SERIALIZED,
    **dict.fromkeys(("allowReserved", "allowEmptyValue"), _flag("more permitted", "less permitted")),
}
BODY: dict[str, Walker] = {"required": _required, "content": CONTENT}
RESPONSE: dict[str, Walker] = {
    "content": CONTENT,
    "headers": _named("header", PARAMETER),
    "links": _named("link", {"*": _differs("link changed")}),
}
SERVERS = _named("server", {"*": _differs("server changed")})
SCHEME: dict[str, Walker] = {"*": _differs("scheme changed")}
OPERATION: dict[str, Walker] = {
    "operationId": _operation_id,
    "parameters": _parameters,
    "requestBody": _body,
    "responses": _responses,
    "security": _security,
    "servers": SERVERS,
    "callbacks": _callbacks,
}
DOCUMENT: dict[str, Walker] = {
    "servers": SERVERS,
    "paths": _operations,
    "webhooks": _webhooks,
    "security": _elsewhere,
}
