"""`contract --target`: any server may be tested, and no job is created beyond the limit."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
import requests

import contract
import contract_mutants
import contract_target
from money_rule import carries_value
from techforge.mock import MockServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KEY = "Staging-key'31415926"
QUICK = ["--max-examples=5", "--max-failures=1", "--api-key-env=STAGING_KEY"]
DOCUMENT = json.loads((contract_target.ROOT / "openapi.json").read_text("utf-8"))
OPERATION = DOCUMENT["paths"]["/jobs/v2"]["post"]
ORDER = OPERATION["requestBody"]["content"]["application/json"]["examples"]["talkingVideo"]["value"]


class Careless(BaseHTTPRequestHandler):
    """A server that makes a job of everything, and repeats the key."""

    protocol_version = "HTTP/1.1"
    bodies: list[bytes]
    status = 202

    def answer(self) -> None:
        """Respond."""
        if self.headers.get("transfer-encoding"):
            self.close_connection = True
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.bodies.append(body)
        key = self.headers.get("x-api-key")
        answer = json.dumps({"jobId": str(uuid4()), "status": "queued", "message": key}).encode()
        self.send_response(self.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_QUERY = do_GET = answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def careless() -> Iterator[tuple[str, type[Careless]]]:
    """Return the URL of a careless server, and the server."""
    handler = type("Handler", (Careless,), {"bodies": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", handler
        server.shutdown()


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Return what runs the suite against a server: it returns the exit code, and what was printed."""
    monkeypatch.setenv("STAGING_KEY", KEY)

    def against(url: str, *arguments: str) -> tuple[int, str]:
        report = tmp_path / "report.txt"
        code = contract.main(["--target", url, f"--report={report}", *QUICK, *arguments])
        printed = capsys.readouterr()
        if report.exists():
            assert report.read_text("utf-8").strip() in printed.out
        return code, printed.out + printed.err

    return against


@pytest.mark.parametrize("limit", [0, 2])
def test_no_job_beyond_the_limit(
    limit: int, careless: tuple[str, type[Careless]], run: Callable[..., tuple[int, str]]
) -> None:
    """A server that accepts everything gets as many bodies as it may make jobs of; each is reported."""
    url, server = careless
    code, printed = run(url, f"--may-create-jobs={limit}")
    assert code == 1
    with_value = [body for body in server.bodies if carries_value(body)]
    assert len(with_value) == limit
    assert printed.count("A JOB MAY EXIST: 202") == limit
    assert "Not sent, because of --may-create-jobs: POST /jobs/v2" in printed
    assert KEY not in printed
    assert KEY[:-1] not in printed


