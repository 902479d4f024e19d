"""Make one video with the techforge that is installed, against a mock server: is it in working order?"""

from pathlib import Path
from tempfile import TemporaryDirectory

from mock_process import mock_server
from techforge import TechForge


def main() -> None:
    """Create a job, wait for it, and download its video."""
    with (
        TemporaryDirectory() as folder,
        mock_server("--no-render", "--job-seconds", "0.5") as (_, server),
        TechForge(server["api_key"], base_url=server["url"]) as client,
    ):
        job = client.jobs.create(
            image_url="https://cdn.example.com/image.png", audio_url="https://cdn.example.com/audio.mp3"
        )
        video = client.jobs.wait(job, timeout=60)
        file = client.jobs.download(video, Path(folder))
        print(f"{file.name}: {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
