"""An OpenAPI document: its references, and its operations with what they inherit."""

import json
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, TypeAlias, cast
from urllib.parse import unquote

from attrs import define, field

Node: TypeAlias = dict[str, Any]
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
# Keywords that explain and decide nothing.
DOCUMENTATION = frozenset(
    {
        *("description", "summary", "title", "example", "examples", "externalDocs", "tags", "$comment"),
        *("openapi", "info", "bearerFormat"),
    }
)


@define
class Document:
    """A document."""

    source: Node
    _schemes: set[str] = field(factory=set[str])
    """The security schemes that the operations use."""

    @property
    def is_3_0(self) -> bool:
        """Whether it is OpenAPI 3.0, whose schemas are not those of JSON Schema."""
        return str(self.source.get("openapi")).startswith("3.0")

    def resolve(self, node: Any, through: frozenset[str] = frozenset()) -> tuple[Any, frozenset[str]]:
        """Follow the reference of a node; return what it leads to, and the references followed so far."""
        fields = cast("Node", node) if isinstance(node, dict) else {}
        reference = str(fields.get("$ref"))
        target = None if reference in through else self.find(reference)
        if target is None:
            return cast("Any", node), through
        beside = {name: value for name, value in fields.items() if name != "$ref"}
        # OpenAPI 3.0 ignores what is beside a reference; in 3.1 both count in a schema.
        if beside and not self.is_3_0:
            if "/schemas/" in reference and not (isinstance(target, dict) and beside.keys() <= DOCUMENTATION):
                return {"allOf": [beside, {"$ref": reference}]}, through
            found, through = self.resolve(target, through | {reference})
            return {**found, **beside}, through
        return self.resolve(target, through | {reference})

    def find(self, reference: str) -> Any:
        """Return what a reference leads to; None if that is not in the document."""
        node: Any = self.source if reference.startswith("#/") else None
        for name in steps(reference):
            node = cast("Node", node).get(name) if isinstance(node, dict) else None
        return node

    @cached_property
    def references(self) -> set[str]:
        """Every reference that is used outside of the components, directly or by way of others."""
        seen: set[str] = set()
        todo = list(references({key: value for key, value in self.source.items() if key != "components"}))
        while todo:
            reference = todo.pop()
            if reference not in seen:
                seen.add(reference)
                todo += references(self.find(reference))
        return seen

    def used(self) -> set[tuple[str, str]]:
        """Return section and name of the components that are used, once `operations` were read."""
        used = {(path[1], path[2]) for path in map(steps, self.references) if len(path) > 2}
        return used | {("securitySchemes", name) for name in self._schemes}

    def operations(self, items: Node) -> Node:
        """Return the operations of path items by method and path, with what they inherit."""
        found: Node = {}
        for path, node in items.items():
            item: Node = self.resolve(node)[0]
            if path.startswith("x-"):
                found[path] = {path: item}
                continue
            found[path] = {key: value for key, value in item.items() if key not in {*METHODS, "parameters"}}
            for method in item.keys() & set(METHODS):
                own = item[method]
                both = [*item.get("parameters", []), *own.get("parameters", [])]
                parameters = [self.resolve(each)[0] for each in both]
                security: list[Node] = own.get("security", self.source.get("security")) or [{}]
                found[f"{method.upper()} {path}"] = {
                    **own,
                    "parameters": {_parameter_name(each): _serialized(each) for each in parameters},
                    "security": {self._requirement(each): "" for each in security},
                }
        return found

    def _requirement(self, requirement: Node) -> str:
        """Return in words what a request needs, for example `header x-api-key and header x-tenant`."""
        schemes: Node = self.source.get("components", {}).get("securitySchemes", {})
        needs: list[str] = []
        for name, scopes in requirement.items():
            self._schemes.add(name)
            scheme: Node = self.resolve(schemes.get(name, {}))[0]
            words = {
                "apiKey": f"{scheme.get('in')} {scheme.get('name')}",
                "http": f"http {scheme.get('scheme')}",
            }
            kind = str(scheme.get("type", "unknown scheme"))
            needs.append(" ".join([words.get(kind, f"{kind} {name}"), *(f"({scope})" for scope in scopes)]))
        return " and ".join(sorted(needs)) or "nothing"


def steps(reference: str) -> list[str]:
    """Return the names on the way to what a reference leads to."""
    return [step.replace("~1", "/").replace("~0", "~") for step in unquote(reference).split("/")[1:]]


def reference_to(schema: str) -> str:
    """Return the reference to a schema among the components."""
    return "#/components/schemas/" + schema.replace("~", "~0").replace("/", "~1")


def _parameter_name(parameter: Node) -> str:
    place, name = str(parameter.get("in")), str(parameter.get("name"))
    return f"{place} {name.lower() if place == 'header' else name}"


def _serialized(parameter: Node) -> Node:
    """Return a parameter without its name, and with the defaults of how it is written into a request."""
    style = parameter.get("style", "form" if parameter.get("in") in {"query", "cookie"} else "simple")
    return {"explode": style == "form"} | parameter | {"style": style, "name": ""}


def references(node: Any) -> Iterator[str]:
    """Return every reference in a node."""
    todo = [node]
    while todo:
        each = todo.pop()
        if isinstance(each, dict):
            fields = cast("Node", each)
            if isinstance(fields.get("$ref"), str):
                yield fields["$ref"]
            todo += fields.values()
        elif isinstance(each, list):
            todo += cast("Iterable[Any]", each)


def same(one: Any, other: Any) -> bool:
    """Compare JSON values."""
    # In Python, True equals 1.
    return one is other or (
        one == other and json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    )
