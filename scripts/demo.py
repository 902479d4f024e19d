"""A portrait and a narration become a video, through the SDK, against the mock server.

Run it with `python3 scripts/dev.py demo [--image FILE --audio FILE]`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import threading
import urllib.request
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

import sample_media
from mock_process import Address, mock_server
from techforge import Job, JobState, JobUpdate, PollSchedule, TechForge, TechForgeError, Video

if TYPE_CHECKING:
    from collections.abc import Generator

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "demo-output"

console = Console(highlight=False, soft_wrap=True)


class JobService:
    """The mock's job service as a tracker: v1.0.0 of the API itself tells of no job's state."""

    def __init__(self, url: str) -> None:
        self._url = url

    def check(self, job: Job) -> JobState:
        """Ask where the job stands."""
        with urllib.request.urlopen(f"{self._url}/__mock__/jobs/{job.id}", timeout=5) as answer:  # noqa: S310
            row = json.load(answer)
        return JobState(row["status"], row["message"], row["output_path"])


class Quiet(SimpleHTTPRequestHandler):
    """A file server that does not talk."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's names
        """Say nothing."""


@contextmanager
def published(folder: Path) -> Generator[str]:
    """Serve a folder: the API fetches the image and the audio from URLs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class DemoError(Exception):
    """What ends the demo, for people."""


def prepare(folder: Path, image: Path | None, audio: Path | None) -> tuple[str, str]:
    """Put the image and the audio into the folder; return their names there."""
    names: list[str] = []
    for given, name, make in (
        (image, "portrait.png", sample_media.portrait),
        (audio, "narration.wav", sample_media.narration),
    ):
        if given is None:
            (folder / name).write_bytes(make())
            console.print(f"  made a sample: {name}")
        elif given.is_file():
            # Renamed, so that no character of the user's file name has to survive a URL.
            name = Path(name).stem + given.suffix.lower()  # noqa: PLW2901
            shutil.copyfile(given, folder / name)
            console.print(f"  taken: {given}")
        else:
            raise DemoError(f"there is no file {given}")
        names.append(name)
    return names[0], names[1]


def waited_for(client: TechForge, job: Job, mock: Address) -> Video:
    """Wait for the video, with a line that moves."""
    line = Progress(
        SpinnerColumn(), TextColumn("job {task.fields[status]}"), TimeElapsedColumn(), console=console
    )
    with line:
        task = line.add_task("", total=None, status=job.status)

        def show(update: JobUpdate) -> None:
            line.update(task, status=update.status)

        return client.jobs.wait(
            job,
            timeout=120,
            poll=PollSchedule(initial=0.2, factor=1.2, maximum=1.0, max_failures=2),
            tracker=JobService(mock["url"]),
            on_update=show,
        )


def downloaded(client: TechForge, video: Video) -> Path:
    """Download the video, with a bar."""
    OUTPUT.mkdir(exist_ok=True)
    with Progress(TextColumn("download"), BarColumn(), DownloadColumn(), console=console) as bar:
        task = bar.add_task("", total=video.size)

        def show(received: int, total: int | None) -> None:
            bar.update(task, completed=received, total=total)

        return client.jobs.download(video, OUTPUT, on_progress=show)


def described(path: Path) -> str:
    """Say what kind of video a file holds, by decoding it."""
    with av.open(str(path)) as container:
        picture, sound = container.streams.video[0], container.streams.audio[0]
        frames = sum(1 for _ in container.decode(picture))
        seconds = frames / float(picture.average_rate or 1)
        return (
            f"{path.stat().st_size:,} bytes, {seconds:.1f} s, {picture.width}x{picture.height}, "
            f"{picture.codec_context.name}/{sound.codec_context.name}, {frames} frames decoded"
        )


def run(options: argparse.Namespace) -> None:
    """Carry the demo out."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        console.print("[bold]1[/] The inputs")
        image, audio = prepare(folder, options.image, options.audio)
        files = stack.enter_context(published(folder))
        console.print("[bold]2[/] The mock server")
        server, mock = stack.enter_context(mock_server("--job-seconds", "2"))
        console.print(f"  API {mock['url']}, storage {mock['storage_url']}, process {server.pid}")
        client = stack.enter_context(TechForge(mock["api_key"], base_url=mock["url"], max_retries=1))
        try:
            console.print("[bold]3[/] client.jobs.create(image_url=…, audio_url=…)")
            job = client.jobs.create(
                image_url=f"{files}/{image}", audio_url=f"{files}/{audio}", output_size=options.size
            )
            console.print(f"  job {job.id} in project {job.project_id}")
            console.print("[bold]4[/] client.jobs.wait(job)")
            video = waited_for(client, job, mock)
            console.print("[bold]5[/] client.jobs.download(video, folder)")
            path = downloaded(client, video)
        except (TechForgeError, OSError) as error:
            if server.poll() is not None:
                raise DemoError(
                    f"the mock server has stopped (exit code {server.returncode}) before the video was here; "
                    "run the demo again"
                ) from error
            raise DemoError(str(error)) from error
    console.print(f"\n[bold green]Done.[/] {path}\n  {described(path)}")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="dev.py demo", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--image", type=Path, metavar="FILE", help="a portrait (png, jpeg, webp); default: a sample"
    )
    parser.add_argument(
        "--audio", type=Path, metavar="FILE", help="a narration (wav, mp3, …); default: a sample"
    )
    parser.add_argument(
        "--size", type=int, default=400, metavar="PIXELS", help="edge of the video (%(default)s)"
    )
    return parser.parse_args()


def main() -> int | str:
    """Run the demo; what ends it is one line on stderr."""
    options: Any = arguments()
    try:
        run(options)
    except DemoError as error:
        return f"\ndemo: {error}"
    except KeyboardInterrupt:
        console.print("\ndemo: stopped")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
