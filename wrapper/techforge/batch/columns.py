"""The columns of a manifest: how the text of a cell becomes a value, and which values a job accepts."""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, NoReturn, Union, cast, get_args, get_origin, get_type_hints
from uuid import UUID

from attrs import frozen

from techforge import _checks
from techforge.errors import InvalidArgumentError
from techforge.params import JobParams


class UnfitValueError(Exception):
    """A column does not accept a value. The message says why; it never contains the value."""


def type_name(value: object) -> str:
    """Return the name of a value's type with its article, such as "an int"."""
    name = type(value).__name__
    return f"an {name}" if name[0] in "aeio" else f"a {name}"


def _type_error(expected: str, value: object) -> UnfitValueError:
    return UnfitValueError(f"must be {expected}, not {type_name(value)}")


# --- JSON


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # JSON allows a name to occur twice, and parsers differ in which value they keep (RFC 8259, section 4). We
    # cannot know which one the user wants to pay for.
    items = dict(pairs)
    if len(items) != len(pairs):
        raise UnfitValueError("holds a name twice")
    return items


def _refuse_constant(name: str) -> NoReturn:
    raise UnfitValueError(f"holds {name}, which is not JSON")


_decoder = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)


def decode_json(text: str) -> Any:
    """Decode JSON; raise an `UnfitValueError` if it is invalid."""
    try:
        return _decoder.decode(text)
    except json.JSONDecodeError as error:
        raise UnfitValueError(f"is not JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise UnfitValueError("is not JSON that can be read: it is nested too deeply") from None
    except ValueError:
        raise UnfitValueError("is not JSON that can be read: it holds a number of too many digits") from None


# --- from the text of a CSV cell to a value


def _unchanged(text: str) -> str:
    return text


_is_int = re.compile(r"\s*[+-]?[0-9]{1,1000}\s*", re.ASCII).fullmatch
_is_float = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*", re.ASCII).fullmatch
_BOOLS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def _to_int(text: str) -> int:
    # int() would also accept 1_000 and the digits of every script.
    if not _is_int(text):
        raise UnfitValueError("is not a whole number such as 5")
    return int(text)


def _to_float(text: str) -> float:
    if not _is_float(text):
        raise UnfitValueError("is not a number such as 1.5")
    return float(text)


def _to_bool(text: str) -> bool:
    value = _BOOLS.get(text.strip().lower())
    if value is None:
        raise UnfitValueError("is none of true, false, yes, no, 1 and 0")
    return value


# --- checks of values


def _check_encodable(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UnfitValueError("cannot be encoded as UTF-8: it holds half a surrogate pair") from None


def _check_str(value: object) -> str:
    if not isinstance(value, str):
        raise _type_error("a str", value)
    if not value.isascii():
        _check_encodable(value)
    # An enum that is also a str becomes its value.
    return str.__str__(value)


# Most URLs match this pattern, which is ten times as fast as the full check. Other valid URLs do not.
is_plain_url = re.compile(
    r"https?://[A-Za-z0-9][A-Za-z0-9.-]*(?::[1-9][0-9]{0,3})?(?:[/?#][!-~]*)?"
).fullmatch


def check_url(value: object) -> str:
    """Return the URL if it is an absolute http(s) URL."""
    text = _check_str(value)
    if is_plain_url(text):
        return text
    try:
        return _checks.http_url("url", text)
    except InvalidArgumentError as error:
        raise UnfitValueError(str(error).removeprefix("url: ")) from None


is_plain_uuid = re.compile(r"(?:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})?").fullmatch


def check_uuid(value: object) -> str:
    """Return a UUID in its usual spelling."""
    if not isinstance(value, str | UUID):
        raise _type_error("a str", value)
    try:
        return str(_checks.uuid("project_id", value))
    except InvalidArgumentError:
        # The original message contains the value.
        raise UnfitValueError(
            "is not a UUID; give one such as 468ea7a0-66e1-4357-a760-236e54167f3e"
        ) from None


def _check_int(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _type_error("an int", value)
    if value.bit_length() > 63:
        raise UnfitValueError("is too large a number")
    return int(value)


def _check_float(value: object) -> float:
    # The result is always a float, because 1 and 1.0 must have the same key.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _type_error("a number", value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise UnfitValueError("is not a finite number")
    return number


def _check_bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise _type_error("a bool", value)
    return value


def _check_list(value: object) -> list[str]:
    if not isinstance(value, list | tuple):
        raise _type_error("a list of str", value)
    texts = cast("Sequence[object]", value)
    for text in texts:
        if not isinstance(text, str):
            raise UnfitValueError(f"must be a list of str, and holds {type_name(text)}")
    return [_check_str(text) for text in texts]


def _check_mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _type_error("a mapping", value)
    extra = dict(cast("Mapping[object, object]", value))
    for name in extra:
        if not isinstance(name, str):
            raise UnfitValueError(f"must have names that are str, and has {type_name(name)}")
        if name in FIELDS:
            raise UnfitValueError(f"holds {name}, which has a column of its own; use that")
    try:
        _checks.json_value("extra", extra)
    except InvalidArgumentError as error:
        raise UnfitValueError(str(error).removeprefix("extra: ")) from None
    # The user may change the mapping later, so each row keeps a copy.
    return cast("dict[str, Any]", decode_json(json.dumps(extra)))


def check_key(value: object) -> str:
    """Return a row_key if it can name the file of a video."""
    if not isinstance(value, str):
        raise _type_error("a str", value)
    is_name = 0 < len(value) <= 200 and value.isprintable() and value not in {".", ".."}
    if not is_name or "/" in value or "\\" in value:
        raise UnfitValueError(
            "cannot name a file: a row_key has 1 to 200 printable characters, no / or \\, and is not . or .."
        )
    return str.__str__(value)


def _to_null(_: object) -> None:
    return None


def check_metadata(name: object, value: object) -> None:
    """Refuse metadata that cannot be stored. Every other name and value is accepted."""
    if not isinstance(name, str):
        raise UnfitValueError(f"names of columns must be str, and one is {type_name(name)}")
    _check_encodable(name)
    if isinstance(value, str):
        _check_encodable(value)
    elif isinstance(value, dict | list | tuple):
        try:
            text = json.dumps(value, ensure_ascii=False, skipkeys=True, default=_to_null)
        except (ValueError, RecursionError):
            raise UnfitValueError("is nested too deeply, or holds itself") from None
        _check_encodable(text)


# --- columns


@frozen
class Column:
    """The two steps for a cell: `parse` converts text from a CSV file, `check` accepts or refuses a value."""

    parse: Callable[[str], Any]
    check: Callable[[Any], Any]


_COLUMN_BY_TYPE: dict[frozenset[Any], Column] = {
    frozenset({str}): Column(_unchanged, _check_str),
    frozenset({str, UUID}): Column(_unchanged, check_uuid),
    frozenset({int}): Column(_to_int, _check_int),
    frozenset({float}): Column(_to_float, _check_float),
    frozenset({bool}): Column(_to_bool, _check_bool),
    frozenset({Sequence[str]}): Column(decode_json, _check_list),
    frozenset({Mapping[str, object]}): Column(decode_json, _check_mapping),
}
_URL_COLUMN = Column(_unchanged, check_url)


def _column_for(name: str, hint: Any) -> Column:
    members = get_args(hint) if get_origin(hint) in {Union, UnionType} else (hint,)
    column = _COLUMN_BY_TYPE[frozenset(members) - {NoneType}]
    return _URL_COLUMN if name.endswith("_url") else column


# A new argument of `jobs.create` becomes a column without a change here, if its type is known.
FIELDS = {name: _column_for(name, hint) for name, hint in get_type_hints(JobParams).items()}
REQUIRED = tuple(name for name in FIELDS if name in JobParams.__required_keys__)
COLUMNS = {**FIELDS, "row_key": Column(_unchanged, check_key)}
