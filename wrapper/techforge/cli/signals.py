"""Signals and closed pipes: the first signal ends a command in order, the second one at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

GRACE_SECONDS = 8.0
"""After a signal, a submission has this long to get its response."""
REPEAT_SECONDS = 0.25
"""Signals within this time count as one: systemd sends SIGTERM with SIGHUP, and wrappers repeat a Ctrl-C."""
SHOW_CURSOR = "\x1b[?25h"
PIPE_CODE, STDOUT_CODE = 141, 11


class Interrupted(KeyboardInterrupt):
    """A signal asked the command to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number


class StdoutError(OSError):
    """Stdout cannot be written: its disk is full, for example."""

    def __str__(self) -> str:
        return f"stdout cannot be written: {self.strerror or self.args}."


class _Stdout:
    """Stdout. It has its own error: an `OSError` does not name the file that cannot be written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text."""
        with _naming_stdout():
            return self._stream.write(text)

    def flush(self) -> None:
        """Write what is in the buffer."""
        with _naming_stdout():
            self._stream.flush()


@contextmanager
def _naming_stdout() -> Generator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StdoutError(*error.args) from error


class _Signals:
    """What has arrived in this process, and what the command is doing."""

    def __init__(self) -> None:
        self.first: int | None = None
        self.first_at = 0.0
        self.has_raised = False
        self.notice = ""
        """The message for a signal that has to wait; empty if none has to."""
        self.in_doubt: Callable[[], str] = str

    def receive(self, number: int, _: object = None) -> None:
        """Handle a signal."""
        now = time.monotonic()
        if self.first is None:
            self.first, self.first_at = number, now
            if self.notice:
                _write(self.notice)
                if sys.platform != "win32":
                    signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS)
                return
        elif now - self.first_at < REPEAT_SECONDS:
            return
        elif self.has_raised:
            _write(f"{self.in_doubt()}\nStopped at once.".strip())
            os._exit(128 + number)
        self.interrupt()

    def interrupt(self, *_: object) -> None:
        """End the command in order."""
        assert self.first is not None  # noqa: S101 - the callers received it
        self.has_raised = True
        raise Interrupted(self.first)


_signals = _Signals()


def _write(text: str) -> None:
    # Not print: the signal may have interrupted one.
    cursor = SHOW_CURSOR if os.isatty(2) else ""
    with suppress(OSError):
        os.write(2, f"{cursor}{text}\n".encode(errors="backslashreplace"))


def install() -> None:
    """Handle SIGINT, SIGTERM and SIGHUP, unless the parent process has them ignored (nohup).

    Also let errors of stdout be told from those of other files.
    """
    if sys.stdout is not None:
        sys.stdout = cast("TextIO", _Stdout(sys.stdout))
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _signals.receive)
    if sys.platform != "win32":
        signal.signal(signal.SIGALRM, _signals.interrupt)
        _wake_main_thread()


def _wake_main_thread() -> None:
    """Interrupt a blocking call of the main thread for each signal.

    Python handles signals in its main thread only. Of two signals at the same time, the system may deliver
    both to another thread, and then the main thread sleeps on.
    """
    main, (reader, writer) = threading.main_thread().ident or 0, os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def ignore(*_: object) -> None:
        """Do nothing: the signal only interrupts a call."""

    signal.signal(signal.SIGURG, ignore)

    def wake() -> None:
        while number := os.read(reader, 1):
            # Again and again, because the main thread may be just about to block.
            for _ in range(5 if number[0] != signal.SIGURG else 0):
                signal.pthread_kill(main, signal.SIGURG)
                time.sleep(0.02)

    threading.Thread(target=wake, name="techforge-signals", daemon=True).start()


@contextmanager
def describing(in_doubt: Callable[[], str]) -> Generator[None]:
    """Use a function that says what is in doubt, if a second signal ends the process at once."""
    before, _signals.in_doubt = _signals.in_doubt, in_doubt
    try:
        yield
    finally:
        _signals.in_doubt = before


@contextmanager
def postponed(notice: str) -> Generator[None]:
    """Let the first signal wait for the end of the block, at most `GRACE_SECONDS`. It prints the notice."""
    _signals.notice = notice
    try:
        yield
    finally:
        _signals.notice = ""
        if sys.platform != "win32":
            signal.setitimer(signal.ITIMER_REAL, 0)
    if _signals.first is not None:
        _signals.interrupt()


def exit_code_of(interruption: BaseException) -> int:
    """Return the exit code for an interruption. For a signal it is 128 and the signal's number."""
    if isinstance(interruption, Interrupted):
        return interruption.exit_code
    if isinstance(interruption, StdoutError):
        return STDOUT_CODE
    return PIPE_CODE if isinstance(interruption, BrokenPipeError) else 128 + signal.SIGINT


def silence_stdout() -> None:
    """Discard what is left for a stdout that failed. Python would complain about it at its exit."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def final_code(code: str | int | None) -> str | int | None:
    """Return the exit code of the process, after its output is written."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        silence_stdout()
        if isinstance(error, StdoutError):
            _write(str(error))
        code = code or (STDOUT_CODE if isinstance(error, StdoutError) else PIPE_CODE)
    # A prompt that is interrupted ends with another code.
    return 128 + _signals.first if _signals.has_raised and _signals.first is not None else code
