"""A connection pooler for PostgreSQL, as simple as a test needs it. It drops startup options."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

SSL_REQUEST, GSS_REQUEST = 80877103, 80877104
POOLER_PID = 4_000_000
"""A pooler has numbers of its own for its clients."""


class Pooler:
    """Listens on a TCP port, for a server at a Unix socket or a TCP port.

    In `session` mode each client has its own connection to the server, and in `transaction` mode all clients
    share one. `freeze()` lets the network go silent.
    """

    def __init__(self, url: str, mode: str) -> None:
        parts = urlsplit(url)
        self._folder = parse_qs(parts.query).get("host", [""])[0]
        self._address = parts.hostname or "127.0.0.1", parts.port or 5432
        self._mode = mode
        self._thawed = threading.Event()
        self._thawed.set()
        self._turn = threading.RLock()
        self._shared: tuple[socket.socket, list[bytes]] | None = None
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = f"postgresql://{parts.username or 'postgres'}@127.0.0.1:{port}{parts.path or '/postgres'}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thawed.set()
        for each in (self._listener, *self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def freeze(self) -> None:
        """Forward nothing more, as if the network had failed."""
        self._thawed.clear()

    def thaw(self) -> None:
        """Forward everything again."""
        self._thawed.set()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError, EOFError):
            startup = self._read_startup(client)
            if self._mode == "session":
                server, greeting = self._connect(startup)
                client.sendall(b"".join(greeting))
                threading.Thread(target=self._copy, args=[server, client], daemon=True).start()
                self._copy(client, server)
            else:
                with self._turn:
                    self._shared = self._shared or self._connect(startup)
                    server, greeting = self._shared
                client.sendall(b"".join(greeting))
                self._share(client, server)

    def _read_startup(self, client: socket.socket) -> bytes:
        while True:
            (length,) = struct.unpack("!i", _read(client, 4))
            body = _read(client, length - 4)
            if struct.unpack("!i", body[:4])[0] not in {SSL_REQUEST, GSS_REQUEST}:
                break
            client.sendall(b"N")
        words = body[4:].rstrip(b"\0").split(b"\0")
        pairs = zip(words[::2], words[1::2], strict=True)
        kept = b"".join(b"%s\0%s\0" % pair for pair in pairs if pair[0] in {b"user", b"database"})
        body = body[:4] + kept + b"\0"
        return struct.pack("!i", len(body) + 4) + body

    def _connect(self, startup: bytes) -> tuple[socket.socket, list[bytes]]:
        if self._folder:
            server = socket.socket(socket.AF_UNIX)
            server.connect(f"{self._folder}/.s.PGSQL.5432")
        else:
            server = socket.create_connection(self._address)
        self._sockets.append(server)
        server.sendall(startup)
        greeting: list[bytes] = []
        for kind, message in _messages(server):
            greeting.append(
                message[:5] + struct.pack("!i", POOLER_PID) + message[9:] if kind == b"K" else message
            )
            if kind in {b"Z", b"E"}:
                break
        return server, greeting

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._thawed.wait()
                target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _share(self, client: socket.socket, server: socket.socket) -> None:
        has_turn = False
        try:
            for kind, message in _messages(client):
                if kind == b"X":
                    return
                if not has_turn:
                    has_turn = self._turn.acquire()
                server.sendall(message)
                if kind not in {b"S", b"Q"}:
                    continue
                for answer, data in _messages(server):
                    client.sendall(data)
                    if answer == b"Z":
                        if data[5:] == b"I":
                            self._turn.release()
                            has_turn = False
                        break
        finally:
            if has_turn:
                self._turn.release()


def _messages(source: socket.socket) -> Iterator[tuple[bytes, bytes]]:
    while True:
        head = _read(source, 5)
        yield head[:1], head + _read(source, struct.unpack("!i", head[1:])[0] - 4)


def _read(source: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = source.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data
