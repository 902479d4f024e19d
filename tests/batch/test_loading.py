"""How rows come into a campaign: one content for each key, and nothing before the user agrees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from techforge.batch import changes
from techforge.batch.database import LedgerError
from techforge.batch.ledger import Ledger, State
from techforge.batch.loading import Loaded, RowConflictError
from techforge.batch.manifest import BadRow, Row

if TYPE_CHECKING:
    from collections.abc import Iterator

SIGNED = "https://bucket.s3.amazonaws.com/i.png?X-Amz-Date={0}&X-Amz-Signature={0}"


def row(key: str, image: str = "https://cdn.example.com/i.png", line: int = 1, **metadata: Any) -> Row:
    """Return a row of a manifest."""
    params = {"image_url": image, "audio_url": "https://cdn.example.com/a.mp3"}
    return Row(key, params, metadata, line)


@pytest.fixture
def ledger(place: str) -> Iterator[Ledger]:
    """Return a campaign with three rows: done, failed, pending."""
    with Ledger(place, "spring") as ledger:
        ledger.load([row("done", line=1), row("failed", line=2), row("pending", line=3)])
        for n, end in (
            (1, changes.submitted(1, 1, "job-1", 0.0)),
            (2, changes.refused(2, 1, "400", None, 0.0)),
        ):
            ledger.apply(changes.claim(n, 1, 0.0, 9.0), end)
        ledger.apply(changes.done(1, None, 0.0))
        yield ledger


def image_of(ledger: Ledger, key: str) -> str:
    """Return the image of a row."""
    entry = ledger.row_of(key)
    assert entry is not None
    return str(entry.params["image_url"])


def states(ledger: Ledger) -> dict[str, str]:
    """Return the state of each row."""
    return {entry.key: str(entry.state) for entry in ledger.entries()}


def test_what_is_counted(ledger: Ledger) -> None:
    """New rows, rows known from earlier runs, duplicates in the manifest, and what is pending in all."""
    loaded = ledger.load([row("done"), row("new"), row("new"), row("new", line=9)])
    assert loaded == Loaded(new=1, known=1, duplicates=2, waiting=1)
    assert loaded.pending == 2


def test_two_contents_in_one_manifest(ledger: Ledger) -> None:
    """Nothing is loaded, and both lines are named."""
    with pytest.raises(RowConflictError, match="row_key 'a': line 4 and line 6 differ") as caught:
        ledger.load([row("z"), row("a", line=4), row("a", line=5), row("a", "https://x.example/2", line=6)])
    assert caught.value.count == 1
    assert "z" not in states(ledger)


@pytest.mark.parametrize("key", ["done", "failed", "pending"])
def test_an_edited_row_stops_the_load(ledger: Ledger, key: str) -> None:
    """A key stands for what was ordered under it, in any state; both lines are named."""
    with pytest.raises(RowConflictError, match=rf"'{key}': line 7 differs from what line \d .*\({key}\)"):
        ledger.load([row("new"), row(key, "https://x.example/2", line=7)])
    assert "new" not in states(ledger)


def test_the_first_content_is_kept(ledger: Ledger) -> None:
    """`keep` takes what is known, or what comes first."""
    changed = [row(key, "https://x.example/2") for key in ("done", "failed", "pending")]
    twice = [row("new"), row("new", "https://x.example/2")]
    assert ledger.load([*changed, *twice], on_conflict="keep").replaced == 0
    assert {image_of(ledger, key) for key in states(ledger)} == {"https://cdn.example.com/i.png"}
    assert states(ledger)["failed"] == "failed"


def test_new_content_replaces_what_was_not_bought(ledger: Ledger) -> None:
    """`replace` takes the new content of pending and refused rows, and submits them; never of a job's row."""
    changed = [row(key, "https://x.example/2") for key in ("failed", "pending")]
    loaded = ledger.load([*changed, row("new"), row("new", "https://x.example/3")], on_conflict="replace")
    assert (loaded.replaced, loaded.new, loaded.waiting) == (2, 1, 2)
    assert image_of(ledger, "failed") == image_of(ledger, "pending") == "https://x.example/2"
    assert image_of(ledger, "new") == "https://x.example/3"
    assert states(ledger)["failed"] == "pending"
    with pytest.raises(RowConflictError, match="done"):
        ledger.load([row("done", "https://x.example/2")], on_conflict="replace")


