"""scripts/contract_live.py: it finds where a service differs, and can cost nothing unless it is told to."""

from __future__ import annotations

import asyncio
import base64
import copy
import html
import io
import json
import re
import signal
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from attrs import evolve
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

import contract_live
from live import plan
from live.report import Masker
from live.verdicts import Judge
from techforge.mock import MockServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KEY = "live-key-/\"'&<b>\\-27182818"
"""A key of characters that are spelt otherwise in JSON, in HTML, in a URL and in a repr."""
JOB = "15a6331b-3837-4ae8-8fa7-d3ead3388d77"
PROJECT = "468ea7a0-66e1-4357-a760-236e54167f3e"
INPUT = "canary-input-16180339"
PAID = [
    "--paid-job",
    f"--image-url=https://cdn.example.com/image.png?token={INPUT}",
    "--audio-url=https://cdn.example.com/audio.mp3",
    f"--project-id={PROJECT}",
]
QUICK = contract_live.Pace(pause=0.001, attempt=9.0, total=60.0, look=0.05)
DOCUMENT = json.loads((contract_live.ROOT / "openapi.json").read_bytes())
CHECKS = plan.free_checks(DOCUMENT, Judge(DOCUMENT).contract)[0]


class Live:
    """A mock that stands in for the live API, and may lie; and the script that asks it."""

    def __init__(self, folder: Path) -> None:
        """Do not lie yet."""
        self.mock = MockServer(render=False, job_looks=0, api_keys=[KEY])
        self.report = folder / "reports" / "live.md"
        self.requests: list[Request] = []
        self.answer: Callable[[Request], Any] | None = None
        self._honest = self.mock._gates[0]
        self.mock._gates = (self._asked, self.mock._gates[1])

    async def _asked(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        self.requests.append(request)
        response = self.answer(request) if self.answer else None
        await (response or self._honest)(scope, receive, send)

    def run(self, *arguments: str, pace: contract_live.Pace = QUICK, yes: bool = True) -> int:
        """Run the script; return its exit code."""
        fixed = ["--api-key-env=TEST_LIVE_KEY", f"--base-url={self.mock.url}", f"--report={self.report}"]
        return contract_live.main([*fixed, *(["--yes"] if yes else []), *arguments], pace)

    @property
    def found(self) -> dict[str, Any]:
        """The report as data."""
        return json.loads(self.report.with_suffix(".json").read_text(encoding="utf-8"))

    @property
    def verdicts(self) -> dict[tuple[str, str], str]:
        """The verdicts that are none of the usual ones."""
        usual = {"as documented", "noted"}
        checks = [check for check in self.found["checks"] if check["verdict"] not in usual]
        return {(check["operation"], check["name"]): check["verdict"] for check in checks}

    def details(self, operation: str, name: str) -> str:
        """Return what is said of a check."""
        checks = [c for c in self.found["checks"] if (c["operation"], c["name"]) == (operation, name)]
        return "; ".join(checks[-1]["details"])


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    """Return a service that is as documented."""
    monkeypatch.setenv("TEST_LIVE_KEY", KEY)
    live = Live(tmp_path)
    with live.mock:
        yield live


# What is sent


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: f"{check.method}: {check.name}")
def test_no_free_request_has_what_a_job_needs(check: plan.Check) -> None:
    """The money rule: whatever a service ignores, there is no job without image, audio, type and project."""
    schema = DOCUMENT["components"]["schemas"]["JobRequest"]
    media = [name for name, of in schema["properties"].items() if of.get("format") == "uri"]
    assert len(media) == 2
    assert not plan.carries_value(check.body)
    try:
        body = json.loads(check.body or b"null")
    except ValueError:
        body = None
    given = {name for name, value in body.items() if value is not None} if isinstance(body, dict) else set()
    assert not given & {*media, *schema["required"]}
    assert check.method in {"GET", "HEAD"} or (check.method == "POST" and not check.query)


@pytest.mark.parametrize(
    ("body", "carries"),
    [
        (None, False),
        (b"", False),
        (b"{", False),
        (b"{}", False),
        (b"[]", False),
        (b"null", False),
        (b'{"image_url": null}', False),
        (b'{"image_url": ""}', True),
        (b'{"crop": false}', True),
        (b'{"image_url": "https://x/y"', True),
        (b"[null]", True),
        (b"0", True),
    ],
)
def test_what_carries_a_value(body: bytes | None, carries: bool) -> None:
    """Only what is missing, empty or null carries nothing: of a broken body a service may read a part."""
    assert plan.carries_value(body) is carries


def _nothing_required(document: dict[str, Any]) -> None:
    document["components"]["schemas"]["JobRequest"]["required"] = []


def _null_allowed(document: dict[str, Any]) -> None:
    for schema in document["components"]["schemas"]["JobRequest"]["properties"].values():
        schema.pop("format", None)
        schema.pop("$ref", None)
        schema["type"] = ["string", "null"]


def _body_optional(document: dict[str, Any]) -> None:
    document["paths"]["/jobs/v2"]["post"]["requestBody"]["required"] = False


