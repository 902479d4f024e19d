"""How a campaign is run."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TypedDict

from attrs import fields_dict, frozen

from techforge.errors import InvalidArgumentError

if TYPE_CHECKING:
    from techforge.batch.ledger import Entry
    from techforge.tracking import AsyncTracker, Tracker


_LONGEST_NAME = 240
"""Bytes of a file name: file systems take 255, and a download adds an ending until it is complete."""


class RunOptions(TypedDict, total=False):
    """The options of `client.batch.run(...)` and `client.batch.work(...)`. Durations are seconds.

    >>> options: RunOptions = {"concurrency": 8, "max_jobs": 100}
    >>> rows = [{"image_url": "https://a.example/i.png", "audio_url": "https://a.example/a.mp3"}]
    >>> [row.state.value for row in client.batch.run(rows, ledger=folder / "ledger.sqlite", **options)]
    ['done']
    """

    out: str | os.PathLike[str] | None
    """The folder for the videos. Without it nothing is downloaded; a row is done when its video exists."""
    name: str
    """The file name of a row's video: `{row_key}` or `{job_id}`, `{project_id}`, and columns of your own."""
    concurrency: int
    """Submissions in flight, and polls in flight. Default 32."""
    downloads: int
    """Downloads in flight. Default 4."""
    max_outstanding: int | None
    """Jobs that the API may be working on at once."""
    max_jobs: int | None
    """Jobs that this run may submit; the other rows stay pending."""
    max_failures: int | None
    """Rows that may fail or become unknown in this run; then nothing more is submitted."""
    retry_server_errors: bool
    """Submit a row again after a 5xx, as the API's documentation recommends, at most twice. Default False.

    You may pay for each submission.
    """
    tracker: Tracker | AsyncTracker | None
    """Your source of job states, if it knows more than storage does; it is asked when a job is due."""
    job_timeout: float
    """How long a job is polled after its submission; then it stays `submitted`, and the run may end."""
    give_up_after: float | None
    """End the run after this long without progress; None never does. Default 600, and None for `work`."""


@frozen(kw_only=True)
class Options:
    """The options of one run, checked; `RunOptions` says what each means."""

    out: str | os.PathLike[str] | None = None
    name: str = "{row_key}.mp4"
    concurrency: int = 32
    downloads: int = 4
    max_outstanding: int | None = None
    max_jobs: int | None = None
    max_failures: int | None = None
    retry_server_errors: bool = False
    tracker: Tracker | AsyncTracker | None = None
    job_timeout: float = 24 * 3600.0
    give_up_after: float | None = 600.0

    @classmethod
    def of(cls, options: RunOptions) -> Options:
        """Check options.

        Raises:
            InvalidArgumentError: there is no such option, or its value is wrong.
        """
        known = fields_dict(cls)
        for name in options:
            if name not in known:
                raise InvalidArgumentError(
                    name, f"is not an option of a campaign; there are {', '.join(known)}"
                )
        given: dict[str, Any] = {**options}
        return cls(**given)

    def __attrs_post_init__(self) -> None:
        if not re.search(r"\{(row_key|job_id)\}", self.name):
            raise InvalidArgumentError(
                "name", "must hold {row_key} or {job_id}: each row has a file of its own"
            )
        if self.out is not None and Path(self.out).exists() and not Path(self.out).is_dir():
            raise InvalidArgumentError(
                "out", f"{os.fspath(self.out)!r} is a file; give a folder for the videos"
            )

    def make_folder(self) -> None:
        """Create the folder for the videos, before anything is paid for that could not be kept.

        Raises:
            InvalidArgumentError: nothing can be written there.
        """
        if self.out is None:
            return
        try:
            Path(self.out).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            why = f"the folder {os.fspath(self.out)!r} cannot be created: {error.strerror or error}"
            raise InvalidArgumentError("out", why) from error
        if not os.access(self.out, os.W_OK):
            raise InvalidArgumentError("out", f"nothing can be written to {os.fspath(self.out)!r}")

    def target(self, row: Entry) -> Path | None:
        """Return the file for a row's video, if it is to have one.

        Raises:
            InvalidArgumentError: the row lacks a column that the name asks for, or it leads elsewhere.
        """
        if self.out is None:
            return None
        names = {"row_key": row.key, "project_id": row.project_id, "job_id": row.job_id or "job"}
        try:
            name = self.name.format_map({**row.metadata, **row.params, **names})
        except (LookupError, ValueError, AttributeError, TypeError) as error:
            problem = f"cannot be filled in for row {row.key!r}: {type(error).__name__} {error}"
            raise InvalidArgumentError("name", problem) from None
        if len(os.fsencode(name)) > _LONGEST_NAME:
            raise InvalidArgumentError("name", f"is too long a file name for row {row.key!r}: {name!r}")
        if name != PurePath(name).name or "\\" in name or "\0" in name or name in {".", ".."}:
            raise InvalidArgumentError("name", f"is no file name for row {row.key!r}: {name!r}")
        return Path(self.out, name)
