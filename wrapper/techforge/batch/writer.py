"""Group commit: changes that several tasks make at about the same time are written in one transaction."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeAlias

from techforge.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from techforge.batch.changes import Change
    from techforge.batch.ledger import Ledger


_Waiting: TypeAlias = "tuple[Change, asyncio.Future[bool]]"


class Writer:
    """Applies changes to a ledger in a thread. A call returns when its change is on disk."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._waiting: list[_Waiting] = []
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
            if error := await self._apply(batch):
                # The ledger may have refused the claims, because its disk is nearly full.
                results = [each for each in batch if not each[0].is_claim]
                if len(results) < len(batch) and results:
                    _fail([each for each in batch if each[0].is_claim], error)
                    batch, error = results, await self._apply(results)
                if error is not None:
                    _fail(batch, error)

    async def _apply(self, batch: Sequence[_Waiting]) -> Exception | None:
        try:
            results = await asyncio.to_thread(self._ledger.apply, *(change for change, _ in batch))
        except Exception as error:  # noqa: BLE001 - it is passed to the callers
            return error
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)
        return None

    async def flush(self) -> None:
        """Wait until all changes are on disk."""
        while self._task is not None and not self._task.done():
            await asyncio.wait([self._task])


def _fail(batch: Sequence[_Waiting], error: Exception) -> None:
    # Each caller gets an exception of its own: a shared one would collect their tracebacks.
    kind = type(error) if isinstance(error, LedgerError) else LedgerError
    for _, future in batch:
        if not future.done():
            future.set_exception(kind(str(error)))