def _parameter_instead(document: dict[str, Any]) -> None:
    operation = document["paths"]["/jobs/v2"]["post"]
    del operation["requestBody"]
    operation["parameters"] = [{"name": "all", "in": "query", "required": True, "schema": {"type": "string"}}]


@pytest.mark.parametrize("change", [_nothing_required, _null_allowed, _body_optional, _parameter_instead])
def test_what_a_contract_does_not_refuse_is_not_sent(change: Callable[[dict[str, Any]], None]) -> None:
    """An operation that would take an empty body is left out, and said to be."""
    document = copy.deepcopy(DOCUMENT)
    change(document)
    checks, left_out = plan.free_checks(document, Judge(document).contract)
    assert {check.method for check in checks} == {"GET", "HEAD"}
    assert [reason.split()[0] for reason in left_out] == ["createJob"]


def test_the_plan_follows_the_contract() -> None:
    """A new operation brings its own checks; what only deletes is never asked."""
    document = copy.deepcopy(DOCUMENT)
    job = [{"name": "id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}]
    answers = DOCUMENT["paths"]["/storage/generate-signed-path"]["get"]["responses"]
    document["paths"]["/jobs/{id}"] = {
        "parameters": job,
        "get": {"operationId": "getJob", "responses": answers},
        "delete": {"operationId": "deleteJob", "responses": answers},
    }
    checks, left_out = plan.free_checks(document, Judge(document).contract)
    assert [c.name for c in checks if c.operation == "getJob"] == [
        "no key",
        "a wrong key",
        "something unknown",
    ]
    assert not [c for c in checks if "{" in c.path]
    assert [reason.split()[0] for reason in left_out] == ["deleteJob"]


def test_made_up_names_exist_nowhere() -> None:
    """The contract's example may be somebody's object: only its form is used."""
    (parameter,) = DOCUMENT["paths"]["/storage/generate-signed-path"]["get"]["parameters"]
    ids = [match[0] for match in plan._UUID.finditer(parameter["examples"]["output"]["value"])]
    (key,) = {check.query["path"] for check in CHECKS if check.query}
    assert len(ids) == len(plan._UUID.findall(key)) == 2
    assert not [used for used in ids if used in key]


# A service that is as documented


def test_a_service_as_documented(live: Live, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing differs, everything of the plan was sent once, and no job was made."""
    assert live.run() == 0
    assert live.verdicts == {}
    assert live.found["summary"] == {"as documented": 12, "noted": 3}
    assert live.found["not checked"] == []
    assert len(live.requests) == len(CHECKS)
    assert not [record for record in live.mock.journal.requests() if record.job_id]
    out = capsys.readouterr().out
    for check in CHECKS:
        assert 0 <= out.index(check.name) < out.index("as documented")


def test_the_report_says_what_it_is_of(live: Live) -> None:
    """Date with zone, address, version and hash: without them nobody can tell later what was compared."""
    live.run()
    text = live.report.read_text(encoding="utf-8")
    assert live.found["base URL"] == live.mock.url
    assert live.found["date"].endswith("+00:00")
    assert re.fullmatch(r"1\.0\.0, sha256 [0-9a-f]{64}", live.found["openapi.json"])
    for part in (live.found["date"], live.mock.url, "sha256", "| createJob: no key | as documented |", "401"):
        assert part in text


def test_the_key_goes_where_it_belongs(live: Live) -> None:
    """No key, nobody's key and yours: each request carries what the plan says, and no cookie."""
    live.answer = lambda _: JSONResponse({}, 401, {"set-cookie": "session=1"})
    live.run()
    sent = [request.headers.get("x-api-key") for request in live.requests]
    keys = {"yours": KEY, "none": None, "nobody's": plan.NOBODYS_KEY}
    assert sent == [keys[check.key] for check in CHECKS]
    assert not [request for request in live.requests if "cookie" in request.headers]


# Services that differ


def _with_key(request: Request) -> None:
    headers = [(name, value) for name, value in request.scope["headers"] if name != b"x-api-key"]
    request.scope["headers"] = [*headers, (b"x-api-key", KEY.encode())]


def test_a_service_that_ignores_keys(live: Live) -> None:
    """A refusal of another kind is unexpected; for the body, it leaves the question of the key open."""
    live.answer = _with_key
    assert live.run() == 1
    assert live.verdicts == {
        ("createJob", "no key"): "could not tell",
        ("createJob", "a wrong key"): "could not tell",
        ("generateSignedPath", "no key"): "unexpected",
        ("generateSignedPath", "a wrong key"): "unexpected",
    }


@pytest.mark.parametrize(
    ("fault", "verdict", "said"),
    [
        ("status=403", "contract broken", "403"),
        ("status=401;body=html", "contract broken", "text/html"),
        ("status=401;json=[]", "contract broken", "is not of type 'object'"),
        ("status=401;body=broken-json", "contract broken", "Failed to deserialize"),
        ("status=401;body=empty", "contract broken", "Missing response data"),
        ("status=409", "contract broken", "409"),
        ("status=404", "unexpected", "404 instead of 401"),
        ("status=500", "could not tell", "500 instead of 401"),
        ("status=502;body=html", "contract broken", "text/html"),
        ("body=truncated;status=401", "could not tell", "cut off"),
        ("close=before-body", "could not tell", "no answer"),
        ("close=after-body", "could not tell", "no answer"),
    ],
)
def test_an_answer_that_differs(live: Live, fault: str, verdict: str, said: str) -> None:
    """An answer that the document lacks, one that was not deserved, and none at all are told apart."""
    live.mock.faults.add(f"{fault};operation=generateSignedPath")
    assert live.run() == 1
    assert live.verdicts == {("generateSignedPath", "no key"): verdict}
    assert said in live.details("generateSignedPath", "no key")


def test_an_error_of_any_shape_is_documented(live: Live) -> None:
    """The contract promises no field of an error."""
    live.mock.faults.add('status=401;json={"detail":[{"code":1}]};operation=generateSignedPath')
    assert live.run() == 0


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json;", b"{}"),
        (";", b"{}"),
        ("application/json", b"\xff"),
        ("application/json", b"[" * 90_000),
    ],
)
def test_an_answer_that_cannot_be_read(live: Live, content_type: str, body: bytes) -> None:
    """What the validator itself stumbles over is a difference, and no traceback."""
    live.answer = lambda _: Response(body, 401, {"content-type": content_type})
    assert live.run() == 1
    assert set(live.verdicts.values()) == {"contract broken"}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"signedUrl": "https://cdn.example.com/x?signature=0123"}, "'expiresAt' is a required property"),
        ({"signedUrl": "x", "expiresAt": "2024-12-01T12:00:00Z"}, "is not a 'uri'"),
        ({"signedUrl": "https://h/x", "expiresAt": "tomorrow"}, "is not a 'date-time'"),
    ],
)
def test_a_service_that_signs_anything(live: Live, answer: dict[str, str], said: str) -> None:
    """The vendor's next revision signs unknown keys, without an expiry: both are told."""
    unknown = len(CHECKS) - 2
    live.answer = lambda _: JSONResponse(answer) if len(live.requests) == unknown + 1 else None
    assert live.run() == 1
    assert live.verdicts == {("generateSignedPath", "something unknown"): "contract broken"}
    assert said in live.details("generateSignedPath", "something unknown")
    assert "200 instead of 404" in live.details("generateSignedPath", "something unknown")
    assert "later documents" in live.details("generateSignedPath", "something unknown")


