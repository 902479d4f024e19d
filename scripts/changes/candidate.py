"""Read a document that may become the contract, from a file or from the web."""

import json
import time
from pathlib import Path
from typing import Any, cast

import httpx
from openapi_spec_validator import validate
from openapi_spec_validator.validation.exceptions import OpenAPIValidationError
from referencing.exceptions import Unresolvable
from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import YAMLError

from changes.document import references

MAX_BYTES, MAX_SECONDS = 10_000_000, 30.0


class BadCandidateError(Exception):
    """Why a document cannot be a contract."""


class _Constructor(SafeConstructor):
    """JSON has no dates, so dates in YAML stay text."""


_Constructor.add_constructor(  # pyright: ignore[reportUnknownMemberType]
    "tag:yaml.org,2002:timestamp",
    SafeConstructor.construct_yaml_str,  # pyright: ignore[reportUnknownMemberType]
)


def read(source: str) -> dict[str, Any]:
    """Read and validate a document."""
    content = _fetch(source) if source.startswith(("http://", "https://")) else _load(Path(source))
    if len(content) > MAX_BYTES:
        raise BadCandidateError(f"the document is larger than {MAX_BYTES // 1_000_000} MB")
    try:
        document = _parse(content.decode())
    except (YAMLError, ValueError, TypeError, RecursionError) as error:
        raise BadCandidateError(f"the document is neither JSON nor YAML: {error}") from None
    version = str(cast("dict[str, Any]", document).get("openapi")) if isinstance(document, dict) else ""
    if not version.startswith("3."):
        raise BadCandidateError("the document is not OpenAPI 3: it has no line `openapi: 3.…`")
    if outside := next((each for each in references(document) if not each.startswith("#")), None):
        raise BadCandidateError(f"the document refers to another one, {outside}; bundle it into one first")
    try:
        validate(cast("dict[str, Any]", document))
    except OpenAPIValidationError as error:
        reason = f"{'/'.join(map(str, error.absolute_path)) or 'the document'}: {_shortened(error.message)}"
    except Unresolvable as error:
        reason = f"it refers to #{getattr(error, 'anchor', error.ref)}, which is not in it"
    except Exception as error:  # noqa: BLE001 - the validator fails on some documents
        reason = _shortened(str(error))
    else:
        return cast("dict[str, Any]", document)
    raise BadCandidateError(f"the document is not valid OpenAPI {version}: {reason}")


def _shortened(reason: str) -> str:
    """Return the first line, without its middle if it is long: it may quote half of the document."""
    line = reason.partition("\n")[0]
    return line if len(line) <= 300 else f"{line[:150]} … {line[-150:]}"


def _load(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadCandidateError(f"{path} cannot be read: {error.strerror}") from None


def _fetch(address: str) -> bytes:
    shown = address.partition("?")[0]  # the query may be a signature
    content, end = b"", time.monotonic() + MAX_SECONDS
    try:
        if httpx.URL(address).userinfo:
            raise BadCandidateError("no credentials are sent: download the document, and pass the file")
        with httpx.stream("GET", address, follow_redirects=True) as response:
            if not response.is_success:
                raise BadCandidateError(f"{shown} answered {response.status_code}")
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > MAX_BYTES:
                    break
                if time.monotonic() > end:
                    raise BadCandidateError(f"{shown} took longer than {MAX_SECONDS:g} s")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise BadCandidateError(f"{shown} cannot be fetched: {type(error).__name__}") from None
    return content


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        yaml = YAML(typ="safe", pure=True)
        yaml.Constructor = _Constructor
        # In JSON every name is text, a status too.
        return json.loads(json.dumps(yaml.load(text)))  # pyright: ignore[reportUnknownMemberType]
