"""Local checks of arguments that form a URL or cost money. The server checks the rest."""

import ipaddress
import json
import math
import os
import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from typing import cast
from urllib.parse import unquote, urlsplit
from uuid import UUID

from techforge._masking import as_typed
from techforge.errors import InvalidArgumentError

_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})  # the drivers connect to these without a proxy
# No public DNS server knows these: RFC 6761 and 8375, RFC 6762 with its appendix G, and ICANN's choice of
# "internal" for private use.
_PRIVATE_SUFFIXES = (
    *(".localhost", ".test", ".home.arpa", ".local", ".internal"),
    *(".intranet", ".private", ".corp", ".home", ".lan"),
)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # two letters or more: a single letter is a Windows drive
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]*|\d+", re.ASCII)


def _has_no_blanks(text: str) -> bool:
    # isprintable() is False for lone surrogates, which JSON may contain, and for all blanks except the space.
    return text.isprintable() and " " not in text


def is_loopback(host: str | None) -> bool:
    """Return whether a host is this machine, where plain http is no risk."""
    return host in _LOOPBACK


def http_url(field: str, url: object) -> str:
    """Return the URL if it is an absolute http(s) URL with a host."""
    fix = "give an absolute URL such as https://cdn.example.com/file"
    if not isinstance(url, str):
        raise InvalidArgumentError(field, f"must be a str, not {type(url).__name__}; {fix}")
    try:
        parts = urlsplit(_without_query(url))
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or not _has_no_blanks(url):
        raise InvalidArgumentError(field, f"is not an absolute http(s) URL with a host; {fix}")
    return url


def _without_query(url: str) -> str:
    """Return a URL for a variable: tracebacks show variables, and the query may have a signature."""
    return url.partition("#")[0].partition("?")[0]


def media_url(field: str, url: object, *, allow_private: bool) -> str:
    """Return the URL if the API can fetch it from the internet, or from anywhere with `allow_private`."""
    if is_path(url):
        raise InvalidArgumentError(field, path_problem(url))
    checked = http_url(field, url)
    host = urlsplit(checked).hostname or ""
    if not allow_private and is_private_host(host):
        raise InvalidArgumentError(
            field,
            f"{host} is this machine or in a private network. The API fetches media from the internet, so it "
            "cannot reach this host, and API v1.0.0 does not report that the job fails. Upload the file to a "
            "bucket or your website and pass its URL. If your API can reach this host, pass "
            "allow_private_media=True",
        )
    return checked


def is_path(value: object) -> bool:
    """Return whether a value is a path on this machine instead of a URL."""
    if not isinstance(value, str):
        return isinstance(value, os.PathLike)
    scheme = _SCHEME.match(value)
    return bool(value) and (scheme is None or scheme[0].lower() == "file:")


def path_problem(value: object) -> str:
    """Return the message for a path that was passed as a URL."""
    name = as_typed(str(value))
    return (
        f"{name!r} is a path, not a URL that begins with https://. The API fetches media from the "
        "internet and cannot read files on this machine. Upload the file to a bucket or your website and "
        "pass its URL, for example a signed URL"
    )


