"""Reports: every row is in the tables, the page tells the truth, and neither gives anything away or runs."""

from __future__ import annotations

import builtins
import csv
import re
import sys
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

from techforge import InvalidArgumentError
from techforge.batch import Ledger, Row, State, report
from techforge.batch.report import ReportError, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PARAMS = {"image_url": "https://cdn.example.com/i.png", "audio_url": "https://cdn.example.com/a.mp3"}
START = 1_760_000_000.0
"""2025-10-09T08:53:20Z."""
OURS = [
    *("row_key", "line", "state", "job_id", "project_id"),
    *("file", "reason", "attempts", "submitted_at", "ended_at"),
]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Return a ledger without rows."""
    with Ledger(tmp_path / "spring.sqlite") as ledger:
        yield ledger


def add(ledger: Ledger, key: str, state: str = "pending", **facts: Any) -> None:
    """Add a row that is in a state, with the facts of its columns, its params and its metadata."""
    params, metadata = facts.pop("params", {}), facts.pop("metadata", {})
    ledger.load([Row(key, {**PARAMS, **params}, metadata, facts.pop("line", 1))])
    for name, value in {"state": state, **facts}.items():
        change(ledger, f"{name} = ? WHERE key = ?", value, key)


def change(ledger: Ledger, what: str, *values: object) -> None:
    """Change rows behind the ledger's back."""
    ledger._db.run(lambda db: db.execute(f"UPDATE jobs SET {what}", values))  # noqa: S608


def add_done(ledger: Ledger, key: str, after: float, took: float) -> None:
    """Add a row that was submitted this long after the start, and was done after that."""
    times = {"posted_at": START + after, "ended_at": START + after + took}
    add(ledger, key, "done", job_id=f"job-{key}", attempts=1, **times)


def table(ledger: Ledger, folder: Path) -> list[dict[str, str]]:
    """Return the CSV report's rows."""
    with write(ledger, folder / "report.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


class Page(HTMLParser):
    """A page as a strict reader sees it: what each element says, and whether all that is opened is closed."""

    def __init__(self, text: str) -> None:
        """Read a page."""
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        assert len(dict(attrs)) == len(attrs)
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element without content."""
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """See that it is the one that was opened last."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note a text and what it is in."""
        if self.open and data.strip():
            self.texts.append((self.open[-1], data))

    def all(self, tag: str) -> list[str]:
        """Return the texts of all elements of a name."""
        return [text for of, text in self.texts if of == tag]

    @property
    def figures(self) -> dict[str, str]:
        """Return the key figures."""
        return dict(zip(self.all("dt"), self.all("dd"), strict=True))

    @property
    def reasons(self) -> list[tuple[str, str]]:
        """Return what the list of reasons says: how many rows, and why."""
        numbers = self.all("span")
        return list(zip(numbers, self.all("li")[-len(numbers) :], strict=True)) if numbers else []

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """Return the table's rows."""
        cells = [text for of, text in self.texts if of in {"th", "td"}]
        return list(zip(*[iter(cells)] * 4, strict=True))


def page_of(ledger: Ledger, folder: Path) -> tuple[str, Page]:
    """Return the HTML report, as text and read."""
    text = write(ledger, folder / "report.html").read_text("utf-8")
    return text, Page(text)


# --- tables


def test_a_row_of_each_state(ledger: Ledger, tmp_path: Path) -> None:
    """All that the ledger knows of a row is in its line, and the lines are in the manifest's order."""
    times = {"posted_at": START + 0.9, "ended_at": START + 60}
    add(ledger, "e", "done", line=2, job_id="j1", file="v/e.mp4", attempts=1, **times)
    add(ledger, "d", "failed", line=3, reason="no face", attempts=2, **times)
    add(ledger, "c", "unknown", line=4, reason="no answer", attempts=1, **times)
    add(ledger, "b", "submitted", line=5, job_id="j2", attempts=1, posted_at=START)
    add(ledger, "a", "posting", line=6, attempts=1, posted_at=START)
    add(ledger, "f", line=7, params={"project_id": "6d1e0b6c-6ad6-4f0f-8b5c-3c5c1c2f7a11"})
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
    ]


