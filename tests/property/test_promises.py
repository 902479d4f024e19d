"""Promises for any sequence of failures, any clock and any server."""

import math
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.by_hand import JOB_ID, PROJECT_ID, ByHand, answered, lost

from techforge._flow import CLIENT, Opened, Send, Sleep, call
from techforge._flows.request import MIN_ATTEMPT_SECONDS, request
from techforge._flows.wait import wait
from techforge._masking import mask
from techforge._responses import job_in, reason_in
from techforge.errors import APIError, JobTimeoutError, Outcome
from techforge.models import Job
from techforge.policy.polling import PollSchedule
from techforge.policy.retry import RetryPolicy
from techforge.policy.retry_after import read_instant, read_retry_after
from techforge_api.api.storage import generate_signed_path
from techforge_api.models import SignedUrl

NOW = datetime(2024, 12, 1, tzinfo=UTC)
GET = call(generate_signed_path, SignedUrl, path="a", client=CLIENT)
POST = GET.not_repeatable("look in project P")

seconds = st.floats(0, 1e6)
pauses = st.none() | seconds
failures = st.builds(
    lambda status, retry_after: answered(status, retry_after=retry_after),
    st.sampled_from([408, 400, 401, 404, 429, 500, 503, 599]),
    pauses,
) | st.builds(lost, st.sampled_from([Outcome.NOT_SENT, Outcome.UNKNOWN]))


def outcome_of(by_hand: ByHand, flow) -> APIError | None:
    """Run a flow to its end, and return its error."""
    try:
        by_hand.run(flow)
    except APIError as error:
        return error
    return None


@given(st.lists(failures, min_size=1, max_size=8), st.integers(0, 5), st.floats(1, 1e4), st.floats(0, 1))
def test_a_call_keeps_its_bounds(script, max_retries: int, retry_timeout: float, jitter: float) -> None:
    """The numbers of retries and seconds of sleep are limited, and every pause is kept."""
    by_hand = ByHand(sends=[*script, "answer"], jitter=jitter)
    started = by_hand.clock.now
    settings = by_hand.settings(max_retries=max_retries, retry_timeout=retry_timeout)
    error = outcome_of(by_hand, request(GET, settings))
    assert error is None or error.attempts == len(by_hand.of(Send))
    obeyed = script[: max(0, len(by_hand.of(Send)) - 1)]
    refused = sum(failure.status_code == 429 for failure in obeyed)
    assert len(obeyed) <= max_retries + (refused if max_retries else 0)
    assert by_hand.clock.now - started <= retry_timeout
    assert sum(failure.retry_after or 0 for failure in obeyed) <= by_hand.clock.now - started + 1e-6


@given(st.lists(failures, min_size=1, max_size=8))
def test_what_may_have_run_is_never_submitted_again(script) -> None:
    """After an unknown outcome, a request that must not run twice is not sent again."""
    by_hand = ByHand(sends=[*script, "answer"])
    doubt = next((n for n, failure in enumerate(script) if failure.outcome is Outcome.UNKNOWN), math.inf)
    settings = by_hand.settings(max_retries=20, retry_timeout=1e9)
    error = outcome_of(by_hand, request(POST, settings))
    if error is not None:
        seen = {failure.outcome for failure in script[: error.attempts]}
        assert error.job_may_exist == bool(seen & {Outcome.UNKNOWN, Outcome.SERVER_FAILED})
    assert len(by_hand.of(Send)) <= doubt + 1


@example([429], 1.0, 0.015625, 0.0)
@given(
    st.lists(st.sampled_from([404, 429, 500]), max_size=30),
    st.floats(0.01, 1e4),
    st.floats(0.01, 100),
    st.floats(0, 20),
)
def test_a_wait_keeps_its_deadline(statuses, timeout: float, interval: float, latency: float) -> None:
    """A wait ends at its deadline, within 20 ms, or earlier if the rate limiter leaves no time for a poll."""
    limited = 429 in statuses

    def slow(send: Send):
        by_hand.clock.now += min(latency, send.timeout)
        raise answered(statuses.pop() if statuses else 404)

    by_hand = ByHand(sends=[slow])
    started = by_hand.clock.now
    schedule = PollSchedule(initial=interval, maximum=max(interval, 100), max_failures=1000)
    with pytest.raises(JobTimeoutError):
        by_hand.run(wait(Job(JOB_ID, PROJECT_ID), by_hand.settings(), timeout=timeout, poll=schedule))
    assert by_hand.clock.now - started <= timeout * (1 + 1e-9)
    assert limited or timeout - 2 * MIN_ATTEMPT_SECONDS <= by_hand.clock.now - started
    assert all(sleep.seconds >= 0 for sleep in by_hand.of(Sleep))


