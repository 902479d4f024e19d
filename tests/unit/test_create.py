"""Submitting a job: the checks, the request, and that no job is lost or submitted twice."""

import math
from uuid import UUID, uuid4

import pytest
from support.by_hand import AUDIO, IMAGE, JOB_ID, PROJECT_ID, ByHand, answered, lost

from techforge._flow import Send
from techforge._flows.create import create, job_from_ids
from techforge.errors import (
    APIResponseError,
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    InternalServerError,
    InvalidArgumentError,
    JobOutcomeUnknownError,
    Outcome,
)
from techforge.models import Job
from techforge_api.models import JobAccepted

EVERYTHING = {
    "is_clone_required": False,
    "language": "en",
    "version": 6,
    "output_size": 400,
    "crop": True,
    "dynamic_scale": 1,
    "iteration_count": 10,
    "expand_ratio": 0.5,
    "values": [],
}


def accepted(**fields):
    """Return the API's response to a new job."""
    return JobAccepted.from_dict({"jobId": JOB_ID, "status": "queued", **fields})


def sent(by_hand: ByHand) -> dict:
    """Return the body of the last request."""
    return by_hand.of(Send)[-1].call.arguments["body"].to_dict()


def run(by_hand: ByHand, **params):
    """Submit a job, with the two required fields filled in."""
    return by_hand.run(create(by_hand.settings(), **{"image_url": IMAGE, "audio_url": AUDIO, **params}))


def test_only_given_fields_are_sent() -> None:
    """An omitted field is absent, not null. Only two fields have a default of the SDK."""
    by_hand = ByHand(sends=[accepted()])
    job = run(by_hand)
    body = sent(by_hand)
    assert body == {
        "image_url": IMAGE,
        "audio_url": AUDIO,
        "job_type": "ai_talking_video",
        "project_id": job.project_id,
    }
    assert UUID(body["project_id"]).version == 4


def test_each_job_gets_a_fresh_project() -> None:
    """The default project_id is new each time, so that it identifies the submission."""
    by_hand = ByHand(sends=[accepted()])
    assert run(by_hand).project_id != run(by_hand).project_id


def test_every_field_is_sent_as_given() -> None:
    """The example of the API's overview is sent unchanged."""
    by_hand = ByHand(sends=[accepted()])
    run(by_hand, project_id=PROJECT_ID, **EVERYTHING)
    assert sent(by_hand) == {
        "image_url": IMAGE,
        "audio_url": AUDIO,
        "job_type": "ai_talking_video",
        "project_id": PROJECT_ID,
        **EVERYTHING,
    }


@pytest.mark.undeclared("template_id", "effects")
def test_extra_fields_pass_through() -> None:
    """Fields of a later API revision can be sent."""
    by_hand = ByHand(sends=[accepted()])
    run(by_hand, extra={"template_id": "t", "effects": [{"zoom": 1.5}]})
    assert sent(by_hand)["template_id"] == "t"
    assert sent(by_hand)["effects"] == [{"zoom": 1.5}]


@pytest.mark.parametrize("project_id", [PROJECT_ID, PROJECT_ID.upper(), UUID(PROJECT_ID)])
def test_a_project_id_may_be_a_uuid_or_its_text(project_id) -> None:
    """The job's storage key always has the canonical spelling."""
    by_hand = ByHand(sends=[accepted()])
    job = run(by_hand, project_id=project_id)
    assert job.output_path == f"ai-talking-videos/{PROJECT_ID}/outputs/{JOB_ID}.mp4"


