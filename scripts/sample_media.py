"""Makes a portrait and a narration, so that the demo needs nothing from elsewhere.

The portrait is drawn; the narration is a voice of three formants that babbles in sentences.
"""

import io
import math
import wave
from array import array

from PIL import Image, ImageDraw, ImageFilter

SIZE = 640
SAMPLE_RATE = 16_000

# Pitch, then the formants of a vowel in hertz; the lengths are in seconds.
_VOWELS = {"a": (730, 1090, 2440), "e": (530, 1840, 2480), "i": (270, 2290, 3010), "o": (570, 840, 2410)}
_SENTENCES = ("aeioa", "oiea", "eaoiea")
_SYLLABLE, _PAUSE = 0.22, 0.35


def portrait() -> bytes:
    """Return a PNG of a friendly face."""
    image = Image.new("RGB", (SIZE, SIZE))
    draw = ImageDraw.Draw(image)
    for y in range(SIZE):
        draw.line((0, y, SIZE, y), (40 + y // 8, 60 + y // 10, 110 + y // 9))
    draw.ellipse((110, 470, 530, 900), (52, 73, 122))  # shoulders
    draw.rounded_rectangle((270, 400, 370, 520), 40, (222, 178, 148))  # neck
    draw.ellipse((170, 90, 470, 330), (64, 42, 34))  # hair
    draw.ellipse((190, 120, 450, 460), (236, 194, 164))  # face
    draw.pieslice((175, 90, 465, 330), 180, 360, (64, 42, 34))
    for x in (262, 378):
        draw.ellipse((x - 28, 252, x + 28, 292), "white")
        draw.ellipse((x - 14, 258, x + 14, 286), (62, 92, 122))
        draw.ellipse((x - 7, 265, x + 7, 279), (20, 24, 30))
        draw.arc((x - 34, 216, x + 34, 262), 200, 340, (64, 42, 34), 7)
    draw.line((320, 285, 310, 345, 328, 348), (206, 158, 130), 6, joint="curve")  # nose
    draw.chord((268, 355, 372, 418), 10, 170, (176, 74, 74))  # mouth
    file = io.BytesIO()
    image.filter(ImageFilter.SMOOTH_MORE).save(file, "PNG")
    return file.getvalue()


def narration() -> bytes:
    """Return a WAV file of about four seconds."""
    samples = array("h")
    for sentence in _SENTENCES:
        for position, vowel in enumerate(sentence):
            samples.extend(_syllable(vowel, pitch=150 - 9 * position))
        samples.extend([0] * int(_PAUSE * SAMPLE_RATE))
    file = io.BytesIO()
    with wave.open(file, "wb") as recording:
        recording.setparams((1, 2, SAMPLE_RATE, 0, "NONE", "NONE"))
        recording.writeframes(samples.tobytes())
    return file.getvalue()


def _syllable(vowel: str, pitch: float) -> list[int]:
    harmonics = [(n, _loudness(n * pitch, _VOWELS[vowel])) for n in range(1, int(3_500 / pitch))]
    count = int(_SYLLABLE * SAMPLE_RATE)
    step = 2 * math.pi * pitch / SAMPLE_RATE
    return [
        int(
            7_000
            * math.sin(math.pi * i / count) ** 0.7
            * sum(loudness * math.sin(n * step * i) for n, loudness in harmonics)
        )
        for i in range(count)
    ]


def _loudness(frequency: float, formants: tuple[int, ...]) -> float:
    peaks = (math.exp(-(((frequency - formant) / 140) ** 2)) / (n + 1) for n, formant in enumerate(formants))
    return sum(peaks) + 0.02
