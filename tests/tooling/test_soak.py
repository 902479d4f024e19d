"""scripts/soak.py: what it counts is what has happened."""

import json
import subprocess
import sys

import pytest

import soak
from techforge import APIConnectionError
from techforge.errors import Outcome


def made(project: str, *jobs: str) -> list[dict[str, str]]:
    """Return what the mock's journal says of jobs that it has made."""
    body = json.dumps({"project_id": project}, separators=(",", ":"))
    return [{"operation": "createJob", "job_id": job, "body": body} for job in jobs]


@pytest.mark.parametrize(
    ("known", "jobs", "twice", "lost"),
    [
        ("one", ["one"], 0, 0),
        ("?", ["one"], 0, 0),
        (None, ["one"], 0, 1),
        ("other", ["one"], 0, 1),
        ("one", ["one", "two"], 1, 0),
        ("?", ["one", "two"], 1, 0),
        (None, [], 0, 0),
    ],
)
def test_a_job_is_lost_or_made_twice(known: str | None, jobs: list[str], twice: int, lost: int) -> None:
    """Whatever the server made has to be known, and be one; a doubt that is told is no loss."""
    project = "468ea7a0-66e1-4357-a760-236e54167f3e"
    count = soak.Count(known={project: known})
    count.reckon(made(project, *jobs))
    assert (count.twice, count.lost) == (twice, lost)
    assert count.bad == bool(twice or lost)


def test_errors_of_ours_are_counted_and_others_are_defects() -> None:
    """A caller that catches `TechForgeError` has to be safe."""
    count = soak.Count()
    count.failure("create", "p", APIConnectionError("lost", outcome=Outcome.UNKNOWN))
    assert not count.bad
    count.failure("wait", "p", ValueError("raw"))
    assert count.bad


def test_a_short_soak() -> None:
    """It runs, and finds all as promised."""
    command = [sys.executable, "-W", "error", soak.__file__, "--minutes", "0.05"]
    done = subprocess.run(command, check=False, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all as promised" in done.stdout
