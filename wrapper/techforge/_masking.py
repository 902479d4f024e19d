"""Remove secrets from URLs and responses before they are shown."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import SupportsIndex, TypeVar, cast, overload
from urllib.parse import quote, unquote, unquote_plus, urlsplit

# The query is optional in this pattern, since a failed match would start again at each "://" in the address:
# that takes minutes for a response full of them.
_QUERY = re.compile(r"(\b[a-z][a-z0-9+.-]{0,15}://[^\s\"'<>?#]+)([?#][^\s\"'<>]*)?", re.IGNORECASE)
_USERINFO = re.compile(r"(\b[a-z][a-z0-9+.-]{0,15}://)[^\s/\"'<>@?#]*@", re.IGNORECASE)
_URL = re.compile(r"\s*[a-z][a-z0-9+.-]{0,15}://", re.IGNORECASE)
_REST = re.compile(r"[?#].*", re.DOTALL)
PASSWORD = re.compile(r"\A((?:\s*[a-z][a-z0-9+.-]+:/+)?+[^:@/?#]*):(?!\\).*@", re.IGNORECASE | re.DOTALL)
"""The user (group 1) and the password of an address, which may be mistyped.

It ends at the last @, because a password may contain @, / or ?. A backslash follows the drive of a path.
"""
_EXCERPT = 1_000
_MIN_SECRET = 8
"""Shorter values of a query are not masked where a response quotes them: `w=400` is no secret."""
T = TypeVar("T")


def _without_query(found: re.Match[str]) -> str:
    return found[1] + "?***" if found[2] else found[0]


def mask(text: str, *secrets: str) -> str:
    """Return the text without URL queries, URL credentials and `secrets`.

    The signature of a signed URL is in its query, so the whole query is removed.
    """
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    return _USERINFO.sub(r"\1***@", _QUERY.sub(_without_query, text))


def masked_repr(value: object) -> str:
    """Return the repr of a JSON value with all its strings masked."""
    return repr(mask_all(value))


def printable(text: str, keep: str = "") -> str:
    """Return the text with control characters escaped: a terminal would obey those that a server sends."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape").decode()
        for char in text
    )


def as_typed(value: object) -> object:
    """Return an argument for an error. Text may be a mistyped URL: this removes its query and password."""
    return mask(_REST.sub("?***", PASSWORD.sub(r"\1:***@", value), 1)) if isinstance(value, str) else value


def _masked_value(text: str) -> str:
    # A value that begins as a URL is one to its end, whatever characters its query has.
    return mask(_REST.sub("?***", text, 1) if _URL.match(text) else text)


def mask_all(value: object) -> object:
    """Return a JSON value with all its strings masked."""
    if isinstance(value, str):
        return _masked_value(value)
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return {key: mask_all(item) for key, item in items}
    if isinstance(value, list | tuple):
        return [mask_all(item) for item in cast("Sequence[object]", value)]
    return value


class Secret(str):
    """A string with a masked repr, so that logs and the variables in tracebacks do not show it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        # Tools that show variables cut long strings first, and a plain slice would show the secret.
        part = super().__getitem__(key)
        return Secret(part) if isinstance(key, slice) else part


class SecretBytes(bytes):
    """The bytes of a response. The repr shows only their number."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"

    @overload
    def __getitem__(self, key: SupportsIndex) -> int: ...

    @overload
    def __getitem__(self, key: slice) -> bytes: ...

    def __getitem__(self, key: SupportsIndex | slice) -> int | bytes:
        part = super().__getitem__(key)
        return SecretBytes(part) if isinstance(part, bytes) else part


class SecretUrl(str):
    """A URL with a repr without its query."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(mask(_REST.sub("?***", str(self), 1)))

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        part = super().__getitem__(key)
        if not isinstance(key, slice):
            return part
        return SecretUrl(part) if self.startswith(part) else Secret(part)  # which may be a part of the query


def hide(value: T) -> T:
    """Return an equal JSON value whose URLs have a repr without their query. Tracebacks show variables."""
    if isinstance(value, str):
        is_url = _URL.match(value) or ("?" in value and " " not in value)  # the scheme may be missing
        return cast("T", SecretUrl(value)) if is_url else value
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return cast("T", {key: hide(item) for key, item in items})
    if isinstance(value, list | tuple):
        return cast("T", [hide(item) for item in cast("Sequence[object]", value)])
    return value


def secrets_in(value: object) -> Iterator[str]:
    """Yield the queries in the URLs of a JSON value, and their parameters. A response may quote them."""
    if isinstance(value, str) and _URL.match(value):
        query = urlsplit(value).query
        parts = (query, *(part.partition("=")[2] for part in query.split("&")))
        texts = (
            text for part in parts for text in (part, unquote(part), unquote_plus(part), quote(part, safe=""))
        )
        yield from (text for text in texts if len(text) >= _MIN_SECRET)
    elif isinstance(value, Mapping):
        for item in cast("Mapping[object, object]", value).values():
            yield from secrets_in(item)
    elif isinstance(value, list | tuple):
        for item in cast("Sequence[object]", value):
            yield from secrets_in(item)


def excerpt(body: bytes, *secrets: str) -> str:
    """Return the beginning of a response as masked text."""
    # Mask before cutting: half a secret would not be recognized.
    text = body[: 8 * _EXCERPT].decode("utf-8", "replace").replace("\\/", "/")
    text = printable(mask(text, *secrets).strip(), "\n\t")
    return text if len(text) <= _EXCERPT else text[:_EXCERPT] + "…"
