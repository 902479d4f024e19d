"""The rate limiter: how fast, and how many requests at once, all callers of a client may send."""

import math
import os
from bisect import bisect_left
from itertools import count

from attrs import define

from techforge.policy.lock import lock

BACKOFF_FACTOR = 0.9
"""After a 429, continue at this fraction of the measured limit."""
RECOVERY_SECONDS, RECOVERY_REQUESTS = 12.0, 75
"""After a cut, probe the full measured limit again after this long and this many requests."""
OUTGROWN_FACTOR = 1.5
"""A rate above this multiple of the last known limit has outgrown that estimate."""
MIN_WINDOW_SECONDS, MIN_WINDOW_RESPONSES = 1.0, 10
"""Ignore a 429 that arrives before this much evidence has been collected."""
MAX_RANDOM_SHARE = 0.1
"""A larger share of 429s is not random: the rate is too high."""
RANDOM_MARGIN = 3.0
"""Random 429s may for a while be this many times as frequent as measured."""
MIN_RANDOM_SHARE = 0.005
"""If fewer 429s are random, fewer are needed for a cut. If none is, one is enough."""
MIN_EXCESS, MAX_EXCESS_RATE = 2.0, 1e5
"""Cut the rate after this many 429s beyond the random ones, and one more for each tenfold rate.

The second number is the rate at which this ends, in requests per second.
"""
MIN_SAFE_RESPONSES, MAX_SAFE_RESPONSES = 50, 1000
"""Responses to estimate the share of random 429s from: at least the first; beyond the second, halve them."""
INITIAL_RATE = 4.0
"""Requests per second after a first 429 that arrives before any throughput was measured."""
MIN_RATE = 0.125
"""No 429 reduces the rate below this, in requests per second."""
MAX_GROWTH = math.log(2)
"""The rate at most doubles each second: this is its largest exponential growth per second."""
WAKEUP_SLACK = 0.1
"""Tokens may accumulate for this many seconds, so that a caller that wakes up late loses no throughput."""
MIN_WAIT, MAX_SLOT_WAIT = 0.001, 1.0
"""Shortest wait, and longest wait for another request to finish, in seconds."""


@define(eq=False)
class Ticket:
    """The position of one call in the queue. A call keeps it when the API answers 429."""

    number: int
    epoch: int = 0
    sent_at: float = 0.0
    in_flight: bool = False
    not_before: float = -math.inf


