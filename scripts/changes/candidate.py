"""Read a document that may become the contract, from a file or from the web."""

import json
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import httpx
from openapi_spec_validator import validate
from openapi_spec_validator.validation.exceptions import OpenAPIValidationError
from referencing.exceptions import Unresolvable
from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import YAMLError

from techforge._drivers.deadline import guard, until

MAX_BYTES = 10_000_000
MAX_SECONDS = 30.0


class BadCandidateError(Exception):
    """A reason why something is no contract, in words for whoever gave it."""


class _Constructor(SafeConstructor):
    """JSON has no dates, so neither does a contract: they stay the text that they are."""


_Constructor.add_constructor(  # pyright: ignore[reportUnknownMemberType]
    "tag:yaml.org,2002:timestamp",
    SafeConstructor.construct_yaml_str,  # pyright: ignore[reportUnknownMemberType]
)


def read(source: str) -> dict[str, Any]:
    """Read and check a document; what is no contract is refused."""
    text = _fetch(source) if source.startswith(("http://", "https://")) else _load(Path(source))
    try:
        document = _parse(text)
    except (YAMLError, ValueError, TypeError, RecursionError) as error:
        raise BadCandidateError(f"this is neither JSON nor YAML: {error}") from None
    version = _version(document)
    if not version.startswith("3."):
        raise BadCandidateError("this is no OpenAPI 3 document: it has no line `openapi: 3.…`")
    if outside := next((each for each in _references(document) if not each.startswith("#")), None):
        raise BadCandidateError(f"it refers to another document, {outside}; bundle it into one first")
    try:
        validate(document)
    except OpenAPIValidationError as error:
        place = "/".join(map(str, error.absolute_path)) or "the document"
        reason = f"{place}: {_shortened(error.message)}"
    except Unresolvable as error:
        reason = f"it refers to #{getattr(error, 'anchor', error.ref)}, which is not in it"
    except Exception as error:  # noqa: BLE001 - what the validator was not made for
        reason = _shortened(str(error))
    else:
        return cast("dict[str, Any]", document)
    raise BadCandidateError(f"this is not valid OpenAPI {version}: {reason}")


def _shortened(reason: str) -> str:
    """Return the first line without its middle if it is long: it may quote half of the document."""
    line = reason.partition("\n")[0]
    return line if len(line) <= 300 else f"{line[:150]} … {line[-150:]}"


def _load(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadCandidateError(f"{path} cannot be read: {error.strerror}") from None
    return _bounded(content)


def _fetch(address: str) -> bytes:
    shown = address.partition("?")[0]
    content = b""
    try:
        url = httpx.URL(address)
        if url.userinfo:
            raise BadCandidateError("no credentials are sent: fetch the document yourself, and give the file")
        # A timeout of httpx is one for each read, and a server may drip.
        with httpx.Client(timeout=MAX_SECONDS) as client, until(time.monotonic() + MAX_SECONDS):
            guard(client, threading.Event())
            with client.stream("GET", url, follow_redirects=True) as response:
                if not response.is_success:
                    raise BadCandidateError(f"{shown} answered {response.status_code}")
                for chunk in response.iter_bytes():
                    content = _bounded(content + chunk)
    except httpx.TimeoutException:
        raise BadCandidateError(f"{shown} took longer than {MAX_SECONDS:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise BadCandidateError(f"{shown} cannot be fetched: {type(error).__name__}") from None
    return content


def _bounded(content: bytes) -> bytes:
    if len(content) > MAX_BYTES:
        raise BadCandidateError(f"the document is larger than {MAX_BYTES // 1_000_000} MB")
    return content


def _parse(content: bytes) -> Any:
    text = content.decode()
    try:
        return json.loads(text)
    except ValueError:
        yaml = YAML(typ="safe", pure=True)
        yaml.Constructor = _Constructor
        # As JSON it has the names that JSON has: a status is text.
        return json.loads(json.dumps(yaml.load(text)))  # pyright: ignore[reportUnknownMemberType]


def _version(document: Any) -> str:
    return str(cast("dict[str, Any]", document).get("openapi")) if isinstance(document, dict) else ""


def _references(node: Any) -> Iterator[str]:
    children: list[Any] = []
    if isinstance(node, dict):
        fields = cast("dict[str, Any]", node)
        if isinstance(fields.get("$ref"), str):
            yield fields["$ref"]
        children = list(fields.values())
    elif isinstance(node, list):
        children = list(cast("Iterable[Any]", node))
    for child in children:
        yield from _references(child)
