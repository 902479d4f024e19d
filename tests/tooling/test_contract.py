"""scripts/contract.py: a failure can be repeated by pasting one line."""

import json
import shutil
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import contract
import contract_mutants
from techforge.mock import MockServer, app
from techforge.mock import server as server_module
from techforge.mock.app import Api
from techforge.mock.contract import Operation, read


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return what says which mutant the contract is held against; none is the unmodified server."""
    shutil.copy(contract.ROOT / "openapi.json", tmp_path)
    monkeypatch.setattr(contract, "ROOT", tmp_path)
    monkeypatch.setattr(contract, "REPORTS", tmp_path / "reports" / "contract")

    def use(mutant: str) -> None:
        @contextmanager
        def server(*_: str, stderr: object) -> Iterator[tuple[None, dict[str, str]]]:
            del stderr
            mutants = contract_mutants.catalogue(json.loads((tmp_path / "openapi.json").read_text("utf-8")))
            served = mutants[mutant].serving if mutant else MockServer
            with served(render=False, job_polls=0, ttl=contract.URL_SECONDS) as running:
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


JOB_ID = "15a6331b-3837-4ae8-8fa7-d3ead3388d77"


@pytest.fixture
def get_job(tmp_path: Path, serve: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Add an operation with a path parameter, and a link to it, to the contract and to the mock."""
    serve("")
    file = tmp_path / "openapi.json"
    document = json.loads(file.read_text("utf-8"))
    create = document["paths"]["/jobs/v2"]["post"]
    sign = document["paths"]["/storage/generate-signed-path"]["get"]
    accepted = create["responses"]["202"]
    parameter = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}
    document["paths"]["/jobs/{id}"] = {
        "parameters": [parameter | {"example": JOB_ID}],
        "get": {
            "operationId": "getJob",
            "responses": sign["responses"] | {"200": accepted | {"links": {}}},
        },
    }
    link = {"operationId": "getJob", "parameters": {"id": "$response.body#/jobId"}}
    accepted["links"] = accepted["links"] | {"getJob": link}
    file.write_text(json.dumps(document), "utf-8")
    served, carry_out = read(document), Api._carry_out

    def with_get_job(api: Api, operation: Operation, call: Any) -> tuple[int, dict[str, Any]]:
        if operation.id != "getJob":
            return carry_out(api, operation, call)
        view = api.store.poll_job(call.path["id"])
        if view is None:
            raise app._RefusedError(404, message="There is no such job.")
        return 200, {"jobId": view.job_id, "status": view.status}

    monkeypatch.setattr(server_module, "contract", lambda: served)
    monkeypatch.setattr(Api, "_carry_out", with_get_job)


@pytest.mark.usefixtures("get_job")
@pytest.mark.leaking("the report has the requests to be repeated, with what the mock has signed")
@pytest.mark.parametrize(
    "mutant",
    ["", "getJob: 500 instead of 200", "getJob: no key is needed", "getJob: a longer path is answered, too"],
)
def test_path_parameters_are_tested(mutant: str, serve: Callable[[str], None]) -> None:
    """Links fill them in, paths that match a template are no other paths, and mutants know the operation."""
    serve(mutant)
    # Without the links, schemathesis would find no job, and warn of it.
    phases = "examples" if mutant else "examples,stateful"
    assert contract.main(["--phases", phases, "--max-failures", "1"]) == bool(mutant)


@pytest.mark.leaking("the report has the requests to be repeated, with what the mock has signed")
def test_a_redirect_is_a_failure(serve: Callable[[str], None], capsys: pytest.CaptureFixture[str]) -> None:
    """The contract documents none, and the SDK follows none."""
    serve("createJob: a 307 leads to the answer")
    assert contract.main(["--phases", "examples", "--include-operation-id", "createJob"]) == 1
    assert "Received: 307" in capsys.readouterr().out
