"""Fetch and decode the inputs of a video, an image and an audio file, within limits."""

import io
import math
import time
from array import array
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import av
import httpx
from av.error import FFmpegError
from PIL import Image, ImageOps

IMAGE_LIMIT = 20_000_000
AUDIO_LIMIT = 50_000_000
FETCH_SECONDS = 20.0
PIXEL_LIMIT = 50_000_000
AUDIO_SECONDS = 600

FRAME_RATE = 25
_LEVEL_RATE = 8_000
"""Samples per second for measuring the loudness of a voice."""
_SILENCE, _LOUD = -50.0, -8.0
"""Decibels that the meter shows as 0 and as 1."""
_IMAGES = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
# With playlist formats, FFmpeg would open the files and URLs that they list.
_SOUNDS = {"format_whitelist": "wav,mp3,aac,flac,ogg,mov,matroska,aiff", "protocol_whitelist": "none"}


class MediaError(Exception):
    """An input cannot be used. The message says which one and why."""


def fetch(field: str, url: str, limit: int, seconds: float = FETCH_SECONDS) -> bytes:
    """Return the content of a URL, within limits of size and time.

    Raises:
        MediaError: it cannot be fetched.
    """
    if urlsplit(url).scheme.lower() not in {"http", "https"}:
        raise MediaError(f"{field}: only http and https URLs can be fetched.")
    data = bytearray()
    deadline = time.monotonic() + seconds
    # No compression: it could expand without bound before the bytes are counted.
    headers = {"accept-encoding": "identity"}
    try:
        with (
            httpx.Client(
                timeout=seconds / 4, trust_env=False, follow_redirects=True, max_redirects=3, headers=headers
            ) as client,
            client.stream("GET", url) as response,
        ):
            if not response.is_success:
                raise MediaError(f"{field}: its server responded with {response.status_code}.")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise MediaError(f"{field}: its server sent a compressed response.")
            for chunk in response.iter_raw():
                data += chunk
                if len(data) > limit:
                    raise MediaError(f"{field}: larger than {limit:,} bytes.")
                if time.monotonic() > deadline:
                    raise MediaError(f"{field}: not complete within {seconds:g} seconds.")
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        raise MediaError(f"{field}: could not be fetched ({str(error) or type(error).__name__}).") from error
    return bytes(data)


def open_image(data: bytes) -> Image.Image:
    """Return the image upright and without transparency.

    Raises:
        MediaError: it is not an image, or too large.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_IMAGES) as image:
            if image.width * image.height > PIXEL_LIMIT:
                raise MediaError(f"image_url: {image.width} x {image.height} pixels are too many.")
            upright = ImageOps.exif_transpose(image).convert("RGBA")
    except Image.DecompressionBombError as error:
        raise MediaError("image_url: it has too many pixels.") from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise MediaError(f"image_url: it cannot be read as {', '.join(_IMAGES)}.") from error
    ground = Image.new("RGBA", upright.size, "white")
    return Image.alpha_composite(ground, upright).convert("RGB")


@contextmanager
def open_audio(data: bytes) -> Generator[Iterator[av.AudioFrame]]:
    """Decode the audio frame by frame.

    Raises:
        MediaError: it is not audio.
    """
    try:
        with av.open(io.BytesIO(data), "r", options=_SOUNDS) as container:
            if not container.streams.audio:
                raise MediaError("audio_url: it has no audio stream.")
            yield container.decode(container.streams.audio[0])
    except FFmpegError as error:
        raise MediaError(f"audio_url: it cannot be read as audio ({error.strerror}).") from error


def voice_levels(data: bytes) -> list[float]:
    """Return the loudness of the voice, from 0 to 1, for each frame of the video.

    Raises:
        MediaError: there is no sound, or it is too long.
    """
    samples = array("h")
    resampler = av.AudioResampler(format="s16", layout="mono", rate=_LEVEL_RATE)
    with open_audio(data) as frames:
        for frame in frames:
            _collect(samples, resampler.resample(frame))
            if len(samples) > AUDIO_SECONDS * _LEVEL_RATE:
                raise MediaError(f"audio_url: longer than {AUDIO_SECONDS} seconds.")
        _collect(samples, resampler.resample(None))
    if not samples:
        raise MediaError("audio_url: it contains no sound.")
    step = _LEVEL_RATE // FRAME_RATE
    return [_level(samples[at : at + step]) for at in range(0, len(samples), step)]


def _collect(samples: "array[int]", frames: list[Any]) -> None:
    for frame in frames:
        # A plane may be longer than its samples.
        samples.frombytes(bytes(frame.planes[0])[: frame.samples * samples.itemsize])


def _level(samples: "array[int]") -> float:
    power = sum(sample * sample for sample in samples) / len(samples) / 32768**2
    if not power:
        return 0.0
    decibels = 10 * math.log10(power)
    return min(max((decibels - _SILENCE) / (_LOUD - _SILENCE), 0.0), 1.0)
