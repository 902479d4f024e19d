"""Waiting: polls of storage and of trackers, their intervals, and the end of a wait."""

import pickle
from enum import Enum

import pytest
from support.by_hand import AUDIO, IMAGE, JOB_ID, PROJECT_ID, ByHand, answered, lost

from techforge._flow import Close, Invoke, Open, Opened, Read, Send
from techforge._flows.wait import create_and_wait, poll_once, wait
from techforge.errors import (
    APIConnectionError,
    AuthenticationError,
    InvalidArgumentError,
    JobFailedError,
    JobTimeoutError,
    TechForgeError,
)
from techforge.models import Job
from techforge.policy.polling import PollSchedule
from techforge.tracking import JobState
from techforge_api.models import JobAccepted, SignedUrl

JOB = Job(JOB_ID, PROJECT_ID, "queued")
URL = "https://cdn.example.com/video.mp4?signature=secret"
SIGNED = SignedUrl(signed_url=URL, expires_at="2024-12-01T12:00:00Z")
THERE = Opened(206, {"content-range": "bytes 0-0/1234", "etag": '"a"', "content-type": "video/mp4"})
STEADY = PollSchedule(initial=1, factor=1, maximum=1, jitter=0)


def waiting(by_hand: ByHand, job: Job = JOB, **options):
    """Wait for a job on a fixed schedule."""
    return by_hand.run(wait(job, by_hand.settings(), **{"poll": STEADY, **options}))


def test_404_is_not_yet_and_a_signed_object_is_done() -> None:
    """Without a tracker, a wait polls storage until the object exists."""
    by_hand = ByHand(sends=[answered(404), answered(404), SIGNED], opens=[THERE])
    video = waiting(by_hand)
    assert len(by_hand.of(Send)) == 3
    assert by_hand.slept == [1, 1]
    assert (video.url, video.path, video.size, video.etag) == (URL, JOB.output_path, 1234, '"a"')
    assert video.content_type == "video/mp4"
    assert video.expires_at is not None
    assert video.expires_at.isoformat() == "2024-12-01T12:00:00+00:00"
    assert video.job.status == "done"


@pytest.mark.parametrize("status", [403, 404, 410, 416])
def test_a_signature_alone_proves_nothing(status: int) -> None:
    """A key can be signed before its object exists, so each poll requests one byte."""
    by_hand = ByHand(sends=[SIGNED], opens=[Opened(status, {}), THERE])
    assert waiting(by_hand).size == 1234
    assert [command.headers for command in by_hand.of(Open)] == [{"range": "bytes=0-0"}] * 2
    assert len(by_hand.of(Close)) == 2


@pytest.mark.parametrize("reads", [[b"x", b""], [lost()], [b"x" * 65536, b"x" * 65536]])
def test_the_byte_is_read_so_that_the_connection_can_be_used_again(reads: list[object]) -> None:
    """The wait ends whether or not that byte arrives."""
    by_hand = ByHand(sends=[SIGNED], opens=[THERE], reads=reads)
    assert waiting(by_hand).size == 1234
    assert 1 <= len(by_hand.of(Read)) <= 2
    assert len(by_hand.of(Close)) == 1


@pytest.mark.parametrize(
    ("answer", "size"),
    [
        (Opened(200, {"content-length": "99"}), 99),
        (Opened(200, {}), None),
        (Opened(200, {"content-length": "many"}), None),
        (Opened(206, {"content-range": "bytes 0-0/*"}), None),
        (Opened(206, {}), None),
    ],
)
def test_the_size_is_what_storage_says(answer: Opened, size: int | None) -> None:
    """A server may ignore the range or report no size."""
    assert waiting(ByHand(sends=[SIGNED], opens=[answer])).size == size


def test_a_missing_or_odd_expiry_is_none() -> None:
    """A later revision of the API may sign without an expiry."""
    for expires_at in (None, 7, "soon"):
        signed = SignedUrl.from_dict({"signedUrl": URL, "expiresAt": expires_at})
        assert waiting(ByHand(sends=[signed], opens=[THERE])).expires_at is None


