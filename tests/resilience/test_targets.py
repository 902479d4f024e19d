"""For any path, id, key or header, a request goes to the right target, or nowhere."""

from __future__ import annotations

import json
import re
import socket
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import UUID

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from techforge import ConfigurationError, InvalidArgumentError, TechForge
from techforge._checks import secure_url

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "key-0123456789"
SIGN = "GET /storage/generate-signed-path?path={} HTTP/1.1"
ANSWERS = {
    "GET": (b"200 OK", {"signedUrl": "https://a/b", "type": "GET", "expiresAt": "2030-01-01T00:00:00Z"}),
    "POST": (b"202 Accepted", {"jobId": "15a6331b-3837-4ae8-8fa7-d3ead3388d77", "status": "queued"}),
}
MEDIA: dict[str, Any] = {"image_url": "https://a/i.png", "audio_url": "https://a/a.mp3"}

# Characters with a meaning in a URL or header are chosen more often.
nasty = st.sampled_from(
    ["..", ".", "/", "\\", "%2F", "%2e%2e", "%00", "\r\n", "\n", "\r", "\0", "?", "#", "&"]
)
nasty |= st.sampled_from(
    ["a", "=", ";", "@", ":", " ", "\t", "+", "%", "//", "é", "\u2028", "\ud800", "\x85"]
)
texts = st.lists(nasty | st.text(max_size=3), max_size=6).map("".join)

# No deadline for an example: it uses sockets, and the machine may be busy.
many = settings(max_examples=300, deadline=None)


class Wire:
    """A server on a raw socket that records each request."""

    def __init__(self) -> None:
        """Listen on a free port of the loopback interface."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.requests: list[tuple[list[str], bytes]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def take(self) -> tuple[list[str], bytes] | None:
        """Return the head and body of the one request since the last call, or None."""
        requests, self.requests = self.requests, []
        assert len(requests) <= 1
        return requests[0] if requests else None

    def close(self) -> None:
        """Stop listening."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            # Split at CRLF only, so that a bare line break in a header stays visible.
            while head := self._head(stream):
                length = next(
                    (int(line[15:]) for line in head if line.lower().startswith("content-length:")), 0
                )
                self.requests.append((head, stream.read(length)))
                status, answer = ANSWERS[head[0].partition(" ")[0]]
                body = json.dumps(answer).encode()
                fields = b"content-type: application/json\r\ncontent-length: %d" % len(body)
                connection.sendall(b"HTTP/1.1 %s\r\n%s\r\n\r\n%s" % (status, fields, body))

    @staticmethod
    def _head(stream: Any) -> list[str]:
        head = b""
        while not head.endswith(b"\r\n\r\n") and (byte := stream.read(1)):
            head += byte
        return head.decode("latin-1").split("\r\n")[:-2] if head else []


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    """Return the server that records requests."""
    server = Wire()
    yield server
    server.close()


@pytest.fixture(scope="module")
def usual(wire: Wire) -> set[str]:
    """Return the head lines of an ordinary request, without the first line."""
    with TechForge(KEY, base_url=wire.url) as client:
        client.storage.sign("a")
    head, _ = wire.take() or ([], b"")
    assert head[0] == SIGN.format("a")
    assert f"x-api-key: {KEY}" in head
    return set(head[1:])


def fields(head: list[str]) -> list[tuple[str, str]]:
    """Return the names and values of the headers."""
    return [(name.lower(), value[1:]) for name, _, value in (line.partition(":") for line in head[1:])]


@many
@given(texts)
@example("a/\N{REPLACEMENT CHARACTER}")
@example("a/../b")
@example("a/..%2f..%2fjobs/v2")
@example("a HTTP/1.1\r\nhost: elsewhere\r\n\r\nGET /")
def test_a_storage_path_is_a_value(wire: Wire, usual: set[str], path: str) -> None:
    """A path is sent as one parameter, percent-encoded, or is refused before it is sent."""
    with TechForge(KEY, base_url=wire.url) as client:
        try:
            client.storage.sign(path)
        except InvalidArgumentError:
            segments = path.split("/")
            assert {"", ".", ".."} & {*segments} or re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", path)
            assert wire.take() is None
            return
    head, body = wire.take() or ([], b"")
    assert head[0] == SIGN.format(quote(path, safe=""))
    assert (set(head[1:]), body) == (usual, b"")


