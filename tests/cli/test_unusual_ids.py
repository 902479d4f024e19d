"""A response that names a job in an unusual way: its id reaches error and ledger, and no POST follows."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from techforge import APIError, JobOutcomeUnknownError
from techforge.batch import Ledger
from techforge.cli.app import app

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.lying("the id is where the contract does not have it")
JOB_ID = "15a6331b-3837-4ae8-8fa7-d3ead3388d77"
SPELLINGS: dict[str, object] = {
    "jobId": {"jobId": JOB_ID, "status": "queued"},
    "job_id": {"job_id": JOB_ID},
    "id": {"status": "queued", "id": JOB_ID},
    "data": {"data": {"jobId": JOB_ID}},
    "error": {"error": {"jobId": JOB_ID}},
    "empty and data": {"jobId": "", "status": "queued", "data": {"jobId": JOB_ID}},
}
WAYS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "complete": (lambda body: body, ""),
    "truncated": (lambda body: body, "truncated"),
    "gzip": (gzip.compress, "content-encoding: x-gzip"),
    "twice": (lambda body: gzip.compress(zlib.compress(body)), "content-encoding: Deflate, GZIP"),
    "broken": (lambda body: gzip.compress(body)[:-8] + b"12345678", "content-encoding: gzip"),
}
STATUSES = [
    "202 Accepted",
    "200 OK",
    "302 Found",
    "401 Unauthorized",
    "409 Conflict",
    "429 Too Many",
    "503 Down",
]


def response(status: str, body: bytes, *headers: str, length: int | None = None) -> bytes:
    """Return the bytes of a response that closes its connection."""
    fields = (*headers, "content-type: application/json", f"content-length: {length or len(body)}")
    return "\r\n".join((f"HTTP/1.1 {status}", *fields, "connection: close", "", "")).encode() + body


def named_in(spelling: str, way: str, status: str) -> bytes:
    """Return a response that names the job."""
    pack, header = WAYS[way]
    body = pack(json.dumps(SPELLINGS[spelling]).encode())
    if header == "truncated":
        return response(status, body[: body.rindex(JOB_ID.encode()) + 37], length=len(body) + 9)
    return response(status, body, *([header] if header else []))


def id_of(create: Callable[[], Any]) -> str | None:
    """Return the id in the job or in the error."""
    try:
        return create().id
    except (APIError, JobOutcomeUnknownError) as error:
        return error.job_id if str(error.job_id) in str(error) else None


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("way", WAYS)
def test_an_id_in_the_body(
    connect: Callable[..., Any], scripted: Callable[..., Any], media: dict[str, str], way: str, status: str
) -> None:
    """Even a new key does not send the request again."""
    for spelling in SPELLINGS:
        server = scripted(lambda _head, _socket, spelling=spelling: named_in(spelling, way, status))
        keys = iter(["first-key-123456", "other-key-123456", "third-key-123456"])
        client = connect(lambda keys=keys: next(keys), base_url=server.url)
        assert id_of(lambda client=client: client.jobs.create(**media)) == JOB_ID, spelling
        assert len(server.heads) == 1, spelling


@pytest.mark.parametrize("status", STATUSES)
def test_an_id_in_the_location(
    connect: Callable[..., Any], scripted: Callable[..., Any], media: dict[str, str], status: str
) -> None:
    """The body may be empty, or that of a proxy."""
    for body in (b"", b"{}", b"<html></html>"):
        server = scripted(lambda _h, _s, body=body: response(status, body, f"location: /jobs/v2/{JOB_ID}"))
        client = connect("key", base_url=server.url)
        assert id_of(lambda client=client: client.jobs.create(**media)) == JOB_ID
        assert len(server.heads) == 1


@pytest.mark.parametrize("status", STATUSES)
def test_a_campaign_keeps_it(
    scripted: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    """The id is in the ledger, and the row is not submitted again."""

    def answer(head: str, _socket: object) -> bytes:
        if head.startswith("POST"):
            return response(status, b'{"error": {"jobId": "%s"}}' % JOB_ID.encode())
        return response("404 Not Found", b'{"message": "none"}')

    server = scripted(answer)
    monkeypatch.setenv("TFI_API_KEY", "a-key-0123456789")
    monkeypatch.setenv("TFI_BASE_URL", server.url)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.csv").write_text("image_url,audio_url\nhttps://a.example/i,https://a.example/a\n")
    for _ in range(2):
        ran = CliRunner().invoke(app, ["batch", "run", "c.csv", "--give-up-after", "1"])
        assert ran.exit_code in {4, 5}, ran.output
    assert sum(head.startswith("POST") for head in server.heads) == 1
    with Ledger(tmp_path / "techforge.sqlite") as ledger:
        assert [entry.job_id for entry in ledger.entries()] == [JOB_ID]


@pytest.mark.parametrize("status", STATUSES)
def test_the_command_prints_it(
    scripted: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    """With the command that waits for the job."""
    server = scripted(lambda _h, _s: response(status, b"", f"location: /jobs/{JOB_ID}"))
    monkeypatch.setenv("TFI_API_KEY", "a-key-0123456789")
    monkeypatch.setenv("TFI_BASE_URL", server.url)
    media = ("--image", "https://cdn.example.com/i.png", "--audio", "https://cdn.example.com/a.mp3")
    said = CliRunner().invoke(app, ["video", "create", *media, "--json"])
    assert said.exit_code == 5
    assert f"techforge video wait {JOB_ID}" in said.stderr
    assert json.loads(said.stdout)["job_id"] == JOB_ID
    assert sum(head.startswith("POST") for head in server.heads) == 1
