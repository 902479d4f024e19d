"""One operation: which failures are retried, when, and the error after the last one."""

import pytest
from support.by_hand import ByHand, answered, lost

from techforge._flow import CLIENT, Invoke, Send, Sleep, call
from techforge._flows.request import request
from techforge.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    ConfigurationError,
    InternalServerError,
    Outcome,
    RateLimitError,
)
from techforge_api.api.jobs import create_job
from techforge_api.api.storage import generate_signed_path
from techforge_api.models import JobAccepted, JobRequest, SignedUrl

GET = call(generate_signed_path, SignedUrl, path="a", client=CLIENT)
BODY = JobRequest.from_dict(
    {
        "image_url": "https://cdn.example.com/i",
        "audio_url": "https://cdn.example.com/a",
        "job_type": "ai_talking_video",
        "project_id": "468ea7a0-66e1-4357-a760-236e54167f3e",
    }
)
POST = call(create_job, JobAccepted, body=BODY, client=CLIENT).not_repeatable("look in project P")


def in_doubt(status: int) -> APIError:
    """Return the error for a submission that a gateway answered."""
    error = answered(status)
    error.outcome = Outcome.UNKNOWN
    return error


SENT_AGAIN = {
    # failure: (a GET is sent again, a POST is sent again)
    "never delivered": (lambda: lost(Outcome.NOT_SENT), True, True),
    "server failed": (lambda: answered(503), True, True),
    "odd server failure": (lambda: answered(599), True, True),
    "gateway failed": (lambda: in_doubt(502), True, False),
    "unknown": (lost, True, False),
    "request timeout": (lambda: answered(408), True, False),
    "bad request": (lambda: answered(400), False, False),
    "unauthorized": (lambda: answered(401), False, False),
    "not found": (lambda: answered(404), False, False),
    "redirected": (lambda: answered(307), False, False),
}


@pytest.mark.parametrize("name", SENT_AGAIN)
@pytest.mark.parametrize("operation", [GET, POST], ids=["GET", "POST"])
def test_which_outcomes_are_retried(name: str, operation) -> None:
    """A request is sent again only if it cannot cost money twice."""
    failure, get_again, post_again = SENT_AGAIN[name]
    by_hand = ByHand(sends=[lambda _: failure()])
    with pytest.raises(type(failure())) as caught:
        by_hand.run(request(operation, by_hand.settings()))
    again = get_again if operation is GET else post_again
    assert len(by_hand.of(Send)) == (3 if again else 1)
    assert caught.value.attempts == (3 if again else 1)


def test_success_after_failures() -> None:
    """A retry may succeed. Attempts are numbered from one."""
    by_hand = ByHand(sends=[answered(500), lost(Outcome.NOT_SENT), "answer"])
    assert by_hand.run(request(POST, by_hand.settings())) == "answer"
    assert [send.attempt for send in by_hand.of(Send)] == [1, 2, 3]


def test_resubmission_can_be_turned_off() -> None:
    """With `resubmit_on_server_error=False` a POST is not retried after a 5xx; a GET is."""
    for operation, attempts in ((POST, 1), (GET, 3)):
        by_hand = ByHand(sends=[lambda _: answered(500)])
        with pytest.raises(InternalServerError):
            by_hand.run(request(operation, by_hand.settings(resubmit_on_server_error=False)))
        assert len(by_hand.of(Send)) == attempts


@pytest.mark.parametrize(
    ("failures", "may_exist"),
    [
        ([answered(400)], False),
        ([lost(Outcome.NOT_SENT)] * 3, False),
        ([answered(429)] * 3, False),
        ([answered(500)] * 3, True),
        ([answered(500), lost(Outcome.NOT_SENT), lost(Outcome.NOT_SENT)], True),
        ([lost()], True),
    ],
)
def test_job_may_exist_covers_all_attempts(failures, may_exist: bool) -> None:
    """It is True if any attempt may have created a job."""
    by_hand = ByHand(sends=list(failures))
    with pytest.raises(type(failures[-1])) as caught:
        by_hand.run(request(POST, by_hand.settings()))
    assert caught.value.job_may_exist is may_exist
    assert ("A job may exist" in str(caught.value)) is may_exist


