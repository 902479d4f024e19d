"""Waiting for a video: ask whoever knows, sleep, ask again, and never past the deadline."""

import math
import re
from collections.abc import Awaitable, Callable
from functools import partial

from attrs import define, evolve

from techforge import _checks
from techforge._config import Settings
from techforge._flow import Close, Flow, Opened, Sleep, invoke
from techforge._flows.create import JobParams, create
from techforge._flows.request import is_passing
from techforge._flows.storage import open_signed, sign
from techforge._logging import logger
from techforge.errors import (
    APIError,
    InvalidArgumentError,
    JobError,
    JobFailedError,
    JobTimeoutError,
    NotFoundError,
    RateLimitError,
    TechForgeError,
    status_error,
)
from techforge.models import Job, SignedUrl, Video
from techforge.policy.polling import PollSchedule
from techforge.tracking import DONE, FAILED, AsyncTracker, JobState, JobUpdate, Tracker

DEFAULT_TIMEOUT = 1800.0
OnUpdate = Callable[[JobUpdate], Awaitable[None] | None]

_NOT_THERE = frozenset({403, 404, 410, 416})
_TOTAL = re.compile(r"bytes (?:\d+-\d+|\*)/(\d+)")


def check_job(job: object) -> Job:
    """Return the job, or say what to pass instead."""
    if not isinstance(job, Job):
        raise InvalidArgumentError(
            "job", "must be a Job; jobs.from_ids(job_id, project_id) makes one from its ids"
        )
    return job


def find(job: Job, settings: Settings, deadline: float) -> Flow[Video | None]:
    """Return the job's video if storage has it, None if it has not (yet).

    A signature alone does not prove that there is an object, so its first byte is asked for.
    """
    try:
        signed = yield from sign(job.output_path, settings, deadline)
    except NotFoundError:
        return None
    answer = yield from open_signed(signed, {"range": "bytes=0-0"}, settings, deadline)
    yield Close()
    if answer.status_code in {200, 206}:
        return _video(job, signed, answer)
    if answer.status_code in _NOT_THERE:
        return None
    raise status_error(
        answer.status_code,
        "storage would not say whether the object is there",
        method="GET",
        path=job.output_path,
        retry_after=answer.retry_after,
    )


def look(job: Job, settings: Settings) -> Flow[Video | None]:
    """Look once for the job's video."""
    return find(check_job(job), settings, math.inf)


def _video(job: Job, signed: SignedUrl, answer: Opened) -> Video:
    return Video(
        job=evolve(job, status="done"),
        signed=signed,
        size=total_size(answer),
        etag=answer.headers.get("etag"),
        content_type=answer.headers.get("content-type"),
    )


def total_size(answer: Opened) -> int | None:
    """Return the size of the whole object, in bytes, if the answer tells it."""
    if answer.status_code == 200:
        length = answer.headers.get("content-length", "")
        return int(length) if length.isascii() and length.isdigit() else None
    match = _TOTAL.fullmatch(answer.headers.get("content-range", ""))
    return int(match[1]) if match else None


def wait(
    job: Job,
    settings: Settings,
    *,
    timeout: float = DEFAULT_TIMEOUT,
    poll: PollSchedule | float | None = None,
    tracker: Tracker | AsyncTracker | None = None,
    on_update: OnUpdate | None = None,
) -> Flow[Video]:
    """Wait until the job's video is there; `Jobs.wait` says what the arguments mean."""
    check_job(job)
    schedule = _schedule(poll)
    # Polling is not retrying: the next poll is the retry.
    return _Wait(job, settings.once(), schedule, tracker, on_update).run(_checks.seconds("timeout", timeout))


def _schedule(poll: PollSchedule | float | None) -> PollSchedule:
    if isinstance(poll, PollSchedule):
        return poll
    return PollSchedule() if poll is None else PollSchedule.every(_checks.seconds("poll", poll))


def create_and_wait(
    settings: Settings,
    params: JobParams,
    *,
    timeout: float = DEFAULT_TIMEOUT,
    poll: PollSchedule | float | None = None,
    tracker: Tracker | AsyncTracker | None = None,
    on_update: OnUpdate | None = None,
) -> Flow[Video]:
    """Submit a job and wait for its video; everything is checked before anything is sent."""
    waiting = partial(
        wait,
        settings=settings,
        timeout=_checks.seconds("timeout", timeout),
        poll=_schedule(poll),
        tracker=tracker,
        on_update=on_update,
    )
    return _create_and_wait(create(settings, **params), waiting)


