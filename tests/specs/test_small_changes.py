"""Ten small changes of the contract: each overlay in this folder has the report that we expect."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from oas_patch.file_utils import load_file
from oas_patch.overlay import apply_overlay

import spec
from changes.candidate import read

CHANGES = sorted(Path(__file__).parent.glob("[0-9][0-9]-*.yaml"))


def test_there_are_ten() -> None:
    """An empty folder would pass the test below."""
    assert len(CHANGES) == 10


@pytest.mark.parametrize("path", CHANGES, ids=lambda path: path.stem)
def test_verdict(path: Path, tmp_path: Path) -> None:
    """The report for the API's user, the SDK's user and the wrapper's author is as expected."""
    change: dict[str, Any] = load_file(str(path))
    expected = change["x-expected"]
    candidate = tmp_path / "candidate.json"
    contract = apply_overlay(load_file(str(spec.ROOT / "openapi.json")), change)
    candidate.write_text(json.dumps(contract), encoding="utf-8")

    report = spec.examine(read(str(candidate)), tmp_path)

    # Line numbers are no part of the verdict.
    wrapper = [
        re.sub(r"wrapper/techforge/(.+?):\d+: error: (.*?)  \[.*", r"\1: \2", line) for line in report.wrapper
    ]
    assert {
        "api": sorted(map(str, report.api)),
        "sdk": sorted(map(str, report.sdk)),
        "wrapper": wrapper or "fits",
        "version": report.proposal.level,
    } == expected
    assert report.todo == []
