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


@pytest.mark.parametrize("status", [429, 500, 503, 520])
def test_status_replaces_the_request(server: MockServer, create: Create, status: int) -> None:
    """An error status is answered in JSON, and the request does nothing."""
    answer = create(f"status={status}")
    assert answer.status_code == status
    assert answer.json()["message"]
    assert jobs(server) == 0


def test_status_after_the_fact(server: MockServer, create: Create) -> None:
    """`create=1` is the gateway that fails after the job was created."""
    assert create("status=503;create=1").status_code == 503
    assert jobs(server) == 1


def test_status_of_success_keeps_the_body(server: MockServer, create: Create) -> None:
    """Another status below 400 comes with the operation's own answer."""
    answer = create("status=200")
    assert answer.status_code == 200
    assert answer.json()["jobId"] == server.journal.requests()[-1].job_id


def test_retry_after_seconds(create: Create) -> None:
    """Retry-After can be seconds."""
    assert create("status=429;retry-after=2").headers["retry-after"] == "2"


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


def test_html(create: Create) -> None:
    """A proxy's page can come with an error or with 200."""
    for spec, status in (("status=502;body=html", 502), ("body=html", 200)):
        answer = create(spec)
        assert answer.status_code == status
        assert answer.headers["content-type"].startswith("text/html")
        assert answer.text.startswith("<!doctype html>")


def test_broken_json(server: MockServer, create: Create) -> None:
    """A 202 can be cut so that HTTP is whole and JSON is not."""
    answer = create("body=broken-json")
    assert answer.status_code == 202
    assert answer.headers["content-type"] == "application/json"
    with pytest.raises(json.JSONDecodeError):
        answer.json()
    assert jobs(server) == 1


def test_empty(create: Create) -> None:
    """An answer can have no body at all."""
    assert (create("body=empty").status_code, create("body=empty").content) == (202, b"")
    assert (create("body=empty;status=500").status_code, create("body=empty").content) == (500, b"")


def test_truncated(server: MockServer, create: Create) -> None:
    """The connection can end before as much has come as the length says."""
    with pytest.raises(httpx.RemoteProtocolError, match=r"received \d+ bytes, expected"):
        create("body=truncated")
    assert jobs(server) == 1


def test_arbitrary_json(server: MockServer, create: Create) -> None:
    """Any JSON can be answered, separators in it included, with the id of the job that exists."""
    answer = create('json={"message": "a;b|c=d", "job": {"uuid": "$job_id"}};status=202')
    assert answer.status_code == 202
    assert answer.json()["message"] == "a;b|c=d"
    assert answer.json()["job"]["uuid"] == server.journal.requests()[-1].job_id
    assert create("json=[1];status=418").json() == [1]


def test_close_before_the_body(server: MockServer, create: Create) -> None:
    """The connection can end before the request was read: nothing is created."""
    # What is closed with something unread is reset by the kernel, depending on who is faster.
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        create("close=before-body")
    assert jobs(server) == 0
    record = server.journal.requests()[-1]
    assert (record.body, record.status, record.job_id) == (b"", None, None)


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


def test_close_after_the_body_without_effect(server: MockServer, create: Create) -> None:
    """`create=0` is the server that died before it did anything."""
    with pytest.raises(httpx.RemoteProtocolError):
        create("close=after-body;create=0")
    assert jobs(server) == 0


def test_close_in_the_answer(server: MockServer, create: Create) -> None:
    """The connection can end in the middle of an answer of unknown length."""
    with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
        create("close=mid-answer")
    assert jobs(server) == 1


@pytest.mark.parametrize("where", ["close=after-body", "close=mid-answer", "body=truncated"])
def test_reset(create: Create, where: str) -> None:
    """Each end of a connection can be a reset instead of a close."""
    with pytest.raises(httpx.ReadError, match="reset"):
        create(f"{where};reset=1")


def test_drip(api: httpx.Client, job: dict[str, Any]) -> None:
    """A dripping answer defeats read timeouts: every byte comes in time, all of them do not."""
    started = time.monotonic()
    answer = api.post("/jobs/v2", json=job, headers={"x-mock-fault": "drip=0.005"}, timeout=0.2)
    assert answer.status_code == 202
    assert time.monotonic() - started >= 0.005 * len(answer.content)


def test_faulty_request_keeps_the_connection_usable(create: Create) -> None:
    """A fault that ends no connection leaves it open for the next request."""
    for spec in ("status=503", "body=broken-json", "delay=0.01"):
        create(spec)
    assert create("body=empty").status_code == 202


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
