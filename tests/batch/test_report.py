"""Reports: the tables have every row, the page says what to do next, and nothing in them is run or leaks."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tracemalloc
from base64 import b64encode
from decimal import Decimal
from hashlib import sha256
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import pytest
from attrs import evolve

from techforge import InvalidArgumentError
from techforge.batch import Ledger, Row, State, report
from techforge.batch.report import ReportError, write

if TYPE_CHECKING:
    from collections.abc import Iterator

PARAMS = {"image_url": "https://cdn.example.com/i.png", "audio_url": "https://cdn.example.com/a.mp3"}
START = 1_760_000_000.0
"""2025-10-09T08:53:20Z."""
OURS = [
    *("row_key", "line", "state", "job_id", "project_id"),
    *("file", "reason", "attempts", "submitted_at", "ended_at"),
]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Return a campaign without rows."""
    with Ledger(tmp_path / "campaign.sqlite", "spring") as ledger:
        yield ledger


def add(ledger: Ledger, key: str, state: str = "pending", **facts: Any) -> None:
    """Add a row in a state, with the given columns, params and metadata."""
    params, metadata = facts.pop("params", {}), facts.pop("metadata", {})
    ledger.load([Row(key, {**PARAMS, **params}, metadata, facts.pop("line", 1))])
    for name, value in {"state": state, **facts}.items():
        change(ledger, f"{name} = ? WHERE key = ?", value, key)


def change(ledger: Ledger, what: str, *values: object) -> None:
    """Change rows without the ledger's methods."""
    ledger._db.run(lambda db: db.execute(f"UPDATE jobs SET {what}", values))  # noqa: S608