def test_a_row_that_was_put_back_is_not_submitted(ledger: Ledger, tmp_path: Path) -> None:
    """Of a pending row nothing stands that was sent, but why it was put back does."""
    add(ledger, "a", posted_at=START, attempts=1, reason="429: slow down")
    (row,) = table(ledger, tmp_path)
    assert (row["submitted_at"], row["attempts"], row["reason"]) == ("", "1", "429: slow down")


def test_an_empty_ledger_is_a_table_without_rows(ledger: Ledger, tmp_path: Path) -> None:
    """Who reads the table finds its columns, whatever is in it."""
    text = write(ledger, tmp_path / "r.CSV").read_text("utf-8")
    assert text.splitlines() == [",".join([*OURS, *PARAMS])]


def test_columns_of_any_row(ledger: Ledger, tmp_path: Path) -> None:
    """A column that one row has is every row's, in the order of first appearance; JSON is written as JSON."""
    add(ledger, "a", metadata={"customer": 'Müller, "Jr"\n2nd', "vip": True}, params={"version": 6})
    add(ledger, "b", metadata={"tags": ["x", "é"], "customer": None}, params={"values": ["1"], "crop": False})
    first, second = table(ledger, tmp_path)
    assert [*first][len(OURS) :] == ["customer", "vip", "tags", *PARAMS, "version", "values", "crop"]
    assert [*first.values()][len(OURS) :] == ['Müller, "Jr"\n2nd', "true", "", *PARAMS.values(), "6", "", ""]
    assert [*second.values()][len(OURS) :] == ["", "", '["x", "é"]', *PARAMS.values(), "", '["1"]', "false"]


def test_a_column_that_is_called_as_one_of_ours(ledger: Ledger, tmp_path: Path) -> None:
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
    """A report is passed on: no query of an input's URL, nor of one that a reason quotes, is in it."""
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    signed = "https://user:CANARY@cdn.example.com/i.png?sig=CANARY"
    extra = {"extra": {"mask": [signed]}}
    add(
        ledger,
        "a",
        "unknown",
        params={"image_url": signed, **extra},
        reason=f"no {signed}, nor s3://bucket/i?sig=CANARY",
    )
    add(ledger, "b", "failed", reason=f"no {signed}, nor s3://bucket/i?sig=CANARY")
    path = write(ledger, tmp_path / name)
    if name.endswith("parquet"):
        from pyarrow import parquet  # noqa: PLC0415

        content = str(parquet.read_table(path).to_pylist())
    else:
        content = path.read_text("utf-8")
    assert "CANARY" not in content
    assert "cdn.example.com/i.png" in content or name.endswith("html")


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
    """A spreadsheet that opens the table runs nothing that somebody wrote into a row, and numbers stay so."""
    add(ledger, "a", metadata={"note": given}, reason=given)
    (row,) = table(ledger, tmp_path)
    assert (row["note"], row["reason"]) == (shown, shown)


def test_no_name_of_a_column_is_a_formula(ledger: Ledger, tmp_path: Path) -> None:
    """What a row cannot do, its column's name and its key cannot either."""
    add(ledger, "=1+1", metadata={"=2+2": "x"})
    (row,) = table(ledger, tmp_path)
    assert (row["row_key"], row["'=2+2"]) == ("'=1+1", "x")


