"""Reading a response: its limits, and content encodings that the client did not request."""

import gzip
import math
import zlib

import pytest

from techforge._drivers.answer import MAX_ANSWER, Answer
from techforge._drivers.deadline import Deadline


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_a_decompression_bomb_is_not_unpacked(pack) -> None:
    """Decompression stops at a limit, so a few bytes cannot fill the memory."""
    answer = Answer(Deadline(math.inf))
    answer.begin(200, [(b"Content-Encoding", b"gzip")])
    answer.add(pack(bytes(50_000_000)))
    answer.unpack()
    assert len(answer.content()) == MAX_ANSWER


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "x" * 1000])
def test_an_unknown_content_encoding_is_an_error(encoding: str) -> None:
    """The error is short and names the encoding."""
    answer = Answer(Deadline(math.inf))
    answer.begin(200, [(b"content-encoding", encoding.encode())])
    answer.add(b"x")
    with pytest.raises(OSError, match="content-encoding") as caught:
        answer.unpack()
    assert len(str(caught.value)) < 100


def test_a_body_that_is_too_long_is_an_error() -> None:
    """Reading stops at the limit."""
    answer = Answer(Deadline(math.inf))
    with pytest.raises(OSError, match="more than"):
        answer.add(bytes(MAX_ANSWER + 1))


def test_no_repr_shows_a_response() -> None:
    """Tracebacks print variables, so a repr must not show the content."""
    answer = Answer(Deadline(math.inf))
    answer.add(b"s3cret")
    assert "s3cret" not in repr(answer) + repr(answer.content())
