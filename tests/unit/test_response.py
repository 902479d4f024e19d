"""Reading a response: its limits, and content encodings that the client did not request."""

import gzip
import math
import zlib
from collections.abc import Callable
from contextlib import suppress

import pytest

from techforge._drivers.deadline import Deadline
from techforge._drivers.response import MAX_RESPONSE_BYTES, ReceivedResponse


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_a_decompression_bomb_is_not_unpacked(pack) -> None:
    """Decompression stops at a limit, so a few bytes cannot fill the memory."""
    response = ReceivedResponse(Deadline(math.inf))
    response.begin(200, [(b"Content-Encoding", b"gzip")])
    response.add(pack(bytes(50_000_000)))
    response.decode()
    assert len(response.content()) == MAX_RESPONSE_BYTES


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, br", "gzip, gzip, gzip, gzip", "x" * 1000])
def test_an_unknown_content_encoding_is_an_error(encoding: str) -> None:
    """The error is short and names the encoding."""
    response = ReceivedResponse(Deadline(math.inf))
    response.begin(200, [(b"content-encoding", encoding.encode())])
    response.add(b"x")
    with pytest.raises(OSError, match="content-encoding") as caught:
        response.decode()
    assert len(str(caught.value)) < 100


def nothing(content: bytes) -> bytes:
    """Leave the content as it is."""
    return content


def deflate(content: bytes) -> bytes:
    """Compress without any header, as some servers do."""
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(content) + compressor.flush()


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("x-gzip", gzip.compress),
        ("GZIP", gzip.compress),
        (" gzip , identity", gzip.compress),
        ("gzip, gzip", lambda content: gzip.compress(gzip.compress(content))),
        ("deflate, x-gzip", lambda content: gzip.compress(zlib.compress(content))),
        ("deflate", zlib.compress),
        ("Deflate", deflate),
        ("", nothing),
        ("IDENTITY", nothing),
    ],
)
def test_a_compressed_response_is_read(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    """Under any spelling: complete, cut off, or with a wrong checksum."""
    content = b'{"jobId": "15a6331b-3837-4ae8-8fa7-d3ead3388d77", "status": "queued", "message": "accepted"}'
    packed, start = pack(content), content[:20]
    for received, expected in ((packed, content), (packed[:-9], start), (packed[:-4] + b"oops", start)):
        response = ReceivedResponse(Deadline(math.inf))
        response.begin(202, [(b"content-encoding", encoding.encode())])
        response.add(received)
        with suppress(OSError):
            response.decode()
        assert response.content().startswith(expected), received


def test_a_body_that_is_too_long_is_an_error() -> None:
    """Reading stops at the limit."""
    response = ReceivedResponse(Deadline(math.inf))
    with pytest.raises(OSError, match="more than"):
        response.add(bytes(MAX_RESPONSE_BYTES + 1))


def test_no_repr_shows_a_response() -> None:
    """Tracebacks print variables, so a repr must not show the content."""
    response = ReceivedResponse(Deadline(math.inf))
    response.add(b"s3cret")
    assert "s3cret" not in repr(response) + repr(response.content())