@given(st.integers(0, 10**6), st.floats(0, 1), st.floats(0.001, 100), st.floats(1, 10), st.floats(0, 0.99))
def test_an_interval_stays_in_its_bounds(
    polls: int, roll: float, initial: float, factor: float, jitter: float
) -> None:
    """From the first poll to the millionth."""
    schedule = PollSchedule(initial=initial, factor=factor, maximum=initial * 50, jitter=jitter)
    interval = schedule.interval(polls, roll)
    assert initial * (1 - jitter) * 0.999 <= interval <= initial * 50 * (1 + jitter) * 1.001


@given(
    st.sampled_from(Outcome),
    st.booleans(),
    st.integers(0, 100),
    seconds,
    pauses,
    st.floats(0, 1),
    st.booleans(),
)
def test_a_delay_fits_or_is_none(
    outcome, repeatable, retries, elapsed, retry_after, jitter, resubmit
) -> None:
    """A delay obeys `Retry-After` and fits the time that is left. Nothing is repeated at a risk."""
    policy = RetryPolicy(max_retries=50, resubmit_on_server_error=resubmit)
    delay = policy.delay(
        outcome,
        repeatable=repeatable,
        retries=retries,
        elapsed=elapsed,
        retry_after=retry_after,
        jitter=jitter,
    )
    if outcome is Outcome.DEFINITIVE or (outcome is Outcome.UNKNOWN and not repeatable) or retries >= 50:
        assert delay is None
    if delay is not None:
        assert (retry_after or 0) <= delay
        assert elapsed + delay < policy.retry_timeout


@given(st.text() | st.integers(-(10**12), 10**12).map(str) | st.datetimes().map(lambda d: d.isoformat()))
def test_any_header_is_a_pause_or_nothing(value: str) -> None:
    """A server can send any text in `Retry-After`."""
    pause = read_retry_after(value, NOW)
    assert pause is None or (pause >= 0 and math.isfinite(pause))


@given(st.one_of(st.text(), st.integers(), st.none(), st.datetimes().map(str)))
def test_any_instant_is_aware_or_nothing(value: object) -> None:
    """A server can send any text in `expiresAt`."""
    instant = read_instant(value)
    assert instant is None or instant.utcoffset() is not None


@given(st.binary())
def test_any_body_can_be_searched(body: bytes) -> None:
    """A server can send any bytes in a body."""
    assert isinstance(reason_in(body), str)
    assert len(job_in(body)) == 2


@given(st.text(alphabet="abcXYZ019=&%+-_", min_size=8), st.sampled_from(["?", "#"]))
def test_no_query_is_ever_shown(query: str, mark: str) -> None:
    """Whatever a signature looks like, it is masked."""
    assert mask(f'"https://cdn.example.com/v.mp4{mark}{query}"') == '"https://cdn.example.com/v.mp4?***"'


@given(
    st.integers(-1, 700),
    st.dictionaries(st.sampled_from(["content-range", "content-length", "etag"]), st.text()),
)
def test_any_response_of_storage_ends_a_poll(status: int, headers: dict[str, str]) -> None:
    """A poll finds the object, finds none, or fails. There is no other result."""
    by_hand = ByHand(
        sends=[SignedUrl(signed_url="https://cdn.example.com/v")], opens=[Opened(status, headers)]
    )
    try:
        video = by_hand.run(
            wait(Job(JOB_ID, PROJECT_ID), by_hand.settings(), timeout=3, poll=PollSchedule(max_failures=0))
        )
    except (APIError, JobTimeoutError):
        assert status not in {200, 206}
    else:
        assert video.size is None or video.size >= 0