class Limiter:
    """A rate limiter shared by all threads and tasks of a client.

    It is a token bucket, inactive until the API answers 429 for the first time. After a 429 the rate drops
    to 90 % of the throughput measured since the previous cut. It then follows a cubic curve, as in
    TCP CUBIC: slow near the last known limit, faster the longer no cut occurs. A cut also halves the number
    of requests in flight, which recovers slowly. A `Retry-After` pauses all callers.

    Some 429s have nothing to do with the rate. They also occur below the last known limit, so the limiter
    counts them there. Above it, 429s lead to a cut only if they are clearly more frequent (a CUSUM test).

    `max_rate` (requests per second) and `max_in_flight` apply from the first request on. Callers are
    served first come, first served.

    >>> limiter = Limiter(max_rate=2)
    >>> first, second = limiter.ticket(), limiter.ticket()
    >>> limiter.acquire(first, now=0.0), round(limiter.acquire(second, now=0.0), 1)
    (0.0, 0.4)
    """

    def __init__(self, max_rate: float = math.inf, max_in_flight: float = math.inf) -> None:
        self.max_rate, self.max_in_flight = max_rate, max_in_flight
        self._ticket_numbers = count()
        self._queue: list[int] = []
        self._in_flight = 0
        self._pid = os.getpid()
        self._concurrency_limit = max_in_flight
        self._mean_latency = WAKEUP_SLACK
        # The rate doubles each second from a floor, until a second 429 gives it a ceiling as well.
        self._floor = self._ceiling = math.inf
        self._age = 0.0
        self._tokens = 1.0
        self._filled = -math.inf
        self._paused_until = -math.inf
        # Responses of this epoch. A cut begins a new epoch; before the first cut, each second does.
        self._epoch = 0
        self._pauses = 0.0
        self._since = -math.inf
        self._accepted = self._refused = self._before = 0
        # Responses and 429s at rates below the last known limit: in this epoch, and before.
        self._safe_accepted = self._safe_refused = 0
        self._past_accepted = self._past_refused = 0.0
        # 429s of this epoch, beyond those that may be random.
        self._excess = 0.0

    @property
    def rate(self) -> float:
        """The current limit in requests per second; infinite before the first 429."""
        if self._ceiling < math.inf:
            adapted = self._ceiling + (self._ceiling - self._floor) * (self._age / self._period - 1) ** 3
        else:
            adapted = self._floor * 2 ** min(self._age, 64.0)
        return min(adapted, self.max_rate)

    @property
    def _period(self) -> float:
        """Seconds until the full measured limit is probed again."""
        return max(RECOVERY_SECONDS, RECOVERY_REQUESTS / self._ceiling) if self._ceiling < math.inf else 0.0

    def ticket(self) -> Ticket:
        """Return a ticket for the end of the queue."""
        return Ticket(next(self._ticket_numbers))

    def acquire(self, ticket: Ticket, now: float) -> float:
        """Take a token.

        Return 0.0 if the request may be sent now, otherwise the seconds to wait before calling again.
        """
        with lock:
            self._reset_after_fork()
            self._request_finished(ticket)
            position = bisect_left(self._queue, ticket.number)
            pause = max(self._paused_until, ticket.not_before) - now
            wait = max(self._seconds_until_served(position, now), pause)
            if self._queue[position : position + 1] != [ticket.number]:
                self._queue.insert(position, ticket.number)
            excess = self._in_flight + position + 1 - self._concurrency_limit
            if excess > 0:
                wait = max(wait, min(self._mean_latency * excess / self._concurrency_limit, MAX_SLOT_WAIT))
            if wait > 0:
                return max(wait, MIN_WAIT)
            del self._queue[position]
            self._in_flight += 1
            ticket.epoch, ticket.sent_at, ticket.in_flight = self._take_token(position), now, True
            return 0.0

    def record_accepted(self, ticket: Ticket, now: float) -> None:
        """Count a response other than 429."""
        with lock:
            self._request_finished(ticket)
            self._mean_latency += (now - ticket.sent_at - self._mean_latency) / 8
            # By two per round trip: a slow API would refuse a larger increase at once.
            self._concurrency_limit = min(
                self._concurrency_limit + 2 / self._concurrency_limit, self.max_in_flight
            )
            if self._floor == math.inf and now - self._since > 1:
                self._before, self._accepted, self._since = self._accepted, 0, now
            self._accepted += 1
            self._safe_accepted += self._is_safe
            self._excess = max(0.0, self._excess - self._random_share)

    def record_refused(self, ticket: Ticket, now: float, retry_after: float | None, jitter: float) -> None:
        """Count a 429. `jitter` (0 to 1) makes processes resume at different times."""
        with lock:
            self._request_finished(ticket)
            until = max(self._paused_until, now + (retry_after or 0.0))
            self._pauses += until - max(self._paused_until, now)
            self._paused_until = until
            # Ignore 429s for requests sent before the last cut: they describe the old rate.
            if ticket.epoch == self._epoch:
                self._refused += 1
                self._safe_refused += self._is_safe
                self._excess = min(self._excess + 1 - self._random_share, self._max_excess)
                # A server that asks for a pause means its limit.
                is_refused_always = not self._accepted and self._refused > 1
                if retry_after or is_refused_always or self._excess == self._max_excess:
                    self._cut_rate(now, jitter)
            if self._floor == math.inf:
                # No limit slows this call down: wait at least as long as its request took.
                pause = now - ticket.sent_at if self._accepted else 1 / INITIAL_RATE
                ticket.not_before = now + pause * (1 + jitter)

    def release(self, ticket: Ticket) -> None:
        """Remove a ticket from the queue: its call has ended, or the outcome of its request is unknown."""
        with lock:
            position = bisect_left(self._queue, ticket.number)
            if self._queue[position : position + 1] == [ticket.number]:
                del self._queue[position]
            self._request_finished(ticket)

    @property
    def _is_safe(self) -> bool:
        """Whether the rate is below the last known limit, or no limit is known."""
        return self._floor == math.inf or self._age < self._period / 2

    @property
    def _random_share(self) -> float:
        """The share of 429s that may be random."""
        if self._is_safe:
            return MAX_RANDOM_SHARE
        return min(RANDOM_MARGIN * self._measured_share, MAX_RANDOM_SHARE)

    @property
    def _measured_share(self) -> float:
        """The share of 429s at rates below the last known limit."""
        refused = self._safe_refused + self._past_refused
        responses = refused + self._safe_accepted + self._past_accepted
        return refused / max(responses, MIN_SAFE_RESPONSES)

    @property
    def _max_excess(self) -> float:
        """The excess of 429s that leads to a cut. At a high rate, more come close together by chance."""
        certainty = 1.0 if self._is_safe else min(self._measured_share / MIN_RANDOM_SHARE, 1.0)
        rate = max(self._before, self._accepted) if self._floor == math.inf else self.rate
        return certainty * (MIN_EXCESS + math.log10(min(max(rate, 1.0), MAX_EXCESS_RATE)))

    def _seconds_until_served(self, position: int, now: float) -> float:
        """Estimate how long the caller at `position` in the queue must wait for a token."""
        self._refill(now)
        # The rate may double each second meanwhile, so a token can arrive earlier than at the current rate.
        seconds = (position + 1 - self._tokens) / self.rate
        return math.log1p(max(seconds, 0.0) * MAX_GROWTH) / MAX_GROWTH

    def _take_token(self, position: int) -> int:  # noqa: ARG002 - a subclass needs the position
        """Take the token for a position in the queue; return the token's epoch."""
        self._tokens -= 1
        return self._epoch

    def _request_finished(self, ticket: Ticket) -> None:
        if ticket.in_flight:
            ticket.in_flight = False
            self._in_flight = max(0, self._in_flight - 1)

    def _refill(self, now: float) -> None:
        rate = self.rate
        seconds, busy = now - self._filled, now - max(self._filled, self._paused_until)
        self._filled = max(self._filled, now)
        if rate == math.inf or seconds <= 0:
            return
        tokens = self._tokens
        self._tokens = min(tokens + seconds * rate, max(1.0, rate * WAKEUP_SLACK, tokens))
        used = min(busy, (self._tokens - tokens) / rate)
        if self._accepted and used > 0:
            self._age += used
        if not self._queue and self._floor < math.inf:
            # Idle time is no evidence about the limit.
            self._since += max(0.0, busy - used)

    def _cut_rate(self, now: float, jitter: float) -> None:
        seconds, was_safe = now - self._since, self._is_safe
        if self._floor == math.inf:
            self._floor = max(INITIAL_RATE, self._before, self._accepted)
        elif seconds < MIN_WINDOW_SECONDS:
            return
        elif not self._accepted:
            self._floor, self._ceiling = max(MIN_RATE, self.rate / 4), math.inf
        elif self.rate > OUTGROWN_FACTOR * self._ceiling or self._ceiling == math.inf:
            # The rate has outgrown the old estimate, so the measured throughput is no evidence. Assume half
            # the current rate was safe.
            self._ceiling = self.rate
            self._floor = self._ceiling / 2
        elif self._accepted + self._refused < MIN_WINDOW_RESPONSES:
            return
        else:
            # The API accepted what it allows between two 429s. It may or may not have saved up what it
            # would have allowed during a pause, so the limit lies between these two estimates.
            low = self._accepted / seconds
            high = (self._accepted + 1) / max(seconds - self._pauses, WAKEUP_SLACK)
            self._ceiling = min(self.rate, (low + high) / 2)
            self._floor = BACKOFF_FACTOR * min(self._ceiling, low)
        self._concurrency_limit = max(1.0, self._in_flight / 2)
        self._age, self._tokens, self._filled = 0.0, -jitter, now
        self._epoch += 1
        self._accepted = self._refused = 0
        self._excess = 0.0
        if not was_safe:  # otherwise the limit has dropped, and these 429s were not random
            old = 0.5 if self._past_accepted > MAX_SAFE_RESPONSES else 1.0
            self._past_accepted = old * self._past_accepted + self._safe_accepted
            self._past_refused = old * self._past_refused + self._safe_refused
        self._safe_accepted = self._safe_refused = 0
        self._since = now
        self._pauses = max(0.0, self._paused_until - now)

    def _reset_after_fork(self) -> None:
        if self._pid != os.getpid():
            self._pid, self._in_flight = os.getpid(), 0
            self._queue.clear()
