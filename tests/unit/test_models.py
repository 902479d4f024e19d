"""The values that calls return."""

import pickle
from datetime import UTC, datetime

import pytest
from support.by_hand import JOB_ID, PROJECT_ID

from techforge import Job, JobState, JobUpdate, PollSchedule, SignedUrl, Video

JOB = Job(JOB_ID, PROJECT_ID, "queued", "soon")
SIGNED = SignedUrl("a/b.mp4", "https://cdn.example.com/b.mp4?signature=s3cret", datetime.now(UTC))
VIDEO = Video(JOB, SIGNED, 1234, '"etag"', "video/mp4")


@pytest.mark.parametrize("value", [JOB, SIGNED, VIDEO, JobState("done"), JobUpdate(JOB, "x", None, 1.0, 2)])
def test_values_survive_pickle_and_do_not_change(value) -> None:
    """They can be stored, compared and hashed, and are immutable."""
    assert pickle.loads(pickle.dumps(value)) == value  # noqa: S301
    assert hash(value) == hash(pickle.loads(pickle.dumps(value)))  # noqa: S301
    with pytest.raises(AttributeError):
        value.status = "other"


def test_no_repr_shows_a_signature() -> None:
    """A video can be logged; its signed URL cannot."""
    assert "s3cret" not in f"{SIGNED!r} {VIDEO!r} {SIGNED} {VIDEO}"
    assert "cdn.example.com/b.mp4" in repr(VIDEO)
    assert VIDEO.url == SIGNED.url


def test_a_video_has_path_url_and_expiry() -> None:
    """They are attributes of the video."""
    assert (VIDEO.path, VIDEO.url, VIDEO.expires_at) == (SIGNED.path, SIGNED.url, SIGNED.expires_at)


def test_the_output_path_follows_from_the_ids_unless_given() -> None:
    """The default follows the API's scheme."""
    assert JOB.output_path == f"ai-talking-videos/{PROJECT_ID}/outputs/{JOB_ID}.mp4"
    assert Job(JOB_ID, PROJECT_ID, output_path="elsewhere.mp4").output_path == "elsewhere.mp4"


def test_a_schedule_is_a_value() -> None:
    """It can be shared and compared."""
    assert PollSchedule() == PollSchedule()
