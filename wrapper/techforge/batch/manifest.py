"""A campaign's manifest: what is to be made, one row a job. It is read as a stream, and nothing is sent."""

import csv
import json
import math
import os
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from importlib import import_module
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, NoReturn, TextIO, Union, cast, get_args, get_origin, get_type_hints
from uuid import UUID

from attrs import Factory, field, frozen

from techforge import _checks
from techforge._masking import mask, mask_all
from techforge.batch.content import canonical, content_of
from techforge.batch.spelling import closest
from techforge.errors import InvalidArgumentError, TechForgeError
from techforge.params import JobParams

__all__ = ["BadRow", "ManifestError", "Row", "canonical", "content_of", "read"]


class ManifestError(TechForgeError):
    """A manifest cannot be read as a whole; nothing of it was sent."""


_SHOWN = 80
# What follows a ? or an @ in a value that is no URL, and may have been meant as one, is kept back as well.
_QUERY = re.compile(r"[?#].*", re.DOTALL)
_USERINFO = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*:/*)?.*@", re.DOTALL)


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) or (isinstance(value, int) and value.bit_length() < 64):
        return str(value)
    if not isinstance(value, str):
        return ""
    # What is long is cut before it is searched; a secret that this cuts in half is not among the first 80.
    text = _QUERY.sub("?***", mask(value[:8_000]))
    text = _printable(_USERINFO.sub(r"\1***@", text))
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _masked(value: object) -> str:
    return repr(mask_all(value))


def _content_of_row(row: "Row") -> str:
    return content_of(row.params)


@frozen
class Row:
    """A row that is fit to be sent.

    `key` is its name in the campaign, `params` are the arguments of `jobs.create`, `metadata` is what the
    other columns hold. `line` is where it begins in its file, from 1; in Parquet, or among mappings, its
    number. `content` is a hash of the params without the signatures of their URLs: rows with the same content
    ask for the same video.
    """

    key: str
    params: dict[str, Any] = field(repr=_masked)
    metadata: dict[str, Any] = field(repr=_masked)
    line: int
    content: str = field(default=Factory(_content_of_row, takes_self=True))


@frozen
class BadRow:
    """A row that cannot be sent, and the first reason why.

    `column` is empty where the row as a whole is bad. `value` is what may be shown of what is there: at most
    80 characters, and nothing that grants access to an input.
    """

    line: int
    column: str = field(converter=_shown)
    value: str = field(converter=_shown)
    reason: str

    def __str__(self) -> str:
        column = f", column {self.column}" if self.column else ""
        value = f'"{self.value}" ' if self.value else ""
        return f"line {self.line}{column}: {value}{self.reason}"


def read(
    source: str | os.PathLike[str] | Iterable[Mapping[str, Any]], *, allow_columns: Collection[str] = ()
) -> Iterator[Row | BadRow]:
    """Read a manifest: a .csv, .tsv, .jsonl, .ndjson or .parquet file, or mappings.

    Columns named as the arguments of `jobs.create` are the job's, `row_key` names the row, and all else is
    metadata. Text is UTF-8. An empty cell of a CSV file, and null elsewhere, is an argument that is not
    given. Without a `row_key` the key is the row's content, a hash of its params: the same params have the
    same key, in any process, type of file and order of columns, even if their URLs were signed again.

    A column whose name looks like a misspelt argument is an error, unless `allow_columns` holds the name:
    then it is metadata.

    >>> media = {"image_url": "https://cdn.example.com/i.png", "audio_url": "https://cdn.example.com/a.mp3"}
    >>> good, bad = read([{**media, "version": 6, "customer": "17"}, {**media, "version": "six"}])
    >>> good.key, good.metadata
    ('688d2449400496603a264489', {'customer': '17'})
    >>> print(bad)
    line 2, column version: "six" must be an int, not a str

    Raises:
        ManifestError: the file as a whole cannot be read, or a column is misspelt. You get it while you
            iterate, as you get the rows.
        InvalidArgumentError: an argument has the wrong type.
    """
    if isinstance(allow_columns, str):
        raise InvalidArgumentError("allow_columns", 'must be a collection of names such as ["langauge"]')
    own = frozenset(allow_columns)
    if isinstance(source, str | os.PathLike):
        return _from_file(Path(source), own)
    if not isinstance(cast("object", source), Iterable):
        raise InvalidArgumentError(
            "source", f"must be a path or an iterable of mappings, not {_named(source)}"
        )
    return (_row_of(None, number, item, own) for number, item in enumerate(source, 1))


class _UnfitError(Exception):
    """A value is not what its column takes; says why, and nothing of the value."""


def _named(value: object) -> str:
    name = type(value).__name__
    return f"an {name}" if name[0] in "aeio" else f"a {name}"


def _wrong(expected: str, value: object) -> _UnfitError:
    return _UnfitError(f"must be {expected}, not {_named(value)}")


# --- JSON


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # RFC 8259, section 4: with a name twice, what is read is unpredictable. Which one would be paid for?
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _UnfitError("holds a name twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise _UnfitError(f"holds {name}, which is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant)


def _decoded(text: str) -> Any:
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise _UnfitError(f"is not JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise _UnfitError("is not JSON that can be read: it is nested too deeply") from None
    except ValueError:
        raise _UnfitError("is not JSON that can be read: it holds a number of too many digits") from None


# --- text, as CSV has it, to values


def _as_it_is(text: str) -> str:
    return text


_INT = re.compile(r"\s*[+-]?[0-9]{1,1000}\s*", re.ASCII).fullmatch
_FLOAT = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*", re.ASCII).fullmatch
_BOOLS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def _to_int(text: str) -> int:
    # Python's own int() takes 1_000 as well, and the digits of every script.
    if not _INT(text):
        raise _UnfitError("is not a whole number such as 5")
    return int(text)


def _to_float(text: str) -> float:
    if not _FLOAT(text):
        raise _UnfitError("is not a number such as 1.5")
    return float(text)


def _to_bool(text: str) -> bool:
    value = _BOOLS.get(text.strip().lower())
    if value is None:
        raise _UnfitError("is none of true, false, yes, no, 1 and 0")
    return value


def _to_json(text: str) -> Any:
    return _decoded(text)


# --- the values


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _wrong("a str", value)
    if not value.isascii():
        _encodable(value)
    return str.__str__(value)  # of an enum that is a str, its value


def _encodable(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _UnfitError("cannot be encoded as UTF-8: it holds half a surrogate pair") from None


# Most URLs match, ten times as fast as they are checked. What does not match may still be one.
_PLAIN_URL = re.compile(r"https?://[A-Za-z0-9][A-Za-z0-9.-]*(?::[1-9][0-9]{0,3})?(?:[/?#][!-~]*)?").fullmatch


def _url(value: object) -> str:
    text = _text(value)
    if _PLAIN_URL(text):
        return text
    try:
        return _checks.http_url("url", text)
    except InvalidArgumentError as error:
        raise _UnfitError(str(error).removeprefix("url: ")) from None


_PLAIN_UUID = re.compile(r"(?:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})?").fullmatch


def _uuid(value: object) -> str:
    if not isinstance(value, str | UUID):
        raise _wrong("a str", value)
    try:
        return str(_checks.uuid("project_id", value))
    except InvalidArgumentError:
        # Its own words hold the value.
        raise _UnfitError("is not a UUID; give one such as 468ea7a0-66e1-4357-a760-236e54167f3e") from None


def _int(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong("an int", value)
    if value.bit_length() > 63:
        raise _UnfitError("is too large a number")
    return int(value)


def _float(value: object) -> float:
    # Always a float, since 1 and 1.0 must have the same key.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong("a number", value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _UnfitError("is not a finite number")
    return number


def _bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong("a bool", value)
    return value


def _texts(value: object) -> list[str]:
    if not isinstance(value, list | tuple):
        raise _wrong("a list of str", value)
    texts = cast("Sequence[object]", value)
    for text in texts:
        if not isinstance(text, str):
            raise _UnfitError(f"must be a list of str, and holds {_named(text)}")
    return [_text(text) for text in texts]


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _wrong("a mapping", value)
    extra = dict(cast("Mapping[object, object]", value))
    for name in extra:
        if not isinstance(name, str):
            raise _UnfitError(f"must have names that are str, and has {_named(name)}")
        if name in _FIELDS:
            raise _UnfitError(f"holds {name}, which has a column of its own; use that")
    try:
        _checks.json_value("extra", extra)
    except InvalidArgumentError as error:
        raise _UnfitError(str(error).removeprefix("extra: ")) from None
    return cast("dict[str, Any]", _decoded(json.dumps(extra)))  # a copy, in JSON's types


def _key(value: object) -> str:
    if not isinstance(value, str):
        raise _wrong("a str", value)
    fit = 0 < len(value) <= 200 and value.isprintable() and value not in {".", ".."}
    if not fit or "/" in value or "\\" in value:
        raise _UnfitError(
            "cannot name a file: a row_key has 1 to 200 printable characters, no / or \\, and is not . or .."
        )
    return str.__str__(value)


def _nothing(_: object) -> None:
    return None


def _carried(name: object, value: object) -> None:
    """Refuse metadata that cannot be written down; it is not judged otherwise."""
    if not isinstance(name, str):
        raise _UnfitError(f"names of columns must be str, and one is {_named(name)}")
    _encodable(name)
    if isinstance(value, str):
        _encodable(value)
    elif isinstance(value, dict | list | tuple):
        try:
            text = json.dumps(value, ensure_ascii=False, skipkeys=True, default=_nothing)
        except (ValueError, RecursionError):
            raise _UnfitError("is nested too deeply, or holds itself") from None
        _encodable(text)


# --- the columns


@frozen
class _Column:
    """What a column's text and its value go through."""

    parse: Callable[[str], Any]
    check: Callable[[Any], Any]


_TYPES: dict[frozenset[Any], _Column] = {
    frozenset({str}): _Column(_as_it_is, _text),
    frozenset({str, UUID}): _Column(_as_it_is, _uuid),
    frozenset({int}): _Column(_to_int, _int),
    frozenset({float}): _Column(_to_float, _float),
    frozenset({bool}): _Column(_to_bool, _bool),
    frozenset({Sequence[str]}): _Column(_to_json, _texts),
    frozenset({Mapping[str, object]}): _Column(_to_json, _mapping),
}
_URL = _Column(_as_it_is, _url)


def _column(name: str, hint: Any) -> _Column:
    members = get_args(hint) if get_origin(hint) in {Union, UnionType} else (hint,)
    column = _TYPES[frozenset(members) - {NoneType}]
    return _URL if name.endswith("_url") else column


_FIELDS = {name: _column(name, hint) for name, hint in get_type_hints(JobParams).items()}
_REQUIRED = tuple(name for name in _FIELDS if name in JobParams.__required_keys__)
_COLUMNS = {**_FIELDS, "row_key": _Column(_as_it_is, _key)}


_NAMES = tuple(_COLUMNS)


def _check_spelling(names: Iterable[object], own: AbstractSet[str], place: Callable[[], str]) -> None:
    """Raise if a name, which is not the user's own, is a misspelt one of ours."""
    meant = [
        (_shown(name), field)
        for name in names
        if name not in _COLUMNS
        and isinstance(name, str)
        and name not in own
        and (field := closest(name, _NAMES)) is not None
    ]
    if meant:
        questions = "? The".join(f" column {name} is unknown, did you mean {field}" for name, field in meant)
        them, they_are = ("it", "it is a column") if len(meant) == 1 else ("them", "they are columns")
        options = " ".join(f"--allow-column {shlex.quote(name)}" for name, _ in meant)
        argument = f"allow_columns={[name for name, _ in meant]}"
        raise ManifestError(
            f"{place()}: the{questions}? Rename {them}. "
            f"If {they_are} of your own, keep {them} with {options} (Python: {argument})."
        )


def _check_names(path: Path, names: Sequence[str], own: AbstractSet[str]) -> None:
    there = ", ".join(map(_shown, names[:50])) + (", …" if len(names) > 50 else "")
    if names.count("") > 1:
        raise ManifestError(f"{path}: {names.count('')} columns have no name; name or remove them ({there})")
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise ManifestError(f"{path}: the column {_shown(twice[0])} is there twice ({there})")
    _check_spelling(names, own, lambda: str(path))
    missing = [name for name in _REQUIRED if name not in names]
    if missing:
        raise ManifestError(
            f"{path}: the column {' and the column '.join(missing)} must be there, "
            f"and the header has only these columns: {there}"
        )


# --- rows


def _row(line: int, cells: Iterable[tuple[Any, Any]], *, text: bool = False) -> Row | BadRow:
    """Judge one row; with `text`, its cells are CSV's."""
    given: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    name, value = None, None
    try:
        for name, value in cells:
            column = _COLUMNS.get(name)
            if column is None:
                _carried(name, value)
                metadata[name] = value
            elif value is not None and not (text and value == ""):
                given[name] = column.check(column.parse(value) if text else value)
        for name in _REQUIRED:
            if name not in given:
                return BadRow(line, name, None, "must be given")
    except _UnfitError as error:
        return BadRow(line, name, value, str(error))
    key = given.pop("row_key", None)
    content = content_of(given)
    return Row(content if key is None else key, given, metadata, line, content)


def _row_of(path: Path | None, line: int, item: object, own: AbstractSet[str]) -> Row | BadRow:
    if not isinstance(item, Mapping):
        return BadRow(line, None, None, f"must be a mapping of columns to values, not {_named(item)}")
    cells = cast("Mapping[object, object]", item)
    _check_spelling(cells, own, lambda: f"{path}, line {line}" if path else f"row {line}")
    return _row(line, cells.items())


# --- files


def _from_file(path: Path, own: AbstractSet[str]) -> Iterator[Row | BadRow]:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(_READERS)
        raise ManifestError(f"{path}: not a type of file that can be read; there are {known}")
    try:
        yield from reader(path, own)
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror or error}") from error


def _open(path: Path, newline: str) -> TextIO:
    # With surrogateescape what is not UTF-8 is found in the line that it is in, and not in its block.
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline=newline)


def _check_utf8(path: Path, line: int, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        line += text.count("\n", 0, error.start)
        raise ManifestError(f"{path}, line {line}: not UTF-8; save the file as UTF-8") from None


def _from_jsonl(path: Path, own: AbstractSet[str]) -> Iterator[Row | BadRow]:
    with _open(path, "\n") as file:
        for line, text in enumerate(file, 1):
            if text.isspace():
                continue
            if not text.isascii():
                _check_utf8(path, line, text)
            try:
                item = _decoded(text)
            except _UnfitError as error:
                yield BadRow(line, None, None, str(error))
            else:
                yield _row_of(path, line, item, own)


def _from_parquet(path: Path, own: AbstractSet[str]) -> Iterator[Row | BadRow]:
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise ManifestError(
            f"{path}: Parquet needs pyarrow, which is not installed; pip install techforge[parquet]"
        ) from None
    number = 0
    try:
        # By default a whole group of rows is in memory, and that may be the whole file.
        with parquet.ParquetFile(path, buffer_size=64 * 1024, pre_buffer=False) as file:
            _check_names(path, file.schema_arrow.names, own)
            for batch in file.iter_batches(batch_size=1_000, use_threads=False):
                for item in batch.to_pylist():
                    number += 1
                    yield _row(number, item.items())
    except arrow.ArrowException as error:
        raise ManifestError(f"{path}: cannot be read as Parquet: {mask(str(error))}") from None
    except UnicodeDecodeError:
        raise ManifestError(f"{path}: a text after row {number} is not UTF-8") from None


# --- CSV

_DELIMITERS = ",;\t|"
_HEAD = 64 * 1024


def _from_csv(path: Path, own: AbstractSet[str], delimiters: str = _DELIMITERS) -> Iterator[Row | BadRow]:
    records = _records(path, delimiters)
    names = [name.strip() for _, header in islice(records, 1) for name in header]
    if not names:
        raise ManifestError(f"{path}: no header; the first line names the columns")
    _check_names(path, names, own)
    row = _row_maker(names)
    for line, record in records:
        yield row(line, record)


def _from_tsv(path: Path, own: AbstractSet[str]) -> Iterator[Row | BadRow]:
    return _from_csv(path, own, "\t")


def _records(path: Path, delimiters: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each record with the line at which it starts."""
    line = 1
    with _open(path, "") as file:
        try:
            head = file.readlines(_HEAD)
            # Strict, since what follows a quote in the wrong place would be read as something else.
            reader = csv.reader(chain(head, file), strict=True, **_dialect(head, delimiters))
            for record in reader:
                text = "".join(record)
                if not text.isascii():
                    _check_utf8(path, line, text)
                if len(record) > 1 or (text and not text.isspace()):
                    yield line, record
                line = reader.line_num + 1
        except csv.Error as error:
            raise ManifestError(
                f"{path}: the record that starts in line {line} is not CSV ({error}), so nobody can tell "
                "where the next one starts; mind the quotes"
            ) from None


def _dialect(head: list[str], delimiters: str) -> dict[str, Any]:
    # The columns that must be there tell the delimiter for certain. csv.Sniffer guesses: apostrophes and
    # semicolons in a text make it take a good comma file for another; and where it sees no doubled quote, it
    # lets none come later.
    header = next((line for line in head if not line.isspace()), "")
    lines = head[head.index(header) :] if header else []
    for delimiter in delimiters:
        records = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
        names = {name.strip() for record in islice(records, 1) for name in record}
        if names.issuperset(_REQUIRED):
            break
    else:
        delimiter = max(delimiters, key=header.count)
    spaced = header.count(delimiter) == header.count(delimiter + " ")
    return {"delimiter": delimiter, "skipinitialspace": spaced}


def _picker(indices: list[int]) -> Callable[[list[str]], tuple[str, ...]]:
    """Return what picks these fields of a record."""
    if len(indices) > 1:
        return cast("Callable[[list[str]], tuple[str, ...]]", itemgetter(*indices))
    return lambda record: tuple(record[index] for index in indices)


@frozen
class _Options:
    """What some columns' texts say, which is the same in many rows."""

    values: dict[str, Any]
    nested: dict[str, str]
    """Lists and mappings as JSON: each row needs its own."""

    @classmethod
    def of(cls, texts: Iterable[tuple[str, str]]) -> "_Options":
        """Read them; raises what their columns raise."""
        values = {n: _COLUMNS[n].check(_COLUMNS[n].parse(text)) for n, text in texts if text}
        nested = {name: canonical(value) for name, value in values.items() if isinstance(value, list | dict)}
        return cls({name: value for name, value in values.items() if name not in nested}, nested)


_REMEMBERED = 500


def _options(names: list[str]) -> Callable[[tuple[str, ...]], _Options]:
    """Return what reads the texts of these columns, and remembers some."""
    known: dict[tuple[str, ...], _Options] = {}

    def options(texts: tuple[str, ...]) -> _Options:
        found = known.get(texts)
        if found is None:
            found = _Options.of(zip(names, texts, strict=True))
            if sum(map(len, texts)) < 1_000:
                if len(known) >= _REMEMBERED:
                    known.clear()
                known[texts] = found
        return found

    return options


_PLAIN: dict[Callable[[Any], Any], Callable[[str], object]] = {_url: _PLAIN_URL, _uuid: _PLAIN_UUID}
"""What differs from row to row, and how to see at once that it is right as it is."""


def _row_maker(names: list[str]) -> Callable[[int, list[str]], Row | BadRow]:
    """Return what `_row` is for the records of one file, faster: what is not plain is left to `_row`."""
    at = {name: index for index, name in enumerate(names)}
    fields = {name: _FIELDS[name].check for name in names if name in _FIELDS}
    varied = [(name, at[name], _PLAIN[check]) for name, check in fields.items() if check in _PLAIN]
    alike = [name for name, check in fields.items() if check not in _PLAIN]
    other = [name for name in names if name not in _COLUMNS]
    pick_alike, pick_other = _picker([at[name] for name in alike]), _picker([at[name] for name in other])
    options_of = _options(alike)
    own = at.get("row_key")

    def row(line: int, record: list[str]) -> Row | BadRow:
        if len(record) != len(names):
            return BadRow(line, "", "", f"has {len(record)} fields, and the header has {len(names)}")
        try:
            options = options_of(pick_alike(record))
            params = options.values.copy()
            for name, index, is_plain in varied:
                text = record[index]
                if not is_plain(text):
                    return _row(line, zip(names, record, strict=True), text=True)
                if text:
                    params[name] = text
            for name, nested in options.nested.items():
                params[name] = _DECODER.decode(nested)
            key = "" if own is None or not record[own] else _key(record[own])
        except _UnfitError:
            return _row(line, zip(names, record, strict=True), text=True)
        content = content_of(params)
        return Row(key or content, params, dict(zip(other, pick_other(record), strict=True)), line, content)

    return row


_READERS: dict[str, Callable[[Path, AbstractSet[str]], Iterator[Row | BadRow]]] = {
    ".csv": _from_csv,
    ".tsv": _from_tsv,
    ".jsonl": _from_jsonl,
    ".ndjson": _from_jsonl,
    ".parquet": _from_parquet,
}
