"""The guard that holds every test to the contract: it misses nothing, and lets nothing pass."""

from __future__ import annotations

import asyncio
import inspect
import json
import socket
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import pytest
from support.contract_guard import DOCUMENT, ContractGuard, Message, request_problems, response_problems

from techforge import AsyncTechForge, Job, JobParams, TechForge
from techforge._sync.jobs import Jobs
from techforge._sync.storage import Storage
from techforge.mock import TEST_API_KEY, MockServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIGN = "/storage/generate-signed-path"
JOB = DOCUMENT["paths"]["/jobs/v2"]["post"]["requestBody"]["content"]["application/json"]["examples"]
EVERY = JOB["talkingVideo"]["value"]
# Of a field that the wrapper does not take yet, test_wrapper_mutants.py tells.
TAKEN = {
    name: value
    for name, value in EVERY.items()
    if name in JobParams.__required_keys__ | JobParams.__optional_keys__
}
SIGNED = {"signedUrl": "https://cdn.example.com/v.mp4?signature=1", "expiresAt": "2030-01-01T00:00:00Z"}
QUICK = {"poll": 0.02, "timeout": 5}

CALLS: dict[str, Callable[[Any, Job, Any], Any]] = {
    "jobs.create": lambda client, _job, _to: client.jobs.create(**TAKEN),
    "jobs.create_and_wait": lambda client, _job, _to: client.jobs.create_and_wait(**TAKEN, **QUICK),
    "jobs.download": lambda client, job, to: client.jobs.download(job, to),
    "jobs.find": lambda client, job, _to: client.jobs.find(job),
    "jobs.wait": lambda client, job, _to: client.jobs.wait(job, **QUICK),
    "storage.download": lambda client, job, to: client.storage.download(job.output_path, to),
    "storage.sign": lambda client, job, _to: client.storage.sign(job.output_path),
}
SENDS_NOTHING = {"jobs.from_ids"}


def seen(guard: ContractGuard) -> list[tuple[str, str]]:
    """Return what the guard has seen, the API's requests first."""
    api = [(message.method.upper(), message.path) for message in guard.requests]
    return api + [(request.method, httpx.URL.__str__(request.url)) for request in guard.storage]


def recorded(mock: MockServer) -> list[tuple[str, str]]:
    """Return the same of the mock's journal."""
    api = [(record.method, record.path) for record in mock.journal.requests(server="api")]
    return api + [
        (record.method, f"{mock.storage_url}{record.path}?{record.query}")
        for record in mock.journal.requests(server="storage")
    ]


def test_every_public_method_is_known() -> None:
    """A new method that sends something has to be in the list below."""
    methods = {
        f"{name}.{method}"
        for name, resource in (("jobs", Jobs), ("storage", Storage))
        for method, _ in inspect.getmembers(resource, inspect.isfunction)
        if not method.startswith("_")
    }
    assert methods == CALLS.keys() | SENDS_NOTHING


@pytest.mark.parametrize("own", [False, True], ids=["our connections", "http_client="])
@pytest.mark.parametrize("call", CALLS)
def test_every_request_is_seen(
    colour: str, mock: MockServer, done: Job, tmp_path: Path, guard: ContractGuard, call: str, own: bool
) -> None:
    """Each public method, in both colours, over connections of one's own too: the mock got what was seen."""
    act = CALLS[call]
    if colour == "sync":
        with (
            httpx.Client() as http,
            TechForge(mock.api_key, base_url=mock.url, http_client=http if own else None) as client,
        ):
            act(client, done, tmp_path)
    else:

        async def run() -> None:
            async with (
                httpx.AsyncClient() as http,
                AsyncTechForge(mock.api_key, base_url=mock.url, http_client=http if own else None) as client,
            ):
                await act(client, done, tmp_path)

        asyncio.run(run())
    assert seen(guard) == recorded(mock) != []
    assert guard.answers == len(guard.requests)


def test_another_transport_is_seen(media: dict[str, str], guard: ContractGuard) -> None:
    """What never reaches a socket is judged all the same."""
    accepted = {"jobId": EVERY["project_id"], "status": "queued"}

    class Transport(httpx.BaseTransport):
        def handle_request(self, _request: httpx.Request) -> httpx.Response:
            return httpx.Response(202, json=accepted)

    with (
        httpx.Client(transport=Transport()) as http,
        TechForge("key", base_url="http://127.0.0.1:1", http_client=http) as client,
    ):
        client.jobs.create(**media)  # type: ignore[arg-type]
    assert (len(guard.requests), guard.answers) == (1, 1)


