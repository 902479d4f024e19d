"""Pages from this machine may use the mock, others not; the contract's own answers stay what they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from techforge.mock import MockServer

PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "content-type,x-api-key",
}
HERE = ["http://127.0.0.1:8000", "http://localhost:8000", "https://localhost", "http://[::1]:3000"]
ELSEWHERE = [
    "https://docs.example.com",
    "http://localhost.example.com",
    "http://127.0.0.1.example.com",
    "null",
]


@pytest.mark.parametrize("origin", HERE)
def test_a_page_of_this_machine_is_let_in(mock: MockServer, origin: str) -> None:
    """Its preflight is answered beside the contract and the journal, and it may read what follows."""
    asked = httpx.options(f"{mock.url}/jobs/v2", headers={"origin": origin, **PREFLIGHT})
    assert (asked.status_code, asked.content) == (204, b"")
    assert asked.headers["access-control-allow-origin"] == origin
    assert asked.headers["access-control-allow-methods"] == "POST"
    assert asked.headers["access-control-allow-headers"] == "content-type,x-api-key"
    assert mock.journal.requests() == []
    refused = httpx.post(f"{mock.url}/jobs/v2", headers={"origin": origin}, json={})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == origin
    assert len(mock.journal.requests()) == 1


@pytest.mark.parametrize("origin", ELSEWHERE)
def test_a_page_from_elsewhere_is_not(mock: MockServer, origin: str) -> None:
    """A website must not use a mock that its reader happens to run."""
    asked = httpx.options(f"{mock.url}/jobs/v2", headers={"origin": origin, **PREFLIGHT})
    assert asked.status_code == 405
    assert "access-control-allow-origin" not in asked.headers


def test_what_is_no_preflight_is_refused_as_ever(mock: MockServer) -> None:
    """The contract has no OPTIONS."""
    assert httpx.options(f"{mock.url}/jobs/v2", headers={"origin": HERE[0]}).status_code == 405
    assert "vary" not in httpx.options(f"{mock.url}/jobs/v2").headers
