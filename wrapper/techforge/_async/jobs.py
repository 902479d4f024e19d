"""`client.jobs`: submit a job, wait for its video, fetch it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from techforge._flows.create import create, job_from_ids
from techforge._flows.download import DEFAULT_TIMEOUT as DOWNLOAD_TIMEOUT
from techforge._flows.download import download_video
from techforge._flows.wait import DEFAULT_TIMEOUT as WAIT_TIMEOUT
from techforge._flows.wait import create_and_wait, poll_once, wait

if TYPE_CHECKING:
    import os
    from pathlib import Path
    from typing import Unpack
    from uuid import UUID

    from techforge._flows.download import OnProgress
    from techforge._flows.wait import OnUpdate
    from techforge._session import AsyncSession
    from techforge.models import Job, Video
    from techforge.params import JobParams
    from techforge.policy.polling import PollSchedule
    from techforge.tracking import AsyncTracker


class AsyncJobs:
    """Jobs, for asyncio. Reached as `client.jobs`."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def create(self, **params: Unpack[JobParams]) -> Job:
        """Submit a job: `POST /jobs/v2`.

        `JobParams` says what each argument means: `image_url` and `audio_url`, which are required,
        `project_id`, `job_type`, `is_clone_required`, `language`, `version`, `output_size`, `crop`,
        `dynamic_scale`, `iteration_count`, `expand_ratio`, `values`, and `extra` for other fields.

        The API has no idempotency key, so a request whose outcome is unknown is never sent again, nor is
        one that a gateway answered (502, 504, 520 to 530). After a 429 or a failure to connect it is, since
        no job was created. After another 5xx it is too, as the API's documentation recommends, unless
        `resubmit_on_server_error=False`; `job.may_have_duplicates` says so.

        Raises:
            InvalidArgumentError: an argument is wrong; nothing was sent.
            JobOutcomeUnknownError: a job may exist; the error says what was sent and where to look.
            APIError: no job was created, unless its `job_may_exist` is True.

        >>> job = await client.jobs.create(
        ...     image_url="https://cdn.example.com/image.png", audio_url="https://cdn.example.com/audio.mp3"
        ... )
        >>> job.status
        'queued'
        """
        return await self._session.run(create(self._session.settings, **params))

    async def wait(
        self,
        job: Job,
        *,
        timeout: float = WAIT_TIMEOUT,
        poll: PollSchedule | float | None = None,
        tracker: AsyncTracker | None = None,
        on_update: OnUpdate | None = None,
    ) -> Video:
        """Wait until the job's video is there, for at most `timeout` seconds.

        v1.0.0 of the API tells of no job's state, so storage is asked: a 404 means not yet, and a signed
        URL is tried with a request for one byte, since a signature does not prove that there is an object.
        `poll` is a `PollSchedule` or a fixed number of seconds. A `tracker` knows better where the job
        stands; it alone can say that a job failed. `on_update` is called with a `JobUpdate` before the first
        poll and after each.

        Raises:
            JobTimeoutError: not done in time; it carries the job, and waiting can go on.
            JobFailedError: the tracker says that the job failed.
            APIError: polls failed too often in a row, or for good; `job` is set on it.

        >>> (await client.jobs.wait(done, timeout=60)).size > 0
        True
        """
        return await self._session.run(
            wait(
                job,
                self._session.settings,
                timeout=timeout,
                poll=poll,
                tracker=tracker,
                on_update=on_update,
            )
        )

    async def create_and_wait(
        self,
        *,
        timeout: float = WAIT_TIMEOUT,
        poll: PollSchedule | float | None = None,
        tracker: AsyncTracker | None = None,
        on_update: OnUpdate | None = None,
        **params: Unpack[JobParams],
    ) -> Video:
        """Submit a job and wait for its video: `create`, then `wait` for at most `timeout` seconds.

        `on_update` hears of the job at once, before the first poll: a place to note its id. Every error
        of the SDK after that carries the job as `error.job`.

        >>> video = await client.jobs.create_and_wait(
        ...     image_url="https://cdn.example.com/image.png",
        ...     audio_url="https://cdn.example.com/audio.mp3",
        ...     timeout=60,
        ... )
        >>> video.job.status
        'done'
        """
        return await self._session.run(
            create_and_wait(
                self._session.settings,
                params,
                timeout=timeout,
                poll=poll,
                tracker=tracker,
                on_update=on_update,
            )
        )

    async def find(self, job: Job) -> Video | None:
        """Return the job's video if it is there now, None if it is not (yet).

        Poll once, for programs that do their own polling.

        Raises:
            APIError: it could not be found out.

        >>> (await client.jobs.find(client.jobs.from_ids(done.id, done.project_id))).job.status
        'done'
        """
        return await self._session.run(poll_once(job, self._session.settings))

    async def download(
        self,
        job: Job | Video,
        to: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        on_progress: OnProgress | None = None,
        timeout: float = DOWNLOAD_TIMEOUT,
    ) -> Path:
        """Fetch a job's video into a file; `Storage.download` tells how.

        Raises:
            NotFoundError: the video of the job is not there yet; wait for it with `wait`.
            DownloadError: the file could not be fetched or written; what has arrived is kept.
            APIError: the request failed otherwise.

        >>> (await client.jobs.download(done, folder)).name == f"{done.id}.mp4"
        True
        """
        return await self._session.run(
            download_video(
                job,
                to,
                self._session.settings,
                overwrite=overwrite,
                on_progress=on_progress,
                timeout=timeout,
            )
        )

    def from_ids(self, job_id: str | UUID, project_id: str | UUID, *, output_path: str | None = None) -> Job:
        """Return the job of these ids, to go on with it in another process; nothing is sent.

        Raises:
            InvalidArgumentError: one of them cannot be an id.

        >>> client.jobs.from_ids(done.id, done.project_id).output_path == done.output_path
        True
        """
        return job_from_ids(job_id, project_id, output_path=output_path)
