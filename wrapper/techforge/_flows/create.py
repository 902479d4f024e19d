"""Submit a job. This request costs money, so it is never sent again after an unknown outcome."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast
from uuid import UUID, uuid4

from attrs import evolve, fields_dict

from techforge import _checks
from techforge._config import Settings
from techforge._flow import CLIENT, Attempts, Flow, T, call
from techforge._flows.probe import check
from techforge._flows.request import request
from techforge._logging import logger
from techforge._masking import as_typed, hide, mask, mask_all, printable
from techforge._responses import is_job_id, job_in
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
        APIError: no job was created, unless `job_may_exist` is True.
    """
    image_url, audio_url, extra = hide(image_url), hide(audio_url), hide(extra)
    if version is not None and (isinstance(version, bool) or version not in _VERSIONS):
        allowed = ", ".join(map(str, _VERSIONS))
        raise InvalidArgumentError("version", f"{version!r} is not a model version; use one of {allowed}")
    if values is not None and not isinstance(cast("object", values), list | tuple):
        raise InvalidArgumentError("values", f"must be a list of str, not a {type(values).__name__}")
    if extra is not None and not isinstance(cast("object", extra), Mapping):
        raise InvalidArgumentError("extra", f"must be a mapping, not a {type(extra).__name__}")
    allow_private = settings.allows_private_media
    body = models.JobRequest(
        image_url=hide(_checks.media_url("image_url", image_url, allow_private=allow_private)),
        audio_url=hide(_checks.media_url("audio_url", audio_url, allow_private=allow_private)),
        job_type=job_type,
        project_id=uuid4() if project_id is None else _checks.uuid("project_id", project_id),
        is_clone_required=_optional(is_clone_required),
        language=_optional(language),
        version=UNSET if version is None else models.ModelVersion(version),
        output_size=_optional(output_size),
        crop=_optional(crop),
        dynamic_scale=_optional(dynamic_scale),
        iteration_count=_optional(iteration_count),
        expand_ratio=_optional(expand_ratio),
        values=UNSET if values is None else list(values),
    )
    for name in extra or ():
        if name in fields_dict(models.JobRequest):
            raise InvalidArgumentError("extra", f"{name!r} is an argument of its own; pass {name}= instead")
    body.additional_properties = dict(extra or {})
    sent = body.to_dict()
    for name, value in sent.items():
        _checks.json_value(name, value)
    return _submit(body, cast("dict[str, Any]", mask_all(sent)), settings)


def _optional(value: T | None) -> T | Unset:
    return UNSET if value is None else value


def _str_or_none(value: object) -> str | None:
    # The generated parser does not check types. str() of a str enum gives its value.
    return printable(str(value)) if isinstance(value, str) else None


def _submit(body: models.JobRequest, sent: dict[str, Any], settings: Settings) -> Flow[Job]:
    project_id = str(body.project_id)
    hint = f"look in project {project_id} for more than one job"
    submission = call(create_job, models.JobAccepted, body=body, client=CLIENT).not_repeatable(hint)
    attempts = Attempts()
    job: Job | None = None
    try:
        try:
            response = yield from request(
                submission, settings, attempts=attempts, check=lambda: check(settings)
            )
            job = _job(project_id, response)
        except APIError as error:
            # An error raised between two attempts does not include the previous attempt.
            error.job_may_exist = error.job_may_exist or attempts.may_have_run
            error.attempts = max(error.attempts, attempts.count)
            job = _job_from_error(error, project_id)
            if job is None:
                _add_project(error, sent, project_id)
                raise
        logger.info("job %s accepted in project %s (status: %s)", job.id, project_id, job.status)
        # Inside the try: an interruption here must still report the job.
        return evolve(job, attempts=attempts.count, may_have_duplicates=attempts.was_resubmitted)
    except (APIError, JobOutcomeUnknownError, GeneratorExit):
        raise
    except Exception as error:
        if not attempts.may_have_run:
            raise
        # User code failed, or the client was closed, after an attempt that may have created a job.
        failure = APIConnectionError(
            f"{type(error).__name__}: {mask(str(error))}",
            outcome=Outcome.UNKNOWN,
            method="POST",
            path="/jobs/v2",
        )
        failure.attempts, failure.job_id = attempts.count, job.id if job else None
        raise JobOutcomeUnknownError(failure, sent=sent, project_id=project_id) from error
    except BaseException as error:
        if attempts.may_have_run:
            event = f"job {job.id} was accepted" if job else "a job may have been submitted"
            note = f"techforge: {event} in project {project_id}; look for it before you submit again"
            error.add_note(note)
            # Nobody may see the error of a cancelled task, so log it, too.
            logger.warning("%s", note)
        raise


def _job(project_id: str, accepted: models.JobAccepted) -> Job:
    job_id = accepted.job_id
    if not is_job_id(job_id):
        error = APIResponseError(
            f"the response's jobId is not a job id: {mask(repr(job_id))[:100]}",
            outcome=Outcome.UNKNOWN,
            method="POST",
            path="/jobs/v2",
        )
        error.job_id, _ = job_in(json.dumps(accepted.additional_properties).encode())
        raise error
    status, message = _str_or_none(accepted.status), _str_or_none(accepted.message)
    return Job(id=job_id, project_id=project_id, status=status or "unknown", message=message)


def _job_from_error(error: APIError, project_id: str) -> Job | None:
    """Return the job from a readable response in the format of a later revision of the API."""
    if error.outcome is not Outcome.UNKNOWN or error.job_id is None or error.job_status is None:
        return None
    return Job(id=error.job_id, project_id=project_id, status=error.job_status)


def _add_project(error: APIError, sent: dict[str, Any], project_id: str) -> None:
    """Add the project to an error if a job may exist; raise a `JobOutcomeUnknownError` if that is unknown."""
    if error.outcome is Outcome.UNKNOWN:
        raise JobOutcomeUnknownError(error, sent=sent, project_id=project_id) from error
    if error.job_may_exist:
        error.project_id = project_id


def job_from_ids(job_id: str | UUID, project_id: str | UUID, *, output_path: str | None = None) -> Job:
    """Return the job with these ids. Nothing is sent."""
    if not is_job_id(str(job_id)):
        raise InvalidArgumentError(
            "job_id", f"{as_typed(job_id)!r} is not a job id; pass the value of job.id"
        )
    job = Job(str(job_id), str(_checks.uuid("project_id", project_id)))
    return (
        job
        if output_path is None
        else evolve(job, output_path=_checks.storage_path("output_path", output_path))
    )
