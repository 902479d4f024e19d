"""scripts/dev.py: one command from a bare Python to a full check, and no waiting the second time."""

import ast
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

import dev


class Recorder:
    """Stands in for dev.run."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.status = 0
        self.interrupted = False

    def __call__(self, command: Sequence[str | Path], **_: object) -> int:
        """Note the command; a virtual environment comes to be, whatever happens to pip after it."""
        self.commands.append([str(word) for word in command])
        if "venv" in command:
            Path(command[-1]).mkdir(parents=True, exist_ok=True)
            return 0
        if self.interrupted:
            raise KeyboardInterrupt
        return self.status

    @property
    def installs(self) -> int:
        """How often pip has been asked to install."""
        return sum("install" in command for command in self.commands)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let dev.py work in a copy of the files that it reads."""
    for name in ("pyproject.toml", "constraints.txt", "wrapper/techforge/_version.py", "scripts/dev.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(dev.ROOT / name, tmp_path / name)
    monkeypatch.setattr(dev, "ROOT", tmp_path)
    monkeypatch.setattr(dev, "ENVIRONMENTS", tmp_path / ".venv")
    return tmp_path


@pytest.fixture
def recorder(project: Path, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Run nothing, note everything."""
    del project
    recorder = Recorder()
    monkeypatch.setattr(dev, "run", recorder)
    return recorder


@pytest.mark.parametrize(
    ("name", "old", "new", "installs"),
    [
        ("pyproject.toml", "[tool.ruff]", "[tool.another]\nrule = true\n[tool.ruff]", 1),
        ("pyproject.toml", "httpx>=", "httpx>", 2),
        ("constraints.txt", "nox==", "nox==9.", 2),
        ("wrapper/techforge/_version.py", '"', '"9.', 2),
    ],
)
def test_a_change_of_requirements_makes_the_environment_anew(
    project: Path, recorder: Recorder, name: str, old: str, new: str, installs: int
) -> None:
    """A check needs today's packages; but a second run, or a new lint rule, needs no network."""
    dev.environment("x", "one")
    dev.environment("x", "one")
    assert recorder.installs == 1
    text = (project / name).read_text(encoding="utf-8")
    assert old in text
    (project / name).write_text(text.replace(old, new, 1), encoding="utf-8")
    dev.environment("x", "one")

    assert recorder.installs == installs
    dev.environment("x", "two")
    assert recorder.installs == installs + 1
    assert recorder.commands[2][1:4] == ["-m", "venv", "--clear"]


def test_an_interrupted_installation_is_redone(recorder: Recorder) -> None:
    """The stamp is written last: half an environment never passes for a whole one."""
    recorder.interrupted = True
    with pytest.raises(KeyboardInterrupt):
        dev.environment("x", "one")
    recorder.interrupted = False
    dev.environment("x", "one")

    assert recorder.installs == 2


def test_a_failed_installation_says_how_to_see_more(recorder: Recorder) -> None:
    """Pip is quiet by default, so the way to its full output has to be named; and it is tried again."""
    recorder.status = 1
    with pytest.raises(SystemExit, match="PIP_VERBOSE=1"):
        dev.environment("x", "one")
    recorder.status = 0
    dev.environment("x", "one")

    assert recorder.installs == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], []),
        (["spec", "next.json", "--apply"], ["-s", "spec", "--", "next.json", "--apply"]),
        (["lint", "--", "--fix"], ["-s", "lint", "--", "--fix"]),
        (["tests", "-k", "wait"], ["-s", f"tests-{dev.THIS_PYTHON}", "--", "-k", "wait"]),
        (["-s", "tests", "--", "-k", "wait"], ["-s", "tests", "--", "-k", "wait"]),
        (["-t", "quick"], ["-t", "quick"]),
    ],
)
def test_a_name_runs_that_session_and_an_option_goes_to_nox(
    recorder: Recorder, arguments: list[str], expected: list[str]
) -> None:
    """`dev.py NAME [arguments]` runs any session; no arguments run the default; `-s` keeps working."""
    dev.main(arguments)

    assert recorder.commands[-1][5:] == expected


