"""Read a CSV or TSV manifest. A fast path reads ordinary records: there may be a million."""

import csv
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, cast

from attrs import frozen

from techforge.batch.columns import (
    COLUMNS,
    FIELDS,
    REQUIRED,
    UnfitValueError,
    check_key,
    check_url,
    check_uuid,
    decode_json,
    is_plain_url,
    is_plain_uuid,
)
from techforge.batch.content import canonical, content_of
from techforge.batch.rows import BadRow, ManifestError, Row, check_header, make_row
from techforge.batch.text_files import check_utf8, open_text

_DELIMITERS = ",;\t|"
_HEAD_BYTES = 64 * 1024


def read_csv(path: Path, own: AbstractSet[str], delimiters: str = _DELIMITERS) -> Iterator[Row | BadRow]:
    """Yield the rows of a file that has one of these delimiters."""
    records = _records(path, delimiters)
    names = [name.strip() for _, header in islice(records, 1) for name in header]
    if not names:
        raise ManifestError(f"{path}: no header; the first line names the columns")
    check_header(path, names, own)
    make_row_of = _fast_row_maker(names)
    for line, record in records:
        yield make_row_of(line, record)


def read_tsv(path: Path, own: AbstractSet[str]) -> Iterator[Row | BadRow]:
    """Yield the rows of a file that is delimited by tabs."""
    return read_csv(path, own, "\t")


def _records(path: Path, delimiters: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each record with the line at which it starts."""
    line = 1
    with open_text(path, "") as file:
        try:
            head = file.readlines(_HEAD_BYTES)
            # Without `strict`, a misplaced quote would silently shift the cells that follow it.
            reader = csv.reader(chain(head, file), strict=True, **_dialect(head, delimiters))
            for record in reader:
                text = "".join(record)
                if not text.isascii():
                    check_utf8(path, line, text)
                if len(record) > 1 or (text and not text.isspace()):
                    yield line, record
                line = reader.line_num + 1
        except csv.Error as error:
            raise ManifestError(
                f"{path}: the record that starts in line {line} is not CSV ({error}), so nobody can tell "
                "where the next one starts; mind the quotes"
            ) from None


def _dialect(head: list[str], delimiters: str) -> dict[str, Any]:
    # The delimiter is the one that separates the required columns. csv.Sniffer only guesses: apostrophes and
    # semicolons in a text mislead it, and it turns doubled quotes off if the sample has none.
    header = next((line for line in head if not line.isspace()), "")
    lines = head[head.index(header) :] if header else []
    for delimiter in delimiters:
        records = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
        names = {name.strip() for record in islice(records, 1) for name in record}
        if names.issuperset(REQUIRED):
            break
    else:
        delimiter = max(delimiters, key=header.count)
    has_spaces = header.count(delimiter) == header.count(delimiter + " ")
    return {"delimiter": delimiter, "skipinitialspace": has_spaces}


def _picker(indices: list[int]) -> Callable[[list[str]], tuple[str, ...]]:
    """Return a function that picks these fields from a record, as a tuple."""
    if len(indices) > 1:
        return cast("Callable[[list[str]], tuple[str, ...]]", itemgetter(*indices))
    return lambda record: tuple(record[index] for index in indices)


@frozen
class _SharedValues:
    """Values of the columns that are usually the same in many rows, such as `language`."""

    plain: dict[str, Any]
    nested: dict[str, str]
    """Lists and mappings, as JSON: each row gets its own copy."""

    @classmethod
    def of(cls, texts: Iterable[tuple[str, str]]) -> "_SharedValues":
        """Read the texts of some columns; raise an `UnfitValueError` if one is wrong."""
        values = {n: COLUMNS[n].check(COLUMNS[n].parse(text)) for n, text in texts if text}
        nested = {name: canonical(value) for name, value in values.items() if isinstance(value, list | dict)}
        return cls({name: value for name, value in values.items() if name not in nested}, nested)


_CACHE_SIZE = 500


def _shared_values_reader(names: list[str]) -> Callable[[tuple[str, ...]], _SharedValues]:
    """Return a function that reads the texts of these columns, with a cache."""
    known: dict[tuple[str, ...], _SharedValues] = {}

    def read_values(texts: tuple[str, ...]) -> _SharedValues:
        found = known.get(texts)
        if found is None:
            found = _SharedValues.of(zip(names, texts, strict=True))
            if sum(map(len, texts)) < 1_000:
                if len(known) >= _CACHE_SIZE:
                    known.clear()
                known[texts] = found
        return found

    return read_values


_PLAIN_PATTERNS: dict[Callable[[Any], Any], Callable[[str], object]] = {
    check_url: is_plain_url,
    check_uuid: is_plain_uuid,
}
"""For columns that differ in each row: a quick test that a text is valid and needs no change."""


def _fast_row_maker(names: list[str]) -> Callable[[int, list[str]], Row | BadRow]:
    """Return a function that makes rows of records as `make_row` does, but faster.

    It handles ordinary records. It passes the others to `make_row`, which also finds out what is wrong.
    """
    index_of = {name: index for index, name in enumerate(names)}
    checks = {name: FIELDS[name].check for name in names if name in FIELDS}
    varying = [
        (name, index_of[name], _PLAIN_PATTERNS[check])
        for name, check in checks.items()
        if check in _PLAIN_PATTERNS
    ]
    shared = [name for name, check in checks.items() if check not in _PLAIN_PATTERNS]
    other = [name for name in names if name not in COLUMNS]
    pick_shared = _picker([index_of[name] for name in shared])
    pick_other = _picker([index_of[name] for name in other])
    read_shared = _shared_values_reader(shared)
    key_index = index_of.get("row_key")

    def make_row_of(line: int, record: list[str]) -> Row | BadRow:
        if len(record) != len(names):
            return BadRow(line, "", "", f"has {len(record)} fields, and the header has {len(names)}")
        try:
            values = read_shared(pick_shared(record))
            params = values.plain.copy()
            for name, index, is_plain in varying:
                text = record[index]
                if not is_plain(text):
                    return make_row(line, zip(names, record, strict=True), text=True)
                if text:
                    params[name] = text
            for name, nested in values.nested.items():
                params[name] = decode_json(nested)
            key = "" if key_index is None or not record[key_index] else check_key(record[key_index])
        except UnfitValueError:
            return make_row(line, zip(names, record, strict=True), text=True)
        content = content_of(params)
        metadata = dict(zip(other, pick_other(record), strict=True))
        return Row(key or content, params, metadata, line, content)

    return make_row_of
