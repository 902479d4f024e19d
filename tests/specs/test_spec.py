"""scripts/spec.py: it tells what a candidate would change, and takes it over as a whole or not at all."""

import copy
import json
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import regenerate
import spec
from changes import candidate

CONTRACT = json.loads((regenerate.ROOT / "openapi.json").read_text(encoding="utf-8"))
FIELD = {"type": "string", "format": "uri", "description": "Nothing in particular."}
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
    """Run the script; give its exit code and what it printed."""
    del project

    def script(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["spec.py", *map(str, arguments)])
        code = spec.main()
        return (code, *capsys.readouterr())

    return script


def edited(edit: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Return the contract after an edit."""
    document = copy.deepcopy(CONTRACT)
    edit(document)
    return document


def written(folder: Path, document: Any) -> Path:
    """Write a candidate down."""
    path = folder / "candidate.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return path


def with_a_field(document: dict[str, Any]) -> None:
    """Let a job have one field more."""
    document["components"]["schemas"]["JobRequest"]["properties"]["made_up"] = FIELD


@contextmanager
def served(body: bytes, status: int = 200, drip: str = "") -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Serve a document, or let its headers or body drip; give its address and the headers of each request."""
    seen: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(dict(self.headers))
            head = f"HTTP/1.1 {status} x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            with suppress(OSError):  # the client has gone
                for name, part in (("headers", head), ("body", body)):
                    drops = 40 if name == drip else 0
                    for byte in part[:drops]:
                        self.wfile.write(bytes([byte]))
                        time.sleep(0.05)
                    self.wfile.write(part[drops:])

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/openapi.json", seen
        finally:
            server.shutdown()
            thread.join()


def test_tells_each_reader_and_touches_nothing(project: Path, tmp_path: Path, run: Run) -> None:
    """A look is free: the API's user, the SDK's user, the wrapper and the version, and no file differs."""
    before = regenerate.files(project)

    code, out, _ = run(written(tmp_path, edited(with_a_field)))

    assert code == 0
    assert out == (
        "The user of the API\n"
        "  additive: POST /jobs/v2 request body.made_up: new optional field\n\n"
        "The user of the SDK, after regenerating\n"
        "  additive: techforge_api.models.JobRequest.made_up: added\n\n"
        "The wrapper\n"
        "  its types fit\n\n"
        "The SDK's version\n"
        "  1.0.0 -> 1.1.0 (minor): POST /jobs/v2 request body.made_up: new optional field, and 1 more\n"
    )
    assert regenerate.files(project) == before


def test_no_change(project: Path, run: Run) -> None:
    """Today's contract changes nothing, and there is nothing to take over."""
    before = regenerate.files(project)

    code, out, _ = run("--apply", project / "openapi.json")

    assert code == 0
    assert out.count("no change") == 2
    assert "stays 1.0.0" in out
    assert "nothing is written" in out
    assert regenerate.files(project) == before


def test_breaking_comes_first_and_the_wrapper_is_asked(tmp_path: Path, run: Run) -> None:
    """What hurts stands on top, and where the wrapper no longer fits is told by file and line."""

    def edit(document: dict[str, Any]) -> None:
        with_a_field(document)
        document["components"]["schemas"]["JobRequest"]["properties"].pop("language")

    code, out, _ = run(written(tmp_path, edited(edit)))

    assert code == 0
    assert out.index("breaking: POST /jobs/v2 request body.language") < out.index("additive: POST /jobs/v2")
    assert "The wrapper\n  its types do not fit; mypy says:\n  wrapper/techforge/_flows/create.py:" in out
    assert '"language" for "JobRequest"' in out
    assert "1.0.0 -> at least 2.0.0 (major)" in out


def without_statuses(document: dict[str, Any]) -> None:
    """Take away what an action of the overlay is about."""
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
def test_what_is_to_be_done_first(
    project: Path, tmp_path: Path, run: Run, edit: Callable[[Any], None], words: str
) -> None:
    """A tolerance without its place, or a generator that warns, is work to do: told, and not taken over."""
    before = regenerate.files(project)

    code, out, error = run("--apply", written(tmp_path, edited(edit)))

    assert code == 1
    assert out.startswith("To be done first\n")
    assert words in out.partition("The user of the API\n")[0]
    assert ": POST /jobs/v2" in out
    assert "there is no generated client" not in out
    assert "To be done first" in error
    assert regenerate.files(project) == before


def test_a_candidate_that_the_generator_cannot_read(tmp_path: Path, run: Run) -> None:
    """Without generated code there is still a verdict for the API's user."""

    def edit(document: dict[str, Any]) -> None:
        with_a_field(document)
        document["openapi"] = "3.2.0"

    code, out, _ = run(written(tmp_path, edited(edit)))

    assert code == 0
    assert "additive: POST /jobs/v2 request body.made_up" in out
    assert out.count("unknown: there is no generated client") == 2
    assert "at least 1.1.0" in out


def test_apply(project: Path, tmp_path: Path, run: Run) -> None:
    """It writes contract, generated code and changelog, in our style; a second time, nothing."""
    document = edited(with_a_field)
    path = written(tmp_path, document)
    version = (project / "wrapper" / "techforge" / "_version.py").read_bytes()

    code, out, _ = run("--apply", path)

    assert code == 0
    assert "CONTRIBUTING.md" in out
    assert "git restore openapi.json generated CHANGELOG.md" in out
    assert (project / "openapi.json").read_text() == json.dumps(document, indent=2) + "\n"
    assert "made_up: str | Unset" in (
        project / "generated" / "techforge_api" / "models" / "job_request.py"
    ).read_text(encoding="utf-8")
    assert (project / "CHANGELOG.md").read_text() == (
        "# Changelog\n\nWords.\n\n"
        "## Unreleased\n\n"
        "### The API's contract (the next version is 1.1.0 or higher)\n"
        "- additive: POST /jobs/v2 request body.made_up: new optional field\n\n"
        "## 1.0.0 (2026-11-25)\n\nThe first.\n"
    )
    assert (project / "wrapper" / "techforge" / "_version.py").read_bytes() == version
    after = regenerate.files(project)

    code, out, _ = run("--apply", path)

    assert code == 0
    assert "nothing is written" in out
    assert regenerate.files(project) == after


def test_apply_twice_tells_of_both(project: Path, tmp_path: Path, run: Run) -> None:
    """The entry of a second candidate comes below the same heading, and the first one stays."""
    run("--apply", written(tmp_path, edited(with_a_field)))

    def again(document: dict[str, Any]) -> None:
        with_a_field(document)
        document["info"]["version"] = "9.9.9"

    run("--apply", written(tmp_path, edited(again)))

    changelog = (project / "CHANGELOG.md").read_text()
    assert changelog.count("## Unreleased\n") == 1
    assert (
        changelog.index("Changes of words alone")
        < changelog.index("body.made_up")
        < changelog.index("## 1.0")
    )


def test_an_interrupted_apply_is_none(
    project: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt as the last thing is put in its place leaves all three as they were."""
    rename = Path.rename

    def interrupt(path: Path, target: Path) -> None:
        rename(path, target)
        if path.name == "techforge_api" and target == project / "generated" / path.name:
            raise KeyboardInterrupt

    before = regenerate.files(project)
    path = written(tmp_path, edited(with_a_field))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run("--apply", path)

    assert regenerate.files(project) == before


@pytest.mark.parametrize("absent", ["the folder", "a place in it"])
def test_an_apply_that_cannot_write(
    project: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, absent: str
) -> None:
    """Where nothing can be written, that is said in a line, and nothing is half done."""
    denied = PermissionError(13, "Permission denied", str(project))

    def deny(*_: object, **__: object) -> None:
        raise denied

    monkeypatch.setattr(
        *{"the folder": (spec, "TemporaryDirectory"), "a place in it": (Path, "rename")}[absent], deny
    )
    before = regenerate.files(project)

    code, _, error = run("--apply", written(tmp_path, edited(with_a_field)))

    assert code == 1
    assert error.startswith("spec: nothing is written: ")
    assert "Permission denied" in error
    assert error.count("\n") == 1
    assert regenerate.files(project) == before


BAD = {
    "nothing": ("", "no OpenAPI 3 document"),
    "neither JSON nor YAML": ("{]", "neither JSON nor YAML"),
    "a list": ([], "no OpenAPI 3 document"),
    "of another kind": ({"swagger": "2.0"}, "no OpenAPI 3 document"),
    "not valid": (edited(lambda c: c["info"].pop("version")), 'info: "version" is a required property\n'),
    "a schema that is none": (
        edited(lambda c: c["components"]["schemas"]["Error"].update(type="thing")),
        "'thing' is not valid under any of the given schemas",
    ),
    "leads nowhere": (
        edited(lambda c: c["components"]["schemas"].pop("SignedUrl")),
        "3.1.0: it refers to #/components/schemas/SignedUrl, which is not in it\n",
    ),
    "leads to no anchor": (
        edited(lambda c: c["components"]["schemas"].update(Error={"$ref": "#Gone"})),
        "3.1.0: it refers to #Gone, which is not in it\n",
    ),
    "leads to itself": (
        edited(lambda c: c["components"]["schemas"].update(Error={"$ref": "#/components/schemas/Error"})),
        "not valid OpenAPI 3.1.0: ",
    ),
    "half of it wrong": (
        edited(lambda c: c["paths"]["/jobs/v2"]["post"].update(responses=[copy.deepcopy(c)])),
        "not valid OpenAPI 3.1.0: paths/",
    ),
    "in pieces": (
        edited(lambda c: c["components"]["schemas"].update(Error={"$ref": "error.yaml"})),
        "another document, error.yaml; bundle it",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_refuses_what_is_no_contract(kind: str, tmp_path: Path, run: Run) -> None:
    """It says what is wrong, in a line and without the document, and the exit code is 2."""
    document, words = BAD[kind]

    code, out, error = run(written(tmp_path, document))

    assert (code, out) == (2, "")
    assert words in error
    assert error.startswith("spec: ")
    assert len(error) < 400


def test_refuses_what_cannot_be_read(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is not there, or too large to be a contract, is named."""
    assert run(tmp_path / "absent.json")[0] == 2
    monkeypatch.setattr(candidate, "MAX_BYTES", 1000)

    code, _, error = run(written(tmp_path, CONTRACT))

    assert code == 2
    assert "larger than" in error


def test_reads_yaml_as_json(tmp_path: Path) -> None:
    """Unquoted statuses and dates are text in a contract, and `no` is no boolean."""
    path = tmp_path / "candidate.yaml"
    path.write_text(
        "openapi: 3.1.0\ninfo: {title: no, version: '1'}\npaths:\n  /x:\n    get:\n      responses:\n"
        "        200: {description: x, content: {application/json: {example: 2024-12-01T12:00:00Z}}}\n"
    )

    document = candidate.read(str(path))

    assert document["info"]["title"] == "no"
    assert document["paths"]["/x"]["get"]["responses"]["200"]["content"]["application/json"] == {
        "example": "2024-12-01T12:00:00Z"
    }


def test_reads_from_the_web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL is as good as a file, and nothing that this machine knows of its host is sent along."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password hidden\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with served(json.dumps(CONTRACT).encode()) as (url, seen):
        assert candidate.read(url) == CONTRACT

    assert [request.get("Authorization") for request in seen] == [None]


def test_refuses_what_the_web_does_not_give(run: Run) -> None:
    """An error and a closed door end it; a query, which may be a signature, is not shown."""
    with served(b"{}", status=404) as (url, _):
        assert "answered 404" in run(f"{url}?signature=hidden")[2]
    assert "cannot be fetched: ConnectError" in (closed := run(f"{url}?signature=hidden"))[2]
    assert "hidden" not in closed[2]


@pytest.mark.parametrize("part", ["headers", "body"])
def test_a_server_that_drips_has_its_time(part: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is for the whole answer: a byte now and then does not prolong it."""
    monkeypatch.setattr(candidate, "MAX_SECONDS", 0.5)
    with served(json.dumps(CONTRACT).encode(), drip=part) as (url, _):
        code, out, error = run(url)

    assert (code, out) == (2, "")
    assert error == f"spec: {url} took longer than 0.5 s\n"


def test_sends_no_credentials(run: Run) -> None:
    """A password in a URL would be sent, and stay in the shell's history."""
    code, _, error = run("https://me:hidden@api.example.com/openapi.json")

    assert code == 2
    assert "no credentials are sent" in error
    assert "hidden" not in error
