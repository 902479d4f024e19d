"""Where workers get their rows from: any engine that can run a function on many machines will do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from techforge.errors import ConfigurationError

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


def default_dispatcher(ledger: str) -> Dispatcher:
    """Return what hands out the rows of a ledger in PostgreSQL, where nothing else is given.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        from techforge.batch.procrastinate import Procrastinate  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigurationError(
            "workers need more: pip install 'techforge[distributed]', or give a dispatcher"
        ) from error
    return Procrastinate(ledger)
