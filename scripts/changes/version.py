"""The version that changes require: Semantic Versioning 2, written as in PEP 440."""

from collections.abc import Iterable
from typing import Literal

from attrs import evolve, frozen
from packaging.version import Version

from changes import Change, Impact

Level = Literal["major", "minor", "patch", "none"]
# Below 1.0.0 anything may change (Semantic Versioning, item 4); by custom the minor version says so.
LEVELS: dict[Impact, tuple[Level, Level]] = {
    Impact.BREAKING: ("major", "minor"),
    Impact.ADDITIVE: ("minor", "patch"),
    Impact.DOC_ONLY: ("patch", "patch"),
}
"""For each impact, the level from 1.0.0 on, and below."""


@frozen
class Proposal:
    """The lowest version that covers all changes, and the changes that require it."""

    version: str
    level: Level
    reasons: list[Change]


def propose(current: str, changes: Iterable[Change]) -> Proposal:
    """Return the version that changes since `current` require.

    A pre-release announces a version that has not been released, so the changes may be part of that: after
    2.0.0rc1 any change leads to 2.0.0. After 1.1.0rc1 a breaking change leads to 2.0.0, too.
    """
    found = sorted(changes)
    for level in ("major", "minor", "patch"):
        if reasons := [change for change in found if level_of(change.impact, current) == level]:
            return Proposal(_raised(Version(current), level), level, reasons)
    return Proposal(current, "none", [])


def level_of(impact: Impact, current: str) -> Level:
    """Return the level that one change since `current` requires."""
    return LEVELS[impact][Version(current).major == 0]


def for_sdk(contract: Iterable[Change]) -> list[Change]:
    """Return changes of the contract as they count for the SDK's version.

    A request that is no longer accepted breaks programs that use the SDK. What the SDK hides breaks them only
    if a public type shows it, and that is a change of the SDK.
    """
    return [
        evolve(change, impact=Impact.ADDITIVE)
        if change.impact is Impact.BREAKING and change.absorbed
        else change
        for change in contract
    ]


def understates(version: str, proposal: Proposal) -> bool:
    """Return whether a version is too low; a pre-release counts as the version that it announces."""
    return Version(Version(version).base_version) < Version(Version(proposal.version).base_version)


def _raised(version: Version, level: Level) -> str:
    major, minor, patch = version.major, version.minor, version.micro
    if version.is_prerelease and (
        level == "patch" or (level == "minor" and not patch) or (level == "major" and not (minor or patch))
    ):
        return version.base_version
    raised = {"major": (major + 1, 0, 0), "minor": (major, minor + 1, 0), "patch": (major, minor, patch + 1)}
    return ".".join(map(str, raised[level]))
