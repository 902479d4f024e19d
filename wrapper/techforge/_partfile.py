"""A file that appears at its target only when it is whole.

What arrives goes to `<target>.part`; `<target>.part.json` beside it says which object it is the
beginning of, so that a later process can go on where an earlier one was stopped.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path, PurePosixPath
from typing import IO

from attrs import define, field

from techforge.errors import APIError, DownloadError, InvalidArgumentError, TargetExistsError

if sys.platform != "win32":
    import fcntl

_FORBIDDEN_IN_NAMES = frozenset('\\/:*?"<>|')


def target_for(path: str, to: str | os.PathLike[str]) -> Path:
    """Return the file to write; a directory takes the object's own name, and nothing outside it.

    Raises:
        InvalidArgumentError: there is no such directory, or the object's name is no file name.
    """
    target = Path(to)
    if target.is_dir():
        name = PurePosixPath(path).name
        if not name.strip(". ") or any(c in _FORBIDDEN_IN_NAMES or ord(c) < 0x20 for c in name):
            raise InvalidArgumentError("to", f"{name!r} cannot be a file name here; give the file's own path")
        target /= name
    elif str(to).endswith(("/", os.sep)):
        raise InvalidArgumentError("to", f"there is no directory {str(to)!r}; create it first")
    if not target.parent.is_dir():
        raise InvalidArgumentError("to", f"there is no directory {str(target.parent)!r}; create it first")
    return target


def _open_here(path: Path, buffering: int = 0) -> IO[bytes]:
    # A link planted at a predictable name must not lead our bytes elsewhere.
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o666), "r+b", buffering)


@define
class PartFile:
    """The beginning of an object, on disk. All of its methods may block."""

    path: str
    to: str | os.PathLike[str]
    overwrite: bool
    target: Path = field(init=False, factory=Path)
    size: int = 0
    total: int | None = None
    etag: str | None = None
    _file: IO[bytes] | None = field(default=None, repr=False)

    def open(self) -> None:
        """Check the target, and take up what an earlier download has left.

        Raises:
            InvalidArgumentError, TargetExistsError: nothing was touched.
            DownloadError: the part file cannot be opened, or another download is writing it.
        """
        try:
            self.target = target_for(self.path, self.to)
            exists = os.path.lexists(self.target)
            regular = not exists or self.target.is_symlink() or self.target.is_file()
        except InvalidArgumentError:
            raise
        except (OSError, ValueError, TypeError) as error:
            raise InvalidArgumentError("to", f"{self.to!r} cannot be written to: {error}") from None
        if not regular:
            raise InvalidArgumentError("to", f"{str(self.target)!r} is not a regular file")
        if exists and not self.overwrite:
            raise self.exists()
        try:
            self._open()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise self.failed(f"cannot write beside it: {reason}") from error

    @property
    def part(self) -> Path:
        """Where the bytes go until they are all there."""
        return self.target.with_name(self.target.name + ".part")

    @property
    def note(self) -> Path:
        """Where it is written down what the bytes are the beginning of."""
        return self.target.with_name(self.target.name + ".part.json")

    def _open(self) -> None:
        file = _open_here(self.part)
        try:
            self._claim(file)
            if os.fstat(file.fileno()).st_nlink > 1:
                # Killed right after it had put the file in place, a download leaves it with two names.
                self.part.unlink()
                self._open()
                file.close()
                return
        except BaseException:
            file.close()
            raise
        self._file = file
        self._take_up()

    def _claim(self, file: IO[bytes]) -> None:
        if sys.platform != "win32":
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise self.failed("another download is writing it") from None
        # Another download may have put this very file in place since we opened it.
        if not self.part.exists() or not os.path.samestat(os.fstat(file.fileno()), self.part.lstat()):
            raise self.failed("another download has just finished it")

    def _noted(self) -> tuple[str | None, int | None]:
        try:
            noted = json.loads(self.note.read_text("utf-8"))
            path, etag, total = noted["path"], noted["etag"], noted["total"]
        except (OSError, ValueError, KeyError, TypeError):
            return None, None
        known = path == self.path and isinstance(etag, str)
        possible = total is None or (type(total) is int and total >= 0)
        return (etag, total) if known and possible else (None, None)

    def _take_up(self) -> None:
        self.etag, self.total = self._noted()
        if self.etag is None:
            return  # whatever lies there stays until something better begins
        # Even a whole part is asked about once more: its last byte brings the ETag that proves it current.
        there = os.fstat(self._opened.fileno()).st_size
        self._cut(min(there, max(0, self.total - 1)) if self.total is not None else there)

    @property
    def _opened(self) -> IO[bytes]:
        if self._file is None:
            raise self.failed("the part file is closed")
        return self._file

    def _cut(self, size: int) -> None:
        self._opened.truncate(size)
        self._opened.seek(size)
        self.size = size

    def restart(self, etag: str | None, total: int | None) -> None:
        """Forget what is there: another object begins."""
        self._cut(0)
        self.etag, self.total = etag, total
        try:
            if etag is None:
                self.note.unlink(missing_ok=True)
            else:
                noted = json.dumps({"path": self.path, "etag": etag, "total": total})
                # Buffered, since a disk that gets full takes less than all without a word.
                with _open_here(self.note, -1) as note:
                    note.truncate()
                    note.write(noted.encode())
        except OSError as error:
            raise self.failed(f"cannot write beside it: {error.strerror or error}") from error

    def write(self, chunk: bytes) -> None:
        """Append some bytes."""
        if self.total is not None and self.size + len(chunk) > self.total:
            raise self.failed(f"storage sent more than the {self.total} bytes that it had announced")
        view = memoryview(chunk)
        try:
            while view:
                written = self._opened.write(view)
                view, self.size = view[written:], self.size + written
        except OSError as error:
            raise self.failed(f"cannot be written: {error.strerror or error}") from error

    def finish(self) -> Path:
        """Put the file at its target, whole and on disk.

        Raises:
            TargetExistsError: something has appeared at the target meanwhile.
            DownloadError: the disk refuses; the bytes are kept beside the target.
        """
        try:
            os.fsync(self._opened.fileno())
            self._place()
            self.note.unlink(missing_ok=True)
            self._sync_directory()
        except FileExistsError:
            raise self.exists() from None
        except OSError as error:
            raise self.failed(f"cannot be put in place: {error.strerror or error}") from error
        return self.target

    def _place(self) -> None:
        if self.overwrite:
            self.part.replace(self.target)
            return
        try:
            # A hard link fails where the target exists, and a rename would replace it.
            os.link(self.part, self.target)
        except FileExistsError:
            raise
        except OSError:
            if os.path.lexists(self.target):
                raise FileExistsError(self.target) from None
            self.part.replace(self.target)
        else:
            self.part.unlink()

    def _sync_directory(self) -> None:
        if os.name == "posix":
            directory = os.open(self.target.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

    def close(self) -> None:
        """Let go of the part file; an empty one is removed, since there is nothing to go on with."""
        if self._file is None:
            return
        # Before the lock goes: afterwards it may be another download's.
        if os.fstat(self._file.fileno()).st_size == 0 and self.part.exists():
            self.part.unlink(missing_ok=True)
            self.note.unlink(missing_ok=True)
        self._file.close()
        self._file = None

    def failed(self, problem: str, error: APIError | None = None) -> DownloadError:
        """Return the error for a problem with this file."""
        return DownloadError(
            problem, path=self.path, target=str(self.target), received=self.size, error=error
        )

    def exists(self) -> TargetExistsError:
        """Return the error for a target that is there already."""
        return TargetExistsError(
            "there is a file already; pass overwrite=True to replace it",
            path=self.path,
            target=str(self.target),
            received=self.size,
        )
