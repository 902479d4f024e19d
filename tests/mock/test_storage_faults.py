"""Storage can go wrong in ways of its own."""

from collections.abc import Callable

import httpx
import pytest

from techforge.mock import MockServer

Sign = Callable[[str], str]


@pytest.fixture
def url(server: MockServer, sign: Sign) -> str:
    """A signed URL of an object of 1000 bytes."""
    server.store.put("x", bytes(1000))
    return sign("x")


def test_cdn_status(server: MockServer, web: httpx.Client, url: str) -> None:
    """Storage can fail where signing has worked."""
    server.faults.add("cdn-status=404;times=2")
    assert [web.get(url).status_code for _ in range(3)] == [404, 404, 200]


def test_cdn_closes(server: MockServer, web: httpx.Client, url: str) -> None:
    """A download can break off after so many bytes, also exactly at the object's end."""
    for count in (0, 300):
        server.faults.add(f"cdn-close-after={count}")
        with pytest.raises(httpx.RemoteProtocolError, match=f"received {count} bytes, expected 1000"):
            web.get(url)
    server.faults.add("cdn-close-after=300;reset=1")
    with pytest.raises(httpx.ReadError):
        web.get(url)


def test_cdn_ignores_range(server: MockServer, web: httpx.Client, url: str) -> None:
    """Storage can answer a range with everything."""
    server.faults.add("cdn-ignore-range=1")
    assert len(web.get(url, headers={"range": "bytes=1-1"}).content) == 1000
    assert len(web.get(url, headers={"range": "bytes=1-1"}).content) == 1


def test_cdn_changes_etag(server: MockServer, web: httpx.Client, url: str) -> None:
    """The object can change between two ranges, and stays changed."""
    first = web.get(url, headers={"range": "bytes=0-9"}).headers["etag"]
    server.faults.add("cdn-change-etag=1")
    second = web.get(url, headers={"range": "bytes=10-", "if-range": first})
    assert second.status_code == 200
    assert second.headers["etag"] != first
    assert web.get(url).headers["etag"] == second.headers["etag"]


def test_cdn_expired(server: MockServer, web: httpx.Client, url: str) -> None:
    """A URL can be refused as expired before its time."""
    server.faults.add("cdn-expired=1")
    assert (web.get(url).status_code, web.get(url).status_code) == (403, 200)


def test_general_faults_of_storage(server: MockServer, web: httpx.Client, url: str) -> None:
    """What can happen to the API can happen to storage, if it is meant."""
    server.faults.add("status=503;retry-after=1;operation=storage")
    assert web.get(url).status_code == 503
    server.faults.add("close=after-body;operation=storage")
    with pytest.raises(httpx.RemoteProtocolError):
        web.get(url)
    assert web.get(url).status_code == 200


def test_header_on_storage(web: httpx.Client, url: str) -> None:
    """The header works on a request to storage, too."""
    assert web.get(url, headers={"x-mock-fault": "cdn-status=500"}).status_code == 500
    assert web.get(url, headers={"x-mock-fault": "status=503"}).status_code == 503