def test_signing_an_unknown_key_is_known(live: Live) -> None:
    """A sound 200 for what does not exist is unexpected, and the reader is told that it is known."""
    answer = {"signedUrl": "https://h/x?s=1", "expiresAt": "2024-12-01T12:00:00Z"}
    live.mock.faults.add(f"status=200;json={json.dumps(answer)};operation=generateSignedPath;after=3")
    assert live.run() == 1
    assert live.verdicts == {("generateSignedPath", "something unknown"): "unexpected"}
    assert "later documents" in live.details("generateSignedPath", "something unknown")


def test_a_service_that_hangs(live: Live) -> None:
    """An answer that does not come, or never ends, is waited for no longer than for any other."""
    live.mock.faults.add("delay=9;operation=createJob", "drip=0.05;operation=generateSignedPath")
    started = time.monotonic()
    assert live.run(pace=evolve(QUICK, attempt=0.5)) == 1
    assert time.monotonic() - started < 9
    assert set(live.verdicts.values()) == {"could not tell"}
    assert len(live.verdicts) == 2


def test_a_service_that_is_not_there(live: Live) -> None:
    """Without a connection nothing can be told, and that is no success."""
    assert live.run("--base-url=http://127.0.0.1:1") == 1
    assert set(live.verdicts.values()) == {"could not tell"}


def test_a_redirect_is_not_followed(live: Live) -> None:
    """The key goes to the address that was given, and nowhere else."""
    elsewhere = RedirectResponse(f"{live.mock.storage_url}/x?signature=0123456789", 307)
    live.answer = lambda request: elsewhere if request.method != "POST" else None
    assert live.run() == 1
    assert live.mock.journal.count(server="storage") == 0
    assert set(live.verdicts.values()) == {"contract broken"}
    assert "0123456789" not in live.report.read_text(encoding="utf-8")


# A job that nobody wanted


