"""What a new contract or a new release changes, and for whom."""

from enum import StrEnum

from attrs import frozen


class Impact(StrEnum):
    """What a change asks of whoever relied on what was there before."""

    BREAKING = "breaking"
    ADDITIVE = "additive"
    DOC_ONLY = "doc-only"


@frozen(order=True)
class Change:
    """One change that a reader may care about."""

    impact: Impact
    where: str
    """The place, as its reader names it: `POST /jobs/v2 request body.language`, `techforge.Job.id`."""
    what: str
    """What happened there, in a few words: `removed`, `type changed from string to integer`."""
    silent: bool = False
    """Whether no type of Python tells those who use generated code of it."""

    def __str__(self) -> str:
        return f"{self.impact}: {self.where}: {self.what}"
