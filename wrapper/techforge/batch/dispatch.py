"""Where workers get their rows from: any engine that can run a function on many machines will do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from techforge._logging import logger
from techforge._masking import mask
from techforge.errors import ConfigurationError, TechForgeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from techforge.batch.ledger import Chunk


class Dispatcher(Protocol):
    """Hands chunks of rows to workers.

    It may hand a chunk to two workers, or twice to one: the ledger lets each row be submitted once. It may
    also forget one: workers that have nothing to do look whether rows are left.
    """

    async def enqueue(self, chunks: Sequence[Chunk]) -> None:
        """Let workers have these chunks."""
        ...

    async def run_worker(self, process: Callable[[Chunk], Awaitable[None]]) -> None:
        """Call `process` with chunks, some at once, until cancelled."""
        ...

    async def take_over(self) -> None:
        """Give chunks of workers that have died to others; called every few seconds by each worker."""
        ...


async def enqueue(dispatcher: Dispatcher, chunks: Sequence[Chunk]) -> None:
    """Let workers have chunks; if that fails it is said, since idle workers look for rows by themselves."""
    await tolerated(dispatcher.enqueue(chunks))


async def tolerated(asked: Awaitable[None]) -> None:
    """Ask a dispatcher for something that it may fail at."""
    try:
        await asked
    except TechForgeError:
        raise
    except Exception as error:  # noqa: BLE001 - it may be anybody's, and its database may be away
        said = mask(f"{type(error).__name__}: {' '.join(str(error).split())}")
        logger.warning("the dispatcher has failed: %s", said)


def default_dispatcher(ledger: str, campaign: int) -> Dispatcher:
    """Return what hands out the rows of a campaign in PostgreSQL, where nothing else is given.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        from techforge.batch.procrastinate import Procrastinate  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigurationError(
            "workers need more: pip install 'techforge[distributed]', or give a dispatcher"
        ) from error
    return Procrastinate(ledger, f"techforge-{campaign}")
