"""The current client with a server of the next revision: nothing crashes, and no job is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest
from support.next_revision import NextRevision

from techforge import (
    BadRequestError,
    InvalidArgumentError,
    Job,
    JobFailedError,
    JobOutcomeUnknownError,
    JobState,
    JobTimeoutError,
    JobUpdate,
    NotFoundError,
)
from techforge.mock.renderer import tiny_video

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PROJECT = "468ea7a0-66e1-4357-a760-236e54167f3e"
NO_JOB = "00000000-0000-4000-8000-000000000000"
QUICK = {"poll": 0.01, "timeout": 5}

later = pytest.mark.lying("the server is of the next revision, the contract of v1.0.0")


@pytest.fixture
def server() -> Iterator[NextRevision]:
    """Return a server of the next revision."""
    with NextRevision() as server:
        yield server


@pytest.fixture
def client(connect: Callable[..., Any], server: NextRevision) -> Any:
    """Return today's client, in either colour, in front of that server."""
    return connect(server.api_key, base_url=server.url)


@pytest.fixture
def api(server: NextRevision) -> Iterator[httpx.Client]:
    """Return a plain client of the same server."""
    with httpx.Client(base_url=server.url, headers={"x-api-key": server.api_key}, trust_env=False) as api:
        yield api


class Rows:
    """A user's tracker, written for the revision: it reads the rows of `GET /jobs/{id}`."""

    def __init__(self, api: httpx.Client) -> None:
        """Ask over this client."""
        self.api = api

    def check(self, job: Job) -> JobState | None:
        """Return what the row says; no news where there is no such row."""
        row = self.api.get(f"/jobs/{job.id}").json()
        if "job_status" not in row:
            return None
        return JobState(row["job_status"], output_path=(row["output"] or {}).get("output"))


# Creating


@later
def test_a_job_is_a_job(client: Any, server: NextRevision, media: dict[str, str]) -> None:
    """The id has another place and the status another word: the paid job is returned."""
    job = client.jobs.create(**media, project_id=PROJECT, version=6, output_size=400, crop=True)
    assert list(server.rows) == [job.id]
    assert job == Job(job.id, PROJECT, "QUEUED")


@later
@pytest.mark.undeclared("template_id", "session_id")
def test_new_fields_pass_through(client: Any, server: NextRevision, media: dict[str, str]) -> None:
    """`extra` sends `template_id` and `session_id`, which the client does not know."""
    extra = {"template_id": "t", "session_id": "s"}
    job = client.jobs.create(**media, extra=extra)
    assert extra.items() <= server.rows[job.id]["input"].items()


@pytest.mark.parametrize("refused", [{"values": []}, {"values": ["a"]}, {"job_type": "of_my_own"}])
def test_what_the_revision_refuses_is_a_bad_request(
    client: Any, server: NextRevision, media: dict[str, str], refused: dict[str, Any]
) -> None:
    """A list of values, or an unknown kind of job, is a 400: no job is created."""
    with pytest.raises(BadRequestError, match=next(iter(refused))) as raised:
        client.jobs.create(**media, **refused)
    assert (raised.value.job_may_exist, server.rows) == (False, {})
    assert server.journal.count(operation="createJob") == 1


@pytest.mark.parametrize("how", ["values", "extra"])
def test_an_object_of_values_is_out_of_reach(
    client: Any, server: NextRevision, media: dict[str, str], how: str
) -> None:
    """`values` must be a list, and `extra` cannot replace it: the client raises and sends nothing."""
    given: Any = {"title": "Hello"} if how == "values" else {"values": {"title": "Hello"}}
    with pytest.raises(InvalidArgumentError, match="values"):
        client.jobs.create(**media, **{how: given})
    assert server.journal.count() == 0


@pytest.mark.undeclared("template_id")
@pytest.mark.parametrize(
    ("fault", "known"),
    [
        ("close=after-body", False),
        ("body=truncated", True),
        ('status=502;create=1;json={"job": {"uuid": "$job_id", "job_status": "QUEUED"}}', True),
    ],
)
def test_an_answer_that_is_lost_costs_no_second_job(
    client: Any, server: NextRevision, media: dict[str, str], fault: str, *, known: bool
) -> None:
    """An unreadable response is a typed error with the id, if the response had it; there is one job."""
    server.faults.add(f"operation=createJob;{fault}")
    with pytest.raises(JobOutcomeUnknownError) as raised:
        client.jobs.create(**media, project_id=PROJECT, extra={"template_id": PROJECT})
    (job_id,) = server.rows
    assert (raised.value.project_id, raised.value.job_id) == (PROJECT, job_id if known else None)


