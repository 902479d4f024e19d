"""scripts/spec.py reports what a candidate would change, and applies it as a whole or not at all."""

import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import regenerate
import spec
from changes import candidate
from changes.limits import limits, new_operations

CONTRACT = json.loads((regenerate.ROOT / "openapi.json").read_text(encoding="utf-8"))
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the script work on a copy of the project."""
    root = tmp_path / "project"
    for name in ("generated", "wrapper"):
        shutil.copytree(spec.ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("openapi.json", "generator-config.yaml", "generator-overlay.yaml", "pyproject.toml"):
        shutil.copy(spec.ROOT / name, root)
    (root / "CHANGELOG.md").write_text("# Changelog\n\nWords.\n\n## 1.0.0 (2026-11-25)\n\nThe first.\n")
    monkeypatch.setattr(spec, "ROOT", root)
    monkeypatch.setattr(spec, "__version__", "1.0.0")
    monkeypatch.setattr(regenerate, "ROOT", root)
    monkeypatch.setattr(regenerate, "GENERATED", root / "generated")
    return root


@pytest.fixture
def run(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the script for a document or a path: exit code, output, errors."""

    def script(source: Any, *options: str) -> tuple[int, str, str]:
        path = project.parent / "candidate.json"
        if not isinstance(source, str | Path):
            path.write_text(json.dumps(source), encoding="utf-8")
            source = path
        monkeypatch.setattr(sys, "argv", ["spec.py", str(source), *options])
        return (spec.main(), *capsys.readouterr())

    return script


def edited(edit: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Return the contract after an edit."""
    document = copy.deepcopy(CONTRACT)
    edit(document)
    return document


def fields(document: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a job."""
    return document["components"]["schemas"]["JobRequest"]["properties"]


WITH_A_FIELD = edited(lambda c: fields(c).update(made_up={"type": "string", "format": "uri"}))


def test_reports_to_each_reader_and_changes_nothing(project: Path, run: Run) -> None:
    """Changes for the API's user, for the SDK's user, in the wrapper, and the version; no file differs.

    Modules that do not use generated code may import packages that this session does not install.
    """
    module = project / "wrapper" / "techforge" / "batch" / "ledger.py"
    module.write_text(f"import not_installed\n{module.read_text('utf-8')}", encoding="utf-8")
    before = regenerate.files(project)
    code, out, _ = run(WITH_A_FIELD)
    assert code == 0
    assert out == (
        "Proposed version: 1.1.0 (minor, now 1.0.0): "
        "POST /jobs/v2 request body.made_up: new optional field, and 1 more\n\n"
        "The user of the API\n"
        "  additive: POST /jobs/v2 request body.made_up: new optional field\n\n"
        "The user of the SDK, after regenerating\n"
        "  additive: techforge_api.models.JobRequest.made_up: added\n\n"
        "The wrapper\n"
        "  its types fit\n"
    )
    assert regenerate.files(project) == before


def test_no_change(project: Path, run: Run) -> None:
    """The current contract changes nothing, and nothing is written."""
    before = regenerate.files(project)
    code, out, _ = run(project / "openapi.json", "--apply")
    assert code == 0
    assert out.count("no change") == 2
    assert out.startswith("Proposed version: 1.0.0 (none: ")
    assert "nothing is written" in out
    assert regenerate.files(project) == before


def test_json(project: Path, run: Run) -> None:
    """`--json` prints one object, and nothing else, also if the document is written."""
    code, out, error = run(WITH_A_FIELD, "--json", "--apply")
    assert code == 0
    assert json.loads(out) == {
        "level": "minor",
        "version": "1.1.0",
        "fits": True,
        "changes": [
            {
                "level": "minor",
                "audience": "api",
                "path": "POST /jobs/v2 request body.made_up",
                "change": "new optional field",
            },
            {
                "level": "minor",
                "audience": "sdk",
                "path": "techforge_api.models.JobRequest.made_up",
                "change": "added",
            },
        ],
        "wrapper": [],
        "todo": [],
        "failing": [],
        "overlay": [],
    }
    assert "CHANGELOG.md are written" in error
    code, out, _ = run(project / "openapi.json", "--json")
    assert (code, json.loads(out)["level"], json.loads(out)["changes"]) == (0, "none", [])


@pytest.mark.parametrize(
    ("security", "level", "fits"),
    [([{"bearer": []}], "major", False), ([{"apiKey": []}, {"bearer": []}], "minor", True)],
)
def test_another_way_to_authenticate(run: Run, security: Any, level: str, fits: bool) -> None:
    """In place of the key it is breaking, and the report names the work; beside the key it is an addition."""

    def edit(document: dict[str, Any]) -> None:
        document["components"]["securitySchemes"]["bearer"] = {"type": "http", "scheme": "bearer"}
        for item in document["paths"].values():
            for operation in item.values():
                operation["security"] = security

    report = json.loads(run(edited(edit), "--json")[1])
    assert (report["level"], report["fits"]) == (level, fits)
    assert any("sent by `_drivers/facade.py`" in line for line in report["wrapper"]) is not fits


def test_breaking_changes_come_first(run: Run) -> None:
    """Breaking changes are on top, with file and line where the wrapper no longer fits."""
    document = copy.deepcopy(WITH_A_FIELD)
    fields(document).pop("language")
    code, out, _ = run(document)
    assert code == 0
    assert out.index("breaking: POST /jobs/v2 request body.language") < out.index("additive: POST /jobs/v2")
    assert "The wrapper\n  its types do not fit; mypy says:\n  wrapper/techforge/_flows/create.py:" in out
    assert out.startswith("Proposed version: 2.0.0 (major, now 1.0.0): ")


def without_statuses(document: dict[str, Any]) -> None:
    """Remove what an action of the overlay changes."""
    document["components"]["schemas"]["JobAccepted"]["properties"].pop("status")
    document["components"]["schemas"]["JobAccepted"]["required"].remove("status")


def with_xml(document: dict[str, Any]) -> None:
    """Use something that the generator leaves out with a warning."""
    content = document["paths"]["/jobs/v2"]["post"]["requestBody"]["content"]
    content["application/xml"] = content["application/json"]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (without_statuses, "action 1 changes nothing: $.components.schemas.JobAccepted.properties.status"),
        (with_xml, "Unsupported content type application/xml\n\n"),
    ],
)
def test_what_to_do_first(project: Path, run: Run, edit: Callable[[Any], None], words: str) -> None:
    """An overlay action without a target, or a generator's warning, is reported first, and not applied."""
    before = regenerate.files(project)
    code, out, error = run(edited(edit), "--apply")
    assert code == 1
    assert words in out.partition("\n\nTo be done first\n")[2].partition("The user of the API\n")[0]
    assert "there is no generated client" not in out
    assert "To be done first" in error
    assert regenerate.files(project) == before


