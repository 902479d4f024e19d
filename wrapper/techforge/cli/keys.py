"""Where the command line finds its API key: in the environment, else in the system's keyring."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from attrs import frozen

from techforge._config import BASE_URL_VARIABLE, LIVE_URL
from techforge.auth import API_KEY_VARIABLE, check_api_key, check_key_for_host
from techforge.cli.exits import KeyProblemError
from techforge.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

SERVICE = "techforge"
WEB_APP = "Keys are made in the TechForge Innovate web app, under /api-access."
BY_HAND = f"read -rs {API_KEY_VARIABLE} && export {API_KEY_VARIABLE}"
"""How a key gets into the environment, and not into the shell's history."""
INSTEAD = f"Without a keyring, set {API_KEY_VARIABLE} in the environment: {BY_HAND}"


@frozen
class Key:
    """A key, which its repr does not show, and where it was found."""

    value: str
    source: Literal["environment", "keyring"]


def base_url(environ: Mapping[str, str] = os.environ) -> str:
    """Return the address that the commands speak to."""
    return environ.get(BASE_URL_VARIABLE) or LIVE_URL


def origin() -> str:
    """Return the part of the address that a key belongs to: no other host ever gets it from the keyring."""
    parts = urlsplit(base_url())
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2].lower()}"


def find() -> Key:
    """Return the key for the address in use.

    Raises:
        KeyProblemError: there is none, or it must not go there.
    """
    key, why = look()
    if key is None:
        raise KeyProblemError(
            f"There is no API key for {origin()}{why}. Set {API_KEY_VARIABLE}, or keep a key in the system's "
            f"keyring with: techforge auth login. {WEB_APP}"
        )
    return key


def look() -> tuple[Key | None, str]:
    """Return the key, if there is one, and if there is none what the keyring has to do with it."""
    value = os.environ.get(API_KEY_VARIABLE)
    if value:
        return Key(checked(value), "environment"), ""
    try:
        found = _keyring().get_password(SERVICE, origin())
    except KeyProblemError as problem:
        return None, f" ({problem})"
    except Exception as error:  # noqa: BLE001 - each backend raises what it likes
        return None, f" (the keyring cannot be read: {_reason(error)})"
    return (Key(checked(found), "keyring"), "") if found else (None, "")


def checked(key: str) -> str:
    """Return a key that may be sent to the address in use.

    Raises:
        KeyProblemError: it cannot be sent, or must not go there; the message does not repeat it.
    """
    try:
        good = check_api_key(key)
        check_key_for_host(good, urlsplit(base_url()).hostname or "")
    except ConfigurationError as error:
        raise KeyProblemError(str(error)) from None
    return good


def keep(key: str) -> None:
    """Keep a key in the keyring, for the address in use only.

    Raises:
        KeyProblemError: there is no keyring that could keep it safely.
    """
    keyring = _keyring()
    try:
        keyring.set_password(SERVICE, origin(), str(key))
        kept = keyring.get_password(SERVICE, origin()) == key
        reason = "it forgets what it is given"
    except Exception as error:  # noqa: BLE001 - see above
        kept, reason = False, _reason(error)
    if not kept:
        raise KeyProblemError(f"The keyring does not keep the key: {reason}. {INSTEAD}")


def forget() -> bool:
    """Take the key for the address in use out of the keyring; say whether there was one.

    Raises:
        KeyProblemError: the keyring cannot be used.
    """
    keyring = _keyring()
    try:
        if not keyring.get_password(SERVICE, origin()):
            return False
        keyring.delete_password(SERVICE, origin())
    except Exception as error:  # noqa: BLE001 - see above
        raise KeyProblemError(f"The keyring cannot be changed: {_reason(error)}") from None
    return True


def backend() -> str:
    """Name the keyring that a key would be kept in.

    Raises:
        KeyProblemError: there is none.
    """
    chosen: object = _keyring().get_keyring()
    kind = type(chosen)
    return f"{kind.__module__}.{kind.__qualname__}"


def _keyring() -> Any:
    """Return the keyring's module, loaded where a key is looked for in it."""
    try:
        keyring: Any = import_module("keyring")
    except ImportError:
        raise KeyProblemError("the package keyring is not installed: pip install keyring") from None
    backend = keyring.get_keyring()
    names = [type(one).__name__.lower() for one in (backend, *getattr(backend, "backends", ()))]
    if type(backend).__module__.startswith("keyring.backends.fail"):
        raise KeyProblemError(
            "this system has no keyring that the package keyring can use; on Linux, install gnome-keyring "
            "and run it in a D-Bus session, as keyring's documentation describes for headless systems"
        )
    if any("plaintext" in name for name in names):
        raise KeyProblemError("the keyring of this system is a plain file, which does not protect a key")
    return keyring


def _reason(error: Exception) -> str:
    # A backend's words are not ours, and might repeat what it was given.
    return type(error).__name__
