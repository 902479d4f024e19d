"""TLS, directly and through a proxy, configured by the environment."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from support.servers import Server, read_request

from techforge import APIConnectionError, Outcome
from techforge._drivers.pool import tls_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SIGNED = b'{"signedUrl":"https://cdn.example.com/v","expiresAt":"2030-01-01T00:00:00Z"}'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(SIGNED)


@pytest.fixture
def authority(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[trustme.CA]:
    """Return a certificate authority that the environment configures as trusted."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    tls_context.cache_clear()
    yield authority
    tls_context.cache_clear()


def secured(authority: trustme.CA, name: str, heads: list[str]) -> Server:
    """Return an API with TLS that keeps its connections open."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)

    def serve(_server: Server, connection: socket.socket) -> None:
        with suppress(OSError), context.wrap_socket(connection, server_side=True) as stream:
            while True:
                heads.append(read_request(stream))
                stream.sendall(ANSWER + SIGNED)

    return Server(serve)


def tunnel(to: Server, heads: list[str]) -> Server:
    """Return a proxy that connects every tunnel to one server."""

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def serve(_server: Server, connection: socket.socket) -> None:
        heads.append(read_request(connection))
        port = int(to.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=5) as further:
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=pump, args=(further, connection))
            back.start()
            pump(connection, further)
            back.join()

    return Server(serve)


def test_the_environments_authority_is_trusted(connect: Callable[..., Any], authority: trustme.CA) -> None:
    """`SSL_CERT_FILE` sets the authority. One connection carries many requests."""
    heads: list[str] = []
    with secured(authority, "127.0.0.1", heads) as api:
        client = connect("key", base_url=api.url.replace("http:", "https:"))
        for _ in range(3):
            assert client.storage.sign("a/b").url == "https://cdn.example.com/v"
        assert (len(heads), api.connections) == (3, 1)
        client.close()


def test_an_unknown_authority_is_not_trusted(connect: Callable[..., Any], authority: trustme.CA) -> None:
    """Nothing is sent to a server with an untrusted certificate."""
    del authority
    heads: list[str] = []
    with secured(trustme.CA(), "127.0.0.1", heads) as api:
        with pytest.raises(APIConnectionError, match="CERTIFICATE_VERIFY_FAILED") as caught:
            connect("key", base_url=api.url.replace("http:", "https:"), max_retries=0).storage.sign("a/b")
        assert caught.value.outcome is Outcome.NOT_SENT
        assert heads == []


def test_a_certificate_is_for_a_name(connect: Callable[..., Any], authority: trustme.CA) -> None:
    """A certificate of another server is refused."""
    heads: list[str] = []
    with secured(authority, "elsewhere.example", heads) as api:
        with pytest.raises(APIConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
            connect("key", base_url=api.url.replace("http:", "https:"), max_retries=0).storage.sign("a/b")
        assert heads == []


def test_a_tunnel_through_a_proxy(
    connect: Callable[..., Any], authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy of `HTTPS_PROXY` gets the host and its own password, but not the key."""
    asked: list[str] = []
    heads: list[str] = []
    with secured(authority, "api.example", heads) as api, tunnel(api, asked) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("//", "//me:word@"))
        client = connect("the-api-key", base_url="https://api.example")
        for _ in range(2):
            assert client.storage.sign("a/b").url == "https://cdn.example.com/v"
        client.close()
    (head,) = asked
    assert head.startswith("CONNECT api.example:443 ")
    assert base64.b64encode(b"me:word").decode() in head
    assert "the-api-key" not in head
    assert len(heads) == 2
    assert all("the-api-key" in sent and "proxy-authorization" not in sent.lower() for sent in heads)


def test_no_proxy(
    connect: Callable[..., Any], colour: str, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hosts in `NO_PROXY` are reached directly."""
    heads: list[str] = []
    resolve = socket.getaddrinfo

    def resolver(host: Any, *args: Any, **kwargs: Any) -> Any:
        return resolve("127.0.0.1" if host in {"api.example", b"api.example"} else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "api.example")

    async def async_resolver(*args: Any, **kwargs: Any) -> Any:
        return resolver(*args, **kwargs)

    with secured(authority, "api.example", heads) as api:
        client = connect("key", base_url=f"https://api.example:{api.url.rpartition(':')[2]}")
        if colour == "async":
            # uvloop resolves names by itself.
            monkeypatch.setattr(client._runner.get_loop(), "getaddrinfo", async_resolver)
        assert json.loads(SIGNED)["signedUrl"] == client.storage.sign("a/b").url
        client.close()
    assert len(heads) == 1