def test_a_tests_own_requests_are_not_the_wrappers(mock: MockServer, guard: ContractGuard) -> None:
    """Tests may ask the mock what they like."""
    with httpx.Client(trust_env=False) as http, http.stream("DELETE", f"{mock.url}/nowhere") as response:
        response.read()
    assert seen(guard) == []
    assert guard.missed() == []


def past_httpx(url: str, **fields: str) -> int:
    """Send a GET as another process does: nothing here sees it; return the answer's status."""
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as response:  # noqa: S310
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


OURS = {"user_agent": "techforge-python/0", "x_api_key": TEST_API_KEY}


@pytest.mark.parametrize("forgotten", [False, True], ids=["kept", "forgotten"])
def test_what_only_a_server_saw_is_judged(guard: ContractGuard, forgotten: bool) -> None:
    """What another process sends is taken from the journals of all servers, even what they have forgotten."""
    with MockServer(render=False), MockServer(render=False) as server:
        assert past_httpx(f"{server.url}{SIGN}", **OURS) == 400
        if forgotten:
            server.journal.clear()
    (missed,) = guard.missed()
    assert missed.path == SIGN
    (problem,) = guard.forgive()
    assert "path" in problem
    assert guard.missed() == []


def test_a_status_that_only_a_server_knows_is_judged(mock: MockServer, guard: ContractGuard) -> None:
    """Of an answer to another process, the journal has the status."""
    mock.faults.add("status=418;times=1", "status=503;times=1")
    assert past_httpx(f"{mock.url}{SIGN}?path=a", **OURS) == 418
    assert past_httpx(f"{mock.url}{SIGN}?path=a", **OURS) == 503
    guard.missed()
    assert guard.lies == [f"418 to GET {SIGN}: the contract has no such status"]
    assert guard.forgive() == []


def test_what_only_storage_saw_is_judged(mock: MockServer, guard: ContractGuard, done: Job) -> None:
    """Another process must not give storage the key, either, in whatever header."""
    signed = f"{mock.url}{SIGN}?path={quote(done.output_path, safe='')}"
    assert past_httpx(signed, **OURS) == 200
    assert past_httpx(f"{mock.storage_url}/{done.output_path}", accept="*/*", x_user=TEST_API_KEY) == 403
    guard.missed()
    assert guard.forgive() == ["storage: the key went there"]


def test_what_was_cut_off_is_not_judged(mock: MockServer, guard: ContractGuard) -> None:
    """A process that is killed may leave the beginning of a request, which keeps to nothing."""
    head = "POST /jobs/v2 HTTP/1.1\r\nhost: a\r\nuser-agent: techforge-python/0\r\ncontent-length: 9\r\n\r\n"
    with socket.create_connection(("127.0.0.1", httpx.URL(mock.url).port or 0)) as connection:
        connection.sendall(head.encode() + b'{"a')
    while not mock.journal.requests():
        time.sleep(0.01)
    assert guard.missed() == []


# --- what openapi-core alone would let pass ---------------------------------------------------------


def message(body: Any = None, target: str = f"{SIGN}?path=a", method: str = "get") -> Message:
    """Return a request with all that it needs."""
    headers = (("x-api-key", "k"), ("content-type", "application/json"))
    return Message(method, target, headers, b"" if body is None else json.dumps(body).encode())


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("image_url", "cdn.example.com/i.png", "uri"),
        ("image_url", "https://cdn.example.com/%zz", "uri"),
        ("image_url", "https://[cdn/", "uri"),
        ("project_id", EVERY["project_id"].replace("-", ""), "uuid"),
    ],
)
def test_formats_are_checked_in_requests(field: str, value: str, kind: str) -> None:
    """JSON Schema leaves formats to whoever validates; here they count."""
    (problem,) = request_problems(message({**EVERY, field: value}, "/jobs/v2", "post"))
    assert problem == f"{field}: {value!r} is not a {kind!r}"


def answer(status: int = 200, *, body: Any = SIGNED, raw: bytes | None = None, **headers: str) -> list[str]:
    """Return what is wrong with an answer to signing."""
    fields = {"content-type": "application/json", **{n.replace("_", "-"): v for n, v in headers.items()}}
    content = json.dumps(body).encode() if raw is None else raw
    return response_problems(message(), httpx.Response(status, headers=fields), content)


