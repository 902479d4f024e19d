"""The renderer: it makes an H.264 and AAC video from an image and a voice."""

# PyAV's stubs leave the parameters of their own generics open.
# pyright: reportUnknownMemberType=false

import io
import math
import wave
from collections.abc import Iterator
from functools import cache
from itertools import accumulate, islice

import av
from PIL import Image, ImageDraw, ImageFont, ImageOps

from techforge.mock.media import FRAME_RATE, open_audio, open_image, voice_levels

_SOUND_RATE = 48_000
_GROUND = "#101418"
_BARS = 9
_OPACITY = 200
_SHADE = 90
_FALL = 0.85
"""The meter falls at most to this share of its level per frame, so that it does not flicker."""
_FINE = 4
"""The meter is drawn this many times larger than shown, for smooth edges."""


def render(image: bytes, audio: bytes, *, size: int, crop: bool) -> bytes:
    """Return an MP4 of `size` x `size` pixels, as long as the audio.

    Raises:
        MediaError: the image or the audio cannot be used.
    """
    pictures = _pictures(_still(open_image(image), size, crop=crop), voice_levels(audio))
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as movie, open_audio(audio) as sounds:
        video = movie.add_stream("libx264", FRAME_RATE, options={"preset": "veryfast", "crf": "23"})
        video.width = video.height = size
        video.pix_fmt = "yuv420p"
        voice = movie.add_stream("aac", _SOUND_RATE)
        seconds, shown = 0.0, 0
        for sound in sounds:
            # Audio streams may start at any time; the video starts at zero.
            sound.pts = None
            movie.mux(voice.encode(sound))
            seconds += sound.samples / sound.sample_rate
            # Interleave frames and sound: otherwise the muxer would buffer one of them completely.
            due = math.ceil(seconds * FRAME_RATE)
            for picture in islice(pictures, due - shown):
                movie.mux(video.encode(picture))
            shown = due
        for picture in pictures:
            movie.mux(video.encode(picture))
        movie.mux(voice.encode(None))
        movie.mux(video.encode(None))
    return file.getvalue()


@cache
def tiny_video() -> bytes:
    """Return the video for all jobs if nothing is rendered."""
    image, audio = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (16, 16), _GROUND).save(image, "PNG")
    with wave.open(audio, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8_000)
        sound.writeframes(bytes(2 * 1_600))
    return render(image.getvalue(), audio.getvalue(), size=16, crop=True)


def _still(image: Image.Image, size: int, *, crop: bool) -> Image.Image:
    """Return the static part: the square image, the mark in a corner, and the plate of the meter."""
    edges = (size, size)
    square = ImageOps.fit(image, edges) if crop else ImageOps.pad(image, edges, color=_GROUND)
    mark = Image.new("L", edges)
    ImageDraw.Draw(mark).text(
        (size * 0.97, size * 0.03),
        "mock render",
        fill=150,
        font=ImageFont.load_default(max(size / 28, 8)),
        anchor="ra",
    )
    # A shadow keeps the mark readable on a bright image.
    square.paste("black", (1, 1), mark)
    square.paste("white", (0, 0), mark)
    square.paste("black", (0, 0), _plate(size))
    return square


def _meter_box(size: int) -> tuple[int, int, int, int]:
    return (size // 4, size * 13 // 16, size - size // 4, size * 15 // 16)


def _plate(size: int) -> Image.Image:
    """Return a dark plate as a mask. It keeps the meter visible on a bright image."""
    left, top, right, bottom = _meter_box(size)
    margin = size // 40
    mask = Image.new("L", (size, size))
    corners = (left - margin, top - margin, right + margin, bottom + margin)
    ImageDraw.Draw(mask).rounded_rectangle(corners, 2 * margin, fill=_SHADE)
    return mask


def _pictures(still: Image.Image, levels: list[float]) -> Iterator[av.VideoFrame]:
    """Yield the frames of the video. Only the meter is redrawn."""
    size = still.width
    box = _meter_box(size)
    canvas = still.convert("RGBA")
    ground = canvas.crop(box)
    meter = Image.new("RGBA", ground.size, "white")
    # The outer bars follow the middle one with a delay, so they start with silence.
    voice = [0.0] * _BARS + list(accumulate(levels, lambda last, now: max(now, last * _FALL)))
    for number in range(len(levels)):
        heights = [voice[number + _BARS - 2 * abs(bar - _BARS // 2)] for bar in range(_BARS)]
        canvas.paste(Image.composite(meter, ground, _bars(ground.size, heights)), box)
        frame = av.VideoFrame.from_bytes(canvas.tobytes(), size, size)
        frame.pts = number
        yield frame


def _bars(size: tuple[int, int], heights: list[float]) -> Image.Image:
    """Return the meter as a mask: rounded bars around the middle line, dots for silence."""
    width, height = size[0] * _FINE, size[1] * _FINE
    mask = Image.new("L", (width, height))
    draw = ImageDraw.Draw(mask)
    thick = width / (2 * len(heights) - 1)
    for bar, level in enumerate(heights):
        half = max(level * height, min(thick, height)) / 2
        corners = (2 * bar * thick, height / 2 - half, (2 * bar + 1) * thick, height / 2 + half)
        draw.rounded_rectangle(corners, thick / 2, fill=_OPACITY)
    return mask.reduce(_FINE)
