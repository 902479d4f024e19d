"""Wait for a video: ask the tracker, then storage; sleep; poll again until the deadline."""

import math
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

from attrs import define, evolve

from techforge import _checks
from techforge._config import Settings
from techforge._flow import Close, Flow, Opened, Sleep, invoke, read
from techforge._flows.create import create
from techforge._flows.request import MIN_ATTEMPT_SECONDS, is_temporary, was_attempted
from techforge._flows.storage import open_signed, sign
from techforge._logging import logger
from techforge.errors import (
    APIError,
    APIStatusError,
    InvalidArgumentError,
    JobError,
    JobFailedError,
    JobTimeoutError,
    NotFoundError,
    RateLimitError,
    TechForgeError,
    status_error,
)
from techforge.models import NO_STATUS, Job, SignedUrl, Video
from techforge.params import JobParams
from techforge.policy.polling import PollSchedule
from techforge.tracking import DONE, FAILED, WAITING, AsyncTracker, JobState, JobUpdate, Tracker

DEFAULT_TIMEOUT = 1800.0
OnUpdate = Callable[[JobUpdate], Awaitable[None] | None]

_NOT_FOUND = frozenset({403, 404, 410, 416})
_BODY_TIMEOUT = 0.5
"""How long to wait for the one byte of the body, in seconds. Without it, the connection is closed."""
_TOTAL = re.compile(r"bytes (?:\d+-\d+|\*)/(\d+)")


def check_job(job: object) -> Job:
    """Return the job, or raise an error that says what to pass instead."""
    if not isinstance(job, Job):
        raise InvalidArgumentError(
            "job", "must be a Job; make one from its ids with jobs.from_ids(job_id, project_id)"
        )
    return job


def find(job: Job, settings: Settings, deadline: float) -> Flow[Video | APIStatusError]:
    """Return the job's video if storage has it, otherwise the error response.

    The API may sign a URL before the object exists, so this also requests its first byte.
    """
    try:
        signed = yield from sign(job.output_path, settings, deadline)
    except NotFoundError as error:
        return error
    response = yield from open_signed(signed, {"range": "bytes=0-0"}, settings, deadline)
    if response.status_code == 206:
        yield from _read_remaining()
    yield Close()
    if response.status_code in {200, 206}:
        return _video(job, signed, response)
    refusal = status_error(
        response.status_code,
        "storage refused the signed URL",
        method="GET",
        path=job.output_path,
        retry_after=response.retry_after,
    )
    if response.status_code in _NOT_FOUND:
        return refusal
    raise refusal


def _read_remaining() -> Flow[None]:
    """Read the one byte of the body, so that the connection can be used again."""
    with suppress(APIError):
        if (yield from read(_BODY_TIMEOUT)):
            yield from read(_BODY_TIMEOUT)


def poll_once(
    job: Job, settings: Settings, tracker: Tracker | AsyncTracker | None = None
) -> Flow[Video | None]:
    """Poll the tracker, if any, and then storage once."""
    return _Wait(check_job(job), settings, PollSchedule(), tracker, None).poll()


def _video(job: Job, signed: SignedUrl, response: Opened) -> Video:
    return Video(
        job=evolve(job, status="done"),
        signed=signed,
        size=total_size(response),
        etag=response.headers.get("etag"),
        content_type=response.headers.get("content-type"),
    )