BAD = [
    ("image_url", "", "absolute"),
    ("image_url", "portrait.png", "path"),
    ("image_url", "/tmp/portrait.png", "path"),  # noqa: S108
    ("image_url", "data:image/png;base64,AAAA", "absolute"),
    ("image_url", "ftp://example.com/a.png", "absolute"),
    ("image_url", "https://", "absolute"),
    ("image_url", "https:///a.png", "absolute"),
    ("image_url", "https://example.com:99999/a.png", "absolute"),
    ("image_url", "https://[::1/a.png", "absolute"),
    ("image_url", "https://example.com/a b.png", "absolute"),
    ("image_url", "https://example.com/a\r\nb.png", "absolute"),
    ("image_url", b"https://example.com/a.png", "str"),
    ("audio_url", None, "str"),
    ("audio_url", "http:example.com", "absolute"),
    ("project_id", "", "UUID"),
    ("project_id", "my project", "UUID"),
    ("project_id", PROJECT_ID[:-1], "UUID"),
    ("project_id", "../../etc", "UUID"),
    ("version", 3, "4, 5, 6"),
    ("version", "6", "4, 5, 6"),
    ("version", True, "4, 5, 6"),
    ("values", "abc", "list"),
    ("values", {"a": 1}, "list"),
    ("dynamic_scale", math.nan, "JSON"),
    ("expand_ratio", math.inf, "JSON"),
    ("language", object(), "JSON"),
    ("extra", {"crop": True}, "argument of its own"),
    ("extra", {"deep": {"er": [1, math.nan]}}, "JSON"),
    ("extra", {"deep": "\ud800"}, "JSON"),
    ("language", "\ud800", "JSON"),
    ("image_url", "https://h/\ud800", "URL"),
    ("extra", 5, "mapping"),
    ("values", 5, "list"),
    ("extra", {"deep": 10**5000}, "JSON"),
    ("extra", {"when": uuid4()}, "JSON"),
]


@pytest.mark.parametrize(("field", "value", "fix"), BAD)
def test_bad_input_is_named_before_anything_is_sent(field: str, value, fix: str) -> None:
    """The error names the field and the fix. Nothing is sent."""
    by_hand = ByHand(sends=[accepted()])
    with pytest.raises(InvalidArgumentError) as caught:
        run(by_hand, **{field: value})
    assert by_hand.commands == []
    assert caught.value.field.partition(".")[0].partition("[")[0] in {field, "deep", "when"}
    assert fix in str(caught.value)


@pytest.mark.parametrize("missing", ["image_url", "audio_url"])
def test_a_missing_argument_is_pythons_own_error(missing: str) -> None:
    """A missing required argument raises a TypeError, as for any function."""
    params = {"image_url": IMAGE, "audio_url": AUDIO}
    del params[missing]
    with pytest.raises(TypeError, match=missing):
        create(ByHand().settings(), **params)


def test_an_unknown_argument_is_pythons_own_error() -> None:
    """A misspelt argument is not sent as a field."""
    with pytest.raises(TypeError, match="imageurl"):
        create(ByHand().settings(), image_url=IMAGE, audio_url=AUDIO, imageurl=IMAGE)


def test_the_job_has_status_and_message_of_the_response() -> None:
    """An unknown status is kept as well."""
    by_hand = ByHand(sends=[accepted(status="daydreaming", message="soon")])
    job = run(by_hand)
    assert (job.id, job.status, job.message) == (JOB_ID, "daydreaming", "soon")


@pytest.mark.parametrize("status", [None, 7, {}])
def test_a_status_of_another_type_is_accepted(status) -> None:
    """The job id matters more than the status."""
    by_hand = ByHand(sends=[accepted(status=status, message=status)])
    job = run(by_hand)
    assert (job.id, job.status, job.message) == (JOB_ID, "unknown", None)


def test_an_unknown_outcome_is_its_own_error() -> None:
    """The error says that a job may exist, what was sent and where to look. One request was sent."""
    by_hand = ByHand(sends=[lost()])
    with pytest.raises(JobOutcomeUnknownError) as caught:
        run(by_hand, project_id=PROJECT_ID, image_url=IMAGE + "?signature=secret")
    error = caught.value
    assert len(by_hand.of(Send)) == 1
    assert error.project_id == PROJECT_ID
    assert error.sent["audio_url"] == AUDIO
    assert "secret" not in repr(error.sent)
    assert error.job_id is None
    assert error.job_may_exist
    assert PROJECT_ID in str(error)
    assert "before you submit again" in str(error)
    assert error.__cause__ is error.error


def unreadable(job_id: str | None = None, job_status: str | None = None) -> APIResponseError:
    """Return the error for a response that does not follow the contract."""
    error = APIResponseError("202: unreadable", outcome=Outcome.UNKNOWN, method="POST", path="/jobs/v2")
    error.job_id, error.job_status = job_id, job_status
    return error


