"""The programs in docs/batch.md run as they are printed there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.postgres import campaign

from techforge.batch import Ledger, load
from techforge.mock import MockServer

DOCUMENT = Path(__file__).parents[2] / "docs" / "batch.md"
PROGRAMS = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
MANIFEST = "image_url,audio_url\nhttps://cdn.example.com/i.png,https://cdn.example.com/a.mp3\n"


@pytest.mark.parametrize("place", range(len(PROGRAMS)))
def test_a_program_of_the_document_runs(
    place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres_url: str
) -> None:
    """What is copied from there works, once the names that it leaves open are given."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "campaign.csv").write_text(MANIFEST, encoding="utf-8")
    with MockServer(render=False, job_looks=0) as mock:
        names = {
            "api_key": mock.api_key,
            "mock_url": mock.url,
            "folder": tmp_path,
            "ledger_url": campaign(postgres_url),
        }
        exec("from techforge import TechForge", names)  # noqa: S102 - a document imports it once
        with Ledger(names["ledger_url"]) as ledger:
            load(ledger, "campaign.csv", names["TechForge"](mock.api_key, base_url=mock.url)._settings)
        exec(PROGRAMS[place], names)  # noqa: S102
        if "on_webhook" in names:
            names["on_webhook"]({"jobId": "of-nobody"})
        else:
            assert mock.journal.count(operation="createJob") == 1
