"""What `contract_live.py` asks the live API, derived from openapi.json.

**The money rule.** The service at the other end may ignore keys, ignore its own validation, or have become
another one since openapi.json was written; still no request of the free set may be able to create a job. So:

1. A free request carries no value in its body. The body is missing, broken, empty, or names properties that
   are `null`; neither image nor audio is ever there, nor a job type, nor a project. That goes for the checks
   of the key, too: with a complete body, a service with broken authorization would do it and bill someone.
2. A method that is not safe (RFC 9110, section 9.2.1) is used only where the contract itself refuses a body
   without values. Other operations are not asked at all, and are reported as left out.
3. Methods that the contract does not know are tried where they are safe.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, cast
from uuid import uuid4

from attrs import evolve, field, frozen
from openapi_core import OpenAPI
from openapi_core.testing import MockRequest
from openapi_core.validation.request.exceptions import RequestBodyValidationError

Json = dict[str, Any]

JSON = "application/json"
NOBODYS_KEY = "made-up-by-contract-live"
SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@frozen(kw_only=True)
class Check:
    """One request, what the contract has to say to it, and why it is asked."""

    name: str
    reason: str
    operation: str
    """The operation's id, or none for what the contract does not know."""
    method: str
    path: str
    key: str = "yours"
    """Whose key is sent: yours, nobody's or none."""
    query: Mapping[str, str] = field(factory=dict[str, str])
    body: bytes | None = None
    media_type: str = JSON
    expected: tuple[int, ...] = ()
    """The statuses that the request deserves; none where the contract says nothing."""
    undecided: tuple[int, ...] = ()
    """Statuses that it may also get, but that leave the question open."""

    @property
    def subject(self) -> str:
        """The operation's id, or that there is none."""
        return self.operation or "not in the contract"

    @property
    def sent(self) -> str:
        """The request in one line."""
        query = "".join(f" {name}={value}" for name, value in self.query.items())
        body = f" {self.media_type}: {self.body.decode()}" if self.body is not None else ""
        return f"{self.method} {self.path}{query} (key: {self.key}){body}"

    @property
    def expectation(self) -> str:
        """The statuses that the request deserves, in words."""
        return " or ".join(map(str, self.expected)) or "nothing in particular"

    @property
    def free(self) -> bool:
        """Whether it obeys the money rule."""
        return self.method in SAFE or not carries_value(self.body)


def carries_value(body: bytes | None) -> bool:
    """Tell whether a body holds anything that a job could be made of."""
    try:
        content: object = json.loads(body or b"null")
    except ValueError:
        return re.search(rb"\w", body or b"") is not None
    if isinstance(content, dict):
        return any(value is not None for value in cast("Json", content).values())
    return content not in (None, [])


def free_checks(document: Json, contract: OpenAPI) -> tuple[list[Check], list[str]]:
    """Return the checks that cost nothing and change nothing, and the operations that have to be left out."""
    checks: list[Check] = []
    left_out: list[str] = []
    for path, item in document["paths"].items():
        for method in (method for method in _METHODS if method in item):
            spec: Json = item[method]
            parameters = [*item.get("parameters", ()), *spec.get("parameters", ())]
            base = Check(
                name="",
                reason="",
                operation=spec["operationId"],
                method=method.upper(),
                path=re.sub(r"\{.*?\}", lambda _: str(uuid4()), path),
                query=_made_up_query([resolve(document, parameter) for parameter in parameters]),
            )
            if base.method in SAFE:
                secured, others = base, _without_parameters(base, spec)
            else:
                secured = evolve(base, query={}, body=b"{}", undecided=(400,))
                others = _refused_bodies(secured, _required(document, spec))
                if not all(_is_refused(document, contract, check) for check in others):
                    left_out.append(f"{base.operation} changes something, and may not need a body to do so")
                    continue
            if (document | spec).get("security"):
                checks += _keys(secured)
            checks += others
        checks += [
            Check(
                name=f"{method} {path}",
                reason="the contract does not say whether 404 or 405",
                operation="",
                method=method,
                path=re.sub(r"\{.*?\}", lambda _: str(uuid4()), path),
            )
            for method in ("GET", "HEAD")
            if method.lower() not in item
        ]
    return checks, left_out


