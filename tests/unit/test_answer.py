"""Reading an answer: what comes compressed without having been asked for."""

import gzip
import math
import zlib

import pytest

from techforge._drivers.answer import MAX_ANSWER, Answer
from techforge._drivers.deadline import Deadline


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_what_unpacks_is_bounded(pack) -> None:
    """A few bytes that stand for many megabytes are not unpacked to their end."""
    answer = Answer(Deadline(math.inf))
    answer.begin(200, [(b"Content-Encoding", b"gzip")])
    answer.add(pack(bytes(50_000_000)))
    answer.unpack()
    assert len(answer.content()) == MAX_ANSWER


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "x" * 1000])
def test_an_unknown_packing_is_no_answer(encoding: str) -> None:
    """It is told in a few words."""
    answer = Answer(Deadline(math.inf))
    answer.begin(200, [(b"content-encoding", encoding.encode())])
    answer.add(b"x")
    with pytest.raises(OSError, match="content-encoding") as caught:
        answer.unpack()
    assert len(str(caught.value)) < 100


def test_a_body_that_is_too_long_is_no_answer() -> None:
    """It is not kept in memory to its end."""
    answer = Answer(Deadline(math.inf))
    with pytest.raises(OSError, match="more than"):
        answer.add(bytes(MAX_ANSWER + 1))


def test_no_repr_shows_an_answer() -> None:
    """Tracebacks print variables."""
    answer = Answer(Deadline(math.inf))
    answer.add(b"s3cret")
    assert "s3cret" not in repr(answer) + repr(answer.content())