def total_size(response: Opened) -> int | None:
    """Return the size of the whole object, in bytes, or None if the response does not say."""
    if response.status_code == 200:
        length = response.headers.get("content-length", "")
        return int(length) if length.isascii() and length.isdigit() else None
    match = _TOTAL.fullmatch(response.headers.get("content-range", ""))
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
    """Wait until the job's video is ready. `Jobs.wait` documents the arguments."""
    check_job(job)
    if tracker is not None and not callable(getattr(tracker, "check", None)):
        raise InvalidArgumentError("tracker", "must have a method check(job)")
    schedule = _schedule(poll)
    # No retries within a poll: the next poll is the retry.
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
    """Submit a job and wait for its video. All arguments are checked before anything is sent."""
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
    """The state of one wait."""

    job: Job
    settings: Settings
    schedule: PollSchedule
    tracker: Tracker | AsyncTracker | None
    on_update: OnUpdate | None
    message: str | None = None
    started: float = 0.0
    deadline: float = math.inf
    polls: int = 0
    failures: int = 0
    last_error: Exception | None = None

    def run(self, timeout: float) -> Flow[Video]:
        self.started = self.settings.now()
        self.deadline = self.started + timeout
        try:
            yield from self._report()
            if self.tracker is None:
                self._raise_if_failed(self.job.message)
            while True:
                pause = self.schedule.interval(self.polls, self.settings.random())
                self.polls += 1
                video = yield from self._tolerant_poll()
                yield from self._report()
                if video is not None:
                    logger.info("job %s done after %d polls", self.job.id, self.polls)
                    return video
                yield Sleep(self._pause(pause))
                # Twice, so that enough time is left when the poll sends its request.
                self._require_time(2 * MIN_ATTEMPT_SECONDS)
        except GeneratorExit:
            raise
        except BaseException as error:
            self._attach_job(error)
            raise

    def _tolerant_poll(self) -> Flow[Video | None]:
        try:
            video = yield from self.poll()
        except JobFailedError:
            yield from self._report()
            raise
        except Exception as error:  # noqa: BLE001 - a tracker is user code, and may raise anything
            if isinstance(error, APIError) and not was_attempted(error):
                # No request was sent: this does not count as a failed poll, and must not hide one.
                if error.retry_after is not None and not isinstance(self.last_error, RateLimitError):
                    self.last_error = error
                return None
            # At the deadline, JobTimeoutError reports this error as the last one.
            if self.settings.now() < self.deadline:
                self._tolerate(error)
            self.last_error = error
            return None
        self.failures = 0
        return video

    def poll(self) -> Flow[Video | None]:
        if self.tracker is not None:
            result = yield from invoke(self.tracker.check, self.job, timeout=self._remaining())
            self.last_error = None
            if result is None:
                return None
            self._update_job(result)
            self._raise_if_failed(self.message)
            if self.job.status.lower() not in DONE:
                return None
        found = yield from find(self.job, self.settings, self.deadline)
        if isinstance(found, Video):
            self.job = found.job
            return found
        # A 404 is normal while waiting. Any other status may be why the wait takes so long: keep it.
        self.last_error = None if isinstance(found, NotFoundError) else found
        return None

    def _raise_if_failed(self, reason: str | None) -> None:
        if self.job.status.lower() in FAILED:
            raise JobFailedError(self.job, reason)

    def _update_job(self, result: object) -> None:
        state = JobState(result) if isinstance(result, str) else result
        if not isinstance(state, JobState):
            raise InvalidArgumentError(
                "tracker", f"check() must return a str, a JobState or None, not a {type(result).__name__}"
            )
        self.message = state.message
        self.job = evolve(
            self.job,
            status=state.status,
            message=state.message,
            output_path=state.output_path or self.job.output_path,
        )

    def _tolerate(self, error: Exception) -> None:
        """Count a failed poll. Raise its error if more polls would not help."""
        if isinstance(error, RateLimitError):
            return
        self.failures += 1
        is_permanent = (
            not is_temporary(error) if isinstance(error, APIError) else isinstance(error, TechForgeError)
        )
        if is_permanent or self.failures > self.schedule.max_failures:
            raise error

    def _report(self) -> Flow[None]:
        if self.on_update is None:
            return
        elapsed = self.settings.now() - self.started
        status = WAITING if self.job.status == NO_STATUS else self.job.status
        update = JobUpdate(self.job, status, self.message, elapsed, self.polls)
        try:
            yield from invoke(self.on_update, update, timeout=self._remaining())
        except TimeoutError:
            # At the deadline, the wait itself ends with a better result or error.
            if self._remaining() > 0:
                raise

    def _remaining(self) -> float:
        return max(0.0, self.deadline - self.settings.now())

    def _pause(self, pause: float) -> float:
        retry_after = (self.last_error.retry_after or 0.0) if isinstance(self.last_error, APIError) else 0.0
        self._require_time(retry_after)
        return min(max(pause, retry_after), self._remaining())

    def _require_time(self, needed: float) -> None:
        if self._remaining() <= needed:
            raise JobTimeoutError(
                self.job,
                last_status=self.job.status,
                elapsed=self.settings.now() - self.started,
                polls=self.polls,
                last_error=self.last_error,
            )

    def _attach_job(self, error: BaseException) -> None:
        if isinstance(error, TechForgeError):
            error.job = self.job
        if not isinstance(error, JobError):
            ids = f"{self.job.id!r}, {self.job.project_id!r}"
            error.add_note(f"techforge: the job continues; wait again with jobs.wait(jobs.from_ids({ids}))")
