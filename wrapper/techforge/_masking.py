"""Remove secrets from URLs and responses before they are shown."""

import re
from collections.abc import Mapping, Sequence
from typing import cast

# The query is optional in this pattern, since a failed match would start again at each "://" in the address:
# that takes minutes for a response full of them.
_QUERY = re.compile(r"(\b[a-z][a-z0-9+.-]{0,15}://[^\s\"'<>?#]+)([?#][^\s\"'<>]*)?", re.IGNORECASE)
_USERINFO = re.compile(r"(\b[a-z][a-z0-9+.-]{0,15}://)[^\s/\"'<>@?#]*@", re.IGNORECASE)
_EXCERPT = 1_000


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


def mask_all(value: object) -> object:
    """Return a JSON value with all its strings masked."""
    if isinstance(value, str):
        return mask(value)
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


class SecretBytes(bytes):
    """The bytes of a response. The repr shows only their number."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


class SecretUrl(str):
    """A URL with a repr without its query."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(mask(str(self)))


def excerpt(body: bytes, *secrets: str) -> str:
    """Return the beginning of a response as masked text."""
    # Mask before cutting: half a secret would not be recognized.
    text = body[: 8 * _EXCERPT].decode("utf-8", "replace").replace("\\/", "/")
    text = mask(text, *secrets).strip()
    return text if len(text) <= _EXCERPT else text[:_EXCERPT] + "…"
