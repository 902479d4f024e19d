"""Rebuild what is generated, or check that it is exactly what its sources give.

generated/ comes from openapi.json and the overlay, wrapper/techforge/_sync from wrapper/techforge/_async.

Usage:
    python3 scripts/dev.py -s regenerate               rebuild it
    python3 scripts/dev.py -s regenerate -- --check    change nothing, and name every file that differs
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
    """A reason to stop, in words for whoever ran the script."""


def main() -> int:
    """Run the command line; the result is its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare, and change nothing")
    check = bool(parser.parse_args().check)
    try:
        require_pins()
        # Inside the checkout, since only a rename within one filesystem is atomic; outside generated/,
        # where a killed run would leave it as an orphan.
        with TemporaryDirectory(prefix=".regenerate-", dir=ROOT) as folder:
            fresh = generate(tolerant_contract(), Path(folder))
            sync = Path(folder) / "_sync"
            unasync(SYNC.with_name("_async"), sync)
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
    """Refuse any other generator or formatter: their output differs between releases."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for requirement in pyproject["dependency-groups"]["codegen"]:
        name, _, pinned = requirement.partition("==")
        try:
            installed = version(name)
        except PackageNotFoundError:
            installed = "not"
        if installed != pinned:
            raise RefusedError(
                f"pyproject.toml pins {requirement}, but {installed} is installed."
                " Run it as `python3 scripts/dev.py -s regenerate`."
            )


def tolerant_contract() -> dict[str, Any]:
    """Return openapi.json with the overlay applied; an action that does nothing is an error."""
    contract, idle = tolerant(load_file(str(ROOT / "openapi.json")))
    if idle:
        raise RefusedError(idle[0])
    return contract


def tolerant(contract: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return a contract with the overlay applied, and a complaint about each action that does nothing."""
    overlay: dict[str, Any] = load_file(str(ROOT / "generator-overlay.yaml"))
    idle: list[str] = []
    for number, action in enumerate(overlay["actions"], start=1):
        changed = apply_overlay(copy.deepcopy(contract), {"actions": [action]})
        if changed == contract:
            idle.append(f"generator-overlay.yaml: action {number} changes nothing: {action['target']}")
        contract = changed
    return contract, idle


def generate(contract: dict[str, Any], folder: Path) -> Path:
    """Generate the client of `contract` below `folder`; the result stands for generated/."""
    spec = folder / "openapi.json"
    spec.write_text(json.dumps(contract), encoding="utf-8")
    fresh = folder / "generated"
    command = [sys.executable, "-P", "-X", "utf8", "-m", "openapi_python_client", "generate"]
    command += ["--path", str(spec), "--config", str(ROOT / "generator-config.yaml")]
    command += ["--output-path", str(fresh / PACKAGE), "--meta", "none", "--fail-on-warning"]
    environment = os.environ | {
        # The post hooks call `ruff` by name: it has to be the pinned one.
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
        raise RefusedError(f"the generator failed, and generated/ is as it was:\n{result.stdout}")
    return fresh


def compare(fresh: Mapping[Path, Path]) -> None:
    """Refuse a folder that differs in any file, either way, from the one that `fresh` maps it to."""
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
            f"Generated files are not what their sources give.{lines}\n"
            "Change the contract, the overlay, the settings or wrapper/techforge/_async, then "
            "`python3 scripts/dev.py -s regenerate`."
        )


def files(folder: Path) -> dict[str, bytes]:
    """Read every file below `folder`, save those that Python itself leaves there."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.parent.name != "__pycache__"
    }


def swap(fresh: Mapping[Path, Path], *, aside: Path) -> None:
    """Put what is fresh in its place, all of it or nothing: `fresh` maps each place to what it gets."""
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
            # An interrupt may come when all is done.
            if moved and place.exists():
                place.rename(new)
            if moved and place in kept:
                kept[place].rename(place)
        if isinstance(error, OSError):
            raise RefusedError(
                f"nothing is written: {error.filename} cannot be moved: {error.strerror}"
            ) from error
        raise


if __name__ == "__main__":
    sys.exit(main())