NOXFILE = (dev.ROOT / "noxfile.py").read_text(encoding="utf-8")
SESSIONS = re.findall(r"\n@nox\.session(?:\((.*)\))?\ndef (\w+)", NOXFILE)


@pytest.mark.parametrize(("options", "name"), SESSIONS, ids=[name for _, name in SESSIONS])
def test_each_session_belongs_to_a_group_that_the_list_explains(options: str, name: str) -> None:
    """`dev.py -l` prints noxfile.py's docstring: a newcomer learns there what a session is for."""
    del name
    (group,) = re.findall(r'tags=\["(\w+)"\]', options)

    assert f"\n    {group} " in (ast.get_docstring(ast.parse(NOXFILE)) or "")


def test_hooks_workflows_and_the_nightly_run_name_sessions_that_exist() -> None:
    """A session that is renamed would otherwise fail where nobody looks: at night, or in a release."""
    files = [dev.ROOT / ".pre-commit-config.yaml", *(dev.ROOT / ".github" / "workflows").glob("*.yml")]
    commands = re.findall(
        r"dev\.py (?:-s )?([a-z -]+)$", "\n".join(f.read_text("utf-8") for f in files), re.MULTILINE
    )
    names = {name for command in commands for name in command.split()}
    names |= set(re.findall(r'session\.notify\("([\w-]+)"', NOXFILE))

    assert {"lint", "drift", "nightly", "build", "contract-mutants"} <= names
    assert {name.replace("-", "_") for name in names} <= {name for _, name in SESSIONS}


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Modules that this Python seems to lack."""
    names: set[str] = set()
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in names else find_spec(name))
    return names


def test_without_ensurepip_the_running_pip_installs(project: Path, missing: set[str]) -> None:
    """Debian's Python lacks ensurepip, but a pip of its own can install into any environment."""
    missing.add("ensurepip")
    folder = project / ".venv" / "x"

    pip = dev.create(folder, folder / "bin" / "python")
    result = subprocess.run([*pip, "--version"], check=False, capture_output=True, text=True)

    assert result.returncode == 0, result.stderr
    assert pip[:3] == [sys.executable, "-m", "pip"]


def test_without_any_pip_it_says_what_to_install(project: Path, missing: set[str]) -> None:
    """Nothing can be installed then, and the reader may not know that Debian splits Python."""
    missing.update(["ensurepip", "pip"])

    with pytest.raises(SystemExit, match="apt install python3-venv"):
        dev.create(project / "x", project / "x" / "bin" / "python")


SLEEPER = f"""#!{sys.executable}
import pathlib, time
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.5)
    pathlib.Path(__file__).with_name("cleaned").touch()
"""


def test_an_interrupt_lets_the_program_clean_up(project: Path) -> None:
    """Ctrl-C ends in exit code 130 without a traceback, and not before the child has cleaned up."""
    python = project / ".venv" / "nox" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(SLEEPER, encoding="utf-8")
    python.chmod(0o755)
    (project / ".venv" / "nox" / "stamp").write_text(dev.fingerprint(*dev.group("nox")), encoding="utf-8")

    command = [sys.executable, str(project / "scripts" / "dev.py")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, signal.SIGINT)
        status = process.wait(timeout=10)
        cleaned = python.with_name("cleaned").exists()
        assert (status, cleaned, process.stderr.read()) == (130, True, "")


def test_an_older_python_is_refused_in_one_line() -> None:
    """Whoever runs it with an old Python must read why, and no SyntaxError or ImportError."""
    script = dev.ROOT / "scripts" / "dev.py"
    ast.parse(script.read_text(encoding="utf-8"), feature_version=(3, 7))
    pyproject = tomllib.loads((dev.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    minor = int(pyproject["project"]["requires-python"].removeprefix(">=3."))
    program = f"""import runpy, sys
sys.version_info = (3, {minor - 1}, 0)
runpy.run_path({str(script)!r}, run_name="__main__")"""

    result = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)

    assert result.returncode == 1
    assert result.stderr.startswith(f"techforge needs Python 3.{minor} or newer")
    assert result.stderr.count("\n") == 1
