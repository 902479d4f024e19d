"""What somebody else put under the names of a download: no hang, no damage to another file, a clear error."""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from techforge import DownloadError, InvalidArgumentError
from techforge._partfile import PartFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
KEY = "ai-talking-videos/p/outputs/j.mp4"


def bind(path: Path) -> None:
    """Leave a socket."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


PLANTS: dict[str, Callable[[Path, Path], object]] = {
    "a pipe": lambda path, _: os.mkfifo(path),
    "a link": lambda path, victim: path.symlink_to(victim),
    "a broken link": lambda path, victim: path.symlink_to(victim.with_name("nothing")),
    "a device": lambda path, _: path.symlink_to("/dev/zero"),
    "a directory": lambda path, _: path.mkdir(),
    "a socket": lambda path, _: bind(path),
    "a hard link": lambda path, victim: path.hardlink_to(victim),
}


@pytest.fixture
def victim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file of somebody else, which must stay as it is."""
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    path = tmp_path / "victim"
    path.write_text("untouched", encoding="utf-8")
    return path


def downloaded(target: Path, *, overwrite: bool = False) -> Path:
    """Write a file as a download does."""
    part = PartFile(KEY, target, overwrite)
    try:
        part.open()
        part.restart('"etag"', 5)
        part.write(b"video")
        return part.finish()
    finally:
        part.close()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", PLANTS)
@pytest.mark.parametrize("suffix", ["", ".part", ".part.json"])
def test_a_planted_file(victim: Path, suffix: str, kind: str, overwrite: bool) -> None:
    """Either the video is complete in a file of its own, or an error of ours says what is in the way."""
    target = victim.with_name("v.mp4")
    PLANTS[kind](target.with_name(target.name + suffix), victim)
    try:
        # A directory as the target would get a file of its own.
        file = downloaded(
            target / "v.mp4" if kind == "a directory" and not suffix else target, overwrite=overwrite
        )
    except (DownloadError, InvalidArgumentError):
        pass
    else:
        assert file.read_bytes() == b"video"
        assert not file.is_symlink()
        assert file.stat().st_nlink == 1
    assert victim.read_text("utf-8") == "untouched"
    assert not victim.with_name("nothing").exists()


@pytest.mark.parametrize("kind", ["a pipe", "a link", "a device", "a directory", "a socket"])
@pytest.mark.parametrize("name", ["v.mp4.part", "v.mp4.part.json"])
def test_what_is_in_the_way_is_named(victim: Path, name: str, kind: str) -> None:
    """The message says what to do. It is an error that a campaign does not retry."""
    PLANTS[kind](victim.with_name(name), victim)
    with pytest.raises(InvalidArgumentError, match=f"{name}' is .*; remove it, or choose another name"):
        downloaded(victim.with_name("v.mp4"))


@pytest.mark.parametrize(
    "text",
    ["[" * 60_000, " " * 70_000, "{}", '{"path": "p", "etag": 1, "total": -1}', "\x00"],
    ids=["deep", "long", "empty", "wrong types", "binary"],
)
def test_metadata_that_is_not_ours(victim: Path, text: str) -> None:
    """Nothing is resumed from it."""
    target = victim.with_name("v.mp4")
    victim.with_name("v.mp4.part").write_bytes(b"else")
    victim.with_name("v.mp4.part.json").write_text(text, encoding="utf-8")
    assert downloaded(target).read_bytes() == b"video"


def test_long_metadata_is_not_read_to_its_end(victim: Path) -> None:
    """A file of a gigabyte costs no memory, although its beginning looks right."""
    fields = json.dumps({"path": KEY, "etag": '"etag"', "total": 5})
    metadata = victim.with_name("v.mp4.part.json")
    metadata.write_text(fields, encoding="utf-8")
    os.truncate(metadata, 1 << 30)
    part = PartFile(KEY, victim.with_name("v.mp4"), overwrite=False)
    part.open()
    assert part.etag is None
    part.close()
