"""How a campaign is run."""

from __future__ import annotations

import re
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from attrs import frozen

from techforge.errors import InvalidArgumentError

if TYPE_CHECKING:
    import os

    from techforge.batch.ledger import Entry
    from techforge.tracking import AsyncTracker, Tracker


@frozen(kw_only=True)
class Options:
    """How a campaign is run. Durations are seconds.

    >>> Options(max_outstanding=500).concurrency
    32
    """

    out: str | os.PathLike[str] | None = None
    """The directory for the videos; without one, a row is done when its video is there."""
    name: str = "{row_key}.mp4"
    """What a row's file is called: `{row_key}` or `{job_id}`, `{project_id}`, and the row's own columns."""
    concurrency: int = 32
    """Submissions under way at once; and as many looks."""
    downloads: int = 4
    """Videos that are fetched at once."""
    max_outstanding: int | None = None
    """Jobs that may be under way at once at the API."""
    max_jobs: int | None = None
    """Jobs to submit in this run; the rest stays pending."""
    max_failures: int | None = None
    """Rows that may fail in this run; then nothing more is submitted."""
    retry_server_errors: bool = False
    """Whether a row is submitted again after a 5xx, as the API's documents advise: twice at the most.

    Each time it may be paid once more.
    """
    tracker: Tracker | AsyncTracker | None = None
    """Where jobs stand, if you know it better than storage does; it is asked when a job is due."""
    job_timeout: float = 24 * 3600.0
    """How long after its submission a job is looked at; then it stays `submitted`, and the run may end."""

    def __attrs_post_init__(self) -> None:
        if not re.search(r"\{(row_key|job_id)\}", self.name):
            raise InvalidArgumentError(
                "name", "must hold {row_key} or {job_id}: each row has a file of its own"
            )

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
        if name != PurePath(name).name or "\\" in name or "\0" in name or name in {".", ".."}:
            raise InvalidArgumentError("name", f"is no file name for row {row.key!r}: {name!r}")
        return Path(self.out, name)
