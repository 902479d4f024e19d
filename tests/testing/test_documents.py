"""The tests in the documentation pass as they are printed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
PROGRAMS = [
    program
    for document in (ROOT / "README.md", ROOT / "docs" / "testing.md")
    for program in re.findall(r"```python\n(.*?)```", document.read_text("utf-8"), re.DOTALL)
    if "def test_" in program
]
CODE = """
from techforge import TechForge

def make_video():
    with TechForge() as client:
        return client.jobs.create_and_wait(
            image_url="https://a.example/i.png", audio_url="https://a.example/a.mp3"
        )
"""


@pytest.mark.parametrize("place", range(len(PROGRAMS)))
def test_the_tests_of_the_document_pass(
    place: int, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader can copy and run them."""
    program = PROGRAMS[place]
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", ":".join(filter(None, sys.path)))
    pytester.makepyfile(my_code=CODE, test_mine=program)
    result = pytester.runpytest_subprocess("-p", "pytest_techforge", "-W", "error", timeout=120)
    result.assert_outcomes(passed=len(re.findall(r"^def test_", program, re.MULTILINE)))
    assert result.ret == 0
