"""The options of a client. The environment is read when a client is created, never at import."""

import os
import random
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import NoReturn, Self, TypedDict
from urllib.parse import urlsplit

from attrs import evolve, field, frozen

from techforge import _checks
from techforge._version import __version__
from techforge.auth import KeyProvider, check_key_for_host, resolve_api_key
from techforge.errors import ConfigurationError, InvalidArgumentError
from techforge.policy.circuit_breaker import CircuitBreaker
from techforge.policy.limiter import Limiter
from techforge.policy.retry import RetryBudget, RetryPolicy

LIVE_URL = "https://api.techforgeinnovate.com"
BASE_URL_VARIABLE = "TFI_BASE_URL"
ACCOUNT_VARIABLE = "TFI_ACCOUNT"
_DEFAULT_PORTS = {"http": 80, "https": 443}
_PYTHON = ".".join(map(str, sys.version_info[:3]))


class ClientOptions(TypedDict, total=False):
    """The options of a client, and of `client.with_options(...)`. All durations are in seconds.

    >>> patient = client.with_options(max_retries=5, timeout=10.0)
    >>> patient.storage.sign(done.output_path).path == done.output_path
    True
    """

    base_url: str
    """The address of the API. Default: the environment variable `TFI_BASE_URL`, else the live API."""
    account: str
    """A name for the account that pays. Campaigns belong to an account; a name survives a change of its key.

    Default: the environment variable `TFI_ACCOUNT`, else a fingerprint of the key.
    """
    timeout: float
    """Timeout of one attempt, from connecting to the last byte of the response. Default 60."""
    max_retries: int
    """How often a failed request is sent again; after a 429 without limit, unless this is 0. Default 2."""
    retry_timeout: float
    """Timeout of one call with all its attempts. A longer `Retry-After` fails at once. Default 120."""
    resubmit_on_server_error: bool
    """Whether `jobs.create` retries after a 500, 503 or another 5xx, as the API's documentation recommends.

    A gateway's 502, 504 or 520 to 530 is never retried, since the job may exist. Default True.
    """
    max_rate: float
    """Requests per second to the API, for all callers together. Default: found from 429 responses."""
    max_in_flight: int
    """Requests to the API in flight at the same time, for all callers together. Default: unlimited."""
    default_headers: Mapping[str, str]
    """Additional headers for every request to the API. `with_options` adds to them."""
    allow_http: bool
    """Allow unencrypted http to other machines, for the API and for signed URLs. Default False."""
    allow_private_media: bool
    """Allow media URLs in a private network. Default False, or True if `base_url` is in one itself."""


