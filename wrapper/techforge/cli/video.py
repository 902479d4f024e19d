"""Submit a job, wait for its video, and download it."""

# ruff: noqa: FBT002, PLR0917
# Typer's options are arguments with defaults.

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer

from techforge import Video, _checks
from techforge._flows.create import create as create_flow
from techforge._partfile import PartFile
from techforge._session import session_of
from techforge.cli.client import MockJobs, connected, mock_jobs
from techforge.cli.messages import SubmissionProgress, note, print_json, reporting_errors
from techforge.cli.progress import RecordedSchedule, downloading, size, waiting
from techforge.cli.serving import published
from techforge.cli.signals import GRACE_SECONDS, postponed
from techforge.errors import InvalidArgumentError

if TYPE_CHECKING:
    from techforge import Job, TechForge

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=__doc__)

JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]
ProjectId = Annotated[str, typer.Argument(metavar="PROJECT", help="The id of the job's project.")]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Download the video to this file, or to JOB.mp4 in this directory."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait for the video. The job continues after that.")]
Poll = Annotated[float | None, typer.Option(help="Seconds between polls. Default: 1, rising to 15.")]
OutputPath = Annotated[
    str | None,
    typer.Option("--output-path", help="The video's path in storage, if it is not the usual one."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print only JSON on stdout.")]
WAIT_TIMEOUT, DOWNLOAD_TIMEOUT = 1800.0, 3600.0


@app.command()
def create(
    image_url: Annotated[
        str, typer.Option("--image-url", "--image", help="Public URL of the image. The API downloads it.")
    ],
    audio_url: Annotated[
        str, typer.Option("--audio-url", "--audio", help="Public URL of the narration. The API downloads it.")
    ],
    project_id: Annotated[
        str | None, typer.Option("--project-id", "--project", help="The job's project. Default: a new UUID.")
    ] = None,
    job_type: Annotated[str | None, typer.Option(help="Kind of job. Default: ai_talking_video.")] = None,
    is_clone_required: Annotated[
        bool | None,
        typer.Option("--is-clone-required/--no-is-clone-required", help="Run a clone pass before rendering."),
    ] = None,
    language: Annotated[str | None, typer.Option(help="Language code for lip sync, e.g. en.")] = None,
    version: Annotated[int | None, typer.Option(help="Model version: 4, 5 or 6.")] = None,
    output_size: Annotated[int | None, typer.Option(help="Edge length of the video, in pixels.")] = None,
    crop: Annotated[
        bool | None, typer.Option("--crop/--no-crop", help="Crop the image before rendering.")
    ] = None,
    dynamic_scale: Annotated[float | None, typer.Option(help="Scale factor while rendering.")] = None,
    iteration_count: Annotated[int | None, typer.Option(help="Refinement passes.")] = None,
    expand_ratio: Annotated[float | None, typer.Option(help="How far the canvas is expanded.")] = None,
    values: Annotated[
        list[str] | None, typer.Option("--value", "--values", help="A further tuning parameter; repeatable.")
    ] = None,
    extra: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="A field that this version does not know, as JSON or text; repeatable."
        ),
    ] = None,
    wait_for_video: Annotated[bool, typer.Option("--wait", help="Wait for the video.")] = False,
    output: Output = None,
    overwrite: Overwrite = False,
    timeout: Timeout = WAIT_TIMEOUT,
    poll: Poll = None,
    retry_server_errors: Annotated[
        bool,
        typer.Option(
            help="Submit again after a server error (500, 503, ...), as the API's documentation recommends; "
            "you may pay twice.",
        ),
    ] = True,
    allow_private_media: Annotated[
        bool, typer.Option("--allow-private-media", help="Allow URLs in a private network.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Submit a job, and print its id and its project's id. You pay for the job.

    --wait waits for the video. --output waits and downloads it. To continue later, on any machine:
    techforge video wait JOB PROJECT.
    """
    progress = SubmissionProgress(as_json)
    with reporting_errors(progress):
        progress.project_id = str(uuid4() if project_id is None else _checks.uuid("project_id", project_id))
        given = {
            "project_id": progress.project_id,
            "job_type": job_type,
            "is_clone_required": is_clone_required,
            "language": language,
            "version": version,
            "output_size": output_size,
            "crop": crop,
            "dynamic_scale": dynamic_scale,
            "iteration_count": iteration_count,
            "expand_ratio": expand_ratio,
            "values": values or None,
            "extra": _fields(extra or []),
        }
        params = {name: value for name, value in given.items() if value is not None}
        _check_wait(output, timeout, poll, overwrite=overwrite)
        _store_options(progress, output, timeout, poll, None, overwrite=overwrite)
        with connected(
            resubmit_on_server_error=retry_server_errors, allow_private_media=allow_private_media
        ) as client:
            mock = mock_jobs()
            media = {"image_url": image_url, "audio_url": audio_url}
            with published(media, to_mock=mock is not None) as urls:
                served = urls != media
                job = _submit(client, progress, {**params, **urls})
                if not (wait_for_video or output or served):
                    if as_json:
                        print_json(_facts(progress, job, None, None))
                    note(f"Wait for it with: {progress.wait_command()}")
                    return
                if served and not (wait_for_video or output):
                    note("Waiting for the job: local files must be served until the job is done.")
                _finish(client, progress, output, timeout, poll, overwrite=overwrite, mock=mock)


@app.command()
def wait(
    job_id: JobId,
    project_id: ProjectId,
    output: Output = None,
    overwrite: Overwrite = False,
    timeout: Timeout = WAIT_TIMEOUT,
    poll: Poll = None,
    output_path: OutputPath = None,
    as_json: AsJson = False,
) -> None:
    """Wait for the video of a submitted job."""
    progress = SubmissionProgress(as_json)
    with reporting_errors(progress):
        _check_wait(output, timeout, poll, overwrite=overwrite)
        with connected() as client:
            progress.job = client.jobs.from_ids(job_id, project_id, output_path=output_path)
            _store_options(progress, output, timeout, poll, output_path, overwrite=overwrite)
            _finish(client, progress, output, timeout, poll, overwrite=overwrite, mock=mock_jobs())


@app.command()
def download(
    job_id: JobId,
    project_id: ProjectId,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A file, or a directory for JOB.mp4.")
    ] = Path(),
    overwrite: Overwrite = False,
    timeout: Annotated[float, typer.Option(help="Seconds for the whole download.")] = DOWNLOAD_TIMEOUT,
    output_path: OutputPath = None,
    as_json: AsJson = False,
) -> None:
    """Download the video of a finished job. A partial download continues."""
    progress = SubmissionProgress(as_json, is_done=True)
    _store_options(
        progress, None if output == Path() else output, WAIT_TIMEOUT, None, output_path, overwrite=overwrite
    )
    with reporting_errors(progress), connected() as client:
        progress.job = job = client.jobs.from_ids(job_id, project_id, output_path=output_path)
        file = _download(client, job, output, timeout, overwrite=overwrite)
        _print_result(progress, job, None, file)


def _submit(client: TechForge, progress: SubmissionProgress, params: dict[str, Any]) -> Job:
    create_flow(session_of(client).settings, **params).close()  # a wrong argument is found before
    note(f"Project: {progress.project_id}")
    progress.has_sent = True
    with postponed(
        f"The job is being submitted. Waiting up to {GRACE_SECONDS:g} s for its id. "
        "Press Ctrl-C again to stop now; the id is lost then."
    ):
        progress.job = job = client.jobs.create(**params)
        note(f"Job: {job.id} ({job.status})")
        if not progress.as_json:
            typer.echo(f"{job.id} {job.project_id}")
    return job


def _finish(
    client: TechForge,
    progress: SubmissionProgress,
    output: Path | None,
    timeout: float,
    poll: float | None,
    *,
    overwrite: bool,
    mock: MockJobs | None,
) -> None:
    """Wait for the job, download its video if requested, and print the result."""
    assert progress.job is not None  # noqa: S101 - the callers set it
    schedule = RecordedSchedule() if poll is None else RecordedSchedule.every(poll)
    with waiting(schedule) as show:
        video = client.jobs.wait(progress.job, timeout=timeout, poll=schedule, tracker=mock, on_update=show)
    progress.job, progress.is_done = video.job, True
    length = f", {size(video.size)}" if video.size is not None else ""
    note(f"Done: {video.path}{length}")
    file = None
    if output is not None:
        file = _download(client, video, output, DOWNLOAD_TIMEOUT, overwrite=overwrite)
    _print_result(progress, video.job, video, file)


def _download(client: TechForge, source: Job | Video, to: Path, timeout: float, *, overwrite: bool) -> Path:
    job = source.job if isinstance(source, Video) else source
    with downloading(Path(job.output_path).name) as show:
        return client.jobs.download(source, to, overwrite=overwrite, on_progress=show, timeout=timeout)


def _print_result(progress: SubmissionProgress, job: Job, video: Video | None, file: Path | None) -> None:
    progress.is_downloaded = True
    if progress.as_json:
        print_json(_facts(progress, job, video, file))
        return
    if file is not None:
        note(f"Saved: {size(file.stat().st_size)}")
        typer.echo(str(file))


def _facts(progress: SubmissionProgress, job: Job, video: Video | None, file: Path | None) -> dict[str, Any]:
    """Return the values for --json, without the signed URL: it is a secret."""
    submission = {"attempts": job.attempts, "may_have_duplicates": job.may_have_duplicates}
    return {
        "job_id": job.id,
        "project_id": job.project_id,
        "status": "done" if file else job.status,
        "output_path": job.output_path,
        "size": video.size if video else file.stat().st_size if file else None,
        "content_type": video.content_type if video else None,
        "file": str(file) if file else None,
        **(submission if progress.has_sent else {}),
    }


# --- checks before the submission ----------------------------------------------------------------


def _check_wait(output: Path | None, timeout: float, poll: float | None, *, overwrite: bool) -> None:
    _checks.seconds("timeout", timeout)
    if poll is not None:
        RecordedSchedule.every(_checks.seconds("poll", poll))
    if output is None:
        return
    part = PartFile(f"{uuid4()}.mp4", output, overwrite)
    try:
        part.open()  # an impossible name must fail before the job is paid for
    finally:
        part.close()


def _store_options(
    progress: SubmissionProgress,
    output: Path | None,
    timeout: float,
    poll: float | None,
    output_path: str | None,
    *,
    overwrite: bool,
) -> None:
    """Store the options that the next command must repeat."""
    fetch_options = {"--output": output, "--output-path": output_path}
    wait_options = {"--timeout": None if timeout == WAIT_TIMEOUT else f"{timeout:g}", "--poll": poll}
    progress.fetch_with = (*_as_arguments(fetch_options), *(["--overwrite"] if overwrite else []))
    progress.wait_with = tuple(_as_arguments(wait_options))


def _as_arguments(options: dict[str, Any]) -> list[str]:
    return [word for name, value in options.items() if value is not None for word in (name, str(value))]


def _fields(extra: list[str]) -> dict[str, object] | None:
    fields: dict[str, object] = {}
    for text in extra:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidArgumentError("extra", f"{text!r} is not NAME=VALUE")
        try:
            fields[name] = json.loads(value)
        except ValueError:
            fields[name] = value
    return fields or None
