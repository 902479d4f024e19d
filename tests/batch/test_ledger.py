"""The ledger: no row is submitted twice, and none is lost, whatever happens in between."""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from techforge.batch.ledger import SCHEMA, Entry, Ledger, LedgerError, Loaded, State
from techforge.batch.manifest import Row

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PARAMS = {"image_url": "https://cdn.example.com/i.png", "audio_url": "https://cdn.example.com/a.mp3"}


def row(key: str, **metadata: str) -> Row:
    """Return a row of a manifest."""
    return Row(key, PARAMS, metadata, 1)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Return a ledger with one row."""
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.load([row("a", customer="7")])
        yield ledger


def only(ledger: Ledger) -> Entry:
    """Return the only row."""
    (entry,) = ledger.entries()
    return entry


def test_what_is_known_is_not_added_again(ledger: Ledger) -> None:
    """The same manifest, loaded again, adds what is new."""
    assert ledger.load([row("a"), row("b"), row("b")]) == Loaded(new=1, known=2)
    assert [(entry.key, entry.state) for entry in ledger.entries()] == [("a", "pending"), ("b", "pending")]
    assert only_metadata(ledger) == [{"customer": "7"}, {}]


def only_metadata(ledger: Ledger) -> list[dict[str, str]]:
    """Return the metadata of all rows."""
    return [entry.metadata for entry in ledger.entries()]


def test_a_load_that_fails_adds_nothing(ledger: Ledger) -> None:
    """All rows of a manifest come in, or none."""

    def rows() -> Iterator[Row]:
        yield row("b")
        raise ValueError("the last row is bad")

    with pytest.raises(ValueError, match="last row"):
        ledger.load(rows())
    assert only(ledger).key == "a"


def test_a_row_is_claimed_once(tmp_path: Path) -> None:
    """Of many threads and connections that claim the same rows, one gets each."""
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.load([row(str(n)) for n in range(50)])
    claimed: list[int] = []

    def work() -> None:
        with Ledger(path) as own:
            claimed.extend(n for n in range(1, 51) if own.claim(n))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == list(range(1, 51))


CHANGES = {
    "claim": lambda ledger: ledger.claim(1),
    "submitted": lambda ledger: ledger.submitted(1, "job", 0.0),
    "put back": lambda ledger: ledger.put_back(1, 0.0, "429"),
    "failed": lambda ledger: ledger.failed(1, "400"),
    "unknown": lambda ledger: ledger.unknown(1, "closed"),
    "done": lambda ledger: ledger.done(1, "a.mp4"),
    "look again": lambda ledger: ledger.look_again(1, 9.0),
    "abandon": lambda ledger: bool(ledger.abandon()),
}
ALLOWED = {
    ("pending", "claim"): "posting",
    ("posting", "submitted"): "submitted",
    ("posting", "put back"): "pending",
    ("posting", "failed"): "failed",
    ("posting", "unknown"): "unknown",
    ("posting", "abandon"): "unknown",
    ("submitted", "done"): "done",
    ("submitted", "failed"): "failed",
    ("submitted", "look again"): "submitted",
    ("unknown", "submitted"): "submitted",
    ("unknown", "done"): "done",
}
"""Everything that may happen to a row; an answer that comes late heals a row that was taken for unknown."""


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("state", [state.value for state in State])
def test_what_may_happen_to_a_row(ledger: Ledger, state: str, change: str) -> None:
    """Any other change finds the row in another state, and leaves it."""
    with ledger.transaction() as db:
        db.execute("UPDATE jobs SET state = ?", (state,))
    assert CHANGES[change](ledger) == ((state, change) in ALLOWED)
    assert only(ledger).state == ALLOWED.get((state, change), state)


def test_a_lease_is_nobody_elses(ledger: Ledger) -> None:
    """What one has taken to look at, another gets when the lease is over."""
    ledger.claim(1)
    ledger.submitted(1, "job", 5.0)
    assert ledger.due(4.0, 100.0) == []
    assert [entry.job_id for entry in ledger.due(5.0, 100.0)] == ["job"]
    assert ledger.due(99.0, 200.0) == []
    assert len(ledger.due(100.0, 200.0)) == 1
    ledger.abandon()
    assert len(ledger.due(101.0, 200.0)) == 1


def test_a_project_follows_from_the_key(ledger: Ledger) -> None:
    """It need not be kept, it is a UUID, and a row's own goes before it."""
    project = only(ledger).project_id
    with Ledger(ledger.path) as again:
        assert only(again).project_id == project
    assert ledger.project_of("b", {}) != project
    assert ledger.project_of("a", {"project_id": "own"}) == "own"


