"""Whose campaigns: rows belong to an account of the API, so that keys can be replaced."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

from attrs import frozen

if TYPE_CHECKING:
    from techforge._config import Settings


@frozen
class Account:
    """An account of the API: its address, and a name.

    The API does not say whose key it was given. So the name is the one that the user gives (`account=`,
    `TFI_ACCOUNT`), or a fingerprint of the key; None where the key comes from a function.
    """

    api: str
    name: str | None

    @classmethod
    def of(cls, settings: Settings) -> Account:
        """Return the account of a client.

        >>> from techforge._session import session_of
        >>> Account.of(session_of(client.with_options(account="acme")).settings).name
        'acme'
        """
        name = settings.account
        if name is None and isinstance(settings.api_key, str):
            # 32 bits of a hash tell keys apart, and tell nothing of the key.
            name = f"key-{sha256(b'techforge account ' + settings.api_key.encode()).hexdigest()[:8]}"
        return cls(settings.base_url, name)


@frozen
class Campaign:
    """A campaign of a ledger: its name, the API's address and the account that pays, if they are known."""

    id: int
    name: str
    api: str | None
    account: str | None
    uuid: str

    def __str__(self) -> str:
        return f"{self.name} ({self.api})" if self.api else self.name

    def project_of(self, key: str, params: dict[str, Any]) -> str:
        """Return the project of a new row's job: its own, or one that follows from campaign and key."""
        return str(params.get("project_id") or uuid5(UUID(self.uuid), key))
