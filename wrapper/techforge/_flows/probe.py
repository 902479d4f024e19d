"""Check with a free request that the API is reachable and accepts the key."""

from uuid import uuid4

from attrs import evolve

from techforge._config import Settings
from techforge._flow import Flow
from techforge._flows.storage import sign
from techforge.errors import APIConnectionError, APIError, AuthenticationError, PermissionDeniedError

_TIMEOUT = 10.0


def probe(settings: Settings) -> Flow[None]:
    """Request a signed URL for a path that does not exist. This costs nothing and changes nothing.

    Any response except 401 and 403 shows that the API is reachable and accepts the key.

    Raises:
        APIConnectionError: the API is not reachable.
        AuthenticationError, PermissionDeniedError: the API does not accept the key.
    """
    impatient = evolve(settings, timeout=min(_TIMEOUT, settings.timeout))
    try:
        yield from sign(f"techforge-check/{uuid4()}.mp4", impatient, settings.now() + _TIMEOUT)
    except (APIConnectionError, AuthenticationError, PermissionDeniedError):
        raise
    except APIError:
        return
