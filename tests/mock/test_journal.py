"""The journal tells what happened, and keeps the key to itself."""

from typing import Any

import httpx

from techforge.mock import MockServer


def test_records(server: MockServer, api: httpx.Client, job: dict[str, Any]) -> None:
    """Each request is there, in order, with what it was and what became of it."""
    job_id = api.post("/jobs/v2", json=job).json()["jobId"]
    api.get("/storage/generate-signed-path?path=a%20b")
    api.get("/nope")
    created, signed, unknown = server.journal.requests()
    assert (created.server, created.operation, created.method, created.path) == (
        "api",
        "createJob",
        "POST",
        "/jobs/v2",
    )
    assert (created.status, created.job_id, created.fault) == (202, job_id, None)
    assert b"image_url" in created.body
    assert created.headers["content-type"] == "application/json"
    assert (signed.operation, signed.query, signed.status) == ("generateSignedPath", "path=a%20b", 404)
    assert (unknown.operation, unknown.status) == (None, 404)


def test_counts(server: MockServer, api: httpx.Client, web: httpx.Client) -> None:
    """Requests can be counted by operation and by origin; control requests do not count."""
    api.post("/jobs/v2", json={})
    web.get(server.storage_url + "/x")
    api.get("/__mock__/journal")
    assert server.journal.count() == 2
    assert server.journal.count(operation="createJob") == 1
    assert server.journal.count(server="storage") == server.journal.count(operation="storage") == 1
    server.journal.clear()
    assert server.journal.count() == 0


def test_key_is_masked(server: MockServer, api: httpx.Client) -> None:
    """Tests see the key that was sent; reprs and the control endpoint do not show it."""
    api.post("/jobs/v2", json={}, headers={"authorization": "Bearer secret"})
    (record,) = server.journal.requests()
    assert record.headers["x-api-key"] == server.api_key
    for shown in (repr(record), repr(record.headers), str(record.headers), api.get("/__mock__/journal").text):
        assert server.api_key not in shown
        assert "secret" not in shown


def test_fault_is_recorded(server: MockServer, api: httpx.Client, job: dict[str, Any]) -> None:
    """The journal says which fault a request met."""
    server.faults.add("status=503;operation=createJob")
    api.post("/jobs/v2", json=job)
    (record,) = server.journal.requests()
    assert record.fault
    assert record.fault.status == record.status == 503
    assert api.get("/__mock__/journal").json()[0]["fault"] == "status=503;operation=createJob"


def test_cleared_while_answering(server: MockServer, api: httpx.Client, job: dict[str, Any]) -> None:
    """A request that was on its way when the journal was cleared does not come back."""
    amend = server.journal.open(_record(server, api, job))
    server.journal.clear()
    amend(status=200)
    assert server.journal.count() == 0


def _record(server: MockServer, api: httpx.Client, job: dict[str, Any]) -> Any:
    api.post("/jobs/v2", json=job)
    return server.journal.requests()[-1]
