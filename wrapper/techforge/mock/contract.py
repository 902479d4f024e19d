"""The contract: openapi.json in the form in which the mock enforces it."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from attrs import field, frozen
from jsonschema_rs import Draft202012Validator
from starlette.routing import compile_path

_Json = dict[str, Any]

_METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_EXPRESSION = re.compile(r"\{\$(request|response)\.body#/(\w+)\}")


class ContractBrokenError(Exception):
    """The mock was about to send a response that the contract does not allow."""


@frozen
class Problem:
    """One reason why a value is not valid."""

    field: str
    message: str


@frozen
class Parameter:
    """A query parameter."""

    name: str
    required: bool
    schema: Draft202012Validator


@frozen
class Operation:
    """One operation of the contract."""

    id: str
    method: str
    path: str
    key_headers: tuple[str, ...]
    query: tuple[Parameter, ...]
    bodies: Mapping[str, Draft202012Validator]
    body_required: bool
    answers: Mapping[str, Mapping[str, Draft202012Validator]]
    output_path: str | None
    """The storage key of the output as a template of runtime expressions, if a link defines it."""
    matches: Callable[[str], object] = field(repr=False, eq=False)

    def serves(self, path: str) -> bool:
        """Return whether this operation serves `path`."""
        return self.matches(path) is not None

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

    def find(self, method: str, path: str) -> Operation | None:
        """Return the operation of a request, or None."""
        return next((o for o in self.operations if o.method == method and o.serves(path)), None)

    def methods(self, path: str) -> list[str]:
        """Return the methods that a path allows; an unknown path has none."""
        return [operation.method for operation in self.operations if operation.serves(path)]

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
    parameters = [_resolve(document, parameter) for parameter in spec.get("parameters", [])]
    links = [
        _resolve(document, link) for answer in answers.values() for link in answer.get("links", {}).values()
    ]
    return Operation(
        id=spec["operationId"],
        method=method.upper(),
        path=path,
        # The security of an operation overrides that of the document.
        key_headers=_key_headers(document, (document | spec).get("security", [])),
        query=tuple(
            Parameter(p["name"], p.get("required", False), _schema(document, p["schema"]))
            for p in parameters
            if p["in"] == "query"
        ),
        bodies=_schemas(document, body),
        body_required=body.get("required", False),
        answers={status: _schemas(document, answer) for status, answer in answers.items()},
        output_path=next(
            (link["parameters"]["path"] for link in links if "path" in link["parameters"]), None
        ),
        matches=compile_path(path)[0].match,
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
