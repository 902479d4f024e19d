"""The version that changes require."""

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
        ("0.4.7", [BREAKING], "0.5.0", "minor"),
        ("0.4.7", [ADDITIVE], "0.4.8", "patch"),
        ("0.4.7", [DOC_ONLY], "0.4.8", "patch"),
        ("2.0.0rc1", [BREAKING], "2.0.0", "major"),
        ("2.0.0a1", [ADDITIVE], "2.0.0", "minor"),
        ("1.1.0b2", [BREAKING], "2.0.0", "major"),
        ("1.1.0b2", [ADDITIVE], "1.1.0", "minor"),
        ("1.1.0b2", [DOC_ONLY], "1.1.0", "patch"),
        ("1.1.1.dev4", [ADDITIVE], "1.2.0", "minor"),
        ("1.1.1.dev4", [DOC_ONLY], "1.1.1", "patch"),
        ("0.5.0rc1", [BREAKING], "0.5.0", "minor"),
        ("0.5.1rc1", [BREAKING], "0.6.0", "minor"),
    ],
)
def test_the_next_version(current: str, changes: list[Change], version: str, level: str) -> None:
    """The worst change decides; below 1.0.0 it raises less, and a pre-release may already announce it."""
    proposal = propose(current, changes)
    assert (proposal.version, proposal.level) == (version, level)


def test_the_reasons_are_those_that_decide() -> None:
    """The proposal has the changes that require this version, in order, and no others."""
    other = Change(Impact.BREAKING, "techforge.Job.a", "removed")
    assert propose("1.0.0", [BREAKING, ADDITIVE, other]).reasons == [other, BREAKING]


@pytest.mark.parametrize(
    ("versions", "answer"), [("1.0.0 1.0.9 1.0.1rc1", True), ("1.1.0 1.1.0rc1 1.1.1 2.0.0", False)]
)
def test_understating(versions: str, answer: bool) -> None:
    """A lower version than proposed understates; an equal or higher one and its pre-releases do not."""
    for version in versions.split():
        assert understates(version, Proposal("1.1.0", "minor", [ADDITIVE])) is answer
