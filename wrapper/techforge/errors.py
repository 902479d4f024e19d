"""Every error that the SDK raises.

    TechForgeError
    ├── ConfigurationError (ValueError)      a client cannot be built, or is closed
    ├── InvalidArgumentError (ValueError)    a call is wrong; nothing was sent
    ├── APIError
    │   ├── APIConnectionError               no answer
    │   │   └── APITimeoutError
    │   ├── APIStatusError                   an answer that says no
    │   │   ├── BadRequestError              400
    │   │   ├── AuthenticationError          401
    │   │   ├── PermissionDeniedError        403
    │   │   ├── NotFoundError                404
    │   │   ├── ConflictError                409
    │   │   ├── UnprocessableEntityError     422
    │   │   ├── RateLimitError               429
    │   │   └── InternalServerError          5xx
    │   └── APIResponseError                 an answer that cannot be read
    ├── JobError
    │   ├── JobFailedError                   the tracker says that the job failed
    │   ├── JobTimeoutError (TimeoutError)   not done in time; waiting can go on
    │   └── JobOutcomeUnknownError           a job may exist; it was not submitted again
    └── DownloadError                        the file is not there; what arrived is kept
        └── TargetExistsError (FileExistsError)

All of them survive pickle, and none holds the API key or a signed URL's query.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from techforge.models import Job


GATEWAY = frozenset({502, 504, *range(520, 531)})
"""Statuses that only a gateway sends. The server behind it may have done what it was asked to do."""


class Outcome(Enum):
    """What a failed request may have done at the server."""

    NOT_SENT = "not sent"
    """The request never reached the server: DNS, connect, TLS or pool failure."""
    REFUSED = "refused"
    """The server asked to come back later (429)."""
    SERVER_FAILED = "server failed"
    """The server answered 5xx. The API's documentation recommends to retry with backoff."""
    UNKNOWN = "unknown"
    """The request may have been carried out: no readable answer, or a submission answered by a gateway."""
    DEFINITIVE = "definitive"
    """The server said no, and asking again will not change it."""


def _restore(cls: type[TechForgeError], args: tuple[Any, ...], state: dict[str, Any]) -> TechForgeError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


def _portable(value: object) -> object:
    foreign = isinstance(value, BaseException) and not isinstance(value, TechForgeError)
    return TechForgeError(f"{type(value).__name__}: {value}") if foreign else value


class TechForgeError(Exception):
    """Base of every error that the SDK raises."""

    job: Job | None = None
    """The job that the failed call was about, where one exists."""

    def __reduce__(self) -> tuple[Any, ...]:
        # The default would call __init__ with args alone, and lose what is passed by keyword. An error that
        # is not ours, a tracker's say, may not survive pickle itself: its text does.
        state = {name: _portable(value) for name, value in self.__dict__.items()}
        return _restore, (type(self), self.args, state)


class ConfigurationError(TechForgeError, ValueError):
    """A client cannot be built from what was given, or has been closed."""


