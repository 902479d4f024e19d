"""The version that changes ask for: Semantic Versioning 2, spelled as PEP 440 does."""

from collections.abc import Iterable
from typing import Literal

from attrs import evolve, frozen
from packaging.version import Version

from changes import Change, Impact

Level = Literal["major", "minor", "patch", "none"]

_LEVELS: dict[Impact, Level] = {
    Impact.BREAKING: "major",
    Impact.ADDITIVE: "minor",
    Impact.DOC_ONLY: "patch",
}
# Semantic Versioning, item 4: below 1.0.0 anything may change, and by custom the minor then says so.
_LEVELS_BELOW_1: dict[Impact, Level] = {
    Impact.BREAKING: "minor",
    Impact.ADDITIVE: "patch",
    Impact.DOC_ONLY: "patch",
}


@frozen
class Proposal:
    """The lowest version that states changes in full, and those that ask for it."""

    version: str
    level: Level
    reasons: list[Change]


def propose(current: str, changes: Iterable[Change]) -> Proposal:
    """Return the version that changes since `current` ask for.

    A pre-release announces a version that is not out, so it has room for what that version may bring:
    after 2.0.0rc1 anything leads to 2.0.0, while something breaking after 1.1.0rc1 does, too.
    """
    version = Version(current)
    levels = _LEVELS if version.major else _LEVELS_BELOW_1
    asked: dict[Level, list[Change]] = {"major": [], "minor": [], "patch": []}
    for change in sorted(changes):
        asked[levels[change.impact]].append(change)
    for level, reasons in asked.items():
        if reasons:
            return Proposal(_raised(version, level), level, reasons)
    return Proposal(current, "none", [])


def for_sdk(contract: Iterable[Change]) -> list[Change]:
    """Return a contract's changes as they count for the SDK's version: none is more than additive.

    What breaks its user's Python is seen in the Python; for the rest, a server of that contract is new.
    """
    return [
        evolve(change, impact=Impact.ADDITIVE) if change.impact is Impact.BREAKING else change
        for change in contract
    ]


def understates(version: str, proposal: Proposal) -> bool:
    """Tell whether a release of this version would promise more than it keeps.

    A pre-release counts as what it announces.
    """
    return Version(Version(version).base_version) < Version(Version(proposal.version).base_version)


def _raised(version: Version, level: Level) -> str:
    major, minor, patch = version.major, version.minor, version.micro
    if version.is_prerelease and (
        level == "patch" or (level == "minor" and not patch) or (level == "major" and not (minor or patch))
    ):
        return f"{major}.{minor}.{patch}"
    raised = {"major": (major + 1, 0, 0), "minor": (major, minor + 1, 0), "patch": (major, minor, patch + 1)}
    return ".".join(map(str, raised[level]))
