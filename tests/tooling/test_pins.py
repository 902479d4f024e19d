"""constraints.txt: what is installed today is what will be installed tomorrow."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_requirement_is_pinned() -> None:
    """A package that is added to pyproject.toml and not to constraints.txt would float."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = pyproject["project"]
    lists = [
        pyproject["build-system"]["requires"],
        project["dependencies"],
        *project["optional-dependencies"].values(),
        *pyproject["dependency-groups"].values(),
    ]
    wanted = {normal(item) for items in lists for item in items if isinstance(item, str)}

    assert wanted - {normal(project["name"])} <= pinned().keys()


def test_every_pin_is_exact() -> None:
    """A range, an address or an option would let the same file install different things."""
    assert [line for lines in pinned().values() for line in lines if not re.fullmatch(PIN, line)] == []


PIN = r"[a-z0-9.-]+==[0-9][a-z0-9.]*( ; .+)?"


def pinned() -> dict[str, list[str]]:
    """Read constraints.txt: a package may have several lines, one for each Python."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            found.setdefault(normal(line), []).append(line)
    return found


def normal(requirement: str) -> str:
    """Return the normalised name in a requirement (PEP 503)."""
    name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()
