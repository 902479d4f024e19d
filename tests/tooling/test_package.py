"""A release whose version understates its changes is refused: tried on repositories of the real sources."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest

import package
from changes.release import RefusedError, check

ROOT = Path(__file__).parents[2]
HEADING = "# Changelog\n\n## {}\n\nMore.\n\n## 1.0.0 (2026-11-25)\n"

WRAPPER = "wrapper/techforge/"
BREAKING = (f"{WRAPPER}models.py", "    message: str | None = None\n", "")
ADDITIVE = (
    f"{WRAPPER}models.py",
    "    content_type: str | None = None\n",
    "    content_type: str | None = None\n    x: int = 0\n",
)
DOC_ONLY = (f"{WRAPPER}models.py", "A job that the API has accepted.", "A job.")
INSIDE = (f"{WRAPPER}_partfile.py", "import os\n", "import os\n\n_MORE = 1\n")
STATUS_ADDED = ("openapi.json", '"202": {', '"403": {"description": "Forbidden"}, "202": {')
STATUS_CHANGED = ("openapi.json", '"202": {', '"201": {')

Edit = tuple[str, str, str]


def git(root: Path, *arguments: str) -> None:
    """Run git, whatever the machine has set for it."""
    environment = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.com"]
    command = ["git", *identity, *arguments]
    subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True)


def edit(root: Path, *edits: Edit) -> None:
    """Replace text in files; each text must be there."""
    for name, old, new in edits:
        text = (root / name).read_text("utf-8")
        assert old in text
        (root / name).write_text(text.replace(old, new, 1), encoding="utf-8")


def release(root: Path, version: str, *, heading: str | None = None) -> None:
    """Name a version in both places."""
    (root / WRAPPER / "_version.py").write_text(f'__version__ = "{version}"\n', encoding="utf-8")
    changelog = HEADING.format(heading or f"{version} (unreleased)")
    (root / "CHANGELOG.md").write_text(changelog, encoding="utf-8")


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of the real sources, with one commit, tagged v1.0.0."""
    root = tmp_path_factory.mktemp("repository")
    for name in ("wrapper", "generated"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "openapi.json", root)
    release(root, "1.0.0", heading="1.0.0 (2026-11-25)")
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "One")
    git(root, "tag", "v1.0.0")
    return root


@pytest.fixture
def repository(released: Path, tmp_path: Path) -> Path:
    """A copy of that repository, to change."""
    return Path(shutil.copytree(released, tmp_path / "repository"))


@pytest.mark.parametrize(
    ("edits", "too_low", "enough"),
    [
        ([BREAKING, ADDITIVE], "1.9.9", "2.0.0"),
        ([ADDITIVE], "1.0.9", "1.1.0"),
        ([DOC_ONLY], "1.0.0", "1.0.1"),
        ([INSIDE], None, "1.0.0"),
        ([STATUS_ADDED], "1.0.1", "1.1.0"),
        ([STATUS_CHANGED], "1.0.1", "1.1.0"),
    ],
    ids=["breaking", "additive", "doc-only", "inside", "contract more", "contract breaking"],
)
def test_the_version_says_enough(
    repository: Path, edits: list[Edit], too_low: str | None, enough: str
) -> None:
    """Understated is refused with the reasons and the version to write; right and overstated pass.

    The edits are not committed: what lies in the checkout is what gets built.
    """
    edit(repository, *edits)
    if too_low:
        release(repository, too_low)
        with pytest.raises(RefusedError, match=rf"{too_low} is too low .* v1\.0\.0:\n  ") as refused:
            check(repository)
        assert f"Write {enough} or higher to wrapper/techforge/_version.py" in str(refused.value)
    for version in (enough, "7.0.0"):
        release(repository, version)
        assert check(repository) == f"{version} is high enough: the changes since v1.0.0 require {enough}."


def test_a_tagged_release_is_compared_with_the_one_before(repository: Path) -> None:
    """A tag on HEAD would else compare a release with itself."""
    edit(repository, ADDITIVE)
    release(repository, "1.0.1")
    git(repository, "commit", "--all", "--quiet", "--message", "Two")
    git(repository, "tag", "v1.0.1")
    with pytest.raises(RefusedError, match=r"since v1\.0\.0"):
        check(repository)


def test_pre_releases_are_not_compared_with(repository: Path) -> None:
    """What a pre-release brought may still change; what counts is the release before."""
    edit(repository, ADDITIVE)
    release(repository, "1.1.0rc1")
    git(repository, "commit", "--all", "--quiet", "--message", "Two")
    git(repository, "tag", "v1.1.0rc1")
    edit(repository, ("wrapper/techforge/models.py", "    x: int = 0\n", "    y: int = 0\n"))
    release(repository, "1.1.0")
    git(repository, "commit", "--all", "--quiet", "--message", "Three")

    assert check(repository) == "1.1.0 is high enough: the changes since v1.0.0 require 1.1.0."