def test_rows_that_come_meanwhile_wait_for_the_next_report(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table has the columns of all of its rows, though the campaign grows while it is written."""
    add(ledger, "a")
    entries, passes = ledger.entries, []

    def growing() -> Iterator[Any]:
        passes.append(0)
        if len(passes) == 2:
            add(ledger, "late", metadata={"new": "x"})
        return entries()

    monkeypatch.setattr(ledger, "entries", growing)
    rows = table(ledger, tmp_path)
    assert [row["row_key"] for row in rows] == ["a"]
    assert len(passes) == 2


def test_parquet_has_the_same(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parquet holds what CSV does, with null for what is not there, and texts as they are."""
    pytest.importorskip("pyarrow")
    from pyarrow import parquet  # noqa: PLC0415

    monkeypatch.setattr(report, "_AT_ONCE", 2)
    for number in range(5):
        add_done(ledger, f"r{number}", number, 10)
    add(ledger, "last", metadata={"note": "=1", "n": 7})
    found = parquet.read_table(write(ledger, tmp_path / "r.parquet")).to_pylist()
    expected = [{name: cell or None for name, cell in row.items()} for row in table(ledger, tmp_path)]
    for row in expected:
        row |= {"line": int(row["line"]), "attempts": int(row["attempts"])}
    expected[-1]["note"] = "=1"
    assert found == expected


def test_parquet_of_an_empty_ledger(ledger: Ledger, tmp_path: Path) -> None:
    """It has the columns, and their types."""
    pytest.importorskip("pyarrow")
    from pyarrow import parquet  # noqa: PLC0415

    schema = parquet.read_table(write(ledger, tmp_path / "r.parquet")).schema
    assert {name: str(schema.field(name).type) for name in ("line", "state")} == {
        "line": "int64",
        "state": "string",
    }
    assert schema.names == [*OURS, *PARAMS]


def test_parquet_without_pyarrow(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who lacks the extra is told its name, and nothing is left behind."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ReportError, match=r"pip install techforge\[parquet\]"):
        write(ledger, tmp_path / "r.parquet")
    assert not list(tmp_path.glob("*parquet*"))


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
    """A report that took the ledger's place would forget what was paid for."""
    with Ledger(tmp_path / "campaign.csv") as ledger:
        add(ledger, "a")
        (tmp_path / "link.csv").symlink_to(ledger.name)
        for name in ("campaign.csv", "link.csv"):
            with pytest.raises(InvalidArgumentError, match="the ledger itself"):
                write(ledger, tmp_path / name)
        assert ledger.counts()[State.PENDING] == 1


def test_it_returns_the_path(ledger: Ledger, tmp_path: Path) -> None:
    """A text will do for a path, and nothing else is left beside the report."""
    before = {*tmp_path.iterdir()}
    path = write(ledger, str(tmp_path / "r.html"))
    assert path == tmp_path / "r.html"
    assert {*tmp_path.iterdir()} - before == {path}


@pytest.mark.parametrize("name", ["r.csv", "r.parquet", "r.html"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_report_is_whole_or_not_there(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException
) -> None:
    """One that fails half-way leaves the earlier one as it was, and nothing else."""
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    add(ledger, "a")
    path = write(ledger, tmp_path / name)
    content, files = path.read_bytes(), sorted(tmp_path.iterdir())
    entries = ledger.entries

    def failing() -> Iterator[Any]:
        yield from entries()
        raise error

    add(ledger, "b")
    monkeypatch.setattr(ledger, "entries", failing)
    with pytest.raises(ReportError if isinstance(error, OSError) else KeyboardInterrupt) as raised:
        write(ledger, path)
    assert path.read_bytes() == content
    assert sorted(tmp_path.iterdir()) == files
    if isinstance(error, OSError):
        assert "No space left on device" in str(raised.value)


def test_who_reads_the_earlier_one_is_not_disturbed(ledger: Ledger, tmp_path: Path) -> None:
    """A report takes the place of an earlier one at once, and is not written over it."""
    path = write(ledger, tmp_path / "r.csv")
    with path.open(encoding="utf-8") as file:
        add(ledger, "a")
        write(ledger, path)
        assert len(file.readlines()) == 1
    assert len(path.read_text("utf-8").splitlines()) == 2


def test_a_disk_that_is_full_at_the_end(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has not reached the disk does not replace what has."""
    path = tmp_path / "r.csv"
    path.write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report, "fsync", full)
    with pytest.raises(ReportError, match="unchanged"):
        write(ledger, path)
    assert path.read_text() == "old"


# --- the page


def test_the_figures_are_right(ledger: Ledger, tmp_path: Path) -> None:
    """Each number of the page is that of the ledger."""
    for number in range(20):
        add_done(ledger, f"d{number}", 30 * number, number + 1)
    add(ledger, "f", "failed", job_id="j", posted_at=START, ended_at=START + 1200, reason="no face")
    add(ledger, "u", "unknown", posted_at=START, ended_at=START + 9999, reason="no answer")
    add(ledger, "s", "submitted", job_id="j", posted_at=START - 10)
    add(ledger, "o", "posting", posted_at=START)
    add(ledger, "p", posted_at=START - 999)
    _, page = page_of(ledger, tmp_path)
    assert page.figures == {
        "rows": "25",
        "done": "80 %",
        "failed": "1",
        "unknown": "1",
        "jobs submitted": "22",
        "first submission (UTC)": "2025-10-09 08:53:10",
        "last end (UTC)": "2025-10-09 09:13:20",
        "median time to finish": "10 s",
        "95 % finish within": "19 s",
        "rows done per minute": "0.99",
    }
    legend = ["20 done", "1 submitted", "1 posting", "1 pending", "1 failed", "1 unknown"]
    assert page.all("li") == [*legend, "no face", "no answer"]
    said = [attrs["aria-label"] for tag, attrs in page.tags if tag == "div" and "role" in attrs]
    assert said == [f"rows by state: {', '.join(legend)}"]
    bar = [attrs for tag, attrs in page.tags if tag == "i" and "title" in attrs]
    assert [attrs["style"] for attrs in bar] == ["flex-grow:20", *["flex-grow:1"] * 5]
    assert page.all("h1") == ["spring.sqlite"]
    assert any(re.search(r"made \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", text) for text in page.all("p"))


def test_all_but_one_is_not_all(ledger: Ledger, tmp_path: Path) -> None:
    """100 % means all."""
    ledger.load([Row(str(n), PARAMS, {}, n) for n in range(4_000)])
    change(ledger, "state = 'done' WHERE n > 1")
    assert page_of(ledger, tmp_path)[1].figures["done"] == "99.9 %"


def test_the_charts_count_every_row(ledger: Ledger, tmp_path: Path) -> None:
    """The columns of either chart add up to the rows that are done; the last says that it has an outlier."""
    for number in range(200):
        add_done(ledger, f"d{number}", 7 * number, 20 + number % 50 / 10)
    add_done(ledger, "late", 0, 90_000)
    text, page = page_of(ledger, tmp_path)
    charts = [re.findall(r"<title>[^<]*: ([\d,]+)</title></rect>", svg) for svg in text.split("<svg")[1:]]
    assert [sum(map(int, chart)) for chart in charts] == [201, 201]
    assert 1 < len(charts[0]) <= 60
    assert 5 < len(charts[1]) <= 30
    ticks = [re.findall(r'<text x="([\d.]+)" y="176"', svg) for svg in text.split("<svg")[1:]]
    for chart, (start, middle, end) in zip(charts, ticks, strict=True):
        assert (float(start), float(end)) == (44, 356)
        assert float(middle) == pytest.approx(44 + 312 * (len(chart) // 2) / len(chart), abs=20)
    assert "The last column also has 1 that took longer, up to 1 d 1 h." in page.all("p")


@pytest.mark.parametrize(
    ("took", "ticks"),
    [
        (0.0123, ["12 ms", "13 ms"]),
        (93, ["1 min 33 s", "1 min 34 s"]),
        (59.96, ["59.9 s", "1 min"]),
        (7250, ["2 h", "2 h 1 min"]),
        (90_000, ["1 d 1 h", "1 d 2 h"]),
    ],
)
def test_one_row_has_a_chart_that_can_be_read(
    ledger: Ledger, tmp_path: Path, took: float, ticks: list[str]
) -> None:
    """Of a single row no tick says the same as another, nothing took longer than it, and it is a column."""
    add_done(ledger, "a", 0, took)
    text, page = page_of(ledger, tmp_path)
    chart = text.split("<svg")[2]
    said = re.findall(r'y="176"[^>]*>([^<]*)<', chart)
    assert said == ticks
    assert "took longer" not in text
    (width,) = re.findall(r'<rect class="done" [^>]*width="([\d.]+)"', chart)
    assert float(width) == 40
    assert page.figures["done"] == "100 %"


def test_a_slow_campaign_has_a_rate(ledger: Ledger, tmp_path: Path) -> None:
    """Two rows in a day are few, and not none."""
    add_done(ledger, "a", 0, 30)
    add_done(ledger, "b", 0, 86_400)
    assert page_of(ledger, tmp_path)[1].figures["rows done per minute"] == "0.0014"


@pytest.mark.parametrize(
    ("values", "most", "least", "expected"),
    [
        ([0.0], 30, 0.001, (0.0, 0.001, [1])),
        ([0.5, 1.5, 29.5], 30, 1, (0.0, 1, [1, 1, *[0] * 27, 1])),
        ([0.5, 1.5, 30.5], 30, 1, (0.0, 2, [2, *[0] * 14, 1])),
        ([100.0, 7300.0], 60, 1, (0.0, 300, [1, *[0] * 23, 1])),
        ([START, START + 1e9], 60, 1, (1747353600.0, 22118400, [1, *[0] * 44, 1])),
    ],
)
def test_bins(values: list[float], most: int, least: float, expected: tuple[Any, ...]) -> None:
    """There are as many bins as fit, of a width that people read, and every value is in one."""
    start, width, found = report._bins(values, min(values), max(values), most, least)
    assert len(found) <= most
    assert sum(found) == len(values)
    assert start <= min(values)
    assert max(values) < start + width * len(found)
    assert (start, width, found) == expected


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, "0 s"), (0.0123, "12.3 ms"), (0.9999, "1 s"), (12.34, "12.3 s"), (60, "1 min"),
        (144, "2 min 24 s"), (3600, "1 h"), (7384, "2 h 3 min"), (90_000, "1 d 1 h"), (float("nan"), "-"),
    ],
)  # fmt: skip
def test_durations(seconds: float, said: str) -> None:
    """A duration has two units at the most."""
    assert report._duration(seconds) == said


def test_many_durations_are_put_in_order() -> None:
    """What is sorted in parts is sorted as a whole."""
    values = report.array("f", [float(n * 7919 % 50_021) for n in range(50_021)])
    assert report._in_order(values) == report.array("f", range(50_021))


def test_reasons_that_differ_in_ids_are_one(ledger: Ledger, tmp_path: Path) -> None:
    """Alike reasons are counted together, different statuses are not, and the most frequent comes first."""
    for number in range(3):
        add(
            ledger,
            f"a{number}",
            "failed",
            reason=f"POST /jobs/v2: 503: busy (attempts: {number}, job ab12-{number}cd9)",
        )
    for number in range(2):
        add(
            ledger,
            f"b{number}",
            "failed",
            reason=f"POST /jobs/v2: 422: busy (attempts: {number}, job ab12-{number}cd9)",
        )
    ids = ("3f54dd1c-49ec-4a04-b6a6-000000000068", "8eddeb33-c330-5c81-b098-933ce9e21de0")
    for number, project in enumerate(ids):
        add(ledger, f"c{number}", "unknown", reason=f"no https://x.example.com/{number} in {project}")
    add(ledger, "d", "unknown")
    _, page = page_of(ledger, tmp_path)
    assert page.reasons == [
        ("3 failed", "POST /jobs/v2: 503: busy (attempts: …, job …)"),
        ("2 failed", "POST /jobs/v2: 422: busy (attempts: …, job …)"),
        ("2 unknown", "no … in …"),
        ("1 unknown", "no reason was given"),
    ]
    shares = [attrs["style"] for tag, attrs in page.tags if tag == "i" and "width" in str(attrs)]
    assert shares == ["width:70.0%", "width:46.7%", "width:46.7%", "width:23.3%"]


def test_a_long_reason_says_that_it_goes_on(ledger: Ledger, tmp_path: Path) -> None:
    """One that just fits is whole, and one that is cut off ends with three dots."""
    add(ledger, "a", "failed", reason="é" * 300)
    add(ledger, "b", "failed", reason="ж" * 301)
    _, page = page_of(ledger, tmp_path)
    assert [why for _, why in page.reasons] == ["é" * 300, "ж" * 299 + "…"]


def test_reasons_without_end(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A million different reasons take no more memory than a few thousand, and none goes uncounted."""
    monkeypatch.setattr(report, "_REASONS", 12)
    for number in range(30):
        add(ledger, str(number), "failed", reason="x" * (number + 1))
    _, page = page_of(ledger, tmp_path)
    assert len(page.reasons) == 10
    assert page.reasons[0] == ("18 failed", "other reasons")
    assert "Rows with other reasons than these: 3." in page.all("p")


def test_every_unknown_row_is_explained(ledger: Ledger, tmp_path: Path) -> None:
    """All are there, however many, with why, since when, where to look, and what to do."""
    for number in range(1_100):
        ledger.load([Row(f"u{number}", PARAMS, {}, number)])
    change(ledger, "state = 'unknown', posted_at = ?, ended_at = ? + n - 1", START, START)
    change(ledger, "reason = 'no answer ' || n WHERE n != 2")
    change(ledger, "job_id = 'job-3' WHERE n = 3")
    change(ledger, "state = 'failed' WHERE n = 4")
    text, page = page_of(ledger, tmp_path)
    projects = {entry.key: entry.project_id for entry in ledger.entries()}
    assert "Its job is job-3." in page.all("td")
    assert text.count("Its job is") == 1
    assert page.all("th")[4:] == [key for key in projects if key != "u3"]
    rows = Page(text.replace("<br>Its job is job-3.", "")).rows
    assert rows[:3] == [
        ("row", "project", "since (UTC)", "reason"),
        ("u0", projects["u0"], "2025-10-09 08:53:20", "no answer 1"),
        ("u1", projects["u1"], "2025-10-09 08:53:21", "no reason was given"),
    ]
    assert [row[:2] for row in rows[1:]] == [(key, projects[key]) for key in projects if key != "u3"]
    assert page.all("code") == [
        "techforge batch unknown --check",
        "unknown --job PROJECT=JOB",
        "techforge batch unknown --resubmit",
    ]


@pytest.mark.parametrize("state", [None, *State])
def test_a_page_of_any_ledger(ledger: Ledger, tmp_path: Path, state: State | None) -> None:
    """An empty ledger, and one whose rows are all in one state and without times, have their page as well."""
    if state:
        add(ledger, "a", str(state))
    text, page = page_of(ledger, tmp_path)
    assert page.figures["rows"] == ("1" if state else "0")
    assert page.figures["done"] == ("-" if state is None else "100 %" if state is State.DONE else "0 %")
    assert page.figures["rows done per minute"] == page.figures["median time to finish"] == "-"
    assert ("There are no rows." in page.all("p")) == (state is None)
    assert ("There are none." in page.all("p")) == (state is not State.UNKNOWN)
    assert "nan" not in text
    assert "inf" not in text
    assert "None" not in text


def full(ledger: Ledger) -> None:
    """Fill a ledger so that its page has all that a page can have."""
    for number in range(40):
        add_done(ledger, f"d{number}", number, 1 + number / 7)
    add(ledger, "f", "failed", reason="see https://cdn.example.com/x.png")
    add(ledger, "u", "unknown", reason="see https://cdn.example.com/x.png")


def test_a_page_needs_nothing_else(ledger: Ledger, tmp_path: Path) -> None:
    """A page loads nothing and runs nothing: it is the same offline, in a mail, and in ten years."""
    full(ledger)
    _, page = page_of(ledger, tmp_path)
    names = {tag for tag, _ in page.tags}
    assert not names & {
        "script",
        "link",
        "img",
        "image",
        "iframe",
        "object",
        "embed",
        "use",
        "base",
        "a",
        "form",
    }
    for _, attrs in page.tags:
        assert not {"src", "href", "xlink:href", "srcset", "data", "action"} & attrs.keys()
        assert not [name for name in attrs if name.startswith("on")]
        assert not [value for value in attrs.values() if value and "://" in value]
    (style,) = page.all("style")
    assert not re.search(r"@import|url\(|@font-face|://", style)
    assert "prefers-color-scheme: dark" in style
    meta = [attrs for tag, attrs in page.tags if tag == "meta"]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in meta
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    assert {"http-equiv": "Content-Security-Policy", "content": policy} in meta


def test_charts_can_be_read_aloud(ledger: Ledger, tmp_path: Path) -> None:
    """Each chart is an image with a title, says what its axes are, and tells what there is to see."""
    full(ledger)
    text, page = page_of(ledger, tmp_path)
    assert [attrs["role"] for tag, attrs in page.tags if tag == "svg"] == ["img"] * 2
    assert re.findall(r"<svg[^>]*><title>([^<]*)</title><desc>([^<]*)</desc>", text) == [
        (
            "rows done in 1 s, by time (UTC) from 2025-10-09",
            "40 rows in all; at most 1 in a column, as in 2025-10-09 08:53:21 UTC",
        ),
        (
            "rows done, by time from submission to end",
            "40 rows in all; at most 2 in a column, as in 1.4 s to 1.6 s",
        ),
    ]
    said = page.all("text")
    assert {
        *("rows done in 1 s", "time (UTC) from 2025-10-09"),
        *("rows done", "time from submission to end"),
    } <= {*said}


def test_a_page_can_be_found_ones_way_in(ledger: Ledger, tmp_path: Path) -> None:
    """It has one main part, headings in order, and a table whose heads and name are known as such."""
    full(ledger)
    _, page = page_of(ledger, tmp_path)
    assert [tag for tag, _ in page.tags if tag in {"main", "h1", "h2"}] == ["main", "h1", *["h2"] * 4]
    heads = [attrs["scope"] for tag, attrs in page.tags if tag == "th"]
    assert heads == ["col"] * 4 + ["row"]
    (table,) = (attrs for tag, attrs in page.tags if tag == "table")
    assert ("h2", {"id": table["aria-labelledby"]}) in page.tags


def luminance(colour: str) -> float:
    """Return how bright a colour is, as WCAG 2 reckons."""
    digits = colour[1:] if len(colour) == 7 else "".join(c * 2 for c in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("dark", [False, True])
def test_colours_can_be_told_from_their_background(ledger: Ledger, tmp_path: Path, dark: bool) -> None:
    """Text has a contrast of 4.5 at least, and what is drawn one of 3 (WCAG 2.2, 1.4.3 and 1.4.11)."""
    text, _ = page_of(ledger, tmp_path)
    found = re.findall(r"--(\w+):\s*(#\w+)", text)
    assert len(found) == 2 * (4 + len(State))
    colours = dict(found[len(found) // 2 :] if dark else found[: len(found) // 2])
    back = luminance(colours.pop("back"))
    colours.pop("line")
    for name, colour in colours.items():
        light, other = sorted((luminance(colour), back), reverse=True)
        assert (light + 0.05) / (other + 0.05) >= (4.5 if name in {"text", "dim"} else 3), name


def test_nothing_in_a_ledger_is_markup(tmp_path: Path) -> None:
    """A key, a reason, a project or the ledger's own name is text in the page, whatever it says."""
    evil = "\"'><script>alert()</script><b>&amp;"
    with Ledger(tmp_path / "a<b>&.sqlite") as ledger:
        params, metadata = {"project_id": evil}, {evil: evil}
        add(ledger, f"{evil}1", "unknown", reason=evil, metadata=metadata, params=params, job_id="<b>")
        add(ledger, f"{evil}2", "failed", reason=evil, job_id=evil, file=evil)
        text, page = page_of(ledger, tmp_path)
    assert not {"script", "b"} & {tag for tag, _ in page.tags}
    assert "<script" not in text
    assert page.all("h1") == ["a<b>&.sqlite"]
    assert page.all("th")[4:] == [f"{evil}1"]
    assert page.all("td") == [evil, evil, "Its job is <b>."]
    assert page.reasons == [("1 unknown", evil), ("1 failed", evil)]


def test_a_name_that_is_no_text(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file's name may hold bytes that are no UTF-8, and its campaign has a page all the same."""
    monkeypatch.setattr(Ledger, "name", str(tmp_path / "a\udcff.sqlite"))
    assert page_of(ledger, tmp_path)[1].all("h1") == ["a?.sqlite"]


def test_pyarrow_is_not_needed_otherwise(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who wants no Parquet need not install it."""
    real = builtins.__import__

    def guarded(name: str, *rest: Any) -> Any:
        assert not name.startswith("pyarrow")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", guarded)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    write(ledger, tmp_path / "r.csv")
    write(ledger, tmp_path / "r.html")