@pytest.mark.parametrize("status", [200, 202])
def test_a_service_that_says_yes_to_everything(live: Live, status: int, capsys: Any) -> None:
    """The first success stops the run, loudly: what cost nothing so far need not go on so."""
    live.answer = lambda _: JSONResponse({"jobId": JOB, "status": "queued"}, status)
    assert live.run(*PAID) == 3
    assert len(live.requests) == 1
    assert f"A JOB MAY EXIST: {JOB}" in capsys.readouterr().err
    assert f"A JOB MAY EXIST: {JOB}" in live.report.read_text(encoding="utf-8")
    assert len(live.found["not checked"]) == len(CHECKS) - 1


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ("status=201;json={}", "its id is unknown"),
        ("status=204;body=empty", "its id is unknown"),
        ("status=202;body=truncated", "its id is unknown"),
        (f'status=500;json={{"jobId":"{JOB}"}}', JOB),
        (f'status=201;json={{"job":{{"uuid":"{JOB}"}}}}', JOB),
    ],
)
def test_any_sign_of_a_job_stops_the_run(live: Live, fault: str, named: str, capsys: Any) -> None:
    """A success without an id, one that is cut off, and an error with an id are signs of a job, too."""
    live.mock.faults.add(f"{fault};operation=createJob;after=3")
    assert live.run() == 3
    assert len(live.requests) == 4
    assert f"A JOB MAY EXIST: {named}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "headers", "named"),
    [
        *((status, {"location": f"/jobs/{JOB}"}, JOB) for status in (301, 302, 303, 307, 308)),
        (303, {"location": f"https://h/jobs/v2/{JOB}?token={PROJECT}"}, JOB),
        (303, {"location": "/created"}, "its id is unknown"),
        (304, {}, "its id is unknown"),
        (400, {"location": f"/jobs/{JOB}"}, JOB),
        (400, {"content-location": f"/status?jobId={JOB}"}, JOB),
        (401, {"x-job-id": JOB.upper()}, JOB.upper()),
        (429, {"x-job-id": JOB, "retry-after": "0"}, JOB),
    ],
)
def test_a_job_in_the_headers_stops_the_run(
    live: Live, status: int, headers: dict[str, str], named: str, capsys: Any
) -> None:
    """A POST that is redirected may have made what it is redirected to; so may one whose headers say so."""
    live.answer = lambda _: Response(b"", status, headers)
    assert live.run(*PAID) == 3
    assert len(live.requests) == 1
    assert f"A JOB MAY EXIST: {named}," in capsys.readouterr().err


@pytest.mark.parametrize("headers", [{"location": f"/x?job=1&id={PROJECT}"}, {"x-request-id": PROJECT}])
def test_an_id_of_something_else_is_no_job(live: Live, headers: dict[str, str]) -> None:
    """A request has an id, too: a run that stops for nothing is not believed the next time."""
    live.answer = lambda _: JSONResponse({}, 401, headers)
    assert live.run() == 1
    assert len(live.requests) == len(CHECKS)


# 429


@pytest.mark.parametrize("retry_after", ["0", "date:0"])
def test_a_429_is_obeyed(live: Live, retry_after: str) -> None:
    """A 429 that is as documented is no difference: the request is sent again after the pause."""
    live.mock.faults.add(f"status=429;retry-after={retry_after};operation=createJob;times=2")
    assert live.run() == 0
    assert live.mock.journal.count(operation="createJob") == 10
    assert live.found["summary"]["noted"] == 5


def test_the_pause_of_a_429_is_kept(live: Live) -> None:
    """`Retry-After` counts, and not our own pace."""
    live.mock.faults.add("status=429;retry-after=1;operation=generateSignedPath")
    live.run()
    first, second = live.mock.journal.requests(operation="generateSignedPath")[:2]
    assert second.time - first.time >= 1


def test_a_429_that_breaks_the_contract(live: Live) -> None:
    """The 429 itself is held to the contract, too."""
    answers = iter([Response("slow down", 429, {"retry-after": "soon"}, "text/plain")])
    live.answer = lambda _: next(answers, None)
    assert live.run() == 1
    assert list(live.verdicts.values()) == ["contract broken"]
    said = live.found["checks"][0]["details"]
    assert any("Retry-After" in detail for detail in said)
    assert any("text/plain" in detail for detail in said)


@pytest.mark.parametrize(
    ("retry_after", "requests"), [(";retry-after=3600", 1), (";retry-after=date:3600", 1), ("", 4)]
)
def test_a_429_that_lasts_ends_the_run(live: Live, retry_after: str, requests: int, capsys: Any) -> None:
    """Where the service wants more time than there is, or no more requests, it gets none."""
    live.mock.faults.add(f"status=429{retry_after};operation=createJob;times=0")
    started = time.monotonic()
    assert live.run(*PAID) == 1
    assert time.monotonic() - started < 30
    assert len(live.requests) == requests
    assert len(live.found["not checked"]) == len(CHECKS)
    assert "429" in capsys.readouterr().err


@pytest.mark.parametrize("retry_after", ["9" * 400, f"1, {'9' * 400}.5"], ids=["one", "two"])
def test_a_pause_that_no_float_holds(live: Live, retry_after: str) -> None:
    """A number too large to be read is a long pause, and not none."""
    live.answer = lambda _: JSONResponse({}, 429, {"retry-after": retry_after})
    assert live.run() == 1
    assert len(live.requests) == 1
    assert "too long for this run" in live.found["end"]


# The paid job


def jobs(live: Live) -> list[Any]:
    """Return the requests with a body that makes a job."""
    return [r for r in live.mock.journal.requests(operation="createJob") if plan.carries_value(r.body)]


