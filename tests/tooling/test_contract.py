"""scripts/contract.py: a failure can be repeated by pasting one line."""

import json
import re
import shutil
import socket
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import contract
import contract_mutants
from techforge.mock import TEST_API_KEY, MockServer


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


def shown_line(shown: str) -> str:
    """Return the one line that repeats a failure."""
    (line,) = {line.strip() for line in shown.splitlines() if line.strip().startswith(contract.REPLAY)}
    return line


def test_a_failure_can_be_repeated(serve: Callable[[str], None], capsys: pytest.CaptureFixture[str]) -> None:
    """The line is in the output and both reports, and works after the run, even for steps that are linked."""
    serve("createJob: an accepted job is forgotten")
    assert contract.main(["--phases", "stateful", "--max-failures", "1"]) == 1
    shown = capsys.readouterr().out
    line = shown_line(shown)
    case = line.removeprefix(contract.REPLAY).strip()
    for report in ("junit.xml", "html/index.html"):
        text = (contract.REPORTS / report).read_text("utf-8")
        assert line in text
    assert f"curl -X POST -H 'x-api-key: {TEST_API_KEY}'" in shown
    assert contract.USUAL_URL in shown
    assert contract.main(["replay", case]) == 1
    serve("")
    assert contract.main(["replay", case]) == 0


def test_what_the_mock_says_is_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A mock that breaks its own contract says so at each request, and would bury what was found."""

    def nonsense(_arguments: list[str], url: str) -> int:
        with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port)) as connection:
            connection.sendall(b"nonsense\r\n\r\n")
            connection.recv(1000)
        return 0

    monkeypatch.setattr(contract, "REPORTS", tmp_path / "reports" / "contract")
    monkeypatch.setattr(contract, "schemathesis", nonsense)
    assert contract.main([]) == 0
    log, shown = contract.REPORTS / "mock.log", capfd.readouterr()
    assert "Invalid HTTP request" in log.read_text("utf-8")
    assert (str(log) in shown.out, shown.err) == (True, "")


OUR_CHECKS = {
    "key_is_needed": "createJob: the key may be a bearer token",
    "only_what_is_valid_is_taken": "createJob: audio_url may be any text but the empty one",
    "only_json_is_taken": "createJob: NaN is a number",
    "nothing_else_is_served": "generateSignedPath: PUT is answered, too",
    "errors_are_as_documented": "createJob: 429: Retry-After is 'soon'",
    "identifiers_are_new": "createJob: every job has the same id",
    "links_lead_somewhere": "generateSignedPath: finds a key in capitals",
    "signed_url_opens": "storage: any signature will do",
}


@pytest.mark.leaking("the report has the requests to be repeated, with what the mock has signed")
@pytest.mark.parametrize(("check", "mutant"), OUR_CHECKS.items(), ids=OUR_CHECKS)
def test_what_our_own_checks_find_can_be_repeated(
    check: str, mutant: str, serve: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """It comes with the very request that was answered wrongly, and fails again as long as it is."""
    serve(mutant)
    phase = "stateful" if check == "signed_url_opens" else "examples"
    assert contract.main(["--phases", phase, "--max-failures", "1", "--checks", check]) == 1
    shown = capsys.readouterr().out
    case = shown_line(shown).removeprefix(contract.REPLAY).strip()
    assert "Asked for with:" in shown
    assert contract.main(["replay", case]) == 1
    repeated = capsys.readouterr().out
    assert check in repeated
    assert "not available" not in repeated
    serve("")
    assert contract.main(["replay", case]) == 0


def test_each_check_of_ours_is_repeated_here(serve: Callable[[str], None]) -> None:
    """A new check has to be repeatable, too."""
    del serve
    checks = (contract.CHECKS / "extra_checks.py").read_text("utf-8")
    assert set(re.findall(r"^@(?:probe|schemathesis\.check)\ndef (\w+)", checks, re.MULTILINE)) == set(
        OUR_CHECKS
    )
