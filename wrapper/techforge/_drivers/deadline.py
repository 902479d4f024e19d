"""The time at which a request must end, including everything that it waits for."""

from __future__ import annotations

import time

from attrs import frozen

_LONGEST = 86_400.0
"""Sockets and event loops do not accept an infinite timeout."""
_SHORTEST = 0.001
"""For a socket, 0 means non-blocking."""


@frozen
class Deadline:
    """A time in seconds of the monotonic clock."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Return the deadline in `seconds` seconds."""
        return cls(time.monotonic() + seconds)

    def remaining(self) -> float:
        """Return the seconds left, as a timeout that sockets, locks and event loops accept."""
        return min(_LONGEST, max(_SHORTEST, self.at - time.monotonic()))

    @property
    def has_passed(self) -> bool:
        """Whether the deadline has passed."""
        return time.monotonic() >= self.at

    def as_httpcore_timeouts(self) -> dict[str, float]:
        """Return timeouts for the user's own client: each phase gets the time that is left when it starts."""
        return _Timeouts(self)


class _Timeouts(dict[str, float]):
    def __init__(self, deadline: Deadline) -> None:
        # Some transports copy the mapping, so it also contains the current numbers.
        super().__init__(dict.fromkeys(("connect", "read", "write", "pool"), deadline.remaining()))
        self._deadline = deadline

    def __getitem__(self, _phase: str) -> float:
        return self._deadline.remaining()

    def get(self, phase: str, _default: object = None) -> float:
        return self[phase]
