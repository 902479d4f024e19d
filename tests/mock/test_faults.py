"""Faults happen as asked for, to the requests that they are meant for, and to no others."""

import json
import socket
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest

from techforge.mock import Fault, MockServer

Create = Callable[[str], httpx.Response]
Sign = Callable[[str], str]


@pytest.fixture
def create(api: httpx.Client, job: dict[str, Any]) -> Create:
    """Creates a job with a fault in the header."""
    return lambda fault: api.post("/jobs/v2", json=job, headers={"x-mock-fault": fault})


def jobs(server: MockServer) -> int:
    """How many jobs there are."""
    return len(server.store._jobs)


@pytest.mark.parametrize(
    ("spec", "status", "created", "start"),
    [
        *((f"status={status}", status, 0, '{"message":"') for status in (429, 500, 503, 520)),
        ("status=503;create=1", 503, 1, '{"message":"'),  # a gateway that fails after the job was created
        ("status=200", 200, 1, '{"jobId":"'),
        ("status=502;body=html", 502, 0, "<!doctype html>"),
        ("body=html", 200, 1, "<!doctype html>"),
        ("body=broken-json", 202, 1, '{"jobId":"'),
        ("body=empty", 202, 1, ""),
        ("body=empty;status=500", 500, 0, ""),
        ("status=429;retry-after=2", 429, 0, '{"message":"'),
        ("json=[1];status=418", 418, 0, "[1]"),
    ],
)
def test_answers(
    server: MockServer, create: Create, spec: str, status: int, created: int, start: str
) -> None:
    """A fault replaces the status, the body, or the request as a whole; the connection stays usable."""
    answer = create(spec)
    assert (answer.status_code, jobs(server)) == (status, created)
    assert answer.text.startswith(start)
    assert bool(answer.text) == bool(start)
    kind = "text/html" if start.startswith("<") else "application/json" if start else ""
    assert answer.headers.get("content-type", "").startswith(kind)
    assert answer.headers.get("retry-after") == ("2" if "retry" in spec else None)
    if "broken" in spec:
        with pytest.raises(json.JSONDecodeError):
            answer.json()
    assert create("delay=0.01").status_code == 202


@pytest.mark.parametrize(
    ("spec", "error", "reason", "created"),
    [
        ("body=truncated", httpx.RemoteProtocolError, r"received \d+ bytes, expected", 1),
        # The kernel resets a connection that is closed with unread data, depending on timing.
        ("close=before-body", (httpx.RemoteProtocolError, httpx.ReadError), "without sending|reset", 0),
        ("close=after-body", httpx.RemoteProtocolError, "without sending a response", 1),
        ("close=after-body;create=0", httpx.RemoteProtocolError, "without sending a response", 0),
        ("close=mid-answer", httpx.RemoteProtocolError, "incomplete chunked read", 1),
        ("close=after-body;reset=1", httpx.ReadError, "reset", 1),
        ("close=mid-answer;reset=1", httpx.ReadError, "reset", 1),
        ("body=truncated;reset=1", httpx.ReadError, "reset", 1),
    ],
)
def test_connections_that_end(
    server: MockServer, create: Create, spec: str, error: Any, reason: str, created: int
) -> None:
    """A connection can end before, after or in the middle of an answer, by a close or a reset."""
    with pytest.raises(error, match=reason):
        create(spec)
    record = server.journal.requests()[-1]
    assert (jobs(server), bool(record.job_id)) == (created, bool(created))
    assert (record.body == b"") == ("before-body" in spec)


def test_retry_after_date(create: Create) -> None:
    """Retry-After can be an HTTP date, counted from the answer."""
    answer = create("status=503;retry-after=date:20")
    wait = parsedate_to_datetime(answer.headers["retry-after"]) - parsedate_to_datetime(
        answer.headers["date"]
    )
    assert 19 <= wait.total_seconds() <= 21


def test_delay(server: MockServer, create: Create, api: httpx.Client, job: dict[str, Any]) -> None:
    """A late answer comes late, and the job exists even if the client has given up."""
    started = time.monotonic()
    assert create("delay=0.2").status_code == 202
    assert time.monotonic() - started >= 0.2
    with pytest.raises(httpx.ReadTimeout):
        api.post("/jobs/v2", json=job, headers={"x-mock-fault": "delay=5"}, timeout=0.1)
    assert jobs(server) == 2
    assert server.journal.requests()[-1].status is None
    assert server.journal.requests()[-1].job_id


def test_arbitrary_json(server: MockServer, create: Create) -> None:
    """Any JSON can be answered, separators in it included, with the id of the job that exists."""
    answer = create('json={"message": "a;b|c=d", "job": {"uuid": "$job_id"}};status=202')
    assert answer.status_code == 202
    assert answer.json()["message"] == "a;b|c=d"
    assert answer.json()["job"]["uuid"] == server.journal.requests()[-1].job_id
    assert create("json=[1];status=418").json() == [1]


