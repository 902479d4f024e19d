"""scripts/contract.py: a failure can be repeated by pasting one line."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import contract
import contract_mutants
from techforge.mock import TEST_API_KEY, MockServer


def test_a_failure_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line is in the output and both reports, and works after the run, even for steps that are linked."""
    shutil.copy(contract.ROOT / "openapi.json", tmp_path)
    monkeypatch.setattr(contract, "REPORTS", tmp_path / "reports" / "contract")
    mutants = contract_mutants.catalogue(json.loads((tmp_path / "openapi.json").read_text("utf-8")))
    monkeypatch.setattr(contract, "ROOT", tmp_path)
    serve = mutants["createJob: an accepted job is forgotten"].serving

    @contextmanager
    def server(*_: str) -> Iterator[tuple[None, dict[str, str]]]:
        with serve(render=False, job_looks=0) as running:
            yield None, {"url": running.url, "api_key": running.api_key}

    monkeypatch.setattr(contract, "mock_server", server)
    assert contract.main(["--phases", "stateful", "--max-failures", "1"]) == 1
    shown = capsys.readouterr().out
    (line,) = {line.strip() for line in shown.splitlines() if line.strip().startswith(contract.REPLAY)}
    case = line.removeprefix(contract.REPLAY).strip()
    for report in ("junit.xml", "html/index.html"):
        text = (contract.REPORTS / report).read_text("utf-8")
        assert line in text
    assert f"curl -X POST -H 'x-api-key: {TEST_API_KEY}'" in shown
    assert contract.USUAL_URL in shown
    assert contract.main(["replay", case]) == 1
    serve = MockServer
    assert contract.main(["replay", case]) == 0