def other_tags(repository: Path) -> None:
    """Tag what names no version, and what is on another branch."""
    git(repository, "tag", "vnext")
    git(repository, "checkout", "--quiet", "-b", "other")
    git(repository, "commit", "--allow-empty", "--quiet", "--message", "Elsewhere")
    git(repository, "tag", "v9.0.0")
    git(repository, "checkout", "--quiet", "-")


def untagged(repository: Path) -> None:
    """Take away the only tag."""
    git(repository, "tag", "--delete", "v1.0.0")


def unpacked(repository: Path) -> None:
    """Make an unpacked sdist of it, inside another checkout."""
    shutil.move(repository / ".git", repository.parent / ".git")


def shallow(repository: Path) -> None:
    """Make a clone of it as CI systems do."""
    git(repository, "commit", "--all", "--quiet", "--message", "Two")
    git(repository.parent, "clone", "--quiet", "--depth=1", repository.as_uri(), "shallow")
    shutil.rmtree(repository)
    (repository.parent / "shallow").rename(repository)


@pytest.mark.parametrize(
    ("version", "prepare", "answer"),
    [
        ("1.0.1", other_tags, r"high enough: the changes since v1\.0\.0"),
        ("1.0.0", untagged, "1.0.0 is the first release"),
        ("1.1.0", untagged, r"release 1\.0\.0, but HEAD has no .* `git fetch --tags`"),
        ("1.1.0", shallow, "`git fetch --tags --unshallow`"),
        ("1.1.0", unpacked, "no git checkout"),
        ("1.1.0", lambda repository: (repository / ".git" / "HEAD").unlink(), r"git tag .* failed: fatal: "),
        ("0.9.0", lambda _: None, r"0\.9\.0 is lower than v1\.0\.0"),
        ("1.0.0rc1", lambda _: None, r"1\.0\.0rc1 is lower than v1\.0\.0"),
        ("1.1.0", lambda root: release(root, "1.1.0", heading="Unreleased"), "has no heading for 1.1.0"),
    ],
)
def test_the_last_release_is_found_or_missed(
    repository: Path, version: str, prepare: Callable[[Path], object], answer: str
) -> None:
    """What cannot be compared is refused: only a first release has nothing to be compared with."""
    if version != "1.0.0":
        release(repository, version)
    prepare(repository)
    try:
        said = check(repository)
    except RefusedError as refused:
        said = str(refused)
    assert re.search(answer, said)


def test_without_git_it_is_said(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without git cannot find the last release."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RefusedError, match="not installed"):
        check(repository)


@pytest.mark.parametrize(
    "change", [None, "techforge/.env", "techforge-1.0.0.data/scripts/x", "-techforge/py.typed"]
)
def test_a_wheel_holds_what_it_should(tmp_path: Path, change: str | None) -> None:
    """Not one file more, which may be a secret, and not one less."""
    about = "techforge-1.0.0.dist-info"
    names = {
        f"{about}/METADATA",
        f"{about}/RECORD",
        f"{about}/WHEEL",
        f"{about}/entry_points.txt",
        f"{about}/licenses/LICENSE",
    }
    names |= {"techforge/openapi.json"}
    for source in (ROOT / "wrapper", ROOT / "generated"):
        names |= {
            p.relative_to(source).as_posix()
            for p in source.rglob("*")
            if p.suffix in {".py", ".html", ".typed"}
        }
    names ^= {change.removeprefix("-")} if change else set()
    wheel = tmp_path / "techforge-1.0.0-py3-none-any.whl"
    with ZipFile(wheel, "w") as archive:
        for name in names:
            archive.writestr(name, "")
    if change is None:
        package.check_contents(wheel)
        return
    with pytest.raises(SystemExit, match=re.escape(change.removeprefix("-"))):
        package.check_contents(wheel)


def test_nothing_is_built_before(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`nox -s package` ends with the refusal in its words, or says that the version is right and goes on."""
    built: list[Path] = []

    def build(folder: Path) -> Path:
        built.append(folder)
        raise SystemExit("built")

    monkeypatch.setattr(package, "ROOT", repository)
    monkeypatch.setattr(package, "build", build)
    with pytest.raises(SystemExit, match="built"):
        package.main()
    assert capsys.readouterr().out.startswith("1.0.0 is the first release")

    built.clear()
    edit(repository, BREAKING)
    with pytest.raises(SystemExit, match=r"package: 1\.0\.0 is too low"):
        package.main()
    assert built == []
