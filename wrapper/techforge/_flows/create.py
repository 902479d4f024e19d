"""Submitting a job: the one request that costs money, and is never sent twice in doubt."""

from collections.abc import Mapping, Sequence
from typing import Any, Required, TypedDict
from uuid import UUID, uuid4

from attrs import fields_dict

from techforge import _checks
from techforge._config import Settings
from techforge._flow import CLIENT, Flow, T, call
from techforge._flows.request import request
from techforge._logging import logger
from techforge._masking import mask
from techforge.errors import APIError, InvalidArgumentError, JobOutcomeUnknownError, Outcome
from techforge.models import Job
from techforge_api import models
from techforge_api.api.jobs import create_job
from techforge_api.types import UNSET, Unset

_VERSIONS = tuple(version.value for version in models.ModelVersion)


class JobParams(TypedDict, total=False):
    """What `jobs.create` takes. What is not given is not sent, and the API decides.

    >>> params: JobParams = {"image_url": "https://cdn.example.com/image.png",
    ...                      "audio_url": "https://cdn.example.com/audio.mp3", "output_size": 400}
    >>> client.jobs.create(**params).status
    'queued'
    """

    image_url: Required[str]
    """Publicly reachable http(s) URL of the source image."""
    audio_url: Required[str]
    """Publicly reachable http(s) URL of the narration audio."""
    project_id: str | UUID | None
    """Project that the job belongs to; a fresh UUID by default."""
    job_type: str
    """Kind of job; `ai_talking_video` by default."""
    is_clone_required: bool | None
    """Run a clone pass before rendering."""
    language: str | None
    """Language code for lip sync, e.g. `en`."""
    version: int | None
    """Model version: 4, 5 or 6."""
    output_size: int | None
    """Edge of the output, in pixels."""
    crop: bool | None
    """Crop the image before rendering."""
    dynamic_scale: float | None
    """Scale factor while rendering."""
    iteration_count: int | None
    """Refinement passes."""
    expand_ratio: float | None
    """How far the canvas is expanded."""
    values: Sequence[str] | None
    """Further tuning parameters."""
    extra: Mapping[str, object] | None
    """Fields that this version of the SDK does not know, sent as they are."""


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
        JobOutcomeUnknownError: a job may exist.
        APIError: no job was created, unless its `job_may_exist` says otherwise.
    """
    if version is not None and (isinstance(version, bool) or version not in _VERSIONS):
        allowed = ", ".join(map(str, _VERSIONS))
        raise InvalidArgumentError("version", f"{version!r} is not a model version; the API has {allowed}")
    if isinstance(values, str | Mapping):
        raise InvalidArgumentError("values", f"must be a list of str, not one {type(values).__name__}")
    body = models.JobRequest(
        image_url=_checks.http_url("image_url", image_url),
        audio_url=_checks.http_url("audio_url", audio_url),
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
    return _submit(body, _masked(sent), settings)


def _given(value: T | None) -> T | Unset:
    return UNSET if value is None else value


def _text(value: object) -> str | None:
    # The generated parser lets values of another type through; a str enum shows its value.
    return str(value) if isinstance(value, str) else None


def _masked(sent: dict[str, Any]) -> dict[str, Any]:
    return {name: mask(value) if isinstance(value, str) else value for name, value in sent.items()}


def _submit(body: models.JobRequest, sent: dict[str, Any], settings: Settings) -> Flow[Job]:
    project_id = str(body.project_id)
    submission = call(create_job, models.JobAccepted, body=body, client=CLIENT).never_twice()
    try:
        accepted = yield from request(submission, settings)
        job = Job(
            id=str(accepted.job_id),
            project_id=project_id,
            status=_text(accepted.status) or "unknown",
            message=_text(accepted.message),
        )
    except APIError as error:
        if error.outcome is not Outcome.UNKNOWN:
            raise
        if error.job_id is None or error.job_status is None:
            unknown = JobOutcomeUnknownError(error, sent=sent, project_id=project_id)
            logger.warning("%s", unknown)
            raise unknown from error
        # The answer is not what the contract says, and still it names the job: a later revision's shape.
        job = Job(id=error.job_id, project_id=project_id, status=error.job_status)
    except GeneratorExit:
        raise
    except BaseException as error:
        if not isinstance(error, Exception):
            error.add_note(
                f"techforge: a job may have been submitted in project {project_id}; look for it before you "
                "submit again"
            )
        raise
    logger.info("job %s accepted in project %s (status: %s)", job.id, project_id, job.status)
    return job
