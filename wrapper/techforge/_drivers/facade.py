"""The client that generated code calls, and the errors for responses and failures, for both drivers."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlencode, urlsplit

import httpcore
import httpx
from attrs import define, field

from techforge import _flow
from techforge._drivers.deadline import Deadline
from techforge._drivers.pool import Request
from techforge._drivers.response import ReceivedResponse, UnreadableError, joined_headers
from techforge._logging import log_attempt, logger
from techforge._masking import SecretBytes, excerpt, mask, printable, secrets_in
from techforge._responses import job_in, reason_in
from techforge.errors import (
    GATEWAY,
    APIConnectionError,
    APIError,
    APIResponseError,
    APITimeoutError,
    Outcome,
    TechForgeError,
    status_error,
)
from techforge.policy.retry_after import read_instant, read_retry_after

if TYPE_CHECKING:
    from collections.abc import Mapping

    from techforge_api.types import Response

# A host name that cannot be resolved, in a signed URL or a redirect, raises a UnicodeError.
NETWORK_ERRORS = (
    httpx.HTTPError,
    httpx.StreamError,
    httpx.InvalidURL,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.TimeoutException,
    OSError,
    UnicodeError,
)
PARSER_ERRORS = (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError)
# Another transport may report a connect error after the server has read the request. So httpx's connect
# errors count only if httpcore's own connect error is their cause.
_REPORTED_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
_NOT_SENT = (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.PoolTimeout, httpcore.ProxyError)
_AS_TEXT = {True: "true", False: "false", None: ""}


class _SignedURL(httpx.URL):
    """A URL whose query grants access. Its text, also in httpx's log, has no query."""

    def __str__(self) -> str:
        return mask(super().__str__())

    def __repr__(self) -> str:
        return f"URL({str(self)!r})"


@define
class Reply:
    """The parts of a response that generated code reads."""

    status_code: int
    headers: Mapping[str, str] = field(repr=False)  # a server may echo the key or a URL
    content: SecretBytes

    def json(self) -> Any:
        return json.loads(self.content)

    def job(self) -> tuple[str | None, str | None]:
        """Return the id and the status of the job that the response names."""
        return job_in(self.content, self.headers)


