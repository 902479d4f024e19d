"""The shared rate limiter of several workers, in time that passes only where the simulation says so."""

from __future__ import annotations

import json
import math
import random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from attrs import define, field
from support.simulation import CALLERS, Bucket, Simulation

from techforge.batch import shared_limiter
from techforge.batch.shared_limiter import SharedLimiter

if TYPE_CHECKING:
    from collections.abc import Callable

    from techforge.policy.limiter import Limiter


@define
class Workers(Simulation):
    """Three workers that share one rate limiter; each synchronizes with the ledger every few milliseconds."""

    max_rate: float = math.inf
    workers: list[SharedLimiter] = field(init=False, factory=list[SharedLimiter])
    kept: str = "null"
    sent: list[float] = field(init=False, factory=list[float])
    noise: float = 0.0
    """The share of 429s that have nothing to do with a limit."""

    def __attrs_post_init__(self) -> None:
        self.workers += [SharedLimiter(self, self.max_rate, math.inf) for _ in range(3)]  # type: ignore[arg-type]

    def run(self, until: float) -> None:
        """Go on until a time."""
        if not self.events:
            super().run(-1.0)
            for worker in self.workers:
                self._at(0.0, self._synchronize, worker)
        super().run(until)

    def now(self) -> float:
        """Return the ledger's time, which is not the machine's."""
        return self.clock + 1e9

    def update_account_fact(self, name: str, change: Callable[[Any], Any]) -> None:
        """Change what the ledger keeps."""
        assert name == "pace"
        self.kept = json.dumps(change(json.loads(self.kept)))

    def of(self, caller: int) -> Limiter:
        """Return the limiter of a caller's worker."""
        return self.workers[caller % 3]

    def _synchronize(self, worker: SharedLimiter) -> None:
        if worker._is_due():
            worker.synchronize()
        self._at(0.02 + 0.02 * self.dice.random(), self._synchronize, worker)

    def _arrive(self, caller: int, ticket: Any) -> None:
        self.sent.append(self.clock)
        good = self.api.allows(self.clock) and self.dice.random() >= self.noise
        self._at(self._trip(), self._answer, caller, ticket, good)


def begin(monkeypatch: pytest.MonkeyPatch, *arguments: Any, **options: Any) -> Workers:
    """Return a simulation whose time is the workers', too."""
    simulation = Workers(*arguments, **options)
    monkeypatch.setattr(shared_limiter, "random", random.Random(1))  # noqa: S311 - it decides nothing secret
    monkeypatch.setattr(shared_limiter, "time", SimpleNamespace(monotonic=lambda: simulation.clock))
    return simulation


def fullest(times: list[float]) -> int:
    """Return how many there are in the fullest second."""
    first = most = 0
    for last, at in enumerate(times):
        while times[first] <= at - 1:
            first += 1
        most = max(most, last - first + 1)
    return most


@pytest.mark.parametrize("latency", [0.005, 0.2])
def test_a_limit_that_is_told(monkeypatch: pytest.MonkeyPatch, latency: float) -> None:
    """Three workers keep to it together: all of it is used, and no second has much more."""
    simulation = begin(monkeypatch, Bucket(1000, 0, 1000), latency, max_rate=50.0)
    simulation.run(40)
    goodput, refused = simulation.between(5, 40)
    assert 49 <= goodput <= 50.5
    assert refused == 0
    assert fullest(simulation.sent) <= 55


@pytest.mark.parametrize("retry_after", [0, 1])
@pytest.mark.parametrize("burst", [60, 300])
@pytest.mark.parametrize("latency", [0.005, 0.2])
def test_a_limit_that_is_found_and_drops(
    monkeypatch: pytest.MonkeyPatch, retry_after: float, burst: float, latency: float
) -> None:
    """From a cold start, and when the API allows half in mid-run."""
    simulation = begin(monkeypatch, Bucket(60, retry_after, burst), latency)
    simulation.run(40)
    goodput, refused = simulation.between(10, 40)
    assert goodput >= 0.95 * 60
    assert refused <= 0.04
    simulation.api.rate = 30
    simulation.run(80)
    goodput, refused = simulation.between(50, 80)
    assert goodput >= 0.95 * 30
    assert refused <= 0.04


