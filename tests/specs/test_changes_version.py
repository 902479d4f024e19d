"""The version that changes ask for."""

import pytest

from changes import Change, Impact
from changes.version import Proposal, propose, understates

BREAKING = Change(Impact.BREAKING, "techforge.Job.id", "removed")
ADDITIVE = Change(Impact.ADDITIVE, "techforge.Job.uuid", "added")
DOC_ONLY = Change(Impact.DOC_ONLY, "techforge.Job", "documentation changed")


@pytest.mark.parametrize(
    ("current", "changes", "version", "level"),
    [
        ("1.2.3", [DOC_ONLY, BREAKING, ADDITIVE], "2.0.0", "major"),
        ("1.2.3", [DOC_ONLY, ADDITIVE], "1.3.0", "minor"),
        ("1.2.3", [DOC_ONLY], "1.2.4", "patch"),
        ("1.2.3", [], "1.2.3", "none"),
        ("1.2", [ADDITIVE], "1.3.0", "minor"),
        ("1.2.3.post1", [DOC_ONLY], "1.2.4", "patch"),
    ],
)
def test_semantic_versioning(current: str, changes: list[Change], version: str, level: str) -> None:
    """The worst change decides: breaking is major, additive minor, documentation a patch."""
    assert (proposal := propose(current, changes)).version == version
    assert proposal.level == level


@pytest.mark.parametrize(
    ("changes", "version", "level"),
    [([BREAKING], "0.5.0", "minor"), ([ADDITIVE], "0.4.8", "patch"), ([DOC_ONLY], "0.4.8", "patch")],
)
def test_below_1_0_0(changes: list[Change], version: str, level: str) -> None:
    """Below 1.0.0 the minor says what breaks, and no change leads to 1.0.0."""
    proposal = propose("0.4.7", changes)
    assert (proposal.version, proposal.level) == (version, level)


@pytest.mark.parametrize(
    ("current", "change", "version"),
    [
        ("2.0.0rc1", BREAKING, "2.0.0"),
        ("2.0.0a1", ADDITIVE, "2.0.0"),
        ("1.1.0b2", BREAKING, "2.0.0"),
        ("1.1.0b2", ADDITIVE, "1.1.0"),
        ("1.1.0b2", DOC_ONLY, "1.1.0"),
        ("1.1.1.dev4", ADDITIVE, "1.2.0"),
        ("1.1.1.dev4", DOC_ONLY, "1.1.1"),
        ("0.5.0rc1", BREAKING, "0.5.0"),
        ("0.5.1rc1", BREAKING, "0.6.0"),
    ],
)
def test_pre_releases(current: str, change: Change, version: str) -> None:
    """What a pre-release announces has room for the changes that its number allows, and for no others."""
    assert propose(current, [change]).version == version


def test_the_reasons_are_those_that_decide() -> None:
    """A reader is told what asks for this version, in order, and not what would have asked for less."""
    other = Change(Impact.BREAKING, "techforge.Job.a", "removed")
    assert propose("1.0.0", [BREAKING, ADDITIVE, other]).reasons == [other, BREAKING]


@pytest.mark.parametrize(
    ("version", "answer"),
    [
        ("1.0.0", True),
        ("1.0.9", True),
        ("1.1.0", False),
        ("1.1.0rc1", False),
        ("1.1.1", False),
        ("2.0.0", False),
        ("1.0.1rc1", True),
    ],
)
def test_understating(version: str, answer: bool) -> None:
    """A lower version than proposed understates; an equal one, a higher one and their pre-releases do not."""
    assert understates(version, Proposal("1.1.0", "minor", [ADDITIVE])) is answer
