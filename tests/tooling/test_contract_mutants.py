"""scripts/contract_mutants.py: the catalogue is what it claims to be, and no survivor goes unseen."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import contract_mutants
from contract_mutants import ORIGINAL, Trial

DOCUMENT = json.loads((Path(__file__).resolve().parents[2] / "openapi.json").read_text("utf-8"))


@pytest.fixture
def document() -> dict:
    """Return a copy of the contract, to be changed."""
    return json.loads(json.dumps(DOCUMENT))


@pytest.fixture(autouse=True)
def _report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract_mutants, "REPORT", tmp_path / "report.json")


def trial(name: str = "one", failed: tuple[str, ...] = (), error: str = "") -> Trial:
    """Return the result of a trial."""
    return Trial(name, list(failed), error, 1.0, "what schemathesis said")


def test_the_catalogue_is_long(document: dict) -> None:
    """Forty mutants at least, each with a name of its own, for each operation."""
    names = list(contract_mutants.catalogue(document))
    assert len(names) >= 40
    assert {"createJob", "generateSignedPath", "storage"} == {
        name.partition(":")[0].split()[0] for name in names
    }


def test_no_two_mutants_share_a_name(document: dict) -> None:
    """One of them would not be tried."""
    contract_mutants.catalogue(document)
    import mutants  # noqa: PLC0415 - found since the line above

    twice = [
        name
        for name, count in Counter(each.name for each in mutants.catalogue(document)).items()
        if count > 1
    ]
    assert twice == []


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


def test_a_mutant_that_changes_nothing_is_an_error(document: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would survive every test, and nobody would know why."""
    contract_mutants.catalogue(document)
    import mutants  # noqa: PLC0415

    idle = mutants.Mutant("idle", document)
    monkeypatch.setattr(mutants, "catalogue", lambda _: [idle])
    with pytest.raises(SystemExit, match=r"change nothing.*idle"):
        contract_mutants.catalogue(document)


@pytest.mark.parametrize(
    ("result", "verdict"),
    [
        (trial(failed=("a_check",)), "killed"),
        (trial(), "SURVIVED"),
        (trial(error="no server"), "ERROR"),
        (trial(failed=("a_check",), error="no server"), "ERROR"),
        (trial(ORIGINAL), "passed"),
        (trial(ORIGINAL, failed=("a_check",)), "REFUSED"),
    ],
)
def test_what_is_wrong_is_reported(result: Trial, verdict: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A survivor, an error of the tool and a refused original end with 1, and show what schemathesis said."""
    status = contract_mutants.report([trial("other", failed=("a_check",)), result], 2)
    shown = capsys.readouterr().out
    assert status == verdict.isupper()
    assert verdict in shown
    assert ("what schemathesis said" in shown) == verdict.isupper()
    assert json.loads(contract_mutants.REPORT.read_text("utf-8"))[1]["verdict"] == verdict


def test_the_summary_counts_mutants_only(capsys: pytest.CaptureFixture[str]) -> None:
    """The original is no mutant."""
    contract_mutants.report([trial(ORIGINAL), trial("one", failed=("a_check",)), trial("two")], 3)
    assert "1 of 2 killed" in capsys.readouterr().out


def test_the_verdicts_come_last(capsys: pytest.CaptureFixture[str]) -> None:
    """What schemathesis said is long, and would push them off the screen."""
    contract_mutants.report([trial("one"), trial("two", failed=("a_check",))], 2)
    shown = capsys.readouterr().out
    assert "[1/2] SURVIVED" in shown
    assert shown.index("what schemathesis said") < shown.rindex("SURVIVED")


def test_an_interrupt_loses_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """What has been tried is reported, and that it is not all."""

    def trials() -> Iterator[Trial]:
        yield trial("one", failed=("a_check",))
        raise KeyboardInterrupt

    assert contract_mutants.report(trials(), 5) == 130
    assert "1 of 1 killed" in (shown := capsys.readouterr().out)
    assert "4 of 5 were not tried" in shown
    assert len(json.loads(contract_mutants.REPORT.read_text("utf-8"))) == 1


def test_a_name_that_nobody_has_is_an_error() -> None:
    """A typing mistake must not look like a success."""
    assert contract_mutants.chosen(["createJob: one", "two"], ["two"]) == ["two"]
    with pytest.raises(SystemExit, match="No mutant"):
        contract_mutants.chosen(["one"], ["three"])


def test_a_seed_decides_the_sample() -> None:
    """A failed run can be repeated, and the next commit tries other mutants."""
    names = [f"mutant {number}" for number in range(500)]
    sample = contract_mutants.sampled(names, "688903e")

    assert len(set(sample)) == len(sample) == contract_mutants.SAMPLE_SIZE + 1
    assert sample[0] == ORIGINAL
    assert sample == contract_mutants.sampled(names, "688903e")
    assert sample != contract_mutants.sampled(names, "3ad4a94")
    assert set(contract_mutants.sampled(names[:5], "688903e")) == {ORIGINAL, *names[:5]}


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ([], contract_mutants.SAMPLE_SIZE + 1),
        (["--seed", "other"], contract_mutants.SAMPLE_SIZE + 1),
        (["--all"], 501),
        (["mutant 1", "mutant 2"], 222),
    ],
)
@pytest.mark.parametrize("verdict", ["killed", "SURVIVED"])
def test_the_default_is_a_sample_that_says_how_to_repeat_it(
    arguments: list[str],
    count: int,
    verdict: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The seed and the size are printed, and one survivor in a sample fails the run."""
    failed = ("a_check",) if verdict == "killed" else ()
    monkeypatch.setattr(contract_mutants, "catalogue", lambda _: {f"mutant {n}": None for n in range(500)})
    monkeypatch.setattr(
        contract_mutants,
        "tried",
        lambda names: [trial(name, () if name == ORIGINAL else failed) for name in names],
    )

    assert contract_mutants.main(arguments) == (verdict == "SURVIVED")
    shown = capsys.readouterr().out
    assert f"/{count}]" in shown
    if count == contract_mutants.SAMPLE_SIZE + 1:
        seed = arguments[1] if arguments else contract_mutants.default_seed()
        assert f"{contract_mutants.SAMPLE_SIZE} of 500 mutants" in shown
        assert f"dev.py contract-mutants --seed {seed}" in shown


def test_a_check_that_failed_is_read_from_the_events() -> None:
    """Passed checks, and events of other kinds, count for nothing."""
    checks = {"case": [{"name": "fine", "status": "success"}, {"name": "broken", "status": "failure"}]}
    events = [{"EngineStarted": {}}, {"ScenarioFinished": {"recorder": {"checks": checks}}}]
    assert contract_mutants.failed_checks("\n".join(map(json.dumps, events))) == ["broken"]


def test_a_server_that_does_not_start_is_an_error() -> None:
    """Nothing has found it."""
    assert contract_mutants.try_one("no such mutant").verdict == "ERROR"
