"""What generated code takes for its client, and what both drivers make of answers and failures."""

from __future__ import annotations

import json
import time
import zlib
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlencode

import httpcore
import httpx
from attrs import frozen

from techforge import _flow
from techforge._answers import job_in, reason_in
from techforge._drivers.deadline import remaining
from techforge._logging import log_attempt
from techforge._masking import SecretBytes, excerpt, mask
from techforge.errors import (
    APIConnectionError,
    APIError,
    APIResponseError,
    APITimeoutError,
    Outcome,
    status_error,
)
from techforge.policy.retry_after import read_instant, read_retry_after

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from techforge_api.types import Response

MAX_ANSWER = 1 << 20
"""Bytes of an API answer that are read; the contract's answers have a few hundred."""

LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=100)
# Nor does anything for this machine go over a proxy: plain http is allowed there because nobody is between.
DIRECT: dict[str, None] = dict.fromkeys(("all://localhost", "all://127.0.0.1", "all://[::1]"))
# A UnicodeError is what a host's name brings that cannot be looked up, be it in a signed URL or a redirect.
NETWORK_ERRORS = (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, OSError, UnicodeError)
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError)
# Another transport may call "connect error" what happened after the server had read the request, so the
# word of httpx counts only where httpcore says the same.
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
_NEVER_SENT_CAUSE = (
    httpcore.ConnectError,
    httpcore.ConnectTimeout,
    httpcore.PoolTimeout,
    httpcore.ProxyError,
)
CLOSED = "this client is closed; build a new one"


@cache
def tls_context() -> ssl.SSLContext:
    # Building one costs more than building the rest of a client, so all clients share it.
    return httpx.create_ssl_context()


class _SignedURL(httpx.URL):
    """A URL whose query grants access: whoever prints it, httpx's own log lines too, prints no query."""

    def __str__(self) -> str:
        return mask(super().__str__())

    def __repr__(self) -> str:
        return f"URL({str(self)!r})"


class _Timeouts(dict[str, float]):
    """The timeouts of one request, asked for phase by phase: each phase gets what is left of the whole."""

    def __init__(self, deadline: float) -> None:
        # A transport of the user's may add them up instead.
        super().__init__(dict.fromkeys(("connect", "read", "write", "pool"), remaining(deadline)))
        self._deadline = deadline

    def __getitem__(self, _phase: str) -> float:
        return remaining(self._deadline)

    def get(self, phase: str, _default: object = None) -> float:
        return self[phase]


@frozen
class Reply:
    """What generated code reads of a response."""

    status_code: int
    headers: httpx.Headers
    content: SecretBytes

    def json(self) -> Any:
        return json.loads(self.content)


class Facade:
    """What generated code takes for its client, for one attempt; the colours add `request`."""

    raise_on_unexpected_status = False

    def __init__(self, command: _flow.Send, *, ours: bool = False) -> None:
        self._command = command
        self._alone = ours and not command.call.repeatable
        self._method = ""
        self._path = ""
        self._built = False
        self._reply: Reply | None = None
        self._started = time.monotonic()
        self.deadline = self._started + command.timeout
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
    ) -> httpx.Request:
        """Return the request for what a generated function wants sent."""
        self._method, self._path = method.upper(), url
        query = f"?{urlencode(params, quote_via=quote, safe='')}" if params else ""
        request = httpx.Request(
            self._method,
            f"{self._command.base_url}{url}{query}",
            headers={
                "accept": "application/json",
                "accept-encoding": "identity",
                # Else the connection is idle for a moment, and httpcore's pool gives it to another.
                **({"connection": "close"} if self._alone else {}),
                **self._command.headers,
                **(headers or {}),
                "x-api-key": self._command.api_key,
            },
            content=None if json is None else _dumps(json),
            extensions={"timeout": _Timeouts(self.deadline)},
        )
        self._built = True
        return request

    def accept(self, response: httpx.Response, body: SecretBytes) -> Reply:
        """Return what generated code may parse; raise what it may not."""
        self._reply = reply = Reply(response.status_code, response.headers, body)
        self._log(reply.status_code)
        if 200 <= reply.status_code < 300:
            return reply
        error: APIError = status_error(
            reply.status_code,
            reason_in(body, self._command.api_key),
            method=self._method,
            path=self._path,
            request_id=self._request_id,
            retry_after=_retry_after(reply.headers),
            body=excerpt(body, self._command.api_key),
        )
        if not self._command.call.repeatable:
            self._doubt(error, body)
        raise error

    @staticmethod
    def _doubt(error: APIError, body: bytes) -> None:
        """Take an error for what it may hide: a job that was created all the same."""
        # It failed, and yet it may speak of a job: to submit again would be to pay twice.
        error.job_id, _ = job_in(body)
        redirect = error.status_code is not None and error.status_code < 400
        if redirect or (error.job_id is not None and error.outcome is not Outcome.DEFINITIVE):
            error.outcome = Outcome.UNKNOWN

    def parsed(self, answer: Response[Any] | None, problem: Exception | None) -> object:
        """Return what a generated function has parsed; raise where that is not what the contract says."""
        call, reply = self._command.call, self._reply
        if problem is not None and reply is None:
            raise problem
        if answer is not None and isinstance(answer.parsed, call.returns):
            return answer.parsed
        status_code, body = (reply.status_code, reply.content) if reply else (0, SecretBytes())
        reason = type(problem).__name__ if problem else "the contract has no such status"
        error = APIResponseError(
            f"{status_code}: the answer cannot be read as {call.returns.__name__} ({reason})",
            outcome=Outcome.UNKNOWN,
            method=self._method,
            path=self._path,
            status_code=status_code,
            request_id=self._request_id,
            body=excerpt(body, self._command.api_key),
        )
        if not call.repeatable:
            error.job_id, error.job_status = job_in(body)
        raise error

    def broken(self, error: Exception, response: httpx.Response | None, body: Body) -> APIError:
        """Return the error for an attempt whose answer did not come, or not to its end."""
        if response is None:
            self._log(type(error).__name__)
            failure = no_answer(error, method=self._method, path=self._path)
            if self._built and failure.outcome is Outcome.DEFINITIVE:
                # It was not our URL: httpx looks at a redirect's, too, though it does not follow it.
                failure.outcome = Outcome.UNKNOWN
            return failure
        begun = body.content()
        if not 200 <= response.status_code < 300:
            # The status has said it; what else the answer would have told is lost.
            try:
                self.accept(response, begun)
            except APIError as refusal:
                return refusal
        self._reply = Reply(response.status_code, response.headers, begun)
        self._log(f"{response.status_code}, {type(error).__name__}")
        failure = no_answer(error, method=self._method, path=self._path)
        failure.status_code, failure.request_id = response.status_code, self._request_id
        failure.body = excerpt(begun, self._command.api_key)
        if not self._command.call.repeatable:
            failure.job_id, _ = job_in(begun)
        return failure

    @property
    def _request_id(self) -> str | None:
        return self._reply.headers.get("x-request-id") if self._reply else None

    def _log(self, result: object) -> None:
        log_attempt(
            self._method,
            self._path,
            result,
            attempt=self._command.attempt,
            seconds=time.monotonic() - self._started,
            request_id=self._request_id,
        )


