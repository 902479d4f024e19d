"""One free request: can the API be reached, and does it accept the key?"""

from uuid import uuid4

from attrs import evolve

from techforge._config import Settings
from techforge._flow import Flow
from techforge._flows.storage import sign
from techforge.errors import APIConnectionError, APIError, AuthenticationError, PermissionDeniedError

_TIMEOUT = 10.0


def probe(settings: Settings) -> Flow[None]:
    """Ask for the signature of a path that does not exist, which costs nothing and changes nothing.

    Any answer but 401 and 403 shows that the API is there and accepts the key.

    Raises:
        APIConnectionError: the API cannot be reached.
        AuthenticationError, PermissionDeniedError: it does not accept the key.
    """
    hasty = evolve(settings, timeout=min(_TIMEOUT, settings.timeout))
    try:
        yield from sign(f"techforge-check/{uuid4()}.mp4", hasty, settings.now() + _TIMEOUT)
    except (APIConnectionError, AuthenticationError, PermissionDeniedError):
        raise
    except APIError:
        return
