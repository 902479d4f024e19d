"""scripts/regenerate.py: what is generated is a function of its sources, and of nothing else."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import regenerate

INPUTS = (
    "openapi.json",
    "generator-config.yaml",
    "generator-overlay.yaml",
    "pyproject.toml",
    "wrapper/techforge/batch/campaign.py",
)
FOLDERS = ("generated", "wrapper/techforge/_async", "wrapper/techforge/_sync")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Copy what regeneration reads and writes, with room above it."""
    root = tmp_path / "above" / "project"
    for name in FOLDERS:
        shutil.copytree(regenerate.ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "scripts").mkdir()
    (root / "wrapper" / "techforge" / "batch").mkdir()
    for name in (*INPUTS, "scripts/regenerate.py", "scripts/unasync.py"):
        shutil.copy(regenerate.ROOT / name, root / name)
    return root


def run(project: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script of `project` from elsewhere."""
    command = [sys.executable, str(project / "scripts" / "regenerate.py"), *arguments]
    env = {**os.environ, **environment}
    return subprocess.run(
        command, env=env, cwd=project.parent, check=False, capture_output=True, encoding="utf-8"
    )


def edit(path: Path, old: str, new: str) -> None:
    """Replace a text that has to be there."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_gives_the_committed_bytes_whatever_the_surroundings(project: Path) -> None:
    """Locale, hash seed, search path, lint settings and ignore files must not show in the output."""
    committed = regenerate.files(project)
    (project.parent / ".git").mkdir()
    for folder in (project.parent, project):
        (folder / "ruff.toml").write_text("line-length = 40\nformat.quote-style = 'single'\n")
        (folder / ".gitignore").write_text("*\n")
        (folder / ".ignore").write_text("*\n")
    shutil.rmtree(project / "generated" / "techforge_api")
    shutil.rmtree(project / "wrapper" / "techforge" / "_sync")

    result = run(project, LC_ALL="tr_TR.ISO-8859-9", PYTHONHASHSEED="77", PATH=os.defpath)

    assert result.returncode == 0, result.stderr
    around = ("ruff.toml", ".gitignore", ".ignore")
    assert {name: each for name, each in regenerate.files(project).items() if name not in around} == committed


def test_check_names_every_difference(project: Path) -> None:
    """A hand edit, a missing file and an orphan each stop --check by name, and it repairs none of them."""
    package = project / "generated" / "techforge_api"
    edit(package / "client.py", "import ssl", "import ssl  # by hand")
    (package / "errors.py").unlink()
    (package / "models" / "old.py").touch()
    (project / "generated" / "notes.txt").touch()
    edit(project / "wrapper" / "techforge" / "_sync" / "jobs.py", "one byte", "two bytes")
    (package / "__pycache__").mkdir(exist_ok=True)
    (package / "__pycache__" / "client.cpython-311.pyc").touch()
    before = regenerate.files(project)

    result = run(project, "--check")

    assert result.returncode == 1
    assert [line.strip() for line in result.stderr.splitlines() if line.startswith("  ")] == [
        "generated/notes.txt: orphan: nothing generates it",
        "generated/techforge_api/client.py: edited by hand, or stale",
        "generated/techforge_api/errors.py: missing",
        "generated/techforge_api/models/old.py: orphan: nothing generates it",
        "wrapper/techforge/_sync/jobs.py: edited by hand, or stale",
    ]
    assert regenerate.files(project) == before


@pytest.mark.parametrize(
    ("source", "old", "new", "stale"),
    [
        ("openapi.json", "Crop the image before rendering.", "Crop it.", "models/job_request.py"),
        ("wrapper/techforge/_async/jobs.py", "Poll once", "Poll twice", "wrapper/techforge/_sync/jobs.py"),
    ],
)
def test_check_notices_a_changed_source(project: Path, source: str, old: str, new: str, stale: str) -> None:
    """The check reports a source that was changed without regenerating."""
    assert run(project, "--check").returncode == 0
    edit(project / source, old, new)

    result = run(project, "--check")

    assert result.returncode == 1
    assert f"{stale}: edited by hand, or stale" in result.stderr


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("return await self._session.run(poll", "await asyncio.sleep(0); self._session.run(poll", "no rule"),
        ("httpx.AsyncClient", "httpx.Client", "matches nothing"),
    ],
)
def test_an_async_half_that_the_rules_do_not_fit_is_refused(
    project: Path, old: str, new: str, problem: str
) -> None:
    """Nothing async is left in the sync half, and no rule stays behind that nothing needs."""
    for path in (project / "wrapper" / "techforge" / "_async").glob("*.py"):
        path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    before = regenerate.files(project)

    result = run(project)

    assert result.returncode == 1
    assert "regenerate: scripts/unasync.py: " in result.stderr
    assert problem in result.stderr
    assert regenerate.files(project) == before