@lru_cache(maxsize=1024)
def is_private_host(host: str) -> bool:
    """Return whether the name or address of a host is private. This does not resolve names.

    >>> [is_private_host(host) for host in ("10.0.0.7", "0x7f.1", "minio", "nas.local", "cdn.example.com")]
    [True, True, True, True, False]
    """
    # Normalize the host as browsers and curl do before they resolve it.
    host = unicodedata.normalize("NFKC", unquote(host)).replace("\u3002", ".").lower().rstrip(".")
    address = _address(host.strip("[]").partition("%")[0])
    if address is None:
        return "." not in host or host.endswith(_PRIVATE_SUFFIXES)
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None and address.is_site_local:
            return True
        address = address.ipv4_mapped or address
    return not address.is_global or address.is_multicast or address.is_reserved


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return a host as an address, in any notation of `inet_aton`, for example 127.1 or 0x7f000001."""
    try:
        if ":" in host:
            return ipaddress.IPv6Address(host)
        *first, last = map(_number, host.split("."))
        if len(first) > 3 or any(part > 255 for part in first):
            return None
        rest = 4 - len(first)
        return ipaddress.IPv4Address(bytes(first) + last.to_bytes(rest, "big"))
    except (ValueError, OverflowError):
        return None


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise ValueError
    if text[:2].lower() == "0x":
        return int(text[2:] or "0", 16)
    return int(text, 8 if text.startswith("0") else 10)


def secure_url(field: str, url: object, *, allow_http: bool) -> str:
    """Return the URL if it is https, or http to this machine, or any http(s) URL with `allow_http`."""
    checked = http_url(field, url)
    parts = urlsplit(checked)
    if parts.scheme == "http" and not allow_http and not is_loopback(parts.hostname):
        raise InvalidArgumentError(
            field,
            f"is plain http to {parts.hostname}; use https, or create the client with allow_http=True",
        )
    return checked


def uuid(field: str, value: object) -> UUID:
    """Return the value as a UUID."""
    try:
        return value if isinstance(value, UUID) else UUID(str(value))
    except ValueError:
        raise InvalidArgumentError(
            field, f"{as_typed(value)!r} is not a UUID; give one such as 468ea7a0-66e1-4357-a760-236e54167f3e"
        ) from None


def storage_path(field: str, path: object) -> str:
    """Return the storage key if it is relative, without dot segments and control characters."""
    fix = "pass a key such as ai-talking-videos/{project_id}/outputs/{job_id}.mp4"
    if not isinstance(path, str) or not path:
        raise InvalidArgumentError(field, f"must be a non-empty str; {fix}")
    try:
        path.encode()
    except UnicodeEncodeError:
        raise InvalidArgumentError(field, f"cannot be encoded as UTF-8; {fix}") from None
    if _CONTROLS.search(path):
        raise InvalidArgumentError(field, f"contains a control character; {fix}")
    if any(segment in {"", ".", ".."} for segment in path.split("/")):
        raise InvalidArgumentError(field, f"{as_typed(path)!r} has an empty, '.' or '..' segment; {fix}")
    return path


def positive(field: str, value: object, unit: str) -> float:
    """Return the value if it is a positive number. Infinity is allowed."""
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value) or value <= 0:
        raise InvalidArgumentError(field, f"must be a positive number of {unit}, not {value!r}")
    return float(value)


def seconds(field: str, value: object) -> float:
    """Return the value if it is a positive duration in seconds. Infinity is allowed."""
    return positive(field, value, "seconds")


def count(field: str, value: object, minimum: int = 0) -> int:
    """Return the value if it is a whole number, at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise InvalidArgumentError(field, f"must be a whole number, at least {minimum}, not {value!r}")
    return value


def json_value(field: str, value: object) -> None:
    """Raise an error if the value cannot be sent as JSON (RFC 8259)."""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgumentError(field, f"cannot be sent as JSON: {error}") from None


_RESERVED_HEADERS = frozenset(
    {"x-api-key", "host", "content-length", "content-type", "transfer-encoding", "connection"}
)


def headers(field: str, values: Mapping[str, str]) -> dict[str, str]:
    """Return additional headers with names in lower case, after checking them (RFC 9110, section 5.1)."""
    checked: dict[str, str] = {}
    for name, value in values.items():
        if not isinstance(cast("object", name), str) or not isinstance(cast("object", value), str):
            raise InvalidArgumentError(field, f"{name!r}: names and values must be str")
        lower = name.lower()
        if lower in _RESERVED_HEADERS:
            raise InvalidArgumentError(field, f"{name!r} is set by the client itself")
        if not lower or not all(c.isascii() and (c.isalnum() or c in "!#$%&'*+-.^_`|~") for c in lower):
            raise InvalidArgumentError(field, f"{name!r} is not a header name")
        if not all(" " <= character <= "~" or character == "\t" for character in value):
            raise InvalidArgumentError(
                field, f"the value of {name!r} contains a character that headers cannot have"
            )
        checked[lower] = value.strip(" \t")  # not part of a value; h11 refuses to send it
    return checked
