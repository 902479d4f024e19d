"""Group commit: changes that several tasks make at about the same time are written in one transaction."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from techforge.errors import LedgerError

if TYPE_CHECKING:
    from techforge.batch.changes import Change
    from techforge.batch.ledger import Ledger


class Writer:
    """Applies changes to a ledger in a thread. A call returns when its change is on disk."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._waiting: list[tuple[Change, asyncio.Future[bool]]] = []
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, change: Change) -> bool:
        """Apply one change. Return False if the row was in another state."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((change, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write())
        # The change is applied even if the caller is cancelled.
        return bool(await future)

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                results = await asyncio.to_thread(self._ledger.apply, *(change for change, _ in batch))
            except Exception as error:  # noqa: BLE001 - it is passed to the callers
                kind = type(error) if isinstance(error, LedgerError) else LedgerError
                for _, future in batch:
                    if not future.done():
                        future.set_exception(kind(str(error)))
            else:
                for (_, future), result in zip(batch, results, strict=True):
                    if not future.done():
                        future.set_result(result)

    async def flush(self) -> None:
        """Wait until all changes are on disk."""
        while self._task is not None and not self._task.done():
            await asyncio.wait([self._task])
