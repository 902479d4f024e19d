"""The API origin of the mock, beyond what `-s contract` checks: keys, fields, media types, methods, paths."""

import json
import socket
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import attrs
import httpx
import pytest

from techforge.mock import MockServer
from techforge.mock import app as app_module
from techforge.mock import server as server_module
from techforge.mock.contract import Contract, contract, read

SIGN = "/storage/generate-signed-path"


def test_job_is_accepted_as_documented(api: httpx.Client, job: dict[str, Any]) -> None:
    """A valid request is answered with 202, a new UUID and `queued`."""
    answers = [api.post("/jobs/v2", json=job) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert {answer.json()["status"] for answer in answers} == {"queued"}
    assert len({uuid.UUID(answer.json()["jobId"]) for answer in answers}) == 2


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("x-api-key", "")],
        [("x-api-key", "wrong")],
        [("x-api-key", "ü")],
        [("x-api-key", "techforge-mock-key")] * 2,
    ],
)
def test_key_is_required(server: MockServer, web: httpx.Client, headers: list[tuple[str, str]]) -> None:
    """Without exactly one valid key every operation answers 401, even if the rest is invalid, too."""
    raw = [(name.encode(), value.encode()) for name, value in headers]
    for method, path in (("POST", "/jobs/v2"), ("GET", SIGN)):
        answer = web.request(method, server.url + path, headers=raw)
        assert answer.status_code == 401
        assert "x-api-key" in answer.json()["message"]
    assert not server.store._jobs


@pytest.mark.parametrize("headers", [{}, {"x-mock-fault": "status=401"}])
def test_a_401_has_a_challenge(server: MockServer, web: httpx.Client, headers: dict[str, str]) -> None:
    """RFC 9110, section 15.5.2: a 401 must have WWW-Authenticate."""
    assert web.get(server.url + SIGN, headers=headers).headers["www-authenticate"] == "ApiKey"


def test_every_given_key_is_accepted() -> None:
    """Several keys may be valid at once, as during a rotation."""
    with MockServer(render=False, api_keys=["old", "new"]) as server:
        assert server.api_key == "old"
        for key in ("old", "new"):
            answer = httpx.get(server.url + SIGN, params={"path": "x"}, headers={"x-api-key": key})
            assert answer.status_code == 404


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"image_url": "not a url"}, "image_url"),
        ({"values": ["a", 1]}, "values.1"),
    ],
)
def test_invalid_field_is_named(
    api: httpx.Client, job: dict[str, Any], change: dict[str, Any], field: str
) -> None:
    """400 says which field is wrong, for people and for programs."""
    answer = api.post("/jobs/v2", json=job | change)
    assert answer.status_code == 400
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert field in answer.json()["message"]


def test_missing_fields_are_all_named(api: httpx.Client, server: MockServer) -> None:
    """All that is missing is reported at once, and nothing is created."""
    answer = api.post("/jobs/v2", json={})
    fields = {error["field"] for error in answer.json()["errors"]}
    assert fields == {"image_url", "audio_url", "job_type", "project_id"}
    assert not server.store._jobs


@pytest.mark.parametrize(
    "body",
    [
        b'{"x": "\\ud800"}',
        b"[" * 100_000,
    ],
)
def test_body_that_is_no_json_object(api: httpx.Client, body: bytes) -> None:
    """What is not JSON, or no object, is 400 and never 500."""
    answer = api.post("/jobs/v2", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["message"]


def test_body_has_a_limit(server: MockServer, api: httpx.Client, job: dict[str, Any]) -> None:
    """A body of more than a megabyte is refused, and the client still gets to read why."""
    answer = api.post("/jobs/v2", json=job | {"language": "x" * 3_000_000})
    assert answer.status_code == 400
    assert "larger than" in answer.json()["message"]
    assert len(server.journal.requests()[-1].body) == 1_000_001


def test_half_a_request_creates_nothing(server: MockServer, job: dict[str, Any]) -> None:
    """A client that goes away within its request, be the rest of it blank, has asked for nothing."""
    body = json.dumps(job).encode()
    head = (
        f"POST /jobs/v2 HTTP/1.1\r\nhost: x\r\nx-api-key: {server.api_key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body) + 1}\r\n\r\n"
    )
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=2) as connection:
        connection.sendall(head.encode() + body)
    while server.journal.count() == 0:
        time.sleep(0.01)
    time.sleep(0.05)
    assert not server.store._jobs


def test_unknown_storage_key_is_404(api: httpx.Client) -> None:
    """Nothing is signed that is not there; an empty key is a key like any other."""
    for path in ("nope", "", "../etc/passwd", "\0", "ü"):
        answer = api.get(SIGN, params={"path": path})
        assert answer.status_code == 404
        assert answer.json()["message"]


def test_done_job_is_signed(
    api: httpx.Client, job: dict[str, Any], output_path: Callable[[str], str]
) -> None:
    """A done job's video can be signed: a URI, and an expiry in RFC 3339, in UTC."""
    job_id = api.post("/jobs/v2", json=job).json()["jobId"]
    signed = api.get(SIGN, params={"path": output_path(job_id)}).json()
    assert signed["expiresAt"].endswith("Z")
    assert datetime.fromisoformat(signed["expiresAt"]).tzinfo
    assert httpx.get(signed["signedUrl"]).headers["content-type"] == "video/mp4"


def test_every_answer_has_a_request_id(api: httpx.Client, job: dict[str, Any]) -> None:
    """Each answer, good or bad, has its own x-request-id."""
    answers = [api.post("/jobs/v2", json=job), api.post("/jobs/v2"), api.get("/jobs/v2"), api.get("/x")]
    assert len({answer.headers["x-request-id"] for answer in answers}) == 4


