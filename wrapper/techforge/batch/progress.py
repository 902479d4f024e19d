"""How far a campaign is: a live bar on a terminal and in a notebook, and lines elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from html import escape
from importlib import import_module
from typing import TYPE_CHECKING, Any

from techforge.batch.ledger import State
from techforge.errors import ConfigurationError
from techforge.notebook import in_notebook

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from techforge.batch.runner import Run

_LINES, _UPDATES = 10.0, 0.25
"""Seconds between two lines, and between two updates of a notebook, which keeps the messages that it gets."""


@contextmanager
def bar() -> Generator[Callable[[Run], object]]:
    """Show how far a campaign is; what it gives is an `on_progress`.

    It says how many rows are in each state, how many end in a second, what limit the API has, if that is
    known, and how long the rest takes. On a terminal and in a notebook that is a bar that moves; elsewhere,
    in a log say, a line every ten seconds. A terminal's bar, and the lines, are on stderr: stdout is yours.

    Raises:
        ConfigurationError: a terminal's bar needs rich, which is missing: `pip install 'techforge[cli]'`.

    >>> rows = [{"image_url": "https://a.example/i.png", "audio_url": "https://a.example/a.mp3"}]
    >>> with bar() as on_progress:
    ...     for row in client.batch.run(rows, ledger=folder / "campaign.sqlite", on_progress=on_progress):
    ...         print(row.state)
    done
    """
    if in_notebook():
        with _notebook() as show:
            yield show
    elif sys.stderr and sys.stderr.isatty():
        with _terminal() as show:
            yield show
    else:
        yield _lines()


@contextmanager
def _notebook() -> Generator[Callable[[Run], object]]:
    # Not rich's, which shows nothing here before its end, unless there is ipywidgets.
    display: Any = import_module("IPython.display").display
    # Made in the cell, as a campaign runs in another thread, whose output may belong to no cell.
    handle = display(_bundle(None), raw=True, display_id=True)
    shown = 0.0
    runs: list[Run] = []

    def show(run: Run) -> None:
        nonlocal shown
        runs[:] = [run]
        if time.monotonic() - shown >= _UPDATES:
            shown = time.monotonic()
            handle.update(_bundle(run), raw=True)

    try:
        yield show
    finally:
        if runs:
            handle.update(_bundle(runs[0]), raw=True)


def _bundle(run: Run | None) -> dict[str, str]:
    """Return what a notebook shows, and what it has where it cannot show that."""
    said = "starting" if run is None else _said(run)
    ended, rows = (0, 0) if run is None else (_ended(run), sum(run.counts.values()))
    moving = f' value="{ended}" max="{rows}"' if rows else ""
    style = "width: 100%; max-width: 40em; accent-color: #1a7f37"
    html = f'<progress aria-label="rows that have ended"{moving} style="{style}"></progress>'
    return {"text/html": f"<div>{html}<div>{escape(said)}</div></div>", "text/plain": said}


@contextmanager
def _terminal() -> Generator[Callable[[Run], object]]:
    try:
        from rich.console import Console, Group  # noqa: PLC0415
        from rich.live import Live  # noqa: PLC0415
        from rich.progress import BarColumn, Progress, SpinnerColumn, TimeElapsedColumn  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError(
            "a terminal's bar needs rich, which is not installed: pip install 'techforge[cli]'"
        ) from None
    console = Console(stderr=True)
    if console.is_dumb_terminal or not console.is_terminal:  # so the user's environment says
        yield _lines()
        return
    progress = Progress(SpinnerColumn(), BarColumn(), TimeElapsedColumn(), console=console)
    task = progress.add_task("", total=None)
    # On a line of its own, where it may wrap: beside the bar it is cut off at 80 columns.
    text = Text()
    # What is printed meanwhile comes above the bar; but where stdout is a file, that is where it belongs.
    above = bool(sys.stdout and sys.stdout.isatty())
    with Live(Group(progress, text), console=console, redirect_stdout=above):

        def show(run: Run) -> None:
            progress.update(task, total=sum(run.counts.values()), completed=_ended(run))
            text.plain = _said(run)

        yield show


def _lines() -> Callable[[Run], object]:
    said = time.monotonic()

    def line(run: Run) -> None:
        nonlocal said
        if time.monotonic() - said >= _LINES:
            said = time.monotonic()
            print(_said(run), file=sys.stderr, flush=True)  # noqa: T201 - it is asked for

    return line


def _ended(run: Run) -> int:
    return run.counts[State.DONE] + run.counts[State.FAILED] + run.counts[State.UNKNOWN]


def _said(run: Run) -> str:
    counts = ", ".join(f"{count:,} {state}" for state, count in run.counts.items() if count)
    rate = f"{run.rate:.1f} rows/s" if run.rate >= 1 or not run.rate else f"{60 * run.rate:.1f} rows/min"
    limit = f", limit {run.limit:.1f}/s" if run.limit else ""
    left = f", about {_time(run.eta)} left" if run.eta else ""
    problem = f"; {run.problem}" if run.problem else ""
    if run.next_attempt is not None:
        problem += f" Next attempt in {_time(run.next_attempt)}."
    return f"{counts or 'no rows'}; {rate}{limit}{left}{problem}"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"
