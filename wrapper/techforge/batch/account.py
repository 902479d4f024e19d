"""Accounts and campaigns. A campaign belongs to an account, not to a key, so that keys can be replaced."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

from attrs import frozen

if TYPE_CHECKING:
    from techforge._config import Settings


@frozen
class Account:
    """An account of the API: its address, and a name.

    The API does not say which account a key belongs to. The name is what the user sets (`account=` or
    `TFI_ACCOUNT`), otherwise a fingerprint of the key. It is None if the key comes from a function.
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
            # 32 bits of a hash distinguish keys without revealing them.
            name = f"key-{sha256(b'techforge account ' + settings.api_key.encode()).hexdigest()[:8]}"
        return cls(settings.base_url, name)


_namespace = cache(UUID)


@frozen
class Campaign:
    """A campaign in a ledger: its name, the API's address and the account, if they are known."""

    id: int
    name: str
    api: str | None
    account: str | None
    uuid: str

    def __str__(self) -> str:
        return f"{self.name} ({self.api})" if self.api else self.name

    def project_of(self, key: str, params: dict[str, Any]) -> str:
        """Return the project for a new row: `project_id` from its params, or a UUID from campaign and key."""
        return str(params.get("project_id") or uuid5(_namespace(self.uuid), key))
