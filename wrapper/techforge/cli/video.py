"""Submit a job, wait for its video, fetch it."""

# ruff: noqa: FBT002, PLR0917
# Typer's options are arguments with defaults.

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer

from techforge import Video, _checks
from techforge._partfile import target_for
from techforge.cli.client import MockJobs, connected, mock_jobs
from techforge.cli.progress import RecordedSchedule, downloading, size, waiting
from techforge.cli.serving import published
from techforge.cli.told import Known, note, result, told, unhurried
from techforge.errors import InvalidArgumentError

if TYPE_CHECKING:
    from techforge import Job, TechForge

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=__doc__)

JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]
ProjectId = Annotated[str, typer.Argument(metavar="PROJECT", help="The id of the job's project.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Fetch the video: a file, or a directory for JOB.mp4.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait for the video; the job goes on after them.")]
Poll = Annotated[
    float | None, typer.Option(help="Seconds between two polls; by default from 1, rising to 15.")
]
OutputPath = Annotated[
    str | None,
    typer.Option("--output-path", help="Where the video is in storage, if not where it usually is."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and nothing else there.")]
WAIT, DOWNLOAD = 1800.0, 3600.0


@app.command()
def create(
    image_url: Annotated[
        str, typer.Option("--image-url", "--image", help="URL of the source image, which the API can fetch.")
    ],
    audio_url: Annotated[
        str, typer.Option("--audio-url", "--audio", help="URL of the narration, which the API can fetch.")
    ],
    project_id: Annotated[
        str | None, typer.Option("--project-id", "--project", help="The job's project; else a fresh UUID.")
    ] = None,
    job_type: Annotated[str | None, typer.Option(help="Kind of job; else ai_talking_video.")] = None,
    is_clone_required: Annotated[
        bool | None,
        typer.Option("--is-clone-required/--no-is-clone-required", help="Run a clone pass before rendering."),
    ] = None,
    language: Annotated[str | None, typer.Option(help="Language code for lip sync, e.g. en.")] = None,
    version: Annotated[int | None, typer.Option(help="Model version: 4, 5 or 6.")] = None,
    output_size: Annotated[int | None, typer.Option(help="Edge of the output, in pixels.")] = None,
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
    wait_for_it: Annotated[bool, typer.Option("--wait", help="Wait for the video.")] = False,
    output: Output = None,
    overwrite: Overwrite = False,
    timeout: Timeout = WAIT,
    poll: Poll = None,
    retry_server_errors: Annotated[
        bool,
        typer.Option(
            help="Submit again after a server error (500, 503, ...), as the API's documentation recommends; "
            "you may pay twice.",
        ),
    ] = True,
    allow_private_media: Annotated[
        bool, typer.Option("--allow-private-media", help="Allow URLs that only a private network can reach.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Submit a job, which costs money; print its id and its project's.

    With --wait, wait for the video; with --output, wait and fetch it. Going on later, from anywhere:
    techforge video wait JOB PROJECT.
    """
    known = Known(as_json)
    with told(known):
        known.project_id = str(uuid4() if project_id is None else _checks.uuid("project_id", project_id))
        given = {
            "project_id": known.project_id,
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
        _note_options(known, output, timeout, poll, None, overwrite=overwrite)
        with connected(
            resubmit_on_server_error=retry_server_errors, allow_private_media=allow_private_media
        ) as client:
            mock = mock_jobs()
            media = {"image_url": image_url, "audio_url": audio_url}
            with published(media, to_mock=mock is not None) as urls:
                served = urls != media
                job = _submitted(client, known, {**params, **urls})
                if not (wait_for_it or output or served):
                    if as_json:
                        result(_facts(known, job, None, None))
                    note(f"Wait for it with: {known.wait()}")
                    return
                if served and not (wait_for_it or output):
                    note("Files of this machine are served until the job is done, so this waits.")
                _finish(client, known, output, timeout, poll, overwrite=overwrite, mock=mock)


@app.command()
def wait(
    job_id: JobId,
    project_id: ProjectId,
    output: Output = None,
    overwrite: Overwrite = False,
    timeout: Timeout = WAIT,
    poll: Poll = None,
    output_path: OutputPath = None,
    as_json: AsJson = False,
) -> None:
    """Wait for the video of a job that was submitted before, here or elsewhere."""
    known = Known(as_json)
    with told(known):
        _check_wait(output, timeout, poll, overwrite=overwrite)
        with connected() as client:
            known.job = client.jobs.from_ids(job_id, project_id, output_path=output_path)
            _note_options(known, output, timeout, poll, output_path, overwrite=overwrite)
            _finish(client, known, output, timeout, poll, overwrite=overwrite, mock=mock_jobs())


@app.command()
def download(
    job_id: JobId,
    project_id: ProjectId,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A file, or a directory for JOB.mp4.")
    ] = Path(),
    overwrite: Overwrite = False,
    timeout: Annotated[float, typer.Option(help="Seconds for the whole download.")] = DOWNLOAD,
    output_path: OutputPath = None,
    as_json: AsJson = False,
) -> None:
    """Fetch the video of a job that is done; what broke off goes on from there."""
    known = Known(as_json, waited=True)
    _note_options(known, None if output == Path() else output, WAIT, None, output_path, overwrite=overwrite)
    with told(known), connected() as client:
        known.job = job = client.jobs.from_ids(job_id, project_id, output_path=output_path)
        file = _fetched(client, job, output, timeout, overwrite=overwrite)
        _say(known, job, None, file)


def _submitted(client: TechForge, known: Known, params: dict[str, Any]) -> Job:
    note(f"Project: {known.project_id}")
    known.submitting = True
    with unhurried():
        known.job = job = client.jobs.create(**params)
        note(f"Job: {job.id} ({job.status})")
        if not known.as_json:
            typer.echo(f"{job.id} {job.project_id}")
    return job


def _finish(
    client: TechForge,
    known: Known,
    output: Path | None,
    timeout: float,
    poll: float | None,
    *,
    overwrite: bool,
    mock: MockJobs | None,
) -> None:
    """Wait, fetch what is to be fetched, and say what has come of it."""
    assert known.job is not None  # noqa: S101 - it was submitted, or given
    schedule = RecordedSchedule() if poll is None else RecordedSchedule.every(poll)
    with waiting(schedule) as show:
        video = client.jobs.wait(known.job, timeout=timeout, poll=schedule, tracker=mock, on_update=show)
    known.job, known.waited = video.job, True
    about = f", {size(video.size)}" if video.size is not None else ""
    note(f"Done: {video.path}{about}")
    file = None
    if output is not None:
        file = _fetched(client, video, output, DOWNLOAD, overwrite=overwrite)
    _say(known, video.job, video, file)


def _fetched(client: TechForge, what: Job | Video, to: Path, timeout: float, *, overwrite: bool) -> Path:
    job = what.job if isinstance(what, Video) else what
    with downloading(Path(job.output_path).name) as show:
        return client.jobs.download(what, to, overwrite=overwrite, on_progress=show, timeout=timeout)


def _say(known: Known, job: Job, video: Video | None, file: Path | None) -> None:
    if known.as_json:
        result(_facts(known, job, video, file))
        return
    if file is not None:
        note(f"Saved: {size(file.stat().st_size)}")
        typer.echo(str(file))


def _facts(known: Known, job: Job, video: Video | None, file: Path | None) -> dict[str, Any]:
    """Return what programs are told; the signed URL is a secret, and `storage sign` makes one."""
    submission = {"attempts": job.attempts, "may_have_duplicates": job.may_have_duplicates}
    return {
        "job_id": job.id,
        "project_id": job.project_id,
        "status": "done" if file else job.status,
        "output_path": job.output_path,
        "size": video.size if video else file.stat().st_size if file else None,
        "content_type": video.content_type if video else None,
        "file": str(file) if file else None,
        **(submission if known.submitting else {}),
    }


# --- what is checked before anything is paid for --------------------------------------------------


def _check_wait(output: Path | None, timeout: float, poll: float | None, *, overwrite: bool) -> None:
    _checks.seconds("timeout", timeout)
    if poll is not None:
        RecordedSchedule.every(_checks.seconds("poll", poll))
    if output is None:
        return
    target = target_for("video.mp4", output)
    if not output.is_dir() and target.exists() and not overwrite:
        raise InvalidArgumentError("output", f"{target} is there already; give another name, or --overwrite")
    if not os.access(target.parent, os.W_OK):
        raise InvalidArgumentError("output", f"nothing can be written to {str(target.parent)!r}")


def _note_options(
    known: Known,
    output: Path | None,
    timeout: float,
    poll: float | None,
    output_path: str | None,
    *,
    overwrite: bool,
) -> None:
    """Note what the command that goes on needs, so that it does what was asked for."""
    fetch = {"--output": output, "--output-path": output_path}
    wait = {"--timeout": None if timeout == WAIT else f"{timeout:g}", "--poll": poll}
    known.fetch_with = (*_given(fetch), *(["--overwrite"] if overwrite else []))
    known.wait_with = tuple(_given(wait))


def _given(options: dict[str, Any]) -> list[str]:
    return [word for name, value in options.items() if value is not None for word in (name, str(value))]


def _fields(extra: list[str]) -> dict[str, object] | None:
    fields: dict[str, object] = {}
    for one in extra:
        name, equals, value = one.partition("=")
        if not equals or not name:
            raise InvalidArgumentError("extra", f"{one!r} is not NAME=VALUE")
        try:
            fields[name] = json.loads(value)
        except ValueError:
            fields[name] = value
    return fields or None
