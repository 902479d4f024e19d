"""Show how far a campaign is."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from techforge.batch.ledger import State
from techforge.display import Progress, display

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from techforge.batch.runner import Run


@contextmanager
def bar() -> Generator[Callable[[Run], object]]:
    """Show how far a campaign is; the value is an `on_progress`.

    The text has the rows in each state, the rate, the API's rate limit if it is known, and the time left. A
    terminal and a notebook get a live bar, and everything else, such as a log, a line every ten seconds.
    Bar and lines of a terminal are on stderr: stdout is yours.

    Raises:
        ConfigurationError: a terminal's bar needs rich, which is missing: `pip install 'techforge[cli]'`.

    >>> rows = [{"image_url": "https://a.example/i.png", "audio_url": "https://a.example/a.mp3"}]
    >>> with bar() as on_progress:
    ...     for row in client.batch.run(rows, ledger=folder / "campaign.sqlite", on_progress=on_progress):
    ...         print(row.state)
    done
    """
    with display("rows that have ended") as show:
        yield lambda run: show(progress_of(run))


def progress_of(run: Run) -> Progress:
    """Return how far a run is."""
    # Below zero, if this worker has ended rows that others submitted since the last count.
    counts = ", ".join(f"{count:,} {state}" for state, count in run.counts.items() if count > 0)
    rate = f"{run.rate:.1f} rows/s" if run.rate >= 1 or not run.rate else f"{60 * run.rate:.1f} rows/min"
    limit = f", limit {run.limit:.1f}/s" if run.limit else ""
    left = f", about {duration(run.eta)} left" if run.eta else ""
    problem = f"; {run.problem}" if run.problem else ""
    if run.next_attempt is not None:
        problem += f" Next attempt in {duration(run.next_attempt)}."
    ended = run.counts[State.DONE] + run.counts[State.FAILED] + run.counts[State.UNKNOWN]
    text = f"{counts or 'no rows'}; {rate}{limit}{left}{problem}"
    return Progress(text, ended, sum(run.counts.values()) or None)


def duration(seconds: float) -> str:
    """Return a time as roughly as it is known."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"
