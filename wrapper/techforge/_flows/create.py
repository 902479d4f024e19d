"""Submitting a job: the one request that costs money, and is never sent twice in doubt."""

from collections.abc import Mapping, Sequence
from typing import Any, cast
from uuid import UUID, uuid4

from attrs import evolve, fields_dict

from techforge import _checks
from techforge._answers import is_job_id
from techforge._config import Settings
from techforge._flow import CLIENT, Attempts, Flow, T, call
from techforge._flows.request import request
from techforge._logging import logger
from techforge._masking import mask, mask_all
from techforge.errors import (
    APIConnectionError,
    APIError,
    APIResponseError,
    InvalidArgumentError,
    JobOutcomeUnknownError,
    Outcome,
)
from techforge.models import Job
from techforge_api import models
from techforge_api.api.jobs import create_job
from techforge_api.types import UNSET, Unset

_VERSIONS = tuple(version.value for version in models.ModelVersion)


def create(
    settings: Settings,
    *,
    image_url: str,
    audio_url: str,
    project_id: str | UUID | None = None,
    job_type: str = "ai_talking_video",
    is_clone_required: bool | None = None,
    language: str | None = None,
    version: int | None = None,
    output_size: int | None = None,
    crop: bool | None = None,
    dynamic_scale: float | None = None,
    iteration_count: int | None = None,
    expand_ratio: float | None = None,
    values: Sequence[str] | None = None,
    extra: Mapping[str, object] | None = None,
) -> Flow[Job]:
    """Submit a job.

    Raises:
        InvalidArgumentError: an argument is wrong; nothing was sent.
        JobOutcomeUnknownError: a job may exist; it was not submitted again.
        APIError: no job was created, unless its `job_may_exist` says otherwise.
    """
    if version is not None and (isinstance(version, bool) or version not in _VERSIONS):
        allowed = ", ".join(map(str, _VERSIONS))
        raise InvalidArgumentError("version", f"{version!r} is not a model version; the API has {allowed}")
    if values is not None and not isinstance(cast("object", values), list | tuple):
        raise InvalidArgumentError("values", f"must be a list of str, not a {type(values).__name__}")
    if extra is not None and not isinstance(cast("object", extra), Mapping):
        raise InvalidArgumentError("extra", f"must be a mapping, not a {type(extra).__name__}")
    private = settings.allows_private_media
    body = models.JobRequest(
        image_url=_checks.media_url("image_url", image_url, allow_private=private),
        audio_url=_checks.media_url("audio_url", audio_url, allow_private=private),
        job_type=job_type,
        project_id=uuid4() if project_id is None else _checks.uuid("project_id", project_id),
        is_clone_required=_given(is_clone_required),
        language=_given(language),
        version=UNSET if version is None else models.ModelVersion(version),
        output_size=_given(output_size),
        crop=_given(crop),
        dynamic_scale=_given(dynamic_scale),
        iteration_count=_given(iteration_count),
        expand_ratio=_given(expand_ratio),
        values=UNSET if values is None else list(values),
    )
    for name in extra or ():
        if name in fields_dict(models.JobRequest):
            raise InvalidArgumentError("extra", f"{name!r} has an argument of its own; use that")
    body.additional_properties = dict(extra or {})
    sent = body.to_dict()
    for name, value in sent.items():
        _checks.json_value(name, value)
    return _submit(body, cast("dict[str, Any]", mask_all(sent)), settings)


def _given(value: T | None) -> T | Unset:
    return UNSET if value is None else value


def _text(value: object) -> str | None:
    # The generated parser lets values of another type through; a str enum shows its value.
    return str(value) if isinstance(value, str) else None


def _submit(body: models.JobRequest, sent: dict[str, Any], settings: Settings) -> Flow[Job]:
    project_id = str(body.project_id)
    about = f"look in project {project_id} for more than one job"
    submission = call(create_job, models.JobAccepted, body=body, client=CLIENT).never_twice(about)
    attempts = Attempts()
    job: Job | None = None
    try:
        try:
            job = _job(project_id, (yield from request(submission, settings, attempts=attempts)))
        except APIError as error:
            # What ends the call between two attempts knows nothing of the attempt before it.
            error.job_may_exist = error.job_may_exist or attempts.in_doubt
            error.attempts = max(error.attempts, attempts.count)
            job = _job_despite(error, project_id)
            if job is None:
                _in_words(error, sent, project_id)
                raise
        logger.info("job %s accepted in project %s (status: %s)", job.id, project_id, job.status)
        # Until it is returned, an interruption must note it.
        return evolve(job, attempts=attempts.count, may_have_duplicates=attempts.resubmitted)
    except (APIError, JobOutcomeUnknownError, GeneratorExit):
        raise
    except Exception as error:
        if not attempts.in_doubt:
            raise
        # The user's own code, or a client that was closed in between, has broken in after a job may exist.
        lost = APIConnectionError(
            f"{type(error).__name__}: {mask(str(error))}",
            outcome=Outcome.UNKNOWN,
            method="POST",
            path="/jobs/v2",
        )
        lost.attempts, lost.job_id = attempts.count, job.id if job else None
        raise JobOutcomeUnknownError(lost, sent=sent, project_id=project_id) from error
    except BaseException as error:
        if attempts.in_doubt:
            known = f"job {job.id} was accepted" if job else "a job may have been submitted"
            note = f"techforge: {known} in project {project_id}; look for it before you submit again"
            error.add_note(note)
            # A cancelled task's error is often never seen.
            logger.warning("%s", note)
        raise


def _job(project_id: str, accepted: models.JobAccepted) -> Job:
    job_id = accepted.job_id
    if not is_job_id(job_id):
        raise APIResponseError(
            f"the answer's jobId is {mask(repr(job_id))[:100]}",
            outcome=Outcome.UNKNOWN,
            method="POST",
            path="/jobs/v2",
        )
    status, message = _text(accepted.status), _text(accepted.message)
    return Job(id=job_id, project_id=project_id, status=status or "unknown", message=message)


def _job_despite(error: APIError, project_id: str) -> Job | None:
    """Return the job of an answer that could be read, though not as the contract's: a later revision's."""
    if error.outcome is not Outcome.UNKNOWN or error.job_id is None or error.job_status is None:
        return None
    return Job(id=error.job_id, project_id=project_id, status=error.job_status)


def _in_words(error: APIError, sent: dict[str, Any], project_id: str) -> None:
    """Let an error say where to look for a job that may exist."""
    if error.outcome is Outcome.UNKNOWN:
        raise JobOutcomeUnknownError(error, sent=sent, project_id=project_id) from error
    if error.job_may_exist:
        error.project_id = project_id


def job_from_ids(job_id: str | UUID, project_id: str | UUID, *, output_path: str | None = None) -> Job:
    """Return the job of these ids; nothing is sent."""
    if not is_job_id(str(job_id)):
        raise InvalidArgumentError("job_id", f"{job_id!r} is not the id of a job; give what job.id was")
    job = Job(str(job_id), str(_checks.uuid("project_id", project_id)))
    return (
        job
        if output_path is None
        else evolve(job, output_path=_checks.storage_path("output_path", output_path))
    )
