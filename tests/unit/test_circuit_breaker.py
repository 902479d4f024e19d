"""The circuit breaker: alone, in a client, and shared by workers."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from support.by_hand import AUDIO, IMAGE, JOB_ID, ByHand, answered, lost

from techforge._flow import Send
from techforge._flows.create import create
from techforge.batch.shared_breaker import TRIAL_LEASE, SharedBreaker
from techforge.errors import (
    APIConnectionError,
    APIError,
    InternalServerError,
    JobOutcomeUnknownError,
    Outcome,
)
from techforge.policy.circuit_breaker import (
    DOUBTFUL_IN_A_ROW,
    MAX_PAUSE,
    MAX_RECOVERY,
    CircuitBreaker,
    Permit,
)
from techforge_api.models import JobAccepted


def acquired(breaker: CircuitBreaker, now: float = 0.0) -> Permit:
    """Return a permit."""
    permit = Permit()
    assert breaker.acquire(permit, now) == 0
    return permit


def fail(breaker: CircuitBreaker, times: int = DOUBTFUL_IN_A_ROW, now: float = 0.0) -> None:
    """Let several submissions fail, one after the other."""
    for _ in range(times):
        breaker.record_doubtful(acquired(breaker, now), now, None, 1.0, "503")


def test_doubtful_responses_must_come_in_a_row() -> None:
    """A failure among successes changes nothing."""
    breaker = CircuitBreaker()
    for _ in range(10):
        fail(breaker, DOUBTFUL_IN_A_ROW - 1)
        breaker.record_answered(acquired(breaker))
    assert (breaker.wait(0.0), breaker.problem) == (0.0, "")
    fail(breaker)
    assert (breaker.wait(0.0), breaker.problem) == (1.0, "503")


def test_a_response_that_says_nothing_does_not_count() -> None:
    """A 429 or a refused connection in between neither ends nor extends the row."""
    breaker = CircuitBreaker()
    fail(breaker, DOUBTFUL_IN_A_ROW - 1)
    breaker.release(acquired(breaker))
    fail(breaker, 1)
    assert breaker.problem == "503"


def test_one_submission_at_a_time_until_one_succeeds() -> None:
    """Each success then allows one more, up to the end of the outage."""
    breaker = CircuitBreaker()
    fail(breaker)
    trial = acquired(breaker, 1.0)
    assert breaker.must_check
    assert breaker.wait(1.0) > 0
    breaker.release(trial)  # it was cancelled: another one tries
    trial = acquired(breaker, 1.0)
    breaker.record_answered(trial)
    assert not breaker.must_check
    permits = [acquired(breaker, 1.0), acquired(breaker, 1.0)]
    assert breaker.wait(1.0) > 0
    breaker.record_answered(permits.pop())
    assert acquired(breaker, 1.0)
    assert acquired(breaker, 1.0)
    assert breaker.wait(1.0) > 0
    for _ in range(MAX_RECOVERY):
        breaker.record_answered(permits.pop())
        permits.append(acquired(breaker, 1.0))
    assert breaker.wait(1.0) == 0
    assert breaker._allowed == math.inf


def test_one_doubtful_response_during_recovery_is_enough() -> None:
    """The pauses double until the API has recovered."""
    breaker = CircuitBreaker()
    fail(breaker)
    now, pauses = 0.0, []
    for _ in range(9):
        pauses.append(breaker.wait(now))
        now += pauses[-1]
        fail(breaker, 1, now)
    assert pauses == [1, 2, 4, 8, 16, 32, MAX_PAUSE, MAX_PAUSE, MAX_PAUSE]


def test_a_retry_after_is_kept() -> None:
    """Also that of a response that arrives when nothing is submitted any more."""
    breaker = CircuitBreaker()
    late = acquired(breaker)
    fail(breaker)
    assert breaker.wait(0.0) == 1
    breaker.record_doubtful(late, 0.0, 30.0, 1.0, "503")
    assert breaker.wait(0.0) == 30
    assert breaker._openings == 1


def test_late_responses_end_no_outage() -> None:
    """A success of a request from before the outage says nothing."""
    breaker = CircuitBreaker()
    late = [acquired(breaker) for _ in range(20)]
    fail(breaker)
    for permit in late:
        breaker.record_answered(permit)
    assert breaker.wait(0.5) == 0.5
    assert breaker.must_check


def test_a_child_process_waits_for_no_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A submission that another process tries with is not ours."""
    breaker = CircuitBreaker()
    fail(breaker)
    acquired(breaker, 1.0)
    monkeypatch.setattr("os.getpid", lambda: -1)
    assert acquired(breaker, 1.0)


