"""The contract: openapi.json in the form in which the mock enforces it."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from attrs import field, frozen
from jsonschema_rs import Draft202012Validator

_Json = dict[str, Any]

_METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_EXPRESSION = re.compile(r"\{\$(request|response)\.body#/(\w+)\}")
_PARAMETER = re.compile(r"\{([^{}]+)\}")


class ContractBrokenError(Exception):
    """The mock was about to send a response that the contract does not allow."""


@frozen
class Problem:
    """One reason why a value is not valid."""

    field: str
    message: str


@frozen
class Parameter:
    """A parameter in the path or in the query."""

    name: str
    required: bool
    schema: Draft202012Validator
    is_text: bool

    def problems(self, text: str) -> list[Problem]:
        """Return all problems of a value."""
        value: object = text
        if not self.is_text:
            with suppress(ValueError):
                value = json.loads(text)
        return [Problem(self.name, problem.message) for problem in problems(self.schema, value)]


@frozen
class Operation:
    """One operation of the contract."""

    id: str
    method: str
    path: str
    key_headers: tuple[str, ...]
    query: tuple[Parameter, ...]
    path_parameters: tuple[Parameter, ...]
    bodies: Mapping[str, Draft202012Validator]
    body_required: bool
    answers: Mapping[str, Mapping[str, Draft202012Validator]]
    output_path: str | None
    """The storage key of the output as a template of runtime expressions, if a link defines it."""
    match: Callable[[str], dict[str, str] | None] = field(repr=False, eq=False)
    """Returns the path parameters of a path as it was sent, or None if this operation does not serve it."""

    def check_answer(self, status: int, media_type: str, body: object) -> None:
        """Raise a `ContractBrokenError` if the contract does not allow this response."""
        answer = self.answers.get(str(status)) or self.answers.get(f"{status // 100}XX")
        if answer is None:
            raise ContractBrokenError(f"{self.id} has no response with status {status}")
        if media_type not in answer:
            raise ContractBrokenError(f"{self.id} has no {media_type} response with status {status}")
        if found := problems(answer[media_type], body):
            raise ContractBrokenError(f"{self.id}, status {status}: {describe(found)}")


@frozen
class Contract:
    """All operations of one OpenAPI document."""

    operations: tuple[Operation, ...]

    @property
    def key_headers(self) -> set[str]:
        """All headers for API keys, in lower case."""
        return {name for operation in self.operations for name in operation.key_headers}

    def find(self, method: str, raw_path: str) -> Operation | None:
        """Return the operation of a request, or None."""
        return next((o for o in self._at(raw_path) if o.method == method), None)

    def methods(self, raw_path: str) -> list[str]:
        """Return the methods that a path allows; an unknown path has none."""
        return [operation.method for operation in self._at(raw_path)]

    def _at(self, raw_path: str) -> list[Operation]:
        found = [operation for operation in self.operations if operation.match(raw_path) is not None]
        # `/jobs/v2` comes before `/jobs/{id}`, whichever methods they have (OpenAPI 3.1, Paths Object).
        path = min((operation.path for operation in found), key=lambda path: path.count("{"), default="")
        return [operation for operation in found if operation.path == path]

    def output_path(self, request: Mapping[str, Any], answer: Mapping[str, Any]) -> str:
        """Return the storage key that the contract's link derives from a job's request and response."""
        template = next(o.output_path for o in self.operations if o.output_path)
        bodies = {"request": request, "response": answer}
        return _EXPRESSION.sub(lambda match: str(bodies[match[1]][match[2]]), template)


@cache
def contract() -> Contract:
    """Read openapi.json from the package, or from the root of a checkout."""
    packaged = files("techforge") / "openapi.json"
    source = packaged if packaged.is_file() else Path(__file__).resolve().parents[3] / "openapi.json"
    return read(json.loads(source.read_text("utf-8")))


def read(document: _Json) -> Contract:
    """Return the contract of an OpenAPI document."""
    return Contract(
        tuple(
            _operation(document, path, method, item[method])
            for path, item in document["paths"].items()
            for method in _METHODS
            if method in item
        )
    )


def problems(schema: Draft202012Validator, value: object) -> list[Problem]:
    """Return all problems of a value."""
    return [
        Problem(
            # A missing property is reported at the object that should have it.
            ".".join(map(str, error.instance_path)) or error.kind.as_dict().get("property", "body"),
            error.message,
        )
        for error in schema.iter_errors(value)
    ]


def describe(found: Iterable[Problem]) -> str:
    """Return the problems as one line of text."""
    return "; ".join(f"{problem.field}: {problem.message}" for problem in found)


def _operation(document: _Json, path: str, method: str, spec: _Json) -> Operation:
    body = _resolve(document, spec.get("requestBody", {}))
    answers = {status: _resolve(document, answer) for status, answer in spec["responses"].items()}
    shared = document["paths"][path].get("parameters", [])
    parameters = [_resolve(document, parameter) for parameter in (*shared, *spec.get("parameters", []))]
    links = [
        _resolve(document, link) for answer in answers.values() for link in answer.get("links", {}).values()
    ]

    def parameters_in(place: str) -> tuple[Parameter, ...]:
        return tuple(_parameter(document, each) for each in parameters if each["in"] == place)

    return Operation(
        id=spec["operationId"],
        method=method.upper(),
        path=path,
        # The security of an operation overrides that of the document.
        key_headers=_key_headers(document, (document | spec).get("security", [])),
        query=parameters_in("query"),
        path_parameters=parameters_in("path"),
        bodies=_schemas(document, body),
        body_required=body.get("required", False),
        answers={status: _schemas(document, answer) for status, answer in answers.items()},
        output_path=next(
            (link["parameters"]["path"] for link in links if "path" in link["parameters"]), None
        ),
        match=_matcher(path),
    )


def _matcher(template: str) -> Callable[[str], dict[str, str] | None]:
    """Return a function that reads the parameters out of a path."""
    names = _PARAMETER.findall(template)
    # An even part is literal, an odd one the name of a parameter.
    parts = [
        [re.escape(part) if at % 2 == 0 else "(.+)" for at, part in enumerate(_PARAMETER.split(segment))]
        for segment in template.split("/")
    ]
    patterns = [re.compile("".join(part), re.DOTALL) for part in parts]

    def match(raw_path: str) -> dict[str, str] | None:
        # Split first: an encoded slash separates nothing (RFC 3986, section 2.2).
        segments = [unquote(segment) for segment in raw_path.split("/")]
        if len(segments) != len(patterns):
            return None
        found = [pattern.fullmatch(segment) for pattern, segment in zip(patterns, segments, strict=True)]
        if not all(found):
            return None
        return dict(zip(names, (value for each in found if each for value in each.groups()), strict=True))

    return match


def _parameter(document: _Json, spec: _Json) -> Parameter:
    schema = _resolve(document, spec["schema"])
    return Parameter(
        name=spec["name"],
        required=spec.get("required", False),
        schema=_schema(document, schema),
        is_text=schema.get("type", "string") == "string",
    )


def _resolve(document: _Json, node: _Json) -> _Json:
    while "$ref" in node:
        target: Any = document
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part.replace("~1", "/").replace("~0", "~")]
        node = target
    return node


def _schemas(document: _Json, node: _Json) -> dict[str, Draft202012Validator]:
    return {media: _schema(document, spec["schema"]) for media, spec in node.get("content", {}).items()}


def _schema(document: _Json, schema: _Json) -> Draft202012Validator:
    # References need the components.
    return Draft202012Validator(schema | {"components": document["components"]}, validate_formats=True)


def _key_headers(document: _Json, security: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    schemes = [document["components"]["securitySchemes"][name] for choice in security for name in choice]
    return tuple(s["name"].lower() for s in schemes if s["type"] == "apiKey" and s["in"] == "header")