def schemas(**changed: Any) -> dict[str, Any]:
    """Return the contract with other schemas; None removes one."""
    contract = edited(lambda c: c["components"]["schemas"].update(changed))
    contract["components"]["schemas"] = {k: v for k, v in contract["components"]["schemas"].items() if v}
    return contract


def changed_operation(**changes: Any) -> dict[str, Any]:
    """Return the contract with other parts of the operation that signs."""
    return edited(lambda c: c["paths"]["/storage/generate-signed-path"]["get"].update(changes))


TEXT = {"type": "string"}
SIGN = "GET /storage/generate-signed-path"
OTHER_ERROR = {"required": ["title"], "properties": {"title": TEXT}}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (CONTRACT, []),
        (WITH_A_FIELD, []),
        (changed_operation(security=[{}, {"b": []}]), [f"{SIGN}: the mock checks keys in headers only"]),
        (
            changed_operation(parameters=[{"name": "x", "in": "header", "schema": TEXT}]),
            [f"{SIGN}: the mock does not check header x"],
        ),
        (
            changed_operation(requestBody={"content": {"multipart/form-data": {"schema": {}}}}),
            [f"{SIGN}: the mock and `_drivers/facade.py` do not send or read multipart/form-data"],
        ),
        (
            changed_operation(
                responses={"200": {"description": "x", "content": {"video/mp4": {"schema": {}}}}}
            ),
            [f"{SIGN} 200: the mock answers in JSON"],
        ),
        (
            changed_operation(
                responses={
                    "400": {"description": "x", "content": {"application/json": {"schema": OTHER_ERROR}}}
                }
            ),
            [f"{SIGN} 400: the mock's errors do not contain title"],
        ),
        (changed_operation(operationId="signPath"), [f"{SIGN}: the mock answers 501"]),
        (
            schemas(Error={"properties": {"message": {"nullable": True}}}) | {"openapi": "3.0.3"},
            ["the mock reads schemas as OpenAPI 3.1"],
        ),
    ],
)
def test_what_will_fail(document: dict[str, Any], words: list[str]) -> None:
    """The report names what the mock and the facade do not support, before the candidate is applied."""
    known = limits(CONTRACT)
    found = [line for line in limits(document) if line not in known] + new_operations(CONTRACT, document)
    assert [line.startswith(f"contract: {each}") for line, each in zip(found, words, strict=True)] == [
        True
    ] * len(words)


