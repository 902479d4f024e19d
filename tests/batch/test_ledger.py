"""The ledger: no row is submitted twice, and none is lost, whatever happens in between."""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING

import pytest
from attrs import define
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from support.postgres import campaign

from techforge.batch import changes, schema
from techforge.batch.database import LedgerError
from techforge.batch.ledger import Entry, Ledger, State
from techforge.batch.loading import Loaded
from techforge.batch.manifest import Row

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PARAMS = {"image_url": "https://cdn.example.com/i.png", "audio_url": "https://cdn.example.com/a.mp3"}


def row(key: str, **metadata: str) -> Row:
    """Return a row of a manifest."""
    return Row(key, PARAMS, metadata, 1)


@pytest.fixture
def ledger(place: str) -> Iterator[Ledger]:
    """Return a ledger with one row."""
    with Ledger(place) as ledger:
        ledger.load([row("a", customer="7")])
        yield ledger


def claim(ledger: Ledger, n: int = 1, attempt: int = 1) -> bool:
    """Claim a row."""
    return ledger.apply(changes.claim(n, attempt, ledger.now(), ledger.now() + 60)) == [True]


def only(ledger: Ledger) -> Entry:
    """Return the only row."""
    (entry,) = ledger.entries()
    return entry


def test_what_is_known_is_not_added_again(ledger: Ledger) -> None:
    """The same manifest, loaded again, adds what is new."""
    assert ledger.load([row("a"), row("b"), row("b")]) == Loaded(new=1, known=1, duplicates=1, waiting=1)
    assert [(entry.key, entry.state) for entry in ledger.entries()] == [("a", "pending"), ("b", "pending")]
    assert only_metadata(ledger) == [{}, {}]  # what the manifest says now


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


def test_a_row_is_claimed_once(place: str) -> None:
    """Of many threads and connections that claim the same rows, one gets each."""
    with Ledger(place) as ledger:
        ledger.load([row(str(n)) for n in range(50)])
    claimed: list[int] = []

    def work() -> None:
        with Ledger(place) as own:
            claimed.extend(n for n in range(1, 51) if claim(own, n))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == list(range(1, 51))


CHANGES = {
    "claim": lambda now: changes.claim(1, 2, now, now + 60),
    "submitted": lambda _: changes.submitted(1, 1, "job", 0.0),
    "put back": lambda _: changes.put_back(1, 1, 0.0, "429"),
    "refused": lambda now: changes.refused(1, 1, "400", None, now),
    "unknown": lambda now: changes.unknown(1, 1, "closed", None, now),
    "failed": lambda now: changes.failed(1, "failed", now),
    "done": lambda now: changes.done(1, "a.mp4", now),
    "poll later": lambda _: changes.poll_later(1, 9.0),
}
ALLOWED = {
    ("pending", "claim"): "posting",
    ("pending", "submitted"): "submitted",
    ("posting", "submitted"): "submitted",
    ("posting", "put back"): "pending",
    ("posting", "refused"): "failed",
    ("posting", "unknown"): "unknown",
    ("posting", "expire claims"): "unknown",
    ("submitted", "done"): "done",
    ("submitted", "failed"): "failed",
    ("submitted", "poll later"): "submitted",
    ("unknown", "submitted"): "submitted",
}
"""Everything that may happen to a row; an answer that comes late heals a row that was taken for unknown."""


def set_row(ledger: Ledger, **columns: object) -> None:
    """Put the only row into a state behind the ledger's back."""
    for name, value in columns.items():
        ledger._db.run(lambda db, name=name, value=value: db.execute(f"UPDATE jobs SET {name} = ?", (value,)))  # noqa: S608


@pytest.mark.parametrize("change", [*CHANGES, "expire claims"])
@pytest.mark.parametrize("state", [state.value for state in State])
def test_what_may_happen_to_a_row(ledger: Ledger, state: str, change: str) -> None:
    """Any other change finds the row in another state, and leaves it."""
    set_row(ledger, state=state, attempts=1)
    changed = (
        ledger.expire_claims()
        if change == "expire claims"
        else ledger.apply(CHANGES[change](ledger.now()))[0]
    )
    assert bool(changed) == ((state, change) in ALLOWED)
    assert only(ledger).state == ALLOWED.get((state, change), state)


