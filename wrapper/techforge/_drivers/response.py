"""A response of the API while it arrives, with limits on its size and duration."""

from __future__ import annotations

import zlib
from contextlib import suppress
from typing import TYPE_CHECKING

from techforge._masking import SecretBytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from techforge._drivers.deadline import Deadline
    from techforge._drivers.network import ConnectionState

MAX_RESPONSE_BYTES = 1 << 20
"""Read at most this many bytes of a response; those of the contract have a few hundred."""


_DEFLATE = frozenset({"gzip", "x-gzip", "deflate"})
_IDENTITY = frozenset({"", "identity"})
_MAX_ENCODINGS = 3


def _inflated(content: bytes) -> tuple[bytes, str]:
    """Return the beginning of the decompressed content, up to the limit, and why the rest is missing."""
    problem = ""
    # 47 recognizes gzip and zlib; some servers send deflate without a header.
    for wbits in (47, -zlib.MAX_WBITS):
        try:
            return zlib.decompressobj(wbits).decompress(content, MAX_RESPONSE_BYTES), ""
        except zlib.error as error:
            problem = problem or str(error)
    # Byte by byte, to keep what comes before the error.
    decoder, plain = zlib.decompressobj(47), bytearray()
    with suppress(zlib.error):
        for place in range(len(content)):
            plain += decoder.decompress(content[place : place + 1], MAX_RESPONSE_BYTES)
            if len(plain) > MAX_RESPONSE_BYTES:
                break
    return bytes(plain), problem


class UnreadableError(OSError):
    """The response is too long, or has an unknown content encoding."""


def joined_headers(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return headers by lower-case name."""
    joined: dict[str, str] = {}
    for name, value in headers:
        lower, text = name.decode("latin-1").lower(), value.decode("latin-1")
        # RFC 9110, section 5.3: several lines of a header mean the same as one line with commas.
        joined[lower] = f"{joined[lower]}, {text}" if lower in joined else text
    return joined


class ReceivedResponse:
    """The status, headers and bytes of a response so far. Its repr shows none of them."""

    not_sent = False
    """The attempt failed before there was a connection, so the request was not sent."""
    status_code = 0
    """0 before the status has arrived."""
    headers: Mapping[str, str] = {}
    """Header names are lower-case."""
    connection: ConnectionState | None = None
    """The SDK's connection, or None with the user's own client."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._is_encoded = True
        self._chunks: list[bytes] = []
        self._size = 0

    @property
    def has_begun(self) -> bool:
        """Whether a byte of the response has arrived."""
        return bool(self.status_code) or (self.connection is not None and self.connection.has_response)

    def stop_reading(self) -> bool:
        """Stop receiving. Return False, and continue, if the socket's buffer has unread bytes."""
        return self.connection is None or self.connection.stop_reading()

    def begin(self, status_code: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Store the status and the headers."""
        self.status_code = status_code
        self.headers = joined_headers(headers)

    def add(self, chunk: bytes) -> None:
        """Add the next bytes."""
        self._size += len(chunk)
        if self._size > MAX_RESPONSE_BYTES:
            raise UnreadableError(f"more than {MAX_RESPONSE_BYTES} bytes")
        self._chunks.append(chunk)
        if self._deadline.has_passed:
            raise TimeoutError("the deadline passed")

    def add_decoded(self, content: bytes) -> None:
        """Add the content that a hook or a custom transport has already read and decoded."""
        self._is_encoded = False
        self.add(content)

    def decode(self) -> None:
        """Decode a content encoding that was not requested, since the response may name a paid job.

        Raises:
            UnreadableError: the encoding is unknown, or the content is broken. What could be decoded is kept.
        """
        if not self._is_encoded:
            return
        self._is_encoded = False
        header = self.headers.get("content-encoding", "")
        encodings = [name for each in header.split(",") if (name := each.strip().lower()) not in _IDENTITY]
        if len(encodings) > _MAX_ENCODINGS or not _DEFLATE.issuperset(encodings):
            raise UnreadableError(f"content-encoding {header[:50]!r}")
        content: bytes = self.content()
        problems: list[str] = []
        for _ in encodings:
            content, problem = _inflated(content)
            problems += [problem] if problem else []
        if content or not problems:  # otherwise keep what is not encoded, in spite of the header
            self._chunks = [content]
        if problems:
            raise UnreadableError(problems[0])

    def content(self) -> SecretBytes:
        """Return the bytes so far."""
        return SecretBytes(b"".join(self._chunks))
