"""How fast, and how many at once: one pace for all callers of a client."""

import math
import os
from bisect import bisect_left
from itertools import count

from attrs import define

from techforge.policy.lock import lock

_CUT = 0.9
"""What is left, after a 429, of the rate that the API was found to allow."""
_PERIOD, _REQUESTS = 12.0, 75
"""Seconds, and requests, at least, until the whole of it is tried again."""
_BEYOND = 1.5
"""How far above what was known to be allowed a rate is a discovery."""
_SHORT, _ENOUGH = 1.0, 10
"""Seconds, and answers, in which too little is seen to judge a rate by."""
_FIRST = 4.0
"""Requests a second to begin with, where the first 429 comes before anything is known."""
_LEAST = 0.125
"""Requests a second below which no 429 brings the rate."""
_DOUBLING = math.log(2)
"""The rate's growth in a second, at the most."""
_LATE = 0.1
"""Seconds by which callers may wake up late without loss of pace."""
_SOONEST, _LATEST = 0.001, 1.0
"""Seconds until a caller looks again whether fewer requests are under way."""


@define(eq=False)
class Ticket:
    """One call's place in the line; a call that is refused keeps it."""

    number: int
    epoch: int = 0
    sent: float = 0.0
    in_flight: bool = False


class Limiter:
    """The pace of one client, shared by all its threads and tasks; it does nothing before the first 429.

    A token bucket. From a 429 on the rate is nine tenths of what the API has accepted since the 429
    before; then it grows, slowly where that was the limit, and faster the longer no 429 comes. A
    `Retry-After` is a pause for all. How many requests are under way at once is halved, and recovers slowly.
    `max_rate`, in requests a second, and `max_in_flight` hold from the start. Callers are served in the
    order in which they came. Safe to share between threads and tasks.

    >>> limiter = Limiter(max_rate=2)
    >>> first, second = limiter.ticket(), limiter.ticket()
    >>> limiter.ask(first, now=0.0), round(limiter.ask(second, now=0.0), 1)
    (0.0, 0.4)
    """

    def __init__(self, max_rate: float = math.inf, max_in_flight: float = math.inf) -> None:
        self.max_rate, self.max_in_flight = max_rate, max_in_flight
        self._numbers = count()
        self._line: list[int] = []
        self._in_flight = 0
        self._process = os.getpid()
        self._most = max_in_flight
        self._took = _LATE
        # The rate grows from a floor: twofold each second, until a second 429 shows a ceiling as well.
        self._floor = self._ceiling = math.inf
        self._age = 0.0
        self._tokens = 1.0
        self._filled = -math.inf
        self._paused_until = -math.inf
        # What was answered in this epoch, which begins with a cut; before the first, in this second.
        self._epoch = 0
        self._pauses = 0.0
        self._since = -math.inf
        self._accepted = self._refused = self._before = 0

    @property
    def rate(self) -> float:
        """The requests that may be sent in a second; infinite before the first 429."""
        if self._ceiling < math.inf:
            period = max(_PERIOD, _REQUESTS / self._ceiling)
            adapted = self._ceiling + (self._ceiling - self._floor) * (self._age / period - 1) ** 3
        else:
            adapted = self._floor * 2 ** min(self._age, 64.0)
        return min(adapted, self.max_rate)

    def ticket(self) -> Ticket:
        """Return a place at the end of the line."""
        return Ticket(next(self._numbers))

    def ask(self, ticket: Ticket, now: float) -> float:
        """Return 0 if a request may be sent now, else the seconds after which to ask again."""
        with lock:
            self._forget_other_processes()
            self._land(ticket)
            place = bisect_left(self._line, ticket.number)
            wait = max(self._turn(place, now), self._paused_until - now)
            if self._line[place : place + 1] != [ticket.number]:
                self._line.insert(place, ticket.number)
            too_many = self._in_flight + place + 1 - self._most
            if too_many > 0:
                wait = max(wait, min(self._took * too_many / self._most, _LATEST))
            if wait > 0:
                return max(wait, _SOONEST)
            del self._line[place]
            self._in_flight += 1
            ticket.epoch, ticket.sent, ticket.in_flight = self._take(place), now, True
            return 0.0

    def accepted(self, ticket: Ticket, now: float) -> None:
        """Count an answer that was no 429."""
        with lock:
            self._land(ticket)
            self._took += (now - ticket.sent - self._took) / 8
            # By two in a round trip: where the API is slow, more at once would be refused at once.
            self._most = min(self._most + 2 / self._most, self.max_in_flight)
            if self._floor == math.inf and now - self._since > 1:
                self._before, self._accepted, self._since = self._accepted, 0, now
            self._accepted += 1

    def refused(self, ticket: Ticket, now: float, retry_after: float | None, jitter: float) -> None:
        """Count a 429; `jitter`, a number from 0 to 1, lets processes begin again at different times."""
        with lock:
            self._land(ticket)
            until = max(self._paused_until, now + (retry_after or 0.0))
            self._pauses += until - max(self._paused_until, now)
            self._paused_until = until
            # What was sent before the last cut says nothing new.
            if ticket.epoch == self._epoch:
                self._refused += 1
                self._cut(now, jitter)

    def leave(self, ticket: Ticket) -> None:
        """Give a place up: the call is over, or what became of its request is not known."""
        with lock:
            place = bisect_left(self._line, ticket.number)
            if self._line[place : place + 1] == [ticket.number]:
                del self._line[place]
            self._land(ticket)

    def _turn(self, place: int, now: float) -> float:
        """Return the seconds until it is the turn of a place in the line."""
        self._fill(now)
        # Should the rate double each second, it is this caller's turn no sooner.
        turn = (place + 1 - self._tokens) / self.rate
        return math.log1p(max(turn, 0.0) * _DOUBLING) / _DOUBLING

    def _take(self, place: int) -> int:  # noqa: ARG002 - where turns are given one by one it matters which
        """Take the turn of a place; return the epoch that it is of."""
        self._tokens -= 1
        return self._epoch

    def _land(self, ticket: Ticket) -> None:
        if ticket.in_flight:
            ticket.in_flight = False
            self._in_flight = max(0, self._in_flight - 1)

    def _fill(self, now: float) -> None:
        rate = self.rate
        seconds, busy = now - self._filled, now - max(self._filled, self._paused_until)
        self._filled = max(self._filled, now)
        if rate == math.inf or seconds <= 0:
            return
        tokens = self._tokens
        self._tokens = min(tokens + seconds * rate, max(1.0, rate * _LATE, tokens))
        used = min(busy, (self._tokens - tokens) / rate)
        if self._accepted and used > 0:
            self._age += used
        if not self._line and self._floor < math.inf:
            # Time in which nobody wanted to send tells nothing about the limit.
            self._since += max(0.0, busy - used)

    def _cut(self, now: float, jitter: float) -> None:
        seconds = now - self._since
        if self._floor == math.inf:
            self._floor = max(_FIRST, self._before, self._accepted)
        elif seconds < _SHORT:
            return
        elif not self._accepted:
            self._floor, self._ceiling = max(_LEAST, self.rate / 4), math.inf
        elif self.rate > _BEYOND * self._ceiling or self._ceiling == math.inf:
            # So much more was allowed than was known that what was used tells little; half of it was good.
            self._ceiling = self.rate
            self._floor = self._ceiling / 2
        elif self._accepted + self._refused < _ENOUGH:
            return
        else:
            # From one 429 to the next the API accepts what it allows in that time. But what it would have
            # allowed during a pause it may keep for afterwards, or not: the truth is between the two.
            least = self._accepted / seconds
            most = (self._accepted + 1) / max(seconds - self._pauses, _LATE)
            self._ceiling = min(self.rate, (least + most) / 2)
            self._floor = _CUT * min(self._ceiling, least)
        self._most = max(1.0, self._in_flight / 2)
        self._age, self._tokens, self._filled = 0.0, -jitter, now
        self._epoch += 1
        self._accepted = self._refused = 0
        self._since = now
        self._pauses = max(0.0, self._paused_until - now)

    def _forget_other_processes(self) -> None:
        if self._process != os.getpid():
            self._process, self._in_flight = os.getpid(), 0
            self._line.clear()
