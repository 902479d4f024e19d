"""What a contract uses that the mock server or the facade does not support yet."""

import json
from collections.abc import Iterator
from typing import Any, cast

from changes.document import Document, Node

JSON = "application/json"


def limits(contract: Node) -> list[str]:
    """Return for each operation the checks that fail, why, and where to change that."""
    document = Document(contract)
    found: list[str] = []
    for name, operation in document.operations(contract["paths"]).items():
        if " " in name:
            found += [*_in_request(document, name, operation), *_in_responses(document, name, operation)]
    if document.is_3_0 and '"nullable": true' in json.dumps(contract):
        found.append("contract: the mock reads schemas as OpenAPI 3.1, without `nullable` (mock/contract.py)")
    return found


def new_operations(old: Node, new: Node) -> list[str]:
    """Return a line for each operation that the mock does not implement yet."""
    before, after = (Document(each).operations(each["paths"]) for each in (old, new))
    known = {operation.get("operationId") for operation in before.values()}
    return [
        f"contract: {name}: the mock answers 501 until `mock/app.py` has a case for it"
        for name, operation in after.items()
        if " " in name and operation.get("operationId") not in known
    ]


def _in_request(document: Document, name: str, operation: Node) -> Iterator[str]:
    for need in operation["security"]:
        if any(not scheme.startswith(("header ", "nothing")) for scheme in need.split(" and ")):
            yield f"contract: {name}: the mock checks keys in headers only, and not {need} (mock/app.py)"
    for parameter in operation["parameters"]:
        if parameter.startswith(("header ", "cookie ")):
            yield f"contract: {name}: the mock does not check {parameter} (mock/app.py)"
    for media_type in _content(document, operation.get("requestBody")):
        if media_type != JSON:
            yield f"contract: {name}: the mock and `_drivers/facade.py` do not send or read {media_type}"


def _in_responses(document: Document, name: str, operation: Node) -> Iterator[str]:
    for status, response in operation.get("responses", {}).items():
        for media_type, body in _content(document, response).items():
            needed = sorted(_required(document, body.get("schema")) - {"message"})
            if media_type != JSON:
                yield f"contract: {name} {status}: the mock answers in JSON, and not in {media_type}"
            elif needed and not status.startswith("2"):
                fields = ", ".join(needed)
                yield f"contract: {name} {status}: the mock's errors do not contain {fields} (mock/app.py)"


def _content(document: Document, node: Any) -> Node:
    return cast("Node", _resolved(document, node).get("content", {}))


def _required(document: Document, schema: Any) -> set[str]:
    found = _resolved(document, schema)
    return set(found.get("required", [])).union(*(_required(document, x) for x in found.get("allOf", [])))


def _resolved(document: Document, node: Any) -> Node:
    found = document.resolve(node)[0]
    return cast("Node", found) if isinstance(found, dict) else {}
