"""A portrait and a narration become a video, through the SDK, against the mock server.

Run it with `python3 scripts/dev.py demo [--image FILE --audio FILE]`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import av
from rich.console import Console

import sample_media
from mock_process import mock_server
from techforge import Job, JobState, TechForge, TechForgeError
from techforge.cli.progress import RecordedSchedule, downloading, waiting
from techforge.cli.serving import published

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


class DemoError(Exception):
    """What ends the demo, for people."""


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


def samples(folder: Path, image: Path | None, audio: Path | None) -> dict[str, str]:
    """Return the paths of the image and the audio; make what was not given."""
    media: dict[str, str] = {}
    for field, given, name, make in (
        ("image_url", image, "portrait.png", sample_media.portrait),
        ("audio_url", audio, "narration.wav", sample_media.narration),
    ):
        if given is None:
            (folder / name).write_bytes(make())
            console.print(f"  made a sample: {name}")
        elif not given.is_file():
            raise DemoError(f"there is no file {given}")
        media[field] = str(given or folder / name)
    return media


def run(options: argparse.Namespace) -> None:
    """Carry the demo out."""
    with ExitStack() as stack:
        enter = stack.enter_context
        console.print("[bold]1[/] The inputs")
        media = samples(Path(enter(tempfile.TemporaryDirectory())), options.image, options.audio)
        urls = enter(published(media, to_mock=True))
        console.print("[bold]2[/] The mock server")
        server, mock = enter(mock_server("--job-seconds", "2"))
        console.print(f"  API {mock['url']}, storage {mock['storage_url']}, process {server.pid}")
        client = enter(TechForge(mock["api_key"], base_url=mock["url"], max_retries=1))
        try:
            console.print("[bold]3[/] client.jobs.create(image_url=…, audio_url=…)")
            job = client.jobs.create(
                image_url=urls["image_url"], audio_url=urls["audio_url"], output_size=options.size
            )
            console.print(f"  job {job.id} in project {job.project_id}")
            console.print("[bold]4[/] client.jobs.wait(job)")
            poll = RecordedSchedule(initial=0.2, factor=1.2, maximum=1.0, max_failures=2)
            with waiting(poll) as show:
                tracker = JobService(mock["url"])
                video = client.jobs.wait(job, timeout=120, poll=poll, tracker=tracker, on_update=show)
            console.print("[bold]5[/] client.jobs.download(video, folder)")
            OUTPUT.mkdir(exist_ok=True)
            with downloading(f"{job.id}.mp4") as show_bytes:
                path = client.jobs.download(video, OUTPUT, on_progress=show_bytes)
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
