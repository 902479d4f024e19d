"""Compare the public names of two source trees: what changes for those who write Python.

griffe finds the calls that break; the table below judges the rest. attrs classes and typed dicts have no
`__init__` to read, so their fields are its parameters; in generated code all by keyword, since the contract
decides the order of fields. The fields of a model that only requests contain are compared as parameters only:
users write them, and do not read them. What a function does, and which errors it raises, is not compared.
"""

import difflib
import inspect
from collections.abc import Iterable
from pathlib import Path

import griffe

from changes import Change, Impact
from changes.surface import FIELDS, MODELS, PACKAGES, Surface, Type, has_base, successes, type_of

_KINDS_OF_CALL = {"async", "classmethod", "staticmethod"}
_INIT = ".__init__"
_BREAKAGES = {
    griffe.BreakageKind.PARAMETER_MOVED: "parameter moved",
    griffe.BreakageKind.PARAMETER_CHANGED_KIND: "parameter kind",
    griffe.BreakageKind.PARAMETER_CHANGED_REQUIRED: "parameter required",
    griffe.BreakageKind.PARAMETER_ADDED_REQUIRED: "parameter added",
}
"""What griffe finds; it finds parameters that were removed, too."""

_TABLE = """
what changed        | level    | message
--------------------+----------+---------------------------------------------------
removed             | breaking | removed{renamed}
added               | additive | added
implemented         | breaking | {message}, and users implement it
kind                | breaking | changed from {old} to {new}
parameter moved     | breaking | moved among the positional parameters
parameter kind      | breaking | can no longer be given by position, or by keyword
parameter required  | breaking | newly required
parameter added     | breaking | added, and required
parameter optional  | additive | no longer required
parameter widened   | additive | widened: {old} to {new}
parameter narrowed  | breaking | narrowed: {old} to {new}
parameter retyped   | breaking | retyped: {old} to {new}
default             | breaking | default changed from {old} to {new}
result widened      | breaking | result widened: {old} to {new}
result narrowed     | additive | result narrowed: {old} to {new}
errors widened      | additive | result of errors widened: {old} to {new}
result retyped      | breaking | result retyped: {old} to {new}
attribute widened   | breaking | widened: {old} to {new}
attribute narrowed  | additive | narrowed: {old} to {new}
attribute retyped   | breaking | retyped: {old} to {new}
value               | breaking | value changed from {old} to {new}
base removed        | breaking | no longer a {old}
base added          | additive | now also a {new}
documentation       | doc-only | documentation changed
"""
RULES = {
    name: (Impact(level), message)
    for name, level, message in (
        [cell.strip() for cell in row.split("|", 2)] for row in _TABLE.strip().splitlines()[2:]
    )
}


def compare(old: Path, new: Path) -> list[Change]:
    """Return what users of the sources in `old` meet in `new`: two folders with wrapper/ and generated/."""
    return _Comparison(Surface(old), Surface(new)).changes()


