"""How often to look whether a job is done."""

import math
from typing import Self

from attrs import frozen

from techforge.errors import InvalidArgumentError


@frozen
class PollSchedule:
    """Seconds between two polls: quick at first, slower the longer a job takes.

    The n-th pause is `initial * factor ** n`, at most `maximum`, varied by ± `jitter` (a share) so that
    many waits do not poll in step. `max_failures` polls in a row may fail before a wait gives up; a 429
    is not a failure, since the API asks for nothing but patience.

    >>> [round(PollSchedule(jitter=0).interval(n, 0.5), 2) for n in (0, 1, 2, 20)]
    [1.0, 1.5, 2.25, 15.0]
    """

    initial: float = 1.0
    factor: float = 1.5
    maximum: float = 15.0
    jitter: float = 0.1
    max_failures: int = 5

    def __attrs_post_init__(self) -> None:
        if not (0 < self.initial <= self.maximum and math.isfinite(self.maximum)):
            raise InvalidArgumentError("poll", "initial must be positive and at most maximum, in seconds")
        if not 1 <= self.factor <= 10 or not 0 <= self.jitter < 1 or self.max_failures < 0:
            raise InvalidArgumentError(
                "poll", "factor must be from 1 to 10, jitter from 0 to 1, max_failures 0 or more"
            )

    @classmethod
    def every(cls, seconds: float) -> Self:
        """Return a schedule that polls at a fixed interval."""
        return cls(initial=seconds, factor=1.0, maximum=seconds, jitter=0.0)

    def interval(self, polls: int, jitter: float) -> float:
        """Return the seconds to sleep after so many polls; `jitter` is a number from 0 to 1."""
        # Past about 60 steps the maximum rules anyway, and the power would overflow.
        interval = min(self.maximum, self.initial * self.factor ** min(polls, 60))
        return interval * (1 + self.jitter * (2 * jitter - 1))
