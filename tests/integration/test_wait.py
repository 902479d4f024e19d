"""Waiting for a video over real sockets: polls of storage, trackers and deadlines."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from techforge import (
    APIError,
    APITimeoutError,
    AsyncTechForge,
    AuthenticationError,
    ConfigurationError,
    InternalServerError,
    InvalidArgumentError,
    Job,
    JobFailedError,
    JobState,
    JobTimeoutError,
    JobUpdate,
    PollSchedule,
    RateLimitError,
    TechForge,
    TechForgeError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from techforge.mock import MockServer

SIGN, STORAGE = "generateSignedPath", "storage"


class Says:
    """A tracker that returns or raises its values one by one, and then repeats the last."""

    def __init__(self, *answers: Any) -> None:
        """Store the values."""
        self.answers = list(answers)
        self.asked: list[Job] = []

    def check(self, job: Job) -> Any:
        """Say the next thing."""
        self.asked.append(job)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer


class SaysAsync(Says):
    """The same for the async client."""

    async def check(self, job: Job) -> Any:
        """Say the next thing, a little later."""
        await asyncio.sleep(0)
        return super().check(job)


@pytest.fixture
def tracker(colour: str) -> Callable[..., Says]:
    """Return a tracker for the client, sync or async."""
    return Says if colour == "sync" else SaysAsync


def leads_to(mock: MockServer, url: str) -> None:
    """Let the API return this URL for every storage key, whether or not an object exists."""
    answer = f'{{"signedUrl":"{url}","expiresAt":"2030-01-01T00:00:00Z"}}'
    mock.faults.add(f"status=200;json={answer};operation={SIGN};times=0")


def operations(mock: MockServer) -> list[str | None]:
    """Return the operations of all requests, in order."""
    return [record.operation for record in mock.journal.requests()]


# --- by storage alone -----------------------------------------------------------------------------


def test_from_waiting_to_done(both: Any, mock: MockServer, media: dict[str, str]) -> None:
    """A 404 means "not yet". The video has size, type, path and a finished job."""
    mock.store.pace = type(mock.store.pace)(polls=2)
    job = both.jobs.create(**media)
    updates: list[JobUpdate] = []
    video = both.jobs.wait(job, poll=0.02, timeout=10, on_update=updates.append)
    assert operations(mock) == ["createJob", SIGN, SIGN, SIGN, STORAGE]
    stored = mock.store.get(job.output_path)
    assert stored is not None
    assert (video.size, video.etag, video.content_type) == (len(stored.data), stored.etag, "video/mp4")
    assert (video.job.id, video.job.status, video.path) == (job.id, "done", job.output_path)
    assert video.url.startswith(mock.storage_url)
    assert video.expires_at is not None
    assert video.expires_at.tzinfo is not None
    assert [(u.polls, u.status) for u in updates] == [
        (0, "queued"),
        (1, "queued"),
        (2, "queued"),
        (3, "done"),
    ]
    assert [u.elapsed for u in updates] == sorted(u.elapsed for u in updates)


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_signature_proves_nothing(both: Any, mock: MockServer, done: Job, status: int) -> None:
    """If storage has no object behind a signed URL, the wait continues."""
    mock.faults.add(f"cdn-status={status};times=2")
    video = both.jobs.wait(done, poll=0.02, timeout=10)
    assert video.job.status == "done"
    assert operations(mock) == [SIGN, STORAGE] * 3


def test_a_poll_requests_one_byte_without_our_key(both: Any, mock: MockServer, done: Job) -> None:
    """Each poll sends one request to storage, without the key or other headers for the API."""
    mock.faults.add("cdn-status=404;times=2")
    both.with_options(default_headers={"x-team": "blue"}).jobs.wait(done, poll=0.02, timeout=10)
    looks = mock.journal.requests(server="storage")
    assert [look.headers.get("range") for look in looks] == ["bytes=0-0"] * 3
    for look in looks:
        assert look.headers.keys() == {"host", "accept", "accept-encoding", "range"}
        assert mock.api_key not in repr(sorted(look.headers.items())) + look.query


def test_a_storage_that_ignores_the_range(both: Any, mock: MockServer, done: Job, stopwatch: Any) -> None:
    """If storage sends the whole object, the poll does not read it, and still knows its size."""
    mock.store.put(done.output_path, b"x" * 50_000_000)
    mock.faults.add("cdn-ignore-range=1;times=0")
    with stopwatch:
        assert both.jobs.find(done).size == 50_000_000
    assert stopwatch.seconds < 1.0


@pytest.mark.lying("no expiresAt")
def test_a_response_without_an_expiry(both: Any, mock: MockServer, done: Job) -> None:
    """If `expiresAt` is missing, the expiry is None."""
    url = both.storage.sign(done.output_path).url
    mock.faults.add(f'json={{"signedUrl":"{url}"}};operation={SIGN};times=0')
    video = both.jobs.find(done)
    assert video is not None
    assert (video.url, video.expires_at) == (url, None)


def test_find_polls_once(both: Any, mock: MockServer, done: Job) -> None:
    """`find` returns None if the video does not exist yet."""
    assert both.jobs.find(Job("a" * 8, done.project_id)) is None
    assert both.jobs.find(done).job == done
    assert operations(mock) == [SIGN, SIGN, STORAGE]


def test_a_fixed_poll_interval(both: Any, mock: MockServer, done: Job) -> None:
    """`poll=0.1` means a pause of a tenth of a second between polls, in sync and async."""
    mock.faults.add("cdn-status=404;times=3")
    both.jobs.wait(done, poll=0.1, timeout=10)
    times = [record.time for record in mock.journal.requests(operation=SIGN)]
    assert [b - a >= 0.095 for a, b in itertools.pairwise(times)] == [True] * 3


def test_a_poll_that_is_redirected(
    both: Any, mock: MockServer, scripted: Callable[..., Any], done: Job
) -> None:
    """Storage may redirect polls, as it may redirect downloads."""
    url = both.storage.sign(done.output_path).url
    text = f"HTTP/1.1 302 Found\r\nlocation: {url}\r\ncontent-length: 0\r\n\r\n"
    server = scripted(lambda _head, _connection: text.encode())
    leads_to(mock, f"{server.url}/x?signature=s")
    assert both.jobs.wait(done, poll=0.02, timeout=2).job.status == "done"


# --- by a tracker ---------------------------------------------------------------------------------


def test_a_tracker_that_says_failed(both: Any, mock: MockServer, done: Job, tracker: Any) -> None:
    """The wait ends at once with the tracker's reason, without a request to storage."""
    updates: list[JobUpdate] = []
    with pytest.raises(JobFailedError, match="no face found") as caught:
        both.jobs.wait(
            done,
            tracker=tracker("processing", JobState("FAILED", message="no face found")),
            poll=0.02,
            on_update=updates.append,
        )
    assert (caught.value.reason, caught.value.job.id) == ("no face found", done.id)
    assert caught.value.job.status == "FAILED"
    assert [u.status for u in updates] == ["done", "processing", "FAILED"]
    assert updates[-1].message == "no face found"
    assert mock.journal.count() == 0


