"""One API call: send, classify the failure, sleep, send again."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from techforge._flow import Attempts, Call, Flow, Send, Sleep, T, invoke, send
from techforge._logging import retry_logger
from techforge.auth import check_api_key
from techforge.errors import (
    APIConnectionError,
    APIError,
    APITimeoutError,
    AuthenticationError,
    Outcome,
    RateLimitError,
    TechForgeError,
)
from techforge.policy.circuit_breaker import Permit

if TYPE_CHECKING:
    from collections.abc import Callable

    from techforge._config import Settings

MIN_ATTEMPT_SECONDS = 0.01
"""Shortest time worth starting an attempt, in seconds: an interrupted connection attempt may stay open."""
_MAY_HAVE_RUN = frozenset({Outcome.SERVER_FAILED, Outcome.UNKNOWN})


def request(
    call: Call[T],
    settings: Settings,
    deadline: float = math.inf,
    attempts: Attempts | None = None,
    check: Callable[[], Flow[None]] | None = None,
) -> Flow[T]:
    """Send a call within its retries, its deadline, and the client's retry budget and rate limit.

    With `check`, the call also waits for the client's circuit breaker. `check` is the free request that
    raises an `APIError` while the API does not work.

    Raises:
        APIError: the call failed; `attempts` and `job_may_exist` cover all its attempts.
    """
    admission = _Admission(settings, check)
    try:
        return (yield from _request(call, settings, deadline, attempts or Attempts(), admission))
    finally:
        admission.release()


def _request(
    call: Call[T], settings: Settings, deadline: float, attempts: Attempts, admission: _Admission
) -> Flow[T]:
    started = settings.now()
    deadline = min(deadline, started + settings.retry.retry_timeout)
    settings.budget.deposit()
    api_key = yield from _current_key(settings, deadline)
    retries, key_was_renewed, may_have_run = 0, False, False
    failure: APIError | None = None
    while True:
        yield from admission.wait(deadline, failure)
        yield from _claim_once(call, settings, deadline, attempts)
        timeout = attempt_timeout(settings, deadline, failure)
        attempts.count += 1
        # If anything ends the flow during the request, the outcome is unknown.
        attempts.may_have_run = not call.repeatable
        command = Send(call, api_key, settings.base_url, settings.headers, timeout, attempts.count)
        try:
            response = yield from send(command, call.returns)
        except APIError as error:
            failure = error
        except TechForgeError:
            # The driver could not send, for example because the client is closed.
            attempts.may_have_run = may_have_run
            raise
        else:
            admission.record(None)
            return response
        may_have_run |= not call.repeatable and failure.outcome in _MAY_HAVE_RUN
        attempts.may_have_run = may_have_run
        failure.attempts, failure.job_may_exist = attempts.count, may_have_run
        admission.record(failure)

        may_renew = failure.job_id is None and not key_was_renewed
        if isinstance(failure, AuthenticationError) and callable(settings.api_key) and may_renew:
            # The key may have been rotated meanwhile. The API did nothing, so this is not a retry.
            key_was_renewed = True
            new_key = yield from _current_key(settings, deadline, failure)
            if new_key != api_key:
                api_key = new_key
                continue
        if failure.status_code == 429 and failure.outcome is Outcome.REFUSED and settings.retry.max_retries:
            # The request is fine, only its time was wrong: keep its position in the queue.
            continue
        now = settings.now()
        delay = settings.retry.delay(
            failure.outcome,
            repeatable=call.repeatable,
            retries=retries,
            elapsed=now - started,
            retry_after=failure.retry_after,
            jitter=settings.random(),
        )
        if delay is None or now + delay + MIN_ATTEMPT_SECONDS > deadline or not settings.budget.withdraw():
            raise failure
        if may_have_run:
            attempts.was_resubmitted = True
            retry_logger.warning(
                "%s %s: %s (attempt %d). It is sent again in %.1f s, as the API's documentation recommends. "
                "A failed attempt may have created a job, too: %s.",
                *(failure.method, failure.path, failure.message, attempts.count, delay, call.duplicate_hint),
            )
        retries += 1
        yield Sleep(delay)


class _Admission:
    """The place of one call in the rate limiter and, with a `check`, in the circuit breaker."""

    def __init__(self, settings: Settings, check: Callable[[], Flow[None]] | None) -> None:
        self._settings, self._check = settings, check
        self._ticket, self._permit = settings.limiter.ticket(), Permit()

    def wait(self, deadline: float, failure: APIError | None) -> Flow[None]:
        """Wait until a request may be sent. If that exceeds the deadline, raise the last failure."""
        settings, breaker = self._settings, self._settings.breaker
        while True:
            if self._check is not None:
                yield from self._wait_for_permit(self._check, deadline, failure)
            while wait := settings.limiter.acquire(self._ticket, settings.now()):
                yield from self._sleep(wait, deadline, failure or _rate_limited(wait))
            if self._check is None or breaker.is_valid(self._permit):
                return
            settings.limiter.release(self._ticket)

    def _wait_for_permit(
        self, check: Callable[[], Flow[None]], deadline: float, failure: APIError | None
    ) -> Flow[None]:
        settings, breaker = self._settings, self._settings.breaker
        while True:
            while wait := breaker.acquire(self._permit, settings.now()):
                if breaker.problem and not settings.retry.max_retries:
                    raise failure or _paused(breaker.problem, wait)
                yield from self._sleep(wait, deadline, failure or _paused(breaker.problem, wait))
            if not breaker.must_check:
                return
            try:
                return (yield from check())
            except APIError as error:
                self._record_doubtful(error)

    def _sleep(self, seconds: float, deadline: float, failure: APIError) -> Flow[None]:
        if self._settings.now() + seconds + MIN_ATTEMPT_SECONDS > deadline:
            raise failure
        yield Sleep(seconds)

    def record(self, failure: APIError | None) -> None:
        """Report the response, or that there was none, to the rate limiter and the circuit breaker."""
        settings, limiter = self._settings, self._settings.limiter
        if failure is None or failure.status_code not in {None, 429}:
            limiter.record_accepted(self._ticket, settings.now())
        elif failure.status_code == 429:
            limiter.record_refused(self._ticket, settings.now(), failure.retry_after, settings.random())
        if failure is None or failure.outcome is Outcome.DEFINITIVE or _was_accepted(failure):
            settings.breaker.record_answered(self._permit)
        elif failure.outcome in _MAY_HAVE_RUN:
            self._record_doubtful(failure)

    def _record_doubtful(self, failure: APIError) -> None:
        settings = self._settings
        settings.breaker.record_doubtful(
            self._permit, settings.now(), failure.retry_after, settings.random(), failure.message
        )

    def release(self) -> None:
        """Leave the queue: the call has ended."""
        self._settings.limiter.release(self._ticket)
        self._settings.breaker.release(self._permit)


def _was_accepted(failure: APIError) -> bool:
    """Return whether the response accepts the job, though not in the form that the API documents."""
    return failure.job_id is not None and (failure.status_code or 0) // 100 == 2


def _rate_limited(wait: float) -> APIError:
    error = RateLimitError(
        "the rate limit allows no request before the deadline", outcome=Outcome.REFUSED, retry_after=wait
    )
    error.attempts = 0
    return error


def _paused(problem: str, wait: float) -> APIError:
    error = APIConnectionError(
        f"the API does not work, so submissions are paused ({problem or 'it is recovering'})",
        outcome=Outcome.NOT_SENT,
        retry_after=wait,
    )
    error.attempts = 0
    return error


def _claim_once(call: Call[T], settings: Settings, deadline: float, attempts: Attempts) -> Flow[None]:
    # A claim is made once, and stays valid while the key is renewed.
    if settings.claim is not None and not call.repeatable and not attempts.count:
        yield from invoke(settings.claim, timeout=attempt_timeout(settings, deadline))


def attempt_timeout(settings: Settings, deadline: float, failure: APIError | None = None) -> float:
    """Return the timeout of one attempt, in seconds.

    Raises:
        APIError: too little time is left. It is `failure`, or an `APITimeoutError` with 0 `attempts`.
    """
    remaining = deadline - settings.now()
    if remaining >= MIN_ATTEMPT_SECONDS:
        return min(settings.timeout, remaining)
    if failure is None:
        failure = APITimeoutError("the deadline passed before the request was sent", outcome=Outcome.NOT_SENT)
        failure.attempts = 0
    raise failure


def _current_key(settings: Settings, deadline: float, failure: APIError | None = None) -> Flow[str]:
    if isinstance(settings.api_key, str):
        return settings.api_key
    timeout = max(0.0, min(settings.timeout, deadline - settings.now()))
    try:
        value = yield from invoke(settings.api_key, timeout=timeout)
    except TimeoutError as error:
        timeout_error = APITimeoutError(
            "the key provider did not return an API key in time", outcome=Outcome.NOT_SENT
        )
        raise (failure or timeout_error) from error
    api_key = check_api_key(value)
    settings.check_key(api_key)
    return api_key


def was_attempted(error: APIError) -> bool:
    """Return whether a request was sent. If not, report an earlier failure instead of this one."""
    return error.attempts > 0


def is_temporary(error: APIError) -> bool:
    """Return whether a failure may be temporary."""
    return isinstance(error, APIConnectionError) or error.outcome is not Outcome.DEFINITIVE
