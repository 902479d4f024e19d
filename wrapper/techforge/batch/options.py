"""The options of a run."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TypedDict

from attrs import fields_dict, frozen

from techforge.batch.ledger import State
from techforge.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from techforge.batch.ledger import Entry
    from techforge.tracking import AsyncTracker, Tracker


MAX_NAME_BYTES = 240
"""Longest file name in bytes. File systems allow 255, and a partial download has a longer name."""

_PART_SUFFIXES = ".part", ".part.json"
"""A download also writes to files with these suffixes."""


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
    """Largest number of unfinished jobs."""
    max_jobs: int | None
    """Largest number of jobs to submit in this run. The other rows stay pending."""
    max_failures: int | None
    """Stop submitting after this many rows failed or became unknown in this run."""
    retry_server_errors: bool
    """Submit a row again after a 5xx, as the API's documentation recommends, at most twice. Default False.

    You may pay for each submission.
    """
    tracker: Tracker | AsyncTracker | None
    """Your source of job states, if you have one. It is asked at each poll."""
    job_timeout: float
    """Stop polling a job this long after its submission. Its row stays `submitted`. Default one day."""
    give_up_after: float | None
    """End the run after this long without progress; None means never. Default 600, and None for `work`."""


@frozen(kw_only=True)
class Options:
    """The checked options of one run. `RunOptions` explains them."""

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
                "name", "must contain {row_key} or {job_id}, because each row needs its own file"
            )
        if self.out is not None and Path(self.out).exists() and not Path(self.out).is_dir():
            raise InvalidArgumentError(
                "out", f"{os.fspath(self.out)!r} is a file; give a folder for the videos"
            )

    def make_folder(self) -> None:
        """Create the folder for the videos, before any job is submitted.

        Raises:
            InvalidArgumentError: the folder cannot be created, or is not writable.
        """
        if self.out is None:
            return
        try:
            Path(self.out).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            why = f"the folder {os.fspath(self.out)!r} cannot be created: {error.strerror or error}"
            raise InvalidArgumentError("out", why) from error
        if not os.access(self.out, os.W_OK):
            raise InvalidArgumentError("out", f"the folder {os.fspath(self.out)!r} is not writable")

    def target(self, row: Entry) -> Path | None:
        """Return the file for a row's video, or None without `out`.

        Raises:
            InvalidArgumentError: the row lacks a column in the template, or the result is not a file name.
        """
        return None if self.out is None else Path(self.out, self._name_of(row))

    def _name_of(self, row: Entry) -> str:
        names = {"row_key": row.key, "project_id": row.project_id, "job_id": row.job_id or "job"}
        try:
            name = self.name.format_map({**row.metadata, **row.params, **names})
        except (LookupError, ValueError, AttributeError, TypeError) as error:
            problem = f"cannot be filled in for row {row.key!r}: {type(error).__name__} {error}"
            raise InvalidArgumentError("name", problem) from None
        if len(os.fsencode(name)) > MAX_NAME_BYTES:
            raise InvalidArgumentError("name", f"is too long for row {row.key!r}: {name!r}")
        if _is_plain_name(name):
            return name
        if name != PurePath(name).name or "\\" in name or "\0" in name or name in {".", ".."}:
            raise InvalidArgumentError("name", f"is not a file name for row {row.key!r}: {name!r}")
        return name

    def check_names(self, rows: Callable[[], Iterable[Entry]]) -> None:
        """Check the files of all rows, before any job is paid for. `rows` is called once or twice.

        Raises:
            InvalidArgumentError: a row that is not submitted yet would get the file of another row.
        """
        if self.out is None or "{job_id}" in self.name:  # no two rows have the same job
            return
        # Only hashes, because a campaign may have a million rows, and most have no such pair.
        seen: set[int] = set()
        count = 0
        has_part_name = False
        for count, row in enumerate(rows(), 1):  # noqa: B007 - the number of rows
            name = _comparable(self._name_of(row))
            has_part_name |= name.endswith(_PART_SUFFIXES)
            seen.add(hash(name))
        if has_part_name or len(seen) < count:
            self._find_shared_name(rows())

    def _find_shared_name(self, rows: Iterable[Entry]) -> None:
        owners: dict[str, Entry] = {}
        for row in rows:
            name = self._name_of(row)
            for suffix in ("", *_PART_SUFFIXES):
                other = owners.setdefault(_comparable(name) + suffix, row)
                if other is not row and State.PENDING in {row.state, other.state}:
                    raise InvalidArgumentError(
                        "name",
                        f"rows {other.key!r} and {row.key!r} would write to the same file, {name!r} "
                        "(case is ignored, and a download uses FILE.part and FILE.part.json). "
                        "Nothing was submitted. Choose a template that gives each row its own file",
                    )


_is_plain_name = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_ .-]*", re.ASCII).fullmatch


def _comparable(name: str) -> str:
    """Return the same text for all names that a file system may take for the same file."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())