@pytest.mark.parametrize("word", ["done", "Success", "DONE"])
def test_a_tracker_that_says_done(both: Any, mock: MockServer, done: Job, tracker: Any, word: str) -> None:
    """An unknown status continues the wait. `done` and `success`, in any case, poll storage."""
    asked = tracker("queued", "QUANTUM", "in_progress", "", word)
    video = both.jobs.wait(done, tracker=asked, poll=0.02, timeout=10)
    assert video.job.id == done.id
    assert [job.status for job in asked.asked] == ["done", "queued", "QUANTUM", "in_progress", ""]
    assert operations(mock) == [SIGN, STORAGE]


def test_a_tracker_ahead_of_storage(both: Any, mock: MockServer, done: Job, tracker: Any) -> None:
    """If storage has no object yet, the wait continues."""
    mock.faults.add("cdn-status=404;times=2")
    assert both.jobs.wait(done, tracker=tracker("done"), poll=0.02, timeout=10).job.id == done.id
    assert operations(mock) == [SIGN, STORAGE] * 3


def test_a_tracker_knows_where_the_video_is(both: Any, mock: MockServer, done: Job, tracker: Any) -> None:
    """A tracker's `output_path` replaces the job's storage key."""
    mock.store.put("elsewhere/video.mp4", b"other")
    where = tracker(JobState("done", output_path="elsewhere/video.mp4"))
    video = both.jobs.wait(done, tracker=where, poll=0.02, timeout=10)
    assert (video.path, video.job.output_path, video.size) == (
        "elsewhere/video.mp4",
        "elsewhere/video.mp4",
        5,
    )


