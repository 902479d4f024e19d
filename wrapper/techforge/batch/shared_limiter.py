"""The shared rate limiter. Its state lives in the ledger; each worker reserves send times in advance.

Send times follow the ledger's clock and are evenly spaced, for any number of workers. A worker that reserves
send times also reports the responses it received, so the rate is cut once for all workers.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from attrs import define, field

from techforge.batch.shared_breaker import SharedBreaker
from techforge.policy.limiter import Limiter, Ticket
from techforge.policy.lock import lock
from techforge.policy.retry_after import MAX_RETRY_AFTER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from techforge.batch.ledger import Ledger

RESERVED_SECONDS = 0.1
"""Reserve the send times of this many seconds at once. A slow ledger needs more."""
MIN_SYNC_INTERVAL, MAX_SYNC_INTERVAL = 0.02, 0.5
"""Seconds between two synchronizations with the ledger: if send times are needed, and in any case."""
MAX_WAIT = 0.05
"""Longest time until a caller checks again for a send time, in seconds."""
EXPIRY = 0.5
"""Drop a send time this many seconds after it has passed, so that a suspended machine sends no burst."""
_STORED_FIELDS = (
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
    "safe_accepted",
    "safe_refused",
    "past_accepted",
    "past_refused",
    "excess",
)


class LedgerLimiter(Limiter):
    """The rate limiter of an account, restored from the ledger and stored there again after each change.

    >>> limiter = LedgerLimiter(10.0, None)
    >>> [round(at - 5.0, 1) for at in limiter.reserve(3, now=5.0)]
    [0.0, 0.1, 0.2]
    >>> [round(at - 5.0, 1) for at in LedgerLimiter(10.0, limiter.state()).reserve(1, now=5.0)]
    [0.3]
    """

    def __init__(self, max_rate: float, state: dict[str, Any] | None) -> None:
        super().__init__(max_rate)
        stored = state or {}
        for name in stored.keys() & _STORED_FIELDS:
            setattr(self, f"_{name}", stored[name])

    @property
    def epoch(self) -> int:
        """Number of times that the rate was cut."""
        return self._epoch

    @property
    def paused_until(self) -> float:
        """End of the pause that a `Retry-After` asked for, by the ledger's clock."""
        return self._paused_until

    def state(self) -> dict[str, Any]:
        """Return the state to store in the ledger."""
        return {name: getattr(self, f"_{name}") for name in _STORED_FIELDS}

    def record(self, accepted: int, refused: Iterable[tuple[int, float | None]], now: float) -> None:
        """Count responses. `refused` has the epoch of the send time and the `Retry-After` of each 429."""
        for _ in range(accepted):
            self.record_accepted(Ticket(0, sent_at=now), now)
        for epoch, retry_after in refused:
            self.record_refused(Ticket(0, epoch), now, retry_after, random.random())  # noqa: S311

    def reserve(self, count: int, now: float) -> list[float]:
        """Reserve the next send times, by the ledger's clock."""
        # The base class counts time as idle if its queue is empty. Reserved send times are not idle time.
        self._queue = [0] if count or self._tokens < 0 else []
        if self._filled > now + 1.0:
            self._filled = now  # the clock was set back; do not wait until it catches up
        self._refill(now)
        # Drop unused tokens: with the reserved send times they would exceed the rate.
        self._tokens = min(self._tokens, 1.0)
        if self._paused_until > now + MAX_RETRY_AFTER:
            self._paused_until, self._pauses = now, 0.0  # an earlier version stored it
        start, rate = max(now, self._paused_until), self.rate
        send_times = [start + max(0.0, (i + 1 - self._tokens) / rate) for i in range(count)]
        self._tokens -= count if rate < math.inf else 0
        return send_times


@define
class _Responses:
    """Responses to report at the next synchronization."""

    accepted: int = 0
    refused: list[tuple[int, float | None]] = field(factory=list[tuple[int, "float | None"]])


