"""scripts/contract_live.py finds where a service differs, and costs nothing unless it is told to."""

from __future__ import annotations

import base64
import copy
import io
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from openapi_core import OpenAPI

import contract_live
from contract_live import FREE, carries_value
from techforge.mock import MockServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEY = "live-key-27182818"
JOB = "15a6331b-3837-4ae8-8fa7-d3ead3388d77"
PROJECT = "468ea7a0-66e1-4357-a760-236e54167f3e"
PAID = [
    "--paid-job",
    "--image-url=https://cdn.example.com/image.png?token=canary-16180339",
    "--audio-url=https://cdn.example.com/audio.mp3",
    f"--project-id={PROJECT}",
]
ERROR = {"error": "Refused", "message": "No."}


class Service:
    """A service that answers as documented, unless `answer` has another response."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Receive no request yet."""
        self.requests: list[httpx.Request] = []
        self.answer: Callable[[httpx.Request], httpx.Response | None] = lambda _: None
        self.path, self.capsys, self.out = folder / "reports" / "live.txt", capsys, ""

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Respond."""
        self.requests.append(request)
        return self.answer(request) or self.documented(request)

    def documented(self, request: httpx.Request) -> httpx.Response:
        """Respond as documented."""
        if request.headers.get("x-api-key") != KEY:
            return httpx.Response(401, json=ERROR)
        if carries_value(request.content):
            return httpx.Response(202, json={"jobId": JOB, "status": "queued"})
        return httpx.Response(404 if request.url.params else 400, json=ERROR)

    def run(self, *arguments: str, yes: bool = True) -> int:
        """Run the script; return its exit code and keep what it printed."""
        fixed = ["--api-key-env=TEST_KEY", f"--report={self.path}", *(["--yes"] if yes else [])]
        code = contract_live.main([*fixed, *arguments])
        self.out = "".join(self.capsys.readouterr())
        return code

    @property
    def report(self) -> str:
        """The report."""
        return self.path.read_text(encoding="utf-8")

    @property
    def verdicts(self) -> list[str]:
        """The verdicts except "as documented", each with operation and name."""
        told = ("could not tell: ", "contract broken: ", "unexpected: ")
        return [line.rpartition(": ")[0] for line in self.report.splitlines() if line.startswith(told)]


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Service:
    """Put a service in the place of the network."""
    service = Service(tmp_path, capsys)
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.setattr(contract_live, "PAUSE", 0)
    real = httpx.Client

    def client(**options: Any) -> httpx.Client:
        return real(base_url=options["base_url"], transport=httpx.MockTransport(service))

    monkeypatch.setattr(httpx, "Client", client)
    return service


@pytest.mark.parametrize("check", FREE, ids=lambda check: check.name)
def test_no_free_request_can_create_a_job(check: contract_live.Check) -> None:
    """The money rule: no body has a value, and openapi.json rejects the body of each POST."""
    assert check.is_safe
    assert check.method in {"GET", "HEAD"} or (check.method == "POST" and not carries_value(check.body))


@pytest.mark.parametrize(
    "body", [b'{"image_url": ""}', b'{"crop": false}', b'{"image_url": "x', b"[null]", b"0"]
)
def test_a_body_with_a_value_is_not_safe(body: bytes) -> None:
    """A service may read a part of a broken body, or take any value."""
    assert not contract_live.Check("createJob", "", "400", body=body).is_safe


def test_a_body_that_the_contract_accepts_is_not_sent(service: Service, monkeypatch: Any) -> None:
    """If a later contract requires no field, the requests that it would accept are left out."""
    document = copy.deepcopy(contract_live.DOCUMENT)
    document["components"]["schemas"]["JobRequest"]["required"] = []
    monkeypatch.setattr(contract_live, "CONTRACT", OpenAPI.from_dict(document))
    assert service.run() in {0, 1}
    assert b"{}" not in [request.content for request in service.requests]
    assert "NOT SENT" in service.out


def test_every_operation_is_asked() -> None:
    """A new operation in openapi.json needs its rows in the table of requests."""
    items = contract_live.DOCUMENT["paths"].values()
    assert {item[name]["operationId"] for item in items for name in item} == {c.operation for c in FREE}


def test_a_service_as_documented(service: Service) -> None:
    """Each request is sent once with its own key, nothing differs, and the report says what was compared."""
    assert service.run() == 0
    assert (service.verdicts, len(service.requests)) == ([], len(FREE))
    keys = {"yours": KEY, "none": None, "wrong": contract_live.WRONG_KEY}
    assert [request.headers.get("x-api-key") for request in service.requests] == [keys[c.key] for c in FREE]
    assert "as documented: createJob: no key" in service.report
    for part in (contract_live.LIVE, "+00:00", "openapi.json 1.0.0, sha256 ", "The run is complete."):
        assert part in service.report


def test_the_mock_server_is_as_documented(tmp_path: Path, monkeypatch: Any) -> None:
    """The same requests over real connections find no difference in the mock, and create one job if told."""
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.setattr(contract_live, "PAUSE", 0)
    with MockServer(render=False, api_keys=[KEY]) as mock:
        fixed = ["--api-key-env=TEST_KEY", f"--base-url={mock.url}", f"--report={tmp_path / 'x'}", "--yes"]
        assert contract_live.main(fixed) == 0
        assert not [record for record in mock.journal.requests() if record.job_id]
        assert contract_live.main([*fixed, *PAID]) == 0
        assert len([record for record in mock.journal.requests() if record.job_id]) == 1


@pytest.mark.parametrize(
    ("response", "verdict", "reason"),
    [
        (httpx.Response(403, json=ERROR), "contract broken", "response not found"),
        (httpx.Response(401, html="x"), "contract broken", "media type not found"),
        (httpx.Response(401, json=[]), "contract broken", 'must have type "object"'),
        (httpx.Response(401, content=b"{}", headers={"content-type": ";"}), "contract broken", ""),
        (httpx.Response(404, json=ERROR), "unexpected", "404 instead of 401"),
        (httpx.Response(500, json=ERROR), "could not tell", "does not answer"),
        (httpx.Response(401, json={"detail": "x" * 200_000}), "could not tell", "longer than"),
        (httpx.ConnectError("refused"), "could not tell", "no response: ConnectError"),
    ],
)
def test_a_service_that_differs(service: Service, response: Any, verdict: str, reason: str) -> None:
    """A response that is not in openapi.json, one for another request, and none are three verdicts."""

    def answer(request: httpx.Request) -> httpx.Response | None:
        if request.url.path == "/jobs/v2" or "x-api-key" in request.headers:
            return None
        if isinstance(response, Exception):
            raise response
        return response

    service.answer = answer
    assert service.run() == 1
    assert [line.partition(": GET")[0] for line in service.verdicts] == [
        f"{verdict}: generateSignedPath: no key"
    ]
    assert reason in service.report


def test_a_service_that_ignores_keys(service: Service) -> None:
    """A 400 leaves the question of the key open, since the body may have been checked first."""
    service.answer = lambda request: httpx.Response(400, json=ERROR) if request.method == "POST" else None
    assert service.run() == 1
    assert [line.partition(": POST")[0] for line in service.verdicts] == [
        "could not tell: createJob: no key",
        "could not tell: createJob: a wrong key",
    ]


@pytest.mark.parametrize(
    ("response", "job"),
    [
        (httpx.Response(202, json={"jobId": JOB, "status": "queued"}), JOB),
        (httpx.Response(500, json={"jobId": JOB}), JOB),
        (httpx.Response(204), "its id is unknown"),
        (httpx.Response(303, headers={"location": f"/jobs/{JOB}"}), JOB),
        (httpx.Response(307, headers={"location": "/elsewhere"}), "its id is unknown"),
        (httpx.Response(429, headers={"x-job-id": JOB, "retry-after": "0"}), JOB),
    ],
)
def test_any_sign_of_a_job_ends_the_run(service: Service, response: httpx.Response, job: str) -> None:
    """The first success of a free POST, or an id in any response, ends the run before the paid job."""
    service.answer = lambda _: response
    assert service.run(*PAID) == 3
    assert len(service.requests) == 1
    assert f"A JOB MAY EXIST: {job}, after createJob: no key" in service.out
    assert service.report.count("not checked: ") == len(FREE) - 1


@pytest.mark.parametrize(("status", "code", "end"), [(429, 1, "retry after 60"), (0, 130, "Interrupted")])
def test_a_run_that_ends_early_has_its_report(service: Service, status: int, code: int, end: str) -> None:
    """After a 429 or Ctrl-C nothing more is sent, no paid job either, and the report says what is left."""

    def stop(_: httpx.Request) -> httpx.Response | None:
        if len(service.requests) < 4:
            return None
        if not status:
            raise KeyboardInterrupt
        return httpx.Response(status, json=ERROR, headers={"retry-after": "60"})

    service.answer = stop
    assert service.run(*PAID) == code
    assert len(service.requests) == 4
    assert end in service.report
    assert service.report.count("as documented: ") == 3
    assert service.report.count("not checked: ") == len(FREE) - (4 if status else 3)


def paid_answer(service: Service, response: Any) -> None:
    """Answer the paid job alone."""

    def answer(request: httpx.Request) -> httpx.Response | None:
        if not carries_value(request.content):
            return None
        if isinstance(response, BaseException):
            raise response
        return response

    service.answer = answer


@pytest.mark.parametrize(
    ("response", "code"),
    [
        (None, 0),
        (httpx.Response(303, headers={"location": f"/jobs/{JOB}"}), 1),
        (httpx.Response(400, json=ERROR), 1),
        (httpx.ConnectError("refused"), 1),
        (httpx.ReadError("lost"), 3),
        (httpx.Response(500, json=ERROR), 3),
        (httpx.Response(202, json={}), 3),
        (KeyboardInterrupt(), 3),
    ],
)
def test_a_paid_job_is_sent_once(service: Service, response: Any, code: int) -> None:
    """Whatever happens, one POST has a job in it; if a job may exist without an id, the project is named."""
    paid_answer(service, response)
    assert service.run(*PAID) == code
    (request,) = [request for request in service.requests if carries_value(request.content)]
    assert json.loads(request.content)["project_id"] == PROJECT
    assert "COSTS MONEY" in service.out
    assert (f"A JOB MAY EXIST in project {PROJECT}" in service.out) == (code == 3)
    found = response is None or "location" in getattr(response, "headers", {})
    assert (f"job {JOB} in project {PROJECT}" in service.report) == found
    assert "canary" not in service.out + service.report


@pytest.mark.parametrize(
    "encode", [str, str.upper, lambda k: base64.b64encode(k.encode()).decode(), lambda k: k[::-1]]
)
def test_no_secret_is_printed(service: Service, encode: Any) -> None:
    """A service that repeats the key, in whatever encoding, or a signature, gets it into no output."""

    def answer(request: httpx.Request) -> httpx.Response:
        secret = encode(request.headers.get("x-api-key", ""))
        body = {"error": secret, secret: "x", "url": f"https://h/x?signature={KEY}-2"}
        headers = {"content-type": f"application/json; k={secret}", "location": f"https://h?{secret}"}
        return httpx.Response(401, content=json.dumps(body), headers=headers)

    service.answer = answer
    assert service.run() == 1
    for text in (service.out, service.report):
        assert encode(KEY) not in text
        assert "signature" not in text


def test_a_report_has_no_control_characters(service: Service) -> None:
    """A terminal must not obey what a service sends, nor an ASCII console end the run."""
    service.answer = lambda _: httpx.Response(401, content=b'{"a": "\x1b[2J\xc3\xa9"}')
    service.run()
    assert "\x1b" not in service.out + service.report


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--api-key-env="], "never pass the key"),
        (["--api-key-env=live-key-itself"], "never pass the key"),
        (["--api-key-env=TEST_MOCK", "--base-url=https://api.techforgeinnovate.com"], "mock server only"),
        (["--base-url=http://api.example.com"], "https"),
        (["--base-url=https://user:pw@example.com"], "no user"),
        ([f"--project-id={PROJECT}"], "--paid-job"),
        ([*PAID[:2], "--audio-url=audio.mp3"], "--audio-url"),
        ([*PAID[:3], "--project-id=x"], "UUID"),
        ([], "--yes"),
        (["--yes", "--report=/dev/null/x"], "File exists"),
    ],
)
def test_refusals(service: Service, monkeypatch: Any, arguments: list[str], message: str) -> None:
    """A wrong option, no confirmation, or no place for a report: nothing is sent, and no key is shown."""
    monkeypatch.setenv("TEST_MOCK", "techforge-mock-key")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))  # no terminal
    assert service.run(*arguments, yes=False) == 2
    assert message in service.out
    assert "nothing was sent" in service.out
    assert "live-key-itself" not in service.out
    assert service.requests == []


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "SSL_CERT_FILE"])
def test_an_environment_without_a_client(monkeypatch: Any, capsys: Any, variable: str) -> None:
    """Settings that make every request impossible are reported before the first, without their passwords."""
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.setenv(variable, "foo://user:pw-1@h:1")
    assert contract_live.main(["--api-key-env=TEST_KEY", "--base-url=https://api.invalid"]) == 2
    assert "pw-1" not in "".join(capsys.readouterr())


def test_there_is_no_short_form(service: Service) -> None:
    """The key is no argument, and no abbreviation stands for a flag that costs money."""
    for argument in ("--api-key=x", "--paid"):
        with pytest.raises(SystemExit):
            service.run(argument)


@pytest.mark.parametrize(("line", "code"), [("y\n", 0), ("\n", 2), ("", 2)])
def test_it_asks_first(service: Service, monkeypatch: Any, line: str, code: int) -> None:
    """Without --yes a person at a terminal has to agree to the printed requests."""
    stdin = io.StringIO(line)
    monkeypatch.setattr(stdin, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", stdin)
    assert service.run(yes=False) == code
    assert bool(service.requests) == (code == 0)


def test_a_dry_run_sends_nothing(service: Service) -> None:
    """`--dry-run` prints every request, needs no key, and writes no file."""
    assert service.run("--dry-run", "--api-key-env=", *PAID) == 0
    assert (service.requests, service.path.exists()) == ([], False)
    assert [check for check in FREE if str(check) not in service.out] == []