def test_a_tracker_may_fail(both: Any, done: Job, tracker: Any) -> None:
    """Up to `max_failures` failures in a row are tolerated. A success resets the count."""
    broken = [OSError("db")] * 2
    asked = tracker(*broken, "processing", *broken, "done")
    poll = PollSchedule(initial=0.02, factor=1, maximum=0.02, max_failures=2)
    assert both.jobs.wait(done, tracker=asked, poll=poll, timeout=10).job.id == done.id
    assert len(asked.asked) == 6


def test_a_tracker_that_keeps_failing(both: Any, done: Job, tracker: Any) -> None:
    """Beyond `max_failures`, its own exception is raised, with a note of the job's ids."""
    asked = tracker(OSError("db is down"))
    poll = PollSchedule(initial=0.02, factor=1, maximum=0.02, max_failures=2)
    with pytest.raises(OSError, match="db is down") as caught:
        both.jobs.wait(done, tracker=asked, poll=poll, timeout=10)
    assert len(asked.asked) == 3
    (note,) = caught.value.__notes__
    assert f"jobs.from_ids({done.id!r}, {done.project_id!r})" in note


def test_an_async_tracker_is_refused_by_the_sync_client(client: TechForge, done: Job) -> None:
    """Otherwise its coroutine would be taken for a status."""
    with pytest.raises(TechForgeError) as caught:
        client.jobs.wait(done, tracker=SaysAsync("done"), poll=0.02, timeout=0.2)  # type: ignore[arg-type]
    assert not isinstance(caught.value, JobTimeoutError)


def test_an_async_on_update_is_refused_by_the_sync_client(client: TechForge, done: Job) -> None:
    """It would never run, so the call raises an error."""

    async def note(_update: JobUpdate) -> None:
        raise AssertionError

    with pytest.raises(TechForgeError):
        client.jobs.wait(done, on_update=note, poll=0.02, timeout=1)


async def test_an_async_on_update_is_awaited(async_client: AsyncTechForge, done: Job) -> None:
    """The async client awaits `on_update` and `on_progress` if they are async."""
    heard: list[str] = []

    async def note(update: JobUpdate) -> None:
        await asyncio.sleep(0)
        heard.append(update.status)

    await async_client.jobs.wait(done, on_update=note, poll=0.02, timeout=5)
    assert heard == ["done", "done"]


async def test_a_tracker_that_hangs(async_client: AsyncTechForge, done: Job) -> None:
    """An async tracker that hangs ends at the wait's deadline."""

    class Hangs:
        async def check(self, _job: Job) -> str:
            await asyncio.sleep(30)
            return "done"

    started = time.monotonic()
    with pytest.raises(JobTimeoutError):
        await async_client.jobs.wait(done, tracker=Hangs(), timeout=0.3)
    assert time.monotonic() - started < 0.8


# --- never past the deadline ----------------------------------------------------------------------


def test_a_job_that_takes_too_long(
    both: Any, mock: MockServer, media: dict[str, str], stopwatch: Any
) -> None:
    """The timeout error has the job, and says how to wait again."""
    mock.store.pace = type(mock.store.pace)(seconds=60)
    job = both.jobs.create(**media)
    with stopwatch, pytest.raises(JobTimeoutError) as caught:
        both.jobs.wait(job, poll=0.05, timeout=1.0)
    error = caught.value
    assert 0.97 <= stopwatch.seconds < 1.5
    assert isinstance(error, TimeoutError)
    assert (error.job, error.last_status) == (job, "queued")
    # A poll may have been on its way at the deadline; one that was never sent is no failure to speak of.
    on_its_way = error.last_error is not None
    assert not on_its_way or isinstance(error.last_error, APITimeoutError)
    assert "before it was sent" not in str(error)
    assert error.polls - on_its_way <= mock.journal.count(operation=SIGN) <= error.polls
    assert error.polls >= 2
    assert 0.97 <= error.elapsed < 1.5
    assert f"jobs.from_ids({job.id!r}, {job.project_id!r})" in str(error)


