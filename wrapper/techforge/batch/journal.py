"""A journal of submissions, outside the ledger.

Each process that runs a campaign appends a line before it sends a request, and another one as soon as the
response contains a job's id. A ledger can lose both: its disk is full, somebody deletes it, copies it while
it is in use or restores a backup, or a standby takes over that had not received the last changes. The next
run on the same machine restores them from the journal (`Ledger.restore`), so no row is submitted twice.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import tempfile
from contextlib import suppress
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from attrs import astuple, frozen

from techforge._logging import logger

if TYPE_CHECKING:
    from collections.abc import Iterator

_SAFE_FLAGS = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC"))
"""Do not follow a planted link, and do not wait for the other end of a planted pipe."""


@frozen
class Submission:
    """A line of a journal: the `attempt`th submission of the row `key`, which orders `content`.

    `job_id` is None if the response is not known, and False if certainly no job was created.
    """

    key: str
    content: str
    attempt: int
    job_id: str | Literal[False] | None = None


class Journal:
    """The journal of the campaign that has this name, at this API, in the ledger at `place`.

    Its file has a name of its own: after a ledger was deleted, the next ledger at the same place finds it.

    >>> from attrs import evolve
    >>> journal = Journal("/data/ledger.sqlite", "spring", None)
    >>> journal.open("7f0f5a3e-0000-4000-8000-000000000000")
    >>> claim = Submission("row 1", "a hash", 1)
    >>> journal.write(claim), journal.write(evolve(claim, job_id="a job's id"))
    (True, True)
    >>> journal.close()
    >>> [each.job_id for each in journal.submissions("7f0f5a3e-0000-4000-8000-000000000000")]
    [None, "a job's id"]
    """

    def __init__(self, place: str, campaign: str, api: str | None) -> None:
        self._header = {"ledger": place, "campaign": campaign, "api": api}
        digest = blake2b(json.dumps(self._header).encode(), digest_size=8).hexdigest()
        self._readable = re.sub(r"[^A-Za-z0-9_-]+", "-", campaign)[:40]
        self._name = f"{self._readable}-{digest}.jsonl"
        self._untried: list[Path] = []
        self._descriptor: int | None = None
        self.path: Path | None = None
        """The file that is written to."""

    # --- writing ------------------------------------------------------------------------------------

    def open(self, campaign_uuid: str) -> None:
        """Open the journal for appending. Several processes may do so: a line is one system call."""
        self._header["uuid"] = campaign_uuid
        self._untried = _folders()
        self._open_next()

    def write(self, submission: Submission) -> bool:
        """Append a line. Return False if no journal can be written."""
        return self._append(_line(astuple(submission)))

    def close(self) -> None:
        """Close the file. Closing it again does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _append(self, data: bytes) -> bool:
        while self._descriptor is not None:
            try:
                if os.write(self._descriptor, data) == len(data):
                    return True
            except OSError as error:
                logger.warning("the journal %s cannot be written: %s", self.path, error.strerror)
            self._open_next()
        return False

    def _open_next(self) -> None:
        self.close()
        self.path = None
        while self._untried and self._descriptor is None:
            folder = self._untried.pop(0)
            with suppress(OSError):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                if _is_private(folder):
                    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
                    self._descriptor = open_regular(folder / self._name, flags)
                    self.path = folder / self._name
        if self._descriptor is None:
            logger.warning("no journal can be written, so only the ledger knows which rows were submitted")
        else:
            # The first newline ends a line that a full disk or a crash cut off.
            self._append(b"\n" + _line(self._header))

    # --- reading ------------------------------------------------------------------------------------

    def file(self) -> Path | None:
        """Return the file that exists, or None."""
        return next(iter(self._files()), None)

    def campaign_uuid(self) -> str | None:
        """Return the UUID of the campaign that last wrote the journal, or None."""
        uuid: str | None = None
        for path in self._files():
            for line in _lines(path):
                match line:
                    case {"uuid": str(found)}:
                        uuid = found
                    case _:
                        pass
        return uuid

    def submissions(self, campaign_uuid: str) -> Iterator[Submission]:
        """Yield the lines, oldest first, also those written while the ledger was at another place."""
        for path in [*self._files(), *self._files_elsewhere(campaign_uuid)]:
            for line in _lines(path):
                match line:
                    case [str(key), str(content), int(attempt), str() | False | None as job_id]:
                        yield Submission(key, content, attempt, job_id)
                    case _:
                        pass

    def _files(self) -> list[Path]:
        return [path for folder in _folders() if (path := folder / self._name).exists()]

    def _files_elsewhere(self, campaign_uuid: str) -> list[Path]:
        """Return the campaign's journals of other places, by the first line of each."""
        return [
            path
            for folder in _folders()
            for path in folder.glob(f"{self._readable}-*.jsonl")
            if path.name != self._name
            for first in islice(_lines(path), 1)
            if isinstance(first, dict) and cast("dict[str, Any]", first).get("uuid") == campaign_uuid
        ]


def _lines(path: Path) -> Iterator[Any]:
    """Yield what the lines of a journal contain, except those that were cut off."""
    with suppress(OSError):
        if _is_private(path.parent):
            with open(open_regular(path, os.O_RDONLY), "rb") as file:
                for line in file:
                    with suppress(ValueError):
                        yield json.loads(line)


def _line(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"


def _folders() -> list[Path]:
    """Return the folders for journals, best first: the user's state folder, then the temporary folder."""
    user = os.getuid() if hasattr(os, "getuid") else ""
    temporary = Path(tempfile.gettempdir(), f"techforge-{user}")
    try:
        state = os.environ.get("XDG_STATE_HOME") or os.environ.get("LOCALAPPDATA")
        return [Path(state or Path.home() / ".local" / "state", "techforge"), temporary]
    except RuntimeError:  # a user without a home
        return [temporary]


def _is_private(folder: Path) -> bool:
    """Return whether only we can write to a folder: anybody may have created it in the temporary folder."""
    found = folder.stat()
    return not hasattr(os, "getuid") or (found.st_uid == os.getuid() and not found.st_mode & 0o022)


def open_regular(path: Path, flags: int) -> int:
    """Open a file of our own, and return its descriptor.

    Raises:
        OSError: it is a link, a pipe, a device or a folder, or cannot be opened.
    """
    descriptor = os.open(path, flags | _SAFE_FLAGS, 0o600)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a file")
    return descriptor