def _dumps(value: object) -> bytes:
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def _retry_after(headers: httpx.Headers) -> float | None:
    now = read_instant(headers.get("date")) or datetime.now(UTC)
    return read_retry_after(headers.get("retry-after"), now)


def no_answer(error: Exception, *, method: str, path: str) -> APIError:
    """Return the error for a request that brought no answer, by what may have happened to it."""
    cls: type[APIError] = APIConnectionError
    problem, outcome = "the connection broke", Outcome.UNKNOWN
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        problem, outcome = "a URL that cannot be requested", Outcome.DEFINITIVE
    elif isinstance(error, _NEVER_SENT) and isinstance(error.__cause__, _NEVER_SENT_CAUSE):
        problem, outcome = "cannot connect", Outcome.NOT_SENT
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        cls, problem = APITimeoutError, "no answer in time"
    elif isinstance(error, _UnreadableError):
        cls, problem = APIResponseError, "an answer that cannot be read"
    detail = mask(str(error))
    return cls(
        f"{problem} ({type(error).__name__}{': ' + detail if detail else ''})",
        outcome=outcome,
        method=method,
        path=path,
    )


class _UnreadableError(OSError):
    """An answer that is too long, or packed in an unknown way."""


class Body:
    """The bytes of an answer, bounded in number and, since a transport of the user's may not be, in time."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._chunks: list[bytes] = []
        self._size = 0

    # Loops of their own: in the caller's frame, a traceback would show the last chunk.

    def read(self, response: httpx.Response) -> None:
        """Read the answer to its end."""
        if self._taken(response):
            return
        for chunk in response.iter_raw():
            self._add(chunk)
        self._unpack(response.headers.get("content-encoding", "identity"))

    async def aread(self, response: httpx.Response) -> None:
        """Read the answer to its end."""
        if self._taken(response):
            return
        async for chunk in response.aiter_raw():
            self._add(chunk)
        self._unpack(response.headers.get("content-encoding", "identity"))

    def _taken(self, response: httpx.Response) -> bool:
        """Take an answer that a hook or a transport of the user's has read before us, and unpacked."""
        if response.is_stream_consumed:
            self._add(response.content)
        return response.is_stream_consumed

    def _add(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > MAX_ANSWER:
            raise _UnreadableError(f"more than {MAX_ANSWER} bytes")
        self._chunks.append(chunk)
        if time.monotonic() > self._deadline:
            raise TimeoutError("the deadline passed")

    def _unpack(self, encoding: str) -> None:
        """Undo a compression that was not asked for, since the answer may name a paid job; bounded, too."""
        if encoding == "identity":
            return
        if encoding not in {"gzip", "deflate"}:
            raise _UnreadableError(f"content-encoding {encoding[:50]!r}")
        try:
            plain = zlib.decompressobj(wbits=47).decompress(self.content(), MAX_ANSWER)
        except zlib.error as error:
            raise _UnreadableError(str(error)) from None
        self._chunks = [plain]

    def content(self) -> SecretBytes:
        """Return what has been read."""
        return SecretBytes(b"".join(self._chunks))


def storage_request(command: _flow.Open) -> httpx.Request:
    """Return the request for a signed URL."""
    request = httpx.Request(
        "GET",
        command.url,
        headers={"accept": "*/*", "accept-encoding": "identity", **command.headers},
        extensions={"timeout": _Timeouts(time.monotonic() + command.timeout)},
    )
    # The constructor would have made a plain URL of it.
    request.url = _SignedURL(command.url)
    return request


def opened(response: httpx.Response, started: float) -> _flow.Opened:
    """Return the head of an answer of storage, and log it."""
    url = response.request.url
    log_attempt(
        "GET",
        f"{url.scheme}://{url.netloc.decode('ascii')}{url.path}",
        response.status_code,
        attempt=1,
        seconds=time.monotonic() - started,
        request_id=response.headers.get("x-request-id"),
    )
    headers = {name.lower(): value for name, value in response.headers.items()}
    return _flow.Opened(response.status_code, headers, _retry_after(response.headers))