# --- in a client ----------------------------------------------------------------------------------


class Api:
    """An API whose two operations answer as a test says. An answer is raised or returned."""

    def __init__(self) -> None:
        self.submission: Any = JobAccepted(JOB_ID, "queued", "")
        self.signature: Any = answered(404)

    def __call__(self, command: Send) -> Any:
        """Answer a request."""
        answer = self.submission if "body" in command.call.arguments else self.signature
        return answer() if callable(answer) else answer


@pytest.fixture
def api() -> Api:
    """Return an API that works."""
    return Api()


@pytest.fixture
def driver(api: Api) -> ByHand:
    """Return a driver that sends to it."""
    return ByHand(sends=[api])


def posts(driver: ByHand) -> int:
    """Return the number of submissions."""
    return sum(not send.call.repeatable for send in driver.of(Send))


def submit(driver: ByHand, settings: Any) -> Any:
    """Submit a job."""
    return driver.run(create(settings, image_url=IMAGE, audio_url=AUDIO))


def test_a_client_pauses_and_checks(api: Api, driver: ByHand) -> None:
    """After five doubtful responses, a call waits, sends the free request, and then its own."""
    settings = driver.settings()
    api.submission = lost
    for _ in range(5):
        with pytest.raises(JobOutcomeUnknownError):
            submit(driver, settings)
    assert (posts(driver), driver.slept) == (5, [])
    api.submission = JobAccepted(JOB_ID, "queued", "")
    assert submit(driver, settings).id == JOB_ID
    assert driver.slept == [0.75]
    assert [send.call.repeatable for send in driver.of(Send)] == [False] * 5 + [True, False]


@pytest.mark.parametrize("problem", [lost, lambda: answered(503), lambda: answered(302)])
def test_nothing_is_submitted_while_the_check_fails(api: Api, driver: ByHand, problem: Any) -> None:
    """The call fails at its deadline, and says that nothing was sent."""
    settings = driver.settings(retry_timeout=20.0)
    api.submission = api.signature = problem
    fail(settings.breaker, now=driver.clock.now)
    before = posts(driver)
    with pytest.raises(APIConnectionError, match=r"submissions are paused.*Nothing was sent") as caught:
        submit(driver, settings)
    assert (caught.value.outcome, caught.value.attempts) == (Outcome.NOT_SENT, 0)
    assert caught.value.retry_after
    assert not caught.value.job_may_exist
    assert posts(driver) == before


def test_without_retries_a_call_fails_at_once(driver: ByHand) -> None:
    """`max_retries=0` does not wait for the end of a pause."""
    settings = driver.settings(max_retries=0)
    fail(settings.breaker, now=driver.clock.now)
    with pytest.raises(APIConnectionError, match="submissions are paused"):
        submit(driver, settings)
    assert (driver.of(Send), driver.slept) == ([], [])


def test_a_failure_of_this_call_is_reported(api: Api, driver: ByHand) -> None:
    """If the pause exceeds the deadline, the error is that of the last attempt: a job may exist."""
    settings = driver.settings(retry_timeout=2.0)
    api.submission = lambda: answered(503, retry_after=1.0)
    fail(settings.breaker, DOUBTFUL_IN_A_ROW - 1, driver.clock.now)
    with pytest.raises(InternalServerError) as caught:
        submit(driver, settings)
    assert caught.value.job_may_exist