def test_a_job_in_a_broken_response_is_kept() -> None:
    """If a broken response contains a job id, the error has it and says how to continue."""
    by_hand = ByHand(sends=[unreadable(JOB_ID)])
    with pytest.raises(JobOutcomeUnknownError) as caught:
        run(by_hand, project_id=PROJECT_ID)
    assert caught.value.job_id == JOB_ID
    assert f"from_ids('{JOB_ID}', '{PROJECT_ID}')" in str(caught.value)


def test_a_response_of_a_later_revision_is_a_job() -> None:
    """A readable response may name the job in another field."""
    by_hand = ByHand(sends=[unreadable(JOB_ID, "QUEUED")])
    job = run(by_hand)
    assert (job.id, job.status) == (JOB_ID, "QUEUED")


def test_a_server_error_says_that_a_job_may_exist() -> None:
    """After the last retry, the error is the 5xx itself."""
    by_hand = ByHand(sends=[lambda _: answered(500)])
    with pytest.raises(InternalServerError, match="A job may exist"):
        run(by_hand)


def test_an_error_after_doubt_names_the_project(caplog) -> None:
    """If a job may exist, the error names its project. Only the resubmission is logged."""
    by_hand = ByHand(sends=[answered(503), answered(400)])
    with caplog.at_level("WARNING", "techforge"), pytest.raises(BadRequestError) as caught:
        run(by_hand, project_id=PROJECT_ID)
    assert caught.value.project_id == PROJECT_ID
    assert f"A job may exist in project {PROJECT_ID}" in str(caught.value)
    assert [(record.name, PROJECT_ID in record.getMessage()) for record in caplog.records] == [
        ("techforge.retry", True)
    ]


def test_a_call_that_runs_out_of_time_between_attempts_keeps_the_doubt() -> None:
    """If the deadline passes before the retry, the error is the 503, which may have created a job."""
    by_hand = ByHand(sends=[answered(503)], jitter=0.5)
    settings = by_hand.settings(retry_timeout=0.255)
    with pytest.raises(InternalServerError, match="503") as caught:
        by_hand.run(create(settings, image_url=IMAGE, audio_url=AUDIO, project_id=PROJECT_ID))
    assert (caught.value.job_may_exist, caught.value.project_id) == (True, PROJECT_ID)
    assert f"A job may exist in project {PROJECT_ID}" in str(caught.value)
    assert "Nothing was sent" not in str(caught.value)


def test_a_provider_that_hangs_after_doubt_keeps_it() -> None:
    """If a key provider hangs after a 503 and a 401, the error is the 401, and a job may exist."""
    keys = iter(["old"])

    def provider() -> str:
        try:
            return next(keys)
        except StopIteration:
            raise TimeoutError from None

    by_hand = ByHand(sends=[answered(503), answered(401)])
    settings = by_hand.settings(provider)
    with pytest.raises(AuthenticationError) as caught:
        by_hand.run(create(settings, image_url=IMAGE, audio_url=AUDIO, project_id=PROJECT_ID))
    assert (caught.value.job_may_exist, caught.value.attempts) == (True, 2)


@pytest.mark.parametrize(
    ("failures", "attempts", "duplicates"),
    [
        ([], 1, False),
        ([answered(429)], 2, False),
        ([lost(Outcome.NOT_SENT)], 2, False),
        ([answered(503)], 2, True),
        ([answered(500), lost(Outcome.NOT_SENT)], 3, True),
        ([answered(503), answered(429)], 3, True),
    ],
)
def test_a_job_counts_its_requests(failures, attempts: int, duplicates: bool, caplog) -> None:
    """It also says whether a 5xx may have created a second job; the log says so, too."""
    with caplog.at_level("WARNING", "techforge"):
        job = run(ByHand(sends=[*failures, accepted()]), project_id=PROJECT_ID)
    assert (job.attempts, job.may_have_duplicates) == (attempts, duplicates)
    assert (f"look in project {PROJECT_ID} for more than one job" in caplog.text) is duplicates
    assert {record.name for record in caplog.records} == ({"techforge.retry"} if duplicates else set())


def test_a_job_that_took_two_attempts_equals_one_from_its_ids() -> None:
    """`attempts` and `may_have_duplicates` do not identify a job."""
    job = run(ByHand(sends=[answered(503), accepted()]))
    same = Job(job.id, job.project_id, job.status)
    assert (job, hash(job)) == (same, hash(same))