def test_a_candidate_that_the_generator_cannot_read(run: Run) -> None:
    """Without generated code the report still has the changes of the API."""
    code, out, _ = run(WITH_A_FIELD | {"openapi": "3.2.0"})
    assert code == 0
    assert "additive: POST /jobs/v2 request body.made_up" in out
    assert out.count("unknown: there is no generated client") == 2
    assert out.startswith("Proposed version: 1.1.0 or higher (minor, now 1.0.0): ")


def test_apply(project: Path, run: Run) -> None:
    """`--apply` writes contract, generated code and changelog; a second candidate adds to the changelog."""
    code, out, _ = run(WITH_A_FIELD, "--apply")
    assert code == 0
    assert "CONTRIBUTING.md" in out
    assert "git restore openapi.json generated generator-overlay.yaml CHANGELOG.md" in out
    assert (project / "openapi.json").read_text() == json.dumps(WITH_A_FIELD, indent=2) + "\n"
    model = project / "generated" / "techforge_api" / "models" / "job_request.py"
    assert "made_up: str | Unset" in model.read_text(encoding="utf-8")
    entry = (
        "### The API's contract (the next version is 1.1.0 or higher)\n"
        "- additive: POST /jobs/v2 request body.made_up: new optional field\n\n"
        "## 1.0.0 (2026-11-25)\n\nThe first.\n"
    )
    assert (project / "CHANGELOG.md").read_text() == f"# Changelog\n\nWords.\n\n## Unreleased\n\n{entry}"
    run(WITH_A_FIELD | {"info": {"title": "x", "version": "9.9.9"}}, "--apply")
    changelog = (project / "CHANGELOG.md").read_text()
    assert changelog.count("## Unreleased\n") == 1
    assert changelog.index("Only documentation") < changelog.index("body.made_up") < changelog.index("## 1.0")


def two_operations(document: dict[str, Any]) -> None:
    """Add `GET /jobs/{id}` and `GET /credits`, whose responses are strict."""
    words, apart = {"type": "string", "enum": ["a", "b"]}, {"$ref": "#/components/schemas/JobStatus"}
    fields = {
        "id": TEXT | {"format": "uuid"},
        "status": apart,
        "kind": words,
        "created_at": TEXT | {"format": "date-time"},
    }
    document["components"]["schemas"]["JobRow"] = {
        "type": "object",
        "required": [*fields],
        "properties": fields,
    }
    document["components"]["schemas"]["Credits"] = {
        "type": "object",
        "properties": {"left": {"type": "number"}},
    }
    for path, name, tag in (("/jobs/{id}", "JobRow", "jobs"), ("/credits", "Credits", "account")):
        content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
        parameter = {"name": "id", "in": "path", "required": True, "schema": TEXT}
        document["paths"][path] = {
            "get": {
                "operationId": f"get{name}",
                "tags": [tag],
                "parameters": [parameter] if "{" in path else [],
                "responses": {"200": {"description": "x", "content": content}},
            }
        }