def test_a_few_429s_are_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused now and then, whatever the pace, does not bring it down."""
    simulation = begin(monkeypatch, Bucket(60, 0, 60), 0.02, max_rate=50.0, noise=0.02)
    simulation.run(60)
    goodput, _ = simulation.between(5, 60)
    assert goodput >= 40


@pytest.mark.parametrize("drop", [2, 6])
@pytest.mark.parametrize("latency", [0.01, 0.2])
def test_a_limit_that_drops_is_used_at_once(
    monkeypatch: pytest.MonkeyPatch, drop: float, latency: float
) -> None:
    """At least 90 % of the new limit is used, from five seconds after the drop on."""
    simulation = begin(monkeypatch, Bucket(60, 0, 60), latency)
    simulation.run(40)
    simulation.api.rate /= drop
    simulation.run(75)
    goodput, refused = simulation.between(45, 75)
    assert goodput >= 0.9 * 60 / drop
    assert refused <= 0.04


@pytest.mark.parametrize("noise", [0.01, 0.03])
def test_random_429s_are_no_limit(monkeypatch: pytest.MonkeyPatch, noise: float) -> None:
    """Workers that know no limit are not slowed down by 429s that have nothing to do with the rate."""
    simulation = begin(monkeypatch, Bucket(1e9, 0, 1e9), 0.2, noise=noise)
    simulation.run(60)
    goodput, _ = simulation.between(10, 60)
    assert goodput >= 0.9 * CALLERS / 0.2


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Workers:
    """Return a simulation in which nobody asks but the test."""
    return begin(monkeypatch, Bucket(1000, 0, 1000), 0.02, max_rate=50.0)


def wait_for_turn(simulation: Workers, worker: SharedLimiter) -> Any:
    """Ask for a turn, and take it from the ledger."""
    ticket = worker.ticket()
    assert worker.acquire(ticket, simulation.clock) > 0
    worker.synchronize()
    return ticket


def test_a_machine_that_slept_does_not_make_up_for_it(alone: Workers) -> None:
    """A turn that is long past is lost."""
    worker = alone.workers[0]
    ticket = wait_for_turn(alone, worker)
    alone.clock += 10
    assert worker.acquire(ticket, alone.clock) > 0
    worker.synchronize()
    alone.clock += 0.1
    assert worker.acquire(ticket, alone.clock) == 0


def test_turns_of_the_pace_before_are_lost(alone: Workers) -> None:
    """When the rate is cut, nobody goes on at the old one."""
    first, second = alone.workers[:2]
    tickets = [first.ticket() for _ in range(5)]
    for ticket in tickets:
        first.acquire(ticket, alone.clock)
    first.synchronize()
    assert len(first._send_times) == 5
    late = [second.ticket() for _ in range(3)]
    for ticket in late:
        second.record_refused(ticket, alone.clock, 0.0, 0.0)
    alone.clock += 0.05
    second.synchronize()
    first.synchronize()
    assert {epoch for _, epoch in first._send_times} <= {json.loads(alone.kept)["epoch"]}
    assert json.loads(alone.kept)["epoch"] == 1


def test_a_slow_database_loses_no_turn(alone: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the ledger says late is said in time."""
    worker = alone.workers[0]
    update = Workers.update_account_fact

    def slow(simulation: Workers, name: str, change: Callable[[Any], Any]) -> None:
        update(simulation, name, change)
        simulation.clock += 2

    monkeypatch.setattr(Workers, "update_account_fact", slow)
    ticket = wait_for_turn(alone, worker)
    assert worker.acquire(ticket, alone.clock) == 0


def test_a_clock_that_was_set_back_does_not_stop_all(alone: Workers) -> None:
    """The pace goes on from now."""
    worker = alone.workers[0]
    worker.release(wait_for_turn(alone, worker))
    alone.clock -= 3600
    worker._send_times.clear()
    alone.clock += 1.1
    for _ in range(10):
        ticket = wait_for_turn(alone, worker)
        alone.clock += 0.11
        assert worker.acquire(ticket, alone.clock) == 0


def test_where_the_ledger_is_slow_more_turns_are_taken(
    alone: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as are used until the next ones come."""
    worker = alone.workers[0]
    update = Workers.update_account_fact

    def slow(simulation: Workers, name: str, change: Callable[[Any], Any]) -> None:
        update(simulation, name, change)
        simulation.clock += 0.2

    monkeypatch.setattr(Workers, "update_account_fact", slow)
    for _ in range(40):
        worker.acquire(worker.ticket(), alone.clock)
    worker.synchronize()
    assert len(worker._send_times) == 5
    worker.synchronize()
    assert len(worker._send_times) == 20


def test_a_stored_pause_of_years_is_ignored(alone: Workers) -> None:
    """An earlier version stored what a wrong `Retry-After` asked for."""
    alone.kept = json.dumps({"paused_until": alone.now() + 1_764_100_000, "pauses": 1_764_100_000})
    worker = alone.workers[0]
    ticket = wait_for_turn(alone, worker)
    assert worker.acquire(ticket, alone.clock) == 0
