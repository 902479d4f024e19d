"""Servers that are not the API, or that repeat a response: a campaign notices, before it pays if possible."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from techforge import APIResponseError, TechForge
from techforge.batch import Ledger, State

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.lying("a website, or a proxy that repeats a response")
JOB_ID = "15a6331b-3837-4ae8-8fa7-d3ead3388d77"


def rows(count: int) -> list[dict[str, str]]:
    """Return rows."""
    media = {"image_url": "https://a.example/i.png", "audio_url": "https://a.example/a.mp3"}
    return [{"row_key": f"r{n}", **media} for n in range(count)]


def response(status: str, kind: str, body: str) -> bytes:
    """Return the bytes of a response."""
    head = f"content-type: {kind}\r\ncontent-length: {len(body)}\r\nconnection: close"
    return f"HTTP/1.1 {status}\r\n{head}\r\n\r\n{body}".encode()


@pytest.mark.parametrize("status", ["404 Not Found", "405 Not Allowed", "200 OK", "302 Found"])
def test_a_website_gets_no_submission(scripted: Callable[..., Any], tmp_path: Path, status: str) -> None:
    """The free request before the first row finds a wrong base URL."""
    server = scripted(lambda _h, _s: response(status, "text/html", "\n<!doctype html><title>Hello</title>"))
    with (
        TechForge("a-key-0123456789", base_url=server.url) as client,
        pytest.raises(APIResponseError, match="an HTML page, not a response of the API; check base_url"),
    ):
        list(client.batch.run(rows(2), ledger=tmp_path / "l"))
    assert not [head for head in server.heads if head.startswith("POST")]
    with Ledger(tmp_path / "l") as ledger:
        assert ledger.counts()[State.PENDING] == 2


def test_one_job_for_several_rows(
    scripted: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A proxy that repeats a response is noticed; the rows keep what the API said."""

    def answer(head: str, _socket: object) -> bytes:
        if head.startswith("POST"):
            return response(
                "202 Accepted", "application/json", json.dumps({"jobId": JOB_ID, "status": "queued"})
            )
        return response("404 Not Found", "application/json", '{"message": "none"}')

    server = scripted(answer)
    with TechForge("a-key-0123456789", base_url=server.url) as client:
        list(client.batch.run(rows(2), ledger=tmp_path / "l", job_timeout=0.5))
    with Ledger(tmp_path / "l") as ledger:
        assert [entry.job_id for entry in ledger.entries()] == [JOB_ID] * 2
    assert re.search(rf"the API named the same job for the rows 'r\d' and 'r\d': {JOB_ID}", caplog.text)
