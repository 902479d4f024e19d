"""Print messages and errors: what happened and what to do, without a traceback and without a secret."""

from __future__ import annotations

import json
import os
import shlex
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import typer
from attrs import define, evolve

from techforge._masking import mask, printable
from techforge.cli import signals
from techforge.cli.exit_codes import STOPPED, ExitCode, code_of
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
class SubmissionProgress:
    """How far a command has come. An error message includes all of it."""

    as_json: bool = False
    project_id: str | None = None
    has_sent: bool = False
    """The command has started to submit the job."""
    job: Job | None = None
    fetch_with: tuple[str, ...] = ()
    """Options to repeat in the `download` command."""
    wait_with: tuple[str, ...] = ()
    """Options to repeat in the `wait` command, in addition to `fetch_with`."""
    is_done: bool = False
    """The video exists; only the download is left."""
    is_downloaded: bool = False
    """Only the result is left to print."""

    def wait_command(self) -> str:
        """Return the command that waits for the job."""
        return self._command("wait", *self.fetch_with, *self.wait_with)

    def download_command(self) -> str:
        """Return the command that downloads the video."""
        return self._command("download", *self.fetch_with)

    def _command(self, verb: str, *options: str) -> str:
        assert self.job is not None  # noqa: S101 - the callers check it
        return shlex.join(["techforge", "video", verb, self.job.id, self.job.project_id, *options])


def note(text: str, colour: str | None = None) -> None:
    """Print a message to stderr; stdout is for results."""
    # If stderr is closed, the result on stdout must still be printed.
    with suppress(OSError):
        typer.secho(printable(text, "\n\t"), err=True, fg=None if os.environ.get("NO_COLOR") else colour)


def print_json(facts: dict[str, Any]) -> None:
    """Print a result as JSON on stdout."""
    typer.echo(json.dumps(facts, ensure_ascii=False))


@contextmanager
def reporting_errors(progress: SubmissionProgress | None = None) -> Generator[None]:
    """Turn an exception into a message and an exit code."""
    progress = progress or SubmissionProgress()
    try:
        with signals.describing(lambda: _in_doubt(progress)):
            yield
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except KeyboardInterrupt as interruption:
        _exit_with(progress, "Stopped.", ExitCode(signals.exit_code_of(interruption)))
    except BrokenPipeError:
        signals.silence_stdout()
        _exit_with(evolve(progress, as_json=False), "Stopped: stdout is closed.", ExitCode.PIPE)
    except signals.StdoutError as error:
        signals.silence_stdout()
        _exit_with(evolve(progress, as_json=False), str(error), ExitCode.FILE)
    except TechForgeError as error:
        job_id = getattr(error, "job_id", None)
        project_id = getattr(error, "project_id", None) or progress.project_id
        if job_id and project_id and not progress.job:
            from techforge._flows.create import job_from_ids  # noqa: PLC0415 - rarely needed

            progress.job = job_from_ids(job_id, project_id)
        _exit_with(progress, message_of(error), code_of(error), error)
    except Exception as error:  # a traceback might show the key
        if os.environ.get("TECHFORGE_DEBUG"):
            raise
        message = f"{type(error).__name__}: {mask(str(error))}. This should not happen; please report it."
        _exit_with(progress, f"{message} TECHFORGE_DEBUG=1 shows the traceback.", ExitCode.BROKEN)


def _in_doubt(progress: SubmissionProgress) -> str:
    return "\n".join(_next_steps(progress, ExitCode.INTERRUPTED, may_exist=progress.has_sent))


def message_of(error: TechForgeError) -> str:
    """Return an error's message with the advice for a command line instead of that for a program."""
    if isinstance(error, JobTimeoutError):
        details = [f"last status: {error.last_status}"] if error.last_status != NO_STATUS else []
        details += [f"last poll: {without_advice(error.last_error)}"] if error.last_error else []
        more = f" ({'; '.join(details)})" if details else ""
        return f"Not done after {error.elapsed:.0f} s and {polls(error.polls)}{more}."
    if isinstance(error, JobOutcomeUnknownError):
        return f"{error.method} {error.path}: {error.error.message}. The job was not submitted again."
    if isinstance(error, APIError):
        return f"{without_advice(error)} {advice(error)}".strip()
    if isinstance(error, TargetExistsError):
        return f"{error.target} already exists. Choose another name, or add --overwrite."
    return str(error).replace("allow_private_media=True", "--allow-private-media")


def polls(count: int) -> str:
    """Return a number of polls with its noun."""
    return "1 poll" if count == 1 else f"{count} polls"


def without_advice(error: Exception) -> str:
    """Return an error's message without its advice for programs."""
    text = mask(str(error))
    return text.removesuffix(error.advice).strip() if isinstance(error, APIError) else text


def advice(error: APIError) -> str:
    """Return what a user of the command line can do about an error of the API."""
    if error.job is not None or error.job_id or error.job_may_exist:
        # The message shows the job and the next command.
        return "The video of this job does not exist yet." if isinstance(error, NotFoundError) else ""
    if isinstance(error, AuthenticationError | PermissionDeniedError):
        return (
            "Nothing was done. To see which key is used: techforge auth status. "
            "Create a key in the web app, under /api-access."
        )
    if isinstance(error, NotFoundError):
        return "There is no object at this path."
    return error.advice.replace("base_url", "TFI_BASE_URL")


def _exit_with(
    progress: SubmissionProgress, message: str, code: ExitCode, error: TechForgeError | None = None
) -> None:
    may_exist = progress.job is not None or progress.has_sent
    if isinstance(error, TechForgeError) and progress.job is None:
        # The error says whether a job may exist.
        may_exist = bool(getattr(error, "job_may_exist", False))
    lines = [message, *_next_steps(progress, code, may_exist=may_exist)]
    note("\n".join(lines), typer.colors.YELLOW if code in STOPPED else typer.colors.RED)
    if progress.as_json:
        facts = {
            "error": {
                "type": type(error).__name__ if error else "interrupted" if code in STOPPED else "broken",
                "message": message,
                "exit_code": int(code),
                "status_code": getattr(error, "status_code", None),
                "request_id": getattr(error, "request_id", None),
                "retry_after": getattr(error, "retry_after", None),
            },
            "job_id": progress.job.id if progress.job else None,
            "project_id": progress.job.project_id if progress.job else progress.project_id,
            "job_may_exist": may_exist,
        }
        with suppress(OSError):  # the terminal may be gone
            print_json(facts)
    raise typer.Exit(code) from None


def _next_steps(progress: SubmissionProgress, code: ExitCode, *, may_exist: bool) -> list[str]:
    """Return what is known of the job, and what to do next."""
    if progress.job is not None:
        return [] if code is ExitCode.FAILED else _next_command(progress, progress.job, code)
    if may_exist:
        where = "in your job service, webhook events or the web app"
        return [
            f"A job may exist in project {progress.project_id}. Look for it {where} before you submit again."
        ]
    return ["Nothing was submitted."] if code in STOPPED and progress.project_id else []


def _next_command(progress: SubmissionProgress, job: Job, code: ExitCode) -> list[str]:
    if not progress.is_done:
        return [
            f"The job continues, in project {job.project_id}. Wait for it with:",
            f"  {progress.wait_command()}",
        ]
    if code is ExitCode.MISSING:
        return ["Wait for it with:", f"  {progress.wait_command()}"]
    if code is ExitCode.USAGE or progress.is_downloaded:
        return []
    return ["The partial download is kept. Continue it with:", f"  {progress.download_command()}"]
