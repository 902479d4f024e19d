"""What may be shown of URLs and answers: nothing that grants access."""

import re
from collections.abc import Mapping, Sequence
from typing import cast

# The query is optional: a match that fails where the address ends begins again at each "://" within, and
# takes minutes for an answer that is made of them.
_QUERY = re.compile(r"(\b[a-z][a-z0-9+.-]{0,15}://[^\s\"'<>?#]+)([?#][^\s\"'<>]*)?", re.IGNORECASE)
_USERINFO = re.compile(r"(\b[a-z][a-z0-9+.-]{0,15}://)[^\s/\"'<>@?#]*@", re.IGNORECASE)
_EXCERPT = 1_000


def _without_query(found: re.Match[str]) -> str:
    return found[1] + "?***" if found[2] else found[0]


def mask(text: str, *secrets: str) -> str:
    """Return the text without URL queries, URL credentials and the given secrets.

    A signed URL's signature is in its query, so the query goes as a whole.
    """
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    return _USERINFO.sub(r"\1***@", _QUERY.sub(_without_query, text))


def mask_all(value: object) -> object:
    """Return a JSON value with every text in it masked."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return {key: mask_all(item) for key, item in items}
    if isinstance(value, list | tuple):
        return [mask_all(item) for item in cast("Sequence[object]", value)]
    return value


class Secret(str):
    """A text that is used as it is, and shown by no repr: not in a log, not in a traceback's variables."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class SecretBytes(bytes):
    """An answer as it came, whose repr shows its length alone."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


class SecretUrl(str):
    """A URL whose repr has no query."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(mask(str(self)))


def excerpt(body: bytes, *secrets: str) -> str:
    """Return the beginning of an answer as masked text."""
    # A secret cut in half by the limit would no longer be recognised: mask first.
    text = body[: 8 * _EXCERPT].decode("utf-8", "replace").replace("\\/", "/")
    text = mask(text, *secrets).strip()
    return text if len(text) <= _EXCERPT else text[:_EXCERPT] + "…"