def _create_and_wait(creation: Flow[Job], waiting: Callable[[Job], Flow[Video]]) -> Flow[Video]:
    return (yield from waiting((yield from creation)))


@define
class _Wait:
    """One wait, and what it has learnt so far."""

    job: Job
    settings: Settings
    schedule: PollSchedule
    tracker: Tracker | AsyncTracker | None
    on_update: OnUpdate | None
    message: str | None = None
    started: float = 0.0
    polls: int = 0
    failures: int = 0
    last_error: Exception | None = None

    def run(self, timeout: float) -> Flow[Video]:
        now = self.settings.now
        self.started = now()
        deadline = self.started + timeout
        try:
            yield from self._report()
            while True:
                pause = self.schedule.interval(self.polls, self.settings.random())
                self.polls += 1
                video = yield from self._tolerant_poll(deadline)
                yield from self._report()
                if video is not None:
                    logger.info("job %s done after %d polls", self.job.id, self.polls)
                    return video
                yield Sleep(self._pause(pause, deadline))
                self._check(deadline)
        except GeneratorExit:
            raise
        except BaseException as error:
            self._keep_job(error)
            raise

    def _tolerant_poll(self, deadline: float) -> Flow[Video | None]:
        try:
            video = yield from self._poll(deadline)
        except JobFailedError:
            yield from self._report()
            raise
        except Exception as error:  # noqa: BLE001 - a tracker is the user's, and may fail in any way
            # At the deadline the timeout speaks, and names this error as the last one.
            if self.settings.now() < deadline:
                self._tolerate(error)
            self.last_error = error
            return None
        self.failures, self.last_error = 0, None
        return video

    def _poll(self, deadline: float) -> Flow[Video | None]:
        if self.tracker is not None:
            remaining = deadline - self.settings.now()
            said = yield from invoke(self.tracker.check, self.job, timeout=remaining)
            if said is None:
                return None
            state = said if isinstance(said, JobState) else JobState(str(said))
            self.message = state.message
            self.job = evolve(
                self.job,
                status=state.status,
                message=state.message,
                output_path=state.output_path or self.job.output_path,
            )
            if state.status.lower() in FAILED:
                raise JobFailedError(self.job, state.message)
            if state.status.lower() not in DONE:
                return None
        video = yield from find(self.job, self.settings, deadline)
        if video is not None:
            self.job = video.job
        return video

    def _tolerate(self, error: Exception) -> None:
        """Count a failed poll; raise it if waiting on would not help."""
        if isinstance(error, RateLimitError):
            return
        self.failures += 1
        hopeless = not is_passing(error) if isinstance(error, APIError) else isinstance(error, TechForgeError)
        if hopeless or self.failures > self.schedule.max_failures:
            raise error

    def _report(self) -> Flow[None]:
        if self.on_update is not None:
            elapsed = self.settings.now() - self.started
            update = JobUpdate(self.job, self.job.status, self.message, elapsed, self.polls)
            yield from invoke(self.on_update, update)

    def _pause(self, pause: float, deadline: float) -> float:
        """Return the seconds to sleep; raise where there is no time left for what was asked."""
        left = deadline - self.settings.now()
        asked = getattr(self.last_error, "retry_after", None) or 0.0
        if asked >= left:
            raise self._timed_out()
        return min(max(pause, asked), left)

    def _check(self, deadline: float) -> None:
        if self.settings.now() >= deadline:
            raise self._timed_out()

    def _timed_out(self) -> JobTimeoutError:
        return JobTimeoutError(
            self.job,
            last_status=self.job.status,
            elapsed=self.settings.now() - self.started,
            polls=self.polls,
            last_error=self.last_error,
        )

    def _keep_job(self, error: BaseException) -> None:
        if isinstance(error, TechForgeError):
            error.job = self.job
        if not isinstance(error, JobError):
            ids = f"{self.job.id!r}, {self.job.project_id!r}"
            error.add_note(f"techforge: the job goes on; wait again with jobs.wait(jobs.from_ids({ids}))")
