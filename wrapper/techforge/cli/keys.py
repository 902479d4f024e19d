"""The API key of the command line: from the environment, or from the system's keyring."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from attrs import frozen

from techforge._config import BASE_URL_VARIABLE, LIVE_URL
from techforge.auth import API_KEY_VARIABLE, check_api_key, check_key_for_host
from techforge.cli.exit_codes import KeyProblemError
from techforge.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

SERVICE = "techforge"
WEB_APP = "Create a key in the TechForge Innovate web app, under /api-access."
EXPORT_KEY = f"read -rs {API_KEY_VARIABLE} && export {API_KEY_VARIABLE}"
"""The command that sets the key without leaving it in the shell's history."""
INSTEAD = f"Without a keyring, set {API_KEY_VARIABLE} in the environment: {EXPORT_KEY}"


@frozen
class Key:
    """A key and its source."""

    value: str
    source: Literal["environment", "keyring"]


def base_url(environ: Mapping[str, str] = os.environ) -> str:
    """Return the API's address."""
    return environ.get(BASE_URL_VARIABLE) or LIVE_URL


def origin() -> str:
    """Return the scheme and host of the API. A key in the keyring is saved for them and only sent there."""
    parts = urlsplit(base_url())
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2].lower()}"


def get() -> Key:
    """Return the key for the current address.

    Raises:
        KeyProblemError: there is no key, or it must not be sent to this address.
    """
    key, problem = lookup()
    if key is None:
        raise KeyProblemError(
            f"There is no API key for {origin()}{problem}. Set {API_KEY_VARIABLE}, or save a key in the "
            "system's "
            f"keyring with: techforge auth login. {WEB_APP}"
        )
    return key


def lookup() -> tuple[Key | None, str]:
    """Return the key, or None and the problem with the keyring, if there is one."""
    value = os.environ.get(API_KEY_VARIABLE)
    if value:
        return Key(checked(value), "environment"), ""
    try:
        found = _keyring().get_password(SERVICE, origin())
    except KeyProblemError as problem:
        return None, f" ({problem})"
    except Exception as error:  # noqa: BLE001 - each backend has its own exceptions
        return None, f" (the keyring cannot be read: {_reason(error)})"
    return (Key(checked(found), "keyring"), "") if found else (None, "")


def checked(key: str) -> str:
    """Check a key and return it.

    Raises:
        KeyProblemError: the key is malformed, or must not be sent to this address. The message does not
            contain the key.
    """
    try:
        valid = check_api_key(key)
        check_key_for_host(valid, urlsplit(base_url()).hostname or "")
    except ConfigurationError as error:
        raise KeyProblemError(str(error)) from None
    return valid


def save(key: str) -> None:
    """Save a key in the keyring, for the current address only.

    Raises:
        KeyProblemError: there is no keyring, or none that is safe.
    """
    keyring = _keyring()
    try:
        keyring.set_password(SERVICE, origin(), str(key))
        is_saved = keyring.get_password(SERVICE, origin()) == key
        reason = "it does not return the key"
    except Exception as error:  # noqa: BLE001 - each backend has its own exceptions
        is_saved, reason = False, _reason(error)
    if not is_saved:
        raise KeyProblemError(f"The keyring did not save the key: {reason}. {INSTEAD}")


def remove() -> bool:
    """Remove the key for the current address from the keyring. Return False if there was none.

    Raises:
        KeyProblemError: the keyring cannot be used.
    """
    keyring = _keyring()
    try:
        if not keyring.get_password(SERVICE, origin()):
            return False
        keyring.delete_password(SERVICE, origin())
    except Exception as error:  # noqa: BLE001 - each backend has its own exceptions
        raise KeyProblemError(f"The keyring cannot be changed: {_reason(error)}") from None
    return True


def backend() -> str:
    """Return the name of the keyring's backend.

    Raises:
        KeyProblemError: there is no usable keyring.
    """
    backend: object = _keyring().get_keyring()
    kind = type(backend)
    return f"{kind.__module__}.{kind.__qualname__}"


def _keyring() -> Any:
    """Import and return the package keyring."""
    try:
        keyring: Any = import_module("keyring")
    except ImportError:
        raise KeyProblemError("the package keyring is not installed: pip install keyring") from None
    backend = keyring.get_keyring()
    names = [type(each).__name__.lower() for each in (backend, *getattr(backend, "backends", ()))]
    if type(backend).__module__.startswith("keyring.backends.fail"):
        raise KeyProblemError(
            "this system has no keyring that the package keyring can use; on Linux, install gnome-keyring "
            "and run it in a D-Bus session, as keyring's documentation describes for headless systems"
        )
    if any("plaintext" in name for name in names):
        raise KeyProblemError("the keyring of this system is a plain file, which does not protect a key")
    return keyring


def _reason(error: Exception) -> str:
    # A backend's message might contain the key.
    return type(error).__name__
