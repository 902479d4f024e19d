"""One operation: send, judge what happened, sleep, send again."""

import math

from techforge._config import Settings
from techforge._flow import Call, Flow, Send, Sleep, T, invoke, send
from techforge.auth import check_api_key
from techforge.errors import APIConnectionError, APIError, APITimeoutError, AuthenticationError, Outcome

_MAY_HAVE_RUN = frozenset({Outcome.SERVER_FAILED, Outcome.UNKNOWN})


def request(call: Call[T], settings: Settings, deadline: float = math.inf) -> Flow[T]:
    """Carry out a call within its retries, its time and the client's budget.

    Raises:
        APIError: it failed for good; `attempts` and `job_may_exist` speak of all its attempts.
    """
    started = settings.now()
    settings.budget.deposit()
    api_key = yield from _current_key(settings)
    attempt, retries, renewed, job_may_exist = 0, 0, False, False
    while True:
        attempt += 1
        timeout = min(settings.timeout, deadline - settings.now())
        if timeout <= 0:
            raise APITimeoutError("the deadline passed before it was sent", outcome=Outcome.NOT_SENT)
        command = Send(call, api_key, settings.base_url, settings.headers, timeout, attempt)
        try:
            return (yield from send(command, call.returns))
        except APIError as error:
            failure = error
        job_may_exist |= not call.repeatable and failure.outcome in _MAY_HAVE_RUN
        failure.attempts, failure.job_may_exist = attempt, job_may_exist

        if isinstance(failure, AuthenticationError) and callable(settings.api_key) and not renewed:
            # The key may have been rotated since it was handed out. A 401 did nothing, so this is no retry.
            renewed = True
            newer = yield from _current_key(settings)
            if newer != api_key:
                api_key = newer
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
        if delay is None or now + delay >= deadline or not settings.budget.withdraw():
            raise failure
        retries += 1
        yield Sleep(delay)


def _current_key(settings: Settings) -> Flow[str]:
    if isinstance(settings.api_key, str):
        return settings.api_key
    api_key = check_api_key((yield from invoke(settings.api_key)))
    settings.check_key(api_key)
    return api_key


def is_passing(error: APIError) -> bool:
    """Tell whether a failure may be gone the next time that one looks."""
    return isinstance(error, APIConnectionError) or error.outcome is not Outcome.DEFINITIVE
