"""How often to poll a job."""

import math
from typing import Self

from attrs import frozen

from techforge.errors import InvalidArgumentError


@frozen
class PollSchedule:
    """The pauses between polls: short at first, longer the longer a job takes.

    The n-th pause is `initial * factor ** n`, at most `maximum`, plus or minus a random part.

    Attributes:
        initial: the first pause, in seconds. Default 1.
        factor: each pause is this many times as long as the one before, from 1 to 10. Default 1.5.
        maximum: the longest pause, in seconds. Default 15.
        jitter: the random part of each pause, from 0 to 1 (1 excluded), so that waits do not poll at the
            same time. Default 0.1.
        max_failures: how many polls in a row may fail before the wait gives up. A 429 is not a failure.
            Default 5.

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
            raise InvalidArgumentError(
                "poll", "initial must be positive and at most maximum; both are in seconds"
            )
        if not 1 <= self.factor <= 10 or not 0 <= self.jitter < 1 or self.max_failures < 0:
            raise InvalidArgumentError(
                "poll",
                "factor must be from 1 to 10, jitter at least 0 and less than 1, max_failures 0 or more",
            )

    @classmethod
    def every(cls, seconds: float) -> Self:
        """Return a schedule with a fixed interval.

        Args:
            seconds: The interval.
        """
        return cls(initial=seconds, factor=1.0, maximum=seconds, jitter=0.0)

    def interval(self, polls: int, jitter: float) -> float:
        """Return the next pause, in seconds.

        Args:
            polls: The number of polls so far.
            jitter: A random number from 0 to 1.
        """
        # A large exponent would overflow; after 60 polls the maximum applies anyway.
        interval = min(self.maximum, self.initial * self.factor ** min(polls, 60))
        return interval * (1 + self.jitter * (2 * jitter - 1))