def test_a_get_creates_no_job() -> None:
    """After a GET, `job_may_exist` is False."""
    by_hand = ByHand(sends=[lambda _: answered(500)])
    with pytest.raises(InternalServerError) as caught:
        by_hand.run(request(GET, by_hand.settings()))
    assert caught.value.job_may_exist is False


def test_backoff_grows_with_full_jitter() -> None:
    """Each pause is random, up to 0.5 s, 1 s, 2 s … 8 s."""
    by_hand = ByHand(sends=[lambda _: answered(500)], jitter=0.5)
    with pytest.raises(InternalServerError):
        by_hand.run(request(GET, by_hand.settings(max_retries=7)))
    assert by_hand.slept == [0.25, 0.5, 1.0, 2.0, 4.0, 4.0, 4.0]


def test_retry_after_is_obeyed_in_full() -> None:
    """The full pause is kept, after a 429 and after a 503."""
    by_hand = ByHand(sends=[answered(429, retry_after=30), answered(503, retry_after=7), "answer"])
    by_hand.run(request(POST, by_hand.settings()))
    assert by_hand.slept == [30, 7]


@pytest.mark.parametrize("operation", [GET, POST], ids=["GET", "POST"])
def test_a_429_is_no_retry(operation) -> None:
    """It does not count as a retry: the call waits for the rate limiter again. An option changes that."""
    by_hand = ByHand(sends=[*[answered(429)] * 5, "answer"])
    settings = by_hand.settings(max_retries=1)
    assert by_hand.run(request(operation, settings)) == "answer"
    assert settings.budget._tokens == settings.budget._reserve
    by_hand = ByHand(sends=[answered(429)])
    with pytest.raises(RateLimitError) as caught:
        by_hand.run(request(operation, by_hand.settings(max_retries=0)))
    assert (caught.value.attempts, by_hand.slept) == (1, [])


@pytest.mark.parametrize("operation", [GET, POST], ids=["GET", "POST"])
def test_an_endless_429_ends(operation) -> None:
    """The pauses grow, and the call ends at its deadline."""
    by_hand = ByHand(sends=[lambda _: answered(429)])
    started = by_hand.clock.now
    with pytest.raises(RateLimitError) as caught:
        by_hand.run(request(operation, by_hand.settings()))
    assert 60 < by_hand.clock.now - started <= 120
    assert len(by_hand.of(Send)) == caught.value.attempts < 25
    assert caught.value.job_may_exist is False


def test_a_429_that_names_a_job_is_not_retried() -> None:
    """A request that may have created a job is not repeated, whatever the status."""
    refusal = answered(429)
    refusal.outcome = Outcome.UNKNOWN
    by_hand = ByHand(sends=[refusal, "answer"])
    with pytest.raises(RateLimitError):
        by_hand.run(request(POST, by_hand.settings()))
    assert len(by_hand.of(Send)) == 1


def test_one_429_makes_all_callers_pause() -> None:
    """A `Retry-After` pauses the whole client."""
    by_hand = ByHand(sends=[answered(429, retry_after=30), "answer"])
    settings = by_hand.settings(max_retries=0)
    with pytest.raises(RateLimitError):
        by_hand.run(request(GET, settings))
    with pytest.raises(RateLimitError, match="allows no request before the deadline") as caught:
        by_hand.run(request(POST, settings, deadline=by_hand.clock.now + 10))
    assert (caught.value.attempts, caught.value.retry_after, len(by_hand.of(Send))) == (0, 30, 1)
    assert str(caught.value).startswith("the rate limit allows no request")
    assert by_hand.run(request(POST, settings)) == "answer"
    assert by_hand.slept == [30]


def test_a_longer_retry_after_fails_at_once() -> None:
    """A pause beyond `retry_timeout` fails at once, and the error has the pause."""
    by_hand = ByHand(sends=[answered(429, retry_after=3600)])
    with pytest.raises(RateLimitError) as caught:
        by_hand.run(request(GET, by_hand.settings()))
    assert by_hand.slept == []
    assert caught.value.retry_after == 3600
    assert "retry after: 3600 s" in str(caught.value)


