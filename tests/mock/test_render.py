"""Renders are real videos, made from bounded inputs, and failures say why."""

import io
import statistics
import time
from collections.abc import Callable
from typing import Any

import av
import httpx
import pytest

from techforge.mock import MockServer
from techforge.mock import media as media_module
from techforge.mock.media import MediaError, fetch, open_image, voice_levels
from techforge.mock.renderer import render, tiny_video
from techforge.mock.worker import RenderError, Workers, produce

Make = Callable[..., bytes]


def frames(video: bytes) -> list[Any]:
    """The pictures of a video."""
    container: Any
    with av.open(io.BytesIO(video), "r") as container:
        return [frame.to_image() for frame in container.decode(video=0)]


@pytest.mark.parametrize("crop", [True, False])
def test_video_is_real(make_picture: Make, make_voice: Make, crop: bool) -> None:
    """The video is H.264 and AAC, square, at 25 frames a second, and as long as the audio."""
    video = render(make_picture(), make_voice(0.5, seconds=1.5), size=64, crop=crop)
    with av.open(io.BytesIO(video), "r") as container:
        assert "mp4" in container.format.name
        picture, sound = container.streams.video[0], container.streams.audio[0]
        assert (picture.codec.name, sound.codec.name) == ("h264", "aac")
        assert (picture.width, picture.height) == (64, 64)
        assert picture.average_rate == 25
        for stream in (picture, sound):
            assert stream.duration
            assert stream.time_base
            assert abs(stream.duration * stream.time_base - 1.5) < 0.1
        assert any(any(bytes(frame.planes[0])) for frame in container.decode(sound))


def test_voice_shows(make_picture: Make, make_voice: Make) -> None:
    """The picture moves with the voice: a loud frame differs from a silent one."""
    shots = frames(render(make_picture(), make_voice(0.0, 1.0, seconds=1.0), size=128, crop=True))
    silent, still_silent, loud = shots[10], shots[20], shots[45]
    area = (32, 96, 96, 120)

    def brightness(shot: Any) -> float:
        return float(statistics.mean(shot.convert("L").crop(area).tobytes()))

    assert abs(brightness(silent) - brightness(still_silent)) < 3
    assert brightness(loud) > brightness(silent) + 15


def test_crop_fills_and_letterbox_keeps(make_picture: Make, make_voice: Make) -> None:
    """Cropped, a wide picture fills the square; otherwise all of it is there, between bars."""
    picture = make_picture(200, 100, "red")
    cropped, boxed = (
        frames(render(picture, make_voice(0.0, seconds=0.1), size=64, crop=crop))[0] for crop in (True, False)
    )
    assert cropped.getpixel((5, 5))[0] > 200
    assert boxed.getpixel((5, 5))[0] < 60
    assert boxed.getpixel((5, 32))[0] > 200


def test_render_is_quick(make_picture: Make, make_voice: Make) -> None:
    """Five seconds of video take far less than five seconds."""
    picture, sound = make_picture(900, 600), make_voice(0.7, seconds=5.0)
    started = time.process_time()
    render(picture, sound, size=400, crop=True)
    assert time.process_time() - started < 3


def test_tiny_video_is_real() -> None:
    """The video that stands for all others without a render can be played, and is always the same."""
    assert len(frames(tiny_video())) == 5
    assert tiny_video() is tiny_video()


def test_levels(make_voice: Make) -> None:
    """Levels go from 0 for silence to 1 for a shout, one for each frame."""
    levels = voice_levels(make_voice(0.0, 0.1, 1.0, seconds=0.4))
    assert len(levels) == 30
    assert levels[5] == 0
    assert 0.3 < levels[15] < 0.9
    assert levels[25] == 1


@pytest.fixture
def rendering() -> Any:
    """A server that renders, and whose jobs are done as soon as they can be."""
    with MockServer(job_polls=0) as server:
        yield server


def outcome(server: MockServer, request: dict[str, Any], seconds: float = 20) -> tuple[str, str]:
    """How a job ends."""
    job_id = server.store.accept(request)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        view = server.store.poll_job(job_id)
        assert view
        if view.status in {"done", "failed"}:
            return view.status, view.message
        time.sleep(0.02)
    raise AssertionError("the job did not end")


