"""The storage origin of the mock: signatures, and HTTP as a CDN speaks it."""

from collections.abc import Callable

import httpx
import pytest

from techforge.mock import MockServer
from techforge.mock.signing import SignatureRefusedError, Signer

DATA = bytes(range(200))
Sign = Callable[[str], str]


@pytest.fixture
def url(server: MockServer, sign: Sign) -> str:
    """A signed URL of an object of 200 bytes."""
    server.store.put("a/b c ü?.mp4", DATA)
    return sign("a/b c ü?.mp4")


def test_whole_object(web: httpx.Client, url: str) -> None:
    """A GET gets everything, with what a download needs to know."""
    answer = web.get(url)
    assert (answer.status_code, answer.content) == (200, DATA)
    assert answer.headers["content-length"] == "200"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["etag"].startswith('"')
    assert answer.headers["last-modified"].endswith("GMT")


def test_head_has_the_same_fields(web: httpx.Client, url: str) -> None:
    """HEAD answers as GET does, without the body, and knows no ranges."""
    head, get = web.head(url, headers={"range": "bytes=0-0"}), web.get(url)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "etag", "last-modified", "content-type", "accept-ranges"):
        assert head.headers[name] == get.headers[name]


@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=190-", 190, 200),
        ("bytes=-5", 195, 200),
        ("bytes=-999", 0, 200),
        ("bytes=0-999", 0, 200),
        ("BYTES=0-", 0, 200),
    ],
)
def test_range(web: httpx.Client, url: str, wanted: str, start: int, stop: int) -> None:
    """A single range is 206, be it closed, open or a suffix."""
    answer = web.get(url, headers={"range": wanted})
    assert (answer.status_code, answer.content) == (206, DATA[start:stop])
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/200"
    assert answer.headers["content-length"] == str(stop - start)


@pytest.mark.parametrize("wanted", ["bytes=200-", "bytes=999-1000", "bytes=-0"])
def test_range_outside_is_416(web: httpx.Client, url: str, wanted: str) -> None:
    """What the object does not have is 416, with its size."""
    answer = web.get(url, headers={"range": wanted})
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */200")


@pytest.mark.parametrize(
    "wanted", ["bytes=5-2", "bytes=x", "bytes=-", "lines=1-2", "bytes=0-1,5-6", "bytes=" + "9" * 5000 + "-"]
)
def test_range_that_makes_no_sense_is_ignored(web: httpx.Client, url: str, wanted: str) -> None:
    """An invalid or multiple range gets the whole object."""
    answer = web.get(url, headers={"range": wanted})
    assert (answer.status_code, answer.content) == (200, DATA)


def test_if_range(server: MockServer, web: httpx.Client, url: str) -> None:
    """A range of an object that has changed since gets the whole new object."""
    first = web.get(url, headers={"range": "bytes=0-9"})
    for validator in (first.headers["etag"], first.headers["last-modified"]):
        assert web.get(url, headers={"range": "bytes=10-", "if-range": validator}).status_code == 206
    server.store.put("a/b c ü?.mp4", b"other")
    again = web.get(url, headers={"range": "bytes=10-", "if-range": first.headers["etag"]})
    assert (again.status_code, again.content) == (200, b"other")


def test_if_none_match(web: httpx.Client, url: str) -> None:
    """A client that has the object already is told so."""
    etag = web.get(url).headers["etag"]
    for tags in (etag, f'"x", W/{etag}', "*"):
        answer = web.get(url, headers={"if-none-match": tags})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert web.get(url, headers={"if-none-match": '"x"'}).status_code == 200


def test_large_object(server: MockServer, web: httpx.Client, sign: Sign) -> None:
    """An object of many chunks arrives whole."""
    data = bytes(range(256)) * 20_000
    server.store.put("large", data)
    assert web.get(sign("large")).content == data


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("%3F.mp4", "%3F.mp3"),
        ("expires=", "expires=9"),
        ("signature=", "signature=0"),
        ("signature=", "x="),
        ("expires=", "x="),
    ],
)
def test_altered_url_is_refused(web: httpx.Client, url: str, old: str, new: str) -> None:
    """A URL whose path, expiry or signature was altered or dropped opens nothing."""
    assert old in url
    answer = web.get(url.replace(old, new))
    assert answer.status_code == 403
    assert "sign" in answer.text
    assert "expired" not in answer.text


def test_expired_url_is_refused() -> None:
    """A URL stops working at its expiry, and the answer says that this is why."""
    now = 1_000_000.0
    with MockServer(render=False, ttl=60, wall_clock=lambda: now) as server:
        server.store.put("x", DATA)
        signed = httpx.get(
            server.url + "/storage/generate-signed-path",
            params={"path": "x"},
            headers={"x-api-key": server.api_key},
        ).json()
        assert signed["expiresAt"] == "1970-01-12T13:47:40Z"
        now += 59
        assert httpx.get(signed["signedUrl"]).status_code == 200
        now += 1
        answer = httpx.get(signed["signedUrl"])
        assert (answer.status_code, "expired" in answer.text) == (403, True)


def test_each_server_has_its_own_key() -> None:
    """What one server signed opens nothing at another."""
    first, second = Signer(), Signer()
    query = httpx.URL(first.sign("http://x", "p").url).params
    first.check("p", query["expires"], query["signature"])
    with pytest.raises(SignatureRefusedError):
        second.check("p", query["expires"], query["signature"])
    assert str(first.key) not in repr(first)


def test_storage_is_read_only(web: httpx.Client, url: str) -> None:
    """Other methods than GET and HEAD are 405."""
    answer = web.put(url, content=b"x")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


def test_object_that_is_gone_is_404(server: MockServer, web: httpx.Client, url: str) -> None:
    """A signature does not prove that the object is still there."""
    server.store.clear()
    assert web.get(url).status_code == 404