@pytest.mark.parametrize("where", [SIGN, STORAGE])
def test_a_hung_server(both: Any, mock: MockServer, done: Job, where: str, stopwatch: Any) -> None:
    """A server that never responds cannot extend a wait beyond its deadline."""
    mock.faults.add(f"delay=30;operation={where};times=0")
    with stopwatch, pytest.raises(JobTimeoutError) as caught:
        both.jobs.wait(done, poll=0.05, timeout=0.4)
    assert stopwatch.seconds < 0.9
    assert isinstance(caught.value.last_error, APIError)


def test_a_storage_whose_head_drips(
    both: Any, mock: MockServer, scripted: Callable[..., Any], done: Job, stopwatch: Any
) -> None:
    """The same for a response whose headers arrive byte by byte."""
    head = b"HTTP/1.1 206 OK\r\nx-long: " + b"x" * 40
    server = scripted(lambda _head, connection: server.drip(connection, head, 0.05))
    leads_to(mock, f"{server.url}/x?signature=s")
    with stopwatch, pytest.raises(JobTimeoutError):
        both.jobs.wait(done, poll=0.05, timeout=0.4)
    assert stopwatch.seconds < 0.9


def test_a_pause_beyond_the_deadline(both: Any, mock: MockServer, done: Job, stopwatch: Any) -> None:
    """A 429 with a longer pause ends the wait at once, and the error has the pause."""
    mock.faults.add(f"status=429;retry-after=60;operation={SIGN}")
    with stopwatch, pytest.raises(JobTimeoutError) as caught:
        both.jobs.wait(done, poll=0.02, timeout=5)
    assert (caught.value.retry_after, caught.value.polls) == (60, 1)
    assert isinstance(caught.value.last_error, RateLimitError)
    assert stopwatch.seconds < 0.5


@pytest.mark.lying("HTML among the failures")
def test_failed_polls_do_not_end_a_wait(both: Any, mock: MockServer, done: Job) -> None:
    """A 5xx, a lost connection and a refused connection are tolerated."""
    mock.faults.add(
        f"status=503;operation={SIGN}",
        f"close=after-body;operation={SIGN}",
        f"status=429;operation={SIGN};times=2",
        "cdn-status=500",
        f"body=html;operation={SIGN}",
    )
    video = both.jobs.wait(done, poll=0.02, timeout=10)
    assert video.job.status == "done"
    assert mock.journal.count(operation=SIGN) == 7


def test_too_many_failed_polls_end_a_wait(both: Any, mock: MockServer, done: Job) -> None:
    """Beyond `max_failures` in a row the last failure is raised, with the job."""
    mock.faults.add(f"status=503;operation={SIGN};times=0")
    poll = PollSchedule(initial=0.02, factor=1, maximum=0.02, max_failures=2)
    with pytest.raises(InternalServerError) as caught:
        both.jobs.wait(done, poll=poll, timeout=10)
    assert mock.journal.count(operation=SIGN) == 3
    assert caught.value.job == done
    assert done.id in caught.value.__notes__[0]


def test_a_permanent_failure_ends_a_wait(connect: Callable[..., Any], mock: MockServer, done: Job) -> None:
    """A wrong key ends the wait at once, and the error has the job."""
    with pytest.raises(AuthenticationError) as caught:
        connect("wrong", base_url=mock.url).jobs.wait(done, poll=0.02, timeout=10)
    assert mock.journal.count() == 1
    assert caught.value.job == done


# --- continuing -----------------------------------------------------------------------------------

PROGRAM = {
    "sync": """
import sys
from techforge import TechForge
with TechForge() as client:
    job = client.jobs.from_ids(*sys.argv[1:])
    video = client.jobs.wait(job, poll=0.05, timeout=30)
    print(video.job.status, video.size)
""",
    "async": """
import asyncio, sys
from techforge import AsyncTechForge
async def main():
    async with AsyncTechForge() as client:
        job = client.jobs.from_ids(*sys.argv[1:])
        video = await client.jobs.wait(job, poll=0.05, timeout=30)
        print(video.job.status, video.size)
asyncio.run(main())
""",
}


