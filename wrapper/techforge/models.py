"""The values that calls return. They are frozen, and can be compared, stored and pickled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import Factory, field, frozen

from techforge._masking import SecretUrl

if TYPE_CHECKING:
    from datetime import datetime


NO_STATUS = "unknown"
"""The status of a job before any was reported, for example of a job made from its ids."""


def _default_output_path(job: Job) -> str:
    return f"ai-talking-videos/{job.project_id}/outputs/{job.id}.mp4"


@frozen
class Job:
    """A job that the API has accepted.

    Store `id` and `project_id`: with them, `jobs.from_ids` finds the job again in any process.

    Attributes:
        id: the job's id.
        project_id: the project that the job belongs to.
        status: the last status that was reported, `unknown` before the first.
        message: the API's message about the job, or None.
        output_path: the storage key of the video, by default
            `ai-talking-videos/{project_id}/outputs/{id}.mp4`.
        attempts: how many requests `create` sent. It is ignored when jobs are compared.
        may_have_duplicates: True if a failed attempt may have created another job, which you find in the
            same project. It is ignored when jobs are compared.

    >>> job = Job("15a6331b-3837-4ae8-8fa7-d3ead3388d77", "468ea7a0-66e1-4357-a760-236e54167f3e")
    >>> job.output_path
    'ai-talking-videos/468ea7a0-66e1-4357-a760-236e54167f3e/outputs/15a6331b-3837-4ae8-8fa7-d3ead3388d77.mp4'
    """

    id: str
    project_id: str
    status: str = NO_STATUS
    message: str | None = None
    output_path: str = field(default=Factory(_default_output_path, takes_self=True))
    attempts: int = field(default=1, kw_only=True, eq=False)
    may_have_duplicates: bool = field(default=False, kw_only=True, eq=False)


@frozen
class SignedUrl:
    """A short-lived URL that serves one storage object without an API key.

    The query of `url` grants access: the repr masks it, and you should not log or publish it.

    Attributes:
        path: the storage key.
        url: the URL.
        expires_at: when the URL stops working, as an aware datetime, or None if the API does not say.

    >>> client.storage.sign(done.output_path).path == done.output_path
    True
    """

    path: str
    url: str = field(converter=SecretUrl)
    expires_at: datetime | None = None


@frozen
class Video:
    """A finished video.

    Attributes:
        job: the job that made the video.
        signed: a signed URL, valid when the video was found.
        size: the size in bytes, None if storage does not say.
        etag: the ETag, None if storage does not say.
        content_type: the content type, None if storage does not say.

    >>> video = client.jobs.wait(done)
    >>> video.job.id == done.id, video.content_type
    (True, 'video/mp4')
    """

    job: Job
    signed: SignedUrl
    size: int | None = None
    etag: str | None = None
    content_type: str | None = None

    @property
    def path(self) -> str:
        """The storage key."""
        return self.signed.path

    @property
    def url(self) -> str:
        """The signed URL. It stops working at `expires_at`."""
        return self.signed.url

    @property
    def expires_at(self) -> datetime | None:
        """When `url` stops working, as an aware datetime, or None if the API does not say."""
        return self.signed.expires_at