def test_one_paid_job(live: Live, capsys: pytest.CaptureFixture[str]) -> None:
    """With the flag one job is made, its id is printed at once, and its output is signed."""
    assert live.run(*PAID) == 0
    (record,) = jobs(live)
    assert json.loads(record.body)["project_id"] == PROJECT
    out = capsys.readouterr().out
    assert f"job {record.job_id} in project {PROJECT}" in out
    assert "THE LAST ONE COSTS MONEY" in out
    assert live.found["job"] == f"{record.job_id} in project {PROJECT}"
    last = live.found["checks"][-1]
    assert (last["name"], last["answer"]["status"]) == ("the paid job's output", 200)
    text = live.report.read_text(encoding="utf-8") + live.report.with_suffix(".json").read_text("utf-8") + out
    assert INPUT not in text
    assert "signature=" not in text


def test_a_job_takes_its_time(live: Live) -> None:
    """By default its output is looked for once, and not yet being there is as documented."""
    live.mock.faults.add("status=404;operation=generateSignedPath;after=4;times=0")
    assert live.run(*PAID) == 0
    assert live.mock.journal.count(operation="generateSignedPath") == 5


def test_waiting_for_a_job(live: Live) -> None:
    """`--wait` looks again until it is there, and reports the last look."""
    live.mock.faults.add("status=404;operation=generateSignedPath;after=4;times=3")
    assert live.run(*PAID, "--wait=5") == 0
    assert live.mock.journal.count(operation="generateSignedPath") == 8
    outputs = [c["answer"]["status"] for c in live.found["checks"] if c["name"] == "the paid job's output"]
    assert outputs == [200]


def test_waiting_ends(live: Live) -> None:
    """A job that is never done is not waited for longer than was said."""
    live.mock.faults.add("status=404;operation=generateSignedPath;after=4;times=0")
    started = time.monotonic()
    assert live.run(*PAID, "--wait=1") == 0
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("close=after-body", 3),
        ("close=before-body", 3),
        ("close=mid-answer", 3),
        ("body=empty", 3),
        ("body=html", 3),
        ("status=500", 3),
        ("status=502;create=1;body=html", 3),
        ("delay=9", 3),
        ("status=303;body=empty", 3),
        ("status=400", 1),
        ("status=429;retry-after=0", 1),
        ('status=202;json={"job":{"uuid":"$job_id"}}', 1),
        ("body=broken-json", 3),
    ],
)
def test_a_paid_job_is_sent_once(live: Live, fault: str, code: int, capsys: Any) -> None:
    """Whatever is answered, or not, there is one request; where a job may exist, the project is named."""
    live.mock.faults.add(f"{fault};operation=createJob;after=8")
    pace = evolve(QUICK, attempt=0.5 if "delay" in fault else 9.0)
    assert live.run(*PAID, pace=pace) == code
    assert live.mock.journal.count(operation="createJob") == 9
    captured = capsys.readouterr()
    assert ("A JOB MAY EXIST" in captured.err and PROJECT in captured.err) == (code == 3)
    if code != 3 and (job_id := jobs(live)[0].job_id):
        assert f"job {job_id} in project {PROJECT}" in captured.out


def test_a_paid_job_that_is_redirected_to(live: Live, capsys: Any) -> None:
    """A job that only `Location` names is a job: its id is printed, and its output is looked for."""
    created = Response(b"", 303, {"location": f"/jobs/{JOB}"})
    live.answer = lambda _: created if len(live.requests) == len(CHECKS) + 1 else None
    assert live.run(*PAID) == 1
    assert f"job {JOB} in project {PROJECT}" in capsys.readouterr().out
    assert JOB in live.found["checks"][-1]["request"]


def test_no_paid_job_where_nothing_answers(live: Live, capsys: Any) -> None:
    """A connection that was refused carried nothing: no job may exist, and none is said to."""
    assert live.run(*PAID, "--base-url=http://127.0.0.1:1") == 1
    assert "A JOB MAY EXIST" not in capsys.readouterr().err


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_paid_job(live: Live, capsys: Any) -> None:
    """Who interrupts while the job is being sent is told that it may exist."""
    live.answer = lambda request: _interrupt if int(request.headers.get("content-length", 0)) > 120 else None
    assert live.run(*PAID) == 3
    assert f"A JOB MAY EXIST in project {PROJECT}" in capsys.readouterr().err


# The end of a run


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let Ctrl-C interrupt: what a shell runs in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


async def _interrupt(_scope: Any, _receive: Any, _send: Any) -> None:
    signal.raise_signal(signal.SIGINT)
    await asyncio.sleep(9)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_run_is_reported(live: Live) -> None:
    """What was found before the interruption is in the report, and what was not looked at is named."""
    live.answer = lambda _: _interrupt if len(live.requests) == 4 else None
    assert live.run() == 130
    assert live.found["end"] == "Interrupted."
    assert len(live.found["checks"]) == 3
    assert len(live.found["not checked"]) == len(CHECKS) - 3
    assert "Interrupted." in live.report.read_text(encoding="utf-8")


