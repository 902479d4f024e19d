"""Signing a storage key."""

import math

from techforge import _checks
from techforge._config import Settings
from techforge._flow import CLIENT, Flow, call
from techforge._flows.request import request
from techforge.errors import APIResponseError, InvalidArgumentError, Outcome
from techforge.models import SignedUrl
from techforge.policy.retry_after import read_instant
from techforge_api import models
from techforge_api.api.storage import generate_signed_path


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
    return SignedUrl(path, storage_url(signed.signed_url, settings), read_instant(signed.expires_at))


def storage_url(url: str, settings: Settings) -> str:
    """Return a URL that storage gave, if bytes may be fetched from it."""
    try:
        return _checks.secure_url("the signed URL", url, allow_http=settings.allow_http)
    except InvalidArgumentError as error:
        raise APIResponseError(
            str(error), outcome=Outcome.DEFINITIVE, method="GET", path="/storage/generate-signed-path"
        ) from None