@many
@given(texts, st.booleans())
@example("k\r\nhost: elsewhere", True)
def test_a_key_is_a_value(wire: Wire, key: str, provided: bool) -> None:
    """A key is sent as the value of one header, or is refused before it is sent."""
    try:
        with TechForge((lambda: key) if provided else key, base_url=wire.url) as client:
            client.storage.sign("a")
    except ConfigurationError:
        assert not re.fullmatch(r"[!-~]+", key)
        assert wire.take() is None
        return
    head, _ = wire.take() or ([], b"")
    assert head[0] == SIGN.format("a")
    assert [value for name, value in fields(head) if name == "x-api-key"] == [key]
    assert [f"http://{value}" for name, value in fields(head) if name == "host"] == [wire.url]


@many
@given(texts | st.sampled_from(["x-team", "Host", "X-API-KEY", "content-length", "Transfer-Encoding"]), texts)
@example("x-team", "a\r\nhost: elsewhere")
@example("x-team: a\r\nhost", "elsewhere")
@example("x-team", "\x85next")
@example("x-team", " \t")
@example("x-team", " a\tb ")
def test_a_header_is_one_header(wire: Wire, usual: set[str], name: str, value: str) -> None:
    """A user's header is one line, or is refused before it is sent."""
    try:
        client = TechForge(KEY, base_url=wire.url, default_headers={name: value})
    except InvalidArgumentError:
        assert wire.take() is None
        return
    with client:
        client.storage.sign("a")
    head, _ = wire.take() or ([], b"")
    assert head[0] == SIGN.format("a")
    # Whitespace around a value is not part of it (RFC 9110, 5.5).
    more = [field for line, field in zip(head[1:], fields(head), strict=True) if line not in usual]
    assert more == [(name.lower(), value.strip(" \t"))]
    assert len(usual - {*head}) <= (name.lower() in {"accept", "accept-encoding", "user-agent"})


@pytest.mark.undeclared("more")
@many
@given(texts | st.uuids().map(str), texts)
@example("468ea7a0-66e1-4357-a760-236e54167f3e", "a\r\nhost: elsewhere")
@example("468ea7a0-66e1-4357-a760-236e54167f3e/../x", "a")
def test_a_job_is_a_body(wire: Wire, project_id: str, text: str) -> None:
    """A job's fields are JSON in the body, and its project is a UUID, or it is refused."""
    sent = {"job_type": text, "values": [text], "language": text, "extra": {"more": text}}
    with TechForge(KEY, base_url=wire.url) as client:
        try:
            client.jobs.create(**MEDIA, **sent, project_id=project_id)
        except InvalidArgumentError:
            assert wire.take() is None
            return
    head, body = wire.take() or ([], b"")
    assert head[0] == "POST /jobs/v2 HTTP/1.1"
    assert [f"http://{value}" for name, value in fields(head) if name == "host"] == [wire.url]
    job = json.loads(body)
    assert job["project_id"] == str(UUID(project_id))
    assert (job["values"], job["language"]) == ([text], text)


@pytest.mark.parametrize(
    "base", ["?", "#", "/x?", "?a=b", "\\@elsewhere.example", "@elsewhere.example", "\r\n"]
)
def test_a_base_url_is_a_place(wire: Wire, base: str) -> None:
    """A base URL that would change the operation's path or host is refused."""
    with pytest.raises((ConfigurationError, InvalidArgumentError), match="base_url"):
        TechForge(KEY, base_url=wire.url + base)


hosts = st.lists(
    st.sampled_from(["localhost", "127.0.0.1", "evil.example", ".", ":80", "é"]) | nasty, max_size=5
)


@many
@given(hosts.map("".join).map("http://{}/v.mp4".format))
@example("http://localhost\\@evil.example/v.mp4")
@example("http://evil.example\\.localhost/v.mp4")
@example("http://localhost:80@evil.example/v.mp4")
@example("http://127.0.0.1%2eevil.example/v.mp4")
@example("http://localhost/\ud800")
def test_allowed_loopback_is_loopback(url: str) -> None:
    """A host that the check accepts as loopback is also loopback for httpx, which connects."""
    try:
        secure_url("url", url, allow_http=False)
    except InvalidArgumentError:
        return
    try:
        host = httpx.URL(url).host
    except httpx.InvalidURL:
        return
    assert host in {"localhost", "127.0.0.1", "::1"}