def test_polls_start_quick_and_slow_down() -> None:
    """The default intervals are 1 s, 1.5 s, 2.25 s … at most 15 s."""
    by_hand = ByHand(sends=[lambda _: answered(404)])
    with pytest.raises(JobTimeoutError):
        waiting(by_hand, poll=PollSchedule(jitter=0), timeout=60)
    assert by_hand.slept[:3] == [1, 1.5, 2.25]
    assert max(by_hand.slept) == 15


def test_a_number_is_a_fixed_interval() -> None:
    """`poll=2` polls every two seconds."""
    by_hand = ByHand(sends=[lambda _: answered(404)])
    with pytest.raises(JobTimeoutError):
        waiting(by_hand, poll=2, timeout=10)
    assert by_hand.slept == [2] * 5


def test_the_deadline_ends_the_wait_exactly() -> None:
    """The last sleep ends at the deadline, and no request gets more time than is left."""
    by_hand = ByHand(sends=[lambda _: answered(404)])
    with pytest.raises(JobTimeoutError) as caught:
        waiting(by_hand, poll=4, timeout=10)
    assert by_hand.slept == [4, 4, 2]
    assert [send.timeout for send in by_hand.of(Send)] == [10, 6, 2]
    error = caught.value
    assert isinstance(error, TimeoutError)
    assert (error.job.id, error.last_status, error.elapsed) == (JOB_ID, "queued", 10)
    assert f"from_ids('{JOB_ID}', '{PROJECT_ID}')" in str(error)


def test_a_timeout_error_can_be_waited_on_again_after_pickling() -> None:
    """The error has everything that another process needs."""
    by_hand = ByHand(sends=[lambda _: answered(404)])
    with pytest.raises(JobTimeoutError) as caught:
        waiting(by_hand, timeout=3)
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
    assert copy.job == JOB
    assert str(copy) == str(caught.value)
    assert waiting(ByHand(sends=[SIGNED], opens=[THERE]), copy.job).size == 1234


def test_failing_polls_are_tolerated_within_a_bound() -> None:
    """Five failures in a row are tolerated; the sixth ends the wait."""
    weather = [lost(), answered(500), lost(), answered(502), lost()]
    assert waiting(ByHand(sends=[*weather, SIGNED], opens=[THERE])).size == 1234

    by_hand = ByHand(sends=[lambda _: lost()])
    with pytest.raises(APIConnectionError) as caught:
        waiting(by_hand)
    assert len(by_hand.of(Send)) == 6
    assert caught.value.job == JOB
    assert any(JOB_ID in note for note in caught.value.__notes__)


def test_a_good_poll_forgets_the_failures() -> None:
    """Only failures in a row count."""
    by_hand = ByHand(sends=[*([lost()] * 5 + [answered(404)]) * 3, SIGNED], opens=[THERE])
    assert waiting(by_hand).size == 1234


def test_a_failing_probe_is_a_failing_poll() -> None:
    """Failures of storage count like failures of the API."""
    by_hand = ByHand(sends=[SIGNED], opens=[Opened(503, {}, retry_after=9), lost(), THERE])
    assert waiting(by_hand).size == 1234
    assert by_hand.slept == [9, 1]


def test_polls_are_not_retried_inside() -> None:
    """A failing poll sends one request; the next poll is its retry."""
    by_hand = ByHand(sends=[answered(500), SIGNED], opens=[THERE])
    waiting(by_hand)
    assert by_hand.slept == [1]


def test_rate_limits_slow_a_wait_and_never_end_it() -> None:
    """A 429 does not count as a failure."""
    by_hand = ByHand(sends=[*[answered(429, retry_after=20)] * 8, SIGNED], opens=[THERE])
    waiting(by_hand)
    assert by_hand.slept == [20] * 8


