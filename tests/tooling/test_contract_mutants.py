"""scripts/contract_mutants.py: the catalogue is what it claims to be, and no survivor goes unseen."""

import json
from pathlib import Path

import httpx
import pytest

import contract_mutants
from contract_mutants import ORIGINAL, PERMITTED, Trial

DOCUMENT = json.loads((Path(__file__).resolve().parents[2] / "openapi.json").read_text("utf-8"))


@pytest.fixture
def document() -> dict:
    """Return a copy of the contract, to be changed."""
    return json.loads(json.dumps(DOCUMENT))


@pytest.fixture(autouse=True)
def _report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract_mutants, "REPORT", tmp_path / "report.json")


def trial(
    name: str = "one", failed: tuple[str, ...] = (), error: str = "", family: str = "statuses"
) -> Trial:
    """Return the result of a trial."""
    return Trial(name, family, list(failed), error, 1.0, "what schemathesis said")


def test_a_new_field_brings_its_own_mutants(document: dict) -> None:
    """Of a request: accepted when it is wrong, refused when it is right; of an answer: wrong."""
    before = set(contract_mutants.catalogue(document))
    schemas = document["components"]["schemas"]
    schemas["JobRequest"]["properties"]["mood"] = {"type": "string", "format": "uuid"}
    schemas["JobRequest"]["required"].append("mood")
    schemas["JobAccepted"]["properties"]["cost"] = {"type": "integer"}
    new = set(contract_mutants.catalogue(document)) - before
    assert new >= {
        "createJob: mood may be missing",
        "createJob: mood may be null",
        "createJob: mood: format is not checked",
        "createJob: mood: in capitals is refused",
        'createJob: 202: cost is "7"',
    }
    assert all("mood" in name or "cost" in name for name in new)


@pytest.mark.parametrize(
    ("name", "has_effect"),
    [
        ("createJob: 201 instead of 202", True),
        ("createJob: the key may be a cookie", False),
        ("createJob: crop is refused", False),
        ("createJob: version may be 7", False),
        ("createJob: every job has the same id", True),
        ("storage: any signature will do", False),
        ("idle", False),
    ],
)
def test_a_mutant_without_effect_is_an_error(document: dict, name: str, has_effect: bool) -> None:
    """It answers this request as the unmodified server does, so no test could find it."""
    catalogue = contract_mutants.catalogue(document)
    import mutants  # noqa: PLC0415

    mutant = catalogue.get(name) or mutants.Mutant(name)
    body = {
        "image_url": "https://cdn.example.com/image.png",
        "audio_url": "https://cdn.example.com/audio.mp3",
        "job_type": "ai_talking_video",
        "project_id": "468ea7a0-66e1-4357-a760-236e54167f3e",
    }
    with mutant.serving(render=False) as server:
        for _ in range(2):
            httpx.post(f"{server.url}/jobs/v2", json=body, headers={"x-api-key": server.api_key})
    assert bool(mutant.effects) is has_effect
    assert bool(contract_mutants.without_effect(mutant)) is not has_effect


def test_what_the_contract_permits_is_no_mutant(document: dict) -> None:
    """A server that does what the contract leaves open is tried, and must pass."""
    servers = contract_mutants.servers(document)
    permitted = {each.name for each in servers.values() if each.family == contract_mutants.PERMITTED}
    assert permitted == servers.keys() - contract_mutants.catalogue(document).keys()
    assert len(permitted) > 10
    assert all(mutant.family for mutant in servers.values())


@pytest.mark.parametrize(
    ("result", "verdict"),
    [
        (trial(failed=("a_check",)), "killed"),
        (trial(), "SURVIVED"),
        (trial(error="no server"), "ERROR"),
        (trial(failed=("a_check",), error="no server"), "ERROR"),
        (trial(family=ORIGINAL), "passed"),
        (trial(failed=("a_check",), family=ORIGINAL), "REFUSED"),
        (trial(family=PERMITTED), "passed"),
        (trial(failed=("a_check",), family=PERMITTED), "REFUSED"),
    ],
)
def test_what_is_wrong_is_reported(result: Trial, verdict: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A survivor, an error of the tool and a refused original end with 1, and show what schemathesis said."""
    status = contract_mutants.report([trial("other", failed=("a_check",)), result], 2)
    shown = capsys.readouterr().out
    assert status == verdict.isupper()
    assert verdict in shown
    assert ("what schemathesis said" in shown) == verdict.isupper()
    assert shown.count(verdict) >= 2
    assert json.loads(contract_mutants.REPORT.read_text("utf-8"))[1]["verdict"] == verdict


def test_a_name_that_nobody_has_is_an_error() -> None:
    """A typing mistake must not look like a success."""
    assert contract_mutants.chosen(["createJob: one", "two"], ["two"]) == ["two"]
    with pytest.raises(SystemExit, match="No mutant"):
        contract_mutants.chosen(["one"], ["three"])


@pytest.mark.parametrize(
    ("arguments", "count"),
    [([], contract_mutants.SAMPLE_SIZE + 1), (["--all"], 501), (["mutant 1", "mutant 2"], 222)],
)
def test_a_survivor_fails_the_run(
    arguments: list[str], count: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The default is a sample that its seed repeats; each run tries as many servers as it was asked to."""
    names = [f"mutant {number}" for number in range(500)]
    monkeypatch.setattr(contract_mutants, "servers", lambda _: dict.fromkeys(names))
    monkeypatch.setattr(contract_mutants, "tried", lambda chosen: [trial(name) for name in set(chosen)])
    assert contract_mutants.main(arguments) == 1
    shown = capsys.readouterr().out
    assert f"[{count}/{count}]" in shown
    assert ("contract-mutants --seed" in shown) is (not arguments)
    assert contract_mutants.sampled(names, "a") == contract_mutants.sampled(names, "a")
    assert contract_mutants.sampled(names, "a") != contract_mutants.sampled(names, "b")
