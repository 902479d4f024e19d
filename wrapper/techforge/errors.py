"""Every error that the SDK raises.

    TechForgeError
    ├── ConfigurationError (ValueError)      the client cannot be created, or is closed
    ├── InvalidArgumentError (ValueError)    an argument is wrong; nothing was sent
    ├── APIError
    │   ├── APIConnectionError               no response
    │   │   └── APITimeoutError              no response in time
    │   ├── APIStatusError                   the API responded with an error status
    │   │   ├── BadRequestError              400
    │   │   ├── AuthenticationError          401
    │   │   ├── PermissionDeniedError        403
    │   │   ├── NotFoundError                404
    │   │   ├── ConflictError                409
    │   │   ├── UnprocessableEntityError     422
    │   │   ├── RateLimitError               429
    │   │   └── InternalServerError          5xx
    │   └── APIResponseError                 the response cannot be read
    ├── JobError
    │   ├── JobFailedError                   the tracker reports that the job failed
    │   ├── JobTimeoutError (TimeoutError)   not done in time; you can wait again
    │   └── JobOutcomeUnknownError           a job may exist; it was not submitted again
    ├── DownloadError                        the download is incomplete; the received part is kept
    │   └── TargetExistsError (FileExistsError)  the target file exists
    └── LedgerError                          the ledger of a campaign cannot be used
        ├── NoLedgerError                    there is no such ledger or campaign
        ├── FailoverError                    a standby took over, or a backup was restored: confirm it
        └── LedgerUnavailableError           its disk is full, or its database is down: try again later
            └── JobsNotRecordedError         jobs were accepted that the ledger could not record

All errors can be pickled. None contains the API key or the query of a signed URL.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from techforge.models import Job


GATEWAY = frozenset({502, 504, *range(520, 531)})
"""Statuses that only a gateway sends. The server behind it may have processed the request."""


class Outcome(Enum):
    """What the server may have done with a failed request."""

    NOT_SENT = "not sent"
    """The request was not sent: name resolution, connecting or TLS failed."""
    REFUSED = "refused"
    """The server rejected the request because of its rate limit (429)."""
    SERVER_FAILED = "server failed"
    """The server responded with 5xx. The API's documentation recommends retrying with backoff."""
    UNKNOWN = "unknown"
    """The request may have been processed: no readable response, or a gateway responded to a submission."""
    DEFINITIVE = "definitive"
    """The server rejected the request, and would reject it again."""


def _restore(cls: type[TechForgeError], args: tuple[Any, ...], state: dict[str, Any]) -> TechForgeError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


def _portable(value: object) -> object:
    is_foreign = isinstance(value, BaseException) and not isinstance(value, TechForgeError)
    return TechForgeError(f"{type(value).__name__}: {value}") if is_foreign else value


class TechForgeError(Exception):
    """Base of every error that the SDK raises."""

    job: Job | None = None
    """The job that the failed call was about, or None."""

    def __reduce__(self) -> tuple[Any, ...]:
        # The default calls __init__ with `args` only, and so loses keyword arguments. Errors from user code,
        # such as a tracker's, may not be picklable: keep their text.
        state = {name: _portable(value) for name, value in self.__dict__.items()}
        return _restore, (type(self), self.args, state)


class ConfigurationError(TechForgeError, ValueError):
    """The client cannot be created from these options, or has been closed."""