def test_an_error_that_names_a_readable_job_is_no_duplicate() -> None:
    """The failed attempt created the job, so there is no second one."""
    refused = answered(503)
    refused.outcome, refused.job_id, refused.job_status = Outcome.UNKNOWN, JOB_ID, "queued"
    job = run(ByHand(sends=[refused]))
    assert (job.id, job.attempts, job.may_have_duplicates) == (JOB_ID, 1, False)


def test_an_error_that_is_raised_is_not_logged_as_well(caplog) -> None:
    """The caller decides what to do with an exception."""
    with caplog.at_level("WARNING", "techforge"), pytest.raises(JobOutcomeUnknownError):
        run(ByHand(sends=[lost()]))
    assert caplog.records == []


@pytest.mark.parametrize("error", [RuntimeError("a hook"), OSError("a tracer"), KeyError("x")])
def test_an_exception_of_a_hook_leaves_the_outcome_unknown(error: Exception) -> None:
    """If an event hook raises during a POST, the error still says that a job may exist."""
    with pytest.raises(JobOutcomeUnknownError) as caught:
        run(ByHand(sends=[error]), project_id=PROJECT_ID)
    assert caught.value.project_id == PROJECT_ID
    assert caught.value.__cause__ is error


def test_a_client_closed_between_two_attempts_does_not_hide_a_job() -> None:
    """After a 503, the error of a closed client says that a job may exist."""
    closed = ConfigurationError("closed")
    with pytest.raises(JobOutcomeUnknownError):
        run(ByHand(sends=[answered(503), closed]))
    with pytest.raises(ConfigurationError):
        run(ByHand(sends=[closed]))
    with pytest.raises(ConfigurationError):
        run(ByHand(sends=[answered(429), closed]))


@pytest.mark.parametrize("job_id", [None, 7, "", "a/b", "..", {}])
def test_an_invalid_id_is_no_job(job_id) -> None:
    """If the id cannot be a job's id, the outcome is unknown."""
    with pytest.raises(JobOutcomeUnknownError):
        run(ByHand(sends=[accepted(jobId=job_id)]))


@pytest.mark.parametrize("job_id", [JOB_ID.upper(), JOB_ID.replace("-", ""), "job_123"])
def test_an_id_is_kept_as_it_is_spelt(job_id: str) -> None:
    """It is part of a storage key, and the server chose its spelling."""
    job = run(ByHand(sends=[accepted(jobId=job_id)]))
    assert job.output_path.endswith(f"/{job_id}.mp4")
    assert job_from_ids(job.id, job.project_id) == Job(job_id, job.project_id)


@pytest.mark.undeclared("assets")
def test_what_was_sent_is_shown_without_queries_at_any_depth() -> None:
    """A signature in an extra field is masked, like one in a URL field."""
    with pytest.raises(JobOutcomeUnknownError) as caught:
        run(
            ByHand(sends=[lost()]),
            values=["https://a.example/b?s3cret"],
            extra={"assets": {"image_url": ["https://u:s3cret@a.example/b"]}},
        )
    assert "s3cret" not in repr(caught.value.sent)


@pytest.mark.undeclared("blob")
def test_a_large_extra_field_is_masked_in_linear_time() -> None:
    """Masking takes time in proportion to the text."""
    run(ByHand(sends=[accepted()]), extra={"blob": "y" * 1_000_000})


def test_an_interruption_after_a_429_does_not_warn() -> None:
    """After nothing but 429s, no job can exist."""
    by_hand = ByHand(sends=[answered(429)], on_sleep=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt) as caught:
        run(by_hand)
    assert not hasattr(caught.value, "__notes__")


def test_an_interruption_leaves_a_note(caplog) -> None:
    """Ctrl-C or a cancellation during a submission adds a note that says where to look for the job."""
    by_hand = ByHand(sends=[KeyboardInterrupt()])
    with caplog.at_level("WARNING", "techforge"), pytest.raises(KeyboardInterrupt) as caught:
        run(by_hand, project_id=PROJECT_ID)
    assert any(PROJECT_ID in note for note in caught.value.__notes__)
    assert PROJECT_ID in caplog.text
