"""The state of the mock: jobs, their progress, and the objects in storage."""

import hashlib
import logging
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from threading import RLock
from typing import Any, Literal

from attrs import define, evolve, field, frozen

_logger = logging.getLogger(__name__)

Status = Literal["queued", "processing", "done", "failed"]

_QUEUED_SHARE = 0.1
"""The share of a job's duration that it is queued."""


@frozen
class Pace:
    """The duration of jobs: `seconds`, or a number of polls if `polls` is set."""

    seconds: float = 2.0
    polls: int | None = None

    def stage(self, age: float, polls: int) -> Literal["queued", "processing", "over"]:
        """Return the stage of a job that is `age` seconds old and was polled `polls` times."""
        progress, length = (age, self.seconds) if self.polls is None else (polls, self.polls)
        if progress >= length:
            return "over"
        return "queued" if progress < length * _QUEUED_SHARE else "processing"


@frozen
class Plan:
    """The plan for one job. None means as for all jobs."""

    pace: Pace | None = None
    video: bytes | None = field(default=None, repr=False)
    fails: str | None = None

    def render(self, start: Callable[[], Future[bytes]]) -> Future[bytes]:
        """Return the planned result, or start a real render if none is planned."""
        if self.video is None and self.fails is None:
            return start()
        planned: Future[bytes] = Future()
        if self.fails is None:
            planned.set_result(self.video or b"")
        else:
            planned.set_exception(RuntimeError(self.fails))
        return planned


@frozen
class StoredObject:
    """One object in storage."""

    data: bytes = field(repr=lambda data: f"<{len(data)} bytes>")
    content_type: str
    etag: str
    modified: float


@frozen
class JobView:
    """The state of a job at one poll."""

    job_id: str
    project_id: str
    status: Status
    message: str
    output_path: str


@define(eq=False)
class _Job:
    id: str
    project_id: str
    output_path: str
    accepted: float
    render: Future[bytes]
    pace: Pace
    polls: int = 0


@define(eq=False)
class Store:
    """Jobs and objects. It is safe to use from several threads."""

    pace: Pace
    start_render: Callable[[Mapping[str, Any]], Future[bytes]]
    output_path: Callable[[Mapping[str, Any], Mapping[str, Any]], str]
    clock: Callable[[], float] = time.monotonic
    wall_clock: Callable[[], float] = time.time
    plans: deque[Plan] = field(factory=deque[Plan], init=False, repr=False)
    """The plans for the next jobs."""
    _jobs: dict[str, _Job] = field(factory=dict[str, _Job], init=False, repr=False)
    _owners: dict[str, _Job] = field(factory=dict[str, _Job], init=False, repr=False)
    _running: dict[str, _Job] = field(factory=dict[str, _Job], init=False, repr=False)
    """The jobs whose end was not taken yet."""
    _objects: dict[str, StoredObject] = field(factory=dict[str, StoredObject], init=False, repr=False)
    _lock: RLock = field(factory=RLock, init=False, repr=False)

    def accept(self, request: Mapping[str, Any]) -> str:
        """Accept a valid job request, start its render, and return the job's id."""
        job_id = str(uuid.uuid4())
        with self._lock:
            plan = self.plans.popleft() if self.plans else Plan()
        job = _Job(
            id=job_id,
            project_id=request["project_id"],
            output_path=self.output_path(request, {"jobId": job_id}),
            accepted=self.clock(),
            render=plan.render(partial(self.start_render, request)),
            pace=plan.pace or self.pace,
        )
        with self._lock:
            self._jobs[job.id] = self._running[job.id] = self._owners[job.output_path] = job
        job.render.add_done_callback(partial(_report, job.id))
        return job.id

    def poll_job(self, job_id: str) -> JobView | None:
        """Poll a job by its id. This counts as a poll."""
        with self._lock:
            job = self._jobs.get(job_id)
            return self._poll(job) if job else None

    def take_ended(self) -> list[JobView]:
        """Return each job that has ended, once. This does not count as a poll."""
        with self._lock:
            ended = [job for job in self._running.values() if self._status(job)[0] in {"done", "failed"}]
            for job in ended:
                del self._running[job.id]
            return [self._view(job) for job in ended]

    def find_object(self, path: str) -> StoredObject | None:
        """Return an object. If it is the output of a job, this counts as a poll of that job."""
        with self._lock:
            job = self._owners.get(path)
            if job and path not in self._objects:
                self._poll(job)
            return self._objects.get(path)

    def get(self, path: str) -> StoredObject | None:
        """Return an object without polling its job."""
        with self._lock:
            return self._objects.get(path)

    def put(self, path: str, data: bytes, content_type: str = "video/mp4") -> StoredObject:
        """Create or replace an object."""
        etag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
        stored = StoredObject(data, content_type, etag, self.wall_clock())
        with self._lock:
            self._objects[path] = stored
        return stored

    def retag(self, path: str) -> None:
        """Give an object a new ETag, as if it had been written again."""
        with self._lock:
            if stored := self._objects.get(path):
                self._objects[path] = evolve(stored, etag=f'"{uuid.uuid4().hex}"')

    def clear(self) -> None:
        """Delete all jobs and objects."""
        with self._lock:
            self._jobs.clear()
            self._running.clear()
            self._owners.clear()
            self._objects.clear()
            self.plans.clear()

    def _poll(self, job: _Job) -> JobView:
        view = self._view(job)
        job.polls += 1
        return view

    def _view(self, job: _Job) -> JobView:
        status, message = self._status(job)
        if status == "done" and job.output_path not in self._objects:
            self.put(job.output_path, job.render.result())
        return JobView(job.id, job.project_id, status, message, job.output_path)

    def _status(self, job: _Job) -> tuple[Status, str]:
        stage = job.pace.stage(self.clock() - job.accepted, job.polls)
        if stage == "queued":
            return "queued", "Waiting for a worker."
        if stage == "processing" or not job.render.done():
            return "processing", "Rendering."
        if job.render.cancelled():
            return "failed", "The mock was stopped before the render was ready."
        if error := job.render.exception():
            return "failed", str(error)
        return "done", "The video is ready."


def _report(job_id: str, render: Future[bytes]) -> None:
    # API v1.0.0 does not report failed jobs, so the log does.
    if not render.cancelled() and (error := render.exception()):
        _logger.info("job %s failed: %s", job_id, error)