def test_another_process_waits(colour: str, both: Any, mock: MockServer, media: dict[str, str]) -> None:
    """It needs only the two ids of the job."""
    mock.store.pace = type(mock.store.pace)(polls=3)
    with pytest.raises(JobTimeoutError) as caught:
        both.jobs.create_and_wait(**media, poll=10, timeout=0.05)
    job = caught.value.job
    assert job is not None
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM[colour], job.id, job.project_id],
        env={
            "PYTHONPATH": ":".join(filter(None, sys.path)),
            "TFI_API_KEY": mock.api_key,
            "TFI_BASE_URL": mock.url,
        },
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    stored = mock.store.get(job.output_path)
    assert stored is not None
    assert (run.returncode, run.stderr, run.stdout) == (0, "", f"done {len(stored.data)}\n")
    assert mock.journal.count(operation="createJob") == 1


def test_from_ids_checks_and_sends_nothing(both: Any, mock: MockServer, done: Job) -> None:
    """Ids are checked, because the storage key contains them."""
    job = both.jobs.from_ids(done.id, done.project_id.upper(), output_path="elsewhere/a.mp4")
    assert job == Job(done.id, done.project_id, output_path="elsewhere/a.mp4")
    for wrong in (("../..", done.project_id), (done.id, ""), (done.project_id, "1/2")):
        with pytest.raises(InvalidArgumentError):
            both.jobs.from_ids(*wrong)
    with pytest.raises(InvalidArgumentError):
        both.jobs.from_ids(done.id, done.project_id, output_path="../x")
    assert mock.journal.count() == 0


def test_create_and_wait(both: Any, mock: MockServer, media: dict[str, str]) -> None:
    """One call from two URLs to a video. `on_update` gets the job id before the first poll."""
    heard: list[tuple[int, str, int]] = []

    def note(update: JobUpdate) -> None:
        heard.append((update.polls, update.job.id, mock.journal.count(operation=SIGN)))

    video = both.jobs.create_and_wait(**media, poll=0.02, timeout=10, on_update=note)
    assert heard == [(0, video.job.id, 0), (1, video.job.id, 1)]
    assert operations(mock) == ["createJob", SIGN, STORAGE]


@pytest.mark.parametrize(
    ("fault", "options", "kind"),
    [
        (f"status=404;operation={SIGN};times=0", {"timeout": 0.2}, JobTimeoutError),
        pytest.param(
            f"status=403;operation={SIGN};times=0",
            {"timeout": 5},
            APIError,
            marks=pytest.mark.lying("a status that signing does not have"),
        ),
        (f"status=503;operation={SIGN};times=0", {"timeout": 5}, InternalServerError),
        (f"status=429;retry-after=60;operation={SIGN}", {"timeout": 5}, JobTimeoutError),
    ],
)
def test_errors_after_the_submission_carry_the_job(
    both: Any,
    connect: Callable[..., Any],
    mock: MockServer,
    media: dict[str, str],
    fault: str,
    options: Any,
    kind: type[TechForgeError],
) -> None:
    """Every error after the submission has the paid job."""
    mock.faults.add(fault)
    with pytest.raises(kind) as caught:
        both.jobs.create_and_wait(**media, poll=0.02, **options)
    (record,) = mock.journal.requests(operation="createJob")
    assert caught.value.job is not None
    assert caught.value.job.id == record.job_id
    mock.faults.clear()
    another = connect(mock.api_key, base_url=mock.url)  # which no Retry-After makes pause
    assert another.jobs.wait(caught.value.job, poll=0.02, timeout=5).job.status == "done"


@pytest.mark.parametrize(
    "wrong",
    [{"timeout": 0}, {"timeout": -1}, {"timeout": float("nan")}, {"timeout": "1"}, {"poll": 0}, {"poll": -1},
     {"poll": float("inf")}, {"poll": "1"}],
)  # fmt: skip
def test_wrong_waits_cost_nothing(
    both: Any, mock: MockServer, media: dict[str, str], wrong: dict[str, Any]
) -> None:
    """A wrong `timeout` or `poll` is refused before the job is submitted."""
    with pytest.raises(InvalidArgumentError):
        both.jobs.create_and_wait(**media, **wrong)
    assert mock.journal.count() == 0


