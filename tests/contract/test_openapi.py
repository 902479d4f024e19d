"""openapi.json says what the vendor's overview and reference page say, and nothing else."""

import json
from pathlib import Path

import jsonschema_rs
import pytest

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = json.loads((ROOT / "openapi.json").read_text("utf-8"))
SCHEMAS = CONTRACT["components"]["schemas"]
CREATE = CONTRACT["paths"]["/jobs/v2"]["post"]
SIGN = CONTRACT["paths"]["/storage/generate-signed-path"]["get"]

# The overview's own example, letter by letter.
EXAMPLE = {
    "image_url": "https://cdn.example.com/image.png",
    "audio_url": "https://cdn.example.com/audio.mp3",
    "is_clone_required": False,
    "language": "en",
    "version": 6,
    "job_type": "ai_talking_video",
    "project_id": "468ea7a0-66e1-4357-a760-236e54167f3e",
    "output_size": 400,
    "crop": True,
    "dynamic_scale": 1,
    "iteration_count": 10,
    "expand_ratio": 0.5,
    "values": [],
}

# The reference page's table.
FIELDS = {
    "image_url": {"type": "string", "format": "uri"},
    "audio_url": {"type": "string", "format": "uri"},
    "job_type": {"type": "string"},
    "project_id": {"type": "string", "format": "uuid"},
    "is_clone_required": {"type": "boolean"},
    "language": {"type": "string"},
    "version": {"type": "integer", "enum": [4, 5, 6]},
    "output_size": {"type": "integer"},
    "crop": {"type": "boolean"},
    "dynamic_scale": {"type": "number"},
    "iteration_count": {"type": "integer"},
    "expand_ratio": {"type": "number"},
    "values": {"type": "array", "items": {"type": "string"}},
}


def resolved(value: dict) -> dict:
    """Follow a reference."""
    while "$ref" in value:
        found = CONTRACT
        for name in value["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        value = found
    return value


def bare(schema: dict) -> dict:
    """Return a schema without its prose."""
    return {name: value for name, value in resolved(schema).items() if name != "description"}


def validator(name: str):
    """Return a validator for a schema of the contract, formats included."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": CONTRACT["components"]}
    return jsonschema_rs.Draft202012Validator(schema, validate_formats=True)


def test_the_frame() -> None:
    """OpenAPI 3.1.0, version 1.0.0, the live server, two operations."""
    assert CONTRACT["openapi"] == "3.1.0"
    assert CONTRACT["info"]["version"] == "1.0.0"
    assert [server["url"] for server in CONTRACT["servers"]] == ["https://api.techforgeinnovate.com"]
    operations = {(path, method) for path, item in CONTRACT["paths"].items() for method in item}
    assert operations == {("/jobs/v2", "post"), ("/storage/generate-signed-path", "get")}


def test_the_key_goes_into_a_header() -> None:
    """`x-api-key`, on both operations."""
    scheme = CONTRACT["components"]["securitySchemes"]["apiKey"]
    assert (scheme["type"], scheme["in"], scheme["name"]) == ("apiKey", "header", "x-api-key")
    assert CREATE["security"] == SIGN["security"] == CONTRACT["security"] == [{"apiKey": []}]


def test_every_status_is_there() -> None:
    """Those of the two operations, those of the error section, and no other."""
    assert set(CREATE["responses"]) == {"202", "400", "401", "429", "5XX"}
    assert set(SIGN["responses"]) == {"200", "400", "401", "404", "429", "5XX"}


def test_the_request_is_the_reference_pages_table() -> None:
    """Field by field: type, format, enum, and what is required."""
    request = SCHEMAS["JobRequest"]
    assert {name: bare(schema) for name, schema in request["properties"].items()} == FIELDS
    assert request["required"] == ["image_url", "audio_url", "job_type", "project_id"]
    assert CREATE["requestBody"]["required"] is True


def test_the_answers_are_strict() -> None:
    """What the overview shows is required, and the statuses are closed."""
    assert SCHEMAS["JobAccepted"]["required"] == ["jobId", "status"]
    assert bare(SCHEMAS["JobAccepted"]["properties"]["jobId"]) == {"type": "string", "format": "uuid"}
    assert bare(SCHEMAS["JobAccepted"]["properties"]["message"]) == {"type": "string"}
    assert SCHEMAS["JobStatus"]["enum"] == ["queued", "processing", "done", "failed"]
    assert SCHEMAS["SignedUrl"]["required"] == ["signedUrl", "expiresAt"]
    assert bare(SCHEMAS["SignedUrl"]["properties"]["signedUrl"]) == {"type": "string", "format": "uri"}
    assert bare(SCHEMAS["SignedUrl"]["properties"]["expiresAt"]) == {"type": "string", "format": "date-time"}


def test_the_path_is_a_required_query_parameter() -> None:
    """One parameter, as in the overview."""
    (parameter,) = SIGN["parameters"]
    assert (parameter["name"], parameter["in"], parameter["required"]) == ("path", "query", True)
    assert parameter["schema"] == {"type": "string"}


def test_errors_promise_nothing() -> None:
    """Whatever an error answer holds, it keeps to the contract."""
    check = validator("Error")
    for body in ({}, {"message": "no"}, {"message": ["a", "b"]}, {"error": {"code": 1}}, {"detail": None}):
        assert check.is_valid(body)


@pytest.mark.parametrize(
    ("value", "valid"),
    [
        ("0", True),
        ("120", True),
        ("Wed, 21 Oct 2026 07:28:00 GMT", True),
        ("-1", False),
        ("soon", False),
        ("2026-10-21T07:28:00Z", False),
        ("", False),
    ],
)
def test_retry_after_is_optional_and_has_two_forms(value: str, valid: bool) -> None:
    """RFC 9110, 10.2.3: seconds or an HTTP date."""
    header = resolved(resolved(CREATE["responses"]["429"])["headers"]["Retry-After"])
    assert header["required"] is False
    assert jsonschema_rs.Draft202012Validator(header["schema"]).is_valid(value) is valid


def test_the_examples_are_the_overviews_own_and_valid() -> None:
    """The request as it is printed there; the answers with a real id in the place of <uuid>."""
    (request,) = CREATE["requestBody"]["content"]["application/json"]["examples"].values()
    assert request["value"] == EXAMPLE
    (accepted,) = CREATE["responses"]["202"]["content"]["application/json"]["examples"].values()
    assert accepted["value"] == {"jobId": "15a6331b-3837-4ae8-8fa7-d3ead3388d77", "status": "queued"}
    (signed,) = SIGN["responses"]["200"]["content"]["application/json"]["examples"].values()
    assert signed["value"] == {"signedUrl": "https://...", "expiresAt": "2024-12-01T12:00:00Z"}
    for name, example in (("JobRequest", request), ("JobAccepted", accepted), ("SignedUrl", signed)):
        validator(name).validate(example["value"])


def test_the_link_leads_from_the_job_to_its_video() -> None:
    """By runtime expressions, to the key that the API uses."""
    (link,) = CREATE["responses"]["202"]["links"].values()
    assert link["operationId"] == SIGN["operationId"]
    assert link["parameters"] == {
        "path": "ai-talking-videos/{$request.body#/project_id}/outputs/{$response.body#/jobId}.mp4"
    }