def test_true_answers_are_true() -> None:
    """What the contract says, a 5xx of any number and fields that it does not forbid are no lies."""
    assert (
        answer()
        == answer(body={**SIGNED, "bucket": "b"})
        == answer(503, body={})
        == answer(599, body={})
        == []
    )
    assert (
        answer(429, body={}, retry_after="5") == answer(content_type="application/json; charset=utf-8") == []
    )


@pytest.mark.parametrize(
    ("lie", "word"),
    [
        (answer(201), "201"),
        (answer(403, body={}), "403"),
        (answer(301, body={}), "301"),
        (answer(content_type="text/html"), "text/html"),
        (answer(content_type=""), "mimetype"),
        (answer(content_type="application/json; charset=latin-1"), "UTF-8"),
        (answer(body={"signedUrl": SIGNED["signedUrl"]}), "expiresAt"),
        (answer(body={**SIGNED, "expiresAt": "tomorrow"}), "date-time"),
        (answer(body={**SIGNED, "expiresAt": 1}), "string"),
        (answer(body={**SIGNED, "signedUrl": "cdn.example.com/v.mp4"}), "uri"),
        (answer(body=[]), "object"),
        (answer(503, body="down"), "object"),
        (answer(raw=b""), "Missing"),
        (answer(raw=b"{"), "JSON"),
        (answer(raw=b'{"a": NaN}'), "JSON"),
        (answer(raw=b'{"a": 1, "a": 2}'), "twice"),
        (answer(raw=b"\xff"), "utf-8"),
        (answer(raw=b"{}", content_encoding="gzip"), "unpacked"),
        (answer(429, body={}, retry_after="soon"), "soon"),
    ],
)
def test_lies_are_told(lie: list[str], word: str) -> None:
    """Status, type, encoding, fields, formats and headers of an answer are all held to the contract."""
    assert [word for problem in lie if word in problem] != [], lie


# --- the marks ---------------------------------------------------------------------------------------


def verdict(guard: ContractGuard, **marks: bool) -> str:
    """Return what the guard says at the end of a test."""
    try:
        guard.verify(**marks)
    except pytest.fail.Exception as failure:
        return str(failure)
    return ""


def test_a_mark_allows_lies_and_demands_one() -> None:
    """A mark that allows what never happens is a leftover, and would hide the next lie."""
    honest, lied = ContractGuard(), ContractGuard(lies=["a lie"])
    assert (
        verdict(honest) == verdict(honest, may_lie=True) == verdict(lied, may_lie=True, must_lie=True) == ""
    )
    assert "a lie" in verdict(lied)
    assert "kept to the contract" in verdict(honest, may_lie=True, must_lie=True)
    # That a server lies is no excuse for the wrapper.
    assert "wrong" in verdict(ContractGuard(problems=["wrong"]), may_lie=True)


the_guard_fails_it = pytest.mark.xfail(
    strict=True, raises=pytest.fail.Exception, reason="this is what the guard is for"
)


@the_guard_fails_it
def test_a_lie_without_a_mark_fails(both: Any, mock: MockServer, done: Job) -> None:
    """Expected to fail: an answer that the contract does not allow, and no mark."""
    mock.faults.add(
        'status=200;json={"signedUrl":"https://cdn.example.com/v.mp4"};operation=generateSignedPath'
    )
    both.storage.sign(done.output_path)


@the_guard_fails_it
@pytest.mark.lying("which never happens")
def test_a_mark_without_a_lie_fails(both: Any, done: Job) -> None:
    """Expected to fail: a mark, and nothing but true answers."""
    both.storage.sign(done.output_path)


@the_guard_fails_it
def test_a_wrong_request_fails(both: Any, media: dict[str, str]) -> None:
    """Expected to fail: a request with a field that the contract does not have."""
    both.jobs.create(**media, extra={"zoom": 1})


@pytest.mark.undeclared("zoom", "pan")
def test_undeclared_fields_are_named_and_sent(both: Any, media: dict[str, str], mock: MockServer) -> None:
    """Only the fields that are named are let through, and they have to be sent."""
    assert "zoom" in verdict(ContractGuard(frozenset({"zoom"})))
    both.jobs.create(**media, extra={"zoom": 1, "pan": 2})
    (record,) = mock.journal.requests()
    ours = ContractGuard(frozenset({"zoom"}))
    ours._judge(Message.received(record))
    assert "zoom" not in verdict(ours)
    assert "pan" in verdict(ours)
