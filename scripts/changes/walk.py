"""Walk through two OpenAPI documents side by side: places, rules, and what no rule knows."""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

from attrs import evolve, frozen

from changes import Change, Impact

Node: TypeAlias = dict[str, Any]

# They explain, and decide nothing.
DOCUMENTATION = frozenset(
    {
        *(
            "description",
            "summary",
            "title",
            "example",
            "examples",
            "externalDocs",
            "tags",
            "deprecated",
            "$comment",
        ),
        *("openapi", "termsOfService", "contact", "license"),
    }
)
SAME_MEANING = "written differently, with the same meaning"


@frozen
class At:
    """A place in the API."""

    place: str = ""
    sent: bool = True
    """Whether the client writes what stands there, not the server."""
    silent: bool = True
    """Whether types do not tell of it. They tell of parameters and bodies, as far as JSON has types."""

    def inside(self, suffix: str) -> "At":
        """Return a place below this one."""
        return evolve(self, place=self.place + suffix)

    def typed(self) -> "At":
        """Return this place as one that types tell of."""
        return evolve(self, silent=False)

    def untyped(self) -> "At":
        """Return this place as one that no type tells of."""
        return evolve(self, silent=True)

    def breaking(self, what: str) -> Change:
        """Tell of a change that programs of before may not survive."""
        return Change(Impact.BREAKING, self.place, what, self.silent)

    def additive(self, what: str) -> Change:
        """Tell of a change that programs of before need not know of."""
        return Change(Impact.ADDITIVE, self.place, what, self.silent)

    def doc_only(self, what: str) -> Change:
        """Tell of a change of words."""
        return Change(Impact.DOC_ONLY, self.place, what)

    def narrower(self, what: str) -> Change:
        """Tell that less is allowed than before."""
        return self.breaking(what) if self.sent else self.additive(what)

    def wider(self, what: str) -> Change:
        """Tell that more is allowed than before."""
        return self.additive(what) if self.sent else self.breaking(what)


Rule: TypeAlias = Callable[[Node, Node, str, At], Iterator[Change]]


def walk(rules: dict[str, Rule], old: Node, new: Node, at: At) -> Iterator[Change]:
    """Compare two nodes key by key: by its rule, as documentation, or as something that no rule knows."""
    found = False
    for key, before, after in pairs(old, new):
        if same(before, after) and (key in old) == (key in new):
            continue
        if key in DOCUMENTATION:
            changes: Iterable[Change] = [at.doc_only(f"{key} {fate(before, after)}")]
        elif key in rules:
            changes = rules[key](old, new, key, at)
        else:
            words = f"something else {fate(before, after)}: {key}; judge it by hand"
            changes = [at.untyped().breaking(words)]
        for change in changes:
            found = True
            yield change
    if not found and not same(old, new):
        yield at.doc_only(SAME_MEANING)


def same(one: Any, other: Any) -> bool:
    """Compare JSON values."""
    # In Python, True equals 1.
    return one == other and json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def fate(before: Any, after: Any) -> str:
    """Say what happened to something that differs; None is that it is not there."""
    return "added" if before is None else "removed" if after is None else "changed"


def pairs(old: Node, new: Node) -> Iterator[tuple[str, Any, Any]]:
    """Return every name of either with both values; None is that there is none."""
    for name in sorted(old.keys() | new.keys()):
        yield name, old.get(name), new.get(name)


def listed(values: Iterable[Any]) -> str:
    """Write values for people."""
    return ", ".join(value if isinstance(value, str) else json.dumps(value) for value in values)


def alike(rules: dict[str, Rule], one: Node, other: Node) -> bool:
    """Say whether two nodes differ in name and words at most."""
    names = {"name": "", "in": ""}
    changes = walk(rules, {**one, **names}, {**other, **names}, At())
    return all(change.impact is Impact.DOC_ONLY for change in changes)


def renamed(twins: list[str]) -> str:
    """Guess that what has gone is now what has come, if that is one alone."""
    return f" (renamed to {twins[0]}?)" if len(twins) == 1 else ""
