"""In a notebook: show jobs and videos, play a video, and show a bar during a wait.

>>> from techforge.notebook import player, progress
>>> video = client.jobs.wait(done, on_update=progress())
>>> player(video)
<player of 300,000 bytes>
"""

from __future__ import annotations

import sys
from base64 import b64encode
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from techforge._config import Settings
from techforge._drivers.sync import SyncDriver
from techforge._flow import Flow, read
from techforge._flows.storage import open_signed
from techforge.display import colour, in_notebook, lines, notebook_bar, of_wait
from techforge.errors import InvalidArgumentError, status_error
from techforge.models import Job, Video

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from techforge.tracking import JobUpdate

__all__ = ["Player", "player", "progress"]

LIMIT = 25_000_000
"""Largest video of a player, in bytes: base64 adds a third, and a notebook is loaded as a whole."""
_TIMEOUT = 300.0


@frozen
class Player:
    """A video that a notebook plays. A notebook that you save contains the video's bytes.

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
    """Return a player of a video, which is downloaded now, or of a video file.

    The player holds the video itself. Its signed URL would expire within minutes, and until then give every
    reader of the notebook access to your storage.

    Args:
        video: A video, or the path of a file.
        limit: The largest size in bytes.

    Raises:
        InvalidArgumentError: the video is larger than `limit`.
        APIError: the download failed.

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
    """Return an `on_update` that shows the job's status, the time waited and the number of polls.

    In a notebook that is a bar in the cell that calls this: use a new one for each wait. Elsewhere it is a
    line on stderr whenever the status changes, and every ten seconds.

    >>> client.jobs.wait(done, on_update=progress()).job.status
    'done'
    """
    throttle = notebook_bar("waiting for a video") if in_notebook() else lines()
    return lambda update: throttle.show(of_wait(update, name=f"job {update.job.id} "))


def html_of(shown: Job | Video) -> str:
    """Return the HTML of a job or a video. It has no signed URL, because notebooks are saved and shared."""
    job = shown.job if isinstance(shown, Video) else shown
    facts = {"job": job.id, "project": job.project_id, "message": job.message}
    hint = "<code>client.jobs.wait(job, on_update=techforge.notebook.progress())</code> waits for its video"
    if isinstance(shown, Video):
        size = None if shown.size is None else f"{shown.size:,} bytes"
        facts |= {"video": " ".join(filter(None, [size, shown.content_type])), "path": shown.path}
        if shown.expires_at is not None:
            facts["its URL is good until"] = f"{shown.expires_at:%Y-%m-%d %H:%M:%S %Z}"
        shows = "<code>techforge.notebook.player(video)</code> plays it here"
        hint = f"{shows}; <code>client.jobs.download(video, '.')</code> fetches it"
    rows = "".join(
        f'<tr><th style="text-align: left">{escape(name)}</th>'
        f'<td style="text-align: left">{escape(str(value))}</td></tr>'
        for name, value in facts.items()
        if value
    )
    mark = f'<b style="color: {colour(job.status)}">●</b> <b>{escape(job.status)}</b>'
    return f"<div>{mark}<table>{rows}</table><small>{hint}</small></div>"


def _register_html() -> None:
    """Let IPython show jobs and videos as HTML, if this is one of its shells."""
    python: Any = sys.modules.get("IPython")
    shell = python and python.get_ipython()
    if shell is not None:
        html = shell.display_formatter.formatters["text/html"]
        html.for_type(Job, html_of)
        html.for_type(Video, html_of)


_register_html()
