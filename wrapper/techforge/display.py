"""Show how far a wait, a download or a campaign is.

A terminal gets a live bar (from rich), a notebook gets an HTML bar, and everything else, such as a log, gets
plain lines. Live bars and lines are on stderr: stdout belongs to the program.
"""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager, suppress
from html import escape
from importlib import import_module
from typing import TYPE_CHECKING, Any

from attrs import frozen

from techforge.errors import ConfigurationError
from techforge.tracking import DONE, FAILED

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from techforge.tracking import JobUpdate

LINE_SECONDS = 10.0
"""Shortest time between two lines with the same status."""
NOTEBOOK_SECONDS = 0.25
"""The same for a notebook, which keeps every message that it receives."""

GREEN, RED, GREY = "#1a7f37", "#cf222e", "#8c959f"


@frozen
class Progress:
    """How far something is. Without a `total` the bar moves; a new `status` is shown at once.

    `text` may be a function, which a live bar calls at each refresh.
    """

    text: str | Callable[[], str]
    completed: float = 0
    total: float | None = None
    status: str = ""

    def __str__(self) -> str:
        return self.text if isinstance(self.text, str) else self.text()


@contextmanager
def display(label: str, *, transient: bool = False) -> Generator[Callable[[Progress], None]]:
    """Show progress while the block runs; the value is the function to call with each `Progress`.

    `label` names the bar for screen readers. A `transient` bar is removed from the terminal at the end.

    Raises:
        ConfigurationError: a terminal's bar needs rich, which is missing: `pip install 'techforge[cli]'`.

    >>> with display("rows that have ended") as show:
    ...     show(Progress("3 of 5 rows", 3, 5))
    """
    if in_notebook():
        throttle = notebook_bar(label)
        try:
            yield throttle.show
        finally:
            throttle.flush()
    elif sys.stderr and sys.stderr.isatty():
        with _live_bar(transient=transient) as show:
            yield show
    else:
        yield lines().show


def of_wait(update: JobUpdate, *, name: str = "", next_poll: float | None = None) -> Progress:
    """Return how far a wait is; `next_poll` is the time of the next poll on the monotonic clock."""
    status = update.status.lower()
    has_ended = status in DONE | FAILED
    polls = "1 poll" if update.polls == 1 else f"{update.polls} polls"
    message = f": {update.message}" if update.message else ""

    def text() -> str:
        left = 0 if next_poll is None or has_ended else max(0, next_poll - time.monotonic())
        pause = f", next poll in {left:.0f} s" if left >= 0.5 else ""
        return f"{name}{update.status} after {update.elapsed:.0f} s, {polls}{pause}{message}"

    return Progress(text, int(has_ended), 1 if has_ended else None, update.status)


def in_notebook() -> bool:
    """Tell whether IPython displays output in a notebook."""
    # Without an import of IPython there is no shell, and only the shell of a notebook has a kernel.
    python: Any = sys.modules.get("IPython")
    return python is not None and getattr(python.get_ipython(), "kernel", None) is not None


class Throttle:
    """Writes a `Progress` if its status is new, or if `seconds` have passed since the last one."""

    def __init__(self, write: Callable[[Progress], object], seconds: float) -> None:
        self._write, self._seconds = write, seconds
        self._status, self._written_at = "", time.monotonic()
        self._skipped: Progress | None = None

    def show(self, progress: Progress) -> None:
        """Write it now, or keep it for `flush`."""
        self._skipped = progress
        now = time.monotonic()
        if progress.status != self._status or now - self._written_at >= self._seconds:
            self._status, self._written_at = progress.status, now
            self.flush()

    def flush(self) -> None:
        """Write the last `Progress` if it was skipped."""
        if self._skipped is not None:
            self._write(self._skipped)
            self._skipped = None


def lines() -> Throttle:
    """Return what prints plain lines."""

    def write(progress: Progress) -> None:
        # A closed stderr must not stop the work. Without a stderr, print would write to stdout.
        with suppress(OSError):
            if sys.stderr:
                print(progress, file=sys.stderr, flush=True)  # noqa: T201 - the user asked for it

    return Throttle(write, LINE_SECONDS)


def notebook_bar(label: str) -> Throttle:
    """Return what updates a bar that appears in the current cell of a notebook.

    The bar is not rich's: in a notebook without ipywidgets, rich shows nothing before the end.
    """
    show: Any = import_module("IPython.display").display
    # Created now, because a thread's output may belong to no cell.
    handle = show(_bundle(label, Progress("starting")), raw=True, display_id=True)
    return Throttle(lambda progress: handle.update(_bundle(label, progress), raw=True), NOTEBOOK_SECONDS)


def colour(status: str) -> str:
    """Return the colour of a job's status."""
    status = status.lower()
    return GREEN if status in DONE else RED if status in FAILED else GREY


def _bundle(label: str, progress: Progress) -> dict[str, str]:
    """Return the HTML bar, and the text for a notebook that cannot show HTML."""
    if progress.total:
        width = 100 * progress.completed / progress.total
        fill, moves = RED if colour(progress.status) == RED else GREEN, ""
        values = f' aria-valuenow="{width:.0f}"'
    else:
        # It stops 20 s after the last update: a saved notebook, or a failed wait, must not move forever.
        width, fill, values = 25.0, GREEN, ""
        moves = '<animate attributeName="x" values="0;75;0" dur="2s" repeatCount="10"/>'
    svg = (
        f'<svg role="progressbar" aria-label="{escape(label)}"{values} viewBox="0 0 100 4" '
        'preserveAspectRatio="none" '
        'style="display: block; width: 100%; max-width: 40em; height: 6px; border-radius: 3px">'
        f'<rect width="100" height="4" fill="{GREY}" opacity="0.3"/>'
        f'<rect width="{width:g}" height="4" fill="{fill}">{moves}</rect></svg>'
    )
    text = str(progress)
    return {"text/html": f"<div>{svg}<div>{escape(text)}</div></div>", "text/plain": text}


@contextmanager
def _live_bar(*, transient: bool) -> Generator[Callable[[Progress], None]]:
    # Rich takes as long to import as all the rest, and only a terminal needs it.
    try:
        from rich.console import Console, Group  # noqa: PLC0415
        from rich.live import Live  # noqa: PLC0415
        from rich.progress import BarColumn, SpinnerColumn, TimeElapsedColumn  # noqa: PLC0415
        from rich.progress import Progress as Bar  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError(
            "a terminal's bar needs rich, which is not installed: pip install 'techforge[cli]'"
        ) from None
    console = Console(stderr=True)
    if console.is_dumb_terminal or not console.is_terminal:  # the user's environment says so
        yield lines().show
        return
    bar = Bar(SpinnerColumn(), BarColumn(), TimeElapsedColumn(), console=console)
    task = bar.add_task("", total=None)
    shown = Progress("starting")

    def render() -> Group:
        # The text has its own line, where it may wrap. Beside the bar, rich would cut it off.
        return Group(bar, Text(str(shown)))

    def show(progress: Progress) -> None:
        nonlocal shown
        shown = progress
        bar.update(task, completed=progress.completed, total=progress.total)

    # Rich prints above the bar what the program prints to stdout, unless stdout is a file.
    redirect = bool(sys.stdout and sys.stdout.isatty())
    with Live(get_renderable=render, console=console, transient=transient, redirect_stdout=redirect):
        yield show