class InvalidArgumentError(TechForgeError, ValueError):
    """An argument is wrong, and nothing was sent. `field` names the argument."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


class APIError(TechForgeError):
    """A request to the API or to storage failed.

    Attributes:
        message: what happened, without the advice that `str(error)` adds.
        outcome: what the server may have done with the last request.
        method, path: the request; the path has no query.
        status_code: the HTTP status, None without a response.
        request_id: the API's id of the request, for its support.
        retry_after: the pause that the server asked for, in seconds, or None.
        body: the beginning of the response, with secrets masked.
        attempts: how many requests were sent.
        job_may_exist: True if any of these attempts may have created a job.
        job_id: the id of the job that the response names, or None.
        job_status: the status of that job, None if the response was not readable as the API documents it.
        project_id: the project in which to look for a job that may exist.
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
        facts = [f"attempts: {self.attempts}"] if self.attempts != 1 else []
        if self.request_id:
            facts.append(f"request id: {self.request_id}")
        if self.retry_after is not None:
            facts.append(f"retry after: {self.retry_after:g} s")
        if self.job_id:
            facts.append(f"job: {self.job_id}")
        request = f"{self.method} {self.path}: " if self.method else ""
        details = f" ({', '.join(facts)})" if facts else ""
        return f"{request}{self.message}{details}. {self.advice}".strip()

    @property
    def advice(self) -> str:
        """What to do next, as a sentence."""
        if self.job is not None:
            return "The job continues: wait again with jobs.wait(error.job)."
        if self.job_may_exist:
            where = f" in project {self.project_id}" if self.project_id else ""
            return f"A job may exist{where}: look for it before you submit again."
        if self.job_id:
            return "The response names a job: look for it before you submit again."
        if self.status_code in {401, 403}:
            return (
                "Nothing was done. Check the API key (api_key= or TFI_API_KEY). "
                "You create keys in the web app, under /api-access."
            )
        return {
            Outcome.NOT_SENT: "Nothing was sent. Check the network and base_url, then try again.",
            Outcome.REFUSED: "Nothing was done. Reduce concurrency and try again later. If this persists, "
            "contact support to raise your rate limit.",
            Outcome.SERVER_FAILED: "Try again later; contact support if it persists.",
            Outcome.UNKNOWN: "Try again later.",
            Outcome.DEFINITIVE: "Nothing was done. The same request will fail again: correct it first.",
        }[self.outcome]


class APIConnectionError(APIError):
    """The connection failed, or broke before the response was complete."""


class APITimeoutError(APIConnectionError):
    """There was no response in time."""


class APIResponseError(APIError):
    """The response cannot be read, for example because it is a proxy's HTML page."""


class APIStatusError(APIError):
    """The response has an error status."""


class BadRequestError(APIStatusError):
    """400: the request is not valid."""


class AuthenticationError(APIStatusError):
    """401: the API key is missing or invalid."""


class PermissionDeniedError(APIStatusError):
    """403: the API key lacks a permission."""


class NotFoundError(APIStatusError):
    """404: there is no object at this path.

    `job` is set if this is the path of a job's video. The video may appear later: wait for it.
    """

    @property
    def advice(self) -> str:
        """What to do next, as a sentence."""
        if self.job is None:
            return super().advice
        return (
            f"The video of job {self.job.id} does not exist yet. "
            "Wait for it with jobs.wait(job), then download it."
        )


class ConflictError(APIStatusError):
    """409: the request conflicts with the state of the server."""


class UnprocessableEntityError(APIStatusError):
    """422: the request is well-formed but not valid."""


class RateLimitError(APIStatusError):
    """429: too many requests. `retry_after` is the pause that the API asked for, or None.

    If `status_code` is None, nothing was sent: the client's rate limiter left no time before the deadline.
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
    """Return the error for a status of 300 or above; `reason` is the error text of the response."""
    cls = InternalServerError if status_code >= 500 else _BY_STATUS.get(status_code, APIStatusError)
    if status_code >= 500:
        outcome = Outcome.SERVER_FAILED
    elif status_code == 429:
        outcome = Outcome.REFUSED
    else:
        # A 408 does not say how much of the request the server has read (RFC 9110, section 15.5.9).
        outcome = Outcome.UNKNOWN if status_code == 408 else Outcome.DEFINITIVE
    if 300 <= status_code < 400:
        reason = "a redirect. It was not followed, so that the key goes to no other host; check base_url"
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
    """A job failed, was not done in time, or has an unknown outcome."""


class JobFailedError(JobError):
    """The tracker reported that `job` failed. `reason` is its explanation, or None."""

    def __init__(self, job: Job, reason: str | None) -> None:
        explanation = (reason or "no reason was given").rstrip(".")
        super().__init__(
            f"job {job.id} (project {job.project_id}) failed: {explanation}. "
            "It will not finish. Correct the input and create a new job."
        )
        self.job: Job = job  # pyright: ignore[reportIncompatibleVariableOverride] - here always known
        self.reason = reason


class JobTimeoutError(JobError, TimeoutError):
    """The job was not done in time. It continues on the server, and you can wait again.

    Attributes:
        job: the job, to pass to `jobs.wait` again.
        last_status: the last status that the API or the tracker reported.
        elapsed: how long the wait took, in seconds.
        polls: how many times the job was polled.
        last_error: the error of the last failed poll, or None.
        retry_after: the pause that the API asked for, in seconds, if it ends after the deadline.
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
        # A job made from its ids has the status "unknown" until a status is reported: do not show that.
        details = [f"last status: {last_status}"] if last_status != "unknown" else []
        details += [f"last poll: {last_error}"] if last_error else []
        super().__init__(
            f"job {job.id} (project {job.project_id}) was not done after {elapsed:.1f} s and "
            + ("1 poll" if polls == 1 else f"{polls} polls")
            + (f" ({'; '.join(details)})" if details else "")
            + ". The job continues. Wait again with jobs.wait(error.job), or from another process with "
            f"jobs.wait(jobs.from_ids({job.id!r}, {job.project_id!r}))."
        )
        self.job: Job = job  # pyright: ignore[reportIncompatibleVariableOverride] - here always known
        self.last_status = last_status
        self.elapsed = elapsed
        self.polls = polls
        self.last_error = last_error
        self.retry_after = last_error.retry_after if isinstance(last_error, APIError) else None