def test_a_run_that_dies_leaves_its_report(live: Live) -> None:
    """Each answer is in the report before the next request is sent, and so is the id of a job."""
    seen: list[tuple[int, bool]] = []
    live.answer = lambda _: seen.append((len(live.found["checks"]), "job" in live.found))
    assert live.run(*PAID) == 0
    assert seen == [(number, number > len(CHECKS)) for number in range(len(CHECKS) + 2)]


def test_a_full_disk_hides_no_job(live: Live, monkeypatch: Any, capsys: Any) -> None:
    """The exit code says that a job may exist, even where the report no longer can."""

    def full(_: Request) -> Response:
        monkeypatch.setattr("live.report.Report.write", _no_space)
        return JSONResponse({"jobId": JOB}, 202)

    live.answer = full
    assert live.run() == 3
    captured = capsys.readouterr()
    assert f"A JOB MAY EXIST: {JOB}" in captured.err
    assert "not whole: no space" in captured.err


def _no_space(_: object) -> None:
    raise OSError("no space")


def test_a_console_that_cannot_show_it(live: Live, monkeypatch: Any) -> None:
    """What a service sends is no end of a run, whatever the console's encoding."""
    console = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(console, encoding="ascii", write_through=True))
    live.answer = lambda _: Response(b'["\xc3\xa9"]', 401, {"content-type": "application/json"})
    assert live.run() == 1
    assert b"\\xe9" in console.getvalue()


def test_time_is_bounded(live: Live) -> None:
    """A run ends when its time is up, with a report."""
    assert live.run(pace=evolve(QUICK, pause=0.3, total=1.0)) == 1
    assert len(live.requests) <= 3
    assert "The time for this was up" in live.found["end"]


def test_requests_keep_their_distance(live: Live) -> None:
    """A polite guest pauses: by default a second."""
    assert contract_live.Pace().pause == 1
    live.run(pace=evolve(QUICK, pause=0.05))
    times = [record.time for record in live.mock.journal.requests()]
    assert min(b - a for a, b in pairwise(times)) >= 0.05


# Secrets


def _echo(request: Request) -> Response:
    given = request.headers.get("x-api-key", "")
    url = "https://h/x?signature=0123456789abcdef"
    body = {
        "message": f"bad key {given}",
        given: [given, repr(given), json.dumps(json.dumps(given)), quote(given), given.upper()],
        "url": [url, f"{url}&k={given}", url.removeprefix("https://h/")],
    }
    text = json.dumps(body).replace("?", "\\u003f") + f"<!-- {html.escape(given)} -->" * (
        request.method == "GET"
    )
    return Response(text, 401, {"location": f"https://h/?key={given}"}, f"application/json; k={given}")


def test_no_secret_gets_out(live: Live, capsys: pytest.CaptureFixture[str]) -> None:
    """A service that sends the key back, in whatever spelling, gets it into no report."""
    live.answer = _echo
    assert live.run() == 1
    captured = capsys.readouterr()
    files = [path.read_text(encoding="utf-8") for path in live.report.parent.iterdir()]
    assert len(files) == 2
    for text in (*files, captured.out, captured.err):
        assert "27182818" not in text
        assert "0123456789abcdef" not in text
    assert "***" in files[0]


def _base64(shift: int) -> Callable[[bytes], bytes]:
    return lambda key: base64.b64encode(b"x" * shift + key + b"y")


