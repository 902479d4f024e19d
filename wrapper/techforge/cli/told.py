"""What a command says when something goes wrong: one sentence or two, never a traceback, never a secret."""

from __future__ import annotations

import json
import os
import shlex
import signal
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import typer
from attrs import define

from techforge._masking import mask
from techforge.cli.exits import Code, code_of
from techforge.errors import (
    APIError,
    AuthenticationError,
    JobOutcomeUnknownError,
    JobTimeoutError,
    NotFoundError,
    PermissionDeniedError,
    TargetExistsError,
    TechForgeError,
)
from techforge.models import NO_STATUS

if TYPE_CHECKING:
    from collections.abc import Generator

    from techforge.models import Job


@define
class Known:
    """What a command has come to know. Whatever goes wrong, none of it is lost."""

    as_json: bool = False
    project_id: str | None = None
    submitting: bool = False
    """Whether a submission is under way, or was and has not been answered."""
    job: Job | None = None
    fetch_with: tuple[str, ...] = ()
    """The options that fetching the video needs besides the ids."""
    wait_with: tuple[str, ...] = ()
    """Those that waiting for it needs, too."""
    waited: bool = False
    """Whether the wait is over, and only the video is to be fetched."""

    def wait(self) -> str:
        """Return the command that waits for the job."""
        return self._command("wait", *self.fetch_with, *self.wait_with)

    def fetch(self) -> str:
        """Return the command that fetches the video."""
        return self._command("download", *self.fetch_with)

    def _command(self, verb: str, *options: str) -> str:
        assert self.job is not None  # noqa: S101 - who asks has looked
        return shlex.join(["techforge", "video", verb, self.job.id, self.job.project_id, *options])


def note(text: str, colour: str | None = None) -> None:
    """Say something to whoever looks on: stdout is for results."""
    # Where nobody can look on, what is on stdout must not be lost as well.
    with suppress(OSError):
        typer.secho(text, err=True, fg=None if os.environ.get("NO_COLOR") else colour)


def result(facts: dict[str, Any]) -> None:
    """Print a result for programs."""
    typer.echo(json.dumps(facts, ensure_ascii=False))


@contextmanager
def told(known: Known | None = None) -> Generator[None]:
    """Say what has gone wrong and what to do about it, and leave with the code for it."""
    known = known or Known()
    try:
        yield
    except (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError):
        raise
    except KeyboardInterrupt:
        _end(known, "Stopped.", Code.INTERRUPTED)
    except TechForgeError as error:
        if isinstance(error, JobOutcomeUnknownError) and error.job_id and not known.job:
            from techforge._flows.create import job_from_ids  # noqa: PLC0415 - only a lost answer needs it

            known.job = job_from_ids(error.job_id, error.project_id)
        _end(known, sentence(error), code_of(error), error)
    except Exception as error:  # a traceback would show variables, and helps nobody here
        if os.environ.get("TECHFORGE_DEBUG"):
            raise
        said = f"{type(error).__name__}: {mask(str(error))}. This should not happen, and is worth a report."
        _end(known, f"{said} TECHFORGE_DEBUG=1 shows where it comes from.", Code.BROKEN)


def sentence(error: TechForgeError) -> str:
    """Return what an error says to somebody at a command line, where it speaks to a program otherwise."""
    said = str(error)
    if isinstance(error, JobTimeoutError):
        known = [f"last status: {error.last_status}"] if error.last_status != NO_STATUS else []
        known += [f"last poll: {bare(error.last_error)}"] if error.last_error else []
        more = f" ({'; '.join(known)})" if known else ""
        return f"Not done after {error.elapsed:.0f} s and {polls(error.polls)}{more}."
    if isinstance(error, JobOutcomeUnknownError):
        return (
            f"{error.method} {error.path}: {error.error.message}. The job may exist, so it was not submitted "
            "again."
        )
    if isinstance(error, APIError):
        return f"{bare(error)} {advice(error)}".strip()
    if isinstance(error, TargetExistsError):
        return f"{error.target} is there already; give another name, or --overwrite."
    return said.replace("allow_private_media=True", "--allow-private-media")


def polls(count: int) -> str:
    """Return a number of polls as people write it."""
    return "1 poll" if count == 1 else f"{count} polls"


def bare(error: Exception) -> str:
    """Return an API's error without what it advises programs to do."""
    text = mask(str(error))
    return text.removesuffix(error.advice).strip() if isinstance(error, APIError) else text


def advice(error: APIError) -> str:
    """Return what to do about an API's error at a command line."""
    if isinstance(error, AuthenticationError | PermissionDeniedError):
        return (
            "Nothing was done. See which key is used with: techforge auth status. "
            "Keys are made in the web app, under /api-access."
        )
    if isinstance(error, NotFoundError):
        if error.job is not None:
            return "The video of this job is not there yet."
        return "There is nothing in storage under this name."
    if error.job is not None or error.job_may_exist:
        return ""  # what is known of the job is said anyway
    return error.advice.replace("base_url", "TFI_BASE_URL")


def _end(known: Known, said: str, code: Code, error: TechForgeError | None = None) -> None:
    may_exist = known.job is not None or known.submitting
    if isinstance(error, TechForgeError) and known.job is None:
        # An error that comes out of a submission knows whether it has left a job behind.
        may_exist = bool(getattr(error, "job_may_exist", False))
    lines = [said]
    if known.job is not None and code is not Code.FAILED:
        lines += _next(known, known.job, code)
    elif known.job is None and may_exist:
        lines.append(
            f"A job may exist in project {known.project_id}: look for it in your job service, webhook events "
            "or the web app before you submit again."
        )
    elif code is Code.INTERRUPTED and known.project_id:
        lines.append("Nothing was submitted.")
    note("\n".join(lines), typer.colors.YELLOW if code is Code.INTERRUPTED else typer.colors.RED)
    if known.as_json:
        result(
            {
                "error": {
                    "type": type(error).__name__ if error else code.name.lower(),
                    "message": said,
                    "exit_code": int(code),
                    "status_code": getattr(error, "status_code", None),
                    "request_id": getattr(error, "request_id", None),
                    "retry_after": getattr(error, "retry_after", None),
                },
                "job_id": known.job.id if known.job else None,
                "project_id": known.job.project_id if known.job else known.project_id,
                "job_may_exist": may_exist,
            }
        )
    raise typer.Exit(code) from None


def _next(known: Known, job: Job, code: Code) -> list[str]:
    if not known.waited:
        return [f"The job goes on, in project {job.project_id}. Go on with:", f"  {known.wait()}"]
    if code is Code.MISSING:
        return ["Wait for it with:", f"  {known.wait()}"]
    if code is Code.USAGE:
        return []
    return ["What has arrived is kept. Fetch the rest with:", f"  {known.fetch()}"]


@contextmanager
def unhurried() -> Generator[None]:
    """Let the first Ctrl-C wait for a submission's answer: what was begun is paid for, and has an id."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def later(*_: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        # Not by print: it may be what was interrupted.
        os.write(2, b"The job is being submitted; stopping when its id is known. Ctrl-C again loses it.\n")

    signal.signal(signal.SIGINT, later)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        raise KeyboardInterrupt