def test_a_server_whose_jobs_take_time(
    run: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The suite waits for videos, counts the jobs, and says what it has left out."""
    with MockServer(render=False, job_polls=2) as server:
        monkeypatch.setenv("STAGING_KEY", server.api_key)
        code, printed = run(server.url, "--may-create-jobs=8")
        created = [each for each in server.journal.requests() if each.method == "POST" and each.status == 202]
    assert code == 0, printed
    assert 0 < len(created) <= 8
    assert "errors_are_as_documented" in printed


def test_a_lost_job_is_found(run: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """With few jobs, the check that follows the links comes first."""
    mutant = contract_mutants.catalogue(DOCUMENT)["createJob: an accepted job is forgotten"]
    with mutant.serving(render=False, job_polls=0) as server:
        monkeypatch.setenv("STAGING_KEY", server.api_key)
        code, printed = run(server.url, "--may-create-jobs=4", "--job-timeout=1")
    assert code == 1
    assert "links_lead_somewhere" in printed
    assert f"http://127.0.0.1:{server.url.rpartition(':')[2]}" in printed


@pytest.mark.parametrize("status", [None, 503])
def test_a_server_that_fails_is_left_alone(
    status: int | None, careless: tuple[str, type[Careless]], run: Callable[..., tuple[int, str]]
) -> None:
    """After repeated failures the run ends, with a report."""
    url, server = careless
    if status is None:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    else:
        server.status = status
    code, printed = run(url)
    assert code == 1
    assert "failures in a row" in printed or "Unavailable" in printed, printed
    assert len(server.bodies) < 60


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--target=https://api.techforgeinnovate.com", *QUICK], "--paid-job"),
        (["--target=https://API.techforgeinnovate.com./", *QUICK, "--may-create-jobs=3"], "--paid-job"),
        (["--target=http://staging.example.com", *QUICK], "https"),
        (["--target=https://user:password@staging.example.com", *QUICK], "no user"),
        (["--target=https://staging.example.com"], "environment variable"),
        (["--target=https://staging.example.com", f"--api-key-env={KEY}"], "environment variable"),
        (["--url=https://staging.example.com"], "--target"),
        (["-u", "https://staging.example.com"], "--target"),
    ],
)
def test_nothing_is_sent(
    arguments: list[str], reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The live API, an unsafe URL or a missing key ends the run before it begins."""
    monkeypatch.setenv("STAGING_KEY", KEY)
    assert contract.main(arguments) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert KEY not in error


@pytest.mark.parametrize("limit", ["-1", "many"])
def test_a_wrong_limit(limit: str) -> None:
    """A limit is a number of jobs."""
    with pytest.raises(SystemExit):
        contract.main(["--target=https://staging.example.com", f"--may-create-jobs={limit}"])


@pytest.mark.skipif(sys.platform == "win32", reason="there is no bash")
@pytest.mark.parametrize("key", [KEY, "plain-key-lower", 'A"quote\\and$dollar`tick'])
def test_a_command_can_be_pasted(key: str) -> None:
    """A printed command has the variable instead of the key, and sends the same."""
    censor = contract_target.Censor(key, "STAGING_KEY", "https://staging.example.com/v1")
    url = "https://staging.example.com/v1/storage/generate-signed-path?path=a%2Fb.mp4"
    for spelling in (key, key[:-1], key.upper(), f"{key}x", f"%41{key[1:]}", f"Bearer {key}"):
        body = json.dumps({"key": spelling})
        arguments = ["-X", "POST", "-H", f"x-api-key: {spelling}", "-d", body, url]
        line = censor(f"    curl {shlex.join(arguments)}")
        assert key[:-1].lower() not in line.lower()
        printed = subprocess.run(
            ["bash", "-c", line.replace("curl", "printf '%s\\0'", 1)],  # noqa: S607
            env={"STAGING_KEY": key},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        # JSON escapes the key, so its variable is not the same text.
        if json.dumps(key) == f'"{key}"':
            assert printed.split("\0")[:-1] == arguments


def test_signatures_are_hidden() -> None:
    """A signed URL loses its query, also where storage has the server's address."""
    censor = contract_target.Censor(KEY, "STAGING_KEY", "https://staging.example.com")
    for line in (
        '{"signedUrl": "https://storage.example.com/a.mp4?a=canary-16180339"}',
        '{"signedUrl": "https://staging.example.com/a.mp4?a=canary-16180339"}',
        "    curl -X GET 'https://storage.example.com/a.mp4?a=canary-16180339'",
        "    curl -X GET 'https://staging.example.com/a.mp4?X-Amz-Signature=canary-16180339'",
    ):
        assert "canary" not in censor(line)


# The guard, without a server


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> object:
    """Return the module that schemathesis loads."""
    monkeypatch.syspath_prepend(contract_target.CHECKS)
    import target  # noqa: PLC0415

    monkeypatch.setattr(target.time, "sleep", lambda _: None)
    return target


def request(method: str = "POST", path: str = "/jobs/v2", body: object = ORDER, key: str = KEY) -> object:
    """Return a request to the server under test."""
    headers = {"x-api-key": key}
    return requests.Request(method, f"https://a.example/v1{path}", headers, json=body).prepare()


def response(status: int, body: object = None) -> requests.Response:
    """Return a response."""
    made = requests.Response()
    made.status_code, made._content = status, json.dumps(body).encode()
    made._content_consumed = True
    return made


def test_rejections_are_free(target, capsys: pytest.CaptureFixture[str]) -> None:
    """A 4xx gives the job back, anything else does not; the last job is for what must be rejected."""
    guard = target.Guard(DOCUMENT, "https://a.example/v1", KEY, 3, 0)
    for _ in range(5):
        assert guard.send(request(), lambda: response(400)).status_code == 400
        assert guard.send(request(key="wrong-key"), lambda: response(401)).status_code == 401
    assert guard.send(request(), lambda: response(202, {"jobId": "a"})).status_code == 202
    assert guard.send(request(), lambda: response(500)).status_code == 500
    assert guard.send(request(), lambda: pytest.fail("sent")).reason == target.NOT_SENT
    assert guard.send(request(key="wrong-key"), lambda: response(401)).status_code == 401
    with pytest.raises(requests.Timeout):
        guard.send(request("PUT"), raising(requests.Timeout))
    assert guard.send(request(key="wrong-key"), lambda: pytest.fail("sent")).reason == target.NOT_SENT
    assert guard.send(request(body=None), lambda: response(400)).status_code == 400
    assert guard.send(request(body={"image_url": None}), lambda: response(400)).status_code == 400
    assert guard.created == 3
    assert capsys.readouterr().out.count("A JOB MAY EXIST") == 3


def raising(error: type[Exception]) -> Callable[[], object]:
    """Return a function that raises."""

    def fail() -> object:
        raise error

    return fail


def test_it_waits_for_the_video_of_an_accepted_job_only(target) -> None:
    """A 404 for the job's own path is asked again; for another path it is the response."""
    guard = target.Guard(DOCUMENT, "https://a.example/v1", KEY, 2, 60)
    guard.send(request(), lambda: response(202, {"jobId": "a-job"}))
    answers = [response(404), response(404), response(200)]
    path = f"/storage/generate-signed-path?path=ai-talking-videos/{ORDER['project_id']}/outputs/a-job.mp4"
    assert guard.send(request("GET", path, None), lambda: answers.pop(0)).status_code == 200
    assert guard.send(request("GET", f"{path}x", None), lambda: response(404)).status_code == 404


def test_a_429_is_waited_for(target) -> None:
    """It refuses the request, so sending it again orders nothing twice."""
    guard = target.Guard(DOCUMENT, "https://a.example/v1", KEY, 2, 0)
    answers = [response(429), response(202, {})]
    assert guard.send(request(), lambda: answers.pop(0)).status_code == 202
    assert guard.created == 1


def test_only_429s_end_the_run(target, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that only refuses gets ten requests; then the run is interrupted, and nothing more is sent."""
    signals: list[int] = []
    monkeypatch.setattr(target.os, "kill", lambda _, number: signals.append(number))
    guard = target.Guard(DOCUMENT, "https://a.example/v1", KEY, 2, 0)
    sent: list[int] = []

    def refuse() -> requests.Response:
        sent.append(429)
        return response(429)

    for _ in range(3):
        guard.send(request(), refuse)
    with pytest.raises(requests.ConnectionError):
        guard.send(request(), refuse)
    assert signals == [target.signal.SIGINT]
    assert len(sent) <= target.FAILURES_IN_A_ROW + target.MAX_RETRIES
