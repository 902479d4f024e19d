"""What a client is set to. The environment is read when a client is built, never at import."""

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
from techforge.policy.limiter import Limiter
from techforge.policy.retry import RetryBudget, RetryPolicy

LIVE_URL = "https://api.techforgeinnovate.com"
BASE_URL_VARIABLE = "TFI_BASE_URL"
ACCOUNT_VARIABLE = "TFI_ACCOUNT"
_DEFAULT_PORTS = {"http": 80, "https": 443}
_PYTHON = ".".join(map(str, sys.version_info[:3]))


class ClientOptions(TypedDict, total=False):
    """The options of a client, and of `client.with_options(...)`. Durations are seconds.

    >>> patient = client.with_options(max_retries=5, timeout=10.0)
    >>> patient.storage.sign(done.output_path).path == done.output_path
    True
    """

    base_url: str
    """Where the API is: by default `TFI_BASE_URL`, else the live API."""
    account: str
    """A name for the account that pays, which stays the same when its key is replaced.

    By default `TFI_ACCOUNT`, else a fingerprint of the key. Campaigns belong to an account.
    """
    timeout: float
    """One attempt, from connecting to the last byte of the answer. Default 60."""
    max_retries: int
    """Further attempts after the first; a 429 is none, unless this is 0. Default 2."""
    retry_timeout: float
    """One call, all its attempts and pauses; a longer `Retry-After` fails at once. Default 120."""
    resubmit_on_server_error: bool
    """Whether `jobs.create` retries after a 500, 503 or another 5xx of the API, as its documentation
    recommends; never after a gateway's 502, 504 or 520 to 530. Default True."""
    max_rate: float
    """Requests a second to the API, for all callers together, if the account's limit is known."""
    max_in_flight: int
    """Requests to the API that are under way at once, for all callers together."""
    default_headers: Mapping[str, str]
    """Headers for every request to the API; `with_options` adds to them."""
    allow_http: bool
    """Allow plain http beyond this machine, for the API and for signed URLs. Default False."""
    allow_private_media: bool
    """Allow media URLs that only a private network can reach. Default False, unless `base_url` is in one."""


@frozen(kw_only=True)
class Settings:
    """The checked options of one client, and the clock and random that its flows use."""

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
    claim: Callable[[], Awaitable[None] | None] | None = field(default=None, repr=False)
    """Called once for a submission, when its turn has come, before it is sent; what it raises stops it."""
    now: Callable[[], float] = field(default=time.monotonic, repr=False)
    random: Callable[[], float] = field(default=random.random, repr=False)

    @classmethod
    def build(
        cls,
        api_key: str | KeyProvider | None,
        options: ClientOptions,
        environ: Mapping[str, str] = os.environ,
    ) -> Self:
        """Read the environment and check everything.

        Raises:
            ConfigurationError: there is no key, or it does not belong to the base URL's host.
            InvalidArgumentError: an option is wrong.
        """
        # An empty argument is a mistake, and not a way to the live API.
        base_url = options.get("base_url", environ.get(BASE_URL_VARIABLE) or LIVE_URL)
        bare = cls(
            api_key=resolve_api_key(api_key, environ),
            base_url=base_url,
            account=environ.get(ACCOUNT_VARIABLE) or None,
            headers={"user-agent": f"techforge-python/{__version__} python/{_PYTHON}"},
        )
        return bare.with_options({**options, "base_url": base_url})

    def with_options(self, options: ClientOptions) -> Self:
        """Return the same settings with some of them changed, and checked."""
        unknown = options.keys() - ClientOptions.__annotations__.keys()
        if unknown:
            allowed = ", ".join(sorted(ClientOptions.__annotations__))
            raise InvalidArgumentError(min(unknown), f"is not an option of a client; there are {allowed}")
        allow_http = options.get("allow_http", self.allow_http)
        settings = evolve(
            self,
            allow_http=allow_http,
            allow_private_media=options.get("allow_private_media", self.allow_private_media),
            account=_account(options["account"]) if "account" in options else self.account,
            limiter=self._limiter(options),
            base_url=_base_url(options.get("base_url", self.base_url), allow_http=allow_http),
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
            limits["max_in_flight"] = _checks.count("max_in_flight", options["max_in_flight"], least=1)
        return Limiter(**limits) if limits.keys() & options.keys() else self.limiter

    def __getstate__(self) -> NoReturn:
        """Keep the key, and connections that serve one process, out of pickles."""
        raise TypeError("a client of techforge cannot be pickled; build one in each process")

    @property
    def allows_private_media(self) -> bool:
        """Whether media URLs may be private: if that is allowed, or if the API itself is private."""
        return self.allow_private_media or _checks.is_private_host(urlsplit(self.base_url).hostname or "")

    def check_key(self, api_key: str) -> None:
        """Refuse a key that must not go to this base URL."""
        check_key_for_host(api_key, urlsplit(self.base_url).hostname or "")

    def once(self) -> Self:
        """Return the same settings without retries, for loops that try again by themselves."""
        return evolve(self, retry=evolve(self.retry, max_retries=0))


def _account(name: object) -> str:
    if not isinstance(name, str) or not name.isprintable() or not name.strip():
        raise InvalidArgumentError("account", "must be a name, such as 'acme'")
    return name


def _base_url(url: str, *, allow_http: bool) -> str:
    checked = _checks.secure_url("base_url", url, allow_http=allow_http)
    # An empty query, too, would swallow the path of an operation.
    if "?" in checked or "#" in checked or urlsplit(checked).username is not None:
        raise ConfigurationError("base_url: must not hold a query, a fragment or credentials")
    return normalized_url(checked)


def normalized_url(url: str) -> str:
    """Return one spelling of an address: campaigns belong to it (RFC 3986, sections 6.2.2.1 and 6.2.3)."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port not in {None, _DEFAULT_PORTS.get(parts.scheme)} else ""
    host = parts.hostname or ""
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}{parts.path.rstrip('/')}"
