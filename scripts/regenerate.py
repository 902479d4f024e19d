"""Generate code again, or check that the generated code matches its sources exactly.

generated/ comes from openapi.json and the overlay, wrapper/techforge/_sync from wrapper/techforge/_async and
batch/campaign.py.

Usage:
    python3 scripts/dev.py -s regenerate               generate it
    python3 scripts/dev.py -s regenerate -- --check    change nothing, and list the files that differ
"""

import argparse
import copy
import json
import os
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from oas_patch.file_utils import load_file  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]
from oas_patch.overlay import apply_overlay  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

from unasync import RuleError, unasync

ROOT = Path(__file__).resolve().parent.parent
GENERATED = ROOT / "generated"
PACKAGE = "techforge_api"
SYNC = ROOT / "wrapper" / "techforge" / "_sync"


class RefusedError(Exception):
    """The script must stop; the message is shown to the user."""


def main() -> int:
    """Run the script; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare, and change nothing")
    check = bool(parser.parse_args().check)
    try:
        require_pins()
        # Inside the checkout, since renames are atomic only within a file system. Not in generated/, where
        # the folder of a killed run would be reported as an orphan.
        with TemporaryDirectory(prefix=".regenerate-", dir=ROOT) as folder:
            fresh = generate(tolerant_contract(), Path(folder))
            sync = Path(folder) / "_sync"
            unasync(SYNC.parent, sync)
            if check:
                compare({GENERATED: fresh, SYNC: sync})
            else:
                swap({GENERATED / PACKAGE: fresh / PACKAGE, SYNC: sync}, aside=Path(folder) / "old")
    except (RefusedError, RuleError, OSError) as reason:
        print(f"regenerate: {reason}", file=sys.stderr)
        return 1
    print("Everything generated is up to date." if check else "Everything generated is rebuilt.")
    return 0


def require_pins() -> None:
    """Require the pinned generator and formatter: their output differs between releases."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for requirement in pyproject["dependency-groups"]["codegen"]:
        name, _, pinned = requirement.partition("==")
        try:
            installed = version(name)
        except PackageNotFoundError:
            installed = "none"
        if installed != pinned:
            raise RefusedError(
                f"pyproject.toml pins {requirement}, but {installed} is installed."
                " Run this as `python3 scripts/dev.py -s regenerate`."
            )


def tolerant_contract() -> dict[str, Any]:
    """Return openapi.json with the overlay applied. An action that changes nothing is an error."""
    contract, idle = tolerant(load_file(str(ROOT / "openapi.json")))
    if idle:
        raise RefusedError(idle[0])
    return contract


def tolerant(contract: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return a contract with the overlay applied, and a message for each action that changes nothing."""
    overlay: dict[str, Any] = load_file(str(ROOT / "generator-overlay.yaml"))
    return relaxed(contract, overlay["actions"])


def relaxed(contract: dict[str, Any], actions: list[dict[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """Return a contract with overlay actions applied, and a message for each that changes nothing."""
    idle: list[str] = []
    for number, action in enumerate(actions, start=1):
        changed = apply_overlay(copy.deepcopy(contract), {"actions": [action]})
        if changed == contract:
            idle.append(f"generator-overlay.yaml: action {number} changes nothing: {action['target']}")
        contract = changed
    return contract, idle


def generate(contract: dict[str, Any], folder: Path) -> Path:
    """Generate the client for `contract` below `folder`; return the folder to replace generated/."""
    spec = folder / "openapi.json"
    spec.write_text(json.dumps(contract), encoding="utf-8")
    fresh = folder / "generated"
    command = [sys.executable, "-P", "-X", "utf8", "-m", "openapi_python_client", "generate"]
    command += ["--path", str(spec), "--config", str(ROOT / "generator-config.yaml")]
    command += ["--output-path", str(fresh / PACKAGE), "--meta", "none", "--fail-on-warning"]
    environment = os.environ | {
        # The post hooks run `ruff` by name: it must be the pinned one.
        "PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)]),
        "LC_ALL": "C.UTF-8",
        "PYTHONHASHSEED": "0",
    }
    result = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    if result.returncode:
        raise RefusedError(f"the generator failed; generated/ was not changed:\n{result.stdout}")
    return fresh


def compare(fresh: Mapping[Path, Path]) -> None:
    """Compare each folder with its fresh version; raise an error that lists all differences."""
    expected: dict[str, bytes] = {}
    actual: dict[str, bytes] = {}
    for place, folder in fresh.items():
        name = place.relative_to(ROOT).as_posix()
        expected |= {f"{name}/{file}": content for file, content in files(folder).items()}
        actual |= {f"{name}/{file}": content for file, content in files(place).items()}
    problems = {
        **dict.fromkeys(expected.keys() - actual.keys(), "missing"),
        **dict.fromkeys(actual.keys() - expected.keys(), "orphan: nothing generates it"),
        **{
            name: "edited by hand, or stale"
            for name in expected.keys() & actual.keys()
            if expected[name] != actual[name]
        },
    }
    if problems:
        lines = "".join(f"\n  {name}: {problem}" for name, problem in sorted(problems.items()))
        raise RefusedError(
            f"Generated files do not match their sources.{lines}\n"
            "Change the contract, the overlay, the settings, wrapper/techforge/_async or batch/campaign.py. "
            "Then run `python3 scripts/dev.py regenerate`."
        )


def files(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below `folder` except in `__pycache__`."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.parent.name != "__pycache__"
    }


def swap(fresh: Mapping[Path, Path], *, aside: Path) -> None:
    """Replace each folder by its fresh version: all of them or none."""
    kept = {place: aside / str(number) for number, place in enumerate(fresh) if place.exists()}
    aside.mkdir()
    try:
        for place, new in fresh.items():
            if place in kept:
                place.rename(kept[place])
            new.rename(place)
    except BaseException as error:
        for place, new in fresh.items():
            moved = place not in kept or kept[place].exists()
            # An interrupt may arrive after the last rename.
            if moved and place.exists():
                place.rename(new)
            if moved and place in kept:
                kept[place].rename(place)
        if isinstance(error, OSError):
            raise RefusedError(
                f"nothing was changed: {error.filename} cannot be moved: {error.strerror}"
            ) from error
        raise


if __name__ == "__main__":
    sys.exit(main())
