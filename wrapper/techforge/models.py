"""What calls return: small frozen values that can be compared, stored and pickled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import Factory, field, frozen

from techforge._masking import SecretUrl

if TYPE_CHECKING:
    from datetime import datetime


NO_STATUS = "unknown"
"""The status of a job that nobody has reported one for: one made from its ids, for instance."""


def _default_output_path(job: Job) -> str:
    return f"ai-talking-videos/{job.project_id}/outputs/{job.id}.mp4"


@frozen
class Job:
    """A job that the API has accepted.

    `id` and `project_id` are all that is needed to find its video again, in any process. `status` is
    what was last heard of it. `output_path` is the storage key of its video, by default
    `ai-talking-videos/{project_id}/outputs/{id}.mp4`.

    `attempts` is the number of requests that `create` sent. `may_have_duplicates` is True if one of the
    failed ones may have created a job too; look for it in the project. Neither counts when jobs are compared.

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

    `expires_at` is aware, or None where the API names no expiry. The query of `url` grants access: it
    is masked in the repr, and is not to be logged or published.

    >>> client.storage.sign(done.output_path).path == done.output_path
    True
    """

    path: str
    url: str = field(converter=SecretUrl)
    expires_at: datetime | None = None


@frozen
class Video:
    """A finished video: the job it belongs to and where it can be had.

    `signed` is the URL that was valid when the video was found. `size` is in bytes; it, `etag` and
    `content_type` are what storage says, None where it says nothing.

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
        """The signed URL; it stops working at `expires_at`."""
        return self.signed.url

    @property
    def expires_at(self) -> datetime | None:
        """When `url` stops working, aware, or None where the API does not say."""
        return self.signed.expires_at