class InvalidArgumentError(TechForgeError, ValueError):
    """An argument is wrong; nothing was sent."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


class APIError(TechForgeError):
    """A request that did not bring the answer it should have.

    `outcome` says what may have happened at the server, `job_may_exist` whether a job may have been
    created by any of the `attempts`. `retry_after` is in seconds. `body` is an excerpt, masked. `job_id` is
    the id of a job that the answer names, `job_status` its status where the answer could be read,
    `project_id` the project to look in for a job that may exist.
    """

    def __init__(
        self,
        message: str,
        *,
        outcome: Outcome,
        method: str = "",
        path: str = "",
        status_code: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        body: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.outcome = outcome
        self.method = method
        self.path = path
        self.status_code = status_code
        self.request_id = request_id
        self.retry_after = retry_after
        self.body = body
        self.attempts = 1
        self.job_may_exist = False
        self.job_id: str | None = None
        self.job_status: str | None = None
        self.project_id: str | None = None

    def __str__(self) -> str:
        facts = [f"attempts: {self.attempts}"]
        if self.request_id:
            facts.append(f"request id: {self.request_id}")
        if self.retry_after is not None:
            facts.append(f"retry after: {self.retry_after:g} s")
        request = f"{self.method} {self.path}: " if self.method else ""
        return f"{request}{self.message} ({', '.join(facts)}). {self.advice}".strip()

    @property
    def advice(self) -> str:
        """What to do about it."""
        if self.job is not None:
            return "The job goes on: wait again with jobs.wait(error.job)."
        if self.job_may_exist:
            where = f" in project {self.project_id}" if self.project_id else ""
            return f"A job may exist{where}: look for it before you submit again."
        if self.status_code in {401, 403}:
            return (
                "Nothing was done; check the API key (api_key= or TFI_API_KEY). "
                "Keys are made in the web app, under /api-access."
            )
        return {
            Outcome.NOT_SENT: "Nothing was sent; check the network and base_url, then try again.",
            Outcome.REFUSED: "Nothing was done. Reduce concurrency and try again later; if this persists, "
            "contact support to raise your rate limit.",
            Outcome.SERVER_FAILED: "Try again later; contact support if it persists.",
            Outcome.UNKNOWN: "Try again later.",
            Outcome.DEFINITIVE: "Nothing was done; trying again will not help until the request changes.",
        }[self.outcome]


class APIConnectionError(APIError):
    """The API could not be reached, or the connection broke before its answer was there."""


class APITimeoutError(APIConnectionError):
    """The API did not answer in time."""


class APIResponseError(APIError):
    """The API answered something that cannot be read."""


class APIStatusError(APIError):
    """The API answered with an error status."""


class BadRequestError(APIStatusError):
    """400: the request is not valid."""


class AuthenticationError(APIStatusError):
    """401: the API key is missing or invalid."""


class PermissionDeniedError(APIStatusError):
    """403: the API key may not do this."""


class NotFoundError(APIStatusError):
    """404: there is nothing at this path.

    `job` is set if it is the path of a job's video, which may still come.
    """

    @property
    def advice(self) -> str:
        """What to do about it."""
        if self.job is None:
            return super().advice
        return (
            f"The video of job {self.job.id} is not there yet. "
            "Wait for it with jobs.wait(job), then download it."
        )


class ConflictError(APIStatusError):
    """409: the request conflicts with the state of the server."""


class UnprocessableEntityError(APIStatusError):
    """422: the request is well-formed, and still not valid."""


class RateLimitError(APIStatusError):
    """429: too many requests; `retry_after` holds the pause that the API asked for, if it did.

    Without a `status_code`, nothing was sent: the pace of the client left no time for it.
    """


class InternalServerError(APIStatusError):
    """5xx: the server failed."""


_BY_STATUS: Mapping[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: UnprocessableEntityError,
    429: RateLimitError,
}


def status_error(
    status_code: int,
    reason: str,
    *,
    method: str,
    path: str,
    request_id: str | None = None,
    retry_after: float | None = None,
    body: str = "",
) -> APIStatusError:
    """Return the error for a status of 300 or above; `reason` is what the answer says of itself."""
    cls = InternalServerError if status_code >= 500 else _BY_STATUS.get(status_code, APIStatusError)
    if status_code >= 500:
        outcome = Outcome.SERVER_FAILED
    elif status_code == 429:
        outcome = Outcome.REFUSED
    else:
        # RFC 9110, section 15.5.9: after a 408 a client may ask again. What was read of it is not known.
        outcome = Outcome.UNKNOWN if status_code == 408 else Outcome.DEFINITIVE
    if 300 <= status_code < 400:
        reason = "a redirect, which is not followed so that the key stays with the API; check base_url"
    message = f"{status_code}" + (f": {reason}" if reason else "")
    return cls(
        message,
        outcome=outcome,
        method=method,
        path=path,
        status_code=status_code,
        request_id=request_id,
        retry_after=retry_after,
        body=body,
    )


class JobError(TechForgeError):
    """Something is wrong with a job rather than with a request."""


class JobFailedError(JobError):
    """The tracker reported that the job failed; `job` is the job, `reason` what was said of it."""

    def __init__(self, job: Job, reason: str | None) -> None:
        why = (reason or "no reason was given").rstrip(".")
        super().__init__(
            f"job {job.id} (project {job.project_id}) failed: {why}. "
            "It will not finish; correct the input and create a new job."
        )
        self.job: Job = job  # pyright: ignore[reportIncompatibleVariableOverride] - here always known
        self.reason = reason


class JobTimeoutError(JobError, TimeoutError):
    """The job was not done in time. It goes on, and so can the wait.

    Carries the `job`, its `last_status`, the `elapsed` seconds, the number of `polls`, the `last_error`
    of a poll if there was one, and `retry_after` if the API asked for a pause beyond the deadline.
    """

    def __init__(
        self,
        job: Job,
        *,
        last_status: str,
        elapsed: float,
        polls: int,
        last_error: Exception | None = None,
    ) -> None:
        # A job made from its ids has the status "unknown" until somebody reports one: that says nothing.
        known = [f"last status: {last_status}"] if last_status != "unknown" else []
        known += [f"last poll: {last_error}"] if last_error else []
        super().__init__(
            f"job {job.id} (project {job.project_id}) was not done after {elapsed:.1f} s and "
            + ("1 poll" if polls == 1 else f"{polls} polls")
            + (f" ({'; '.join(known)})" if known else "")
            + ". The job goes on. Wait again with jobs.wait(error.job), or from another process with "
            f"jobs.wait(jobs.from_ids({job.id!r}, {job.project_id!r}))."
        )
        self.job: Job = job  # pyright: ignore[reportIncompatibleVariableOverride] - here always known
        self.last_status = last_status
        self.elapsed = elapsed
        self.polls = polls
        self.last_error = last_error
        self.retry_after = last_error.retry_after if isinstance(last_error, APIError) else None


class JobOutcomeUnknownError(JobError):
    """A job may or may not have been created, and it was not submitted again.

    `sent` is the body that was sent (URL queries masked), `project_id` the project to look for,
    `job_id` the job's id if the answer held one, `error` the failure itself.
    """

    def __init__(self, error: APIError, *, sent: Mapping[str, Any], project_id: str) -> None:
        known = error.job_id
        super().__init__(
            f"{error.method} {error.path}: {error.message} (attempts: {error.attempts}). "
            + (
                f"The answer holds a job id: go on with jobs.from_ids({known!r}, {project_id!r})."
                if known
                else f"A job may exist in project {project_id}; it was not submitted again. Look for that "
                "project in your job service, webhook events or web app before you submit again."
            )
        )
        self.error = error
        self.sent = dict(sent)
        self.project_id = project_id
        self.job_id = known
        self.outcome = Outcome.UNKNOWN
        self.job_may_exist = True
        self.method = error.method
        self.path = error.path
        self.status_code = error.status_code
        self.request_id = error.request_id
        self.retry_after = error.retry_after
        self.attempts = error.attempts
        self.body = error.body


class DownloadError(TechForgeError):
    """A download did not finish; nothing was put at its target.

    `path` is the storage key, `target` the file that was to be written, `received` the number of bytes
    that are kept beside it for the next try, `error` the last failure of a request if there was one, and
    `retry_after` the pause in seconds that it asked for.
    """

    def __init__(
        self, problem: str, *, path: str, target: str, received: int = 0, error: APIError | None = None
    ) -> None:
        super().__init__(f"{path} -> {target}: {problem}")
        self.error = error
        self.retry_after = error.retry_after if error else None
        self.path = path
        self.target = target
        self.received = received


class TargetExistsError(DownloadError, FileExistsError):
    """There is a file at the target already, and `overwrite=True` was not given."""