@pytest.mark.parametrize("change", ["submitted", "put back", "refused", "unknown"])
def test_an_attempt_that_is_over_touches_no_later_one(ledger: Ledger, change: str) -> None:
    """What is heard of a first attempt, late, is nothing to the second, which is under way."""
    set_row(ledger, state="posting", attempts=2)
    assert ledger.apply(CHANGES[change](ledger.now())) == [False]
    assert only(ledger).state == "posting"
    set_row(ledger, state="pending", attempts=2)
    assert not claim(ledger, attempt=2)
    assert claim(ledger, attempt=3)


def test_changes_that_are_made_together(place: str) -> None:
    """Each is told apart, in the order in which they were asked for."""
    with Ledger(place) as ledger:
        ledger.load([row(str(n)) for n in range(9)])
        now = ledger.now()
        several = [changes.claim(n, 1, now, now + 60) for n in (7, 3, 3, 9, 99)]
        assert ledger.apply(*several) == [True, True, False, True, False]
        late = changes.submitted(3, 1, "job", 0.0), changes.unknown(3, 1, "closed", None, now)
        assert ledger.apply(*late, changes.done(3, None, now)) == [True, False, True]
        assert ledger.apply() == []


def test_only_what_is_late_is_abandoned(ledger: Ledger) -> None:
    """Where several processes submit, each claim has its time."""
    now = ledger.now()
    ledger.apply(changes.claim(1, 1, now, now + 60))
    assert ledger.expire_claims(now + 59) == 0
    assert ledger.expire_claims(now + 61) == 1
    assert "process ended" in str(only(ledger).reason)


def test_news_of_jobs(ledger: Ledger) -> None:
    """A webhook lets a job be looked at at once, and names the job of a row of which no answer came."""
    claim(ledger)
    ledger.apply(changes.unknown(1, 1, "closed", None, 0.0))
    assert not ledger.settle("another project", "job-7")
    assert ledger.settle(only(ledger).project_id, "job-7")
    assert (only(ledger).state, only(ledger).job_id) == ("submitted", "job-7")
    ledger.apply(changes.poll_later(1, ledger.now() + 60))
    assert ledger.due(ledger.now(), ledger.now() + 60) == []
    assert ledger.look_now(["job-6", "job-7"]) == 1
    assert len(ledger.due(ledger.now(), ledger.now() + 60)) == 1
    assert ledger.look_now([]) == 0


def test_the_pieces_that_workers_are_given(place: str) -> None:
    """They hold every row that is to be submitted, up to a bound."""
    with Ledger(place) as ledger:
        ledger.load([row(str(n)) for n in range(250)])
        assert [(chunk.first, chunk.last) for chunk in ledger.chunks()] == [(1, 100), (101, 200), (201, 300)]
        for n in range(101, 201):
            claim(ledger, n)
        assert [(chunk.first, chunk.last) for chunk in ledger.chunks()] == [(1, 100), (201, 300)]
        assert ledger.nth_pending(101) == 201
        assert ledger.nth_pending(151) is None
        assert [(chunk.first, chunk.last) for chunk in ledger.chunks(201)] == [(1, 100), (201, 201)]
        assert [entry.n for entry in ledger.pending(ledger.now(), 3, 98, 201)] == [99, 100, 201]
        assert ledger.is_pending(100, 201)
        assert not ledger.is_pending(100, 200)


