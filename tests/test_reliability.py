"""What docs/reliability.md promises is guarded by tests that exist."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "reliability.md").read_text("utf-8")
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)
PROMISES = [line for line in TEXT.splitlines() if re.match(r"\| (?!promise \|)", line)]


def test_each_promise_names_its_guard() -> None:
    """A promise that nothing guards is a wish."""
    assert len(PROMISES) >= 18
    assert [line for line in PROMISES if not re.search(r"`tests/\S+::\w+`|`-s [\w-]+`", line)] == []


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_test_that_is_named_exists(file: str, name: str) -> None:
    """Whoever renames a test is told that a promise hangs on it."""
    functions = ast.parse((ROOT / file).read_text("utf-8")).body
    assert name in {f.name for f in functions if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_a_session_that_is_named_exists() -> None:
    """The same for the checks that are sessions."""
    sessions = re.findall(r"@nox\.session.*\ndef (\w+)", (ROOT / "noxfile.py").read_text("utf-8"))
    named = {name.replace("-", "_") for name in re.findall(r"`-s ([\w-]+)`", TEXT)}
    assert named <= {*sessions}


def test_each_dependency_has_its_reason() -> None:
    """What is installed on a user's machine is in the table of docs/why.md, and nothing else is."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = {"core": project["dependencies"], **project["optional-dependencies"]}
    wanted = {(re.split(r"\[|\W*>=", need)[0], who) for who, needs in wanted.items() for need in needs}
    table = (ROOT / "docs" / "why.md").read_text("utf-8").partition("## Dependencies")[2]
    assert {*re.findall(r"^\| ([\w-]+) \| (\w+) \| .{20}", table, re.MULTILINE)} == wanted