def test_a_refused_row_with_a_job_is_not_replaced(ledger: Ledger) -> None:
    """Its job was paid for."""
    set_job = "UPDATE jobs SET job_id = 'job-2' WHERE key = 'failed'"
    ledger._db.run(lambda db: db.execute(set_job))
    with pytest.raises(RowConflictError):
        ledger.load([row("failed", "https://x.example/2")], on_conflict="replace")


def test_a_new_signature_is_no_new_content(ledger: Ledger) -> None:
    """A pending row is sent with the URL that the manifest has now, which has not expired."""
    ledger.load([row("signed", SIGNED.format("old")), row("sent", SIGNED.format("old"))])
    ledger._db.run(lambda db: db.execute("UPDATE jobs SET state = 'done' WHERE key = 'sent'"))
    loaded = ledger.load([row("signed", SIGNED.format("new"), a="b"), row("sent", SIGNED.format("new"))])
    assert (loaded.new, loaded.known) == (0, 2)
    assert image_of(ledger, "signed").endswith("new")
    assert image_of(ledger, "sent").endswith("old")
    entry = ledger.row_of("signed")
    assert entry is not None
    assert entry.metadata == {"a": "b"}


def test_skipped_rows_stay_until_the_manifest_is_loaded_again(ledger: Ledger) -> None:
    """They have a state, a reason and a line; those of another manifest stay."""
    bad = [BadRow(5, "version", "six", "must be an int"), BadRow(8, "", "", "has 3 fields")]
    assert ledger.load([row("a"), *bad], source="a.csv").skipped == 2
    ledger.load([BadRow(1, "", "", "is empty")], source="b.csv")
    skipped = list(ledger.entries(State.SKIPPED))
    assert [(entry.line, entry.key) for entry in skipped] == [
        (5, "a.csv/line 5"),
        (8, "a.csv/line 8"),
        (1, "b.csv/line 1"),
    ]
    assert skipped[0].reason == 'line 5, column version: "six" must be an int'
    ledger.load([row("a"), BadRow(8, "", "", "has 3 fields")], source="a.csv")
    assert [entry.key for entry in ledger.entries(State.SKIPPED)] == ["b.csv/line 1", "a.csv/line 8"]
    assert ledger.counts()[State.SKIPPED] == 2


def test_nothing_is_kept_without_approval(ledger: Ledger) -> None:
    """`approve` hears what would be submitted before anything is kept, and can stop it."""
    heard: list[Loaded] = []

    def refuse(loaded: Loaded) -> None:
        heard.append(loaded)
        raise ValueError("too much")

    with pytest.raises(ValueError, match="too much"):
        ledger.load([row("new"), BadRow(1, "", "", "bad")], approve=refuse)
    assert heard == [Loaded(new=1, skipped=1, waiting=1)]
    assert set(states(ledger)) == {"done", "failed", "pending"}


def test_removed_rows_stop_a_load(ledger: Ledger) -> None:
    """A pending row that is no longer in the manifest is submitted or dropped only if the user says so."""
    with pytest.raises(LedgerError, match=r"1 row of the campaign 'spring' is still pending .* withdraw"):
        ledger.load([row("done"), row("new")], on_removed="stop")
    assert "new" not in states(ledger)
    assert ledger.load([row("done"), row("new")], on_removed="submit").pending == 2
    loaded = ledger.load([row("done")], on_removed="withdraw")
    assert (loaded.withdrawn, loaded.pending) == (2, 0)
    assert states(ledger) == {"done": "done", "failed": "failed"}


def test_a_row_that_was_sent_is_withdrawn_visibly(ledger: Ledger) -> None:
    """A response may still arrive for it, so it stays in the ledger; in the manifest again, it is pending."""
    ledger.apply(changes.claim(3, 1, 0.0, 9.0), changes.put_back(3, 1, 0.0, "429"))
    assert ledger.load([row("done")], on_removed="withdraw").withdrawn == 1
    assert states(ledger)["pending"] == "skipped"
    assert ledger.load([row("done"), row("pending")]).pending == 1
    assert states(ledger)["pending"] == "pending"