def test_a_deadline_bounds_attempts_and_pauses() -> None:
    """No attempt and no pause goes past the deadline."""
    by_hand = ByHand(sends=[lambda _: answered(500, retry_after=4)])
    with pytest.raises(InternalServerError):
        by_hand.run(request(GET, by_hand.settings(max_retries=9), deadline=by_hand.clock.now + 10))
    assert [send.timeout for send in by_hand.of(Send)] == [10, 6, 2]
    assert by_hand.slept == [4, 4]


def test_nothing_is_sent_after_the_deadline() -> None:
    """The call fails without a request."""
    by_hand = ByHand(sends=["answer"])
    with pytest.raises(APITimeoutError) as caught:
        by_hand.run(request(GET, by_hand.settings(), deadline=by_hand.clock.now))
    assert by_hand.of(Send) == []
    assert (caught.value.outcome, caught.value.attempts) == (Outcome.NOT_SENT, 0)


@pytest.mark.parametrize("operation", [GET, POST], ids=["GET", "POST"])
@pytest.mark.parametrize("retry_after", [9.991, 9.995, 9.999])
def test_a_deadline_just_after_the_pause_reports_the_429(operation, retry_after: float) -> None:
    """With less than 10 ms left after the pause, the call fails at once with the 429."""
    by_hand = ByHand(sends=[answered(429, retry_after=retry_after), "answer"])
    with pytest.raises(RateLimitError) as caught:
        by_hand.run(request(operation, by_hand.settings(retry_timeout=10.0)))
    assert (caught.value.status_code, caught.value.retry_after) == (429, retry_after)
    assert (caught.value.attempts, by_hand.slept) == (1, [])


class WakesLate(ByHand):
    """A clock on a busy machine, where each sleep takes one second longer."""

    def _carry_out(self, command):
        if isinstance(command, Sleep):
            self.clock.now += 0.995
        return super()._carry_out(command)


@pytest.mark.parametrize("status", [429, 503])
def test_a_sleep_that_takes_too_long_reports_the_last_failure(status: int) -> None:
    """The error is the failure before the sleep, not a timeout."""
    by_hand = WakesLate(sends=[answered(status, retry_after=9.0), "answer"])
    with pytest.raises(APIStatusError) as caught:
        by_hand.run(request(GET, by_hand.settings(retry_timeout=10.0)))
    assert (caught.value.status_code, caught.value.attempts, len(by_hand.of(Send))) == (status, 1, 1)


def test_no_time_for_the_rate_limiter_is_a_rate_limit_error() -> None:
    """The rate limiter would have served the call less than 10 ms before its deadline."""
    by_hand = ByHand(sends=[answered(429, retry_after=9.995), "answer"])
    settings = by_hand.settings(max_retries=0)
    with pytest.raises(RateLimitError):
        by_hand.run(request(GET, settings))
    with pytest.raises(RateLimitError, match="allows no request before the deadline"):
        by_hand.run(request(GET, settings, deadline=by_hand.clock.now + 10))


def test_a_key_that_is_not_renewed_in_time_reports_the_401() -> None:
    """If the provider has no new key in time, the error is the API's 401."""
    keys = iter(["old"])

    def provider() -> str:
        try:
            return next(keys)
        except StopIteration:
            raise TimeoutError from None

    by_hand = ByHand(sends=[answered(401)])
    with pytest.raises(AuthenticationError) as caught:
        by_hand.run(request(GET, by_hand.settings(provider)))
    assert (caught.value.status_code, caught.value.attempts) == (401, 1)
    assert isinstance(caught.value.__cause__, TimeoutError)


def test_elapsed_time_ends_retries() -> None:
    """`retry_timeout` includes the duration of attempts."""

    def slow(_: Send):
        by_hand.clock.now += 50
        return answered(500)

    by_hand = ByHand(sends=[slow])
    with pytest.raises(InternalServerError):
        by_hand.run(request(GET, by_hand.settings(max_retries=9)))
    assert len(by_hand.of(Send)) == 3


