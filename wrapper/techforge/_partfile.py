"""A file that appears at its target only when it is complete.

Received bytes go to `<target>.part`. `<target>.part.json` describes the object they belong to, so that a
later process can resume the download.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO

from attrs import define, field

from techforge.errors import APIError, DownloadError, InvalidArgumentError, TargetExistsError

if sys.platform != "win32":
    import fcntl

_MAX_METADATA = 64 * 1024
"""A larger `.part.json` is not ours."""
_FORBIDDEN_IN_NAMES = frozenset('\\/:*?"<>|')


def target_for(path: str, to: str | os.PathLike[str]) -> Path:
    """Return the file to write. In a directory, it gets the object's name.

    Raises:
        InvalidArgumentError: the directory does not exist, or the object's name is not a valid file name.
    """
    target = Path(to)
    if target.is_dir():
        name = PurePosixPath(path).name
        if not name.strip(". ") or any(c in _FORBIDDEN_IN_NAMES or ord(c) < 0x20 for c in name):
            raise InvalidArgumentError(
                "to", f"{name!r} is not a valid file name; pass the path of a file instead of a directory"
            )
        target /= name
    elif str(to).endswith(("/", os.sep)):
        raise InvalidArgumentError("to", f"there is no directory {str(to)!r}; create it first")
    if not target.parent.is_dir():
        raise InvalidArgumentError("to", f"there is no directory {str(target.parent)!r}; create it first")
    return target


def _open_regular(path: Path, flags: int) -> int:
    """Open a regular file.

    The names are predictable: somebody may have put a link, a device or a pipe there, and a pipe would block.

    Raises:
        InvalidArgumentError: there is something else under this name.
    """
    with suppress(FileNotFoundError):
        _check_regular(path, path.lstat().st_mode)  # because opening a device may already do something
    safely = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY", "O_BINARY"))
    descriptor = os.open(path, flags | safely, 0o666)
    try:
        _check_regular(path, os.fstat(descriptor).st_mode)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = "a symbolic link" if stat.S_ISLNK(mode) else "not a regular file"
        raise InvalidArgumentError("to", f"{str(path)!r} is {kind}; remove it, or choose another name")


@define
class PartFile:
    """The received part of an object, on disk. All methods may block."""

    path: str
    to: str | os.PathLike[str]
    overwrite: bool
    target: Path = field(init=False, factory=Path)
    size: int = 0
    total: int | None = None
    etag: str | None = None
    _file: IO[bytes] | None = field(default=None, repr=False)

    def open(self) -> None:
        """Check the target, and resume the part file of an earlier download.

        Raises:
            InvalidArgumentError, TargetExistsError: no file was changed.
            DownloadError: the part file cannot be opened, or another download is using it.
        """
        try:
            self.target = target_for(self.path, self.to)
            exists = os.path.lexists(self.target)
            is_regular = not exists or self.target.is_symlink() or self.target.is_file()
        except InvalidArgumentError:
            raise
        except (OSError, ValueError, TypeError) as error:
            raise InvalidArgumentError("to", f"{self.to!r} cannot be written to: {error}") from None
        if not is_regular:
            raise InvalidArgumentError("to", f"{str(self.target)!r} is not a regular file")
        if exists and not self.overwrite:
            raise self.target_exists_error()
        try:
            self._open()
        except InvalidArgumentError:
            raise
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise self.error(f"cannot write {self.part.name}: {reason}") from error

    @property
    def part(self) -> Path:
        """The file with the received bytes."""
        return self.target.with_name(self.target.name + ".part")

    @property
    def metadata(self) -> Path:
        """The file that describes the object: path, ETag and size."""
        return self.target.with_name(self.target.name + ".part.json")

    def _open(self) -> None:
        with suppress(FileNotFoundError):
            # First, because this name is the longer one: it may be too long for the file system.
            _check_regular(self.metadata, self.metadata.lstat().st_mode)
        file = os.fdopen(_open_regular(self.part, os.O_RDWR | os.O_CREAT), "r+b", 0)
        try:
            self._lock(file)
            if os.fstat(file.fileno()).st_nlink > 1:
                # An earlier download was killed after it linked the complete file to its target.
                self.part.unlink()
                self._open()
                file.close()
                return
        except BaseException:
            file.close()
            raise
        self._file = file
        self._resume()

    def _lock(self, file: IO[bytes]) -> None:
        if sys.platform != "win32":
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise self.error("another download is writing this file") from None
        # Another download may have completed and renamed this file after we opened it.
        if not self.part.exists() or not os.path.samestat(os.fstat(file.fileno()), self.part.lstat()):
            raise self.error("another download has just finished this file")

    def _read_metadata(self) -> tuple[str | None, int | None]:
        try:
            with os.fdopen(_open_regular(self.metadata, os.O_RDONLY), "rb") as file:
                fields = json.loads(file.read(_MAX_METADATA))
            path, etag, total = fields["path"], fields["etag"], fields["total"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None, None
        is_same_object = path == self.path and isinstance(etag, str)
        is_valid_total = total is None or (type(total) is int and total >= 0)
        return (etag, total) if is_same_object and is_valid_total else (None, None)

    def _resume(self) -> None:
        self.etag, self.total = self._read_metadata()
        if self.etag is None:
            return  # keep an unknown part file until a download begins
        # Drop the last byte of a complete part: the request for it shows whether the ETag is still current.
        size = os.fstat(self._open_file.fileno()).st_size
        self._truncate(min(size, max(0, self.total - 1)) if self.total is not None else size)

    @property
    def _open_file(self) -> IO[bytes]:
        if self._file is None:
            raise self.error("the part file is closed")
        return self._file

    def _truncate(self, size: int) -> None:
        self._open_file.truncate(size)
        self._open_file.seek(size)
        self.size = size

    def restart(self, etag: str | None, total: int | None) -> None:
        """Discard the received bytes and start again, with an object of this ETag and size."""
        try:
            self._truncate(0)
        except OSError as error:
            raise self.error(f"cannot write {self.part.name}: {error.strerror or error}") from error
        self.etag, self.total = etag, total
        try:
            if etag is None:
                self.metadata.unlink(missing_ok=True)
            else:
                self._write_metadata(json.dumps({"path": self.path, "etag": etag, "total": total}))
        except OSError as error:
            raise self.error(f"cannot write {self.metadata.name}: {error.strerror or error}") from error

    def _write_metadata(self, fields: str) -> None:
        # In a new file, because the name may be a link to another file. An incomplete one is ignored later.
        self.metadata.unlink(missing_ok=True)
        with self.metadata.open("x", encoding="utf-8") as file:
            file.write(fields)

    def write(self, chunk: bytes) -> None:
        """Append received bytes."""
        if self.total is not None and self.size + len(chunk) > self.total:
            raise self.error(f"storage sent more than the {self.total} bytes that it announced")
        view = memoryview(chunk)
        try:
            while view:
                written = self._open_file.write(view)
                view, self.size = view[written:], self.size + written
        except OSError as error:
            raise self.error(f"cannot write {self.part.name}: {error.strerror or error}") from error

    def finish(self) -> Path:
        """Move the complete file to its target, after all bytes are on disk.

        Raises:
            TargetExistsError: the target was created meanwhile.
            DownloadError: the file cannot be moved; the bytes are kept in the part file.
        """
        try:
            os.fsync(self._open_file.fileno())
            self._move_to_target()
            with suppress(OSError):
                self.metadata.unlink()
            self._sync_directory()
        except FileExistsError:
            raise self.target_exists_error() from None
        except OSError as error:
            raise self.error(f"cannot move the part file to its target: {error.strerror or error}") from error
        return self.target

    def _move_to_target(self) -> None:
        if self.overwrite:
            self.part.replace(self.target)
            return
        try:
            # A hard link fails if the target exists; a rename would replace it.
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
        """Close the part file, and remove it if it is empty."""
        if self._file is None:
            return
        # Remove it before unlocking: afterwards it may belong to another download.
        if os.fstat(self._file.fileno()).st_size == 0 and self.part.exists():
            with suppress(OSError):
                self.part.unlink()
                self.metadata.unlink()
        self._file.close()
        self._file = None

    def error(self, problem: str, error: APIError | None = None) -> DownloadError:
        """Return a `DownloadError` about this file."""
        return DownloadError(
            problem, path=self.path, target=str(self.target), received=self.size, error=error
        )

    def target_exists_error(self) -> TargetExistsError:
        """Return the error for an existing target."""
        return TargetExistsError(
            "the target file exists; pass overwrite=True to replace it",
            path=self.path,
            target=str(self.target),
            received=self.size,
        )