def test_close_before_the_body_was_sent(server: MockServer) -> None:
    """Such a close, or reset, does not wait for a body."""
    with half_sent(server, "close=before-body") as connection:
        assert connection.recv(100) == b""
    with half_sent(server, "close=before-body;reset=1") as connection, pytest.raises(ConnectionResetError):
        connection.recv(100)


def half_sent(server: MockServer, fault: str) -> socket.socket:
    """A connection on which a request was sent, but for its body."""
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=2)
    head = f"POST /jobs/v2 HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\nx-mock-fault: {fault}\r\n\r\n"
    connection.sendall(head.encode())
    return connection


def test_close_after_the_body(
    server: MockServer, create: Create, job: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The connection can end after the request was carried out: a job of which no one was told."""
    with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
        create("close=after-body")
    record = server.journal.requests()[-1]
    assert json.loads(record.body) == job
    assert record.status is None
    assert record.job_id
    assert server.store.poll_job(record.job_id)
    assert not [entry for entry in caplog.records if entry.name == "uvicorn.error"]


def test_drip(api: httpx.Client, job: dict[str, Any]) -> None:
    """A dripping answer defeats read timeouts: every byte comes in time, all of them do not."""
    started = time.monotonic()
    answer = api.post("/jobs/v2", json=job, headers={"x-mock-fault": "drip=0.005"}, timeout=0.2)
    assert answer.status_code == 202
    assert time.monotonic() - started >= 0.005 * len(answer.content)


def test_times_and_after(server: MockServer, api: httpx.Client, job: dict[str, Any]) -> None:
    """A fault lets so many requests pass and then hits so many."""
    server.faults.add("status=503;after=1;times=2")
    seen = [api.post("/jobs/v2", json=job).status_code for _ in range(5)]
    assert seen == [202, 503, 503, 202, 202]
    server.faults.add("status=500;times=0")
    assert {api.post("/jobs/v2", json=job).status_code for _ in range(4)} == {500}
    server.faults.clear()
    assert api.post("/jobs/v2", json=job).status_code == 202


def test_over(server: MockServer, api: httpx.Client, job: dict[str, Any]) -> None:
    """A fault lets so many requests pass in a second, and no more; what was let pass is not made up for."""
    server.faults.add("status=429;over=5;times=0")
    assert [api.post("/jobs/v2", json=job).status_code for _ in range(6)] == [202] * 5 + [429]
    time.sleep(0.5)
    assert [api.post("/jobs/v2", json=job).status_code for _ in range(4)].count(202) in {2, 3}


def test_faults_form_a_queue(server: MockServer, api: httpx.Client, job: dict[str, Any]) -> None:
    """Faults hit one after the other, in the order in which they were added."""
    server.faults.add("status=503|status=500", Fault(status=429))
    assert [api.post("/jobs/v2", json=job).status_code for _ in range(4)] == [503, 500, 429, 202]


def test_fault_hits_its_operation_only(
    server: MockServer, api: httpx.Client, web: httpx.Client, sign: Sign
) -> None:
    """A fault waits for its operation; one without an operation leaves storage alone."""
    server.store.put("x", b"x")
    url = sign("x")
    server.faults.add("status=503;operation=generateSignedPath;times=0")
    assert api.post("/jobs/v2", json={}).status_code == 400
    assert api.get("/storage/generate-signed-path").status_code == 503
    server.faults.clear()
    server.faults.add("status=503;times=0")
    assert web.get(url).status_code == 200
    assert api.get("/nope").status_code == 404


def test_header_picks_by_operation(api: httpx.Client, job: dict[str, Any]) -> None:
    """A client that sends one header everywhere can mean each operation on its own."""
    api.headers["x-mock-fault"] = "status=500;operation=generateSignedPath|status=503;operation=createJob"
    assert api.post("/jobs/v2", json=job).status_code == 503
    assert api.get("/storage/generate-signed-path").status_code == 500


def test_faults_of_the_start(job: dict[str, Any]) -> None:
    """A server can be started with faults."""
    with MockServer(render=False, faults=["status=503", Fault(status=500)]) as server:
        headers = {"x-api-key": server.api_key}
        seen = [httpx.post(server.url + "/jobs/v2", json=job, headers=headers).status_code for _ in range(3)]
        assert seen == [503, 500, 202]


def test_control_endpoint(api: httpx.Client, job: dict[str, Any]) -> None:
    """Faults can be added from another process; a bad spec is refused."""
    answer = api.post("/__mock__/faults", json={"spec": "status=503"})
    assert (answer.status_code, answer.json()) == (201, {"faults": ["status=503"]})
    assert api.post("/jobs/v2", json=job).status_code == 503
    bodies: list[object] = [{"spec": "status=999"}, {}, []]
    for bad in bodies:
        assert api.post("/__mock__/faults", json=bad).status_code == 400
    assert "status" in api.post("/__mock__/faults", json={"spec": "status=999"}).json()["message"]
