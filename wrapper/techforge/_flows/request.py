"""One operation: send, judge what happened, sleep, send again."""

import math

from techforge._config import Settings
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
from techforge.policy.limiter import Ticket

LEAST = 0.01
"""Shortest time worth starting an attempt, in seconds: a connection cut off in setup may stay open."""
_MAY_HAVE_RUN = frozenset({Outcome.SERVER_FAILED, Outcome.UNKNOWN})


def request(
    call: Call[T], settings: Settings, deadline: float = math.inf, attempts: Attempts | None = None
) -> Flow[T]:
    """Carry out a call within its retries, its time, and the client's budget and pace.

    Raises:
        APIError: it failed for good; `attempts` and `job_may_exist` speak of all its attempts.
    """
    ticket = settings.limiter.ticket()
    try:
        return (yield from _request(call, settings, deadline, attempts or Attempts(), ticket))
    finally:
        settings.limiter.release(ticket)


def _request(
    call: Call[T], settings: Settings, deadline: float, attempts: Attempts, ticket: Ticket
) -> Flow[T]:
    started = settings.now()
    deadline = min(deadline, started + settings.retry.retry_timeout)
    settings.budget.deposit()
    api_key = yield from _current_key(settings, deadline)
    retries, renewed, in_doubt = 0, False, False
    failure: APIError | None = None
    while True:
        yield from _turn(settings, ticket, deadline, failure)
        yield from _claimed(call, settings, deadline, attempts)
        timeout = time_for(settings, deadline, failure)
        attempts.count += 1
        # Whatever ends the flow while it is under way leaves it in doubt.
        attempts.in_doubt = not call.repeatable
        command = Send(call, api_key, settings.base_url, settings.headers, timeout, attempts.count)
        try:
            answer = yield from send(command, call.returns)
        except APIError as error:
            failure = error
        except TechForgeError:
            # The driver had nothing to send with.
            attempts.in_doubt = in_doubt
            raise
        else:
            settings.limiter.record_accepted(ticket, settings.now())
            return answer
        in_doubt |= not call.repeatable and failure.outcome in _MAY_HAVE_RUN
        attempts.in_doubt = in_doubt
        failure.attempts, failure.job_may_exist = attempts.count, in_doubt
        _tell(settings, ticket, failure)

        if isinstance(failure, AuthenticationError) and callable(settings.api_key) and not renewed:
            # The key may have been rotated since it was handed out. A 401 did nothing, so this is no retry.
            renewed = True
            newer = yield from _current_key(settings, deadline, failure)
            if newer != api_key:
                api_key = newer
                continue
        if failure.status_code == 429 and failure.outcome is Outcome.REFUSED and settings.retry.max_retries:
            # It is the pace that was wrong, and not the request: it goes back to its place in the line.
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
        if delay is None or now + delay + LEAST > deadline or not settings.budget.withdraw():
            raise failure
        if in_doubt:
            attempts.resubmitted = True
            retry_logger.warning(
                "%s %s: %s (attempt %d). It is sent again in %.1f s, as the API's documentation recommends. "
                "A failed attempt may have created a job as well: %s.",
                *(failure.method, failure.path, failure.message, attempts.count, delay, call.about),
            )
        retries += 1
        yield Sleep(delay)


def _turn(settings: Settings, ticket: Ticket, deadline: float, failure: APIError | None) -> Flow[None]:
    """Wait until a request may be sent; if there is no time for that, raise the last failure."""
    while wait := settings.limiter.acquire(ticket, settings.now()):
        if settings.now() + wait + LEAST > deadline:
            if failure is None:
                failure = RateLimitError(
                    "the API limits the rate, and there is no time to wait for its turn",
                    outcome=Outcome.REFUSED,
                    retry_after=wait,
                )
                failure.attempts = 0
            raise failure
        yield Sleep(wait)


def _claimed(call: Call[T], settings: Settings, deadline: float, attempts: Attempts) -> Flow[None]:
    # Once: what was claimed stays so while its key is renewed.
    if settings.claim is not None and not call.repeatable and not attempts.count:
        yield from invoke(settings.claim, timeout=time_for(settings, deadline))


def _tell(settings: Settings, ticket: Ticket, failure: APIError) -> None:
    """Let the limiter know of an answer, if there was one."""
    if failure.status_code == 429:
        settings.limiter.record_refused(ticket, settings.now(), failure.retry_after, settings.random())
    elif failure.status_code is not None:
        settings.limiter.record_accepted(ticket, settings.now())


def time_for(settings: Settings, deadline: float, failure: APIError | None = None) -> float:
    """Return the seconds that an attempt may take.

    Raises:
        APIError: too few are left. It is the last `failure`, or an `APITimeoutError` with `attempts` of 0.
    """
    left = deadline - settings.now()
    if left >= LEAST:
        return min(settings.timeout, left)
    if failure is None:
        failure = APITimeoutError("the deadline passed before it was sent", outcome=Outcome.NOT_SENT)
        failure.attempts = 0
    raise failure


def _current_key(settings: Settings, deadline: float, failure: APIError | None = None) -> Flow[str]:
    if isinstance(settings.api_key, str):
        return settings.api_key
    timeout = max(0.0, min(settings.timeout, deadline - settings.now()))
    try:
        given = yield from invoke(settings.api_key, timeout=timeout)
    except TimeoutError as error:
        late = APITimeoutError("no API key was given in time", outcome=Outcome.NOT_SENT)
        raise (failure or late) from error
    api_key = check_api_key(given)
    settings.check_key(api_key)
    return api_key


def was_attempted(error: APIError) -> bool:
    """Tell whether an attempt was begun: if there was no time for one, an earlier failure says more."""
    return error.attempts > 0


def is_passing(error: APIError) -> bool:
    """Tell whether a failure may be gone the next time that one looks."""
    return isinstance(error, APIConnectionError) or error.outcome is not Outcome.DEFINITIVE
