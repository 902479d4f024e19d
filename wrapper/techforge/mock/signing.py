"""Signed URLs: short-lived access to one storage object, without an API key."""

import hashlib
import hmac
import math
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import quote

from attrs import field, frozen


class SignatureRefusedError(Exception):
    """The signed URL is not valid; the message says why."""


@frozen
class SignedUrl:
    """A URL and its expiry, in seconds since the epoch."""

    url: str
    expires: int

    @property
    def expires_at(self) -> str:
        """The expiry in RFC 3339, in UTC."""
        return datetime.fromtimestamp(self.expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@frozen
class Signer:
    """Signs storage paths and checks signatures, with a key of its own."""

    ttl: float = 300.0
    clock: Callable[[], float] = time.time
    key: bytes = field(factory=lambda: secrets.token_bytes(32), repr=False)

    def sign(self, origin: str, path: str) -> SignedUrl:
        """Sign one path below `origin`."""
        # Rounded up, so that a URL never expires too early.
        expires = math.ceil(self.clock() + self.ttl)
        query = f"expires={expires}&signature={self._signature(path, str(expires))}"
        return SignedUrl(f"{origin}/{quote(path)}?{query}", expires)

    def check(self, path: str, expires: str | None, signature: str | None) -> None:
        """Raise a `SignatureRefusedError` if the signature is wrong or has expired."""
        if not expires or not signature:
            raise SignatureRefusedError("The URL is not signed: expires and signature are required.")
        # Check the signature first: only a signed expiry is known to be a number.
        expected = self._signature(path, expires)
        if not hmac.compare_digest(expected.encode(), signature.encode()):
            raise SignatureRefusedError("The signature does not match this path and expiry.")
        if self.clock() >= int(expires):
            raise SignatureRefusedError("The URL has expired.")

    def _signature(self, path: str, expires: str) -> str:
        return hmac.new(self.key, f"{path}\n{expires}".encode(), hashlib.sha256).hexdigest()
