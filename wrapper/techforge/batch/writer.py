"""One commit for many: what several tasks want to write at about the same time reaches the disk together."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any

from techforge.batch.ledger import LedgerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from techforge.batch.ledger import Ledger

    Change = Callable[[], bool]


class Writer:
    """Carries out changes of a ledger in a thread; a caller goes on when its own is on disk."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._waiting: list[tuple[Change, asyncio.Future[bool]]] = []
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, change: Callable[..., bool], *arguments: Any) -> bool:
        """Carry out one change of a row; False if the row was not in the state that it begins with."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((lambda: change(*arguments), future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write())
        # A caller that is cancelled leaves: its change is made all the same.
        return bool(await future)

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                results = await asyncio.to_thread(self._commit, [change for change, _ in batch])
            except sqlite3.Error as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(LedgerError(f"{self._ledger.path} cannot be written: {error}"))
            else:
                for (_, future), result in zip(batch, results, strict=True):
                    if not future.done():
                        future.set_result(result)

    def _commit(self, changes: list[Change]) -> list[bool]:
        with self._ledger.transaction():
            return [change() for change in changes]

    async def settle(self) -> None:
        """Wait until all that was asked for is on disk."""
        while self._task is not None and not self._task.done():
            await asyncio.wait([self._task])
