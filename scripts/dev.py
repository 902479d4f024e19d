#!/usr/bin/env python3
"""Run the project's checks or its demo, with nothing installed but Python.

Usage:
    python3 scripts/dev.py                    run the default checks, as CI does
    python3 scripts/dev.py NAME [arguments]   run one session of noxfile.py, for example `tests -k wait`
    python3 scripts/dev.py -l                 list the sessions; options are passed to nox
    python3 scripts/dev.py demo [arguments]   run the demo, see scripts/demo.py
"""

import sys

# Above the other imports: an older Python lacks some of them.
if sys.version_info < (3, 11):  # noqa: UP036
    sys.exit(f"techforge needs Python 3.11 or newer; this is {sys.version.split()[0]} ({sys.executable}).")

import hashlib
import importlib.util
import os
import subprocess
import time
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ROOT / ".venv"
THIS_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

# Pip has two names for this, by its age, and obeys them where it builds, too. Relative, since it takes a
# blank for the end of a path.
PIP_SETTINGS = {
    "PIP_CONSTRAINT": "constraints.txt",
    "PIP_BUILD_CONSTRAINT": "constraints.txt",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}


def main(arguments: list[str]) -> int:
    """Run the demo or nox; return its exit code."""
    if arguments[:1] == ["demo"]:
        python = environment("demo", "--editable", f"{ROOT}[mock]", *group("demo"))
        return run([python, ROOT / "scripts" / "demo.py", *arguments[1:]])
    if arguments and not arguments[0].startswith("-"):
        name, *rest = arguments
        # The tests are one session for each Python; the one that is running is enough here.
        session = f"tests-{THIS_PYTHON}" if name == "tests" else name
        arguments = ["-s", session, "--", *(rest[1:] if rest[:1] == ["--"] else rest)]
    python = environment("nox", *group("nox"))
    return run([python, "-m", "nox", "--noxfile", ROOT / "noxfile.py", *arguments])


def pyproject() -> dict[str, Any]:
    """Read pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def group(name: str) -> list[str]:
    """Return a dependency group; the pip that comes with Python 3.11 knows none."""
    requirements: list[str] = pyproject()["dependency-groups"][name]
    return requirements


def default_seed() -> str:
    """Return the commit of the checkout, so that each commit tries another sample; without git, the day."""
    try:
        command = ["git", "rev-parse", "--short", "HEAD"]
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return time.strftime("%Y-%m-%d", time.gmtime())


def environment(name: str, *requirements: str) -> Path:
    """Return the Python of a virtual environment with these requirements, which is made if need be."""
    folder = ENVIRONMENTS / name
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = folder / "stamp"
    wanted = fingerprint(*requirements)
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    print(f"setting up {folder.relative_to(ROOT)} (first time only) ...", file=sys.stderr)
    pip = create(folder, python)
    quiet = [] if "PIP_VERBOSE" in os.environ else ["--quiet"]
    if run([*pip, "install", *quiet, *requirements], cwd=ROOT, env=os.environ | PIP_SETTINGS):
        sys.exit(
            "The installation failed; it needs a package index."
            " To see more of it, set PIP_VERBOSE=1 and run this again."
        )
    # Last of all: an installation that was cut short has no stamp, and is done anew.
    stamp.write_text(wanted, encoding="utf-8")
    return python


def create(folder: Path, python: Path) -> list[str | Path]:
    """Make an empty virtual environment; return the pip command that installs into it."""
    own_pip = importlib.util.find_spec("ensurepip") is not None
    # Debian splits ensurepip off into a package of its own.
    if not own_pip and not importlib.util.find_spec("pip"):
        sys.exit("This Python has neither ensurepip nor pip. On Debian and Ubuntu: apt install python3-venv")
    if run([sys.executable, "-m", "venv", "--clear", *([] if own_pip else ["--without-pip"]), folder]):
        sys.exit(f"{sys.executable} cannot make a virtual environment in {folder}.")
    return [python, "-m", "pip"] if own_pip else [sys.executable, "-m", "pip", "--python", python]


def fingerprint(*requirements: str) -> str:
    """Hash what decides the contents of an environment: when it changes, the environment is made anew."""
    settings = pyproject()
    # Of the tools, only the build backend has a say: a new lint rule needs no new environment.
    settings["tool"] = settings["tool"]["hatch"]
    facts = (sys.version, sys.base_prefix, ROOT, requirements, settings)
    digest = hashlib.sha256(repr(facts).encode())
    for name in ("constraints.txt", "wrapper/techforge/_version.py"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def run(command: list[str | Path], *, cwd: Path | None = None, env: dict[str, str] | None = None) -> int:
    """Run a program to its end; the result is its exit code."""
    with subprocess.Popen(command, cwd=cwd, env=env) as process:
        try:
            status = process.wait()
        except KeyboardInterrupt:
            process.wait()  # The terminal interrupts it as well: let it clean up.
            raise
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
