"""Download the videos of finished rows, after the run or on another machine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve

from techforge._flows.download import download_video
from techforge._masking import mask
from techforge.batch import changes
from techforge.batch.ledger import Entry, Ledger, State
from techforge.errors import TargetExistsError, TechForgeError
from techforge.models import Job

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from techforge._session import AsyncSession
    from techforge.batch.options import Options


async def fetch(session: AsyncSession, ledger: Ledger, options: Options) -> AsyncGenerator[Entry]:
    """Download every finished video whose file is missing. Yield each row after its download."""
    missing = _missing(ledger, options)
    running: set[asyncio.Task[Entry]] = set()
    try:
        while True:
            while len(running) < options.downloads:
                found = await asyncio.to_thread(next, missing, None)
                if found is None:
                    break
                running.add(asyncio.create_task(_download(session, ledger, *found)))
            if not running:
                return
            ended, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                yield task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _missing(ledger: Ledger, options: Options) -> Iterator[tuple[Entry, Path]]:
    for row in ledger.entries(State.DONE):
        target = options.target(row)
        if target is not None and not (
            row.file and target.exists() and Path(row.file).resolve() == target.resolve()
        ):
            yield row, target


async def _download(session: AsyncSession, ledger: Ledger, row: Entry, target: Path) -> Entry:
    try:
        file = await session.run(
            download_video(Job(row.job_id or "", row.project_id), target, session.settings)
        )
    except TargetExistsError:
        why = f"{target} exists, and this campaign did not download it. Choose another folder or --name"
        return evolve(row, file=None, reason=why)
    except TechForgeError as error:
        return evolve(row, file=None, reason=mask(str(error)))
    await asyncio.to_thread(ledger.apply, changes.fetched(row.n, str(file)))
    return evolve(row, file=str(file))