def test_a_retry_after_beyond_the_deadline_ends_the_wait_at_once() -> None:
    """There would be no time for another poll."""
    by_hand = ByHand(sends=[answered(429, retry_after=3600)])
    with pytest.raises(JobTimeoutError) as caught:
        waiting(by_hand, timeout=60)
    assert by_hand.slept == []
    assert caught.value.retry_after == 3600


def test_a_definitive_refusal_ends_the_wait_at_once() -> None:
    """For example a 401: the next poll would fail, too."""
    by_hand = ByHand(sends=[answered(401)])
    with pytest.raises(AuthenticationError) as caught:
        waiting(by_hand)
    assert len(by_hand.of(Send)) == 1
    assert caught.value.job == JOB


class Script:
    """A tracker that returns a list of values, one by one."""

    def __init__(self, *states) -> None:
        self.states = list(states)
        self.asked: list[Job] = []

    def check(self, job: Job):
        """Return the next value."""
        self.asked.append(job)
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(state, Exception):
            raise state
        return state


def test_a_tracker_saves_requests_to_storage() -> None:
    """Storage is polled only after the tracker reports that the job is done."""
    by_hand = ByHand(sends=[SIGNED], opens=[THERE])
    tracker = Script("queued", "IN_PROGRESS", JobState("Done"))
    assert waiting(by_hand, tracker=tracker).job.status == "done"
    assert (len(tracker.asked), len(by_hand.of(Send))) == (3, 1)


@pytest.mark.parametrize("status", ["failed", "FAILED"])
def test_a_failed_job_ends_the_wait(status: str) -> None:
    """The error has the job and the tracker's reason."""
    updates = []
    with pytest.raises(JobFailedError, match="no face found") as caught:
        waiting(
            ByHand(), tracker=Script("queued", JobState(status, "no face found")), on_update=updates.append
        )
    assert caught.value.job.status == status
    assert caught.value.reason == "no face found"
    assert updates[-1].status == status


def test_unknown_statuses_keep_polling() -> None:
    """An unknown status means that the job continues."""
    by_hand = ByHand(sends=[SIGNED], opens=[THERE])
    tracker = Script("cancelled", "Überprüfung", "", None, "success")  # None: no change
    waiting(by_hand, tracker=tracker)
    assert len(tracker.asked) == 5


class Status(str, Enum):  # noqa: UP042 - the older way, whose str() is not the value
    """A user's own enum of statuses."""

    FAILED = "failed"


@pytest.mark.parametrize("said", [Status.FAILED, JobState(Status.FAILED)])
def test_a_status_may_be_an_enum(said) -> None:
    """Its value counts, not its Python name."""
    with pytest.raises(JobFailedError) as caught:
        waiting(ByHand(), tracker=Script(said))
    assert f"{caught.value.job.status}" == "failed"


@pytest.mark.parametrize("said", [7, {"status": "done"}, object()])
def test_a_tracker_that_returns_another_type_is_an_error(said) -> None:
    """Another type than a status is a bug of the tracker."""
    with pytest.raises(InvalidArgumentError, match="tracker"):
        waiting(ByHand(), tracker=Script(said))


def test_a_tracker_must_be_able_to_check() -> None:
    """An object without `check` is refused before anything is sent."""
    with pytest.raises(InvalidArgumentError, match="tracker"):
        waiting(ByHand(), tracker=object())


def test_a_job_that_failed_at_submission_is_not_polled() -> None:
    """The response to the submission may have the status `failed`."""
    by_hand = ByHand()
    with pytest.raises(JobFailedError):
        waiting(by_hand, Job(JOB_ID, PROJECT_ID, "failed"))
    assert by_hand.of(Send) == []


def test_a_storage_that_refuses_is_named_at_the_end() -> None:
    """A 403 behind each signed URL is named in the timeout error."""
    by_hand = ByHand(sends=[SIGNED], opens=[Opened(403, {})])
    with pytest.raises(JobTimeoutError, match="403") as caught:
        waiting(by_hand, timeout=3)
    assert caught.value.last_error.status_code == 403


