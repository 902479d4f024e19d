"""The rate limiter of a client, in simulated time."""

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
    """An API with one worker that pauses for 0.3 s now and then; requests wait meanwhile."""

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
def test_the_rate_limit_is_found(rate: float, retry_after: float, burst: float, latency: float) -> None:
    """90 % is used after 10 s: from a cold start, and after the limit drops to a third."""
    simulation = Simulation(Bucket(rate, retry_after, burst * rate), latency)
    simulation.run(40)
    goodput, refused = simulation.between(10, 40)
    assert goodput >= 0.9 * min(rate, CALLERS / latency)
    # A few 429s in a hundred are no limit: 64 callers want 320 requests a second if one takes 0.2 s.
    assert refused <= (0.03 if rate == 300 and latency == 0.2 else 0.02)

    simulation.api.rate /= 3
    simulation.run(80)
    goodput, refused = simulation.between(50, 80)
    assert goodput >= 0.9 * min(rate / 3, CALLERS / latency)
    assert refused <= 0.02
    assert min(simulation.served.values()) >= 0.5 * max(simulation.served.values()) or rate < 50


@pytest.mark.parametrize("share", [0.01, 0.02, 0.03])
@pytest.mark.parametrize("offered", [3, 20, 300, math.inf])
@pytest.mark.parametrize("latency", [0.02, 0.2])
def test_random_429s_are_no_limit(share: float, offered: float, latency: float) -> None:
    """429s that have nothing to do with the rate cost less than 10 % of the throughput."""
    api = Bucket(1e9, 0, 1e9, random_share=share)
    simulation = Simulation(api, latency, Limiter(max_rate=offered))
    simulation.run(90)
    goodput, _ = simulation.between(15, 90)
    assert goodput >= 0.9 * min(offered, CALLERS / (latency + 0.001))


@pytest.mark.parametrize("rate", [20, 300])
def test_a_limit_is_found_among_random_429s(rate: float) -> None:
    """A limit is found, and again after it drops to a third, if 3 % of all responses are 429s anyway."""
    simulation = Simulation(Bucket(rate, 0, rate, random_share=0.03), 0.05)
    simulation.run(60)
    goodput, refused = simulation.between(20, 60)
    assert goodput >= 0.8 * rate
    assert refused <= 0.12
    simulation.api.rate /= 3
    simulation.run(120)
    goodput, refused = simulation.between(80, 120)
    assert goodput >= 0.8 * rate / 3
    assert refused <= 0.12


def test_a_refused_call_does_not_return_at_once() -> None:
    """While there is no limit, a call that got a 429 waits at least as long as its request took."""
    limiter = Limiter()
    first, second = limiter.ticket(), limiter.ticket()
    assert limiter.acquire(first, 0.0) == limiter.acquire(second, 0.0) == 0
    limiter.record_accepted(second, 0.1)
    limiter.record_refused(first, 0.2, None, 0.5)
    assert limiter.acquire(first, 0.2) == pytest.approx(0.3)
    assert limiter.acquire(limiter.ticket(), 0.2) == 0


def test_a_slow_api_gets_few_429s() -> None:
    """If latency grows with the load, requests do not pile up until they are rejected together."""
    runs = [Busy(Bucket(60, 1, 60), 0.02) for _ in range(8)]
    for seed, simulation in enumerate(runs):
        simulation.dice.seed(seed)
        simulation.run(40)
    goodput, refused = zip(*(simulation.between(10, 40) for simulation in runs), strict=True)
    assert sum(goodput) / 8 >= 0.9 * 60
    assert sum(refused) / 8 <= 0.02


def test_callers_are_served_in_order() -> None:
    """First come, first served: no caller starves."""
    simulation = Simulation(Bucket(50, 1, 50), 0.05)
    simulation.run(60)
    assert max(simulation.served.values()) - min(simulation.served.values()) <= 4


def test_a_higher_limit_is_found() -> None:
    """After the limit was tripled, it is used within a minute."""
    simulation = Simulation(Bucket(50, 1, 50), 0.05)
    simulation.run(30)
    simulation.api.rate *= 3
    simulation.run(120)
    assert simulation.between(90, 120)[0] >= 0.9 * 150