def table(ledger: Ledger, folder: Path) -> list[dict[str, str]]:
    """Return the rows of the CSV report."""
    with write(ledger, folder / "report.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


class Page(HTMLParser):
    """A page as a strict reader sees it: each element, its text, and whether every element is closed."""

    def __init__(self, text: str) -> None:
        """Parse a page."""
        super().__init__()
        self.text = text
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []
        self.data = json.loads(self.all("script")[0])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Record an element."""
        assert len(dict(attrs)) == len(attrs)
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "input"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Check that it closes the last open element."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Record a text and its element."""
        if self.open and data.strip():
            self.texts.append((self.open[-1], data))

    def all(self, tag: str) -> list[str]:
        """Return the texts directly inside elements of a name."""
        return [text for of, text in self.texts if of == tag]

    def table(self, caption: str) -> list[tuple[str, str, str]]:
        """Return the rows of a table: state, number and text."""
        found = re.search(f"<caption>{caption}</caption>.*?<tbody>(.*?)</tbody>", self.text, re.DOTALL)
        rows = re.findall("<tr><th[^>]*>(.*?)</th><td>(.*?)</td><td>(.*?)</td>", found[1]) if found else []
        return [tuple(unescape(re.sub("<[^>]*>", "", cell)) for cell in row) for row in rows]


def page_of(ledger: Ledger, folder: Path, **options: Any) -> Page:
    """Return the HTML report."""
    return Page(write(ledger, folder / "report.html", **options).read_text("utf-8"))


# --- tables


def test_a_row_of_each_state(ledger: Ledger, tmp_path: Path) -> None:
    """A line has everything the ledger knows of a row. Lines are in the order of the manifest."""
    times = {"posted_at": START + 0.9, "ended_at": START + 60}
    add(ledger, "e", "done", line=2, job_id="j1", file="v/e.mp4", attempts=1, **times)
    add(ledger, "d", "failed", line=3, reason="no face", attempts=2, **times)
    add(ledger, "c", "unknown", line=4, reason="no answer", attempts=1, **times)
    add(ledger, "b", "submitted", line=5, job_id="j2", attempts=1, posted_at=START)
    add(ledger, "a", "posting", line=6, attempts=1, posted_at=START)
    add(ledger, "f", line=7, params={"project_id": "6d1e0b6c-6ad6-4f0f-8b5c-3c5c1c2f7a11"})
    add(ledger, "g", line=8, posted_at=START, attempts=1, reason="429: slow down")
    add(ledger, "h", "skipped", line=9, reason="image_url is missing")
    rows = table(ledger, tmp_path)
    assert [*rows[0]] == [*OURS, *PARAMS]
    projects = [entry.project_id for entry in ledger.entries()]
    sent, end = "2025-10-09T08:53:20Z", "2025-10-09T08:54:20Z"
    assert [list(row.values())[: len(OURS)] for row in rows] == [
        ["e", "2", "done", "j1", projects[0], "v/e.mp4", "", "1", sent, end],
        ["d", "3", "failed", "", projects[1], "", "no face", "2", sent, end],
        ["c", "4", "unknown", "", projects[2], "", "no answer", "1", sent, end],
        ["b", "5", "submitted", "j2", projects[3], "", "", "1", sent, ""],
        ["a", "6", "posting", "", projects[4], "", "", "1", sent, ""],
        ["f", "7", "pending", "", "6d1e0b6c-6ad6-4f0f-8b5c-3c5c1c2f7a11", "", "", "0", "", ""],
        ["g", "8", "pending", "", projects[6], "", "429: slow down", "1", "", ""],
        ["h", "9", "skipped", "", projects[7], "", "image_url is missing", "0", "", ""],
    ]


def test_columns_of_any_row(ledger: Ledger, tmp_path: Path) -> None:
    """A column of one row is a column of the table, in order of first appearance; JSON is written as JSON."""
    add(ledger, "a", metadata={"customer": 'Müller, "Jr"\n2nd', "vip": True}, params={"version": 6})
    add(ledger, "b", metadata={"tags": ["x", "é"], "customer": None}, params={"values": ["1"], "crop": False})
    first, second = table(ledger, tmp_path)
    assert [*first][len(OURS) :] == ["customer", "vip", "tags", *PARAMS, "version", "values", "crop"]
    assert [*first.values()][len(OURS) :] == ['Müller, "Jr"\n2nd', "true", "", *PARAMS.values(), "6", "", ""]
    assert [*second.values()][len(OURS) :] == ["", "", '["x", "é"]', *PARAMS.values(), "", '["1"]', "false"]


def test_a_column_with_the_name_of_one_of_ours(ledger: Ledger, tmp_path: Path) -> None:
    """No column hides another."""
    names = {"metadata.state": "Utah", "state": "Ohio", "file": "x.doc", "customer": "7"}
    add(ledger, "a", metadata=names)
    (row,) = table(ledger, tmp_path)
    assert row["state"] == "pending"
    renamed = {"metadata.state": "Utah", "metadata.metadata.state": "Ohio"}
    assert {name: row[name] for name in renamed} == renamed
    assert (row["metadata.file"], row["customer"]) == ("x.doc", "7")


@pytest.mark.parametrize("name", ["r.csv", "r.html", "r.parquet"])
def test_nothing_that_grants_access(ledger: Ledger, tmp_path: Path, name: str) -> None:
    """A report contains no query of an input's URL or of a URL in a reason: people pass reports on."""
    signed = "https://user:CANARY@cdn.example.com/i.png?sig=CANARY"
    params = {"image_url": signed, "extra": {"mask": [signed]}}
    for state in ("unknown", "failed"):
        add(ledger, state, state, params=params, reason=f"no {signed}, nor s3://bucket/i?sig=CANARY")
    if name.endswith("parquet"):
        parquet = pytest.importorskip("pyarrow.parquet")
        content = str(parquet.read_table(write(ledger, tmp_path / name)).to_pylist())
    else:
        content = write(ledger, tmp_path / name).read_text("utf-8")
    assert "CANARY" not in content
    assert "cdn.example.com/i.png" in content


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("@SUM(1)", "'@SUM(1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("\n=1", "'\n=1"),
        ("-", "'-"),
        ("-1e5x", "'-1e5x"),
        ("-12", "-12"),
        ("+49.5", "+49.5"),
        ("-1,5", "-1,5"),
        ("-1E-5", "-1E-5"),
        ("a=b", "a=b"),
        ("", ""),
    ],
)
def test_no_cell_is_a_formula(ledger: Ledger, tmp_path: Path, given: str, shown: str) -> None:
    """A spreadsheet runs nothing from a row's values, key or column names. Numbers stay numbers."""
    add(ledger, f"{given}x", metadata={"note": given, f"{given}n": "x"}, reason=given)
    (row,) = table(ledger, tmp_path)
    # A reason may come from a server, so its control characters are escaped.
    assert (row["note"], row["reason"]) == (shown, shown if given.isprintable() else repr(given)[1:-1])
    if shown != given:
        assert (row["row_key"][0], row[f"'{given}n"]) == ("'", "x")