def test_a_trackers_error_may_have_attributes_of_any_kind() -> None:
    """Its `retry_after` has nothing to do with ours."""
    error = OSError("busy")
    error.retry_after = "30"
    assert waiting(ByHand(sends=[SIGNED], opens=[THERE]), tracker=Script(error, "done")).size == 1234


def test_user_code_gets_what_is_left_of_the_time() -> None:
    """An async tracker or `on_update` that hangs ends with the wait."""
    by_hand = ByHand(sends=[SIGNED], opens=[THERE])
    waiting(by_hand, tracker=Script("x", "done"), on_update=print, timeout=10)
    assert {command.timeout for command in by_hand.of(Invoke)} == {10, 9}


def test_a_tracker_may_know_another_path() -> None:
    """`output_path` of a tracker is the storage key of the video."""
    by_hand = ByHand(sends=[SIGNED], opens=[THERE])
    video = waiting(by_hand, tracker=Script(JobState("done", output_path="elsewhere/v.mp4")))
    assert video.path == "elsewhere/v.mp4"
    assert by_hand.of(Send)[0].call.arguments["path"] == "elsewhere/v.mp4"


def test_a_failing_tracker_is_a_failing_poll() -> None:
    """Beyond the limit, its own error is raised, with a note of the job."""
    by_hand = ByHand(sends=[SIGNED], opens=[THERE])
    assert waiting(by_hand, tracker=Script(*[KeyError("x")] * 5, "done")).size == 1234
    with pytest.raises(KeyError) as caught:
        waiting(ByHand(), tracker=Script(KeyError("x")))
    assert any(JOB_ID in note for note in caught.value.__notes__)


def test_updates_begin_before_the_first_poll() -> None:
    """`on_update` is called with the job at once, then after each poll."""
    updates = []
    by_hand = ByHand(sends=[answered(404), SIGNED], opens=[THERE])
    waiting(by_hand, on_update=updates.append)
    assert [(u.polls, u.status, u.elapsed) for u in updates] == [
        (0, "queued", 0),
        (1, "queued", 0),
        (2, "done", 1),
    ]


def test_the_first_status_is_waiting() -> None:
    """Without a reported status, "unknown" would read as the state of the job."""
    updates = []
    by_hand = ByHand(sends=[answered(404)])
    with pytest.raises(JobTimeoutError) as caught:
        waiting(by_hand, Job(JOB_ID, PROJECT_ID), timeout=3, on_update=updates.append)
    assert {update.status for update in updates} == {"waiting"}
    assert "unknown" not in str(caught.value)


class SignsSlowly(ByHand):
    """An API that signs 5 ms before the deadline, too late for a request to storage."""

    def _carry_out(self, command):
        result = super()._carry_out(command)
        if isinstance(command, Send):
            self.clock.now += 0.985
        return result


@pytest.mark.parametrize("failure", [answered(503), answered(429, retry_after=0.1)])
def test_a_poll_that_there_was_no_time_for_hides_no_failure(failure) -> None:
    """The timeout error has the last failure of a request that was sent."""
    by_hand = SignsSlowly(sends=[failure, SIGNED], opens=[THERE])
    with pytest.raises(JobTimeoutError) as caught:
        waiting(by_hand, timeout=1.99, poll=1.0)
    assert caught.value.last_error is failure


@pytest.mark.parametrize("max_failures", [0, 5])
def test_a_poll_that_there_was_no_time_for_is_no_failed_poll(max_failures: int) -> None:
    """The wait ends with a timeout, whatever `max_failures` is."""
    by_hand = SignsSlowly(sends=[SIGNED], opens=[THERE])
    with pytest.raises(JobTimeoutError) as caught:
        waiting(by_hand, timeout=0.99, poll=PollSchedule(initial=1.0, max_failures=max_failures))
    assert (caught.value.last_error, caught.value.polls) == (None, 1)