def test_new_operations(project: Path, run: Run) -> None:
    """`--apply` relaxes the responses of new operations: another word or id costs no response."""
    code, out, _ = run(edited(two_operations), "--apply")
    assert code == 0, out
    assert "GET /credits, GET /jobs/{id}: operation added: nothing offers it yet" in out
    assert "generator-overlay.yaml and CHANGELOG.md are written" in out
    program = """
from techforge_api.models import Credits, JobRow, JobStatus
row = {"id": "AB-1", "status": "PAUSED", "kind": "c", "created_at": "yesterday"}
assert JobRow.from_dict(dict(row)).to_dict() == row
assert JobRow.from_dict(row | {"status": "queued"}).status is JobStatus.QUEUED
"""
    subprocess.run([sys.executable, "-c", program], cwd=project / "generated", check=True)
    # The overlay is valid, and every action changes something.
    contract = regenerate.tolerant_contract()
    assert "format" not in contract["components"]["schemas"]["JobRow"]["properties"]["id"]
    assert "nothing is written" in run(project / "openapi.json", "--apply")[1]


def test_an_apply_that_cannot_write(project: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a file cannot be replaced, the error is one line, and nothing is half done."""

    def deny(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(project))

    before = regenerate.files(project)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", deny)
        code, _, error = run(WITH_A_FIELD, "--apply")
    assert code == 1
    assert error.startswith("spec: nothing is written: ")
    assert error.count("\n") == 1
    assert regenerate.files(project) == before


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "not OpenAPI 3"),
        ({"swagger": "2.0"}, "not OpenAPI 3"),
        (edited(lambda c: c["info"].pop("version")), 'info: "version" is a required property\n'),
        (schemas(Error={"type": "thing"}), "'thing' is not valid under any of the given schemas"),
        (schemas(SignedUrl=None), "3.1.0: it refers to #/components/schemas/SignedUrl, which is not in it\n"),
        (schemas(Error={"$ref": "#Gone"}), "3.1.0: it refers to #Gone, which is not in it\n"),
        (schemas(Error={"$ref": "#/components/schemas/Error"}), "not valid OpenAPI 3.1.0: "),
        (schemas(Error={"$ref": "error.yaml"}), "another one, error.yaml; bundle it"),
        (Path("absent.json"), "cannot be read"),
        ("https://me:hidden@api.example.com/openapi.json", "no credentials are sent"),
        (Path(__file__), "neither JSON nor YAML"),
    ],
)
def test_refuses_what_is_not_a_contract(document: Any, words: str, run: Run) -> None:
    """The reason is short, without the document and without a password; the exit code is 2."""
    code, out, error = run(document)
    assert (code, out) == (2, "")
    assert words in error
    assert error.startswith("spec: ")
    assert len(error) < 500
    assert "hidden" not in error


def test_reads_yaml_as_json(tmp_path: Path) -> None:
    """Unquoted statuses and dates are text in a contract, and `no` is no boolean."""
    path = tmp_path / "candidate.yaml"
    path.write_text(
        "openapi: 3.1.0\ninfo: {title: no, version: '1'}\npaths:\n  /x:\n    get:\n      responses:\n"
        "        200: {description: x, content: {application/json: {example: 2024-12-01T12:00:00Z}}}\n"
    )
    document = candidate.read(str(path))
    assert document["info"]["title"] == "no"
    content = document["paths"]["/x"]["get"]["responses"]["200"]["content"]
    assert content["application/json"] == {"example": "2024-12-01T12:00:00Z"}


def test_reads_from_the_web(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, scripted: Any, closed_port: int
) -> None:
    """A URL works like a file; no credentials are sent, no query is printed, size and time are limited."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password hidden\n")
    monkeypatch.setenv("NETRC", str(netrc))
    content = json.dumps(CONTRACT).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(content)
    server = scripted(
        lambda request, _: head + content if "GET /o" in request else b"HTTP/1.1 404 No\r\n\r\n"
    )
    assert "answered 404" in (refused := run(f"{server.url}?signature=hidden"))[2]
    url = f"http://127.0.0.1:{closed_port}?signature=hidden"
    assert "cannot be fetched: ConnectError" in (closed := run(url))[2]
    assert "hidden" not in refused[2] + closed[2]
    assert candidate.read(f"{server.url}/openapi.json") == CONTRACT
    assert "authorization" not in "".join(server.heads).lower()
    for name, words in (("MAX_BYTES", "larger than"), ("MAX_SECONDS", "took longer than")):
        with monkeypatch.context() as patch:
            patch.setattr(candidate, name, 0)
            assert words in run(f"{server.url}/openapi.json")[2]
