"""Measure how long `spec` compares two contracts, by their size.

Usage:
    python3 scripts/dev.py bench-specs            documents of 0.25 to 4 MB
    python3 scripts/dev.py bench-specs -- A B     two OpenAPI documents, as JSON

The generated documents resemble large real ones: schemas refer to each other, also in cycles, alone, in lists
and in alternatives, and many operations share them. In the second document one schema in twenty has changed.
"""

import copy
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

from changes.api import compare

SIZES = [0.25, 0.5, 1, 2, 4]
TYPES = ("string", "integer", "number", "boolean")
WORDS = "One field of a made-up API, described as long as real APIs describe theirs."


def main(paths: list[str]) -> None:
    """Print one line for each pair of documents."""
    if paths:
        old, new = (json.loads(Path(path).read_text(encoding="utf-8")) for path in paths)
        print(report(old, new))
        return
    print(f"{'MB':>6}{'operations':>12}{'schemas':>9}{'changes':>9}{'seconds':>9}")
    for megabytes in SIZES:
        old = generate(round(megabytes * 525))
        print(report(old, change(old)), flush=True)


def report(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Compare two documents; return size, operations, schemas, changes and seconds."""
    begin = time.perf_counter()
    found = compare(old, new)
    seconds = time.perf_counter() - begin
    operations = sum(len(item) for item in new["paths"].values())
    size = len(json.dumps(new)) / 1e6
    return f"{size:6.2f}{operations:12}{len(new['components']['schemas']):9}{len(found):9}{seconds:9.2f}"


def generate(schemas: int) -> dict[str, Any]:
    """Return a document with so many schemas, and an operation for every second one."""
    choose = random.Random(schemas)  # noqa: S311 - the same document each time
    names = [f"Thing{number}" for number in range(schemas)]

    def some_reference() -> dict[str, Any]:
        return {"$ref": f"#/components/schemas/{choose.choice(names)}"}

    def some_field() -> dict[str, Any]:
        reference = some_reference()
        return choose.choice(
            [
                {"type": choose.choice(TYPES), "description": WORDS},
                {"type": "string", "enum": ["one", "two", "three"], "description": WORDS},
                {"type": "object", "properties": {"inner": {"type": "string"}, "other": reference}},
                reference,
                {"type": "array", "items": reference},
                {"anyOf": [reference, {"type": "null"}]},
                {"oneOf": [some_reference() for _ in range(6)]},
                {"allOf": [reference], "description": WORDS},
            ]
        )

    def some_schema() -> dict[str, Any]:
        fields = {f"field_{number}": some_field() for number in range(12)}
        schema = {"type": "object", "properties": fields, "required": sorted(fields)[:4]}
        return {"allOf": [some_reference(), schema]} if choose.random() < 0.1 else schema

    def body(name: str) -> dict[str, Any]:
        return {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}}

    return {
        "openapi": "3.1.0",
        "info": {"title": "made up", "version": "1"},
        "paths": {
            f"/things/{name}": {
                "post": {
                    "operationId": f"create{name}",
                    "requestBody": body(name),
                    "responses": {"200": {"description": WORDS, **body(choose.choice(names))}},
                }
            }
            for name in names[::2]
        },
        "components": {"schemas": {name: some_schema() for name in names}},
    }


def change(document: dict[str, Any]) -> dict[str, Any]:
    """Return a copy in which every twentieth schema has a field more, and a field of another kind."""
    changed = copy.deepcopy(document)
    for schema in list(changed["components"]["schemas"].values())[::20]:
        fields = schema.get("allOf", [None, schema])[1]["properties"]
        fields["added"] = {"type": "string"}
        fields["field_3"] = {"oneOf": [{"type": "string"}, copy.deepcopy(fields["field_4"])]}
    return changed


if __name__ == "__main__":
    main(sys.argv[1:])
