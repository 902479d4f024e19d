"""A session: the settings of a client, and the driver that runs its flows.

A client adds signatures and documentation to a session. Campaigns and the command line use the session of a
client, so they do not depend on private attributes of clients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, TypeVar

from attrs import evolve, field, frozen

from techforge._config import ClientOptions, Settings
from techforge._drivers.sync import SyncDriver

if TYPE_CHECKING:
    import httpx

    from techforge._drivers.aio import AsyncDriver
    from techforge._flow import Flow
    from techforge.auth import KeyProvider

T = TypeVar("T")
S = TypeVar("S")


@frozen
class Session:
    """The session of a `TechForge`."""

    IMPORTS_EARLY: ClassVar[bool] = False
    """Import httpx on first use: a program may import techforge only for its errors."""

    settings: Settings
    driver: SyncDriver = field(factory=lambda: SyncDriver(None), repr=False)

    @classmethod
    def build(
        cls, api_key: str | KeyProvider | None, http_client: httpx.Client | None, options: ClientOptions
    ) -> Self:
        """Return a session from options and environment, after checking them."""
        return cls(Settings.build(api_key, options), SyncDriver(http_client))

    def with_options(self, options: ClientOptions) -> Self:
        """Return a session with other options and the same connections."""
        return evolve(self, settings=self.settings.with_options(options))

    def run(self, flow: Flow[T]) -> T:
        """Run a flow to its end."""
        return self.driver.run(flow)

    def check_loop(self) -> None:
        """Do nothing: sync calls need no event loop."""

    def close(self) -> None:
        """Close the connections and end all waits. Closing again does nothing."""
        self.driver.close()


def _async_driver(http_client: httpx.AsyncClient | None = None) -> AsyncDriver:
    from techforge._drivers.aio import AsyncDriver  # noqa: PLC0415 - it imports httpx

    return AsyncDriver(http_client)


@frozen
class AsyncSession:
    """The session of an `AsyncTechForge`."""

    IMPORTS_EARLY: ClassVar[bool] = True
    """Import httpx when the client is created: a later import would block the event loop."""

    settings: Settings
    driver: AsyncDriver = field(factory=_async_driver, repr=False)

    @classmethod
    def build(
        cls, api_key: str | KeyProvider | None, http_client: httpx.AsyncClient | None, options: ClientOptions
    ) -> Self:
        """Return a session from options and environment, after checking them."""
        return cls(Settings.build(api_key, options), _async_driver(http_client))

    def with_options(self, options: ClientOptions) -> Self:
        """Return a session with other options and the same connections."""
        return evolve(self, settings=self.settings.with_options(options))

    async def run(self, flow: Flow[T]) -> T:
        """Run a flow to its end."""
        return await self.driver.run(flow)

    def check_loop(self) -> None:
        """Raise an error without a running event loop, or on another one than the session's."""
        self.driver.check_loop()

    async def close(self) -> None:
        """Close the connections and end all waits. Closing again does nothing."""
        await self.driver.close()


class _Client(Protocol[S]):  # pyright: ignore[reportInvalidTypeVarUse] - mypy says the opposite
    _session: S


C = TypeVar("C", bound=_Client[Any])


def session_of(client: _Client[S]) -> S:
    """Return the session of a client."""
    return client._session  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]


def client_of(cls: type[C], session: Session | AsyncSession) -> C:
    """Return a client of this class that uses an existing session."""
    client = object.__new__(cls)
    client._session = session  # pyright: ignore[reportPrivateUsage]
    return client