def test_what_is_kept_besides(ledger: Ledger, place: str) -> None:
    """Options, and what all processes change together."""
    assert ledger.saved_options() == {}
    ledger.save_options({"out": "videos"})
    with Ledger(place) as again:
        assert again.saved_options() == {"out": "videos"}
    threads = [
        threading.Thread(target=ledger.update_fact, args=("count", lambda count: (count or 0) + 1))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen: list[int] = []
    ledger.update_fact("count", seen.append)
    assert seen == [20]


def test_a_lease_is_nobody_elses(ledger: Ledger) -> None:
    """What one has taken to look at, another gets when the lease is over."""
    claim(ledger)
    ledger.apply(changes.submitted(1, 1, "job", 5.0))
    assert ledger.due(4.0, 100.0) == []
    assert [entry.job_id for entry in ledger.due(5.0, 100.0)] == ["job"]
    assert ledger.due(99.0, 200.0) == []
    assert len(ledger.due(100.0, 200.0)) == 1
    ledger.expire_claims()
    assert len(ledger.due(101.0, 200.0)) == 1


def test_a_project_follows_from_the_key(ledger: Ledger, place: str) -> None:
    """It need not be kept, it is a UUID, and a row's own goes before it."""
    project = only(ledger).project_id
    with Ledger(place) as again:
        assert only(again).project_id == project
    assert ledger.campaign.project_of("b", {}) != project
    assert ledger.campaign.project_of("a", {"project_id": "own"}) == "own"


def test_one_process_runs_a_campaign(tmp_path: Path) -> None:
    """A second one is told so."""
    with (
        Ledger(tmp_path / "l") as ledger,
        Ledger(tmp_path / "l") as other,
        ledger.exclusive_lock(),
        pytest.raises(LedgerError, match="another process"),
    ):
        other.exclusive_lock().__enter__()
    with Ledger(tmp_path / "l") as ledger, ledger.exclusive_lock():
        pass


def test_a_newer_ledger_is_refused(ledger: Ledger, place: str) -> None:
    """What a later version wrote, this one might misread."""
    statement = "UPDATE facts SET value = ? WHERE name = 'schema'"
    ledger._db.run(lambda db: db.execute(statement, (str(schema.VERSION + 1),)))
    with pytest.raises(LedgerError, match="update techforge"):
        Ledger(place)


def test_a_ledger_that_is_not_there(place: str) -> None:
    """Who wants to see one makes none."""
    for _ in range(2):
        with pytest.raises(LedgerError, match="there is no ledger"):
            Ledger(place, new=False)
    with Ledger(place) as made, Ledger(place, new=False) as again:
        assert not any(made.counts().values())
        assert not any(again.counts().values())


def test_another_database_is_refused(tmp_path: Path) -> None:
    """Nothing is added to a file that is something else."""
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE users (name TEXT)")
    other.close()
    with pytest.raises(LedgerError, match="not a ledger"):
        Ledger(path)
    (tmp_path / "text").write_text("hello" * 1000, encoding="utf-8")
    with pytest.raises(LedgerError, match="cannot be used"):
        Ledger(tmp_path / "text")


@define
class Worker:
    """A worker's attempt at a row."""

    n: int
    attempt: int
    is_sent: bool = False
    is_accepted: bool = False


class Interleavings(RuleBasedStateMachine):
    """Workers that claim, send, hear, freeze and die in any order, and an API that counts what it accepts."""

    place = ":memory:"

    def __init__(self) -> None:
        """Begin with three rows."""
        super().__init__()
        self.ledger = Ledger(self.place)
        self.ledger._db.run(lambda db: db.execute("DELETE FROM jobs"))
        self.ledger.load([row(str(n)) for n in range(3)])
        self.numbers = [entry.n for entry in self.ledger.entries()]
        self.accepted = dict.fromkeys(self.numbers, 0)
        self.allowed = dict.fromkeys(self.numbers, 1)
        """How often each may be accepted: once, and once more each time that somebody lets it."""
        self.workers: list[Worker] = []
        self.ids: dict[int, set[str]] = {n: set() for n in self.numbers}
        self.seen = {entry.n: entry.attempts for entry in self.ledger.entries()}
        """What a worker has read of a row, which may be old."""

    @rule(place=st.integers(0, 2))
    def claim(self, place: int) -> None:
        """A worker claims a row as it has seen it."""
        n = self.numbers[place]
        attempt = self.seen[n] + 1
        if claim(self.ledger, n, attempt):
            self.workers.append(Worker(n, attempt))

    @rule()
    def read(self) -> None:
        """A worker reads the rows."""
        self.seen = {entry.n: entry.attempts for entry in self.ledger.entries()}

    @rule(data=st.data(), taken=st.booleans())
    def send(self, data: st.DataObject, taken: bool) -> None:
        """A worker sends what it has claimed; the API accepts it, or not."""
        if waiting := [worker for worker in self.workers if not worker.is_sent]:
            worker = data.draw(st.sampled_from(waiting))
            worker.is_sent, worker.is_accepted = True, taken
            self.accepted[worker.n] += taken

    @rule(data=st.data())
    def hear(self, data: st.DataObject) -> None:
        """The answer comes: also late, when another has taken the row for unknown, or let it go again."""
        if sent := [worker for worker in self.workers if worker.is_sent]:
            worker = data.draw(st.sampled_from(sent))
            self.workers.remove(worker)
            n, attempt = worker.n, worker.attempt
            if worker.is_accepted:
                self.ids[n].add(f"job-{n}-{attempt}")
                self.ledger.apply(changes.submitted(n, attempt, f"job-{n}-{attempt}", 0.0))
            else:
                self.ledger.apply(changes.put_back(n, attempt, 0.0, "429"))

    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        """No answer comes."""
        if sent := [worker for worker in self.workers if worker.is_sent]:
            worker = data.draw(st.sampled_from(sent))
            self.workers.remove(worker)
            self.ledger.apply(changes.unknown(worker.n, worker.attempt, "closed", None, 0.0))

    @rule()
    def die(self) -> None:
        """All workers end; another looks what they have left."""
        self.workers.clear()
        self.ledger.expire_claims()

    @rule()
    def take_over(self) -> None:
        """Workers that seem dead will go on, after another has looked what they have left."""
        self.ledger.expire_claims()

    @rule()
    def resubmit(self) -> None:
        """Somebody lets unknown rows be submitted again, and accepts that some are paid twice."""
        for entry in self.ledger.entries(State.UNKNOWN):
            self.allowed[entry.n] += entry.job_id is None
        self.ledger.retry(State.UNKNOWN)

    @rule(place=st.integers(0, 2))
    def finish(self, place: int) -> None:
        """A video is there."""
        if self.accepted[self.numbers[place]]:
            self.ledger.apply(changes.done(self.numbers[place], None, 0.0))

    @invariant()
    def nothing_twice_and_nothing_lost(self) -> None:
        """No row was accepted more often than allowed; none that was is pending, or done that was not."""
        for entry in self.ledger.entries():
            accepted, state = self.accepted[entry.n], entry.state
            assert accepted <= self.allowed[entry.n]
            if accepted and self.allowed[entry.n] == 1:
                assert state is not State.PENDING
            if not accepted:
                assert state not in {State.SUBMITTED, State.DONE}
            if entry.job_id is not None:
                assert entry.job_id in self.ids[entry.n]

    def teardown(self) -> None:
        """Close it."""
        self.ledger.close()


Interleavings.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestInterleavings = Interleavings.TestCase


def test_any_interleaving_on_postgres(postgres_url: str) -> None:
    """The same, where the statements are PostgreSQL's."""
    machine = type("OnPostgres", (Interleavings,), {"place": campaign(postgres_url)})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=15, stateful_step_count=30, deadline=None)
    )


def test_a_walk_through_all_rows_sorts_nothing(tmp_path: Path) -> None:
    """Each page is found by the number of its first row, so a million rows are read in seconds."""
    with Ledger(tmp_path / "l") as ledger:
        ledger.load([row("a")])
        queries: list[str] = []
        ledger._db._db.set_trace_callback(queries.append)  # type: ignore[attr-defined]
        list(ledger.entries())
        list(ledger.entries(State.PENDING))
        ledger._db._db.set_trace_callback(None)  # type: ignore[attr-defined]
        plans = [str(ledger._db.read(f"EXPLAIN QUERY PLAN {query}")) for query in queries]
    assert len(plans) == 4
    assert not any("TEMP B-TREE" in plan for plan in plans)
