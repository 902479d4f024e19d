"""The pure functions: times, retries, schedules, masking, and parsing of responses."""

import json
from datetime import UTC, datetime

import pytest
from support.by_hand import JOB_ID

from techforge._masking import excerpt, mask
from techforge._responses import job_in, reason_in
from techforge.errors import InvalidArgumentError, Outcome
from techforge.policy.polling import PollSchedule
from techforge.policy.retry import RetryBudget, RetryPolicy
from techforge.policy.retry_after import read_instant, read_retry_after

NOW = datetime(2024, 12, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (" 120 ", 120),
        ("1.5", 1.5),
        ("60, 60", 60),
        ("1,90", 90),
        ("1,soon", None),
        ("Sun, 01 Dec 2024 12:00:30 XYZT", 30),
        ("Sun, 01 Dec 2024 12:00:30 GMT", 30),
        ("Sunday, 01-Dec-24 12:00:30 GMT", 30),
        ("Sun Dec  1 12:00:30 2024", 30),
        ("2024-12-01T12:00:30Z", 30),
        ("2024-12-01T13:00:30+01:00", 30),
        ("Sun, 01 Dec 2024 11:00:00 GMT", 0),
        (None, None),
        ("", None),
        ("-5", None),
        ("soon", None),
        ("1e3", None),
        ("９", None),  # noqa: RUF001
        ("nan", None),
        ("9" * 400, None),
        ("86400", 86400),
        ("86401", None),
        ("1764100000", None),
        ("5, 1764100000", None),
        ("Mon, 02 Dec 2024 12:00:01 GMT", None),
        ("0" * 100_000 + "x", None),
    ],
)
def test_retry_after_in_any_spelling(value: str | None, seconds: float | None) -> None:
    """Seconds or an HTTP date in any of its three forms (RFC 9110, 10.2.3); else None."""
    assert read_retry_after(value, NOW) == seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-12-01T12:00:00Z", NOW),
        ("2024-12-01T12:00:00", NOW),
        ("2024-12-01 12:00:00+00:00", NOW),
        ("2024-12-01T14:00:00.000+0200", NOW),
        ("20241201T120000Z", NOW),
        ("12", None),
        ("never", None),
        ("", None),
        (None, None),
        (1733054400, None),
        ("2024-99-99T00:00:00Z", None),
        ("0000-00-00", None),
        ("9" * 60, None),
    ],
)
def test_instants_in_any_spelling(text: object, expected: datetime | None) -> None:
    """The result is an aware datetime or None, never an exception."""
    assert read_instant(text) == expected


def decide(policy: RetryPolicy, **changes) -> float | None:
    """Ask for a delay with default arguments, some of them changed."""
    situation = {
        "outcome": Outcome.REFUSED,
        "repeatable": True,
        "retries": 0,
        "elapsed": 0.0,
        "retry_after": None,
        "jitter": 1.0,
    } | changes
    return policy.delay(situation.pop("outcome"), **situation)


def test_retries_are_counted() -> None:
    """`max_retries=2` means two more attempts."""
    policy = RetryPolicy(max_retries=2)
    assert [decide(policy, retries=n) is None for n in range(4)] == [False, False, True, True]
    assert decide(RetryPolicy(max_retries=0)) is None


def test_many_retries_do_not_overflow() -> None:
    """The exponent is bounded."""
    assert decide(RetryPolicy(max_retries=10**6), retries=10**5) == 8.0


def test_the_budget_is_never_more_than_its_reserve() -> None:
    """Successful calls do not save up retries beyond the reserve."""
    budget = RetryBudget(reserve=2)
    for _ in range(1000):
        budget.deposit()
    assert [budget.withdraw() for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize(
    "wrong",
    [
        {"initial": 0},
        {"initial": 5, "maximum": 1},
        {"maximum": float("inf")},
        {"factor": 0.5},
        {"factor": float("nan")},
        {"jitter": 1},
        {"jitter": -0.1},
        {"max_failures": -1},
    ],
)
def test_a_schedule_must_make_sense(wrong) -> None:
    """A wrong schedule raises when it is created."""
    with pytest.raises(InvalidArgumentError):
        PollSchedule(**wrong)


def test_a_schedule_can_poll_for_ever() -> None:
    """The power does not overflow."""
    assert PollSchedule(jitter=0, factor=10).interval(10**9, 0.5) == 15


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://cdn.example.com/v.mp4?signature=s&x=1", "https://cdn.example.com/v.mp4?***"),
        ("see https://a.example/b?c=d then", "see https://a.example/b?*** then"),
        ('{"signedUrl":"https://a.example/b?c=d"}', '{"signedUrl":"https://a.example/b?***"}'),
        ("https://user:pass@a.example/b", "https://***@a.example/b"),
        ("HTTPS://a.example/b#token=s", "HTTPS://a.example/b?***"),
        ("https://a.example/b", "https://a.example/b"),
        ("is it 1?", "is it 1?"),
        ("the key key-1 is wrong", "the key *** is wrong"),
    ],
)
def test_secrets_are_masked(text: str, shown: str) -> None:
    """The whole query of a URL is masked, because any part of it may be the secret."""
    assert mask(text, "key-1") == shown


