# Generated from techforge/_async/client.py by scripts/unasync.py; do not edit.
"""The client. It has no logic of its own: flows do the work, and the session runs them."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Self

from techforge._session import Session, client_of

if TYPE_CHECKING:
    from typing import Unpack

    import httpx

    from techforge._config import ClientOptions
    from techforge._sync.jobs import Jobs
    from techforge._sync.storage import Storage
    from techforge.auth import KeyProvider
    from techforge.batch import Batch

# ruff: noqa: PLC0415
# Creating a client is cheap: generated code and httpx are imported on first use.


class TechForge:
    """A client of the TechForge Innovate API with blocking calls.

    Threads can share a client, and you can use it after a fork.

    Args:
        api_key: The key, or a function that returns the current key. Default: the
            environment variable `TFI_API_KEY`.
        http_client: An `httpx.Client` of your own for requests to the API, for example with proxies,
            certificates or tracing. You must close it yourself. Its headers, cookies and timeout are not
            used, and downloads do not use it.
        options: See `ClientOptions`.

    Raises:
        ConfigurationError: there is no key, or it is the mock server's key and `base_url` is the live API.
        InvalidArgumentError: an option is wrong.

    >>> with TechForge("techforge-mock-key", base_url="http://127.0.0.1:8642") as client:
    ...     print(client)
    TechForge(base_url='http://127.0.0.1:8642')
    """

    def __init__(
        self,
        api_key: str | KeyProvider | None = None,
        *,
        http_client: httpx.Client | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        self._session = Session.build(api_key, http_client, options)
        if self._session.IMPORTS_EARLY:
            _ = self.jobs, self.storage

    @cached_property
    def jobs(self) -> Jobs:
        """Talking-video jobs: submit, wait, download."""
        from techforge._sync.jobs import Jobs

        return Jobs(self._session)

    @cached_property
    def storage(self) -> Storage:
        """Storage: sign storage keys, download objects."""
        from techforge._sync.storage import Storage

        return Storage(self._session)

    @cached_property
    def batch(self) -> Batch:
        """Campaigns: many jobs, recorded in a ledger."""
        from techforge.batch import Batch

        return Batch(self._session)

    def with_options(self, **options: Unpack[ClientOptions]) -> Self:
        """Return a client with other options that shares this client's connections.

        If you close one of them, both are closed.

        Raises:
            InvalidArgumentError: an option is wrong.

        >>> client.with_options(timeout=5.0, max_retries=0).storage.sign(done.output_path).path[-4:]
        '.mp4'
        """
        return client_of(type(self), self._session.with_options(options))

    def close(self) -> None:
        """Close the connections and end all waits. Closing again does nothing."""
        self._session.close()

    def __enter__(self) -> Self:
        self._session.check_loop()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self._session.settings.base_url!r})"