def test_callers_share_one_retry_budget() -> None:
    """While the API is down, a call costs about 1.1 requests, once the reserve is spent."""
    by_hand = ByHand(sends=[lambda _: answered(500)])
    settings = by_hand.settings()

    def requests_of(calls: int) -> int:
        before = len(by_hand.of(Send))
        for _ in range(calls):
            with pytest.raises(InternalServerError):
                by_hand.run(request(GET, settings))
        return len(by_hand.of(Send)) - before

    assert requests_of(200) <= 200 + 100 + 20 + 1
    assert requests_of(200) <= 1.1 * 200 + 1


def test_options_share_the_budget() -> None:
    """A client from `with_options` shares the retry budget."""
    settings = ByHand().settings()
    assert settings.with_options({"max_retries": 9}).budget is settings.budget


def test_a_401_asks_the_provider_once_more() -> None:
    """A rotated key is used, and the attempt does not count as a retry."""
    keys = iter(["old", "new"])
    by_hand = ByHand(sends=[answered(401), "answer"])
    by_hand.run(request(POST, by_hand.settings(lambda: next(keys), max_retries=0)))
    assert [send.api_key for send in by_hand.of(Send)] == ["old", "new"]


def test_a_401_with_the_same_key_is_final() -> None:
    """If the provider returns the same key, no second request is sent."""
    asked = []

    def provider() -> str:
        asked.append(1)
        return "same"

    by_hand = ByHand(sends=[answered(401)])
    with pytest.raises(AuthenticationError):
        by_hand.run(request(GET, by_hand.settings(provider)))
    assert (len(asked), len(by_hand.of(Send))) == (2, 1)


def test_a_second_401_is_final() -> None:
    """The provider is asked at most twice."""
    keys = iter("abcdef")
    by_hand = ByHand(sends=[lambda _: answered(401)])
    with pytest.raises(AuthenticationError):
        by_hand.run(request(GET, by_hand.settings(lambda: next(keys))))
    assert len(by_hand.of(Send)) == 2


@pytest.mark.parametrize("key", ["", "a b", "a\nb", "ключ", None, 7])
def test_a_provider_must_give_a_key(key) -> None:
    """An invalid key is refused before it is sent, and the error does not repeat it."""
    by_hand = ByHand(sends=["answer"])
    with pytest.raises(ConfigurationError) as caught:
        by_hand.run(request(GET, by_hand.settings(lambda: key)))
    assert by_hand.of(Send) == []
    assert not (isinstance(key, str) and key and key in str(caught.value))


def test_a_provider_that_hangs_is_given_up() -> None:
    """An async provider gets no more time than an attempt."""

    def hangs() -> str:
        raise TimeoutError

    by_hand = ByHand(sends=["answer"])
    with pytest.raises(APITimeoutError, match="did not return an API key in time"):
        by_hand.run(request(GET, by_hand.settings(hangs, timeout=3.0)))
    assert [command.timeout for command in by_hand.of(Invoke)] == [3.0]


def test_retry_timeout_bounds_the_attempts_too() -> None:
    """The last attempt gets the time that is left."""

    def slow(send: Send):
        by_hand.clock.now += send.timeout
        return lost()

    by_hand = ByHand(sends=[slow])
    started = by_hand.clock.now
    with pytest.raises(APIConnectionError):
        by_hand.run(request(GET, by_hand.settings(timeout=2.0, retry_timeout=2.5)))
    assert by_hand.clock.now - started <= 2.5


def test_a_provider_may_not_give_the_mock_key_to_the_live_api() -> None:
    """The mock's key is also refused if it comes from a provider."""
    by_hand = ByHand(sends=["answer"])
    with pytest.raises(ConfigurationError, match="mock server only"):
        by_hand.run(request(GET, by_hand.settings(lambda: "techforge-mock-key")))


def test_an_unknown_error_passes_through() -> None:
    """Only errors of the API are retried."""
    by_hand = ByHand(sends=[KeyboardInterrupt()])
    with pytest.raises(KeyboardInterrupt):
        by_hand.run(request(GET, by_hand.settings()))
    assert len(by_hand.of(Send)) == 1


def test_connection_error_covers_every_missing_response() -> None:
    """One except clause catches every request without a response."""
    assert issubclass(APITimeoutError, APIConnectionError)
