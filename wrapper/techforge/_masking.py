"""What may be shown of URLs and answers: nothing that grants access."""

import re

_QUERY = re.compile(r"([a-z][a-z0-9+.-]*://[^\s\"'<>?#]+)[?#][^\s\"'<>]*", re.IGNORECASE)
_USERINFO = re.compile(r"([a-z][a-z0-9+.-]*://)[^\s/\"'<>@?#]*@", re.IGNORECASE)
_EXCERPT = 1_000


def mask(text: str, *secrets: str) -> str:
    """Return the text without URL queries, URL credentials and the given secrets.

    A signed URL's signature is in its query, so the query goes as a whole.
    """
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    return _USERINFO.sub(r"\1***@", _QUERY.sub(r"\1?***", text))


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
    text = mask(body[: 8 * _EXCERPT].decode("utf-8", "replace"), *secrets).strip()
    return text if len(text) <= _EXCERPT else text[:_EXCERPT] + "…"
