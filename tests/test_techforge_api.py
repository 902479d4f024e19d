"""docs/techforge-api.md: what users of the generated client are told is so."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from uuid import UUID

import httpx
import pytest

from techforge.mock import MockServer
from techforge_api import AuthenticatedClient, Client
from techforge_api.api.jobs import create_job
from techforge_api.models import JobAccepted, JobRequest, SignedUrl

if TYPE_CHECKING:
    from support.contract_guard import ContractGuard

KEY = "canary-27182818"
PROJECT = UUID("468ea7a0-66e1-4357-a760-236e54167f3e")
ORDER = JobRequest("https://cdn.example.com/i.png?a=canary-1", "https://cdn.example.com/a.mp3", "x", PROJECT)


def answering(response: httpx.Response) -> AuthenticatedClient:
    """Return a client that gets this response."""
    transport = httpx.MockTransport(lambda _: response)
    http = httpx.Client(base_url="https://a.example", headers={"x-api-key": KEY}, transport=transport)
    return AuthenticatedClient("https://a.example", token="").set_httpx_client(http)


def test_a_token_is_refused(guard: ContractGuard) -> None:
    """The header is another one, so the key in `token` gets a 401."""
    with MockServer(render=False) as server, AuthenticatedClient(server.url, token=server.api_key) as client:
        assert create_job.sync_detailed(client=client, body=ORDER).status_code == 401
    assert guard.forgive()


@pytest.mark.lying("status: new")
def test_which_reprs_show_the_key() -> None:
    """Those that the page warns of show it, and the one that it recommends does not."""
    shown = [
        AuthenticatedClient("https://a.example", token=KEY),
        AuthenticatedClient("https://a.example", token=KEY, prefix="", auth_header_name="x-api-key"),
        Client("https://a.example", headers={"x-api-key": KEY}),
    ]
    assert all(KEY in repr(client) for client in shown)

    def add_key(request: httpx.Request) -> httpx.Request:
        request.headers["x-api-key"] = KEY
        return request

    sent: list[httpx.Request] = []

    def accept(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(202, json={"jobId": str(PROJECT), "status": "new"})

    http = httpx.Client(base_url="https://a.example", auth=add_key, transport=httpx.MockTransport(accept))
    client = AuthenticatedClient("https://a.example", token="").set_httpx_client(http)
    response = create_job.sync_detailed(client=client, body=ORDER)
    assert isinstance(response.parsed, JobAccepted)
    assert response.parsed.status == "new"
    assert [request.headers["x-api-key"] for request in sent] == [KEY]
    assert KEY not in repr((client, http, http.headers, sent, response))


@pytest.mark.lying("a 202 that cannot be read, and a 418")
def test_what_is_not_promised() -> None:
    """An unreadable 2xx raises, another status is None, and nothing limits the time or hides a URL."""
    with pytest.raises(json.JSONDecodeError):
        create_job.sync_detailed(client=answering(httpx.Response(202, text="<html>")), body=ORDER)
    with pytest.raises(KeyError):
        create_job.sync_detailed(client=answering(httpx.Response(202, json={})), body=ORDER)
    assert create_job.sync_detailed(client=answering(httpx.Response(418)), body=ORDER).parsed is None
    with Client("https://a.example") as client:
        assert client.get_httpx_client().timeout == httpx.Timeout(None)
        assert not client.get_httpx_client().follow_redirects
    signed = SignedUrl.from_dict({"signedUrl": "https://a.example/?sig=canary-2"})
    assert "canary-1" in repr(ORDER)
    assert "canary-2" in repr(signed)
