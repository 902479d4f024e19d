"""Errors: their messages, attributes and secrets."""

import copy
import inspect
import pickle
import threading

import pytest
from support.by_hand import JOB_ID, PROJECT_ID

from techforge import errors
from techforge.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    DownloadError,
    InvalidArgumentError,
    JobFailedError,
    JobOutcomeUnknownError,
    JobsNotRecordedError,
    JobTimeoutError,
    Outcome,
    TargetExistsError,
    TechForgeError,
    status_error,
)
from techforge.models import Job

JOB = Job(JOB_ID, PROJECT_ID)
CLASSES = [
    cls
    for _, cls in inspect.getmembers(errors, inspect.isclass)
    if issubclass(cls, TechForgeError) and cls is not TechForgeError
]


def example(cls: type[TechForgeError]) -> TechForgeError:
    """Return an error of this class, as the SDK raises it."""
    failure = APIConnectionError(
        "lost", outcome=Outcome.UNKNOWN, method="POST", path="/jobs/v2", retry_after=3.0
    )
    special = {
        JobFailedError: lambda: JobFailedError(JOB, "no face found"),
        JobTimeoutError: lambda: JobTimeoutError(
            JOB, last_status="queued", elapsed=1.5, polls=3, last_error=failure
        ),
        JobOutcomeUnknownError: lambda: JobOutcomeUnknownError(
            failure, sent={"crop": True}, project_id=PROJECT_ID
        ),
        InvalidArgumentError: lambda: InvalidArgumentError("crop", "is wrong"),
        JobsNotRecordedError: lambda: JobsNotRecordedError("disk full", {"a": JOB.id}, "journal.jsonl"),
    }
    if cls in special:
        return special[cls]()
    if issubclass(cls, DownloadError):
        return cls("broken", path="a/b", target="c", received=7, error=failure)
    if issubclass(cls, APIError):
        return cls("said no", outcome=Outcome.DEFINITIVE, method="GET", path="/x", request_id="r", body="b")
    return cls("went wrong")


def state(error: object) -> object:
    """Return all attributes of an error, also those of errors inside it."""
    if isinstance(error, BaseException):
        return type(error), str(error), {name: state(value) for name, value in vars(error).items()}
    return error


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_errors_survive_pickle_and_copy(cls) -> None:
    """Class, text, attributes and notes stay the same."""
    error = example(cls)
    error.job = JOB
    error.add_note("a note")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):  # noqa: S301
        assert state(again) == state(error)


def test_a_foreign_error_inside_does_not_stop_pickle() -> None:
    """If a tracker's error cannot be pickled, its text is kept."""

    class AwkwardError(Exception):
        def __init__(self, *, lock: object) -> None:
            super().__init__("awkward")
            self.lock = lock

    error = JobTimeoutError(
        JOB, last_status="queued", elapsed=1, polls=1, last_error=AwkwardError(lock=threading.Lock())
    )
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert "AwkwardError: awkward" in str(again.last_error)
    assert copy.deepcopy(error).job == JOB


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_says_where_keys_come_from(status: int) -> None:
    """The advice is to check the key."""
    assert "TFI_API_KEY" in str(status_error(status, "", method="GET", path="/"))


def test_an_error_about_a_job_says_how_to_continue() -> None:
    """A failed poll says nothing about the job."""
    error = status_error(401, "", method="GET", path="/")
    error.job = JOB
    assert "Nothing was done" not in str(error)
    assert "jobs.wait(error.job)" in str(error)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_one_class_catches_them_all(cls) -> None:
    """`except TechForgeError` catches every error."""
    with pytest.raises(TechForgeError):
        raise example(cls)


def test_errors_have_pythons_own_base_classes() -> None:
    """`except TimeoutError`, `ConnectionError` and so on catch ours."""
    assert issubclass(JobTimeoutError, TimeoutError)
    assert issubclass(TargetExistsError, FileExistsError)
    assert issubclass(InvalidArgumentError, ValueError)
    assert issubclass(errors.ConfigurationError, ValueError)


@pytest.mark.parametrize(
    ("status", "name", "outcome"),
    [
        (300, "APIStatusError", Outcome.DEFINITIVE),
        (303, "APIStatusError", Outcome.DEFINITIVE),
        (307, "APIStatusError", Outcome.DEFINITIVE),
        (400, "BadRequestError", Outcome.DEFINITIVE),
        (401, "AuthenticationError", Outcome.DEFINITIVE),
        (403, "PermissionDeniedError", Outcome.DEFINITIVE),
        (404, "NotFoundError", Outcome.DEFINITIVE),
        (408, "APIStatusError", Outcome.UNKNOWN),
        (409, "ConflictError", Outcome.DEFINITIVE),
        (418, "APIStatusError", Outcome.DEFINITIVE),
        (422, "UnprocessableEntityError", Outcome.DEFINITIVE),
        (429, "RateLimitError", Outcome.REFUSED),
        (500, "InternalServerError", Outcome.SERVER_FAILED),
        (520, "InternalServerError", Outcome.SERVER_FAILED),
        (599, "InternalServerError", Outcome.SERVER_FAILED),
        (999, "InternalServerError", Outcome.SERVER_FAILED),
    ],
)
def test_every_status_has_a_class(status: int, name: str, outcome: Outcome) -> None:
    """Also statuses that no standard lists."""
    error = status_error(status, "", method="GET", path="/")
    assert (type(error).__name__, error.outcome, error.status_code) == (name, outcome, status)


def test_a_redirect_says_what_to_check() -> None:
    """The usual cause is a wrong base_url."""
    assert "check base_url" in str(status_error(301, "Moved", method="GET", path="/"))


def test_the_text_says_what_happened_and_what_to_do() -> None:
    """One line: method, path, status, reason, attempts, request id, pause and advice."""
    error = status_error(
        429, "slow down", method="POST", path="/jobs/v2", request_id="req-7", retry_after=2.5
    )
    error.attempts = 3
    assert str(error) == (
        "POST /jobs/v2: 429: slow down (attempts: 3, request id: req-7, retry after: 2.5 s). "
        "Nothing was done. Reduce concurrency and try again later. If this persists, contact support to "
        "raise your rate limit."
    )


def test_an_error_about_a_missing_video_says_how_to_wait() -> None:
    """It does not say that the video will never exist."""
    error = status_error(404, "", method="GET", path="/")
    assert error.advice == "Nothing was done. The same request will fail again: correct it first."
    error.job = JOB
    assert error.advice == (
        f"The video of job {JOB_ID} does not exist yet. Wait for it with jobs.wait(job), then download it."
    )


@pytest.mark.parametrize(
    ("status", "polls", "said"),
    [
        ("unknown", 1, "was not done after 1.5 s and 1 poll. The job continues."),
        ("queued", 2, "was not done after 1.5 s and 2 polls (last status: queued). The job continues."),
    ],
)
def test_an_unknown_status_is_not_in_the_message(status: str, polls: int, said: str) -> None:
    """The word "unknown" would read as the state of the job."""
    assert said in str(JobTimeoutError(JOB, last_status=status, elapsed=1.5, polls=polls))


@pytest.mark.parametrize("outcome", Outcome)
def test_each_outcome_has_advice(outcome: Outcome) -> None:
    """Every error says what to do next."""
    error = APIStatusError("x", outcome=outcome)
    assert error.advice.endswith(".")
    error.job_may_exist = True
    assert error.advice == "A job may exist: look for it before you submit again."
