"""Check the version, build what is published, look inside, and use it where nothing else is.

`nox -s package` runs this.
"""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

from changes.release import RefusedError, check
from dev import PIP_SETTINGS, ROOT, fingerprint

WHEELHOUSE = ROOT / ".cache" / "wheelhouse"


def main() -> None:
    """Run all steps; the first that fails ends the script."""
    try:
        print(check(ROOT), flush=True)
    except RefusedError as reason:
        sys.exit(f"package: {reason}")
    with TemporaryDirectory(prefix="techforge-package-") as name:
        folder = Path(name)
        wheel = build(folder)
        check_contents(wheel)
        fill_wheelhouse()
        use(wheel, folder)
    print(f"{wheel.name} is good.")


def build(folder: Path) -> Path:
    """Build a wheel from the sdist and one from the checkout; return either, since they must be equal."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir"]
    run(*command, folder / "from-sdist", ROOT)
    run(*command, folder / "from-checkout", "--wheel", ROOT)
    (wheel,) = (folder / "from-checkout").glob("*.whl")
    if wheel.read_bytes() != (folder / "from-sdist" / wheel.name).read_bytes():
        sys.exit("The sdist builds another wheel than the checkout does.")
    return wheel


def check_contents(wheel: Path) -> None:
    """Refuse a wheel with a file too many or too few: sources, the contract, and what installers read."""
    about = "-".join(wheel.name.split("-")[:2]) + ".dist-info"
    expected = {"techforge/openapi.json"}
    names = "METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"
    expected |= {f"{about}/{name}" for name in names}
    for source in (ROOT / "wrapper", ROOT / "generated"):
        # Whatever else lies among the sources, an editor's copy or somebody's keys, is not to be published.
        files = (path for pattern in ("*.py", "*.html", "py.typed") for path in source.rglob(pattern))
        expected |= {path.relative_to(source).as_posix() for path in files}
    with ZipFile(wheel) as archive:
        actual = set(archive.namelist())
    if actual != expected:
        too_many, too_few = sorted(actual - expected), sorted(expected - actual)
        sys.exit(f"The wheel holds {too_many} too many, and {too_few} too few.")
    if not {"techforge/py.typed", "techforge_api/py.typed"} <= actual:
        sys.exit("A py.typed is missing: without it, type checkers ignore the annotations.")


def fill_wheelhouse() -> None:
    """Fetch what the project depends on, once: from then on this works without a network."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = [*project["dependencies"], *project["optional-dependencies"]["mock"]]
    stamp = WHEELHOUSE / "stamp"
    wanted = fingerprint(*requirements)
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return
    shutil.rmtree(WHEELHOUSE, ignore_errors=True)
    constraints = PIP_SETTINGS["PIP_CONSTRAINT"]
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "-c", constraints, "-w", WHEELHOUSE, *requirements)
    stamp.write_text(wanted, encoding="utf-8")


def use(wheel: Path, folder: Path) -> None:
    """Install the wheel in an empty environment, import it, and make a video with it."""
    environment = folder / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    python = environment / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", python]
    install = [*pip, "install", "--quiet", "--no-index", "--find-links", WHEELHOUSE]

    run(*install, wheel)
    version = wheel.name.split("-")[1]
    run(python, "-I", "-W", "error", "-c", f"import techforge; assert techforge.__version__ == '{version}'")
    # pytest, which this environment does not have, finds our fixtures by it.
    named = "(found,) = entry_points(group='pytest11', name='pytest_techforge')"
    found = f"from importlib.metadata import entry_points; {named}; assert found.module == 'pytest_techforge'"
    run(python, "-I", "-c", found)

    run(*install, f"techforge[mock] @ {wheel.as_uri()}")
    run(*pip, "check")
    run(python, "-W", "error", ROOT / "scripts" / "smoke.py")


def run(*command: str | Path) -> None:
    """Run a program; end the script if it fails."""
    if status := subprocess.run(command, cwd=ROOT, check=False).returncode:
        sys.exit(f"{' '.join(map(str, command))} failed ({status}).")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
