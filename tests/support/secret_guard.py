"""What the whole suite is searched for: a key and a signature, in all that leaves the wrapper."""

from __future__ import annotations

import logging
import pickle
import re
import traceback
from collections import Counter
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from techforge import SignedUrl, Video
from techforge._drivers.aio import AsyncDriver
from techforge._drivers.sync import SyncDriver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CANARY = "canary-key-314159265358979"
"""The key of every mock server that the fixture `mock` starts."""
INPUT = "canary-input-271828182845904"
"""A token in the query of an input's URL: what gives access to the user's own image."""
SEARCHED: Counter[str] = Counter()
"""How much was searched, by kind."""

_SIGNATURE = re.compile(r"signature=[0-9a-f]{8,}")
_SERVER = ("uvicorn", "techforge.mock")
"""The loggers of the other side, which runs in this process only here."""
_CLIENT = ("techforge", "httpx", "httpcore", "asyncio")
_inside: ContextVar[bool] = ContextVar("_inside", default=False)
"""Whether a client is at work: what httpx says elsewhere, a test has made it say."""


def leaks(text: str, *, of_input: bool = True) -> list[str]:
    """Return the secrets that a text holds, with the words around them."""
    secrets = [CANARY, INPUT] if of_input else [CANARY]
    found = [match for secret in secrets for match in re.finditer(re.escape(secret), text)]
    found += _SIGNATURE.finditer(text)
    return [text[max(0, match.start() - 80) : match.end() + 20] for match in found]


def frames_of(error: BaseException | None) -> Iterator[tuple[str, str, str]]:
    """Yield place, name and repr of each local variable that an error reporter shows of an error."""
    while error is not None:
        for frame, line in traceback.walk_tb(error.__traceback__):
            place = f"{frame.f_code.co_filename}:{line}"
            # The frames of the tests hold what a user knows anyway.
            if "/tests/" not in place.replace("\\", "/"):
                for name, value in frame.f_locals.items():
                    try:
                        yield place, name, repr(value)
                    except Exception as failure:  # noqa: BLE001 - half-built objects have no repr
                        yield place, name, f"<{failure!r}>"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def told_by(error: BaseException) -> str:
    """Return all that an error tells of itself: its text and its causes', attributes, notes, pickle."""
    said = "".join(traceback.TracebackException.from_exception(error).format_exception_only())
    return "\n".join([str(error), said, repr(error), repr(vars(error)), repr(error.args), pickled(error)])


def pickled(value: object) -> str:
    """Return a pickle as text; users' own errors and values may have none."""
    try:
        return pickle.dumps(value).decode("latin-1")
    except Exception:  # noqa: BLE001 - whatever a class of theirs raises
        return ""


def seen_in(folder: Path) -> str:
    """Return the names and the contents of all files."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    SEARCHED["files"] += len(files)
    return "\n".join(f"{path} {path.read_bytes()!r}" for path in files)


class Lines(logging.Handler):
    """Every log line that a client brings about, formatted, with its traceback."""

    def __init__(self) -> None:
        """Keep nothing yet."""
        super().__init__(level=0)
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        ours = _inside.get() or not record.name.startswith(("httpx", "httpcore"))
        if ours and not record.name.startswith(_SERVER):
            self.lines.append(self.format(record))


@contextmanager
def logged() -> Iterator[list[str]]:
    """Collect all that is logged at DEBUG, by whoever: ourselves, httpx, httpcore, asyncio."""
    handler = Lines()
    root = logging.getLogger()
    loggers = [root, *map(logging.getLogger, _CLIENT)]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    root.addHandler(handler)
    try:
        yield handler.lines
    finally:
        root.removeHandler(handler)
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


class SecretGuard:
    """The secrets that were found outside, in the course of one test."""

    def __init__(self) -> None:
        """Have found nothing yet."""
        self.found: list[str] = []

    def look(self, where: str, text: str, *, of_input: bool = True) -> None:
        """Search a text."""
        SEARCHED[where] += 1
        self.found += [f"{where}: …{leak}…" for leak in leaks(text, of_input=of_input)]

    def failed(self, error: BaseException) -> None:
        """Search an error, and the variables in its traceback."""
        self.look("errors", told_by(error))
        for place, name, value in frames_of(error):
            # Frames of other packages, such as json, have the input as it is sent.
            ours = "/wrapper/techforge/" in place.replace("\\", "/")
            self.look("variables", f"{place} {name} = {value}", of_input=ours)

    def returned(self, value: object) -> None:
        """Search a result; a `Video` and a `SignedUrl` hold their URL, which is their purpose, unshown."""
        self.look("results", f"{value!r} {value}")
        if not isinstance(value, Video | SignedUrl):
            self.look("results", pickled(value))


@contextmanager
def keeping(guard: SecretGuard) -> Iterator[SecretGuard]:
    """Let a guard see every result and every error that leaves a client, and every line that is logged."""
    run, arun = SyncDriver.run, AsyncDriver.run

    @contextmanager
    def at_work() -> Iterator[None]:
        before = _inside.set(True)
        try:
            yield
        except BaseException as error:
            guard.failed(error)
            raise
        finally:
            _inside.reset(before)

    def watched(driver: SyncDriver, flow: Any) -> Any:
        with at_work():
            value = run(driver, flow)
        guard.returned(value)
        return value

    async def awatched(driver: AsyncDriver, flow: Any) -> Any:
        with at_work():
            value = await arun(driver, flow)
        guard.returned(value)
        return value

    with (
        patch.object(SyncDriver, "run", watched),
        patch.object(AsyncDriver, "run", awatched),
        logged() as lines,
    ):
        yield guard
    for line in lines:
        guard.look("log lines", line)