def test_it_is_off_until_the_first_429() -> None:
    """Before the first 429 no caller waits."""
    limiter = Limiter()
    tickets = [limiter.ticket() for _ in range(1000)]
    assert not any(limiter.acquire(ticket, 0.0) for ticket in tickets)
    assert limiter.rate == math.inf


def test_a_fixed_rate() -> None:
    """`max_rate` applies from the first request on. A 429 can only lower the rate."""
    simulation = Simulation(Bucket(1000, 0, 1000), 0.01, Limiter(max_rate=20))
    simulation.run(10)
    assert simulation.between(0, 10)[0] == pytest.approx(20, rel=0.02)
    simulation.api.rate = simulation.api.burst = 5
    simulation.run(40)
    assert simulation.between(30, 40)[0] == pytest.approx(5, rel=0.1)


def test_a_fixed_number_in_flight() -> None:
    """`max_in_flight` is reached, and never exceeded."""
    simulation = Simulation(Bucket(10_000, 0, 10_000), 0.1, Limiter(max_in_flight=8))
    simulation.run(10)
    assert simulation.most == 8
    assert simulation.between(2, 10)[0] >= 0.85 * 8 / 0.1


def test_a_429_halves_the_requests_in_flight() -> None:
    """Then their number grows by two per round of responses."""
    limiter = Limiter()
    tickets = [limiter.ticket() for _ in range(41)]
    assert not any(limiter.acquire(ticket, 0.0) for ticket in tickets)
    for ticket in tickets[:2]:
        limiter.record_refused(ticket, 0.1, None, 0.0)
    assert limiter._concurrency_limit == 19.5
    for ticket in tickets[2:22]:
        limiter.record_accepted(ticket, 0.2)
    assert limiter._concurrency_limit == pytest.approx(21.5, abs=0.1)


def test_a_retry_after_pauses_all_callers() -> None:
    """A second, shorter `Retry-After` does not end the pause."""
    limiter = Limiter()
    first, second, third = (limiter.ticket() for _ in range(3))
    assert limiter.acquire(first, 0.0) == limiter.acquire(second, 0.0) == 0
    limiter.record_refused(first, 1.0, 30.0, 0.5)
    limiter.record_refused(second, 1.0, 5.0, 0.5)
    assert [limiter.acquire(ticket, 2.0) for ticket in (third, first)] == [29.0, 29.0]
    # Then in order: the rejected callers come first.
    assert limiter.acquire(third, 31.0) > 0
    assert limiter.acquire(first, 31.0) == 0


def test_a_wave_of_429s_counts_once() -> None:
    """Only requests sent after the last cut can cut the rate again."""
    limiter = Limiter()
    tickets = [limiter.ticket() for _ in range(64)]
    for ticket in tickets:
        limiter.acquire(ticket, 0.0)
    for ticket in tickets[:2]:
        limiter.record_refused(ticket, 0.1, None, 0.0)
    rate = limiter.rate
    for ticket in tickets[2:]:
        limiter.record_refused(ticket, 5.0, None, 0.0)
    assert limiter.rate == rate == 4


def test_a_caller_that_gives_up_frees_its_place() -> None:
    """Both while it waits and while its request is in flight."""
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


def test_a_request_without_response_is_not_in_flight() -> None:
    """A call that retries after a lost connection is counted once."""
    limiter = Limiter(max_in_flight=2)
    first, second = limiter.ticket(), limiter.ticket()
    for _ in range(5):
        assert limiter.acquire(first, 0.0) == 0
    assert limiter.acquire(second, 0.0) == 0
    assert limiter._in_flight == 2


def test_a_child_process_waits_for_no_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a fork, the child ignores the parent's requests in flight and its queue."""
    limiter = Limiter(max_in_flight=1)
    ours, theirs, waiting = (limiter.ticket() for _ in range(3))
    assert limiter.acquire(theirs, 0.0) == 0
    assert limiter.acquire(waiting, 0.0) > 0
    monkeypatch.setattr("os.getpid", lambda: -1)
    assert limiter.acquire(ours, 0.0) == 0


def test_an_abandoned_call_is_cleaned_up_at_any_moment() -> None:
    """The garbage collector may run in a thread that is using the limiter for another call."""
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
