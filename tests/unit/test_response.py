"""Reading a response: its limits, and content encodings that the client did not request."""

import gzip
import math
import zlib

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


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "x" * 1000])
def test_an_unknown_content_encoding_is_an_error(encoding: str) -> None:
    """The error is short and names the encoding."""
    response = ReceivedResponse(Deadline(math.inf))
    response.begin(200, [(b"content-encoding", encoding.encode())])
    response.add(b"x")
    with pytest.raises(OSError, match="content-encoding") as caught:
        response.decode()
    assert len(str(caught.value)) < 100


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
