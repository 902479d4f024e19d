"""`jobs.create` over real sockets: the request, and the job or error for each response."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from techforge import BadRequestError, InvalidArgumentError, Job, JobOutcomeUnknownError, __version__

if TYPE_CHECKING:
    from techforge.mock import MockServer

PROJECT = "468ea7a0-66e1-4357-a760-236e54167f3e"
OPTIONAL = {
    "is_clone_required": False,
    "language": "en",
    "version": 5,
    "output_size": 400,
    "crop": True,
    "dynamic_scale": 0.75,
    "iteration_count": 3,
    "expand_ratio": 1.5,
    "values": ["a", "ü"],
}


def sent(mock: MockServer) -> dict[str, Any]:
    """Return the body of the only job that was submitted."""
    (record,) = mock.journal.requests(operation="createJob")
    return json.loads(record.body)


def test_every_field_arrives_as_given(both: Any, mock: MockServer, media: dict[str, str]) -> None:
    """Given fields are sent with the API's names and types, and no others."""
    job = both.jobs.create(**media, project_id=PROJECT, job_type="video", **OPTIONAL)
    assert sent(mock) == {**media, "project_id": PROJECT, "job_type": "video", **OPTIONAL}
    assert job == Job(job.id, PROJECT, "queued")
    assert job.output_path == f"ai-talking-videos/{PROJECT}/outputs/{job.id}.mp4"


def test_falsy_values_are_values(both: Any, mock: MockServer, media: dict[str, str]) -> None:
    """Zero, False, an empty string and an empty list are sent. Only None is not sent."""
    falsy = {"crop": False, "language": "", "dynamic_scale": 0.0, "iteration_count": 0, "values": []}
    both.jobs.create(**media, project_id=PROJECT, **falsy)
    assert sent(mock) == {**media, "project_id": PROJECT, "job_type": "ai_talking_video", **falsy}


def test_none_is_not_sent(both: Any, mock: MockServer, media: dict[str, str]) -> None:
    """None means "not set" for every optional field, so wrappers can pass arguments through."""
    both.jobs.create(**media, project_id=PROJECT, extra=None, **dict.fromkeys(OPTIONAL))
    assert sent(mock) == {**media, "project_id": PROJECT, "job_type": "ai_talking_video"}


def test_each_job_has_its_own_project(both: Any, mock: MockServer, media: dict[str, str]) -> None:
    """Without a project id, each job gets a random one, which is an attribute of the job."""
    first, second = both.jobs.create(**media), both.jobs.create(**media)
    projects = [json.loads(r.body)["project_id"] for r in mock.journal.requests(operation="createJob")]
    assert projects == [first.project_id, second.project_id]
    assert first.project_id != second.project_id
    assert UUID(first.project_id).version == 4


@pytest.mark.parametrize("project", [UUID(PROJECT), PROJECT.upper(), f"{{{PROJECT}}}"])
def test_a_uuid_in_any_spelling(both: Any, mock: MockServer, media: dict[str, str], project: Any) -> None:
    """A UUID is sent in its canonical form, because the storage key of the video contains it."""
    job = both.jobs.create(**media, project_id=project)
    assert sent(mock)["project_id"] == job.project_id == PROJECT


@pytest.mark.undeclared("template_id", "nested")
def test_extra_fields_pass_through(both: Any, mock: MockServer, media: dict[str, str]) -> None:
    """Fields that the SDK does not know are sent unchanged, also nested ones."""
    extra = {"template_id": "t", "nested": {"list": [1, None, {"deep": True}]}}
    both.jobs.create(**media, extra=extra)
    assert {name: sent(mock)[name] for name in extra} == extra


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"image_url": "ftp://example.com/image.png"}, "image_url"),
        ({"image_url": "//cdn.example.com/image.png"}, "image_url"),
        ({"audio_url": "https://"}, "audio_url"),
        ({"audio_url": "https://cdn.example.com/a b.mp3"}, "audio_url"),
        ({"project_id": "project-1"}, "project_id"),
        ({"version": 7}, "version"),
        ({"version": True}, "version"),
        ({"values": "abc"}, "values"),
        ({"dynamic_scale": float("nan")}, "dynamic_scale"),
        ({"language": b"en"}, "language"),
        ({"extra": {"version": 4}}, "extra"),
        ({"extra": {"when": object()}}, "when"),
        ({"extra": {"deep": {"list": [float("inf")]}}}, "deep"),
    ],
)
def test_wrong_arguments_cost_nothing(
    both: Any, mock: MockServer, media: dict[str, str], wrong: dict[str, Any], field: str
) -> None:
    """An invalid value is refused before anything is sent, and the error names the field."""
    with pytest.raises(InvalidArgumentError) as caught:
        both.jobs.create(**{**media, **wrong})
    assert caught.value.field == field
    assert mock.journal.count() == 0


@pytest.mark.undeclared("output_size")
def test_the_server_judges_the_rest(both: Any, mock: MockServer, media: dict[str, str]) -> None:
    """Other values are sent. A 400 has the API's reason and is not retried."""
    with pytest.raises(BadRequestError, match="output_size") as caught:
        both.jobs.create(**media, output_size="large")
    assert caught.value.status_code == 400
    assert caught.value.attempts == 1
    assert not caught.value.job_may_exist
    assert mock.journal.count() == 1


