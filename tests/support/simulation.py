"""Callers at the pace of a limiter, in time that passes only where the simulation says so."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from itertools import count
from typing import Any

from attrs import define, field

from techforge.policy.limiter import Limiter

CALLERS = 64


@define
class Bucket:
    """An API that allows some requests a second, and asks who is refused to wait."""

    rate: float
    retry_after: float
    burst: float
    random_share: float = 0.0
    """The share of 429s that have nothing to do with the limit."""
    dice: random.Random = field(factory=lambda: random.Random(2))  # noqa: S311 - it decides nothing secret
    at: float = 0.0
    tokens: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.tokens = self.burst

    def allows(self, now: float) -> bool:
        """Say whether a request may be carried out."""
        if self.random_share and self.dice.random() < self.random_share:
            return False
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@define
class Simulation:
    """Callers in a closed loop, each sending its next request as soon as it is answered."""

    api: Bucket
    latency: float
    limiter: Limiter = field(factory=Limiter)
    dice: random.Random = field(factory=lambda: random.Random(1))  # noqa: S311 - it decides nothing secret
    answers: list[tuple[float, bool]] = field(factory=list)
    served: Counter[int] = field(factory=Counter)
    most: int = 0
    clock: float = 0.0
    events: list[Any] = field(factory=list)
    numbers: Any = field(factory=count)

    def run(self, until: float) -> None:
        """Go on until a time."""
        if not self.events:
            for caller in range(CALLERS):
                self._at(self.dice.random() * 0.05, self._ask, caller, self.of(caller).ticket())
        while self.events[0][0] <= until:
            self.clock, _, act, *arguments = heapq.heappop(self.events)
            act(*arguments)
            self.most = max(self.most, self.limiter._in_flight)

    def of(self, caller: int) -> Limiter:
        """Return a caller's limiter."""
        del caller
        return self.limiter

    def between(self, start: float, end: float) -> tuple[float, float]:
        """Return the requests a second that were carried out, and the share of 429s."""
        answers = [good for at, good in self.answers if start <= at < end]
        return sum(answers) / (end - start), 1 - sum(answers) / max(1, len(answers))

    def _at(self, seconds: float, *event: Any) -> None:
        heapq.heappush(self.events, (self.clock + seconds, next(self.numbers), *event))

    def _trip(self) -> float:
        return self.latency / 2 * (0.5 + self.dice.random())

    def _ask(self, caller: int, ticket: Any) -> None:
        wait = self.of(caller).acquire(ticket, self.clock)
        if wait:
            self._at(wait + self.dice.random() * 0.002, self._ask, caller, ticket)
        else:
            self._at(self._trip(), self._arrive, caller, ticket)

    def _arrive(self, caller: int, ticket: Any) -> None:
        self._at(self._trip(), self._answer, caller, ticket, self.api.allows(self.clock))

    def _answer(self, caller: int, ticket: Any, good: bool) -> None:
        self.answers.append((self.clock, good))
        if good:
            self.served[caller] += 1
            self.of(caller).record_accepted(ticket, self.clock)
            self.of(caller).release(ticket)
            ticket = self.of(caller).ticket()
        else:
            self.of(caller).record_refused(ticket, self.clock, self.api.retry_after, self.dice.random())
        self._at(0.001, self._ask, caller, ticket)
