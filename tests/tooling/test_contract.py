"""scripts/contract.py: a failure can be repeated by pasting one line."""

import json
import shutil
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import contract
import contract_mutants
from techforge.mock import MockServer


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return what says which mutant the contract is held against; none is the unmodified server."""
    shutil.copy(contract.ROOT / "openapi.json", tmp_path)
    mutants = contract_mutants.catalogue(json.loads((tmp_path / "openapi.json").read_text("utf-8")))
    monkeypatch.setattr(contract, "ROOT", tmp_path)
    monkeypatch.setattr(contract, "REPORTS", tmp_path / "reports" / "contract")

    def use(mutant: str) -> None:
        @contextmanager
        def server(*_: str, stderr: object) -> Iterator[tuple[None, dict[str, str]]]:
            del stderr
            served = mutants[mutant].serving if mutant else MockServer
            with served(render=False, job_polls=0) as running:
                yield None, {"url": running.url, "api_key": running.api_key}

        monkeypatch.setattr(contract, "mock_server", server)

    return use


def test_every_phase_and_check_is_on() -> None:
    """Schemathesis is told to leave nothing out, of any operation, and to ask the same every time."""
    settings = tomllib.loads((contract.CHECKS / "schemathesis.toml").read_text("utf-8"))
    assert settings["phases"] == {"enabled": True}
    assert settings["checks"] == {
        "enabled": True,
        "negative_data_rejection": {"expected-statuses": [400]},
        "positive_data_acceptance": {"expected-statuses": ["2xx", 404]},
    }
    assert type(settings["seed"]) is int
    assert settings.keys().isdisjoint({"operations", "project"}), (
        "these may have phases and checks of their own"
    )


@pytest.mark.leaking("the report has the requests to be repeated, with what the mock has signed")
@pytest.mark.parametrize(
    ("phase", "mutant"),
    [
        ("stateful", "createJob: an accepted job is forgotten"),
        ("examples", "createJob: NaN is a number"),  # found by a check of ours
    ],
)
def test_a_failure_can_be_repeated(
    phase: str, mutant: str, serve: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """The line is in the output and both reports, and works after the run, even for steps that are linked."""
    serve(mutant)
    assert contract.main(["--phases", phase, "--max-failures", "1"]) == 1
    shown = capsys.readouterr().out
    (line,) = {line.strip() for line in shown.splitlines() if line.strip().startswith(contract.REPLAY)}
    for report in ("junit.xml", "html/index.html"):
        assert line in (contract.REPORTS / report).read_text("utf-8")
    assert contract.USUAL_URL in shown
    case = line.removeprefix(contract.REPLAY).strip()
    assert contract.main(["replay", case]) == 1
    assert "not available" not in capsys.readouterr().out
    serve("")
    assert contract.main(["replay", case]) == 0
