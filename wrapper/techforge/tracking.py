"""Plugging in what knows more of a job than storage does: a job service, or a webhook's events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from attrs import field, frozen

if TYPE_CHECKING:
    from techforge.models import Job

DONE = frozenset({"done", "success"})
FAILED = frozenset({"failed"})
WAITING = "waiting"
"""The status that a `JobUpdate` shows as long as nobody has reported one."""


def _plain(status: str) -> str:
    # str() of a member of a (str, Enum) is "Status.FAILED", and not its value.
    return str.__str__(status)


@frozen
class JobState:
    """What a tracker knows of a job.

    `status` is compared without regard to case: `done` and `success` mean that the video is there,
    `failed` that it never will be; any other keeps the wait going. `output_path` overrides the
    storage key of the video.

    >>> JobState("failed", message="no face found").message
    'no face found'
    """

    status: str = field(converter=_plain)
    message: str | None = None
    output_path: str | None = None


@frozen
class JobUpdate:
    """What `on_update` is told after each poll; `elapsed` is in seconds since the wait began.

    `status` is the last one that the API or the tracker reported, or `waiting` as long as there is none.

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
    """Where a job stands, according to the user's own job service or webhook store.

    >>> class Events:
    ...     def check(self, job):
    ...         return {"15a6331b": "processing"}.get(job.id, "done")
    >>> client.jobs.wait(done, tracker=Events()).job.status
    'done'
    """

    def check(self, job: Job) -> JobState | str | None:
        """Return where the job stands: a status, a `JobState` that says more, None for no news."""
        ...


class AsyncTracker(Protocol):
    """The same for `AsyncTechForge`."""

    async def check(self, job: Job) -> JobState | str | None:
        """Return where the job stands: a status, a `JobState` that says more, None for no news."""
        ...
