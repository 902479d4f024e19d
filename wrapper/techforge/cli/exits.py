"""What the exit codes of all commands mean, in one place."""

from enum import IntEnum

from techforge.errors import (
    APIConnectionError,
    APIError,
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ConflictError,
    DownloadError,
    JobFailedError,
    JobOutcomeUnknownError,
    JobTimeoutError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    TargetExistsError,
    TechForgeError,
    UnprocessableEntityError,
)


class Code(IntEnum):
    """An exit code; docs/cli.md has the same table, and a test compares them."""

    DONE = 0
    BROKEN = 1
    """Something that the command did not foresee: a mistake of ours, or of the machine."""
    USAGE = 2
    """What was asked for is wrong: an option, a file, a manifest, or a request that the API refuses."""
    AUTH = 3
    """There is no API key, or it is refused."""
    FAILED = 4
    """The job has failed; in a campaign, rows have failed or were skipped."""
    UNKNOWN = 5
    """A job may exist, its outcome is unknown; in a campaign, rows are unknown."""
    NOT_YET = 6
    """Not done within the timeout; the job goes on. In a campaign, rows are left."""
    RATE_LIMIT = 7
    """The API asks for fewer requests."""
    NETWORK = 8
    """The API, or storage, cannot be reached."""
    SERVER = 9
    """The API, or storage, has failed, or answers what cannot be read."""
    MISSING = 10
    """There is nothing in storage under this name, or not yet."""
    FILE = 11
    """A file cannot be written here."""
    INTERRUPTED = 130


class KeyProblemError(ConfigurationError):
    """There is no key, or none that may be used."""


_CODES: tuple[tuple[type[TechForgeError], Code], ...] = (
    (KeyProblemError, Code.AUTH),
    (AuthenticationError, Code.AUTH),
    (PermissionDeniedError, Code.AUTH),
    (JobOutcomeUnknownError, Code.UNKNOWN),
    (JobFailedError, Code.FAILED),
    (JobTimeoutError, Code.NOT_YET),
    (RateLimitError, Code.RATE_LIMIT),
    (NotFoundError, Code.MISSING),
    (BadRequestError, Code.USAGE),
    (ConflictError, Code.USAGE),
    (UnprocessableEntityError, Code.USAGE),
    (APIConnectionError, Code.NETWORK),
    (APIError, Code.SERVER),
    (TargetExistsError, Code.USAGE),
    (DownloadError, Code.FILE),
)


def code_of(error: TechForgeError) -> Code:
    """Return the exit code for an error of the SDK."""
    if isinstance(error, APIError) and error.job_may_exist:
        return Code.UNKNOWN
    cause = getattr(error, "error", None)
    if isinstance(cause, TechForgeError) and not isinstance(error, JobOutcomeUnknownError):
        return code_of(cause)  # a download, or a whole run, that ended with it
    return next((code for kind, code in _CODES if isinstance(error, kind)), Code.USAGE)