@pytest.mark.parametrize("status", [400, 401, 422])
def test_an_api_that_refuses_works(api: Api, driver: ByHand, status: int) -> None:
    """A definite answer ends the outage."""
    settings = driver.settings()
    fail(settings.breaker, now=driver.clock.now)
    api.submission = lambda: answered(status)
    with pytest.raises(APIError):
        submit(driver, settings)
    assert settings.breaker.problem == ""


def test_another_address_is_another_api(driver: ByHand) -> None:
    """A client with another `base_url` has a circuit breaker of its own."""
    settings = driver.settings(base_url="https://a.example")
    assert settings.with_options({"timeout": 5}).breaker is settings.breaker
    assert settings.with_options({"base_url": "https://b.example"}).breaker is not settings.breaker


# --- shared by workers ----------------------------------------------------------------------------


class Fleet:
    """Workers with clocks of their own, and what their ledger keeps."""

    def __init__(self) -> None:
        self.now, self.kept = 1e9, "null"
        self.workers = [SharedBreaker() for _ in range(3)]

    def local(self, worker: int) -> float:
        """Return the time of a worker's clock."""
        return self.now - 1e9 + 100 * worker

    def synchronize(self, worker: int) -> None:
        """Synchronize a worker with the ledger."""
        breaker, offset = self.workers[worker], self.local(worker) - self.now
        reported = breaker.reported
        merged = breaker.merged(json.loads(self.kept), self.now, offset)
        self.kept = json.dumps(merged)
        breaker.adopt(merged, reported, offset)

    def may_submit(self) -> list[bool]:
        """Return which workers may submit, after each has asked for it and synchronized."""
        for worker, breaker in enumerate(self.workers):
            breaker.wait(self.local(worker))
            self.synchronize(worker)
        return [not breaker.wait(self.local(worker)) for worker, breaker in enumerate(self.workers)]


@pytest.fixture
def fleet() -> Fleet:
    """Return three workers, the first of which has just found an outage."""
    fleet = Fleet()
    fail(fleet.workers[0], now=fleet.local(0))
    assert fleet.workers[0].is_due
    return fleet


def test_all_workers_pause_together(fleet: Fleet) -> None:
    """One of them tries, and its success lets all of them submit."""
    assert fleet.may_submit() == [False] * 3
    assert {breaker.problem for breaker in fleet.workers} == {"503"}
    fleet.now += 1.0
    assert fleet.may_submit() == [True, False, False]
    fleet.workers[0].record_answered(acquired(fleet.workers[0], fleet.local(0)))
    fleet.synchronize(0)
    assert fleet.kept == "null"
    assert fleet.may_submit() == [True] * 3
    assert fleet.kept == "null"


def test_a_trial_that_fails_starts_the_next_pause(fleet: Fleet) -> None:
    """Then any worker may try."""
    fleet.may_submit()
    fleet.now += 1.0
    assert fleet.may_submit() == [True, False, False]
    fail(fleet.workers[0], 1, fleet.local(0))
    assert fleet.may_submit() == [False] * 3
    fleet.now += 1.9
    assert fleet.may_submit() == [False] * 3
    fleet.now += 0.2
    assert sum(fleet.may_submit()) == 1


def test_a_worker_that_dies_during_its_trial_is_replaced(fleet: Fleet) -> None:
    """After a few seconds without a synchronization."""
    fleet.may_submit()
    fleet.now += 1.0
    assert fleet.may_submit() == [True, False, False]
    fleet.now += TRIAL_LEASE + 1
    fleet.workers[1].wait(fleet.local(1))
    fleet.synchronize(1)
    assert fleet.workers[1].wait(fleet.local(1)) == 0


def test_a_worker_that_joins_later_does_not_submit(fleet: Fleet) -> None:
    """It learns of the outage from the ledger."""
    fleet.synchronize(0)
    fleet.workers.append(SharedBreaker())
    fleet.synchronize(3)
    assert fleet.workers[3].wait(fleet.local(3)) == pytest.approx(1.0)