def test_one_process_runs_a_campaign(ledger: Ledger) -> None:
    """A second one is told so."""
    with Ledger(ledger.path) as other, ledger.alone(), pytest.raises(LedgerError, match="another process"):
        other.alone().__enter__()
    with ledger.alone():
        pass


def test_a_newer_ledger_is_refused(ledger: Ledger) -> None:
    """What a later version wrote, this one might misread."""
    with ledger.transaction() as db:
        db.execute("UPDATE campaign SET value = ? WHERE name = 'schema'", (str(SCHEMA + 1),))
    with pytest.raises(LedgerError, match="update techforge"):
        Ledger(ledger.path)


def test_another_database_is_refused(tmp_path: Path) -> None:
    """Nothing is added to a file that is something else."""
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE users (name TEXT)")
    other.close()
    with pytest.raises(LedgerError, match="no ledger"):
        Ledger(path)
    (tmp_path / "text").write_text("hello" * 1000, encoding="utf-8")
    with pytest.raises(LedgerError, match="cannot be used"):
        Ledger(tmp_path / "text")


class Interleavings(RuleBasedStateMachine):
    """Two workers that claim, send, hear and die in any order, and an API that counts what it accepts."""

    def __init__(self) -> None:
        """Begin with three rows."""
        super().__init__()
        self.ledger = Ledger(":memory:")
        self.ledger.load([row(str(n)) for n in range(3)])
        self.accepted = [0, 0, 0, 0]
        self.sent: set[int] = set()
        """Claimed and sent, not yet answered."""
        self.claimed: set[int] = set()
        """Claimed, not yet sent."""

    numbers = st.integers(1, 3)

    @rule(n=numbers)
    def claim(self, n: int) -> None:
        """A worker claims a row."""
        if self.ledger.claim(n):
            self.claimed.add(n)

    @rule(n=numbers, taken=st.booleans())
    def send(self, n: int, taken: bool) -> None:
        """A worker sends what it has claimed; the API accepts it, or not."""
        if n in self.claimed:
            self.claimed.remove(n)
            self.accepted[n] += taken
            self.sent.add(n)

    @rule(n=numbers)
    def hear(self, n: int) -> None:
        """The answer comes: also late, when another has taken the row for unknown."""
        if n in self.sent:
            self.sent.remove(n)
            if self.accepted[n]:
                self.ledger.submitted(n, f"job-{n}", 0.0)
            else:
                self.ledger.put_back(n, 0.0, "429")

    @rule(n=numbers)
    def lose(self, n: int) -> None:
        """No answer comes."""
        if n in self.sent:
            self.sent.remove(n)
            self.ledger.unknown(n, "closed")

    @rule()
    def die(self) -> None:
        """A process ends; the next one looks what it has left."""
        self.claimed.clear()
        self.ledger.abandon()

    @rule()
    def take_over(self) -> None:
        """A worker that seemed dead goes on, after another has looked what it has left."""
        self.ledger.abandon()

    @rule(n=numbers)
    def finish(self, n: int) -> None:
        """A video is there."""
        if self.accepted[n]:
            self.ledger.done(n, None)

    @invariant()
    def nothing_twice_and_nothing_lost(self) -> None:
        """No row was accepted twice; none that was is pending; none is done that was not."""
        states = {entry.n: entry.state for entry in self.ledger.entries()}
        for n in (1, 2, 3):
            assert self.accepted[n] <= 1
            if self.accepted[n]:
                assert states[n] is not State.PENDING
            else:
                assert states[n] not in {State.SUBMITTED, State.DONE}

    def teardown(self) -> None:
        """Close it."""
        self.ledger.close()


Interleavings.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestInterleavings = Interleavings.TestCase