def test_rows_that_are_added_meanwhile(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that is added while the table is written waits for the next report: its columns are missing."""
    add(ledger, "a")
    entries, passes = ledger.entries, []

    def growing() -> Iterator[Any]:
        passes.append(0)
        if len(passes) == 2:
            add(ledger, "late", metadata={"new": "x"})
        return entries()

    monkeypatch.setattr(ledger, "entries", growing)
    assert [row["row_key"] for row in table(ledger, tmp_path)] == ["a"]
    assert len(passes) == 2


def test_parquet_has_the_same(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parquet has what CSV has, with null for missing values, and texts unchanged."""
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(report, "_PARQUET_BATCH", 2)
    for number in range(5):
        add(ledger, f"r{number}", "done", job_id=f"j{number}", posted_at=START, ended_at=START + number)
    add(ledger, "last", metadata={"note": "=1", "n": 7})
    found = parquet.read_table(write(ledger, tmp_path / "r.parquet")).to_pylist()
    expected = [{name: cell or None for name, cell in row.items()} for row in table(ledger, tmp_path)]
    for row in expected:
        row |= {"line": int(row["line"]), "attempts": int(row["attempts"])}
    expected[-1]["note"] = "=1"
    assert found == expected


def test_tables_of_an_empty_campaign(ledger: Ledger, tmp_path: Path) -> None:
    """A table without rows has its columns, and their types."""
    assert write(ledger, tmp_path / "r.CSV").read_text("utf-8").splitlines() == [",".join([*OURS, *PARAMS])]
    parquet = pytest.importorskip("pyarrow.parquet")
    schema = parquet.read_table(write(ledger, tmp_path / "r.parquet")).schema
    assert schema.names == [*OURS, *PARAMS]
    assert [str(schema.field(name).type) for name in ("line", "state")] == ["int64", "string"]


def test_without_pyarrow(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only Parquet needs pyarrow; without it the error names the extra, and leaves no file."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ReportError, match=r"pip install techforge\[parquet\]"):
        write(ledger, tmp_path / "r.parquet")
    assert not list(tmp_path.glob("*parquet*"))
    assert write(ledger, tmp_path / "r.csv").exists()
    assert write(ledger, tmp_path / "r.html").exists()


# --- where it is written


@pytest.mark.parametrize("name", ["r.pdf", "r", ".csv", "nowhere/r.csv", "folder.csv"])
def test_a_place_that_cannot_be(ledger: Ledger, tmp_path: Path, name: str) -> None:
    """A wrong name is refused before anything is written."""
    (tmp_path / "folder.csv").mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InvalidArgumentError, match=r"^to: ") as raised:
        write(ledger, tmp_path / name)
    assert raised.value.field == "to"
    assert sorted(tmp_path.iterdir()) == before


def test_the_ledger_itself_is_never_replaced(tmp_path: Path) -> None:
    """A report never overwrites the ledger, which knows what was paid for."""
    with Ledger(tmp_path / "campaign.csv", "spring") as ledger:
        add(ledger, "a")
        (tmp_path / "link.csv").symlink_to(ledger.name)
        for name in ("campaign.csv", "link.csv"):
            with pytest.raises(InvalidArgumentError, match="the ledger itself"):
                write(ledger, tmp_path / name)
        assert ledger.counts()[State.PENDING] == 1


@pytest.mark.parametrize("name", ["r.csv", "r.parquet", "r.html"])
@pytest.mark.parametrize(
    ("error", "raised"),
    [(OSError(28, "No space left on device"), ReportError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_a_report_is_complete_or_not_there(
    ledger: Ledger,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    error: BaseException,
    raised: Any,
) -> None:
    """A report that fails half-way leaves the earlier one unchanged, and no other file."""
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    add(ledger, "a")
    before = {*tmp_path.iterdir()}
    path = write(ledger, str(tmp_path / name))
    assert path == tmp_path / name
    assert {*tmp_path.iterdir()} - before == {path}
    content, entries = path.read_bytes(), ledger.entries

    def failing() -> Iterator[Any]:
        yield from entries()
        raise error

    add(ledger, "b")
    monkeypatch.setattr(ledger, "entries", failing)
    with pytest.raises(raised, match=r"No space left|^$"):
        write(ledger, path)
    assert path.read_bytes() == content
    assert {*tmp_path.iterdir()} - before == {path}


def test_a_report_replaces_the_earlier_one_at_once(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader of the earlier report keeps it, and data that has not reached the disk replaces nothing."""
    path = write(ledger, tmp_path / "r.csv")
    with path.open(encoding="utf-8") as file:
        add(ledger, "a")
        write(ledger, path)
        assert len(file.readlines()) == 1
    content = path.read_text("utf-8")
    assert len(content.splitlines()) == 2

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    add(ledger, "b")
    monkeypatch.setattr(report, "fsync", full)
    with pytest.raises(ReportError, match="unchanged"):
        write(ledger, path)
    assert path.read_text("utf-8") == content


# --- the page

STATES = {
    "done": {"job_id": "j1", "file": "videos/done.mp4"},
    "submitted": {"job_id": "j2"},
    "posting": {},
    "pending": {},
    "failed": {"reason": "no face"},
    "failed with a job": {"job_id": "j3", "reason": "the job failed"},
    "unknown": {"reason": "no answer"},
    "unknown with a job": {"job_id": "j4", "reason": "not JSON"},
    "skipped": {"reason": "image_url is missing"},
}
"""A row of every kind."""


def add_all(ledger: Ledger) -> None:
    """Add a row of every kind."""
    for line, (kind, facts) in enumerate(STATES.items(), 2):
        add(ledger, kind, kind.split()[0], line=line, metadata={"customer": f"no. {line}"}, **facts)


def test_the_page_has_every_row(ledger: Ledger, tmp_path: Path) -> None:
    """Every row is in the page, with its key, line, state, attempts, ids, file, reason and own columns."""
    add_all(ledger)
    change(ledger, "attempts = 2 WHERE key = 'failed'")
    projects = [entry.project_id for entry in ledger.entries()]
    assert page_of(ledger, tmp_path).data["rows"] == [
        [
            *(kind, line, kind, 2 * (kind == "failed"), facts.get("job_id"), project, facts.get("file")),
            *(facts.get("reason"), {"customer": f"no. {line}"}),
        ]
        for line, (project, (kind, facts)) in enumerate(zip(projects, STATES.items(), strict=True), 2)
    ]


@pytest.mark.parametrize(
    ("kind", "commands"),
    [
        ("done", []),
        ("submitted", ["resume"]),
        ("posting", ["resume"]),
        ("pending", ["resume"]),
        ("failed", ["retry --state failed", "resume"]),
        ("failed with a job", []),
        ("unknown", ["unknown --job {}=JOB", "unknown --resubmit {}"]),
        ("unknown with a job", ["unknown --check"]),
        ("skipped", []),
    ],
)
def test_every_state_has_a_next_step(ledger: Ledger, tmp_path: Path, kind: str, commands: list[str]) -> None:
    """The table of states, and each row, give commands that act on this campaign of this ledger."""
    add_all(ledger)
    page = page_of(ledger, tmp_path)
    options = f" --campaign spring --ledger {ledger.name}"
    for key, text in (("{key}", page.data["steps"][kind]), ("KEY", page.table("Rows by state"))):
        step = text if isinstance(text, str) else next(step for state, _, step in text if state == kind)
        for command in commands:
            assert f"techforge batch {command.format(key)}{options}" in step
        assert step.count("--campaign") == len(commands)
        assert bool(step) == (kind != "done")
    assert "Correct line {line} of the manifest" in page.data["steps"]["skipped"]


def test_the_default_ledger_is_not_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command is as short as it can be, and a campaign's name is quoted for a shell."""
    monkeypatch.chdir(tmp_path)
    with Ledger(report.LEDGER, "it's spring") as ledger:
        add(ledger, "a")
        ((_, _, step),) = page_of(ledger, tmp_path).table("Rows by state")
    assert step == """techforge batch resume --campaign 'it'"'"'s spring' submits it."""


def test_the_figures_are_right(ledger: Ledger, tmp_path: Path) -> None:
    """Each number of the page is that of the ledger, and times are those of submissions and ends."""
    add_all(ledger)
    change(ledger, "posted_at = ?, ended_at = ?", START + 60, START + 120)
    change(ledger, "posted_at = ? WHERE state = 'submitted'", START)
    change(ledger, "posted_at = ? WHERE state = 'pending'", START - 999)
    change(ledger, "ended_at = ? WHERE state = 'unknown'", START + 9999)
    page = page_of(ledger, tmp_path)
    made, *said = [text for text in page.all("p") if "CSV" not in text]
    assert re.fullmatch(r"Campaign report, made [-\d]+ [:\d]+ UTC from campaign.sqlite", made)
    assert said == [
        "Rows: 9; 11.1 % are done.",
        "Jobs: 4, and up to 6 if each row without an answer has one.",
        "First submission: 2025-10-09 08:53:20 UTC.",
        "Last end: 2025-10-09 08:55:20 UTC.",
    ]
    assert page.all("h1") == ["spring"]
    assert [(state, number) for state, number, _ in page.table("Rows by state")] == [(k, "1") for k in STATES]
    assert page.all("option") == ["not done", "all", *(f"{kind} (1)" for kind in STATES)]
    (bar,) = [attrs["aria-label"] for _, attrs in page.tags if attrs.get("class") == "bar"]
    assert bar == f"rows by state: {', '.join(f'1 {kind}' for kind in STATES)}"


def test_all_but_one_is_not_all(ledger: Ledger, tmp_path: Path) -> None:
    """100 % means all."""
    ledger.load([Row(str(n), PARAMS, {}, n) for n in range(4_000)])
    change(ledger, "state = 'done' WHERE key != '0'")
    assert "Rows: 4,000; 99.9 % are done." in page_of(ledger, tmp_path).all("p")


@pytest.mark.parametrize("state", [None, *State])
def test_a_page_of_any_ledger(ledger: Ledger, tmp_path: Path, state: State | None) -> None:
    """A campaign without rows has a page, and so has one whose rows are in one state and have no times."""
    if state:
        add(ledger, "a", str(state))
    page = page_of(ledger, tmp_path)
    done = {None: "Rows: 0.", State.DONE: "Rows: 1; 100 % are done."}.get(state, "Rows: 1; 0 % are done.")
    assert done in page.all("p")
    assert len(page.data["rows"]) == (state is not None)
    assert not [text for text in page.all("p") if "None" in text]


def test_the_cost_is_the_users_own_figure(ledger: Ledger, tmp_path: Path) -> None:
    """The cost is jobs times price, exactly; jobs that may exist are "up to". No price, no cost."""
    add(ledger, "a", "done", job_id="j")
    assert "Cost: 0.105, computed from your own price of 0.105 for each job." in page_of(
        ledger, tmp_path, price=Decimal("0.105")
    ).all("p")
    add_all(ledger)
    assert "Cost: 2.00, up to 2.80, computed from your own price of 0.40 for each job." in page_of(
        ledger, tmp_path, price=Decimal("0.40")
    ).all("p")
    assert "Cost" not in page_of(ledger, tmp_path).text


@pytest.mark.parametrize("price", ["-1", "NaN", "Infinity"])
def test_a_price_that_is_none(ledger: Ledger, tmp_path: Path, price: str) -> None:
    """A wrong price is refused before anything is written."""
    with pytest.raises(InvalidArgumentError, match=r"^price: "):
        write(ledger, tmp_path / "r.html", price=Decimal(price))
    assert not (tmp_path / "r.html").exists()


def test_reasons_that_differ_in_ids_are_one(ledger: Ledger, tmp_path: Path) -> None:
    """Reasons that differ in ids only are counted together. The most frequent comes first."""
    for n in range(5):
        reason = f"POST /jobs/v2: {503 if n < 3 else 422}: busy (attempts: {n}, job ab12-{n}cd9)"
        add(ledger, f"a{n}", "failed", reason=reason)
    ids = ("3f54dd1c-49ec-4a04-b6a6-000000000068", "8eddeb33-c330-5c81-b098-933ce9e21de0")
    for n, project in enumerate(ids):
        add(ledger, f"c{n}", "unknown", reason=f"no https://x.example.com/{n} in {project}")
    add(ledger, "d", "unknown")
    add(ledger, "e", "skipped", reason="é" * 301)
    assert page_of(ledger, tmp_path).table("Reasons") == [
        ("failed", "3", "POST /jobs/v2: 503: busy (attempts: …, job …)"),
        ("failed", "2", "POST /jobs/v2: 422: busy (attempts: …, job …)"),
        ("unknown", "2", "no … in …"),
        ("unknown", "1", "no reason was given"),
        ("skipped", "1", "é" * 299 + "…"),
    ]


def test_many_different_reasons(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A million different reasons take no more memory than a few thousand, and every row is counted."""
    monkeypatch.setattr(report, "_MAX_REASONS", 12)
    for number in range(30):
        add(ledger, str(number), "failed", reason="x" * (number + 1))
    rows = page_of(ledger, tmp_path).table("Reasons")
    assert len(rows) == 11
    assert (rows[0], rows[-1]) == (("failed", "18", "other reasons"), ("all", "3", "other reasons"))


def test_memory_does_not_grow_with_the_rows(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page is written row by row, in one pass over the ledger."""
    add(ledger, "a", "failed", reason="no face", metadata={"customer": "x" * 400})
    (entry,) = ledger.entries()
    passes = iter([(evolve(entry, n=n, key=f"row {n}") for n in range(10_000))])
    monkeypatch.setattr(ledger, "entries", lambda: next(passes))
    tracemalloc.start()
    try:
        path = write(ledger, tmp_path / "r.html")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 5_000_000
    assert peak < 1_000_000


def test_nothing_in_a_ledger_is_markup(tmp_path: Path) -> None:
    """A key, a reason, a column or a name is text, also if it would end the script or the JSON."""
    evil = "\"'><!--<script></script><b>&amp;`\u2028\u2029$rows\\"
    with Ledger(tmp_path / "a<b>&\udcff.sqlite", "</script><b>") as ledger:
        metadata = {evil: evil, "n": float("nan"), "tags": ["</script>"], "none": None}
        add(ledger, evil, "failed", reason=evil, metadata=metadata, job_id=evil, file=evil)
        page = page_of(ledger, tmp_path)
    tags = [tag for tag, _ in page.tags]
    assert (tags.count("script"), tags.count("title"), tags.count("b")) == (2, 1, 0)
    (row,) = page.data["rows"]
    escaped = evil.replace("\u2028\u2029", r"\u2028\u2029")
    assert (row[0], row[4], row[6], row[7]) == (evil, evil, evil, escaped)
    assert row[-1] == {evil: evil, "n": "NaN", "tags": '["</script>"]'}
    assert page.all("h1") == ["</script><b>"]
    assert "from a<b>&?.sqlite" in page.all("p")[0]


def test_a_page_needs_nothing_else(ledger: Ledger, tmp_path: Path) -> None:
    """A page loads nothing, and runs its own script only."""
    add_all(ledger)
    page = page_of(ledger, tmp_path)
    assert not {tag for tag, _ in page.tags} & {*("link", "img", "iframe", "object", "embed", "base", "a")}
    for _, attrs in page.tags:
        assert not {"src", "href", "srcset", "action"} & attrs.keys()
        assert not [name for name in attrs if name.startswith("on")]
    _, script = page.all("script")
    assert not re.search(r"@import|url\(|://|innerHTML|eval", page.all("style")[0] + script)
    hashed = b64encode(sha256(script.encode()).digest()).decode()
    (policy,) = [attrs["content"] for _, attrs in page.tags if "http-equiv" in attrs]
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{hashed}'"
    assert f"techforge batch report report.csv --campaign spring --ledger {ledger.name}" in page.all("code")


def test_a_page_is_accessible(ledger: Ledger, tmp_path: Path) -> None:
    """It has a language, headings in order, labelled fields, and tables with headers and captions."""
    add_all(ledger)
    page = page_of(ledger, tmp_path)
    assert page.tags[0] == ("html", {"lang": "en"})
    assert [tag for tag, _ in page.tags if tag in {"main", "h1", "h2", "h3"}] == ["main", "h1", "h2"]
    assert all(attrs.get("scope") in {"col", "row"} for tag, attrs in page.tags if tag == "th")
    assert [tag for tag, _ in page.tags].count("caption") == [tag for tag, _ in page.tags].count("table") == 3
    assert len(re.findall(r"<label>[^<]+<(?:select|input)", page.text)) == 2


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour, as WCAG 2 defines it."""
    digits = colour[1:] if len(colour) == 7 else "".join(c * 2 for c in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("dark", [False, True])
def test_contrast(ledger: Ledger, tmp_path: Path, dark: bool) -> None:
    """Text has a contrast of at least 4.5, and each state's colour of 3 (WCAG 2.2, 1.4.3 and 1.4.11)."""
    text = page_of(ledger, tmp_path).text
    found = re.findall(r"(\w+)(?: { background)?: light-dark\((#\w+), (#\w+)\)", text)
    assert len(found) == 5 + len(State)
    colours = {name: on_dark if dark else on_light for name, on_light, on_dark in found}
    del colours["line"]
    for ground in (colours.pop("back"), colours.pop("code")):
        for name, colour in colours.items():
            light, other = sorted((luminance(colour), luminance(ground)), reverse=True)
            assert (light + 0.05) / (other + 0.05) >= (4.5 if name in {"text", "dim"} else 3), name


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_the_script_in_a_browser(ledger: Ledger, tmp_path: Path) -> None:
    """A browser runs the script under the page's policy: it lists 200 rows that are not done, as text."""
    add(ledger, "done", "done")
    key, own = "it's; <b>", {"note": "</script><b>x"}
    add(ledger, key, "unknown", line=3, attempts=1, reason="<i>", metadata=own)
    add(ledger, "A.csv/line 17", "skipped", line=17)
    ledger.load([Row(f"row {n}", PARAMS, {}, n) for n in range(300)])
    path = write(ledger, tmp_path / "r.html")
    options = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}")
    command = [str(BROWSER), *options, "--dump-dom", path.as_uri()]
    done = subprocess.run(command, check=True, capture_output=True, timeout=60)
    text = done.stdout.decode()
    assert '<span id="count" role="status">302 rows</span>' in text
    assert '<span id="place">Rows 1 to 200 of 302</span>' in text
    assert "no-script" not in text.partition("<script>")[0]
    body = text.partition('<tbody id="rows">')[2].partition("</tbody>")[0]
    first, second, *rest = (unescape(re.sub("<[^>]*>", "|", row)) for row in body.split("</tr>")[:-1])
    assert len(rest) == 198
    next_step = f"""unknown --resubmit 'it'"'"'s; <b>' --campaign spring --ledger {ledger.name}"""
    for said in (key, "line 3", "unknown", "|<i>|", next_step, "1 attempt|", "note: </script><b>x"):
        assert said in first
    assert "Correct line 17 of the manifest" in second


def test_the_template_is_found_in_a_zip(tmp_path: Path) -> None:
    """A package that is imported from a zip file writes the page, too."""
    with ZipFile(tmp_path / "all.zip", "w") as archive:
        for name in ("techforge", "techforge_api"):
            folder = Path(sys.modules[name].__path__[0])
            for file in folder.rglob("*"):
                if "__pycache__" not in file.parts:
                    archive.write(file, Path(name, file.relative_to(folder)))
    code = (
        "import techforge.batch as b; assert 'all.zip' in b.__file__; l = b.Ledger('l.sqlite', 'x');"
        "l.load([b.Row('a', {}, {}, 1)]); b.write_report(l, 'r.html')"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "all.zip")}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    assert [row[0] for row in Page((tmp_path / "r.html").read_text("utf-8")).data["rows"]] == ["a"]