@frozen(kw_only=True)
class Settings:
    """The checked options of one client, and the clock and random numbers that its flows use."""

    api_key: str | KeyProvider = field(repr=False)
    base_url: str
    timeout: float = 60.0
    retry: RetryPolicy = field(factory=RetryPolicy)
    headers: Mapping[str, str]
    account: str | None = None
    allow_http: bool = False
    allow_private_media: bool = False
    budget: RetryBudget = field(factory=RetryBudget, repr=False)
    limiter: Limiter = field(factory=Limiter, repr=False)
    breaker: CircuitBreaker = field(factory=CircuitBreaker, repr=False)
    claim: Callable[[], Awaitable[None] | None] | None = field(default=None, repr=False)
    """Called once per submission, after the rate limiter has admitted it. If it raises, nothing is sent."""
    now: Callable[[], float] = field(default=time.monotonic, repr=False)
    random: Callable[[], float] = field(default=random.random, repr=False)

    @classmethod
    def build(
        cls,
        api_key: str | KeyProvider | None,
        options: ClientOptions,
        environ: Mapping[str, str] = os.environ,
    ) -> Self:
        """Return checked settings from the options and the environment.

        Raises:
            ConfigurationError: there is no key, or it must not be sent to the base URL's host.
            InvalidArgumentError: an option is wrong.
        """
        # An empty base_url= is a mistake. Do not replace it by the live API.
        base_url = options.get("base_url", environ.get(BASE_URL_VARIABLE) or LIVE_URL)
        defaults = cls(
            api_key=resolve_api_key(api_key, environ),
            base_url=base_url,
            account=environ.get(ACCOUNT_VARIABLE) or None,
            headers={"user-agent": f"techforge-python/{__version__} python/{_PYTHON}"},
        )
        return defaults.with_options({**options, "base_url": base_url})

    def with_options(self, options: ClientOptions) -> Self:
        """Return a copy with some options changed and checked."""
        unknown = options.keys() - ClientOptions.__annotations__.keys()
        if unknown:
            allowed = ", ".join(sorted(ClientOptions.__annotations__))
            raise InvalidArgumentError(min(unknown), f"is not a client option. The options are {allowed}")
        allow_http = options.get("allow_http", self.allow_http)
        base_url = _base_url(options.get("base_url", self.base_url), allow_http=allow_http)
        settings = evolve(
            self,
            allow_http=allow_http,
            allow_private_media=options.get("allow_private_media", self.allow_private_media),
            account=_account(options["account"]) if "account" in options else self.account,
            limiter=self._limiter(options),
            breaker=self.breaker if base_url == self.base_url else CircuitBreaker(),
            base_url=base_url,
            timeout=_checks.seconds("timeout", options.get("timeout", self.timeout)),
            headers={
                **self.headers,
                **_checks.headers("default_headers", options.get("default_headers", {})),
            },
            retry=evolve(
                self.retry,
                max_retries=_checks.count("max_retries", options.get("max_retries", self.retry.max_retries)),
                retry_timeout=_checks.seconds(
                    "retry_timeout", options.get("retry_timeout", self.retry.retry_timeout)
                ),
                resubmit_on_server_error=options.get(
                    "resubmit_on_server_error", self.retry.resubmit_on_server_error
                ),
            ),
        )
        if isinstance(settings.api_key, str):
            settings.check_key(settings.api_key)
        return settings

    def _limiter(self, options: ClientOptions) -> Limiter:
        limits = {"max_rate": self.limiter.max_rate, "max_in_flight": self.limiter.max_in_flight}
        if "max_rate" in options:
            limits["max_rate"] = _checks.positive("max_rate", options["max_rate"], "requests a second")
        if "max_in_flight" in options:
            limits["max_in_flight"] = _checks.count("max_in_flight", options["max_in_flight"], minimum=1)
        return Limiter(**limits) if limits.keys() & options.keys() else self.limiter

    def __getstate__(self) -> NoReturn:
        """Refuse to pickle: settings contain the API key, and connections belong to one process."""
        raise TypeError("a techforge client cannot be pickled; create one in each process")

    @property
    def allows_private_media(self) -> bool:
        """Whether media URLs may be private: by option, or because the API is in a private network."""
        return self.allow_private_media or _checks.is_private_host(urlsplit(self.base_url).hostname or "")

    def check_key(self, api_key: str) -> None:
        """Raise a `ConfigurationError` if the key must not be sent to this base URL."""
        check_key_for_host(api_key, urlsplit(self.base_url).hostname or "")

    def once(self) -> Self:
        """Return a copy without retries, for loops that retry themselves."""
        return evolve(self, retry=evolve(self.retry, max_retries=0))


def _account(name: object) -> str:
    if not isinstance(name, str) or not name.isprintable() or not name.strip():
        raise InvalidArgumentError("account", "must be a non-empty name such as 'acme'")
    return name


def _base_url(url: str, *, allow_http: bool) -> str:
    checked = _checks.secure_url("base_url", url, allow_http=allow_http)
    # The path of an operation is appended, so even an empty query would take it in.
    if "?" in checked or "#" in checked or urlsplit(checked).username is not None:
        raise ConfigurationError("base_url: must not contain a query, a fragment or credentials")
    return normalized_url(checked)


def normalized_url(url: str) -> str:
    """Return the normalized URL, since campaigns belong to it (RFC 3986, sections 6.2.2.1 and 6.2.3)."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port not in {None, _DEFAULT_PORTS.get(parts.scheme)} else ""
    host = parts.hostname or ""
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}{parts.path.rstrip('/')}"
