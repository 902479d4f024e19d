"""Distributing rows to workers. Any engine that can run a function on many machines can do it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from techforge._logging import logger
from techforge._masking import mask
from techforge.errors import ConfigurationError, TechForgeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from techforge.batch.ledger import Chunk


class Dispatcher(Protocol):
    """Hands chunks of rows to workers.

    It may deliver a chunk more than once, because the ledger lets each row be submitted once. It may also
    lose a chunk, because idle workers look for rows that are left.
    """

    async def enqueue(self, chunks: Sequence[Chunk]) -> None:
        """Queue chunks for the workers.

        Args:
            chunks: The chunks of rows.
        """
        ...

    async def run_worker(self, process: Callable[[Chunk], Awaitable[None]]) -> None:
        """Process chunks, several concurrently, until cancelled.

        Args:
            process: Called with each chunk.
        """
        ...

    async def take_over(self) -> None:
        """Queue the chunks of dead workers again. Each worker calls this every few seconds."""
        ...


async def enqueue(dispatcher: Dispatcher, chunks: Sequence[Chunk]) -> None:
    """Queue chunks. A failure is only logged, because idle workers find the rows without the dispatcher."""
    await log_failure(dispatcher.enqueue(chunks))


async def log_failure(call: Awaitable[None]) -> None:
    """Await a call to a dispatcher, and log its failure."""
    try:
        await call
    except TechForgeError:
        raise
    except Exception as error:  # noqa: BLE001 - the dispatcher may be the user's own
        _check_cancelled()
        message = mask(f"{type(error).__name__}: {' '.join(str(error).split())}")
        logger.warning("the dispatcher failed: %s", message)
    else:
        _check_cancelled()


def _check_cancelled() -> None:
    """Raise `CancelledError` again if a dispatcher lost it, because its clean-up failed: the run must end."""
    if (task := asyncio.current_task()) is not None and task.cancelling():
        raise asyncio.CancelledError


def default_dispatcher(ledger: str, campaign: int) -> Dispatcher:
    """Return the dispatcher for a campaign in PostgreSQL, if the user gave none.

    Raises:
        ConfigurationError: a package is missing.
    """
    try:
        from techforge.batch.procrastinate import Procrastinate  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigurationError(
            "workers need more packages: pip install 'techforge[distributed]', or pass dispatcher="
        ) from error
    return Procrastinate(ledger, f"techforge-{campaign}")