def test_an_excerpt_is_short_masked_and_never_fails() -> None:
    """Also for megabytes, binary data and secrets."""
    assert excerpt(b"\xff\xfe" + b"x" * 10_000_000).endswith("…")
    assert len(excerpt(b"x" * 10_000_000)) == 1001
    assert "key-1" not in excerpt(b"x" * 998 + b"key-1", "key-1")
    assert "s3cret" not in excerpt(
        rb'{"url": "https:\/\/a.example\/b?s3cret", "key": "a\/s3cret"}', "a/s3cret"
    )


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"message": "no"}', "no"),
        (b'{"error": "no"}', "no"),
        (b'{"message": "", "error": "no"}', "no"),
        (b'{"error": {"message": "no", "code": 1}}', "no"),
        (b'{"message": ["a", "b"]}', '["a", "b"]'),
        (b'{"message": "key-1 at https://a.example/b?c"}', "*** at https://a.example/b?***"),
        (b'{"detail": "no"}', ""),
        (b"[]", ""),
        (b"null", ""),
        (b"<html>", ""),
        (b"", ""),
        (b"\xff", ""),
        (b"[" * 100_000, ""),
    ],
)
def test_a_reason_in_any_shape(body: bytes, reason: str) -> None:
    """The API does not define a shape for its errors."""
    assert reason_in(body, "key-1") == reason


def test_a_long_reason_is_cut() -> None:
    """A message is one line, not a page."""
    assert len(reason_in(json.dumps({"message": "x" * 10_000}).encode())) == 301


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ({"jobId": JOB_ID, "status": "queued"}, (JOB_ID, "queued")),
        ({"jobId": JOB_ID}, (JOB_ID, "unknown")),
        ({"jobId": JOB_ID, "status": 7}, (JOB_ID, "unknown")),
        ({"jobId": "job_123", "status": "queued"}, ("job_123", "queued")),
        ({"message": "ok", "job": {"uuid": JOB_ID, "job_status": "QUEUED"}}, (JOB_ID, "QUEUED")),
        ({"job": JOB_ID}, (None, None)),
        ({"jobId": "../../x"}, (None, None)),
        ({"jobId": ""}, (None, None)),
        ({"jobId": None}, (None, None)),
        ({"message": "Job not found"}, (None, None)),
        ([], (None, None)),
        ({"error": {"uuid": JOB_ID}}, (None, None)),
        ({"trace": '"jobId": "x"'}, (None, None)),
        ({"job_id": JOB_ID, "status": "queued"}, (JOB_ID, None)),
        ({"id": JOB_ID}, (JOB_ID, None)),
        ({"id": "req_123"}, (None, None)),
        ({"data": {"jobId": JOB_ID}}, (JOB_ID, None)),
        ({"error": {"details": [{"jobId": JOB_ID}]}}, (JOB_ID, None)),
        ({"job": {"id": JOB_ID}}, (JOB_ID, None)),
        ({"jobId": "", "data": {"id": JOB_ID}}, (JOB_ID, None)),
        ({"jobs": [{"id": JOB_ID}]}, (JOB_ID, None)),
        ({"jobs": [{"id": JOB_ID}, {"id": JOB_ID}]}, (None, None)),
        ({"message": f"job {JOB_ID} was created but could not be queued"}, (JOB_ID, None)),
        ({"message": f"no job for project {JOB_ID}"}, (None, None)),
    ],
)
def test_a_job_in_a_response(answer: object, found: tuple[str | None, str | None]) -> None:
    """Its id is found where both revisions put it, and elsewhere, if it is safe in a path."""
    assert job_in(json.dumps(answer).encode()) == found


@pytest.mark.parametrize(
    ("location", "job_id"),
    [
        (f"/jobs/{JOB_ID}", JOB_ID),
        (f"https://api.example.com/jobs/v2/{JOB_ID}/status?x=1", JOB_ID),
        (f"/job/{JOB_ID.upper()}#x", JOB_ID.upper()),
        (f"/status?jobId={JOB_ID}", JOB_ID),
        ("/status?a=b&job_id=job_123&c=d", "job_123"),
        (f"https://login.example.com/{JOB_ID}/oauth2/authorize", None),
        (f"/jobs/{JOB_ID}0", None),
        ("/login?next=/jobs/v2", None),
        ("/jobs/new", None),
        ("", None),
    ],
)
def test_a_job_in_a_location(location: str, job_id: str | None) -> None:
    """The header names it if the body does not; a login page has ids of its own."""
    assert job_in(b"", {"location": location}) == (job_id, None)
    assert job_in(b'{"jobId": "another", "status": "queued"}', {"location": location}) == (
        "another",
        "queued",
    )


@pytest.mark.parametrize(
    ("body", "job_id"),
    [
        (b'{"jobId": "%s", "status": "que' % JOB_ID.encode(), JOB_ID),
        (b'{"message": "ok", "job": {"uuid" : "%s", ' % JOB_ID.encode(), JOB_ID),
        (b'{"jobId": "%s' % JOB_ID.encode(), None),
        (b' {"status": "queued", "id": "%s", "mess' % JOB_ID.encode(), JOB_ID),
        (b'{"data": {"id": "%s", "sta' % JOB_ID.encode(), JOB_ID),
        (b'{"error": {"jobId": "%s", "sta' % JOB_ID.encode(), JOB_ID),
        (b'{"project": {"id": "%s", "sta' % JOB_ID.encode(), None),
        (b'{"id": "%s' % JOB_ID[:-1].encode(), None),
        (b"<html>%s</html>" % JOB_ID.encode(), None),
        (b'{"jobId": "%s", "jobId": null}' % JOB_ID.encode(), JOB_ID),
        (b"", None),
        (b"\xff\xfe\x00", None),
    ],
)
def test_a_job_in_a_broken_response(body: bytes, job_id: str | None) -> None:
    """A complete id is found in broken JSON; half an id is not."""
    assert job_in(body) == (job_id, None)
