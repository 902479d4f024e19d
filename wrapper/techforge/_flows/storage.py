"""Storage: sign a storage key, and open a signed URL."""

import math
from collections.abc import Mapping
from urllib.parse import urljoin

from techforge import _checks
from techforge._config import Settings
from techforge._flow import CLIENT, Close, Flow, Open, Opened, call, opened
from techforge._flows.request import attempt_timeout, request
from techforge._masking import SecretUrl
from techforge.errors import APIResponseError, InvalidArgumentError, Outcome
from techforge.models import SignedUrl
from techforge.policy.retry_after import read_instant
from techforge_api import models
from techforge_api.api.storage import generate_signed_path

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_FOUND = {200, 206}
_MAX_REDIRECTS = 5


def sign(path: str, settings: Settings, deadline: float = math.inf) -> Flow[SignedUrl]:
    """Return a signed URL for a storage key.

    Raises:
        InvalidArgumentError: this is not a valid storage key; nothing was sent.
        NotFoundError: there is no such object.
        APIResponseError: the signed URL is invalid or not encrypted.
        APIError: the request failed otherwise.
    """
    _checks.storage_path("path", path)
    signing = call(generate_signed_path, models.SignedUrl, path=path, client=CLIENT)
    signed = yield from request(signing, settings, deadline)
    url, expires_at = SecretUrl(signed.signed_url), read_instant(signed.expires_at)
    del signed  # its repr contains the URL, and a traceback may show it
    return SignedUrl(path, _checked_url(url, settings, path="/storage/generate-signed-path"), expires_at)


def open_signed(
    signed: SignedUrl, headers: Mapping[str, str], settings: Settings, deadline: float
) -> Flow[Opened]:
    """Start a GET on a signed URL, and follow redirects.

    Raises:
        APIResponseError: storage redirects to an invalid or unencrypted URL, or too often, or sends a web
            page (of a firewall, for example) instead of the object.
        APIConnectionError: there was no response.
    """
    url = signed.url
    for _ in range(_MAX_REDIRECTS + 1):
        response = yield from opened(Open(url, headers, attempt_timeout(settings, deadline)))
        location = response.headers.get("location")
        if response.status_code not in _REDIRECTS or not location:
            is_page = response.headers.get("content-type", "").lower().startswith("text/html")
            if is_page and response.status_code in _FOUND:
                yield Close()
                raise unreadable_response("storage sent a web page instead of the object", signed.path)
            return response
        try:
            url = urljoin(url, location)
        except ValueError:
            url = location
        url = _checked_url(url, settings, path=signed.path)
    raise unreadable_response(f"storage redirected more than {_MAX_REDIRECTS} times", signed.path)


def unreadable_response(problem: str, path: str, outcome: Outcome = Outcome.UNKNOWN) -> APIResponseError:
    """Return the error for an invalid response from storage."""
    return APIResponseError(problem, outcome=outcome, method="GET", path=path)


def _checked_url(url: str, settings: Settings, *, path: str) -> str:
    try:
        return SecretUrl(_checks.secure_url("the signed URL", url, allow_http=settings.allow_http))
    except InvalidArgumentError as error:
        raise unreadable_response(str(error), path, Outcome.DEFINITIVE) from None
