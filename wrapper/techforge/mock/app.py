"""The API server: the operations of the contract."""

import hmac
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NoReturn

from attrs import asdict, frozen
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount
from starlette.types import Receive, Scope, Send

from techforge.mock.contract import (
    Contract,
    ContractBrokenError,
    Operation,
    Problem,
    describe,
    problems,
)
from techforge.mock.gate import BODY_LIMIT, CHALLENGE, raw_path
from techforge.mock.signing import Signer
from techforge.mock.store import Store

_logger = logging.getLogger(__name__)

_JSON = "application/json"


class _RefusedError(Exception):
    """The request is refused."""

    def __init__(self, status: int, *reasons: Problem, message: str = "") -> None:
        super().__init__(message or describe(reasons))
        self.status = status
        self.reasons = reasons

    def body(self) -> dict[str, Any]:
        """Return the body of the response."""
        errors = {"errors": [asdict(reason) for reason in self.reasons]} if self.reasons else {}
        return {"message": str(self), **errors}


@frozen
class _Call:
    """A request that passed all checks of the contract."""

    request: Request
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Any


@frozen(eq=False)
class Api:
    """The operations, and the objects that they use."""

    contract: Contract
    store: Store
    signer: Signer
    storage_url: Callable[[], str]
    api_keys: Sequence[str]

    def app(self, extra_routes: Sequence[BaseRoute] = ()) -> Starlette:
        """Return the application with the contract's paths and `extra_routes`."""
        # No Route: Starlette decodes a path before it matches it, and adds HEAD to GET.
        return Starlette(
            routes=[*extra_routes, Mount("/", _Operations(self))],
            exception_handlers={HTTPException: _http_error},
        )

    async def answer(self, operation: Operation, request: Request) -> Response:
        """Run an operation, and return a response that the contract allows."""
        try:
            call = await self._checked(operation, request)
            status, body = self._carry_out(operation, call)
        except _RefusedError as error:
            status, body = error.status, error.body()
        try:
            operation.check_answer(status, _JSON, body)
        except ContractBrokenError as error:
            _logger.exception("The mock broke the contract")
            status, body = 500, {"message": f"The mock broke the contract: {error}"}
        return JSONResponse(body, status, CHALLENGE if status == HTTPStatus.UNAUTHORIZED else None)

    def _carry_out(self, operation: Operation, call: _Call) -> tuple[int, dict[str, Any]]:
        match operation.id:
            case "createJob":
                job_id = self.store.accept(call.body)
                call.request.state.job_id = job_id
                return 202, {"jobId": job_id, "status": "queued"}
            case "generateSignedPath":
                return self._sign(call.query["path"])
            case other:
                return 501, {"message": f"The mock does not implement {other} yet."}

    def _sign(self, path: str) -> tuple[int, dict[str, Any]]:
        if self.store.find_object(path) is None:
            raise _RefusedError(404, message=f"There is no object {path!r} in storage.")
        signed = self.signer.sign(self.storage_url(), path)
        return 200, {"signedUrl": signed.url, "expiresAt": signed.expires_at}

    async def _checked(self, operation: Operation, request: Request) -> _Call:
        self._check_key(operation, request)
        path = _checked_path(operation, request)
        query = _checked_query(operation, request)
        body = await _checked_body(operation, request) if operation.bodies else None
        return _Call(request, path, query, body)

    def _check_key(self, operation: Operation, request: Request) -> None:
        for header in operation.key_headers:
            sent = request.headers.getlist(header)
            if not sent:
                raise _RefusedError(401, message=f"The {header} header is missing.")
            given = sent[0].encode()
            if len(sent) > 1 or not any(hmac.compare_digest(given, key.encode()) for key in self.api_keys):
                raise _RefusedError(401, message=f"The {header} header contains no valid API key.")


@frozen(eq=False)
class _Operations:
    """The endpoint of all paths."""

    api: Api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = raw_path(scope)
        operation = self.api.contract.find(scope["method"], path)
        if operation is None:
            allow = ", ".join(self.api.contract.methods(path))
            if not allow:
                raise HTTPException(404)
            raise HTTPException(405, f"{scope['path']} allows only {allow}.", {"allow": allow})
        response = await self.api.answer(operation, Request(scope, receive))
        await response(scope, receive, send)


def _checked_path(operation: Operation, request: Request) -> dict[str, str]:
    path = operation.match(raw_path(request.scope)) or {}
    if found := [each for p in operation.path_parameters for each in p.problems(path[p.name])]:
        raise _RefusedError(400, *found)
    return path


def _checked_query(operation: Operation, request: Request) -> dict[str, str]:
    query: dict[str, str] = {}
    found: list[Problem] = []
    for parameter in operation.query:
        values = request.query_params.getlist(parameter.name)
        if len(values) > 1:
            found.append(Problem(parameter.name, f"sent {len(values)} times; only once is allowed"))
        elif values:
            query[parameter.name] = values[0]
            found += parameter.problems(values[0])
        elif parameter.required:
            found.append(Problem(parameter.name, "the query parameter is required"))
    if found:
        raise _RefusedError(400, *found)
    return query


async def _checked_body(operation: Operation, request: Request) -> Any:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    raw = await request.body()
    if not raw and not operation.body_required:
        return None
    if media_type not in operation.bodies:
        expected = " or ".join(operation.bodies)
        raise _RefusedError(
            400, Problem("content-type", f"must be {expected}, not {media_type or 'missing'}")
        )
    if len(raw) > BODY_LIMIT:
        raise _RefusedError(400, Problem("body", f"larger than {BODY_LIMIT} bytes"))
    try:
        body = json.loads(raw.decode(), parse_constant=_no_constant)
        # JSON escapes may contain lone surrogates, but those cannot be encoded.
        json.dumps(body, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise _RefusedError(400, Problem("body", f"not valid JSON: {error}")) from None
    if found := problems(operation.bodies[media_type], body):
        raise _RefusedError(400, *found)
    return body


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


async def _http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for nothing else
    return JSONResponse({"message": error.detail}, error.status_code, error.headers)