class JobOutcomeUnknownError(JobError):
    """A job may have been created, and it was not submitted again, since you could pay twice.

    Attributes:
        error: the `APIError` that left the outcome unknown. Its `method`, `path`, `status_code`,
            `request_id`, `retry_after`, `attempts` and `body` are attributes of this error, too.
        sent: the request body, with URL queries masked.
        project_id: the project in which to look for the job.
        job_id: the id of the job, if the response contained one.
    """

    def __init__(self, error: APIError, *, sent: Mapping[str, Any], project_id: str) -> None:
        job_id = error.job_id
        super().__init__(
            f"{error.method} {error.path}: {error.message}"
            + (f" (attempts: {error.attempts}). " if error.attempts != 1 else ". ")
            + (
                f"The response contains a job id: continue with jobs.from_ids({job_id!r}, {project_id!r})."
                if job_id
                else f"A job may exist in project {project_id}. It was not submitted again. Look for that "
                "project in your job service, webhook events or web app before you submit again."
            )
        )
        self.error = error
        self.sent = dict(sent)
        self.project_id = project_id
        self.job_id = job_id
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
    """A download did not finish. The target file was not created or changed.

    Attributes:
        path: the storage key.
        target: the file that was to be written.
        received: how many bytes are kept in `<target>.part`; the next download resumes there.
        error: the last `APIError`, or None.
        retry_after: the pause that the server asked for, in seconds, or None.
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
    """The target file exists, and `overwrite=True` was not given."""


class LedgerError(TechForgeError):
    """The ledger of a campaign cannot be used."""


class NoLedgerError(LedgerError):
    """The ledger or the campaign does not exist."""


class FailoverError(LedgerError):
    """A standby took over the ledger, or a backup was restored, so it may not know recent submissions.

    Nothing more is submitted until you confirm it: `techforge batch resume --after-failover`.
    """


class LedgerUnavailableError(LedgerError):
    """The ledger cannot be read or written now: its disk is full, for example, or its database is down."""


class JobsNotRecordedError(LedgerUnavailableError):
    """Jobs were accepted, but the ledger could not record them. The next run takes them from the journal.

    Attributes:
        jobs: the id of each job, by the key of its row.
        journal: the file that has these ids, or None if it could not be written either.
    """

    def __init__(self, problem: str, jobs: Mapping[str, str], journal: str | None) -> None:
        listed = "\n".join(f"  row {key}: job {job_id}" for key, job_id in jobs.items())
        next_step = (
            f"They are in {journal}, and the next run of the campaign on this machine records them."
            if journal
            else "No journal could be written either. Keep this list, and enter each job: techforge batch "
            "unknown --job KEY=JOB"
        )
        super().__init__(
            f"{problem}\nThe API accepted jobs that the ledger could not record:\n{listed}\n{next_step}"
        )
        self.jobs, self.journal = dict(jobs), journal
