"""Open a manifest that is a text file, and name the line that is not UTF-8."""

from pathlib import Path
from typing import TextIO

from techforge.batch.rows import ManifestError


def open_text(path: Path, newline: str) -> TextIO:
    """Open a UTF-8 file, with or without a byte order mark. Check each line with `check_utf8`."""
    # A strict decoder would fail for a whole block, before we know the line.
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline=newline)


def check_utf8(path: Path, line: int, text: str) -> None:
    """Raise a `ManifestError` with the line of a byte that is not UTF-8. The text starts at `line`."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        line += text.count("\n", 0, error.start)
        raise ManifestError(f"{path}, line {line}: not UTF-8; save the file as UTF-8") from None
