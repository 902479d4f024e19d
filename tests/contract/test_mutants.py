"""The catalogue of mutants, and the requests that find them, for whatever a contract may bring."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(Path(__file__).parent))

import mutants  # noqa: E402 - found since the line above
import odd_bodies  # noqa: E402

DOCUMENT = json.loads((ROOT / "openapi.json").read_text("utf-8"))
JSON = "application/json"

FIELDS: dict[str, Any] = {
    "a text or nothing": {"type": ["string", "null"]},
    "a number or nothing": {"type": ["number", "null"], "minimum": 0.5},
    "of several types": {"type": ["integer", "boolean", "array"]},
    "a small integer": {"type": "integer", "minimum": 10, "maximum": 20},
    "an open interval": {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 5},
    "a fraction": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    "tens": {"type": "integer", "multipleOf": 10},
    "a short text": {"type": "string", "minLength": 2, "maxLength": 5},
    "a word": {"type": "string", "pattern": "^[a-z]+$"},
    "one of some": {"type": "string", "enum": ["fast", "slow"]},
    "one of some, or nothing": {"type": ["string", "null"], "enum": ["fast", None]},
    "constant": {"const": "v2"},
    "a date-time": {"type": "string", "format": "date-time"},
    "of a format that nobody knows": {"type": "string", "format": "colour"},
    "texts": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 3},
    "a set": {"type": "array", "items": {"type": "integer"}, "uniqueItems": True},
    "an object": {
        "type": "object",
        "required": ["x"],
        "properties": {"x": {"type": "integer"}, "y": {"type": ["string", "null"], "maxLength": 3}},
    },
    "objects": {
        "type": "array",
        "items": {
            "type": "object",
            "required": ["id"],
            "properties": {"id": {"type": "string", "format": "uuid"}},
        },
    },
    "closed": {"type": "object", "properties": {"x": {"type": "boolean"}}, "additionalProperties": False},
    "one or the other": {"anyOf": [{"type": "integer"}, {"type": "string", "format": "uri"}]},
    "anything": {},
    "really anything": True,
    "itself": {"$ref": "#/components/schemas/JobRequest"},
}


def with_field(schema: Any) -> Any:
    """Return the contract with one more field."""
    document = json.loads(json.dumps(DOCUMENT))
    document["components"]["schemas"]["JobRequest"]["properties"]["further"] = schema
    return document


def request_schema(document: Any) -> Any:
    """Return the schema of what is sent to create a job."""
    return document["paths"]["/jobs/v2"]["post"]["requestBody"]["content"][JSON]["schema"]


def bodies(document: Any) -> Iterator[Any]:
    """Return the bodies that the contract tests send."""
    example = DOCUMENT["paths"]["/jobs/v2"]["post"]["requestBody"]["content"][JSON]["examples"]
    valid = example["talkingVideo"]["value"]
    yield from (body for _, body in odd_bodies.variations(document, request_schema(document), valid))


@pytest.mark.parametrize("schema", FIELDS.values(), ids=FIELDS)
def test_every_constraint_is_asked_for(schema: Any) -> None:
    """Whichever constraint of a request a server does not hold, or holds beyond, some body tells."""
    document = with_field(schema)
    sent = list(bodies(document))
    valid = odd_bodies.validator(document, request_schema(document)).is_valid
    due = [valid(body) for body in sent]
    assert any(due), "no valid body is sent"

    def found(mutant: mutants.Mutant) -> bool:
        judged = odd_bodies.validator(mutant.document, request_schema(mutant.document)).is_valid
        return any(judged(body) != right for body, right in zip(sent, due, strict=True))

    mutated = [m for m in mutants.catalogue(document) if m.document and ": further" in m.name]
    assert [mutant.name for mutant in mutated if not found(mutant)] == []
    assert len(mutated) >= (0 if schema is True else 1)


def test_the_readme_counts_the_catalogue() -> None:
    """A number there is how many are tried."""
    readme = (ROOT / "README.md").read_text("utf-8")
    names = [mutant.name for mutant in mutants.catalogue(DOCUMENT)]
    count = len(set(names))
    assert count == len(names), "two mutants share a name, so one is not tried"
    claims = [f"{count} of {count} killed", f"the unchanged server: **{count} of {count}**"]
    assert [claim for claim in claims if claim not in readme] == []