def job_check(document: Json, image_url: str, audio_url: str, project_id: str) -> Check:
    """Return the request that costs money: one job, with what the contract requires and no more."""
    path, spec = operation(document, "createJob")
    body = {
        "image_url": image_url,
        "audio_url": audio_url,
        "job_type": "ai_talking_video",
        "project_id": project_id,
    }
    return Check(
        name="a paid job",
        reason="--paid-job asks for it; THIS COSTS MONEY, and is sent once, whatever happens",
        operation=spec["operationId"],
        method="POST",
        path=path,
        body=json.dumps(body).encode(),
        expected=(202,),
    )


def output_check(document: Json, storage_key: str) -> Check:
    """Return the request that signs the paid job's output."""
    path, spec = operation(document, "generateSignedPath")
    return Check(
        name="the paid job's output",
        reason="there is nothing to sign until the job is done",
        operation=spec["operationId"],
        method="GET",
        path=path,
        query={"path": storage_key},
        expected=(200, 404),
    )


def key_header(document: Json) -> str:
    """Return the name of the header that carries the key."""
    schemes: Json = document["components"]["securitySchemes"]
    name: str = next(s["name"] for s in schemes.values() if (s["type"], s["in"]) == ("apiKey", "header"))
    return name


def operation(document: Json, operation_id: str) -> tuple[str, Json]:
    """Return the path of an operation and what the contract says of it."""
    items: dict[str, dict[str, Json]] = document["paths"]
    return next(
        (path, item[method])
        for path, item in items.items()
        for method in _METHODS
        if method in item and item[method]["operationId"] == operation_id
    )


def resolve(document: Json, node: Json) -> Json:
    """Follow references within the document."""
    while "$ref" in node:
        target: Any = document
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node


def _keys(base: Check) -> list[Check]:
    shared = evolve(base, expected=(401,))
    return [
        evolve(shared, name="no key", reason="the contract requires a key", key="none"),
        evolve(shared, name="a wrong key", reason="the contract requires a valid key", key="nobody's"),
    ]


def _without_parameters(base: Check, spec: Json) -> list[Check]:
    checks = [
        evolve(
            base,
            name=f"no {missing}",
            reason=f"the contract requires the parameter {missing}",
            query={name: value for name, value in base.query.items() if name != missing},
            expected=(400,),
        )
        for missing in base.query
    ]
    if "404" in spec["responses"]:
        reason = "the contract says 404 for what does not exist, and these names were made up just now"
        checks.append(evolve(base, name="something unknown", reason=reason, expected=(404,)))
    return checks


def _refused_bodies(base: Check, required: list[str]) -> list[Check]:
    shared = evolve(base, expected=(400,), undecided=())
    nulls = json.dumps(dict.fromkeys(required)).encode()
    return [
        evolve(shared, name="an empty body", reason=f"the contract requires {', '.join(required)}"),
        evolve(shared, name="nothing but nulls", reason="the contract wants values", body=nulls),
        evolve(shared, name="a list for a body", reason="the contract wants an object", body=b"[]"),
        evolve(shared, name="a broken body", reason="it is no JSON", body=b"{"),
        evolve(shared, name="no body", reason="the contract requires one", body=None),
        evolve(shared, name="plain text", reason=f"the contract knows {JSON} only", media_type="text/plain"),
    ]


def _is_refused(document: Json, contract: OpenAPI, check: Check) -> bool:
    """Tell whether the contract refuses the body of a check, whoever sends it, and as what."""
    request = MockRequest(
        document["servers"][0]["url"],
        check.method,
        check.path,
        headers={key_header(document): NOBODYS_KEY},
        data=check.body,
        content_type=JSON,
    )
    return any(isinstance(e, RequestBodyValidationError) for e in contract.iter_request_errors(request))


def _required(document: Json, spec: Json) -> list[str]:
    """Return the properties that the body of an operation must have."""
    content: Json = resolve(document, spec.get("requestBody", {})).get("content", {})
    schema = resolve(document, content.get(JSON, {}).get("schema", {}))
    names: list[str] = schema.get("required", [])
    return names


def _made_up_query(parameters: list[Json]) -> dict[str, str]:
    """Return the required parameters, each like the contract's example, which may exist, with fresh ids."""
    query: dict[str, str] = {}
    for parameter in parameters:
        if parameter["in"] == "query" and parameter.get("required"):
            examples: list[Json] = [
                *parameter.get("examples", {}).values(),
                {"value": "contract-live/unknown"},
            ]
            query[parameter["name"]] = _UUID.sub(lambda _: str(uuid4()), str(examples[0]["value"]))
    return query
