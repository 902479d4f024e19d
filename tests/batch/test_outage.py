"""Campaigns during an outage: few rows become unknown, and the campaign continues by itself."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from support.postgres import campaign

from techforge import AsyncTechForge, NoLedgerError, TechForge
from techforge.batch import NoProgressError, State
from techforge.mock import MockServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OUTAGE_SECONDS = 3.0
ROWS = 300
OUTAGES = [
    "status=503;body=html",
    "status=503;retry-after=1;operation=createJob",
    "status=302;json={};operation=createJob",
    "close=after-body;operation=createJob",
]

pytestmark = pytest.mark.lying("a load balancer answers for the API")


def rows(count: int) -> list[dict[str, Any]]:
    """Return rows that differ."""
    media = {"audio_url": "https://cdn.example.com/audio.mp3"}
    return [{"image_url": f"https://cdn.example.com/{n}.png", **media} for n in range(count)]


@pytest.fixture
def quick() -> Iterator[MockServer]:
    """Return a mock whose jobs are done at once."""
    with MockServer(render=False, job_polls=0) as mock:
        yield mock


def start_outage(mock: MockServer, fault: str) -> None:
    """Start an outage of a few seconds after the first submissions."""

    def outage() -> None:
        while mock.journal.count(operation="createJob") < 40:
            time.sleep(0.005)
        mock.faults.add(f"{fault};times=0")
        time.sleep(OUTAGE_SECONDS)
        mock.faults.clear()

    threading.Thread(target=outage).start()


def check(mock: MockServer, states: Counter[State], in_flight: int) -> None:
    """Check that all rows have ended, that few are unknown, and that no row was submitted twice."""
    assert states.total() == states[State.DONE] + states[State.UNKNOWN] == ROWS
    assert 5 <= states[State.UNKNOWN] <= in_flight + 10
    posts = Counter(json.loads(r.body)["project_id"] for r in mock.journal.requests(operation="createJob"))
    assert set(posts.values()) == {1}


@pytest.mark.parametrize("fault", OUTAGES)
def test_an_outage_leaves_few_rows_unknown(quick: MockServer, tmp_path: Path, fault: str) -> None:
    """At most the rows in flight and ten more."""
    start_outage(quick, fault)
    problems: set[str] = set()
    with TechForge(quick.api_key, base_url=quick.url) as client:
        ended = client.batch.run(
            rows(ROWS), ledger=tmp_path / "l", on_progress=lambda run: problems.add(run.problem)
        )
        check(quick, Counter(row.state for row in ended), in_flight=32)
    assert any("submissions are paused" in problem for problem in problems)


async def test_the_same_for_asyncio(quick: MockServer, tmp_path: Path) -> None:
    """The async client does the same."""
    start_outage(quick, OUTAGES[0])
    async with AsyncTechForge(quick.api_key, base_url=quick.url) as client:
        ended = client.batch.run(rows(ROWS), ledger=tmp_path / "l", concurrency=8)
        states = Counter([row.state async for row in ended])
    check(quick, states, in_flight=8)


@pytest.mark.parametrize("fault", [OUTAGES[0], OUTAGES[1]])
def test_an_outage_is_one_event_for_all_workers(quick: MockServer, postgres_url: str, fault: str) -> None:
    """If one worker stops, all do, and one of them tries with one row."""
    url = campaign(postgres_url)
    states: Counter[State] = Counter()

    def work(*, first: bool) -> None:
        with TechForge(quick.api_key, base_url=quick.url) as client:
            while True:
                try:
                    ended = client.batch.run(rows(ROWS), ledger=url) if first else client.batch.work(url)
                    states.update([row.state for row in ended])
                except NoLedgerError:
                    time.sleep(0.05)
                else:
                    return

    start_outage(quick, fault)
    threads = [threading.Thread(target=work, kwargs={"first": n == 0}) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check(quick, states, in_flight=3 * 32)


def test_one_failure_among_successes_changes_nothing(quick: MockServer, tmp_path: Path) -> None:
    """Four doubtful responses in a row are no outage: nothing pauses."""
    quick.faults.add("status=503;operation=createJob;after=10;times=4")
    with TechForge(quick.api_key, base_url=quick.url) as client:
        began = time.monotonic()
        ended = Counter(row.state for row in client.batch.run(rows(30), ledger=tmp_path / "l", concurrency=4))
    assert ended == {State.DONE: 26, State.UNKNOWN: 4}
    assert not client._session.settings.breaker.problem
    assert time.monotonic() - began < 3


def test_a_campaign_ends_if_the_outage_does_not(quick: MockServer, tmp_path: Path) -> None:
    """A run that only tries in vain gives up."""
    quick.faults.add("status=503;body=html;operation=createJob;times=0")
    with TechForge(quick.api_key, base_url=quick.url) as client:
        ended: list[Any] = []
        with pytest.raises(NoProgressError, match=r"submissions are paused.*503"):
            ended.extend(client.batch.run(rows(100), ledger=tmp_path / "l", give_up_after=2.5))
