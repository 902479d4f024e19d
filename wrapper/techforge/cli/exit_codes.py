"""The exit codes of all commands."""

from enum import IntEnum

from techforge.errors import (
    APIConnectionError,
    APIError,
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ConflictError,
    DownloadError,
    FailoverError,
    JobFailedError,
    JobOutcomeUnknownError,
    JobTimeoutError,
    LedgerUnavailableError,
    NoLedgerError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    TargetExistsError,
    TechForgeError,
    UnprocessableEntityError,
)


class ExitCode(IntEnum):
    """The exit codes, in the words of the table in docs/cli.md. A test compares the two."""

    DONE = 0
    """done"""
    BROKEN = 1
    """an unexpected error; for `doctor`, also a wrong clock"""
    USAGE = 2
    """wrong usage: an option, a file or a manifest is wrong, or the API rejects the request"""
    AUTH = 3
    """there is no API key, or the API rejects it"""
    FAILED = 4
    """the job failed; in a campaign, rows failed or were skipped"""
    UNKNOWN = 5
    """a job may exist; in a campaign, rows have an unknown outcome"""
    NOT_YET = 6
    """the job was not done in time, and continues; in a campaign, rows are left"""
    RATE_LIMIT = 7
    """rate limit: the API answered 429"""
    NETWORK = 8
    """the API or storage cannot be reached"""
    SERVER = 9
    """the API or storage failed, or sent a response that cannot be read"""
    MISSING = 10
    """storage has no object at this path, or not yet"""
    FILE = 11
    """a local file or stdout cannot be written; in a campaign, another file is in a video's place"""
    LEDGER = 12
    """there is no ledger yet, its disk is full, or its database is down. Try again later"""
    FAILOVER = 13
    """the ledger's database failed over or was restored; nothing is submitted until you confirm it"""
    HUNG_UP = 129
    """interrupted by SIGHUP: the terminal was closed"""
    INTERRUPTED = 130
    """interrupted by Ctrl-C"""
    PIPE = 141
    """nobody reads stdout any more: `head` has ended, for example"""
    TERMINATED = 143
    """interrupted by SIGTERM"""


STOPPED = frozenset({ExitCode.HUNG_UP, ExitCode.INTERRUPTED, ExitCode.PIPE, ExitCode.TERMINATED})
"""The user or the system ended the command."""


class KeyProblemError(ConfigurationError):
    """There is no API key, or the command must not use it."""


_CODE_OF_ERROR: tuple[tuple[type[TechForgeError], ExitCode], ...] = (
    (KeyProblemError, ExitCode.AUTH),
    (AuthenticationError, ExitCode.AUTH),
    (PermissionDeniedError, ExitCode.AUTH),
    (JobOutcomeUnknownError, ExitCode.UNKNOWN),
    (JobFailedError, ExitCode.FAILED),
    (JobTimeoutError, ExitCode.NOT_YET),
    (RateLimitError, ExitCode.RATE_LIMIT),
    (NotFoundError, ExitCode.MISSING),
    (BadRequestError, ExitCode.USAGE),
    (ConflictError, ExitCode.USAGE),
    (UnprocessableEntityError, ExitCode.USAGE),
    (APIConnectionError, ExitCode.NETWORK),
    (APIError, ExitCode.SERVER),
    (TargetExistsError, ExitCode.USAGE),
    (DownloadError, ExitCode.FILE),
    (LedgerUnavailableError, ExitCode.LEDGER),
    (NoLedgerError, ExitCode.LEDGER),
    (FailoverError, ExitCode.FAILOVER),
)


def code_of(error: TechForgeError) -> ExitCode:
    """Return the exit code for an error."""
    if isinstance(error, APIError) and (error.job_may_exist or error.job_id):
        return ExitCode.UNKNOWN
    cause = getattr(error, "error", None)
    if isinstance(cause, TechForgeError) and not isinstance(error, JobOutcomeUnknownError):
        return code_of(cause)  # DownloadError and NoProgressError carry the error that caused them
    return next((code for kind, code in _CODE_OF_ERROR if isinstance(error, kind)), ExitCode.USAGE)
