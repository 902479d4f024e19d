"""Check that the version of a checkout is high enough for what changed since the last release.

Changes of the SDK decide, and changes of openapi.json that the SDK cannot hide (`version.for_sdk`). The last
release is the newest tag `v*` among HEAD's ancestors; pre-releases and the checkout's own tag do not count.
"""

import json
import re
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

from packaging.version import InvalidVersion, Version

from changes import Change, api, sdk
from changes.version import for_sdk, propose, understates

VERSION = Path("wrapper", "techforge", "_version.py")
_RELEASED = ("wrapper", "generated", "openapi.json")


class RefusedError(Exception):
    """Why this version must not be released."""


def check(root: Path) -> str:
    """Return in one line why the version is high enough.

    Raises:
        RefusedError: it is not, or the last release cannot be found.
    """
    version = (root / VERSION).read_text(encoding="utf-8").partition('"')[2].partition('"')[0]
    headings = re.findall(
        r"^## (\d\S*)(?: \((.*)\))?$", (root / "CHANGELOG.md").read_text("utf-8"), flags=re.MULTILINE
    )
    if version not in dict(headings):
        raise RefusedError(f"CHANGELOG.md has no heading for {version}: add `## {version} (...)`.")
    tags = _tags(root, version)
    if tags and Version(version) < (newest := max(tags)):
        raise RefusedError(
            f"{version} is lower than {tags[newest]}, an ancestor of it. Raise it in {VERSION}."
        )

    earlier = [Version(name) for name, when in headings if re.fullmatch(r"\d{4}-\d\d-\d\d", when)]
    expected = max((each for each in earlier if each < Version(version)), default=None)
    if expected and expected not in tags:
        raise RefusedError(
            f"CHANGELOG.md has a release {expected}, but HEAD has no ancestor with the tag v{expected} to "
            f"compare it with. {_advice(root)}"
        )
    last = max((each for each in tags if not each.is_prerelease), default=None)
    if last is None:
        return f"{version} is the first release: there is none to compare it with."

    proposal = propose(str(last), _changes(root, tags[last]))
    if understates(version, proposal):
        reasons = "".join(f"\n  {change}" for change in proposal.reasons)
        raise RefusedError(
            f"{version} is too low for what changed since {tags[last]}:{reasons}\n"
            f"Write {proposal.version} or higher to {VERSION} and CHANGELOG.md."
        )
    return f"{version} is high enough: the changes since {tags[last]} require {proposal.version}."


def _changes(root: Path, tag: str) -> list[Change]:
    with TemporaryDirectory(prefix="techforge-release-") as name:
        folder = Path(name)
        # A zip, since Python 3.11.3 and older cannot unpack a tar safely.
        archive = folder / "release.zip"
        _git(root, "archive", f"--output={archive}", tag, *_RELEASED)
        with ZipFile(archive) as packed:
            packed.extractall(folder)
        old, new = (json.loads((each / "openapi.json").read_bytes()) for each in (folder, root))
        try:
            return [*sdk.compare(folder, root), *for_sdk(api.compare(old, new))]
        except LookupError as error:
            raise RefusedError(f"{tag} and this checkout cannot be compared: {error}") from error


def _tags(root: Path, version: str) -> dict[Version, str]:
    """Return the tagged versions among HEAD's ancestors, without the checkout's own."""
    if not (root / ".git").exists():
        return {}
    tags: dict[Version, str] = {}
    for tag in _git(root, "tag", "--list", "v*", "--merged", "HEAD").split():
        try:
            tags[Version(tag)] = tag
        except InvalidVersion:
            continue
    own = tags.get(Version(version))
    if own and not _git(root, "diff", "--name-only", own, "--", *_RELEASED):
        del tags[Version(version)]
    return tags


def _advice(root: Path) -> str:
    if not (root / ".git").exists():
        return "This is no git checkout: build the release in one."
    if _git(root, "rev-parse", "--is-shallow-repository").strip() == "true":
        return "The clone is shallow: `git fetch --tags --unshallow`."
    return "Try `git fetch --tags`; a release that was never tagged needs its tag now."


def _git(root: Path, *arguments: str) -> str:
    try:
        command = ["git", *arguments]
        done = subprocess.run(command, cwd=root, check=False, capture_output=True, encoding="utf-8")
    except FileNotFoundError as error:
        raise RefusedError("git is needed to find the last release, and it is not installed.") from error
    if done.returncode:
        raise RefusedError(f"git {' '.join(arguments)} failed: {done.stderr.strip()}")
    return done.stdout
