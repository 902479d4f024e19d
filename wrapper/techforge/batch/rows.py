"""The rows of a manifest: a good row, a bad row, and how the cells of a row become one of them."""

import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, cast

from attrs import Factory, field, frozen

from techforge._masking import mask, masked_repr, printable
from techforge.batch.columns import COLUMNS, REQUIRED, UnfitValueError, check_metadata, type_name
from techforge.batch.content import content_of
from techforge.batch.spelling import closest
from techforge.errors import TechForgeError


class ManifestError(TechForgeError):
    """The manifest as a whole cannot be read. Nothing was sent."""


_SHOWN_CHARACTERS = 80
# A value that is not a valid URL may still contain a secret: in a query, or as a password before an @.
_QUERY = re.compile(r"[?#].*", re.DOTALL)
_USERINFO = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*:/*)?.*@", re.DOTALL)


def shown(value: object) -> str:
    """Return a value for a message: printable, at most 80 characters, without secrets."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) or (isinstance(value, int) and value.bit_length() < 64):
        return str(value)
    if not isinstance(value, str):
        return ""
    # Cut long text first, because the patterns are slow on it. The 80 characters that are shown come from far
    # before the cut, so they cannot hold half a secret.
    text = _QUERY.sub("?***", mask(value[:8_000]))
    text = printable(_USERINFO.sub(r"\1***@", text))
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def _content_of_row(row: "Row") -> str:
    return content_of(row.params)


@frozen
class Row:
    """A row that can be submitted.

    `key` names the row in its campaign. `params` are the arguments of `jobs.create`, and `metadata` holds the
    other columns. `line` is the line of the file at which the row starts, from 1; for Parquet and mappings it
    is the number of the row. `content` is a hash of the params without the signatures of their URLs: rows
    with the same content ask for the same video.
    """

    key: str
    params: dict[str, Any] = field(repr=masked_repr)
    metadata: dict[str, Any] = field(repr=masked_repr)
    line: int
    content: str = field(default=Factory(_content_of_row, takes_self=True))


@frozen
class BadRow:
    """A row that cannot be submitted, and the first reason why.

    `column` is empty if the row as a whole is bad. `value` is the cell as it may be shown: at most 80
    characters, without anything that grants access to an input.
    """

    line: int
    column: str = field(converter=shown)
    value: str = field(converter=shown)
    reason: str

    def __str__(self) -> str:
        column = f", column {self.column}" if self.column else ""
        value = f'"{self.value}" ' if self.value else ""
        return f"line {self.line}{column}: {value}{self.reason}"


_NAMES = tuple(COLUMNS)


def _check_spelling(names: Iterable[object], own: AbstractSet[str], place: Callable[[], str]) -> None:
    """Raise a `ManifestError` if a column looks like a misspelt argument and is not in `own`.

    `place` returns the start of the message: where the names are.
    """
    misspelt = {
        shown(name): meant
        for name in names
        if name not in COLUMNS
        and isinstance(name, str)
        and name not in own
        and (meant := closest(name, _NAMES)) is not None
    }
    if misspelt:
        found = "? The ".join(
            f"column {name} is unknown, did you mean {meant}" for name, meant in misspelt.items()
        )
        them, they_are = ("it", "it is a column") if len(misspelt) == 1 else ("them", "they are columns")
        options = " ".join(f"--allow-column {shlex.quote(name)}" for name in misspelt)
        raise ManifestError(
            f"{place()}: the {found}? Rename {them}. If {they_are} of your own, "
            f"keep {them} with {options} (Python: allow_columns={list(misspelt)})."
        )


def check_header(path: Path, names: Sequence[str], own: AbstractSet[str]) -> None:
    """Raise a `ManifestError` if the names of a file's columns are wrong."""
    header = ", ".join(map(shown, names[:50])) + (", …" if len(names) > 50 else "")
    if names.count("") > 1:
        raise ManifestError(f"{path}: {names.count('')} columns have no name; name or remove them ({header})")
    repeated = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if repeated:
        raise ManifestError(f"{path}: the column {shown(repeated[0])} is there twice ({header})")
    _check_spelling(names, own, lambda: str(path))
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise ManifestError(
            f"{path}: the column {' and the column '.join(missing)} must be there, "
            f"and the header has only these columns: {header}"
        )


def make_row(line: int, cells: Iterable[tuple[Any, Any]], *, text: bool = False) -> Row | BadRow:
    """Check the cells of one row. With `text`, they come from a CSV file and are converted first."""
    params: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    name, value = None, None
    try:
        for name, value in cells:
            column = COLUMNS.get(name)
            if column is None:
                check_metadata(name, value)
                metadata[name] = value
            elif value is not None and not (text and value == ""):
                params[name] = column.check(column.parse(value) if text else value)
        for name in REQUIRED:
            if name not in params:
                return BadRow(line, name, None, "must be given")
    except UnfitValueError as error:
        return BadRow(line, name, value, str(error))
    key = params.pop("row_key", None)
    content = content_of(params)
    return Row(content if key is None else key, params, metadata, line, content)


def make_row_from_mapping(path: Path | None, line: int, item: object, own: AbstractSet[str]) -> Row | BadRow:
    """Check one mapping. `path` is the file that it comes from, if any.

    Raises:
        ManifestError: a name is misspelt.
    """
    if not isinstance(item, Mapping):
        return BadRow(line, None, None, f"must be a mapping of columns to values, not {type_name(item)}")
    cells = cast("Mapping[object, object]", item)
    _check_spelling(cells, own, lambda: f"{path}, line {line}" if path else f"row {line}")
    return make_row(line, cells.items())
