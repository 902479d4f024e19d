"""The client. It has no logic of its own: flows do the work, and the session runs them."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Self

from techforge._session import AsyncSession, client_of

if TYPE_CHECKING:
    from typing import Unpack

    import httpx

    from techforge._async.jobs import AsyncJobs
    from techforge._async.storage import AsyncStorage
    from techforge._config import ClientOptions
    from techforge.auth import KeyProvider
    from techforge.batch import AsyncBatch

# ruff: noqa: PLC0415
# Creating a client is cheap: generated code and httpx are imported on first use.


class AsyncTechForge:
    """A client of the TechForge Innovate API for asyncio.

    Use a client in one event loop only.

    Args:
        api_key: The key, or a function (sync or async) that returns the current key. Default: the
            environment variable `TFI_API_KEY`.
        http_client: An `httpx.AsyncClient` of your own for requests to the API, for example with proxies,
            certificates or tracing. You must close it yourself. Its headers, cookies and timeout are not
            used, and downloads do not use it.
        options: See `ClientOptions`.

    Raises:
        ConfigurationError: there is no key, or it is the mock server's key and `base_url` is the live API.
        InvalidArgumentError: an option is wrong.

    >>> async with AsyncTechForge("techforge-mock-key", base_url="http://127.0.0.1:8642") as client:
    ...     print(client)
    AsyncTechForge(base_url='http://127.0.0.1:8642')
    """

    def __init__(
        self,
        api_key: str | KeyProvider | None = None,
        *,
        http_client: httpx.AsyncClient | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        self._session = AsyncSession.build(api_key, http_client, options)
        if self._session.IMPORTS_EARLY:
            _ = self.jobs, self.storage

    @cached_property
    def jobs(self) -> AsyncJobs:
        """Talking-video jobs: submit, wait, download."""
        from techforge._async.jobs import AsyncJobs

        return AsyncJobs(self._session)

    @cached_property
    def storage(self) -> AsyncStorage:
        """Storage: sign storage keys, download objects."""
        from techforge._async.storage import AsyncStorage

        return AsyncStorage(self._session)

    @cached_property
    def batch(self) -> AsyncBatch:
        """Campaigns: many jobs, recorded in a ledger."""
        from techforge.batch import AsyncBatch

        return AsyncBatch(self._session)

    def with_options(self, **options: Unpack[ClientOptions]) -> Self:
        """Return a client with other options that shares this client's connections.

        If you close one of them, both are closed.

        Raises:
            InvalidArgumentError: an option is wrong.

        >>> (await client.with_options(timeout=5.0, max_retries=0).storage.sign(done.output_path)).path[-4:]
        '.mp4'
        """
        return client_of(type(self), self._session.with_options(options))

    async def close(self) -> None:
        """Close the connections and end all waits. Closing again does nothing."""
        await self._session.close()

    async def __aenter__(self) -> Self:
        self._session.check_loop()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self._session.settings.base_url!r})"