# Waiting and downloading


@later
def test_waiting_outlasts_a_signature_for_nothing(
    client: Any, server: NextRevision, media: dict[str, str], tmp_path: Path
) -> None:
    """A key is signed before its object exists: the wait continues until storage has the object."""

    def finish(update: JobUpdate) -> None:
        if update.polls == 3:
            server.finish(update.job.id)

    video = client.jobs.create_and_wait(**media, project_id=PROJECT, on_update=finish, **QUICK)
    assert [record.status for record in server.journal.requests(server="storage")] == [404, 404, 404, 206]
    assert {record.status for record in server.journal.requests(operation="generateSignedPath")} == {200}
    assert list(server.rows) == [video.job.id]
    assert (video.job.status, video.expires_at) == ("done", None)
    assert client.jobs.download(video, tmp_path).read_bytes() == tiny_video()


@later
def test_what_is_not_there_is_not_found(client: Any, tmp_path: Path) -> None:
    """A 404 of storage replaces the 404 of signing, which no longer comes."""
    job = Job(NO_JOB, PROJECT)
    assert client.jobs.find(job) is None
    with pytest.raises(NotFoundError):
        client.jobs.download(job, tmp_path)
    assert list(tmp_path.glob("*.mp4")) == []


@later
def test_a_tracker_sees_the_new_words(
    client: Any, server: NextRevision, api: httpx.Client, media: dict[str, str], tmp_path: Path
) -> None:
    """STARTED and IN_PROGRESS continue a wait, SUCCESS ends it, `output.output` is the video's key."""
    seen: list[str] = []
    words = iter(["STARTED", "IN_PROGRESS"])

    def work(update: JobUpdate) -> None:
        seen.append(update.status)
        row, word = server.rows[update.job.id], next(words, None)
        if word:
            row["job_status"] = word
        elif row["job_status"] != "SUCCESS":
            server.finish(update.job.id, key="elsewhere/video.mp4")

    video = client.jobs.create_and_wait(**media, tracker=Rows(api), on_update=work, **QUICK)
    assert seen == ["QUEUED", "STARTED", "IN_PROGRESS", "done"]
    assert (video.path, video.job.output_path) == ("elsewhere/video.mp4", "elsewhere/video.mp4")
    assert client.jobs.download(video, tmp_path).read_bytes() == tiny_video()


@later
def test_success_waits_for_the_object(
    client: Any, server: NextRevision, api: httpx.Client, media: dict[str, str]
) -> None:
    """A row may say SUCCESS before storage has the object: only the object ends the wait."""
    job = client.jobs.create(**media, project_id=PROJECT)
    server.rows[job.id]["job_status"] = "SUCCESS"

    def finish(update: JobUpdate) -> None:
        if update.polls == 2:
            server.finish(update.job.id)

    video = client.jobs.wait(job, tracker=Rows(api), on_update=finish, **QUICK)
    assert (video.job.id, video.size) == (job.id, len(tiny_video()))


@later
def test_a_failed_job_is_an_error(
    client: Any, server: NextRevision, api: httpx.Client, media: dict[str, str]
) -> None:
    """FAILED ends the wait at once, with the job."""
    job = client.jobs.create(**media)
    server.rows[job.id]["job_status"] = "FAILED"
    with pytest.raises(JobFailedError) as raised:
        client.jobs.wait(job, tracker=Rows(api), **QUICK)
    assert (raised.value.job.id, raised.value.job.status) == (job.id, "FAILED")


def test_a_job_that_is_not_found_is_no_news(client: Any, api: httpx.Client) -> None:
    """`Job not found` with status 200 is no failure: the wait times out, with the job's ids."""
    with pytest.raises(JobTimeoutError) as raised:
        client.jobs.wait(Job(NO_JOB, PROJECT), tracker=Rows(api), poll=0.01, timeout=0.1)
    assert (raised.value.job.id, raised.value.job.project_id) == (NO_JOB, PROJECT)


class Careless(Rows):
    """A user's tracker that expects a row in every response."""

    def check(self, job: Job) -> JobState | None:
        """Return the row's status."""
        return JobState(self.api.get(f"/jobs/{job.id}").json()["job_status"])


def test_a_careless_tracker_loses_no_job(client: Any, api: httpx.Client) -> None:
    """An exception of a tracker is raised unchanged, with the job's ids in a note."""
    with pytest.raises(KeyError, match="job_status") as raised:
        client.jobs.wait(Job(NO_JOB, PROJECT), tracker=Careless(api), **QUICK)
    assert f"'{NO_JOB}', '{PROJECT}'" in raised.value.__notes__[0]