@pytest.mark.parametrize(
    "encoded",
    [
        pytest.param(_base64(0), id="base64"),
        pytest.param(_base64(1), id="base64, shifted by 1"),
        pytest.param(_base64(2), id="base64, shifted by 2"),
        pytest.param(lambda key: base64.urlsafe_b64encode(b">?" + key), id="base64 for URLs"),
        pytest.param(lambda key: re.sub(b"(.{16})", rb"\1\r\n", base64.b64encode(key)), id="base64 in lines"),
        pytest.param(lambda key: base64.b64encode(key.decode().encode("utf-16-le")), id="base64 of UTF-16"),
        pytest.param(lambda key: json.dumps({"of": base64.b64encode(key).decode()}).encode(), id="in JSON"),
        pytest.param(lambda key: quote(base64.b64encode(b"\xff" + key)).encode(), id="base64 in a URL"),
        pytest.param(lambda key: key.hex().encode(), id="hex"),
        pytest.param(lambda key: key.hex(":").upper().encode(), id="hex with colons"),
        pytest.param(lambda key: key.decode().encode("utf-16").hex().encode(), id="hex of UTF-16"),
        pytest.param(lambda key: str(list(key)).encode(), id="numbers"),
        pytest.param(lambda key: ", ".join(map(hex, key)).encode(), id="numbers in hex"),
        pytest.param(lambda key: "".join(f"\\x{byte:02x}" for byte in key).encode(), id="bytes escaped"),
        pytest.param(
            lambda key: json.dumps(re.sub("(.{16})", r"\1\r\n", base64.b64encode(key).decode())).encode(),
            id="base64 in lines in JSON",
        ),
        pytest.param(lambda key: quote(quote(quote(key))).encode(), id="escaped thrice"),
        pytest.param(lambda key: html.escape(html.escape(key.decode())).encode(), id="HTML twice"),
        pytest.param(lambda key: "".join(f"&#{byte}" for byte in key).encode(), id="HTML in numbers"),
        pytest.param(lambda key: b"\0".join(bytes([byte]) for byte in key), id="NULs between"),
        pytest.param(lambda key: b"\x01".join(bytes([byte]) for byte in key), id="controls between"),
        pytest.param(lambda key: json.dumps(["\0".join(key.decode())]).encode(), id="escaped NULs between"),
    ],
)
def test_a_key_that_comes_back_encoded(
    live: Live, encoded: Callable[[bytes], bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    """The key is masked in every form that programs write bytes in."""
    text = encoded(KEY.encode())
    live.answer = lambda _: Response(text, 401, {"content-type": "application/json"})
    assert live.run() == 1
    captured = capsys.readouterr()
    files = [path.read_text(encoding="utf-8") for path in live.report.parent.iterdir()]
    parts = {text[i : i + 12].decode() for i in range(len(text) - 12)}
    plain = re.sub(r"\W", "", KEY)
    for out in (*files, captured.out, captured.err):
        assert not [part for part in parts if part in out and part.strip('"\\[]')]
        assert plain not in re.sub(r"[\W_]|u0000|x00", "", out)
    bodies = {check["answer"]["body"] for check in live.found["checks"]} - {""}
    assert bodies
    assert all("***" in body or "not shown" in body for body in bodies)


@pytest.mark.parametrize(
    ("real", "said"),
    [
        *((real, real) for real in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-7", "cp037")),
        *(("utf-16", said) for said in ("", "utf-8", "zip", "x")),
        *(("utf-16-be", said) for said in ("", "utf-8", "utf-16")),
        ("utf-8", "utf-16"),
        ("utf-32-be", ""),
    ],
)
def test_a_key_in_another_charset(live: Live, real: str, said: str) -> None:
    """A body that is not UTF-8, or says that it is not, is not shown: the key may be anywhere in it."""
    body = f"the key was {KEY}.".encode(real)
    live.answer = lambda _: Response(
        body, 401, {"content-type": f"text/html; charset={said}" if said else "text/html"}
    )
    assert live.run() == 1
    for path in live.report.parent.iterdir():
        text = path.read_text(encoding="utf-8")
        assert "not shown" in text
        for read in (text, text.encode("utf-16-le", "replace").decode("latin-1")):
            assert "27182818" not in re.sub(r"\W|u0000|x00", "", read)


def test_a_key_that_comes_back_as_a_job(live: Live, monkeypatch: Any, capsys: Any) -> None:
    """The id of the paid job is what the service says it is: it is masked as all else."""
    monkeypatch.setenv("TEST_LIVE_KEY", "live-key-27182818")
    answers = {len(CHECKS) + 1: JSONResponse({"jobId": "live-key-27182818", "status": "queued"}, 202)}
    live.answer = lambda _: answers.get(len(live.requests), Response(b"", 401))
    live.run(*PAID)
    texts = [path.read_text(encoding="utf-8") for path in live.report.parent.iterdir()]
    for text in (*texts, "".join(capsys.readouterr())):
        assert "job" in text
        assert "27182818" not in text


def test_an_answer_in_latin_1_is_shown(live: Live) -> None:
    """What cannot hide a key is not kept from whoever wants to know what is wrong."""
    live.answer = lambda _: Response(
        b"caf\xe9 closed? ", 401, {"content-type": "text/html; charset=ISO-8859-1"}
    )
    live.run()
    assert live.found["checks"][0]["answer"]["body"] == "caf\ufffd closed?"


def test_a_password_in_a_url_is_masked() -> None:
    """Slashes may be escaped in JSON."""
    assert "hidden" not in Masker(KEY).of_answer('{"url": "https:\\/\\/me:hidden@example.com"}')


@pytest.mark.parametrize("equals", ["=", "\\u003d", "%3D", "&#61;", "&equals;"])
@pytest.mark.parametrize("mark", ["?", "\\u003f", "%3F", "%253F", "&quest;"])
def test_a_signature_is_masked_as_it_is_spelt(mark: str, equals: str) -> None:
    """What signs a URL goes, escaped or not, in what is no JSON as well."""
    text = f' {{"url": "h/x{mark}signature{equals}0123456789abcdef"}}}}'
    assert "0123456789abcdef" not in Masker(KEY).of_answer(text)


@pytest.mark.parametrize("part", ["?", "%3f", "a://", "\\", "l\\", "l:", "&amp;", "&#0", "{", "l0"])
def test_masking_takes_no_time(part: str) -> None:
    """No answer can be made so that masking it takes minutes."""
    started = time.monotonic()
    Masker(KEY).of_answer(part * (contract_live._BODY_LIMIT // len(part)))
    assert time.monotonic() - started < 2


def test_a_report_cannot_be_broken_into(live: Live) -> None:
    """Neither the terminal nor the Markdown obeys what a service sends."""
    live.answer = lambda _: Response(
        '{"a": "\\ud800\x1b[2J```\\u0007"}', 401, {"content-type": "application/json"}
    )
    live.run()
    text = live.report.read_text(encoding="utf-8")
    assert not set("\x1b\x07") & set(text)
    assert text.count("```") == 2 * len(live.found["checks"])


def test_a_masker_shows_no_key() -> None:
    """Not even in its own repr."""
    assert KEY not in repr(Masker(KEY))


# Refusals


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--api-key-env="], "never the key"),
        (["--api-key-env=live-key-itself"], "never the key"),
        (["--api-key-env=TEST_EMPTY"], "never the key"),
        (["--api-key-env=TEST_BROKEN"], "line break"),
        (["--api-key-env=TEST_MOCK", "--base-url=https://api.techforgeinnovate.com"], "mock server only"),
        (["--base-url=http://api.example.com"], "https"),
        (["--base-url=https://user:pw@example.com"], "no user"),
        (["--base-url=https://example.com/?a=b"], "no query"),
        (["--base-url=ftp://example.com"], "http"),
        (["--image-url=https://cdn.example.com/image.png"], "--paid-job"),
        (["--wait=5"], "--paid-job"),
        (["--paid-job", "--image-url=https://cdn.example.com/image.png"], "--audio-url"),
        ([*PAID[:2], "--audio-url=audio.mp3"], "--audio-url"),
        ([*PAID[:3], "--project-id=x"], "--project-id"),
    ],
)
def test_refusals(live: Live, monkeypatch: Any, capsys: Any, arguments: list[str], said: str) -> None:
    """What cannot be meant is refused before anything is sent, in words that show no key."""
    monkeypatch.setenv("TEST_EMPTY", "")
    monkeypatch.setenv("TEST_BROKEN", "broken\nkey")
    monkeypatch.setenv("TEST_MOCK", "techforge-mock-key")
    # Not even a script that is broken gets to the addresses here: nobody says yes.
    assert live.run(*arguments, yes=False) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert not [
        text for text in ("live-key-itself", "user:pw", "broken\nkey") if text in captured.out + captured.err
    ]
    assert live.requests == []
    assert not live.report.exists()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HTTPS_PROXY", "foo://user:pw-1@h:1"),
        ("HTTPS_PROXY", "http://user:pw-1@h:pw-1"),
        ("ALL_PROXY", "socks5://user:pw-1@h:1"),
        ("SSL_CERT_FILE", "/does/not/exist/pw-1"),
    ],
)
def test_an_environment_without_a_client(
    live: Live, monkeypatch: Any, capsys: Any, variable: str, value: str
) -> None:
    """What makes every request impossible is said before the first, without a proxy's password."""
    contract_live.tls_context.cache_clear()
    monkeypatch.setenv(variable, value)
    assert live.run("--base-url=https://api.invalid") == 2
    captured = capsys.readouterr()
    assert "nothing was sent" in captured.err
    assert "pw-1" not in captured.err + captured.out
    assert not live.report.exists()


def test_the_key_is_no_argument(live: Live, capsys: Any) -> None:
    """There is no way to give the key itself, and nothing is short for a flag that costs money."""
    for argument in ("--api-key=x", "--paid"):
        with pytest.raises(SystemExit) as exit_:
            live.run(argument)
        assert exit_.value.code == 2
    assert "unrecognized" in capsys.readouterr().err


class Terminal:
    """A standard input that is, or is not, a terminal."""

    def __init__(self, line: str, *, tty: bool = True) -> None:
        """Have one line to read."""
        self.line, self.isatty = line, lambda: tty

    def readline(self) -> str:
        """Return the line."""
        return self.line


@pytest.mark.parametrize(
    ("stdin", "code"),
    [
        (Terminal("y\n"), 0),
        (Terminal("YES\n"), 0),
        (Terminal("\n"), 2),
        (Terminal("n\n"), 2),
        (Terminal(""), 2),
        (Terminal("y\n", tty=False), 2),
    ],
)
def test_it_asks_first(live: Live, monkeypatch: Any, capsys: Any, stdin: Terminal, code: int) -> None:
    """Without --yes somebody at a terminal has to agree to the plan that was printed."""
    monkeypatch.setattr("sys.stdin", stdin)
    assert live.run(yes=False) == code
    assert bool(live.requests) == (code == 0)
    captured = capsys.readouterr()
    assert "requests to" in captured.out
    assert ("--yes" in captured.err) == (code == 2)


def test_a_dry_run_sends_nothing(live: Live, capsys: pytest.CaptureFixture[str]) -> None:
    """`--dry-run` shows the plan, needs no key, and leaves no trace."""
    assert contract_live.main(["--dry-run", f"--report={live.report}", *PAID]) == 0
    assert live.requests == []
    assert not live.report.exists()
    out = capsys.readouterr().out
    for check in CHECKS:
        assert check.name in out
        assert check.reason in out
    assert "THE LAST ONE COSTS MONEY" in out
    assert INPUT not in out


def test_a_report_that_cannot_be_written(live: Live, capsys: Any) -> None:
    """What nobody could read need not be asked."""
    live.report.parent.write_text("a file where the folder should be")
    assert live.run() == 2
    assert live.requests == []
    assert "cannot be written" in capsys.readouterr().err
