"""Trackers report a job's status from your own job service or webhook events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from attrs import field, frozen

if TYPE_CHECKING:
    from techforge.models import Job

DONE = frozenset({"done", "success"})
FAILED = frozenset({"failed"})
WAITING = "waiting"
"""The status in a `JobUpdate` before any status was reported."""


def _plain(status: str) -> str:
    # str() of a (str, Enum) member is "Status.FAILED" instead of its value.
    return str.__str__(status)


@frozen
class JobState:
    """The state of a job, as a tracker reports it.

    Attributes:
        status: `done` or `success` if the video is ready, `failed` if the job failed; any other status
            means that the job continues. Upper and lower case are the same.
        message: an explanation, for example why the job failed.
        output_path: the storage key of the video, if it is not the default one.

    >>> JobState("failed", message="no face found").message
    'no face found'
    """

    status: str = field(converter=_plain)
    message: str | None = None
    output_path: str | None = None


@frozen
class JobUpdate:
    """The argument of `on_update`: the progress of a wait.

    Attributes:
        job: the job.
        status: the last status that the API or the tracker reported, `waiting` before the first.
        message: the tracker's last message, or None.
        elapsed: seconds since the wait began.
        polls: how many times the job was polled.

    >>> updates = []
    >>> video = client.jobs.wait(done, on_update=updates.append)
    >>> updates[-1].status
    'done'
    """

    job: Job
    status: str
    message: str | None
    elapsed: float
    polls: int


class Tracker(Protocol):
    """Reports the status of jobs, for example from your job service or your webhook events.

    >>> class Events:
    ...     def check(self, job):
    ...         return {"15a6331b": "processing"}.get(job.id, "done")
    >>> client.jobs.wait(done, tracker=Events()).job.status
    'done'
    """

    def check(self, job: Job) -> JobState | str | None:
        """Return the job's status, a `JobState` with details, or None if there is no news.

        Args:
            job: The job that the wait polls for.
        """
        ...


class AsyncTracker(Protocol):
    """A `Tracker` for `AsyncTechForge`."""

    async def check(self, job: Job) -> JobState | str | None:
        """Return the job's status, a `JobState` with details, or None if there is no news.

        Args:
            job: The job that the wait polls for.
        """
        ...