class SharedLimiter(Limiter):
    """The rate limiter of one worker. `run` must run in a task while the limiter is used."""

    def __init__(self, ledger: Ledger, max_rate: float, max_in_flight: float) -> None:
        super().__init__(max_rate, max_in_flight)
        self.breaker = SharedBreaker()
        """The circuit breaker of the worker, which is synchronized together with the rate limiter."""
        self._ledger = ledger
        self._rate = max_rate
        self._send_times: deque[tuple[float, int]] = deque()
        self._responses = _Responses()
        self._synced_at = -math.inf
        self._sync_duration = 0.0

    @property
    def rate(self) -> float:
        """The limit of all workers together, in requests per second."""
        return self._rate

    async def run(self) -> None:
        """Synchronize with the ledger until cancelled."""
        while True:
            if self._is_due():
                await asyncio.to_thread(self.synchronize)
            await asyncio.sleep(MIN_SYNC_INTERVAL)

    def record_accepted(self, ticket: Ticket, now: float) -> None:
        """Count a response other than 429."""
        del now
        with lock:
            self._request_finished(ticket)
            self._responses.accepted += 1

    def record_refused(self, ticket: Ticket, now: float, retry_after: float | None, jitter: float) -> None:
        """Count a 429."""
        del now, jitter
        with lock:
            self._request_finished(ticket)
            self._responses.refused.append((ticket.epoch, retry_after))

    def _seconds_until_served(self, position: int, now: float) -> float:
        if self._rate == math.inf:
            return 0.0
        while self._send_times and self._send_times[0][0] < now - EXPIRY:
            self._send_times.popleft()
        if position < len(self._send_times):
            return self._send_times[position][0] - now
        return max(MIN_SYNC_INTERVAL, min((position + 1 - len(self._send_times)) / self._rate, MAX_WAIT))

    def _take_token(self, position: int) -> int:
        if self._rate == math.inf:
            return self._epoch
        _, epoch = self._send_times[position]
        del self._send_times[position]
        return epoch

    def _is_due(self) -> bool:
        with lock:
            return (
                self._needed_count() > 0
                or bool(self._responses.refused)
                or self.breaker.is_due
                or time.monotonic() > self._synced_at + MAX_SYNC_INTERVAL
            )

    def _needed_count(self) -> int:
        # Reserve few, because reserved send times keep the old rate. Reserve enough for two synchronizations.
        if self._rate == math.inf:
            return 0
        seconds = min(max(RESERVED_SECONDS, 2 * self._sync_duration), EXPIRY)
        return min(len(self._queue), math.ceil(self._rate * seconds)) - len(self._send_times)

    def synchronize(self) -> None:
        """Report responses to the ledger, and reserve send times."""
        started = time.monotonic()
        with lock:
            responses, self._responses = self._responses, _Responses()
            count = max(0, self._needed_count())
            breaker_state = self.breaker.reported
        send_times: list[float] = []
        shared = LedgerLimiter(self.max_rate, None)
        outage: dict[str, Any] | None = None

        def change(state: dict[str, Any] | None) -> dict[str, Any]:
            nonlocal send_times, shared, outage
            shared, now = LedgerLimiter(self.max_rate, state), self._ledger.now()
            shared.record(responses.accepted, responses.refused, now)
            send_times = shared.reserve(count, now)
            outage = self.breaker.merged((state or {}).get("outage"), now, time.monotonic() - now)
            return shared.state() | {"outage": outage}

        self._ledger.update_account_fact("pace", change)
        with lock:
            offset = time.monotonic() - self._ledger.now()
            self.breaker.adopt(outage, breaker_state, offset)
            if self._epoch != shared.epoch:
                self._send_times.clear()  # they have the old rate
            self._rate, self._epoch, self._synced_at = shared.rate, shared.epoch, time.monotonic()
            self._paused_until = shared.paused_until + offset
            if self._rate < math.inf:
                # A send time may pass while the database responds. It is still used.
                now = time.monotonic()
                self._sync_duration = now - started
                self._send_times.extend((max(at + offset, now), shared.epoch) for at in send_times)
