"""Storage: signing a key, and opening what a signed URL leads to."""

import math
from collections.abc import Mapping
from urllib.parse import urljoin

from techforge import _checks
from techforge._config import Settings
from techforge._flow import CLIENT, Flow, Open, Opened, call, opened
from techforge._flows.request import request, time_for
from techforge._masking import SecretUrl
from techforge.errors import APIResponseError, InvalidArgumentError, Outcome
from techforge.models import SignedUrl
from techforge.policy.retry_after import read_instant
from techforge_api import models
from techforge_api.api.storage import generate_signed_path

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 5


def sign(path: str, settings: Settings, deadline: float = math.inf) -> Flow[SignedUrl]:
    """Return a signed URL for a storage key.

    Raises:
        InvalidArgumentError: the key is not one; nothing was sent.
        NotFoundError: there is no such object.
        APIResponseError: what was signed is no URL that may be fetched.
        APIError: the request failed otherwise.
    """
    _checks.storage_path("path", path)
    signing = call(generate_signed_path, models.SignedUrl, path=path, client=CLIENT)
    signed = yield from request(signing, settings, deadline)
    url, expires_at = SecretUrl(signed.signed_url), read_instant(signed.expires_at)
    del signed  # its repr shows the URL, and what follows may raise
    return SignedUrl(path, _fetchable(url, settings, path="/storage/generate-signed-path"), expires_at)


def open_signed(
    signed: SignedUrl, headers: Mapping[str, str], settings: Settings, deadline: float
) -> Flow[Opened]:
    """Start a GET on a signed URL, and follow storage where it redirects to.

    Raises:
        APIResponseError: it redirects to what may not be fetched, or too often.
        APIConnectionError: there was no answer.
    """
    url = signed.url
    for _ in range(_MAX_REDIRECTS + 1):
        answer = yield from opened(Open(url, headers, time_for(settings, deadline)))
        location = answer.headers.get("location")
        if answer.status_code not in _REDIRECTS or not location:
            return answer
        try:
            url = urljoin(url, location)
        except ValueError:
            url = location
        url = _fetchable(url, settings, path=signed.path)
    raise unreadable(f"storage redirected more than {_MAX_REDIRECTS} times", signed.path)


def unreadable(problem: str, path: str, outcome: Outcome = Outcome.UNKNOWN) -> APIResponseError:
    """Return the error for an answer of storage that makes no sense."""
    return APIResponseError(problem, outcome=outcome, method="GET", path=path)


def _fetchable(url: str, settings: Settings, *, path: str) -> str:
    try:
        return SecretUrl(_checks.secure_url("the signed URL", url, allow_http=settings.allow_http))
    except InvalidArgumentError as error:
        raise unreadable(str(error), path, Outcome.DEFINITIVE) from None
