"""Check with a free request that the API is reachable and accepts the key."""

from uuid import uuid4

from attrs import evolve

from techforge._config import Settings
from techforge._flow import Flow
from techforge._flows.storage import sign
from techforge.errors import (
    APIConnectionError,
    APIError,
    APIResponseError,
    AuthenticationError,
    Outcome,
    PermissionDeniedError,
)

_TIMEOUT = 10.0


def probe(settings: Settings) -> Flow[None]:
    """Request a signed URL for a path that does not exist. This costs nothing and changes nothing.

    Any response of the API except 401 and 403 shows that it is reachable and accepts the key.

    Raises:
        APIConnectionError: the API is not reachable.
        AuthenticationError, PermissionDeniedError: the API does not accept the key.
        APIResponseError: something else responds at this address, for example a website.
    """
    impatient = evolve(settings, timeout=min(_TIMEOUT, settings.timeout))
    try:
        yield from sign(f"techforge-check/{uuid4()}.mp4", impatient, settings.now() + _TIMEOUT)
    except (APIConnectionError, AuthenticationError, PermissionDeniedError):
        raise
    except APIError as error:
        is_page = error.body.lstrip().startswith("<")
        if is_page and error.status_code != 429 and (error.status_code or 0) < 500:
            raise APIResponseError(
                f"{error.status_code}: an HTML page, not a response of the API; check base_url",
                outcome=Outcome.DEFINITIVE,
                method=error.method,
                path=error.path,
                status_code=error.status_code,
                body=error.body,
            ) from None


def check(settings: Settings) -> Flow[None]:
    """Check with a free request that the API works, and not only a proxy in front of it.

    Raises:
        APIError: there was no response, or it was a 5xx, a redirect or an HTML page.
    """
    impatient = evolve(settings.once(), timeout=min(_TIMEOUT, settings.timeout))
    try:
        yield from sign(f"techforge-check/{uuid4()}.mp4", impatient, settings.now() + _TIMEOUT)
    except APIError as error:
        is_redirect = 300 <= (error.status_code or 0) < 400
        if is_redirect or error.outcome not in {Outcome.REFUSED, Outcome.DEFINITIVE}:
            raise
