"""Three processes on PostgreSQL that are killed and frozen, and a database that goes away."""

from __future__ import annotations

import random
import signal
import time
from typing import TYPE_CHECKING

from support.chaos import KILLS, at_length, attacked
from support.postgres import campaign as campaign_of

from techforge.batch import State

if TYPE_CHECKING:
    from support.postgres import OwnPostgres


def test_killed_again_and_again(ledger: str) -> None:
    """One of three at a time, each started again at once; the loader is killed and run again, too."""
    with attacked(ledger, 40 * KILLS, faults=3.0, max_rate=80) as campaign:
        loader = campaign.start("run")
        time.sleep(random.uniform(0.5, 1.0))  # noqa: S311
        campaign.kill(loader)
        campaign.start("run")
        campaign.loaded()
        for _ in range(2):
            campaign.start("work")
        for _ in range(KILLS - 1):
            time.sleep(random.uniform(0.5, 1.2))  # noqa: S311
            victim = random.choice(campaign.processes)  # noqa: S311
            campaign.kill(victim)
            campaign.start("work")
        campaign.wait()
        counts = campaign.reckon()
    assert counts[State.DONE] > 20 * KILLS


@at_length
def test_all_killed_at_once(ledger: str) -> None:
    """Nobody is left to take over; those who come later do."""
    with attacked(ledger, 300, faults=3.0) as campaign:
        campaign.start("run")
        campaign.loaded()
        for _ in range(max(2, KILLS // 3)):
            for _ in range(3):
                campaign.start("work")
            time.sleep(random.uniform(0.7, 1.4))  # noqa: S311
            for process in [*campaign.processes]:
                campaign.kill(process)
        campaign.start("work")
        campaign.wait()
        campaign.reckon()


@at_length
def test_the_loader_run_twice_at_once(ledger: str) -> None:
    """Each row is there once, and submitted once."""
    with attacked(ledger, 200) as campaign:
        for _ in range(2):
            campaign.start("run")
        campaign.wait()
        assert campaign.reckon() == {State.DONE: 200}


@at_length
def test_a_frozen_worker(ledger: str) -> None:
    """For fifteen seconds it says nothing; another takes its rows, and it finds them taken when it thaws."""
    with attacked(ledger, 400, max_rate=60) as campaign:
        campaign.start("run")
        campaign.loaded()
        frozen = campaign.start("work")
        campaign.start("work")
        time.sleep(3)
        frozen.send_signal(signal.SIGSTOP)
        campaign.kills = 1  # what it was at may be called unknown, until it thaws
        time.sleep(15)
        ended = campaign.ended()
        frozen.send_signal(signal.SIGCONT)
        campaign.wait()
        counts = campaign.reckon()
    assert ended > 100
    assert counts[State.DONE] > 380


@at_length
def test_a_worker_that_is_dead_for_good(ledger: str) -> None:
    """Its chunks go to the others."""
    with attacked(ledger, 300) as campaign:
        campaign.start("run")
        campaign.loaded()
        dead = campaign.start("work")
        time.sleep(2.5)
        campaign.kill(dead)
        campaign.wait()
        campaign.reckon()


def test_a_database_that_is_killed(own_postgres: OwnPostgres) -> None:
    """Workers wait until it is there again, and lose no job that was accepted meanwhile."""
    ledger = campaign_of(own_postgres.url)
    count = 25 * max(4, KILLS // 2)
    with attacked(ledger, count, max_rate=80) as campaign:
        campaign.start("run")
        campaign.loaded()
        for _ in range(2):
            campaign.start("work")
        campaign.joined(3)
        for _ in range(max(1, KILLS // 10)):
            time.sleep(0.5)
            own_postgres.restart()
        campaign.wait()
        counts = campaign.reckon()
    assert counts == {State.DONE: count}
