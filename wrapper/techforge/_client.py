"""The two clients: settings, ownership, close. No logic."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Self

from techforge._config import ClientOptions, Settings
from techforge._drivers.sync import SyncDriver

if TYPE_CHECKING:
    from typing import Unpack

    import httpx

    from techforge._drivers.aio import AsyncDriver
    from techforge.auth import KeyProvider
    from techforge.batch import AsyncBatch, Batch
    from techforge.resources.jobs import AsyncJobs, Jobs
    from techforge.resources.storage import AsyncStorage, Storage

# ruff: noqa: PLC0415
# What `TechForge` is built of is light. The generated code, and with it httpx, comes with its first use.


class TechForge:
    """A client of the TechForge Innovate API, with blocking calls; safe to share between threads and to fork.

    `api_key` is the key, or a function that returns the current one; by default it is read from the
    environment variable `TFI_API_KEY`. `ClientOptions` lists the other options. `http_client` replaces
    the connections to the API by an `httpx.Client` of your own, for proxies, certificates or tracing; it
    stays yours to close, and its headers, cookies and timeout are not used. Downloads never go over it.

    Raises:
        ConfigurationError: there is no key, or it is the mock server's and the live API is addressed.
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
        self._use(Settings.build(api_key, options), SyncDriver(http_client))

    def _use(self, settings: Settings, driver: SyncDriver) -> None:
        self._settings = settings
        self._driver = driver

    @cached_property
    def jobs(self) -> Jobs:
        """Talking-video jobs: submit, wait, download."""
        from techforge.resources.jobs import Jobs

        return Jobs(self._settings, self._driver)

    @cached_property
    def storage(self) -> Storage:
        """What is in storage: sign a key, download."""
        from techforge.resources.storage import Storage

        return Storage(self._settings, self._driver)

    @cached_property
    def batch(self) -> Batch:
        """Campaigns: many jobs, with a ledger."""
        from techforge.batch import Batch

        return Batch(self)

    def with_options(self, **options: Unpack[ClientOptions]) -> Self:
        """Return a client that shares this one's connections, with some options changed.

        Closing either closes both.

        Raises:
            InvalidArgumentError: an option is wrong.

        >>> client.with_options(timeout=5.0, max_retries=0).storage.sign(done.output_path).path[-4:]
        '.mp4'
        """
        other = object.__new__(type(self))
        other._use(self._settings.with_options(options), self._driver)
        return other

    def close(self) -> None:
        """Close the connections, and end every wait; a second time does nothing."""
        self._driver.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self._settings.base_url!r})"


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
        # All that there is to be loaded, so that no event loop has to wait for it later.
        from techforge._drivers.aio import AsyncDriver
        from techforge.resources import jobs, storage

        del jobs, storage
        self._use(Settings.build(api_key, options), AsyncDriver(http_client))

    def _use(self, settings: Settings, driver: AsyncDriver) -> None:
        self._settings = settings
        self._driver = driver

    @cached_property
    def jobs(self) -> AsyncJobs:
        """Talking-video jobs: submit, wait, download."""
        from techforge.resources.jobs import AsyncJobs

        return AsyncJobs(self._settings, self._driver)

    @cached_property
    def storage(self) -> AsyncStorage:
        """What is in storage: sign a key, download."""
        from techforge.resources.storage import AsyncStorage

        return AsyncStorage(self._settings, self._driver)

    @cached_property
    def batch(self) -> AsyncBatch:
        """Campaigns: many jobs, with a ledger."""
        from techforge.batch import AsyncBatch

        return AsyncBatch(self)

    def with_options(self, **options: Unpack[ClientOptions]) -> Self:
        """Return a client that shares this one's connections, with some options changed.

        Closing either closes both.

        Raises:
            InvalidArgumentError: an option is wrong.

        >>> (await client.with_options(timeout=5.0, max_retries=0).storage.sign(done.output_path)).path[-4:]
        '.mp4'
        """
        other = object.__new__(type(self))
        other._use(self._settings.with_options(options), self._driver)
        return other

    async def close(self) -> None:
        """Close the connections, and end every wait; a second time does nothing."""
        await self._driver.close()

    async def __aenter__(self) -> Self:
        self._driver.check_loop()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self._settings.base_url!r})"
