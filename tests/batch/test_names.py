"""A file belongs to one row: names that are the same file are found before anything is paid for."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from techforge import InvalidArgumentError, TechForge
from techforge.batch import Ledger, State, read
from techforge.mock import MockServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def quick() -> Iterator[MockServer]:
    """Return a mock whose jobs are done at once."""
    with MockServer(render=False, job_polls=0) as mock:
        yield mock


@pytest.fixture
def batch(quick: MockServer) -> Iterator[Any]:
    """Return the campaigns of a client of that mock."""
    with TechForge(quick.api_key, base_url=quick.url) as client:
        yield client.batch


def rows(*keys: str, **more: str) -> list[dict[str, str]]:
    """Return a row for each key."""
    image = "https://a.example/i.png"
    return [
        {"row_key": key, "image_url": image, "audio_url": "https://a.example/a.mp3", **more} for key in keys
    ]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (rows("Anna", "anna"), "{row_key}.mp4"),
        (rows("Stra\u00dfe", "STRASSE"), "{row_key}.mp4"),
        (rows("caf\u00e9", "cafe\u0301"), "{row_key}.mp4"),
        (rows("x", "x.part"), "{row_key}"),
        (rows("x.part.json", "x"), "{row_key}"),
        (rows("a-b", take="c") + rows("a", take="b-c"), "{row_key}-{take}.mp4"),
    ],
    ids=["case", "sharp s", "accent", "part", "part.json", "two columns"],
)
def test_two_rows_with_one_file(
    batch: Any, quick: MockServer, tmp_path: Path, given: list[dict[str, str]], name: str
) -> None:
    """Nothing is sent, and nothing is added to the ledger."""
    with pytest.raises(InvalidArgumentError, match="would write to the same file") as caught:
        list(batch.run(given, ledger=tmp_path / "l", out=tmp_path / "out", name=name))
    assert all(repr(row["row_key"]) in str(caught.value) for row in given)
    assert quick.journal.count() == 0
    with Ledger(tmp_path / "l") as ledger:
        assert sum(ledger.counts().values()) == 0
    # Without a folder there are no files.
    assert {row.state for row in batch.run(given, ledger=tmp_path / "l")} == {State.DONE}


def test_the_same_when_a_campaign_continues(batch: Any, quick: MockServer, tmp_path: Path) -> None:
    """Rows that are pending are checked, also against rows that are done; two finished rows are not."""
    list(batch.run(rows("x"), ledger=tmp_path / "l", campaign="c", out=tmp_path / "out"))
    with Ledger(tmp_path / "l", "c") as ledger:
        ledger.load([*read(rows("X"))])
    sent = quick.journal.count(operation="createJob")
    with pytest.raises(InvalidArgumentError, match="would write to the same file"):
        list(batch.run(ledger=tmp_path / "l", campaign="c", out=tmp_path / "out"))
    assert quick.journal.count(operation="createJob") == sent
    list(batch.run(ledger=tmp_path / "l", campaign="c"))
    assert list(batch.run(ledger=tmp_path / "l", campaign="c", out=tmp_path / "out")) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pipes of this kind")
@pytest.mark.parametrize("name", ["a.mp4.part", "a.mp4.part.json"])
def test_a_planted_part_does_not_stop_a_campaign(batch: Any, tmp_path: Path, name: str) -> None:
    """The row says why it has no file, and the others have theirs."""
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out" / name)
    ended = {row.key: row for row in batch.run(rows("a", "b"), ledger=tmp_path / "l", out=tmp_path / "out")}
    assert (ended["a"].state, ended["a"].file) == (State.DONE, None)
    assert f"{name}' is not a regular file" in str(ended["a"].reason)
    assert ended["b"].file is not None