class _Comparison:
    def __init__(self, old: Surface, new: Surface) -> None:
        self._old = old
        self._new = new
        self._found: dict[str, set[tuple[Impact, str]]] = {}
        # Where and what shape, to tell what may have been renamed.
        self._removed: dict[str, str] = {}
        self._added: dict[str, str] = {}

    def changes(self) -> list[Change]:
        self._one_sided(self._old, self._new, self._removed)
        self._one_sided(self._new, self._old, self._added)
        seen: set[tuple[str, str]] = set()
        for where in self._in_order(self._old):
            old, new = self._old.things[where], self._new.things.get(where)
            # A thing with several names, such as a member that is inherited, is compared once.
            if new is not None and (paths := (old.canonical_path, new.canonical_path)) not in seen:
                seen.add(paths)
                self._pair(where, old, new)
        for where in self._removed:
            self._note(where, "removed", renamed=self._renamed(where))
        for where in self._added:
            self._note(where, "added")
        return sorted(
            Change(impact, where, what)
            for where, found in self._found.items()
            for impact, what in found
            # A field is an attribute and a parameter: the worse change is enough.
            if list(Impact).index(impact) == min(list(Impact).index(other) for other, _ in found)
        )

    @staticmethod
    def _in_order(surface: Surface) -> list[str]:
        """Order the names so that each thing is met first where it is at home."""
        return sorted(surface.things, key=lambda where: (_inherited(surface, where), where.count("."), where))

    def _one_sided(self, here: Surface, there: Surface, shapes: dict[str, str]) -> None:
        seen: set[str] = set()
        for where in self._in_order(here):
            path, parent = here.things[where].canonical_path, _parent(where)
            if where in there.things or (_inherited(here, where) and path in seen):
                continue
            # What has changed as a whole is not told part by part.
            if parent not in here.things or (
                parent in there.things and there.things[parent].kind is here.things[parent].kind
            ):
                seen.add(path)
                shapes[where] = here.shape(where)

    def _renamed(self, where: str) -> str:
        parent, shape = _parent(where), self._removed[where]
        names = [
            other[len(parent) + 1 :].rstrip(")")
            for other in self._added
            if _parent(other) == parent and self._added[other] == shape
        ]
        # The same members say that it is one class; the same type says little, unless the names are alike.
        alike = 0.0 if shape.startswith("class") else 0.5
        best = difflib.get_close_matches(where[len(parent) + 1 :].rstrip(")"), names, n=1, cutoff=alike)
        return f"; renamed to {best[0]}?" if best else ""

    def _note(self, where: str, rule: str, **words: str) -> None:
        impact, message = RULES[rule]
        message = message.format_map(words)
        name = where.partition("(")[0]
        thing, owner = self._new.things.get(name), self._new.things.get(_parent(name))
        implemented = (owner is not None and has_base(owner, "typing.Protocol", direct=True)) or (
            thing is not None and "abstractmethod" in thing.labels
        )
        if impact is Impact.ADDITIVE and implemented:
            self._note(where, "implemented", message=message)
        else:
            self._found.setdefault(where, set()).add((impact, message))

    def _pair(self, where: str, old: griffe.Object, new: griffe.Object) -> None:
        if isinstance(old, griffe.Function) and isinstance(new, griffe.Function):
            self._function(where, old, new)
        elif isinstance(old, griffe.Attribute) and isinstance(new, griffe.Attribute):
            self._attribute(where, old, new)
        elif isinstance(old, griffe.Class) and isinstance(new, griffe.Class):
            self._bases(where, old, new)
        elif old.kind is not new.kind:
            self._note(where, "kind", old=old.kind.value, new=new.kind.value)
            return
        if _documentation(old) != _documentation(new):
            self._note(where.removesuffix(_INIT), "documentation")

    def _function(self, where: str, old: griffe.Function, new: griffe.Function) -> None:
        before, after = (
            ", ".join(sorted(x.labels & _KINDS_OF_CALL)) or "a plain function" for x in (old, new)
        )
        if before != after:
            self._note(where, "kind", old=before, new=after)
        callee = where.removesuffix(_INIT)
        pattern = f"{callee}.{{}}" if FIELDS in old.labels & new.labels else f"{callee}({{}})"
        for breakage in griffe.find_breaking_changes(_box(old), _box(new)):
            parameter = breakage.old_value or breakage.new_value
            if breakage.kind is griffe.BreakageKind.PARAMETER_REMOVED:
                self._removed[pattern.format(parameter.name)] = self._old.text(parameter.annotation)
            elif breakage.kind in _BREAKAGES:
                self._note(pattern.format(parameter.name), _BREAKAGES[breakage.kind])
        for parameter in new.parameters:
            place = pattern.format(parameter.name)
            if parameter.name not in old.parameters:
                self._added[place] = self._new.text(parameter.annotation)
                continue
            known = old.parameters[parameter.name]
            self._retyped(place, "parameter", known.annotation, parameter.annotation)
            before, after = self._old.text(known.default), self._new.text(parameter.default)
            if known.required and not parameter.required:
                self._note(place, "parameter optional")
            elif before != after and not parameter.required:
                self._note(place, "default", old=before, new=after)
        first = self._old.alternatives(_parsed(old.returns))
        second = self._new.alternatives(_parsed(new.returns))
        if first < second and successes(old) == successes(new) != []:
            self._note(where, "errors widened", old=_joined(first), new=_joined(second))
        else:
            self._retyped(where, "result", old.returns, new.returns)

    def _attribute(self, where: str, old: griffe.Attribute, new: griffe.Attribute) -> None:
        owner = new.parent
        # The keys of a typed dict are compared as parameters.
        if owner is not None and has_base(owner, "typing.TypedDict"):
            return
        if not (owner is not None and self._only_sent(owner)):
            self._retyped(where, "attribute", type_of(old), type_of(new))
        constant = isinstance(owner, griffe.Module) and new.annotation is None and new.name != "__version__"
        before, after = self._old.text(old.value), self._new.text(new.value)
        if before != after and (constant or (owner is not None and has_base(owner, "enum."))):
            self._note(where, "value", old=before, new=after)

    def _only_sent(self, owner: griffe.Object) -> bool:
        """Return whether a class is a model that no response contains."""
        received = self._old.received | self._new.received
        return owner.canonical_path.startswith(MODELS) and owner.canonical_path not in received

    def _bases(self, where: str, old: griffe.Class, new: griffe.Class) -> None:
        for base in _direct(self._old, old) - _ancestors(self._new, new):
            self._note(where, "base removed", old=base)
        for base in _direct(self._new, new) - _ancestors(self._old, old):
            self._note(where, "base added", new=base)

    def _retyped(self, where: str, what: str, old: Type, new: Type) -> None:
        if old is None or new is None:
            return
        before, after = self._old.alternatives(old), self._new.alternatives(new)
        if before != after:
            how = "widened" if before < after else "narrowed" if after < before else "retyped"
            self._note(where, f"{what} {how}", old=_joined(before), new=_joined(after))


def _joined(types: Iterable[str]) -> str:
    return " | ".join(sorted(types))


def _parsed(result: Type) -> Type:
    """Return what a generated function parses; it may return that inside a `Response`."""
    if (
        isinstance(result, griffe.ExprSubscript)
        and result.canonical_path == f"{PACKAGES['generated']}.types.Response"
    ):
        return result.slice
    return result


def _parent(where: str) -> str:
    return where.rpartition("(")[0] or where.rpartition(".")[0]


def _inherited(surface: Surface, where: str) -> bool:
    owner = surface.things.get(_parent(where))
    return isinstance(owner, griffe.Class) and surface.things[where].parent is not owner


def _documentation(thing: griffe.Object) -> str:
    return inspect.cleandoc(thing.docstring.value) if thing.docstring else ""


def _box(function: griffe.Function) -> griffe.Module:
    """Wrap a function, since griffe compares the members of two things."""
    box = griffe.Module("box")
    # Without a new parent: the function stays where it is.
    box.members["function"] = function
    function.public = True
    return box


def _direct(surface: Surface, cls: griffe.Class) -> set[str]:
    """Return the bases of a class that users can name."""
    names = {surface.text(base).partition("[")[0] for base in cls.bases}
    return {name for name in names if not name.rpartition(".")[2].startswith("_")}


def _ancestors(surface: Surface, cls: griffe.Class) -> set[str]:
    return {name for each in [cls, *cls.mro()] for name in _direct(surface, each)}
