"""The API key: read it and check it."""

import os
from collections.abc import Awaitable, Callable, Mapping

from techforge._masking import Secret
from techforge.errors import ConfigurationError

TEST_API_KEY = "techforge-mock-key"
"""The key that the mock server accepts by default. It is public, and never sent to the live API."""

API_KEY_VARIABLE = "TFI_API_KEY"
LIVE_HOST = "api.techforgeinnovate.com"

KeyProvider = Callable[[], str] | Callable[[], Awaitable[str]]
"""A function that returns the current key. It is called once per call, and once more after a 401."""


def resolve_api_key(
    api_key: str | KeyProvider | None, environ: Mapping[str, str] = os.environ
) -> str | KeyProvider:
    """Return the key, or the key provider, from the argument or the environment.

    Raises:
        ConfigurationError: there is no key, or it cannot be sent as a header.
    """
    if api_key is None:
        api_key = environ.get(API_KEY_VARIABLE)
        if not api_key:
            raise ConfigurationError(
                f"no API key: pass api_key=, or set {API_KEY_VARIABLE}. "
                "You create keys in the TechForge Innovate web app, under /api-access."
            )
    return api_key if callable(api_key) else check_api_key(api_key)


def check_api_key(api_key: object) -> str:
    """Return the key if it can be sent as an HTTP header value (RFC 9110, section 5.5).

    Raises:
        ConfigurationError: it cannot. The message does not contain the key.
    """
    if not isinstance(api_key, str):
        raise ConfigurationError(f"the API key must be a str, not {type(api_key).__name__}")
    if not api_key or not all("!" <= character <= "~" for character in api_key):
        raise ConfigurationError(
            "the API key is empty, or contains a space, a line break or a non-ASCII character; "
            "copy it again from the TechForge Innovate web app, under /api-access"
        )
    return Secret(api_key)


def check_key_for_host(api_key: str, host: str) -> None:
    """Refuse to send the mock server's key to the live API.

    Raises:
        ConfigurationError: the key is the mock server's and the host is the live one.
    """
    if api_key == TEST_API_KEY and host == LIVE_HOST:
        raise ConfigurationError(
            f"{TEST_API_KEY!r} works with the mock server only, but base_url is the live API. "
            f"Set base_url= (or TFI_BASE_URL) to the mock's address, or {API_KEY_VARIABLE} to a real key."
        )
