"""An answer of the API as it comes in: bounded in number of bytes and in time, whoever sends it."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from techforge._masking import SecretBytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from techforge._drivers.deadline import Deadline
    from techforge._drivers.network import ConnectionState

MAX_ANSWER = 1 << 20
"""Bytes of an API answer that are read; the contract's answers have a few hundred."""


class UnreadableError(OSError):
    """An answer that is too long, or packed in an unknown way."""


def named(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return headers by lower-case name."""
    joined: dict[str, str] = {}
    for name, value in headers:
        lower, text = name.decode("latin-1").lower(), value.decode("latin-1")
        # RFC 9110, section 5.3: what comes in several lines means the same as one with commas.
        joined[lower] = f"{joined[lower]}, {text}" if lower in joined else text
    return joined


class Answer:
    """The head of an answer, once it has come, and its bytes; its repr shows none of them."""

    not_sent = False
    """The attempt failed before there was a connection, so the request was not sent."""
    status_code = 0
    """0 before the head has come."""
    headers: Mapping[str, str] = {}
    """Names are lower-case."""
    connection: ConnectionState | None = None
    """The connection of ours that it comes over."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._packed = True
        self._chunks: list[bytes] = []
        self._size = 0

    @property
    def has_begun(self) -> bool:
        """Whether a byte of it has arrived."""
        return bool(self.status_code) or (self.connection is not None and self.connection.has_answer)

    def stop_reading(self) -> bool:
        """Receive nothing more of it; return False if something waits to be received."""
        return self.connection is None or self.connection.stop_reading()

    def begin(self, status_code: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Take the head."""
        self.status_code = status_code
        self.headers = named(headers)

    def add(self, chunk: bytes) -> None:
        """Take the next bytes."""
        self._size += len(chunk)
        if self._size > MAX_ANSWER:
            raise UnreadableError(f"more than {MAX_ANSWER} bytes")
        self._chunks.append(chunk)
        if self._deadline.has_passed:
            raise TimeoutError("the deadline passed")

    def take(self, content: bytes) -> None:
        """Take what a hook or a transport of the user's has read before us, and unpacked."""
        self._packed = False
        self.add(content)

    def unpack(self) -> None:
        """Undo a compression that was not asked for, since the answer may name a paid job; bounded, too."""
        encoding = self.headers.get("content-encoding", "identity")
        if encoding == "identity" or not self._packed:
            return
        if encoding not in {"gzip", "deflate"}:
            raise UnreadableError(f"content-encoding {encoding[:50]!r}")
        try:
            plain = zlib.decompressobj(wbits=47).decompress(self.content(), MAX_ANSWER)
        except zlib.error as error:
            raise UnreadableError(str(error)) from None
        self._chunks = [plain]

    def content(self) -> SecretBytes:
        """Return what has been read."""
        return SecretBytes(b"".join(self._chunks))
