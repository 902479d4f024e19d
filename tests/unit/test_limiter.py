"""The pace of a client, in time that passes only where the simulation says so."""

from __future__ import annotations

import math
import threading
from typing import Any

import pytest
from attrs import define
from support.simulation import CALLERS, Bucket, Simulation

from techforge.policy.limiter import Limiter
from techforge.policy.lock import lock


@define
class Busy(Simulation):
    """An API with a single worker, which now and then stands still for 0.3 s; who comes meanwhile waits."""

    free: float = 0.0

    def _arrive(self, caller: int, ticket: Any) -> None:
        begins = max(self.clock, self.free)
        self.free = begins + 0.011 * (0.5 + self.dice.random()) + 0.3 * (self.dice.random() < 0.01)
        self._at(begins - self.clock, self._begin, caller, ticket, self.free)

    def _begin(self, caller: int, ticket: Any, ends: float) -> None:
        self._at(ends - self.clock + self._trip(), self._answer, caller, ticket, self.api.allows(self.clock))


@pytest.mark.parametrize("rate", [20, 60, 300])
@pytest.mark.parametrize("retry_after", [0, 1])
@pytest.mark.parametrize("burst", [1, 5])
@pytest.mark.parametrize("latency", [0.005, 0.05, 0.2])
def test_the_pace_is_found(rate: float, retry_after: float, burst: float, latency: float) -> None:
    """From a cold start, and when the API allows a third in mid-run: nine tenths of it after ten seconds."""
    simulation = Simulation(Bucket(rate, retry_after, burst * rate), latency)
    simulation.run(40)
    goodput, refused = simulation.between(10, 40)
    assert goodput >= 0.9 * min(rate, CALLERS / latency)
    assert refused <= 0.02

    simulation.api.rate /= 3
    simulation.run(80)
    goodput, refused = simulation.between(50, 80)
    assert goodput >= 0.9 * min(rate / 3, CALLERS / latency)
    assert refused <= 0.02
    assert min(simulation.served.values()) >= 0.5 * max(simulation.served.values()) or rate < 50


def test_a_busy_api_refuses_few_at_once() -> None:
    """Where answers take longer the more are asked for, requests do not pile up to be refused together."""
    runs = [Busy(Bucket(60, 1, 60), 0.02) for _ in range(8)]
    for seed, simulation in enumerate(runs):
        simulation.dice.seed(seed)
        simulation.run(40)
    goodput, refused = zip(*(simulation.between(10, 40) for simulation in runs), strict=True)
    assert sum(goodput) / 8 >= 0.9 * 60
    assert sum(refused) / 8 <= 0.02


def test_all_are_served_alike() -> None:
    """Callers come in the order in which they asked, so that none is left behind."""
    simulation = Simulation(Bucket(50, 1, 50), 0.05)
    simulation.run(60)
    assert max(simulation.served.values()) - min(simulation.served.values()) <= 4


def test_more_is_taken_when_there_is_more() -> None:
    """The rate goes on growing: a limit that was tripled is used within a minute."""
    simulation = Simulation(Bucket(50, 1, 50), 0.05)
    simulation.run(30)
    simulation.api.rate *= 3
    simulation.run(120)
    assert simulation.between(90, 120)[0] >= 0.9 * 150


def test_it_is_off_until_the_first_429() -> None:
    """Who is never refused never waits."""
    limiter = Limiter()
    tickets = [limiter.ticket() for _ in range(1000)]
    assert not any(limiter.acquire(ticket, 0.0) for ticket in tickets)
    assert limiter.rate == math.inf


def test_a_fixed_rate() -> None:
    """`max_rate` holds from the first request on, and after a 429 the rate may only be lower."""
    simulation = Simulation(Bucket(1000, 0, 1000), 0.01, Limiter(max_rate=20))
    simulation.run(10)
    assert simulation.between(0, 10)[0] == pytest.approx(20, rel=0.02)
    simulation.api.rate = simulation.api.burst = 5
    simulation.run(40)
    assert simulation.between(30, 40)[0] == pytest.approx(5, rel=0.1)


