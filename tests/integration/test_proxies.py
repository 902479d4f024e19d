"""The proxy for a request is the one that `httpx.Client()` would use; loopback has none."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpcore
import httpx
import pytest
import trustme
from support.servers import Server, read_request

from techforge._drivers.pool import tls_context
from techforge._drivers.proxies import proxy_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PROXY, OTHER = "http://proxy.example:3128", "http://other.example:8080"
URLS = [
    "https://api.example",
    "http://api.example",
    "https://eu.api.example:8443/v2",
    "https://notapi.example",
    "https://192.168.1.7",
    "https://[2001:db8::1]",
    "https://münchen.example",
]
BOTH = {"HTTP_PROXY": PROXY, "HTTPS_PROXY": OTHER}
ENVIRONMENTS: list[dict[str, str]] = [
    {},
    BOTH,
    {"http_proxy": PROXY},
    {"https_proxy": PROXY, "HTTPS_PROXY": OTHER},
    {"HTTPS_PROXY": "proxy.example:3128"},
    {"HTTPS_PROXY": "https://proxy.example"},
    {"HTTPS_PROXY": "http://me:w%40rd@proxy.example:3128/"},
    {"HTTPS_PROXY": "http://[2001:db8::9]:3128"},
    {"HTTPS_PROXY": ""},
    {"ALL_PROXY": PROXY},
    {"all_proxy": PROXY, "HTTPS_PROXY": OTHER},
    {"ALL_PROXY": PROXY, "https_proxy": ""},
    {"FTP_PROXY": PROXY, "TRAVIS_APT_PROXY": PROXY},
    *(
        {**BOTH, "NO_PROXY": bypassed}
        for bypassed in (
            "",
            "*",
            "elsewhere.example,*",
            "api.example",
            "API.Example",
            ".api.example",
            "*.api.example",
            "*api.example",
            "example",
            " api.example , notapi.example ",
            ",,api.example,",
            "api.example:443",
            "api.example:8443",
            "eu.api.example:8443",
            "https://api.example",
            "http://api.example",
            "https://eu.api.example:8443",
            "https://",
            "http://",
            "all://",
            "all://api.example",
            "192.168.1.7",
            "192.168.1.0/24",
            "192.168.1.7/32",
            "192.168.1",
            "2001:db8::1",
            "2001:db8::/32",
            "münchen.example",
            "xn--mnchen-3ya.example",
            "[2001:db8::1]",
            "localhost",
            "LOCALHOST",
        )
    ),
    {"http_proxy": PROXY, "no_proxy": "api.example"},
    {"ALL_PROXY": PROXY, "NO_PROXY": "api.example"},
    {"ALL_PROXY": PROXY, "NO_PROXY": "all://"},
    {"HTTPS_PROXY": PROXY, "no_proxy": "api.example", "NO_PROXY": "notapi.example"},
]


def chosen_by_httpx(url: str) -> object:
    """Return the relevant attributes of the proxy that httpx uses for a URL."""
    try:
        client = httpx.Client(verify=tls_context("http"))
    except httpx.InvalidURL:
        return httpx.InvalidURL
    with client:
        pool: Any = client._transport_for_url(httpx.URL(url))._pool  # type: ignore[attr-defined]
        if not isinstance(pool, httpcore.HTTPProxy):
            return None
        return str(pool._proxy_url.origin), pool._proxy_headers


def chosen_by_us(url: str) -> object:
    """Return the same attributes of the proxy that the SDK uses."""
    try:
        proxy = proxy_for(httpx.URL(url))
    except httpx.InvalidURL:
        return httpx.InvalidURL
    return (str(proxy.url.origin), proxy.headers) if proxy else None


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=str)
def test_the_proxy_is_the_one_of_httpx(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every environment that httpx supports leads to the same proxy or error."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for url in URLS:
        assert str(chosen_by_us(url)) == str(chosen_by_httpx(url)), url


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_loopback_is_never_reached_over_a_proxy(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain http is allowed to loopback only because no proxy is involved."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, PROXY)
    assert proxy_for(httpx.URL(f"http://{host}:8000")) is None


SIGNED = b'{"signedUrl":"https://cdn.example.com/v","expiresAt":"2030-01-01T00:00:00Z"}'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(SIGNED)


class InnerTls:
    """The server's side of TLS inside a TLS connection."""

    def __init__(self, outer: ssl.SSLSocket, context: ssl.SSLContext) -> None:
        """Do the handshake."""
        self._outer = outer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._inner = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._exchange(self._inner.do_handshake)

    def recv(self, size: int) -> bytes:
        """Receive what is available."""
        return self._exchange(self._inner.read, size)

    def sendall(self, data: bytes) -> None:
        """Send all bytes."""
        self._exchange(self._inner.write, data)

    def _exchange(self, operation: Any, *arguments: Any) -> Any:
        while True:
            try:
                result = operation(*arguments)
            except ssl.SSLWantReadError:
                self._outer.sendall(self._outgoing.read())
                if not (received := self._outer.recv(65536)):
                    raise ConnectionAbortedError from None
                self._incoming.write(received)
            else:
                self._outer.sendall(self._outgoing.read())
                return result


def test_a_proxy_that_speaks_tls(
    connect: Callable[..., Any], colour: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """TLS to the API works through TLS to an https proxy, for many requests per connection."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    tls_context.cache_clear()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("proxy.example", "api.example").configure_cert(context)
    heads: list[str] = []
    resolve = socket.getaddrinfo

    def resolver(host: Any, *args: Any, **kwargs: Any) -> Any:
        return resolve("127.0.0.1" if host == "proxy.example" else host, *args, **kwargs)

    async def async_resolver(*args: Any, **kwargs: Any) -> Any:
        return resolver(*args, **kwargs)

    def serve(_server: Server, connection: socket.socket) -> None:
        with suppress(OSError), context.wrap_socket(connection, server_side=True) as outer:
            heads.append(read_request(outer))
            outer.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            inner: Any = InnerTls(outer, context)
            while True:
                heads.append(read_request(inner))
                inner.sendall(ANSWER + SIGNED)

    with Server(serve) as server:
        monkeypatch.setenv("HTTPS_PROXY", server.url.replace("http://127.0.0.1", "https://proxy.example"))
        client = connect("key", base_url="https://api.example", timeout=5.0, max_retries=0)
        monkeypatch.setattr(socket, "getaddrinfo", resolver)
        if colour == "async":
            monkeypatch.setattr(client._runner.get_loop(), "getaddrinfo", async_resolver)
        for _ in range(3):
            assert client.storage.sign("a/b").url == "https://cdn.example.com/v"
        client.close()
        assert server.connections == 1
    assert [head.split(" ")[0] for head in heads] == ["CONNECT", "GET", "GET", "GET"]
    tls_context.cache_clear()
