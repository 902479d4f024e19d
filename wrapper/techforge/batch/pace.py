"""One pace for all workers of a campaign: a limiter's state in the ledger, of which each takes turns ahead.

A turn is an instant by the ledger's clock, so turns are evenly spaced however many workers there are. What
workers hear from the API they tell when they take turns, and so the rate is cut once for all of them.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from attrs import define, field

from techforge.policy.limiter import Limiter, Ticket
from techforge.policy.lock import lock

if TYPE_CHECKING:
    from collections.abc import Iterable

    from techforge.batch.ledger import Ledger

_WINDOW, _MANY = 30, 3
"""Of so many answers, the latest, so many 429s are a limit; one or two may be anything."""
_AHEAD = 0.1
"""Seconds whose turns a worker takes at once, where the ledger is quick."""
_OFTEN, _SELDOM = 0.02, 0.5
"""Seconds after which a worker takes turns, if it needs some; and tells what it has heard, in any case."""
_LATEST = 0.05
"""Seconds until a caller looks again whether there is a turn for it."""
_STALE = 0.5
"""Seconds after which a turn is lost: a machine that was suspended must not make up for it at once."""
_KEPT = (
    "floor",
    "ceiling",
    "age",
    "tokens",
    "filled",
    "paused_until",
    "epoch",
    "pauses",
    "since",
    "accepted",
    "refused",
    "before",
    "recent",
)


class Pace(Limiter):
    """The limiter of a campaign, as it is between two workers that change it.

    >>> pace = Pace(10.0, None)
    >>> [round(at - 5.0, 1) for at in pace.turns(3, now=5.0)]
    [0.0, 0.1, 0.2]
    >>> [round(at - 5.0, 1) for at in Pace(10.0, pace.kept()).turns(1, now=5.0)]
    [0.3]
    """

    def __init__(self, max_rate: float, kept: dict[str, Any] | None) -> None:
        super().__init__(max_rate)
        self._recent: list[int] = []
        for name, value in (kept or {}).items():
            setattr(self, f"_{name}", value)

    @property
    def epoch(self) -> int:
        """How often the rate was cut."""
        return self._epoch

    @property
    def paused_until(self) -> float:
        """When a pause that the API asked for ends, by the ledger's clock."""
        return self._paused_until

    def kept(self) -> dict[str, Any]:
        """Return what goes on from here."""
        return {name: getattr(self, f"_{name}") for name in _KEPT}

    def hear(self, accepted: int, refused: Iterable[tuple[int, float | None]], now: float) -> None:
        """Count answers; a 429 is told by the epoch of its turn, and its `Retry-After`."""
        for _ in range(accepted):
            self.record_accepted(Ticket(0, sent_at=now), now)
        self._recent = [*self._recent, *[0] * accepted][-_WINDOW:]
        for epoch, retry_after in refused:
            self._recent = [*self._recent, 1][-_WINDOW:]
            self.record_refused(Ticket(0, epoch), now, retry_after, random.random())  # noqa: S311

    def turns(self, count: int, now: float) -> list[float]:
        """Return the instants of the next turns."""
        # Whether anybody wants to send is seen in the line; turns that are booked are wanted, too.
        self._queue = [0] if count or self._tokens < 0 else []
        if self._filled > now + 1.0:
            self._filled = now  # the clock was set back, which must not stop all
        self._refill(now)
        # Unused turns are lost: together with others they would be too many in a second.
        self._tokens = min(self._tokens, 1.0)
        begin, rate = max(now, self._paused_until), self.rate
        found = [begin + max(0.0, (place + 1 - self._tokens) / rate) for place in range(count)]
        self._tokens -= count if rate < math.inf else 0
        return found

    def _cut_rate(self, now: float, jitter: float) -> None:
        if sum(self._recent) >= _MANY:
            epoch = self._epoch
            super()._cut_rate(now, jitter)
            if epoch != self._epoch:
                self._recent.clear()


@define
class _Heard:
    accepted: int = 0
    refused: list[tuple[int, float | None]] = field(factory=list[tuple[int, "float | None"]])


class SharedLimiter(Limiter):
    """A worker's part in the pace of a campaign. `keep` must run while it is used."""

    def __init__(self, ledger: Ledger, max_rate: float, max_in_flight: float) -> None:
        super().__init__(max_rate, max_in_flight)
        self._ledger = ledger
        self._rate = max_rate
        self._turns: deque[tuple[float, int]] = deque()
        self._heard = _Heard()
        self._told_at = -math.inf
        self._meeting = 0.0

    @property
    def rate(self) -> float:
        """The requests that all workers together may send in a second."""
        return self._rate

    async def keep(self) -> None:
        """Take turns, and tell what was heard, until cancelled."""
        while True:
            if self._is_due():
                await asyncio.to_thread(self.meet)
            await asyncio.sleep(_OFTEN)

    def record_accepted(self, ticket: Ticket, now: float) -> None:
        """Count an answer that was no 429."""
        del now
        with lock:
            self._request_finished(ticket)
            self._heard.accepted += 1

    def record_refused(self, ticket: Ticket, now: float, retry_after: float | None, jitter: float) -> None:
        """Count a 429."""
        del now, jitter
        with lock:
            self._request_finished(ticket)
            self._heard.refused.append((ticket.epoch, retry_after))

    def _seconds_until_served(self, position: int, now: float) -> float:
        if self._rate == math.inf:
            return 0.0
        while self._turns and self._turns[0][0] < now - _STALE:
            self._turns.popleft()
        if position < len(self._turns):
            return self._turns[position][0] - now
        return max(_OFTEN, min((position + 1 - len(self._turns)) / self._rate, _LATEST))

    def _take_token(self, position: int) -> int:
        if self._rate == math.inf:
            return self._epoch
        _, epoch = self._turns[position]
        del self._turns[position]
        return epoch

    def _is_due(self) -> bool:
        with lock:
            return (
                self._wanted() > 0 or bool(self._heard.refused) or time.monotonic() > self._told_at + _SELDOM
            )

    def _wanted(self) -> int:
        # Few ahead, since turns that were taken come at the pace of then; but enough until one meets again.
        if self._rate == math.inf:
            return 0
        ahead = min(max(_AHEAD, 2 * self._meeting), _STALE)
        return min(len(self._queue), math.ceil(self._rate * ahead)) - len(self._turns)

    def meet(self) -> None:
        """Tell what was heard, and take turns."""
        began = time.monotonic()
        with lock:
            heard, self._heard = self._heard, _Heard()
            wanted = max(0, self._wanted())
        found: list[float] = []
        after = Pace(self.max_rate, None)

        def change(kept: dict[str, Any] | None) -> dict[str, Any]:
            nonlocal found, after
            after, now = Pace(self.max_rate, kept), self._ledger.now()
            after.hear(heard.accepted, heard.refused, now)
            found = after.turns(wanted, now)
            return after.kept()

        self._ledger.update_for_account("pace", change)
        with lock:
            here = time.monotonic() - self._ledger.now()
            if self._epoch != after.epoch:
                self._turns.clear()  # they are of the pace before
            self._rate, self._epoch, self._told_at = after.rate, after.epoch, time.monotonic()
            self._paused_until = after.paused_until + here
            if self._rate < math.inf:
                # A database that was slow to say so has delayed a turn, which is not lost by that.
                now = time.monotonic()
                self._meeting = now - began
                self._turns.extend((max(at + here, now), after.epoch) for at in found)
