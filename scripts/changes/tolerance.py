"""Propose what generated code should accept beyond a contract, for the responses of new operations.

The generated parser raises an error for a new value of an enum, and for a UUID or date in another form. The
rest of the response is lost with it.
"""

from collections.abc import Iterator
from io import StringIO
from typing import Any, cast

from ruamel.yaml import YAML

from changes.document import Document, Node, references, steps

STRICT_FORMATS = {"uuid", "date", "date-time"}
WHY = "Proposed by `spec --apply`: "


def proposals(old: Node, new: Node) -> list[Node]:
    """Return overlay actions for the schemas that only the responses of new operations contain."""
    document = Document(new)
    before = Document(old).operations(old["paths"])
    received: set[str] = set()
    others: set[str] = set()
    for name, operation in document.operations(new["paths"]).items():
        successes = [
            each for status, each in operation.get("responses", {}).items() if status.startswith("2")
        ]
        if name in before:
            others |= _reached(document, operation)
        else:
            received |= _reached(document, successes)
            others |= _reached(document, [operation.get("parameters"), operation.get("requestBody")])
    return [action for name in sorted(received - others) for action in _relaxed(document, name)]


def as_yaml(actions: list[Node]) -> str:
    """Return actions as the end of the list in generator-overlay.yaml."""
    yaml, text = YAML(), StringIO()
    yaml.width = 110
    yaml.dump(actions, text)  # pyright: ignore[reportUnknownMemberType]
    return "".join(f"  {line}" for line in text.getvalue().splitlines(keepends=True))


def _reached(document: Document, node: Any) -> set[str]:
    """Return every reference in a node, directly or by way of others."""
    found: set[str] = set()
    todo = list(references(node))
    while todo:
        reference = todo.pop()
        if reference not in found:
            found.add(reference)
            todo += references(document.find(reference))
    return found


def _relaxed(document: Document, reference: str) -> Iterator[Node]:
    if steps(reference)[:2] != ["components", "schemas"]:
        return
    schema = cast("Node", document.find(reference) or {})
    fields = f"$.components.schemas['{steps(reference)[2]}'].properties"
    for name, field in cast("dict[str, Node]", schema.get("properties", {})).items():
        place = f"{fields}['{name}']"
        if "enum" in document.resolve(field)[0] and "$ref" in field:
            yield {"target": place, "description": f"{WHY}a new value must arrive as text.", "remove": True}
            wider = {"anyOf": [{"$ref": field["$ref"]}, {"type": "string"}]}
            yield {"target": fields, "description": "The wider type.", "update": {name: wider}}
        elif "enum" in field:
            yield {"target": f"{place}.enum", "description": f"{WHY}a new value is text.", "remove": True}
        if field.get("format") in STRICT_FORMATS:
            yield {
                "target": f"{place}.format",
                "description": f"{WHY}in another form it must not cost the response.",
                "remove": True,
            }
