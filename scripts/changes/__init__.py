"""What a new contract or a new release changes, and for whom."""

from enum import StrEnum

from attrs import frozen


class Impact(StrEnum):
    """What a change means for code that relies on the previous state."""

    BREAKING = "breaking"
    ADDITIVE = "additive"
    DOC_ONLY = "doc-only"


@frozen(order=True)
class Change:
    """One change."""

    impact: Impact
    where: str
    """For example `POST /jobs/v2 request body.language`, or `techforge.Job.id`."""
    what: str
    """For example `removed`, or `type changed from string to integer`."""
    silent: bool = False
    """Whether the types of generated code do not show it."""
    absorbed: bool = False
    """Whether the SDK hides it from its users, unless its public types show it."""
    work: str = ""
    """What has to change in the wrapper, where no type shows it."""

    def __str__(self) -> str:
        return f"{self.impact}: {self.where}: {self.what}"