def test_a_fixed_number_in_flight() -> None:
    """`max_in_flight` is never exceeded, and is made use of."""
    simulation = Simulation(Bucket(10_000, 0, 10_000), 0.1, Limiter(max_in_flight=8))
    simulation.run(10)
    assert simulation.most == 8
    assert simulation.between(2, 10)[0] >= 0.85 * 8 / 0.1


def test_fewer_at_once_after_a_429() -> None:
    """A 429 halves how many are under way; with each round of answers it is two more."""
    limiter = Limiter()
    tickets = [limiter.ticket() for _ in range(41)]
    assert not any(limiter.acquire(ticket, 0.0) for ticket in tickets)
    limiter.record_refused(tickets[0], 0.1, None, 0.0)
    assert limiter._concurrency_limit == 20
    for ticket in tickets[1:21]:
        limiter.record_accepted(ticket, 0.2)
    assert limiter._concurrency_limit == pytest.approx(22, abs=0.1)


def test_a_pause_is_for_all() -> None:
    """While a Retry-After runs nobody sends; a shorter one does not end it."""
    limiter = Limiter()
    first, second, third = (limiter.ticket() for _ in range(3))
    assert limiter.acquire(first, 0.0) == limiter.acquire(second, 0.0) == 0
    limiter.record_refused(first, 1.0, 30.0, 0.5)
    limiter.record_refused(second, 1.0, 5.0, 0.5)
    assert [limiter.acquire(ticket, 2.0) for ticket in (third, first)] == [29.0, 29.0]
    # And then in their order: who was refused comes first.
    assert limiter.acquire(third, 31.0) > 0
    assert limiter.acquire(first, 31.0) == 0


def test_a_wave_of_429s_counts_once() -> None:
    """What was sent before the rate was cut tells nothing new."""
    limiter = Limiter()
    tickets = [limiter.ticket() for _ in range(64)]
    for ticket in tickets:
        limiter.acquire(ticket, 0.0)
    limiter.record_refused(tickets[0], 0.1, None, 0.0)
    rate = limiter.rate
    for ticket in tickets[1:]:
        limiter.record_refused(ticket, 5.0, None, 0.0)
    assert limiter.rate == rate == 4


def test_who_leaves_holds_nobody_up() -> None:
    """A caller that gives up, waiting or under way, leaves its place to the next."""
    limiter = Limiter(max_rate=1, max_in_flight=1)
    first, second, third = (limiter.ticket() for _ in range(3))
    assert limiter.acquire(first, 0.0) == 0
    assert limiter.acquire(second, 0.0) > 0
    assert limiter.acquire(third, 0.0) > limiter.acquire(second, 0.0)
    limiter.release(second)
    limiter.release(second)
    assert limiter.acquire(third, 5.0) > 0
    limiter.release(first)
    assert limiter.acquire(third, 5.0) == 0


def test_a_lost_answer_is_under_way_no_more() -> None:
    """A call that tries again after a lost connection is counted once."""
    limiter = Limiter(max_in_flight=2)
    first, second = limiter.ticket(), limiter.ticket()
    for _ in range(5):
        assert limiter.acquire(first, 0.0) == 0
    assert limiter.acquire(second, 0.0) == 0
    assert limiter._in_flight == 2


def test_a_child_process_waits_for_no_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another process has in flight, and who waits there, is nothing to a child."""
    limiter = Limiter(max_in_flight=1)
    ours, theirs, waiting = (limiter.ticket() for _ in range(3))
    assert limiter.acquire(theirs, 0.0) == 0
    assert limiter.acquire(waiting, 0.0) > 0
    monkeypatch.setattr("os.getpid", lambda: -1)
    assert limiter.acquire(ours, 0.0) == 0


def test_an_abandoned_call_is_cleaned_up_at_any_moment() -> None:
    """The garbage collector may do it in a thread that is just asking for another call."""
    limiter = Limiter(max_in_flight=1)
    abandoned = limiter.ticket()
    assert limiter.acquire(abandoned, 0.0) == 0

    def collected() -> None:
        with lock:
            limiter.release(abandoned)

    thread = threading.Thread(target=collected, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    assert limiter.acquire(limiter.ticket(), 0.0) == 0