@pytest.mark.parametrize(
    ("answer", "ends"),
    [(JobState("failed", "no face"), JobFailedError), (JobState("queued"), JobTimeoutError), ("done", None)],
)
def test_a_hanging_on_update_does_not_change_the_result(answer, ends) -> None:
    """The wait returns its video or raises its own error."""
    by_hand = ByHand(sends=[SIGNED], opens=[THERE])

    class Slow:
        def check(self, _: Job):
            by_hand.clock.now += 9
            return answer

    def hangs(update) -> None:
        if update.polls:
            by_hand.clock.now += 1
            raise TimeoutError

    def run():
        return waiting(by_hand, tracker=Slow(), timeout=10, on_update=hangs)

    if ends is None:
        assert run().size == 1234
    else:
        with pytest.raises(ends):
            run()


def test_a_timeout_error_of_user_code_is_raised() -> None:
    """Before the deadline, it comes from the user's code."""

    def broken(_: object) -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        waiting(ByHand(), on_update=broken)


def test_an_error_of_on_update_is_raised() -> None:
    """It is raised unchanged, with a note of the job."""

    def broken(_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        waiting(ByHand(), on_update=broken)
    assert any(JOB_ID in note for note in caught.value.__notes__)


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": float("nan")},
        {"timeout": "60"},
        {"poll": 0},
        {"poll": -1},
        {"poll": float("inf")},
    ],
)
def test_bad_options_are_refused_at_once(options) -> None:
    """Nothing is sent with a wrong schedule."""
    by_hand = ByHand(sends=[SIGNED])
    with pytest.raises(InvalidArgumentError) as caught:
        waiting(by_hand, **options)
    assert by_hand.commands == []
    assert caught.value.field in options


@pytest.mark.parametrize("job", [JOB_ID, None, (JOB_ID, PROJECT_ID)])
def test_a_job_must_be_a_job(job) -> None:
    """If ids are passed, the error mentions `from_ids`."""
    with pytest.raises(InvalidArgumentError, match="from_ids"):
        waiting(ByHand(), job)


def test_find_polls_once() -> None:
    """It returns None if the video does not exist yet."""
    by_hand = ByHand(sends=[answered(404)])
    assert by_hand.run(poll_once(JOB, by_hand.settings())) is None
    by_hand = ByHand(sends=[SIGNED], opens=[THERE])
    assert by_hand.run(poll_once(JOB, by_hand.settings())).size == 1234


def test_create_and_wait_is_both() -> None:
    """One call; `on_update` gets the job before the first poll."""
    updates = []
    by_hand = ByHand(
        sends=[JobAccepted.from_dict({"jobId": JOB_ID, "status": "queued"}), answered(404), SIGNED],
        opens=[THERE],
    )
    params = {"image_url": IMAGE, "audio_url": AUDIO, "project_id": PROJECT_ID}
    video = by_hand.run(create_and_wait(by_hand.settings(), params, poll=STEADY, on_update=updates.append))
    assert video.job.id == updates[0].job.id == JOB_ID


def test_create_and_wait_checks_everything_before_it_pays() -> None:
    """A wrong timeout fails before the job is submitted."""
    by_hand = ByHand(sends=[SIGNED])
    params = {"image_url": IMAGE, "audio_url": AUDIO}
    for options in ({"timeout": -1}, {"poll": 0}):
        with pytest.raises(InvalidArgumentError):
            by_hand.run(create_and_wait(by_hand.settings(), params, **options))
    assert by_hand.commands == []


def test_create_and_wait_never_loses_the_job() -> None:
    """Every error after the submission has the job."""
    accepted = JobAccepted.from_dict({"jobId": JOB_ID, "status": "queued"})
    params = {"image_url": IMAGE, "audio_url": AUDIO, "project_id": PROJECT_ID}
    for failure in (answered(401), KeyboardInterrupt()):
        by_hand = ByHand(sends=[accepted, failure])
        with pytest.raises(type(failure)) as caught:
            by_hand.run(create_and_wait(by_hand.settings(), params))
        assert any(JOB_ID in note for note in caught.value.__notes__)
        if isinstance(failure, TechForgeError):
            assert caught.value.job.id == JOB_ID