def test_the_head_of_a_request(both: Any, mock: MockServer, media: dict[str, str]) -> None:
    """A request has the key, the media types and a user agent, and no other data of the caller."""
    both.jobs.create(**media)
    (record,) = mock.journal.requests()
    assert dict(record.headers) == {
        "host": mock.url.removeprefix("http://"),
        "accept": "application/json",
        "accept-encoding": "identity",
        "connection": "close",
        "content-type": "application/json",
        "content-length": str(len(record.body)),
        "user-agent": record.headers["user-agent"],
        "x-api-key": mock.api_key,
    }
    assert record.headers["user-agent"].startswith(f"techforge-python/{__version__} python/3.")


moved_on = partial(pytest.param, marks=pytest.mark.lying("a server that has moved on"))


@pytest.mark.parametrize(
    ("answer", "status", "message"),
    [
        moved_on('{"jobId":"$job_id","status":"QUANTUM","message":"m","new":[1]}', "QUANTUM", "m"),
        ('{"jobId":"$job_id","status":"done"}', "done", None),
        moved_on('{"jobId":"$job_id","status":7}', "unknown", None),
        moved_on('{"jobId":"$job_id"}', "unknown", None),
        moved_on('{"message":"ok","job":{"uuid":"$job_id","job_status":"QUEUED"}}', "QUEUED", None),
        moved_on('{"job":{"uuid":"$job_id"}}', "unknown", None),
    ],
)
def test_responses_of_a_newer_server(
    both: Any, mock: MockServer, media: dict[str, str], answer: str, status: str, message: str | None
) -> None:
    """Any response that names the job is accepted: unknown statuses and fields, the next revision."""
    mock.faults.add(f"json={answer};operation=createJob")
    job = both.jobs.create(**media, project_id=PROJECT)
    (record,) = mock.journal.requests(operation="createJob")
    assert job == Job(str(record.job_id), PROJECT, status, message)


@pytest.mark.parametrize("status", [200, 201, 203, 299])
@pytest.mark.lying("statuses that the contract does not know")
def test_another_2xx_status(both: Any, mock: MockServer, media: dict[str, str], status: int) -> None:
    """A 2xx status outside the contract is a success if its body names the job."""
    mock.faults.add(f'status={status};json={{"jobId":"$job_id","status":"queued"}};operation=createJob')
    job = both.jobs.create(**media)
    (record,) = mock.journal.requests(operation="createJob")
    assert job.id == record.job_id


@pytest.mark.parametrize(
    "fault",
    [
        "body=html;status=202",
        "body=html",
        "body=empty",
        'json={"status":"queued"}',
        'json={"jobId":null,"status":"queued"}',
        "json=[]",
        "json=null",
        "status=204",
        "status=303;body=empty",
    ],
)
@pytest.mark.lying("answers that nobody promised")
def test_a_success_that_names_no_job(both: Any, mock: MockServer, media: dict[str, str], fault: str) -> None:
    """An unreadable 2xx may have created a job: it is not sent again, and the error says so."""
    mock.faults.add(f"{fault};operation=createJob;create=1")
    with pytest.raises(JobOutcomeUnknownError) as caught:
        both.jobs.create(**media, project_id=PROJECT)
    error = caught.value
    assert (error.job_id, error.job_may_exist, error.project_id) == (None, True, PROJECT)
    assert (error.sent["project_id"], error.method, error.path) == (PROJECT, "POST", "/jobs/v2")
    assert PROJECT in str(error)
    assert "jobs.from_ids" not in str(error)
    assert mock.journal.count() == 1


@pytest.mark.lying("JSON that breaks off")
def test_an_id_in_broken_json_is_kept(both: Any, mock: MockServer, media: dict[str, str]) -> None:
    """If a response breaks off after the job id, the id is kept."""
    mock.faults.add("body=broken-json;operation=createJob")
    with pytest.raises(JobOutcomeUnknownError) as caught:
        both.jobs.create(**media, project_id=PROJECT)
    (record,) = mock.journal.requests(operation="createJob")
    # The response breaks off in the middle of the id, and half an id is no id.
    assert caught.value.job_id is None
    assert mock.journal.count() == 1
    mock.faults.add(
        'json={"jobId":"$job_id","status":"queued","message":"........................................'
        '................................................."};body=broken-json;operation=createJob'
    )
    with pytest.raises(JobOutcomeUnknownError, match="from_ids") as caught:
        both.jobs.create(**media, project_id=PROJECT)
    (_, record) = mock.journal.requests(operation="createJob")
    assert caught.value.job_id == record.job_id
    assert mock.journal.count() == 2


def test_what_was_sent_is_noted_without_url_queries(
    both: Any, mock: MockServer, media: dict[str, str]
) -> None:
    """`sent` is the request body, without the queries of its URLs."""
    mock.faults.add("close=after-body;operation=createJob")
    media["image_url"] += "?signature=secret"
    with pytest.raises(JobOutcomeUnknownError) as caught:
        both.jobs.create(**media, project_id=PROJECT, output_size=400)
    assert caught.value.sent == {
        "image_url": "https://cdn.example.com/image.png?***",
        "audio_url": media["audio_url"],
        "job_type": "ai_talking_video",
        "project_id": PROJECT,
        "output_size": 400,
    }
