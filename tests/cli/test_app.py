"""What all commands have in common: the help, how soon it is there, completion, and exit codes."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import techforge
from techforge import errors
from techforge.cli.app import COMMANDS, app
from techforge.cli.exit_codes import ExitCode, KeyProblemError, code_of

ROOT = Path(__file__).resolve().parents[2]
MAIN = "import sys; from techforge.cli import main; main()"


def run(*arguments: str) -> Any:
    """Run the command line in this process."""
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_the_help_says_what_the_commands_say() -> None:
    """What stands for a command before it is loaded says the same as the command."""
    said = run("--help").stdout
    for name, text in COMMANDS.items():
        assert f"{name} " in said
        module = import_module(f"techforge.cli.{name}")
        assert (module.app.info.help or "") == text
        assert run(name, "--help").exit_code == 0
    assert run().exit_code == 2
    assert "Did you mean 'video'?" in run("vidoe").stderr


def test_every_option_is_explained() -> None:
    """Each command, option and argument has its words."""
    for name in COMMANDS:
        command: Any = get_command(import_module(f"techforge.cli.{name}").app)
        for leaf in getattr(command, "commands", {name: command}).values():
            assert leaf.help, leaf.name
            for parameter in leaf.params:
                assert getattr(parameter, "help", None), (name, leaf.name, parameter.name)


def test_the_version() -> None:
    """It is the package's."""
    assert run("--version").stdout == f"techforge {techforge.__version__}\n"


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_it_starts_quickly(option: str) -> None:
    """In less than 1.5 times what `import httpx` takes: nothing is loaded that is not used."""

    def seconds(*arguments: str) -> float:
        began = time.perf_counter()
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, env=environment, check=True)
        return time.perf_counter() - began

    ratios = [seconds("-c", MAIN, option) / seconds("-c", "import httpx") for _ in range(7)]
    assert statistics.median(ratios) < 1.5, ratios
    program = (
        "import sys\nfrom techforge.cli import main\n"
        f"sys.argv = ['techforge', '{option}']\n"
        "try: main()\n"
        "except SystemExit: print([m for m in ('httpx', 'rich', 'techforge.batch') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == "[]"


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("techforge v", ["video"]),
        ("techforge video ", ["create", "wait", "download"]),
        ("techforge video create --output-", ["--output-size"]),
        ("techforge auth log", ["login", "logout"]),
    ],
)
def test_bash_completes(words: str, completed: list[str], tmp_path: Path) -> None:
    """The script that is shown is sourced by a bash, and asked what follows."""
    command = tmp_path / "techforge"
    command.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{MAIN}' \"$@\"\n")
    command.chmod(0o755)
    script = (
        'eval "$(_TECHFORGE_COMPLETE=source_bash techforge)"\n'
        f"COMP_WORDS=({words} {'' if not words.endswith(' ') else chr(39) * 2})\n"
        "COMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n_techforge_completion techforge\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    bash = shutil.which("bash") or "bash"
    said = subprocess.run([bash, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert said.stdout.split() == completed, said.stderr


def test_exit_codes_are_documented() -> None:
    """`exit_codes.py` and the table in docs/cli.md have the same codes, in the same words."""
    text = (ROOT / "docs" / "cli.md").read_text("utf-8").partition("## Exit codes")[2].partition("\n## ")[0]
    documented = {
        int(code): words for code, words in re.findall(r"^\| (\d+) \| (.*) \|$", text, re.MULTILINE)
    }
    source = inspect.getsource(ExitCode)
    assert documented == {int(code): words for code, words in re.findall(r'= (\d+)\n    """(.*)"""', source)}
    assert list(documented) == list(map(int, ExitCode))
    assert len(ExitCode.__members__) == len(list(ExitCode))


def _api(kind: type[errors.APIError], **attributes: Any) -> errors.APIError:
    error = kind("why", outcome=errors.Outcome.DEFINITIVE)
    for name, value in attributes.items():
        setattr(error, name, value)
    return error


def _download(error: errors.APIError | None) -> errors.DownloadError:
    return errors.DownloadError("why", path="a/b.mp4", target="b.mp4", error=error)


JOB = techforge.Job("15a6331b-3837-4ae8-8fa7-d3ead3388d77", "468ea7a0-66e1-4357-a760-236e54167f3e")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyProblemError("none"), 3),
        (_api(errors.AuthenticationError), 3),
        (_api(errors.PermissionDeniedError), 3),
        (errors.JobFailedError(JOB, "no face"), 4),
        (errors.JobOutcomeUnknownError(_api(errors.APIConnectionError), sent={}, project_id="p"), 5),
        (_api(errors.InternalServerError, job_may_exist=True), 5),
        (_api(errors.RateLimitError, job_may_exist=True), 5),
        (errors.JobTimeoutError(JOB, last_status="queued", elapsed=1.0, polls=1), 6),
        (_api(errors.RateLimitError), 7),
        (_api(errors.APIConnectionError), 8),
        (_api(errors.APITimeoutError), 8),
        (_api(errors.InternalServerError), 9),
        (_api(errors.APIResponseError), 9),
        (_api(errors.NotFoundError), 10),
        (_api(errors.BadRequestError), 2),
        (_download(None), 11),
        (_download(_api(errors.APIConnectionError)), 8),
        (errors.TargetExistsError("there", path="a/b.mp4", target="b.mp4"), 2),
        (errors.InvalidArgumentError("field", "wrong"), 2),
        (errors.ConfigurationError("wrong"), 2),
    ],
)
def test_each_error_has_its_code(error: errors.TechForgeError, code: int) -> None:
    """What a script does next depends on it."""
    assert code_of(error) == code