def test_an_id_instead_of_a_job_is_refused(both: Any, mock: MockServer, done: Job) -> None:
    """The error says how to make a job from ids."""
    for call in (both.jobs.wait, both.jobs.find):
        with pytest.raises(InvalidArgumentError, match="from_ids"):
            call(done.id)
    assert mock.journal.count() == 0


# --- ending a wait from outside -------------------------------------------------------------------


@pytest.mark.parametrize("where", ["between two polls", "during a request"])
def test_close_ends_a_wait_in_another_thread(mock: MockServer, done: Job, where: str) -> None:
    """`close()` ends a wait at once, between polls or during a request."""
    if where == "during a request":
        mock.faults.add(f"delay=30;operation={SIGN};times=0")
    else:
        mock.faults.add("cdn-status=404;times=0")
    client = TechForge(mock.api_key, base_url=mock.url)
    ended: list[tuple[float, BaseException]] = []

    def wait() -> None:
        try:
            client.jobs.wait(done, poll=1.5, timeout=3)
        except TechForgeError as error:
            ended.append((time.monotonic(), error))

    thread = threading.Thread(target=wait)
    thread.start()
    _until(lambda: mock.journal.count() >= (1 if where == "during a request" else 2))
    time.sleep(0.1)
    closed = time.monotonic()
    client.close()
    thread.join()
    ((at, error),) = ended
    assert isinstance(error, ConfigurationError), error
    assert error.job == done
    assert at - closed < 0.2


@pytest.mark.parametrize("where", ["between two polls", "during a request"])
async def test_close_ends_a_wait_in_another_task(mock: MockServer, done: Job, where: str) -> None:
    """The same for the async client."""
    if where == "during a request":
        mock.faults.add(f"delay=30;operation={SIGN};times=0")
    else:
        mock.faults.add("cdn-status=404;times=0")
    client = AsyncTechForge(mock.api_key, base_url=mock.url)
    task = asyncio.create_task(client.jobs.wait(done, poll=30, timeout=30))
    await asyncio.sleep(0.3)
    closed = time.monotonic()
    await client.close()
    with pytest.raises(ConfigurationError) as caught:
        await task
    assert time.monotonic() - closed < 0.2
    assert caught.value.job == done


@pytest.mark.parametrize(
    "fault", [f"delay=30;operation={SIGN}", "delay=30;operation=storage", "cdn-status=404"]
)
async def test_a_cancelled_wait(mock: MockServer, done: Job, fault: str) -> None:
    """A cancellation is fast, leaves nothing open, and notes how to continue."""
    mock.faults.add(f"{fault};times=0")
    async with AsyncTechForge(mock.api_key, base_url=mock.url) as client:
        task = asyncio.create_task(client.jobs.wait(done, poll=30, timeout=30))
        await asyncio.sleep(0.2)
        task.cancel()
        started = time.monotonic()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert time.monotonic() - started < 0.2
        notes = [note for error in _chain(caught.value) for note in getattr(error, "__notes__", ())]
        assert any(done.id in note and done.project_id in note for note in notes), notes
        assert inspect.getcoroutinestate(task.get_coro()) == inspect.CORO_CLOSED  # type: ignore[arg-type]


async def test_a_cancelled_submission(mock: MockServer, media: dict[str, str]) -> None:
    """A cancelled `create` notes the project in which a job may exist."""
    mock.faults.add("delay=30;operation=createJob")
    async with AsyncTechForge(mock.api_key, base_url=mock.url) as client:
        task = asyncio.create_task(client.jobs.create(**media))  # type: ignore[arg-type]
        await asyncio.to_thread(_until, lambda: mock.journal.count() == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
    project = json.loads(mock.journal.requests()[0].body)["project_id"]
    notes = [note for error in _chain(caught.value) for note in getattr(error, "__notes__", ())]
    assert any(project in note for note in notes), notes


def _chain(error: BaseException) -> Iterable[BaseException]:
    # Awaiting a cancelled task raises a new CancelledError, whose context is the one inside the task.
    here: BaseException | None = error
    while here is not None:
        yield here
        here = here.__context__


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)
