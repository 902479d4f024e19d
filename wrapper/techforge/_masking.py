"""What may be shown of URLs and answers: nothing that grants access."""

import re

_QUERY = re.compile(r"(https?://[^\s\"'<>?#]+)[?#][^\s\"'<>]*", re.IGNORECASE)
_USERINFO = re.compile(r"(https?://)[^\s/\"'<>@?#]*@", re.IGNORECASE)
_EXCERPT = 1_000


def mask(text: str, *secrets: str) -> str:
    """Return the text without URL queries, URL credentials and the given secrets.

    A signed URL's signature is in its query, so the query goes as a whole.
    """
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    return _USERINFO.sub(r"\1***@", _QUERY.sub(r"\1?***", text))


def shown(url: str) -> str:
    """Return the repr of a URL with its query masked."""
    return repr(mask(url))


def excerpt(body: bytes, *secrets: str) -> str:
    """Return the beginning of an answer as masked text."""
    # A secret cut in half by the limit would no longer be recognised: mask first.
    text = mask(body[: 8 * _EXCERPT].decode("utf-8", "replace"), *secrets).strip()
    return text if len(text) <= _EXCERPT else text[:_EXCERPT] + "…"