@pytest.mark.parametrize(
    ("path", "statuses"),
    [
        ("/%6Aobs/v2", {202}),  # RFC 3986, section 6.2.2.2: the same path
        # Section 2.2: another path. A contract with `GET /jobs/{id}` serves some of them, but no POST.
        *((path, {404, 405}) for path in ("/jobs%2Fv2", "/jobs/v2%20", "/jobs/v2;a=b", "/jobs/%2E/v2")),
    ],
)
def test_spellings_of_a_path(api: httpx.Client, job: dict[str, Any], path: str, statuses: set[int]) -> None:
    """An encoded letter is that letter, but an encoded slash separates nothing."""
    assert api.post(path, json=job).status_code in statuses


PATHS = {
    "/jobs/v2": ["post"],
    "/jobs/{id}": ["get", "put"],
    "/jobs/{id}/files/{file-name}.mp4": ["get"],
    "/{first}/v2": ["get"],
}


def path_contract() -> Contract:
    """Return a contract with path parameters."""
    parameter = {"in": "path", "required": True}
    names = {
        "id": {"type": "integer"},
        "file-name": {"type": "string", "minLength": 2},
        "first": {"type": "string"},
    }
    responses = {"200": {"content": {"application/json": {"schema": {"type": "object"}}}}}
    return read(
        {
            "components": {},
            "paths": {
                path: {
                    "parameters": [
                        parameter | {"name": name, "schema": schema}
                        for name, schema in names.items()
                        if f"{{{name}}}" in path
                    ],
                    **{
                        method: {
                            "operationId": f"{method} {path}",
                            "responses": responses | {"400": responses["200"]},
                        }
                        for method in methods
                    },
                }
                for path, methods in PATHS.items()
            },
        }
    )


@pytest.mark.parametrize(
    ("method", "path", "found"),
    [
        ("POST", "/jobs/v2", "post /jobs/v2"),
        ("GET", "/jobs/v2", None),  # a concrete path comes first, whichever methods it has
        ("GET", "/jobs/7", "get /jobs/{id}"),
        ("GET", "/jobs/a%2Fb", "get /jobs/{id}"),
        ("GET", "/jobs/", None),
        ("GET", "/jobs/7/", None),
        ("GET", "/jobs/7/files/a%20b.mp4", "get /jobs/{id}/files/{file-name}.mp4"),
        ("GET", "/jobs/7/files/.mp4", None),
        ("GET", "/a/v2", "get /{first}/v2"),
    ],
)
def test_a_path_is_matched_by_its_template(method: str, path: str, found: str | None) -> None:
    """Templates find their operations, and `Allow` has the methods of the same path."""
    operation = path_contract().find(method, path)
    assert (operation and operation.id) == found
    assert path_contract().methods("/jobs/v2") == ["POST"]
    assert path_contract().methods("/jobs/7") == ["GET", "PUT"]


def test_path_parameters_are_decoded_and_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operation gets its path parameters; one that the schema does not allow is a 400."""
    monkeypatch.setattr(server_module, "contract", path_contract)
    monkeypatch.setattr(app_module.Api, "_carry_out", lambda _api, _operation, call: (200, dict(call.path)))
    with MockServer(render=False) as server:
        ask = f"{server.url}/jobs/{{}}/files/{{}}.mp4"
        assert httpx.get(ask.format(7, "a%2Fb")).json() == {"id": "7", "file-name": "a/b"}
        for job_id, name, wrong in (("x", "ab", "id"), ("7", "a", "file-name")):
            answer = httpx.get(ask.format(job_id, name))
            assert answer.status_code == 400
            assert [error["field"] for error in answer.json()["errors"]] == [wrong]
        assert httpx.post(f"{server.url}/jobs/7").headers["allow"] == "GET, PUT"


def test_mock_holds_itself_to_the_contract(
    api: httpx.Client, job: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An answer of the mock's own that breaks the contract becomes a loud 500."""
    monkeypatch.setattr(app_module.Api, "_carry_out", lambda *_: (202, {"jobId": "no uuid", "status": "new"}))
    answer = api.post("/jobs/v2", json=job)
    assert answer.status_code == 500
    assert "broke the contract" in answer.json()["message"]
    assert "jobId" in answer.json()["message"]
    assert "broke the contract" in caplog.text


def test_mock_answers_no_undocumented_status(
    api: httpx.Client, job: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A status that the contract does not list is a breach, too; one in the 5XX range is not."""
    monkeypatch.setattr(app_module.Api, "_carry_out", lambda *_: (201, {}))
    assert "status 201" in api.post("/jobs/v2", json=job).json()["message"]
    monkeypatch.setattr(app_module.Api, "_carry_out", lambda *_: (501, {}))
    assert api.post("/jobs/v2", json=job).status_code == 501


def test_operation_that_the_mock_lacks_is_501(server: MockServer) -> None:
    """When the contract grows, the mock says what it cannot do instead of dying."""
    operation = attrs.evolve(contract().operations[0], id="deleteAll")
    api = server._gates[0].app.routes[-1].app.api  # type: ignore[attr-defined]
    status, body = api._carry_out(operation, None)
    assert status == 501
    assert "deleteAll" in body["message"]


def test_parallel_requests(server: MockServer, job: dict[str, Any]) -> None:
    """Twenty clients at once get twenty jobs."""

    def create(_number: int) -> str:
        answer = httpx.post(server.url + "/jobs/v2", json=job, headers={"x-api-key": server.api_key})
        return str(answer.json()["jobId"])

    with ThreadPoolExecutor(20) as pool:
        assert len(set(pool.map(create, range(20)))) == 20
    assert server.journal.count(operation="createJob") == 20
