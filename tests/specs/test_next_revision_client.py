"""Today's client in front of a server of the next revision: nothing crashes, and no job is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest
from support.next_revision import CONTRACT, DOCUMENT, NextRevision

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
REQUEST = DOCUMENT["paths"]["/jobs/v2"]["post"]["requestBody"]["content"]["application/json"]["examples"]
QUICK = {"poll": 0.01, "timeout": 5}

later = pytest.mark.lying("the server speaks the next revision, where the contract is still v1.0.0")


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


# The server


def test_the_server_carries_every_operation_out(server: NextRevision, api: httpx.Client) -> None:
    """The stand-in speaks the whole revision; an answer that the document does not allow would be a 500."""
    created = api.post("/jobs/v2", json=REQUEST["template"]["value"] | {"unknown": [1]})
    job = created.json()["job"]
    path = f"/jobs/{job['uuid']}"
    done = {"job_status": "SUCCESS", "output": {"output": "any/key.mp4"}}
    project = "/api/provider/projects"
    answers = [
        created,
        api.get(path),
        api.put(path, json=done),
        api.get(path),
        api.post("/jobs/trigger-job", json={"ids": [job["uuid"]]}),
        api.get(path),
        api.get(f"/jobs/{NO_JOB}"),
        api.put(f"/jobs/{NO_JOB}", json=done),
        api.post("/jobs/trigger-job", json={"ids": [job["uuid"], NO_JOB]}),
        api.get("/storage/generate-signed-path", params={"path": "no/such/object"}),
        api.get("/storage/generate-signed-path"),
        api.get("/auth/credits"),
        api.get(f"{project}/active"),
        api.get(f"{project}/{PROJECT}/mapping-fields"),
        api.get(f"{project}/{NO_JOB}/mapping-fields"),
    ]
    statuses = [answer.status_code for answer in answers]
    assert statuses == [202, 200, 200, 200, 201, 200, 200, 200, 201, 200, 400, 200, 200, 200, 404]
    bodies = [answer.json() for answer in answers]
    assert [bodies[at]["job_status"] for at in (1, 2, 3, 5)] == ["QUEUED", "SUCCESS", "SUCCESS", "QUEUED"]
    assert [bodies[at]["message"] for at in (4, 6, 7, 8)] == [
        "Job triggered",
        "Job not found",
        "Job not found",
        "No job found",
    ]
    assert bodies[9].keys() == {"signedUrl"}
    assert bodies[10] == {"error": "Path query parameter is required"}
    assert server.rows[job["uuid"]]["input"]["unknown"] == [1]
    assert {record.operation for record in server.journal.requests()} == {o.id for o in CONTRACT.operations}


def test_a_server_that_lies_would_be_noticed(server: NextRevision, api: httpx.Client) -> None:
    """Each answer is held to next-revision.json: a row that it does not allow does not get out."""
    job = api.post("/jobs/v2", json=REQUEST["talkingVideo"]["value"]).json()["job"]
    server.rows[job["uuid"]]["credit_used"] = 12.5
    assert api.get(f"/jobs/{job['uuid']}").status_code == 500


# Creating


@later
def test_a_job_is_a_job(client: Any, server: NextRevision, media: dict[str, str]) -> None:
    """The id lies elsewhere, and the status is another word: the job that was paid for is returned."""
    job = client.jobs.create(**media, project_id=PROJECT, version=6, output_size=400, crop=True)
    assert list(server.rows) == [job.id]
    assert job == Job(job.id, PROJECT, "QUEUED")


@later
@pytest.mark.parametrize("status", [200, 201])
def test_a_job_is_a_job_under_any_status(
    client: Any, server: NextRevision, media: dict[str, str], status: int
) -> None:
    """The vendor names no status for the new answer: whichever it is, the job is returned."""
    server.faults.add(f"operation=createJob;status={status}")
    job = client.jobs.create(**media)
    assert list(server.rows) == [job.id]
    assert server.journal.requests(operation="createJob")[0].status == status


@later
@pytest.mark.undeclared("template_id", "session_id")
def test_new_fields_pass_through(client: Any, server: NextRevision, media: dict[str, str]) -> None:
    """`template_id` and `session_id` can be sent by today's client, which does not know them."""
    extra = {"template_id": "t", "session_id": "s"}
    job = client.jobs.create(**media, extra=extra)
    assert extra.items() <= server.rows[job.id]["input"].items()