class Facade:
    """The client of generated code for one attempt. The sync and async facades add `request`."""

    raise_on_unexpected_status = False

    def __init__(self, command: _flow.Send) -> None:
        self._command = command
        self._method = ""
        self._path = ""
        self._built = False
        self._signatures: set[str] = set()
        self._reply: Reply | None = None
        self._started = time.monotonic()
        self.deadline = Deadline(self._started + command.timeout)
        self.arguments = {**command.call.arguments, "client": self}

    def get_httpx_client(self) -> Self:
        return self

    def get_async_httpx_client(self) -> Self:
        return self

    def build(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Request:
        """Return the request for the arguments of a generated function."""
        command = self._command
        self._method, self._path = method.upper(), url
        # RFC 3986: do not encode again what generated code has encoded.
        target = quote(url, safe="/%:@!$&'()*+,;=~?")
        if params:
            target += f"?{_query(params)}"
        sent = {"accept": "application/json", "accept-encoding": "identity", **command.headers}
        for name, value in (headers or {}).items():
            sent[name.lower()] = value
        sent["x-api-key"] = command.api_key
        self._signatures = {*secrets_in(json)}
        content = None if json is None else SecretBytes(_dumps(json))
        self._built = True
        return Request(
            self._method,
            command.base_url,
            target,
            [*sent.items()],
            content,
            self.deadline,
            repeatable=command.call.repeatable,
        )

    def accept(self, received: ReceivedResponse) -> Reply:
        """Return the response if generated code may parse it; otherwise raise its error."""
        body = received.content()
        self._reply = reply = Reply(received.status_code, received.headers, body)
        self._log(reply.status_code)
        if 200 <= reply.status_code < 300:
            return reply
        error: APIError = status_error(
            reply.status_code,
            reason_in(body, *self._secrets),
            method=self._method,
            path=self._path,
            request_id=self._request_id,
            retry_after=_retry_after(reply.headers),
            body=excerpt(body, *self._secrets),
        )
        if not self._command.call.repeatable:
            self._mark_possible_job(error, reply)
        raise error

    @staticmethod
    def _mark_possible_job(error: APIError, reply: Reply) -> None:
        """Mark an error that may hide a created job."""
        # An error response may name a job: submitting again would cost twice.
        error.job_id, _ = reply.job()
        redirect = error.status_code is not None and error.status_code < 400
        gateway = error.status_code in GATEWAY
        if gateway:
            error.message = f"a gateway answered {error.message}; the API behind it may have accepted the job"
        if redirect or gateway or (error.job_id is not None and error.outcome is not Outcome.DEFINITIVE):
            error.outcome = Outcome.UNKNOWN

    def parsed(self, response: Response[Any] | None, problem: Exception | None) -> object:
        """Return the result of a generated function. Raise an error if the contract does not allow it."""
        call, reply = self._command.call, self._reply
        if problem is not None and reply is None:
            raise problem
        if response is not None and isinstance(response.parsed, call.returns):
            return response.parsed
        status_code, body = (reply.status_code, reply.content) if reply else (0, SecretBytes())
        reason = type(problem).__name__ if problem else "the contract has no such status"
        error = APIResponseError(
            f"{status_code}: the response cannot be read as {call.returns.__name__} ({reason})",
            outcome=Outcome.UNKNOWN,
            method=self._method,
            path=self._path,
            status_code=status_code,
            request_id=self._request_id,
            body=excerpt(body, *self._secrets),
        )
        if not call.repeatable:
            error.job_id, error.job_status = reply.job() if reply else (None, None)
        raise error

    @staticmethod
    def is_foreign(error: Exception, received: ReceivedResponse) -> bool:
        """Return whether to raise an error unchanged: ours, a hook's, or a bug of a transport."""
        if isinstance(error, TechForgeError):
            return True
        return not (received.not_sent or received.status_code or isinstance(error, NETWORK_ERRORS))

    def error_for(self, error: BaseException, received: ReceivedResponse) -> APIError:
        """Return the error for an attempt without a response, or with an incomplete one."""
        if not received.status_code:
            self._log(type(error).__name__)
            failure = no_response_error(
                error, method=self._method, path=self._path, host=self._host, not_sent=received.not_sent
            )
            if self._built and failure.outcome is Outcome.DEFINITIVE:
                # It was not our URL: httpx also parses the target of a redirect that it does not follow.
                failure.outcome = Outcome.UNKNOWN
            return failure
        with suppress(UnreadableError):
            received.decode()  # what has arrived may name a job
        if not 200 <= received.status_code < 300:
            # The status decides; the rest of the response is lost.
            try:
                self.accept(received)
            except APIError as refusal:
                return refusal
        begun = received.content()
        self._reply = Reply(received.status_code, received.headers, begun)
        self._log(f"{received.status_code}, {type(error).__name__}")
        failure = no_response_error(error, method=self._method, path=self._path, host=self._host)
        failure.status_code, failure.request_id = received.status_code, self._request_id
        failure.body = excerpt(begun, *self._secrets)
        if not self._command.call.repeatable:
            failure.job_id, _ = self._reply.job()
        return failure

    @property
    def _host(self) -> str:
        parts = urlsplit(self._command.base_url)
        return parts.netloc if parts.port else f"{parts.netloc}:{443 if parts.scheme == 'https' else 80}"

    @property
    def _secrets(self) -> list[str]:
        """What a response may quote: the key, and the signatures in the URLs of a submission."""
        return [self._command.api_key, *sorted(self._signatures, key=len, reverse=True)]

    @property
    def _request_id(self) -> str | None:
        request_id = self._reply.headers.get("x-request-id") if self._reply else None
        return None if request_id is None else printable(mask(request_id, *self._secrets))

    def _log(self, result: object) -> None:
        log_attempt(
            self._method,
            self._path,
            result,
            attempt=self._command.attempt,
            seconds=time.monotonic() - self._started,
            request_id=self._request_id,
        )


def _query(params: Mapping[str, Any]) -> str:
    """Return a query with the values that httpx would send, encoded as RFC 6570 requires."""
    pairs: list[tuple[str, object]] = []
    for name, value in params.items():
        values: list[object] = [*value] if isinstance(value, list | tuple) else [value]
        pairs += [(name, _AS_TEXT[v] if v is None or isinstance(v, bool) else v) for v in values]
    return urlencode(pairs, quote_via=quote, safe="")


def _dumps(value: object) -> bytes:
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def _retry_after(headers: Mapping[str, str]) -> float | None:
    value = headers.get("retry-after")
    now = read_instant(headers.get("date")) or datetime.now(UTC)
    seconds = read_retry_after(value, now)
    if value is not None and seconds is None:
        _log_ignored_retry_after()
    return seconds


@cache  # once in a process: every response may have this header
def _log_ignored_retry_after() -> None:
    # Do not log the value: a server may echo the key.
    logger.info("a Retry-After is ignored, because it is not a time within 24 hours; normal backoff applies")


def no_response_error(
    error: BaseException, *, method: str, path: str, host: str = "storage", not_sent: bool = False
) -> APIError:
    """Return the error for a request without a response. Its outcome depends on the cause."""
    cls: type[APIError] = APIConnectionError
    problem, outcome = f"the connection to {host} broke", Outcome.UNKNOWN
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        problem, outcome = "a URL that cannot be requested", Outcome.DEFINITIVE
    elif (
        not_sent
        or isinstance(error, _NOT_SENT)
        or (isinstance(error, _REPORTED_NOT_SENT) and isinstance(error.__cause__, _NOT_SENT))
    ):
        problem, outcome = f"cannot connect to {host}", Outcome.NOT_SENT
    if isinstance(error, httpx.TimeoutException | httpcore.TimeoutException | TimeoutError):
        cls, problem = APITimeoutError, f"no response in time from {host}"
    elif isinstance(error, UnreadableError):
        cls, problem = APIResponseError, "an unreadable response"
    detail = printable(mask(str(error)))
    return cls(
        f"{problem} ({type(error).__name__}{': ' + detail if detail else ''})",
        outcome=outcome,
        method=method,
        path=path,
    )


def storage_request(command: _flow.Open) -> httpx.Request:
    """Return the request for a signed URL."""
    url = _SignedURL(command.url)
    headers = {"accept": "*/*", "accept-encoding": "identity", **command.headers}
    request = httpx.Request("GET", url, headers=headers)
    # The constructor has converted it to a plain URL.
    request.url = url
    return request


def opened(request: httpx.Request, response: httpcore.Response, started: float) -> _flow.Opened:
    """Return the status and headers of a response of storage, and log it."""
    headers = joined_headers(response.headers)
    request_id = printable(mask(headers.get("x-request-id", ""), request.url.query.decode("ascii")))
    log_attempt(
        "GET",
        f"{origin(request.url)}{request.url.path}",
        response.status,
        attempt=1,
        seconds=time.monotonic() - started,
        request_id=request_id,
    )
    return _flow.Opened(response.status, headers, _retry_after(headers))


def origin(url: httpx.URL) -> str:
    """Return a URL without its path."""
    return f"{url.scheme}://{url.netloc.decode('ascii')}"