def test_job_gets_its_video(
    rendering: MockServer, job: dict[str, Any], media: str, output_path: Callable[[str], str]
) -> None:
    """A job's picture and voice are fetched and become the video that can be downloaded."""
    request = job | {"image_url": f"{media}/image.png", "audio_url": f"{media}/audio.wav", "output_size": 101}
    assert outcome(rendering, request) == ("done", "The video is ready.")
    job_id = next(iter(rendering.store._jobs))
    url = httpx.get(
        rendering.url + "/storage/generate-signed-path",
        params={"path": output_path(job_id)},
        headers={"x-api-key": rendering.api_key},
    ).json()["signedUrl"]
    shots = frames(httpx.get(url).content)
    assert shots[0].size == (100, 100)
    assert len(shots) == 25


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image_url": "/nope"}, "image_url: its server responded with 404"),
        ({"audio_url": "/nope"}, "audio_url: its server responded with 404"),
        ({"image_url": "/text"}, "image_url: it cannot be read as PNG"),
        ({"image_url": "/cut.png"}, "image_url: it cannot be read"),
        ({"audio_url": "/text"}, "audio_url: it cannot be read as audio"),
        ({"audio_url": "/image.png"}, "audio_url: it cannot be read as audio"),
        ({"audio_url": "/playlist.m3u8"}, "audio_url: it cannot be read as audio"),
        ({"output_size": 15}, "output_size: 15 is not from 16 to 2048"),
        ({"output_size": 10**30}, "output_size"),
        ({"image_url": "file:///etc/passwd"}, "image_url: only http and https"),
        ({"image_url": "http://127.0.0.1:9/x"}, "image_url: could not be fetched"),
        ({"image_url": "/hop/5"}, "image_url: could not be fetched"),
    ],
)
def test_bad_input_is_named(job: dict[str, Any], media: str, change: dict[str, Any], reason: str) -> None:
    """A job that cannot be rendered says which input is to blame, and why."""
    good = {"image_url": "/image.png", "audio_url": "/audio.wav"}
    request = {
        key: media + value if isinstance(value, str) and value.startswith("/") else value
        for key, value in (job | good | change).items()
    }
    with pytest.raises(MediaError) as caught:
        produce(request)
    assert str(caught.value).startswith(reason)


def test_failed_job_says_why(rendering: MockServer, job: dict[str, Any], media: str) -> None:
    """The reason comes all the way from the worker to the job."""
    request = job | {"image_url": f"{media}/nope", "audio_url": f"{media}/audio.wav"}
    assert outcome(rendering, request) == ("failed", "image_url: its server responded with 404.")


def test_fetching_is_bounded(media: str) -> None:
    """Too much, or too slow, is not fetched to the end."""
    with pytest.raises(MediaError, match="larger than 1,000,000 bytes"):
        fetch("image_url", f"{media}/huge", 1_000_000)
    started = time.monotonic()
    with pytest.raises(MediaError, match="not complete within"):
        fetch("image_url", f"{media}/drip", 1_000, seconds=0.4)
    assert time.monotonic() - started < 2
    assert fetch("image_url", f"{media}/hop/2", 1_000_000).startswith(b"\x89PNG")


def test_proxies_are_ignored(media: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's proxies are not for the mock."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert fetch("image_url", f"{media}/image.png", 1_000_000)


def test_picture_has_a_limit(make_picture: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file that unpacks to a huge picture is refused before it is unpacked."""
    monkeypatch.setattr(media_module, "PIXEL_LIMIT", 1_000)
    with pytest.raises(MediaError, match="90 x 60 pixels are too many"):
        open_image(make_picture())


def test_sound_has_a_limit(make_voice: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A voice that goes on for too long is refused."""
    monkeypatch.setattr(media_module, "AUDIO_SECONDS", 1)
    with pytest.raises(MediaError, match="longer than 1 seconds"):
        voice_levels(make_voice(0.5, seconds=1.5))


def test_sound_without_a_sample(make_voice: Make) -> None:
    """A sound file in which nothing is heard for no time makes no video."""
    with pytest.raises(MediaError, match="audio_url: "):
        voice_levels(make_voice())


def test_server_answers_while_rendering(rendering: MockServer, job: dict[str, Any], media: str) -> None:
    """A render blocks no one: answers stay below a tenth of a second."""
    request = job | {"image_url": f"{media}/image.png", "audio_url": f"{media}/long.wav", "output_size": 800}
    jobs = [rendering.store.accept(request) for _ in range(3)]
    waits: list[float] = []
    with httpx.Client(base_url=rendering.url, trust_env=False) as client:
        while len(waits) < 20:
            started = time.monotonic()
            assert client.post("/jobs/v2").status_code == 401
            waits.append(time.monotonic() - started)
            time.sleep(0.02)
    view = rendering.store.poll_job(jobs[-1])
    assert view
    assert view.status == "processing"
    assert statistics.median(waits) < 0.1


def test_stop_ends_renders(job: dict[str, Any], media: str) -> None:
    """Stopping a server does not wait for what it renders, and leaves no process behind."""
    request = job | {"image_url": f"{media}/drip", "audio_url": f"{media}/audio.wav"}
    workers = Workers()
    futures = [workers.submit(request) for _ in range(3)]
    time.sleep(0.2)
    started = time.monotonic()
    workers.close()
    assert time.monotonic() - started < 2
    assert not workers._running
    assert all(future.cancelled() or future.exception() for future in futures)


def test_crash_of_a_worker(job: dict[str, Any]) -> None:
    """A worker that crashes fails its job only, with what it said last."""
    workers = Workers()
    request = {key: value for key, value in job.items() if key != "image_url"}
    with pytest.raises(RenderError, match=r"ended with status 1\. KeyError: 'image_url'"):
        workers.submit(request).result()
    workers.close()
