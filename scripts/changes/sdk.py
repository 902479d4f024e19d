"""What changes for those who write Python: the public names of two source trees, compared.

griffe says which calls of a function break; the rest is decided here:

- Added is additive, but breaking where it is required, or where users implement the class (a protocol, an
  abstract method). Removed, and become another kind of thing, is breaking.
- A type that takes more is additive for a parameter and breaking for a result; one that takes less, the other
  way round. What cannot be told, and what is both (a field), is breaking.
- Another default is breaking: the same call does something else. So is another value of an enum's member.
- A new base is additive: what caught or annotated the old ones still does.
- attrs classes and typed dicts have no `__init__` to read: their fields are its parameters. What is generated
  is built by keyword, since the order of its fields is that of the contract.

What a function does, and which errors it raises, is not seen.
"""

import difflib
import inspect
from pathlib import Path

import griffe

from changes import Change, Impact
from changes.surface import FIELDS, Surface, Type, has_base, type_of

_KINDS_OF_CALL = {"async", "classmethod", "staticmethod"}
_INIT = ".__init__"
_BROKEN_CALLS = {
    griffe.BreakageKind.PARAMETER_MOVED: "moved among the positional parameters",
    griffe.BreakageKind.PARAMETER_REMOVED: "removed",
    griffe.BreakageKind.PARAMETER_CHANGED_KIND: "can no longer be given by position, or by keyword",
    griffe.BreakageKind.PARAMETER_CHANGED_REQUIRED: "newly required",
    griffe.BreakageKind.PARAMETER_ADDED_REQUIRED: "added, and required",
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
            self._note(Impact.BREAKING, where, f"removed{self._renamed(where)}")
        for where in self._added:
            self._note(Impact.ADDITIVE, where, "added")
        return sorted(
            Change(impact, where, what)
            for where, found in self._found.items()
            for impact, what in found
            # The attribute and the parameter of one field: the worse says enough.
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

    def _note(self, impact: Impact, where: str, what: str) -> None:
        name = where.partition("(")[0]
        thing, owner = self._new.things.get(name), self._new.things.get(_parent(name))
        implemented = (owner is not None and has_base(owner, "typing.Protocol", direct=True)) or (
            thing is not None and "abstractmethod" in thing.labels
        )
        if impact is Impact.ADDITIVE and implemented:
            impact, what = Impact.BREAKING, f"{what}, and users implement it"
        self._found.setdefault(where, set()).add((impact, what))

    def _pair(self, where: str, old: griffe.Object, new: griffe.Object) -> None:
        if isinstance(old, griffe.Function) and isinstance(new, griffe.Function):
            self._function(where, old, new)
        elif isinstance(old, griffe.Attribute) and isinstance(new, griffe.Attribute):
            self._attribute(where, old, new)
        elif isinstance(old, griffe.Class) and isinstance(new, griffe.Class):
            self._bases(where, old, new)
        elif old.kind is not new.kind:
            self._note(Impact.BREAKING, where, f"changed from {old.kind.value} to {new.kind.value}")
            return
        if _documentation(old) != _documentation(new):
            self._note(Impact.DOC_ONLY, where.removesuffix(_INIT), "documentation changed")

    def _function(self, where: str, old: griffe.Function, new: griffe.Function) -> None:
        calls = [", ".join(sorted(each.labels & _KINDS_OF_CALL)) or "a plain function" for each in (old, new)]
        if calls[0] != calls[1]:
            self._note(Impact.BREAKING, where, f"changed from {' to '.join(calls)}")
        callee = where.removesuffix(_INIT)
        pattern = f"{callee}.{{}}" if FIELDS in old.labels & new.labels else f"{callee}({{}})"
        for breakage in griffe.find_breaking_changes(_box(old), _box(new)):
            if breakage.kind in _BROKEN_CALLS:
                parameter = breakage.old_value or breakage.new_value
                place = pattern.format(parameter.name)
                if breakage.kind is griffe.BreakageKind.PARAMETER_REMOVED:
                    self._removed[place] = self._old.text(parameter.annotation)
                else:
                    self._note(Impact.BREAKING, place, _BROKEN_CALLS[breakage.kind])
        for parameter in new.parameters:
            place = pattern.format(parameter.name)
            if parameter.name not in old.parameters:
                self._added[place] = self._new.text(parameter.annotation)
                continue
            before = old.parameters[parameter.name]
            self._retyped(place, before.annotation, parameter.annotation, wider=Impact.ADDITIVE)
            defaults = self._old.text(before.default), self._new.text(parameter.default)
            if before.required and not parameter.required:
                self._note(Impact.ADDITIVE, place, "no longer required")
            elif defaults[0] != defaults[1] and not parameter.required:
                self._note(Impact.BREAKING, place, f"default changed from {' to '.join(defaults)}")
        self._retyped(where, old.returns, new.returns, wider=Impact.BREAKING, prefix="result ")

    def _attribute(self, where: str, old: griffe.Attribute, new: griffe.Attribute) -> None:
        owner = new.parent
        enum = owner is not None and has_base(owner, "enum.")
        # The keys of a typed dict are given, and compared as parameters.
        if owner is not None and has_base(owner, "typing.TypedDict"):
            return
        self._retyped(where, type_of(old), type_of(new), wider=Impact.BREAKING)
        constant = isinstance(owner, griffe.Module) and new.annotation is None and new.name != "__version__"
        if enum or constant:
            values = self._old.text(old.value), self._new.text(new.value)
            if values[0] != values[1]:
                self._note(Impact.BREAKING, where, f"value changed from {' to '.join(values)}")

    def _bases(self, where: str, old: griffe.Class, new: griffe.Class) -> None:
        before, after = _ancestors(self._old, old), _ancestors(self._new, new)
        for base in _direct(self._old, old) - after:
            self._note(Impact.BREAKING, where, f"no longer a {base}")
        for base in _direct(self._new, new) - before:
            self._note(Impact.ADDITIVE, where, f"now also a {base}")

    def _retyped(self, where: str, old: Type, new: Type, *, wider: Impact, prefix: str = "") -> None:
        if old is None or new is None:
            return
        before, after = self._old.alternatives(old), self._new.alternatives(new)
        if before == after:
            return
        narrower = Impact.BREAKING if wider is Impact.ADDITIVE else Impact.ADDITIVE
        word, impact = "retyped", Impact.BREAKING
        if before < after:
            word, impact = "widened", wider
        elif after < before:
            word, impact = "narrowed", narrower
        types = f"{' | '.join(sorted(before))} to {' | '.join(sorted(after))}"
        self._note(impact, where, f"{prefix}{word}: {types}")


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
