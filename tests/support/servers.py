"""Servers on raw sockets, for what the mock cannot be made to do."""

from __future__ import annotations

import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

    Serve = Callable[["Server", socket.socket], None]
    Script = Callable[[str, socket.socket], bytes | None]

_LINGER_ZERO = struct.pack("ii", 1, 0)


class Server:
    """A server that does with each connection what `serve(server, connection)` does, and then closes it."""

    def __init__(self, serve: Serve) -> None:
        """Listen on a free port of the loopback interface."""
        self.connections = 0
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        # Closing a listener wakes nobody up who waits on it; a connection does.
        socket.create_connection(self._listener.getsockname()).close()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    @property
    def stopped(self) -> bool:
        """Whether the test is over."""
        return self._stop.is_set()

    def drip(self, connection: socket.socket, data: bytes, pause: float) -> None:
        """Send byte by byte, until the client or the test has had enough."""
        for at in range(len(data)):
            connection.sendall(data[at : at + 1])
            if self._stop.wait(pause):
                return

    def hang(self, seconds: float) -> None:
        """Say nothing for some seconds, or until the test is over."""
        self._stop.wait(seconds)

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self._stop.is_set():
                connection.close()
                return
            self.connections += 1
            self._threads.append(threading.Thread(target=self._run, args=(connection,), daemon=True))
            self._threads[-1].start()

    def _run(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(5)
            try:
                self._serve(self, connection)
            except OSError:
                return


class Scripted(Server):
    """An HTTP server: what `answer(head, connection)` returns is sent, then it closes."""

    def __init__(self, answer: Script) -> None:
        """Listen on a free port of the loopback interface."""
        super().__init__(Scripted._exchange)
        self.heads: list[str] = []
        self._answer = answer

    def _exchange(self, connection: socket.socket) -> None:
        head = read_request(connection)
        self.heads.append(head)
        answer = self._answer(head, connection)
        if answer is not None:
            # A client must not count on a connection that is about to be closed.
            connection.sendall(answer.replace(b"\r\n", b"\r\nconnection: close\r\n", 1))


def read_request(connection: socket.socket) -> str:
    """Read a request to its end; return its head."""
    head, rest = _head(connection)
    length = next((int(v) for n, v in _fields(head) if n == "content-length"), 0)
    while len(rest) < length and (more := connection.recv(65536)):
        rest += more
    return head


def reset(connection: socket.socket) -> None:
    """Let the connection end with a reset instead of an orderly close."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)


def _head(connection: socket.socket) -> tuple[str, bytes]:
    received = b""
    while b"\r\n\r\n" not in received:
        more = connection.recv(65536)
        if not more:
            raise ConnectionAbortedError
        received += more
    head, _, rest = received.partition(b"\r\n\r\n")
    return head.decode("latin-1"), rest


def _fields(head: str) -> list[tuple[str, str]]:
    return [(n.lower(), v.strip()) for n, _, v in (line.partition(":") for line in head.split("\r\n")[1:])]


class Stopwatch:
    """How long a block took."""

    seconds = 0.0

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._started
