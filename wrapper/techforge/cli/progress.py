"""How far a wait or a download is: live on a terminal, lines elsewhere; on stderr in any case."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from attrs import define, field, frozen

from techforge.cli.told import note, polls
from techforge.policy.polling import PollSchedule

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from techforge import JobUpdate

# ruff: noqa: PLC0415
# Rich takes as long to load as all the rest, and is of use on a terminal only.

_LINES = 10.0
"""Seconds between two lines that say nothing new."""


@frozen
class Looks(PollSchedule):
    """A schedule that can say when the next poll is."""

    pause: list[float] = field(factory=list[float], eq=False)

    def interval(self, polls: int, jitter: float) -> float:
        """Return the seconds to sleep, and remember them."""
        seconds = super().interval(polls, jitter)
        self.pause[:] = [seconds]
        return seconds


def is_live() -> bool:
    """Tell whether stderr is a terminal on which lines can be drawn anew."""
    return bool(sys.stderr) and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def waiting(looks: Looks) -> Generator[Callable[[JobUpdate], None]]:
    """Show a wait; what it gives is an `on_update`."""
    if is_live():
        with _live_wait(looks) as show:
            yield show
    else:
        yield _WaitLines(looks)


@define
class _WaitLines:
    looks: Looks
    said: str = ""
    at: float = 0.0

    def __call__(self, update: JobUpdate) -> None:
        if update.status != self.said or time.monotonic() - self.at >= _LINES:
            self.said, self.at = update.status, time.monotonic()
            note(_line(update, self.looks))


def _line(update: JobUpdate, looks: Looks) -> str:
    more = f" ({update.message})" if update.message else ""
    nxt = f", next in {looks.pause[0]:.0f} s" if looks.pause and update.status != "done" else ""
    return f"{_clock(update.elapsed)} {update.status}{more}; {polls(update.polls)}{nxt}"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


@contextmanager
def _live_wait(looks: Looks) -> Generator[Callable[[JobUpdate], None]]:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.text import Text

    due = time.monotonic()

    class Next(ProgressColumn):
        """The time to the next poll, which is drawn anew between polls."""

        def render(self, task: object) -> Text:
            """Return how long it is."""
            del task
            left = due - time.monotonic()
            return Text(f"next poll in {left:.0f} s" if left >= 0.5 else "polling", style="dim")

    columns = SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False), Next()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("asking", total=None)

        def show(update: JobUpdate) -> None:
            nonlocal due
            due = time.monotonic() + (looks.pause[0] if looks.pause else 0)
            progress.update(task, description=f"{update.status}, {polls(update.polls)},")

        yield show


@contextmanager
def downloading(name: str) -> Generator[Callable[[int, int | None], None]]:
    """Show a download; what it gives is an `on_progress`."""
    if is_live():
        with _live_download(name) as show:
            yield show
    else:
        yield _DownloadLines(name)


@define
class _DownloadLines:
    name: str
    begun: float = field(factory=time.monotonic)
    first: int | None = None
    """What an earlier download has left, which says nothing of this one's rate."""
    at: float = field(factory=time.monotonic)

    def __call__(self, received: int, total: int | None) -> None:
        now = time.monotonic()
        if self.first is None:
            self.first, self.begun = received, now
        if now - self.at < _LINES:
            return
        self.at = now
        rate = (received - self.first) / max(now - self.begun, 0.001)
        left = f", about {(total - received) / rate:.0f} s left" if total and rate else ""
        of = f" of {size(total)}" if total else ""
        note(f"{self.name}: {size(received)}{of}, {size(rate)}/s{left}")


@contextmanager
def _live_download(name: str) -> Generator[Callable[[int, int | None], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(20),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name if len(name) <= 24 else name[:10] + "…" + name[-13:], total=None)
        begun = False

        def show(received: int, total: int | None) -> None:
            nonlocal begun
            if begun:
                progress.update(task, completed=received, total=total)
            else:
                # What was there before must not count as quick.
                progress.reset(task, completed=received, total=total)
                begun = True

        yield show


def size(count: float) -> str:
    """Return a number of bytes as people write it."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