@pytest.mark.parametrize("pin", ["openapi-python-client==9.", "ruff==9.", "oas-patch==9.", "ruff>="])
@pytest.mark.parametrize("arguments", [(), ("--check",)])
def test_refuses_any_version_but_the_pinned(project: Path, pin: str, arguments: tuple[str, ...]) -> None:
    """Another generator or formatter gives other bytes, and a range is no pin."""
    edit(project / "pyproject.toml", pin.rstrip("9.").replace(">=", "=="), pin)

    result = run(project, *arguments)

    assert result.returncode == 1
    assert f"pins {pin}" in result.stderr


def test_refuses_an_overlay_action_that_does_nothing(project: Path) -> None:
    """A target that is gone from the contract takes its tolerance with it, silently, unless this fails."""
    before = regenerate.files(project / "generated")
    edit(
        project / "generator-overlay.yaml",
        "$.components.schemas.SignedUrl.required",
        "$.components.schemas.Gone",
    )

    result = run(project)

    assert result.returncode == 1
    assert "changes nothing: $.components.schemas.Gone" in result.stderr
    assert regenerate.files(project / "generated") == before


def break_contract(contract: dict[str, Any]) -> None:
    """Make an invalid document of it."""
    del contract["info"]


def make_the_generator_warn(contract: dict[str, Any]) -> None:
    """Use something that the generator leaves out with a warning."""
    content = contract["paths"]["/jobs/v2"]["post"]["requestBody"]["content"]
    content["application/xml"] = content["application/json"]


@pytest.mark.parametrize("change", [break_contract, make_the_generator_warn])
def test_a_failing_generator_leaves_the_tree(project: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Errors and warnings both fail, with the generator's own words, and generated/ stays as it was."""
    path = project / "openapi.json"
    contract = json.loads(path.read_text(encoding="utf-8"))
    change(contract)
    path.write_text(json.dumps(contract), encoding="utf-8")
    before = regenerate.files(project)

    result = run(project)

    assert result.returncode == 1
    assert "encountered while generating" in result.stderr
    assert regenerate.files(project) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("done", [False, True], ids=["undone", "done"])
@pytest.mark.parametrize("number", range(4))
def test_a_swap_may_end_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, done: bool, error: type[BaseException]
) -> None:
    """Whichever of the moves fails, or is interrupted just before or after, everything is as it was."""
    places = [tmp_path / "openapi.json", tmp_path / "generated"]
    for name, folder in (("old", tmp_path), ("new", tmp_path / "new")):
        (folder / "generated").mkdir(parents=True)
        (folder / "openapi.json").write_text(name)
        (folder / "generated" / f"{name}.py").touch()
    before = regenerate.files(tmp_path)
    rename, moves = Path.rename, iter(range(99))

    def end(path: Path, target: Path) -> None:
        now = next(moves) == number
        if done or not now:
            rename(path, target)
        if now:
            raise error

    monkeypatch.setattr(Path, "rename", end)

    with pytest.raises((error, regenerate.RefusedError)):
        regenerate.swap({each: tmp_path / "new" / each.name for each in places}, aside=tmp_path / "aside")

    assert regenerate.files(tmp_path) == before
