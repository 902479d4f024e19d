"""In a notebook: what a job and a video look like, a player, and a bar while one waits.

>>> from techforge.notebook import progress
>>> video = client.jobs.wait(done, on_update=progress())
>>> video.player()
<player of 300,000 bytes>
"""

from __future__ import annotations

import sys
import time
from base64 import b64encode
from html import escape
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from techforge._config import Settings
from techforge._drivers.sync import SyncDriver
from techforge._flow import Flow, read
from techforge._flows.storage import open_signed
from techforge.errors import InvalidArgumentError, status_error
from techforge.models import Job, Video
from techforge.tracking import DONE, FAILED

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from techforge.tracking import JobUpdate

__all__ = ["Player", "player", "progress"]

LIMIT = 25_000_000
"""Bytes of a video that a player takes: a notebook's file holds a third more, and is loaded as a whole."""
_TIMEOUT = 300.0
_LINES = 10.0
"""Seconds between two lines of a log that say the same."""


def in_notebook() -> bool:
    """Tell whether what is displayed goes to a notebook."""
    # Who has not imported IPython is not in its shell; and only the shell of a notebook has a kernel.
    python: Any = sys.modules.get("IPython")
    return python is not None and getattr(python.get_ipython(), "kernel", None) is not None


@frozen
class Player:
    """A video as a notebook shows it; its bytes are in the notebook's file, if that is saved.

    >>> Player(b"an MP4")
    <player of 6 bytes>
    """

    data: bytes
    content_type: str = "video/mp4"

    def __repr__(self) -> str:
        return f"<player of {len(self.data):,} bytes>"

    def _repr_html_(self) -> str:
        source = f"data:{escape(self.content_type)};base64,{b64encode(self.data).decode()}"
        style = "min-width: 16em; max-width: 100%; max-height: 32em"
        return f'<video controls preload="metadata" style="{style}" src="{source}"></video>'


def player(video: Video | str | os.PathLike[str], *, limit: int = LIMIT) -> Player:
    """Return a player of a video, which is fetched now, or of a file that was downloaded.

    The player holds the video itself, not its signed URL: that is good for minutes only, and gives whoever
    reads the notebook access to your storage until then. `limit` is in bytes; what is longer is refused.

    Raises:
        InvalidArgumentError: it is longer than `limit`.
        APIError: it could not be fetched.

    >>> player(client.jobs.download(done, folder))
    <player of 300,000 bytes>
    """
    if isinstance(video, Video):
        _check_size(video.size or 0, limit)
        driver = SyncDriver(None)
        try:
            return Player(driver.run(_fetch(video, limit)), video.content_type or "video/mp4")
        finally:
            driver.close()
    path = Path(video)
    _check_size(path.stat().st_size, limit)
    return Player(path.read_bytes())


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise InvalidArgumentError(
            "limit",
            f"{size:,} bytes would be too much for a notebook (limit={limit:,}); "
            "jobs.download(video, '.') puts the video into a file",
        )


def _fetch(video: Video, limit: int) -> Flow[bytes]:
    # A signed URL needs no key, so there need be no client.
    settings = Settings(api_key="", base_url="", headers={})
    deadline = settings.now() + _TIMEOUT
    answer = yield from open_signed(video.signed, {"accept-encoding": "identity"}, settings, deadline)
    if answer.status_code != 200:
        raise status_error(
            answer.status_code,
            "storage refused the signed URL, which may have expired; jobs.find(video.job) has a fresh one",
            method="GET",
            path=video.path,
        )
    data = b""
    while chunk := (yield from read(max(0.0, deadline - settings.now()))):
        data += chunk
        _check_size(len(data), limit)
    return data


def progress() -> Callable[[JobUpdate], None]:
    """Return an `on_update` that shows how long a job has been waited for, and what is known of it.

    In a notebook that is a bar that moves, made where this is called: give each wait one of its own.
    Elsewhere it is a line on stderr when there is news, and every ten seconds.

    >>> client.jobs.wait(done, on_update=progress()).job.status
    'done'
    """
    return _Bar().show if in_notebook() else _Lines().show


class _Bar:
    def __init__(self) -> None:
        display: Any = import_module("IPython.display").display
        self._handle = display(_bundle(None), raw=True, display_id=True)

    def show(self, update: JobUpdate) -> None:
        self._handle.update(_bundle(update), raw=True)


@frozen
class _Lines:
    _said: dict[str, float] = field(factory=dict[str, float])

    def show(self, update: JobUpdate) -> None:
        now = time.monotonic()
        if now - self._said.get(update.status, -_LINES) >= _LINES:
            self._said.clear()
            self._said[update.status] = now
            print(_said(update), file=sys.stderr, flush=True)  # noqa: T201 - it is asked for


def _said(update: JobUpdate) -> str:
    looks = "1 look" if update.polls == 1 else f"{update.polls} looks"
    message = f": {update.message}" if update.message else ""
    return f"job {update.job.id} {update.status} after {update.elapsed:.0f} s, {looks}{message}"


_GREEN, _RED, _GREY = "#1a7f37", "#cf222e", "#8c959f"


def _colour(status: str) -> str:
    status = status.lower()
    return _GREEN if status in DONE else _RED if status in FAILED else _GREY


def _bundle(update: JobUpdate | None) -> dict[str, str]:
    """Return what a notebook shows, and what it has where it cannot show that."""
    said = "starting" if update is None else _said(update)
    colour = _colour("" if update is None else update.status)
    bar = f'<rect width="100" height="4" fill="{colour}"/>'
    if colour == _GREY:
        # It moves until the next look at the job, and not for ever: nobody tells it that a wait has failed,
        # and a notebook that was saved is to stand still.
        moves = '<animate attributeName="x" values="0;75;0" dur="2s" repeatCount="10"/>'
        bar = (
            f'<rect width="100" height="4" fill="{_GREY}" opacity="0.3"/>'
            f'<rect width="25" height="4" fill="{_GREEN}">{moves}</rect>'
        )
    svg = (
        '<svg role="img" aria-label="waiting for a video" viewBox="0 0 100 4" preserveAspectRatio="none" '
        f'style="display: block; width: 100%; max-width: 40em; height: 6px; border-radius: 3px">{bar}</svg>'
    )
    return {"text/html": f"<div>{svg}<div>{escape(said)}</div></div>", "text/plain": said}


def html_of(shown: Job | Video) -> str:
    """Return what a notebook shows of a job or a video: never the signed URL, as a notebook gets saved."""
    job = shown.job if isinstance(shown, Video) else shown
    facts = {"job": job.id, "project": job.project_id, "message": job.message}
    hint = "<code>client.jobs.wait(job, on_update=techforge.notebook.progress())</code> waits for its video"
    if isinstance(shown, Video):
        size = None if shown.size is None else f"{shown.size:,} bytes"
        facts |= {"video": " ".join(filter(None, [size, shown.content_type])), "path": shown.path}
        if shown.expires_at is not None:
            facts["its URL is good until"] = f"{shown.expires_at:%Y-%m-%d %H:%M:%S %Z}"
        shows = "<code>video.player()</code> shows it here"
        hint = f"{shows}; <code>client.jobs.download(video, '.')</code> fetches it"
    rows = "".join(
        f'<tr><th style="text-align: left">{escape(name)}</th>'
        f'<td style="text-align: left">{escape(str(value))}</td></tr>'
        for name, value in facts.items()
        if value
    )
    mark = f'<b style="color: {_colour(job.status)}">●</b> <b>{escape(job.status)}</b>'
    return f"<div>{mark}<table>{rows}</table><small>{hint}</small></div>"
