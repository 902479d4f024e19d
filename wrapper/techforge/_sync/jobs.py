# Generated from techforge/_async/jobs.py by scripts/unasync.py; do not edit.
"""`client.jobs`: submit a job, wait for its video, download it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from techforge._flows.create import create, job_from_ids
from techforge._flows.download import DEFAULT_TIMEOUT as DOWNLOAD_TIMEOUT
from techforge._flows.download import download_video
from techforge._flows.wait import DEFAULT_TIMEOUT as WAIT_TIMEOUT
from techforge._flows.wait import create_and_wait, poll_once, wait
from techforge._masking import hide

if TYPE_CHECKING:
    import os
    from pathlib import Path
    from typing import Unpack
    from uuid import UUID

    from techforge._flows.download import OnProgress
    from techforge._flows.wait import OnUpdate
    from techforge._session import Session
    from techforge.models import Job, Video
    from techforge.params import JobParams
    from techforge.policy.polling import PollSchedule
    from techforge.tracking import Tracker


class Jobs:
    """Talking-video jobs, with blocking calls. Use it as `client.jobs`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def create(self, **params: Unpack[JobParams]) -> Job:
        """Submit a job: `POST /jobs/v2`.

        `JobParams` documents the arguments: `image_url` and `audio_url`, which are required, `project_id`,
        `job_type`, `is_clone_required`, `language`, `version`, `output_size`, `crop`, `dynamic_scale`,
        `iteration_count`, `expand_ratio`, `values`, and `extra` for other fields.

        After a 429 or a failed connection attempt, the job is submitted again, since none was created.
        After a 5xx it is submitted again, too, as the API's documentation recommends, unless
        `resubmit_on_server_error=False`; `job.may_have_duplicates` is then True. If the outcome is unknown,
        or a gateway responds (502, 504, 520 to 530), the job is not submitted again: it may exist, and the
        API has no idempotency key.

        Raises:
            InvalidArgumentError: an argument is wrong; nothing was sent.
            JobOutcomeUnknownError: a job may exist; the error says what was sent and where to look.
            APIError: no job was created, unless `job_may_exist` is True.

        >>> job = client.jobs.create(
        ...     image_url="https://cdn.example.com/image.png", audio_url="https://cdn.example.com/audio.mp3"
        ... )
        >>> job.status
        'queued'
        """
        params = hide(params)  # they are variables of this frame
        return self._session.run(create(self._session.settings, **params))

    def wait(
        self,
        job: Job,
        *,
        timeout: float = WAIT_TIMEOUT,
        poll: PollSchedule | float | None = None,
        tracker: Tracker | None = None,
        on_update: OnUpdate | None = None,
    ) -> Video:
        """Wait until the job's video is ready, for at most `timeout` seconds.

        v1.0.0 of the API does not report the status of a job. So each poll checks whether the video is in
        storage: it signs a URL, where a 404 means "not yet", and requests one byte from that URL.

        Args:
            job: The job, from `create` or `from_ids`.
            timeout: The longest wait, in seconds.
            poll: A `PollSchedule`, or a fixed interval in seconds. Default: `PollSchedule()`.
            tracker: Reports the status of the job from another source. Without a tracker, a failed job
                cannot be detected.
            on_update: Called with a `JobUpdate` before the first poll and after each poll.

        Raises:
            JobTimeoutError: the job was not done in time; it continues, and you can wait for it again.
            JobFailedError: the tracker reports that the job failed.
            APIError: too many polls failed in a row, or one failed permanently; its `job` is set.

        >>> client.jobs.wait(done, timeout=60).size > 0
        True
        """
        return self._session.run(
            wait(
                job,
                self._session.settings,
                timeout=timeout,
                poll=poll,
                tracker=tracker,
                on_update=on_update,
            )
        )

    def create_and_wait(
        self,
        *,
        timeout: float = WAIT_TIMEOUT,
        poll: PollSchedule | float | None = None,
        tracker: Tracker | None = None,
        on_update: OnUpdate | None = None,
        **params: Unpack[JobParams],
    ) -> Video:
        """Submit a job and wait for its video: `create`, then `wait` for at most `timeout` seconds.

        If anything fails after the job was accepted, the error has the job as `error.job`.

        Args:
            timeout: The longest wait for the video, in seconds.
            poll: A `PollSchedule`, or a fixed interval in seconds. Default: `PollSchedule()`.
            tracker: Reports the status of the job from another source.
            on_update: Called with a `JobUpdate` as soon as the job is accepted, and after each poll. Store
                the job's id in the first call.
            params: See `create`.

        >>> video = client.jobs.create_and_wait(
        ...     image_url="https://cdn.example.com/image.png",
        ...     audio_url="https://cdn.example.com/audio.mp3",
        ...     timeout=60,
        ... )
        >>> video.job.status
        'done'
        """
        params = hide(params)
        return self._session.run(
            create_and_wait(
                self._session.settings,
                params,
                timeout=timeout,
                poll=poll,
                tracker=tracker,
                on_update=on_update,
            )
        )

    def find(self, job: Job) -> Video | None:
        """Return the job's video if it is ready now, otherwise None.

        Poll once, for programs that do their own polling.

        Args:
            job: The job, from `create` or `from_ids`.

        Raises:
            APIError: the request failed.

        >>> client.jobs.find(client.jobs.from_ids(done.id, done.project_id)).job.status
        'done'
        """
        return self._session.run(poll_once(job, self._session.settings))

    def download(
        self,
        job: Job | Video,
        to: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        on_progress: OnProgress | None = None,
        timeout: float = DOWNLOAD_TIMEOUT,
    ) -> Path:
        """Download a job's video into a file, and return the path of the file.

        Args:
            job: The job or its video.
            to: The file, or an existing directory. In a directory, the file is named after the job.
            overwrite: Replace an existing file.
            on_progress: Called with the bytes received so far and the total size. The total is None if
                storage does not say.
            timeout: The limit for the whole download, in seconds.

        Raises:
            NotFoundError: the video is not ready yet; wait for it with `wait`.
            DownloadError: the download is incomplete; the received part is kept, and the next call resumes.
            APIError: the request failed for another reason.

        >>> client.jobs.download(done, folder).name == f"{done.id}.mp4"
        True
        """
        return self._session.run(
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
        """Return the job with these ids, to continue with it in another process. Nothing is sent.

        Args:
            job_id: The value of `job.id`.
            project_id: The value of `job.project_id`.
            output_path: The storage key of the video, if it is not the default one.

        Raises:
            InvalidArgumentError: an id is not valid.

        >>> client.jobs.from_ids(done.id, done.project_id).output_path == done.output_path
        True
        """
        return job_from_ids(job_id, project_id, output_path=output_path)