@pytest.mark.parametrize("refused", [{"values": []}, {"values": ["a"]}, {"job_type": "of_my_own"}])
def test_what_the_revision_refuses_is_a_bad_request(
    client: Any, server: NextRevision, media: dict[str, str], refused: dict[str, Any]
) -> None:
    """A list of values, or a kind of job that is none, costs nothing: it is a 400, and there is no job."""
    with pytest.raises(BadRequestError, match=next(iter(refused))) as raised:
        client.jobs.create(**media, **refused)
    assert (raised.value.job_may_exist, server.rows) == (False, {})
    assert server.journal.count(operation="createJob") == 1


@pytest.mark.parametrize("how", ["values", "extra"])
def test_an_object_of_values_is_out_of_reach(
    client: Any, server: NextRevision, media: dict[str, str], how: str
) -> None:
    """Today's client says so itself, and sends nothing: `values` is a list, and `extra` is no way around."""
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
    """Without a readable answer there is one job, a typed error, and the id where the answer held it."""
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
    """A key is signed before its object is there: the wait goes on until storage has it, and so the video."""

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
def test_a_signature_has_no_expiry(client: Any) -> None:
    """Without `expiresAt` there is a URL all the same, and an expiry that is not known."""
    signed = client.storage.sign("no/such/object.mp4")
    assert signed.url.startswith("http")
    assert signed.expires_at is None


@later
def test_what_is_not_there_is_not_found(client: Any, tmp_path: Path) -> None:
    """Storage's own 404 stands for the one that signing no longer gives."""
    job = Job(NO_JOB, PROJECT)
    assert client.jobs.find(job) is None
    with pytest.raises(NotFoundError):
        client.jobs.download(job, tmp_path)
    assert list(tmp_path.glob("*.mp4")) == []


@later
def test_a_tracker_sees_the_new_words(
    client: Any, server: NextRevision, api: httpx.Client, media: dict[str, str], tmp_path: Path
) -> None:
    """STARTED and IN_PROGRESS keep a wait going, SUCCESS ends it, `output.output` is the video's key."""
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
    """FAILED is failed: the wait ends at once, with the job."""
    job = client.jobs.create(**media)
    server.rows[job.id]["job_status"] = "FAILED"
    with pytest.raises(JobFailedError) as raised:
        client.jobs.wait(job, tracker=Rows(api), **QUICK)
    assert (raised.value.job.id, raised.value.job.status) == (job.id, "FAILED")


def test_a_job_that_is_not_found_is_no_news(client: Any, api: httpx.Client) -> None:
    """`Job not found` with status 200 is no failure: the wait ends in time, with the job's ids."""
    with pytest.raises(JobTimeoutError) as raised:
        client.jobs.wait(Job(NO_JOB, PROJECT), tracker=Rows(api), poll=0.01, timeout=0.1)
    assert (raised.value.job.id, raised.value.job.project_id) == (NO_JOB, PROJECT)


class Careless(Rows):
    """A user's tracker that takes every answer for a row."""

    def check(self, job: Job) -> JobState | None:
        """Return the row's status."""
        return JobState(self.api.get(f"/jobs/{job.id}").json()["job_status"])


def test_a_careless_tracker_loses_no_job(client: Any, api: httpx.Client) -> None:
    """What a tracker throws is its own, and comes out with the job's ids in a note."""
    with pytest.raises(KeyError, match="job_status") as raised:
        client.jobs.wait(Job(NO_JOB, PROJECT), tracker=Careless(api), **QUICK)
    assert f"'{NO_JOB}', '{PROJECT}'" in raised.value.__notes__[0]


# Refusals


@pytest.mark.parametrize("name", ["message", "error"])
@pytest.mark.parametrize(
    ("status", "kind"), [(400, BadRequestError), pytest.param(404, NotFoundError, marks=later)]
)
def test_a_refusal_gives_its_reason_in_either_shape(
    client: Any, server: NextRevision, media: dict[str, str], name: str, status: int, kind: type[Exception]
) -> None:
    """Whether the reason is under `message` or `error`, it is in the error, and no job is created."""
    reason = "Path query parameter is required"
    server.faults.add(f'status={status};json={{"{name}": "{reason}"}};times=2')
    for request in (lambda: client.storage.sign("a/key"), lambda: client.jobs.create(**media)):
        with pytest.raises(kind, match=reason) as raised:
            request()
        assert (raised.value.status_code, raised.value.job_may_exist) == (status, False)
    assert server.rows == {}
