"""Reading an answer: what comes compressed without having been asked for."""

import gzip
import math
import zlib

import pytest

from techforge._drivers.facade import MAX_ANSWER, Body


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_what_unpacks_is_bounded(pack) -> None:
    """A few bytes that stand for many megabytes are not unpacked to their end."""
    body = Body(math.inf)
    body._add(pack(bytes(50_000_000)))
    body._unpack("gzip")
    assert len(body.content()) == MAX_ANSWER


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "x" * 1000])
def test_an_unknown_packing_is_no_answer(encoding: str) -> None:
    """It is told in a few words."""
    body = Body(math.inf)
    body._add(b"x")
    with pytest.raises(OSError, match="content-encoding") as caught:
        body._unpack(encoding)
    assert len(str(caught.value)) < 100


def test_a_body_that_is_too_long_is_no_answer() -> None:
    """It is not kept in memory to its end."""
    body = Body(math.inf)
    with pytest.raises(OSError, match="more than"):
        body._add(bytes(MAX_ANSWER + 1))


def test_no_repr_shows_an_answer() -> None:
    """Tracebacks print variables."""
    body = Body(math.inf)
    body._add(b"s3cret")
    assert "s3cret" not in repr(body) + repr(body.content())
