"""Progress of the wait and the download of `techforge video`."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from attrs import field, frozen

from techforge.display import Progress, display, of_wait
from techforge.policy.polling import PollSchedule

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from techforge import JobUpdate


@frozen
class RecordedSchedule(PollSchedule):
    """A schedule that stores its last interval, to show when the next poll is."""

    intervals: list[float] = field(factory=list[float], eq=False)

    def interval(self, polls: int, jitter: float) -> float:
        """Return the seconds to sleep, and store them."""
        self.intervals[:] = [super().interval(polls, jitter)]
        return self.intervals[0]


@contextmanager
def waiting(schedule: RecordedSchedule) -> Generator[Callable[[JobUpdate], None]]:
    """Show the progress of a wait; yield an `on_update` callback."""
    with display("waiting for a video", transient=True) as show:

        def on_update(update: JobUpdate) -> None:
            next_poll = time.monotonic() + schedule.intervals[0] if schedule.intervals else None
            show(of_wait(update, next_poll=next_poll))

        yield on_update


@contextmanager
def downloading(name: str) -> Generator[Callable[[int, int | None], None]]:
    """Show the progress of a download; yield an `on_progress` callback."""
    with display(f"downloading {name}", transient=True) as show:
        first: tuple[int, float] | None = None

        def on_progress(received: int, total: int | None) -> None:
            nonlocal first
            now = time.monotonic()
            # Bytes from an earlier, partial download do not count for the rate.
            first = first or (received, now)
            rate = (received - first[0]) / max(now - first[1], 0.001)
            left = f", about {(total - received) / rate:.0f} s left" if total and rate else ""
            of = f" of {size(total)}" if total else ""
            show(Progress(f"{name}: {size(received)}{of}, {size(rate)}/s{left}", received, total))

        yield on_progress


def size(count: float) -> str:
    """Return a number of bytes in a readable unit."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
