"""Compare two OpenAPI documents: what changes for whoever calls the API.

Common practice decides what breaks: what clients send may get wider, what they are answered may get narrower.
So a new word in an enum of an answer is breaking, for a strict reader. Of statuses, a success that comes or
goes is breaking; an error that comes or goes is additive, since every client has to know the class of a
status (RFC 9110, section 15). What no rule knows is breaking, for a person to judge. What no operation uses
is doc-only, and so is moving a schema into the components.

Types tell of parameters, of what is sent, and of what a success answers; an error is read without them. They
do not tell of operations that move, nor of security, servers, statuses, content types, headers and links.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast
from urllib.parse import unquote

from attrs import evolve, field, frozen

from changes import Change
from changes.schemas import nested
from changes.walk import DOCUMENTATION, SAME_MEANING, At, Node, Rule, alike, fate, pairs, renamed, same, walk

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
JSON = "application/json"


def compare(old: Node, new: Node) -> list[Change]:
    """Return every change between two documents; none if they are the same."""
    before, after = Document(old), Document(new)
    found = {
        *walk(DOCUMENT, before.expand(), after.expand(), At("the document")),
        *_components(before, after),
    }
    if not found and not same(old, new):
        found = {At("the document").doc_only(SAME_MEANING)}
    return sorted(found)


@frozen
class Document:
    """A document, and the references that its operations use."""

    source: Node
    used: set[tuple[str, ...]] = field(factory=set[tuple[str, ...]])

    def expand(self) -> Node:
        """Return all but the components, with every reference replaced by what it refers to."""
        bare = {key: value for key, value in self.source.items() if key != "components"}
        root: Node = self._expand(bare, ())
        return {**root, "paths": self._operations(root)}

    def _expand(self, node: Any, through: tuple[str, ...]) -> Any:
        """Replace references, save those that would go round in circles or lead nowhere."""
        if isinstance(node, list):
            return [self._expand(item, through) for item in cast("Iterable[Any]", node)]
        if not isinstance(node, dict):
            return node
        fields = cast("Mapping[str, Any]", node)
        reference = str(fields.get("$ref"))
        target = None if reference in through else self._find(reference)
        if target is None:
            return {name: self._expand(value, through) for name, value in fields.items()}
        siblings = {name: value for name, value in fields.items() if name != "$ref"}
        found = self._expand(target, (*through, reference))
        # In 3.0, what stands beside a reference is ignored.
        if not siblings or str(self.source.get("openapi")).startswith("3.0"):
            return found
        beside = self._expand(siblings, through)
        # Only a schema can have more than other words there, and then both hold.
        if isinstance(target, dict) and (siblings.keys() <= DOCUMENTATION or "/schemas/" not in reference):
            return {**found, **beside}
        return {"allOf": [beside, found]}

    def _find(self, reference: str) -> Any:
        if not reference.startswith("#/"):
            return None
        steps = [step.replace("~1", "/").replace("~0", "~") for step in unquote(reference[2:]).split("/")]
        self.used.add(tuple(steps))
        node: Any = self.source
        for step in steps:
            node = cast("Node", node).get(step) if isinstance(node, dict) else None
        return node

    def _operations(self, root: Node) -> Node:
        """Give each operation what it inherits from its path and from the document."""
        items: Node = root.get("paths", {})
        paths: Node = {"paths": {key: value for key, value in items.items() if not key.startswith("/")}}
        for path, item in items.items():
            if path in paths["paths"]:
                continue
            paths[path] = {key: value for key, value in item.items() if key not in {*METHODS, "parameters"}}
            for method in item.keys() & set(METHODS):
                own = item[method]
                parameters = [*item.get("parameters", []), *own.get("parameters", [])]
                security: list[Node] = own.get("security", root.get("security")) or [{}]
                paths[f"{method.upper()} {path}"] = {
                    **own,
                    "parameters": {_parameter_name(each): each for each in parameters},
                    "security": sorted(self._requirement(each) for each in security),
                }
        return paths

    def _requirement(self, requirement: Node) -> list[str]:
        return sorted(
            " ".join([self._scheme(name), *(f"({scope})" for scope in scopes)])
            for name, scopes in requirement.items()
        )

    def _scheme(self, name: str) -> str:
        scheme: Node = self._find(f"#/components/securitySchemes/{name}") or {}
        match scheme.get("type"):
            case "apiKey":
                return f"{scheme.get('in')} {scheme.get('name')}"
            case "http":
                return f"http {scheme.get('scheme')}"
            case kind:
                return f"{kind or 'unknown scheme'} {name}"


def _parameter_name(parameter: Node) -> str:
    place, name = str(parameter.get("in")), str(parameter.get("name"))
    return f"{place} {name.lower() if place == 'header' else name}"


def _components(before: Document, after: Document) -> Iterator[Change]:
    """Compare what the walk through the operations does not come by."""
    old, new = before.source.get("components", {}), after.source.get("components", {})
    for section in sorted(old.keys() | new.keys()):
        for name, one, other in pairs(old.get(section, {}), new.get(section, {})):
            at = At(f"components.{section}.{name}")
            if section == "securitySchemes" and one is not None and other is not None:
                # How a key is given is said at each operation.
                said = dict.fromkeys(("type", "in", "name", "scheme"))
                yield from walk({}, one | said, other | said, at)
            elif ("components", section, name) not in before.used | after.used and not same(one, other):
                yield at.doc_only(f"{fate(one, other)}; no operation uses it")


def info(old: Node, new: Node, key: str, at: At) -> Iterator[Change]:
    """Each line of what the document says about itself."""
    del at
    for name, before, after in pairs(old.get(key, {}), new.get(key, {})):
        if not same(before, after):
            yield At(f"info.{name}").doc_only(fate(before, after))


def servers(old: Node, new: Node, key: str, at: At) -> Iterator[Change]:
    """A program that has an address by heart needs it to stay."""
    before, after = ({str(each.get("url")): each for each in node.get(key, [])} for node in (old, new))
    for url, one, other in pairs(before, after):
        if one and other:
            yield from walk({}, one, other, at.inside(f" server {url}"))
        else:
            yield (at.breaking if one else at.additive)(f"server {url} {fate(one, other)}")


def paths(old: Node, new: Node, key: str, at: At) -> Iterator[Change]:
    """Operations by method and path, then by operationId, for those that have moved."""
    del at
    before, after = old.get(key, {}), new.get(key, {})
    for name, one, other in pairs(before, after):
        at = At(name)
        # Only an operation has a method in its name.
        if " " not in name or (one is not None and other is not None):
            yield from walk(OPERATION, one or {}, other or {}, at)
        elif one is None:
            yield at.typed().additive("operation added")
        elif moved := [
            x for x in after if x not in before and after[x].get("operationId") == one.get("operationId")
        ]:
            yield at.breaking(f"operation removed (moved to {moved[0]}?)")
            yield from walk(OPERATION, one, after[moved[0]], At(moved[0]))
        else:
            yield at.typed().breaking("operation removed")


def operation_id(old: Node, new: Node, key: str, at: At) -> Iterator[Change]:
    """Nothing of it is sent; generated code is named after it."""
    yield at.doc_only(f"operationId changed from {old.get(key)} to {new.get(key)}")


def security(old: Node, new: Node, key: str, at: At) -> Iterator[Change]:
    """Each way to be let in is a list of what to show."""
    before, after = ({" and ".join(way) or "nothing": set(way) for way in node[key]} for node in (old, new))
    if len(before) == len(after) == 1:
        (one,), (other,) = before.values(), after.values()
        yield from (at.breaking(f"security: now needs {each}") for each in other - one)
        yield from (at.additive(f"security: no longer needs {each}") for each in one - other)
    else:
        yield from (at.breaking(f"security: no longer accepts {way}") for way in before.keys() - after.keys())
        yield from (at.additive(f"security: also accepts {way}") for way in after.keys() - before.keys())


def parameters(old: Node, new: Node, key: str, at: At) -> Iterator[Change]:
    """Parameters by place and name."""
    for name, one, other in pairs(old[key], new[key]):
        there = at.inside(f" {name}").typed()
        if one is None:
            yield (
                there.breaking("new required parameter")
                if other.get("required")
                else there.additive("new optional parameter")
            )
        elif other is None:
            twins = [x for x in new[key] if x not in old[key] and alike(PARAMETER, one, new[key][x])]
            yield there.breaking(f"parameter removed{renamed(twins)}")
        else:
            yield from walk(PARAMETER, {**one, "name": ""}, {**other, "name": ""}, there)


def request_body(old: Node, new: Node, key: str, at: At) -> Iterator[Change]:
    """What is sent."""
    one, other = old.get(key), new.get(key)
    there = at.inside(" request").typed()
    if one is None or other is None:
        harmless = other is not None and not other.get("required")
        yield (there.additive if harmless else there.breaking)(f"body {fate(one, other)}")
    else:
        yield from walk(BODY, one, other, there)


def responses(old: Node, new: Node, key: str, at: At) -> Iterator[Change]:
    """What is answered, status by status."""
    for status, one, other in pairs(old.get(key, {}), new.get(key, {})):
        there = evolve(at.inside(f" {status}"), sent=False)
        success = status.startswith("2")
        if one is not None and other is not None:
            yield from walk(RESPONSE, one, other, there.typed() if success else there)
        else:
            yield (there.breaking if success else there.additive)(f"status {fate(one, other)}")


def content(old: Node, new: Node, key: str, at: At) -> Iterator[Change]:
    """Bodies by content type."""
    for kind, one, other in pairs(old.get(key, {}), new.get(key, {})):
        there = at.inside(" body" if kind == JSON else f" body ({kind})")
        if one is None or other is None:
            there = there.untyped()
            yield (there.additive if one is None else there.breaking)(
                f"content type {kind} {fate(one, other)}"
            )
        else:
            yield from walk(MEDIA_TYPE, one, other, there)


def named(kind: str) -> Rule:
    """Make the rule for what an answer has by name: headers, links."""

    def rule(old: Node, new: Node, key: str, at: At) -> Iterator[Change]:
        for name, one, other in pairs(old.get(key, {}), new.get(key, {})):
            there = at.inside(f" {kind} {name}").untyped()
            if one is None or other is None:
                yield (there.additive if one is None else there.breaking)(f"{kind} {fate(one, other)}")
            else:
                yield from walk(PARAMETER, one, other, there)

    return rule


def needed(old: Node, new: Node, key: str, at: At) -> Iterator[Change]:
    """A parameter, header or body that has to be there."""
    if bool(old.get(key)) != bool(new.get(key)):
        yield at.narrower("now required") if new.get(key) else at.wider("no longer required")


DOCUMENT: dict[str, Rule] = {"info": info, "servers": servers, "paths": paths}
OPERATION: dict[str, Rule] = {
    "operationId": operation_id,
    "parameters": parameters,
    "requestBody": request_body,
    "responses": responses,
    "security": security,
    "servers": servers,
}
PARAMETER: dict[str, Rule] = {"required": needed, "schema": nested("")}
BODY: dict[str, Rule] = {"required": needed, "content": content}
MEDIA_TYPE: dict[str, Rule] = {"schema": nested("")}
RESPONSE: dict[str, Rule] = {"content": content, "headers": named("header"), "links": named("link")}
