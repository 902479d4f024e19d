"""The client: a session, and what can be done with it. No logic."""

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
# A client is light. The generated code, and with it httpx, is imported when it is first used.


class AsyncTechForge:
    """A client of the TechForge Innovate API, for asyncio; it belongs to one event loop.

    `api_key` is the key, or a function, also an async one, that returns the current one; by default it is
    read from the environment variable `TFI_API_KEY`. `ClientOptions` lists the other options.
    `http_client` replaces the connections to the API by an `httpx.AsyncClient` of your own, for proxies,
    certificates or tracing; it stays yours to close, and its headers, cookies and timeout are not used.
    Downloads never go over it.

    Raises:
        ConfigurationError: there is no key, or it is the mock server's and the live API is addressed.
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
        """What is in storage: sign a key, download."""
        from techforge._async.storage import AsyncStorage

        return AsyncStorage(self._session)

    @cached_property
    def batch(self) -> AsyncBatch:
        """Campaigns: many jobs, with a ledger."""
        from techforge.batch import AsyncBatch

        return AsyncBatch(self._session)

    def with_options(self, **options: Unpack[ClientOptions]) -> Self:
        """Return a client that shares this one's connections, with some options changed.

        Closing either closes both.

        Raises:
            InvalidArgumentError: an option is wrong.

        >>> (await client.with_options(timeout=5.0, max_retries=0).storage.sign(done.output_path)).path[-4:]
        '.mp4'
        """
        return client_of(type(self), self._session.with_options(options))

    async def close(self) -> None:
        """Close the connections, and end every wait; a second time does nothing."""
        await self._session.close()

    async def __aenter__(self) -> Self:
        self._session.check_loop()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self._session.settings.base_url!r})"
