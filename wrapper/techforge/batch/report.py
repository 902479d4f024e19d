"""The end of a campaign: what became of each row as a table, and of all together as a page."""

from __future__ import annotations

import csv
import heapq
import io
import json
import math
import re
import secrets
import textwrap
import time
from array import array
from collections import Counter
from html import escape
from importlib import import_module
from itertools import count, islice, pairwise
from os import fsync
from pathlib import Path
from string import Template
from typing import IO, TYPE_CHECKING, Any

from attrs import define, field

from techforge._masking import mask, mask_all
from techforge.batch.ledger import Entry, Ledger, State
from techforge.errors import InvalidArgumentError, TechForgeError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Sequence

_OURS = (
    *("row_key", "line", "state", "job_id", "project_id"),
    *("file", "reason", "attempts", "submitted_at", "ended_at"),
)
_NUMBERS = {"line", "attempts"}
_AT_ONCE = 5_000
"""Rows of a Parquet file that are written together."""
_REASONS = 2_000
"""Different reasons that are counted at once."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_NUMBER = re.compile(r"[+-]?[\d.,]*\d(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
# What tells alike reasons apart: numbers, addresses and ids, but not the status that a server answered.
_PARTICULAR = re.compile(
    r"(?<=: )(?P<status>[1-5]\d\d)(?=:| \()|\b[a-z]+://\S+|\b(?=[\w-]*\d)[\w-]{8,}|\b\d+([.:]\d+)*",
    re.IGNORECASE,
)


class ReportError(TechForgeError):
    """A report that could not be written; an earlier one at its place is as it was."""


def write(ledger: Ledger, to: str | os.PathLike[str]) -> Path:
    """Write a report of a campaign, and return its path; the name's end says which: .csv, .parquet or .html.

    CSV and Parquet have all rows, and Parquet needs pyarrow; a page has figures, charts, and the rows whose
    outcome is unknown. The file is there when it is whole, and replaces an earlier one. URLs that were sent
    are without their query, as are those in a reason; the manifest's further columns are as they were given.

    >>> from techforge.batch import Ledger
    >>> with Ledger(folder / "campaign.sqlite") as ledger:
    ...     write(ledger, folder / "report.csv").name
    'report.csv'

    Raises:
        InvalidArgumentError: no report can be at this place.
        ReportError: it could not be written, or pyarrow is not installed.
    """
    target = Path(to)
    writer = {".csv": _csv, ".parquet": _parquet, ".html": _html}.get(target.suffix.lower())
    if writer is None:
        raise InvalidArgumentError("to", f"{target.name!r} must end with .csv, .parquet or .html")
    if not target.parent.is_dir():
        raise InvalidArgumentError("to", f"there is no directory {str(target.parent)!r}; create it first")
    if target.is_dir():
        raise InvalidArgumentError("to", f"{str(target)!r} is a directory")
    if target.resolve() == Path(ledger.name).resolve():
        raise InvalidArgumentError("to", f"{str(target)!r} is the ledger itself")
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            writer(ledger, file)
            file.flush()
            fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        why = error.strerror or str(error)
        raise ReportError(
            f"{target} could not be written: {why}. What was there before is unchanged."
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return target


# --- tables


def _table(ledger: Ledger) -> tuple[list[str], Iterator[list[Any]]]:
    """Return the names of the columns, and the rows."""
    metadata: dict[str, None] = {}
    params: dict[str, None] = dict.fromkeys(("image_url", "audio_url"))
    last = 0
    for entry in ledger.entries():
        metadata |= dict.fromkeys(entry.metadata)
        params |= dict.fromkeys(entry.params)
        last = entry.n
    params.pop("project_id", None)  # every row has one already
    taken = {*_OURS, *params}
    own: list[str] = []
    for name in metadata:
        while name in taken:
            name = f"metadata.{name}"  # noqa: PLW2901 - until nothing else is called so
        taken.add(name)
        own.append(name)

    def rows() -> Iterator[list[Any]]:
        for entry in ledger.entries():
            if entry.n > last:  # it came while this was being written, and may have columns of its own
                return
            # What was put back has been sent, and refused: nothing of it stands.
            sent = None if entry.state is State.PENDING else entry.posted_at
            yield [
                *(entry.key, entry.line, str(entry.state), entry.job_id, entry.project_id, entry.file),
                *(entry.reason and mask(entry.reason), entry.attempts, _utc(sent), _utc(entry.ended_at)),
                *(_text(entry.metadata.get(name)) for name in metadata),
                *(_text(mask_all(entry.params.get(name))) for name in params),
            ]

    return [*_OURS, *own, *params], rows()


def _text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _utc(at: float | None, layout: str = "%Y-%m-%dT%H:%M:%SZ") -> str | None:
    return None if at is None else time.strftime(layout, time.gmtime(at))


def _harmless(cell: object) -> object:
    # A spreadsheet would run what a stranger's metadata says (CWE-1236).
    if isinstance(cell, str) and cell.startswith(_FORMULA) and not _NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell


def _csv(ledger: Ledger, file: IO[bytes]) -> None:
    names, rows = _table(ledger)
    text = io.TextIOWrapper(file, "utf-8", newline="")
    lines = csv.writer(text)
    lines.writerow(map(_harmless, names))
    lines.writerows(map(_harmless, row) for row in rows)
    text.detach()


def _parquet(ledger: Ledger, file: IO[bytes]) -> None:
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise ReportError(
            "Parquet needs pyarrow, which is not installed; pip install techforge[parquet]"
        ) from None
    names, rows = _table(ledger)
    types = [arrow.int64() if name in _NUMBERS else arrow.string() for name in _OURS]
    types += [arrow.string()] * (len(names) - len(_OURS))
    schema = arrow.schema(list(zip(names, types, strict=True)))
    with parquet.ParquetWriter(file, schema) as writer:
        while batch := list(islice(rows, _AT_ONCE)):
            columns = map(arrow.array, zip(*batch, strict=True), types)
            writer.write_batch(arrow.record_batch(list(columns), schema=schema))


# --- the page

_CLOCK = "%Y-%m-%d %H:%M:%S"
_SHOWN = 100
"""Unknown rows that a page shows."""
_WIDTHS = [
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30),
    *(60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200),
    *(86400 * 2**n for n in range(20)),
]
"""How wide bins may be, in seconds."""
_COLOURS = {
    State.DONE: ("#1a7f37", "#3fb950"),
    State.SUBMITTED: ("#0969da", "#4493f8"),
    State.POSTING: ("#54aeff", "#a5d6ff"),
    State.PENDING: ("#8c959f", "#7d8590"),
    State.FAILED: ("#cf222e", "#f85149"),
    State.UNKNOWN: ("#bf8700", "#d29922"),
}
"""On light, and on dark."""


@define
class _Summary:
    """What a page tells of a campaign: counters, and a few bytes of each row that is done."""

    counts: Counter[State] = field(factory=Counter[State])
    jobs: int = 0
    first: float = math.inf
    last: float = -math.inf
    ends: array[float] = field(factory=lambda: array("d"))
    took: array[float] = field(factory=lambda: array("f"))
    reasons: Counter[tuple[State, str]] = field(factory=Counter[tuple[State, str]])
    unknown: list[Entry] = field(factory=list[Entry])

    def add(self, entry: Entry) -> None:
        """Count a row."""
        state, sent, ended = entry.state, entry.posted_at, entry.ended_at
        self.counts[state] += 1
        self.jobs += entry.job_id is not None or state is State.DONE
        if sent is not None and state is not State.PENDING:
            self.first = min(self.first, sent)
        # When a row was called unknown is not when its job ended.
        if ended is not None and state in {State.DONE, State.FAILED}:
            self.last = max(self.last, ended)
        if state is State.DONE and ended is not None and sent is not None:
            self.ends.append(ended)
            self.took.append(max(0.0, ended - sent))
        if state in {State.FAILED, State.UNKNOWN}:
            why = state, _alike(entry.reason or "no reason was given")
            full = len(self.reasons) >= _REASONS and why not in self.reasons
            self.reasons[(state, "other reasons") if full else why] += 1
        if state is State.UNKNOWN and len(self.unknown) < _SHOWN:
            self.unknown.append(entry)


def _alike(reason: str) -> str:
    """Return what a reason has in common with others of its kind."""
    return _PARTICULAR.sub(lambda found: found["status"] or "…", mask(reason)[:2_000])[:300]


def _in_order(values: array[float]) -> array[float]:
    # A sorted list of a million floats would take ten times as much.
    runs = [array("f", sorted(values[at : at + 20_000])) for at in range(0, len(values), 20_000)]
    return array("f", heapq.merge(*runs))


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Return the least value that this share of all does not exceed; NaN if there is none."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def _duration(seconds: float) -> str:
    if math.isnan(seconds):
        return "-"
    if seconds < 60:
        return f"{1000 * seconds:.3g} ms" if 0 < seconds < 0.9995 else f"{seconds:.3g} s"
    rest = round(seconds)
    found: list[str] = []
    for length, unit in (86400, "d"), (3600, "h"), (60, "min"), (1, "s"):
        if rest >= length:
            found.append(f"{rest // length} {unit}")
        rest %= length
    return " ".join(found[:2])


def _bins(
    values: Iterable[float], low: float, high: float, most: int, least: float
) -> tuple[float, float, list[int]]:
    """Return where bins begin, how wide they are, and how many values are in each; the last has the rest."""
    width = next(w for w in _WIDTHS if w >= least and high // w - low // w < most)
    found = [0] * (int(high // width - low // width) + 1)
    for value in values:
        found[min(len(found) - 1, int(value // width - low // width))] += 1
    return low // width * width, width, found


def _svg(title: str, height: int, body: list[str]) -> str:
    return f'<svg viewBox="0 0 360 {height}" role="img"><title>{escape(title)}</title>{"".join(body)}</svg>'


def _columns(axes: tuple[str, str], found: list[int], labels: list[str], ticks: Sequence[str]) -> str:
    """Return a chart of columns: of each its number and what it stands for; and three ticks below."""
    top = next(m * 10**k for k in count() for m in (2, 4, 6, 8, 10) if m * 10**k >= max(found))
    body = [f'<text x="4" y="11">{axes[1]}</text>', f'<text x="200" y="194" class="mid">{axes[0]}</text>']
    for value in (0, top // 2, top):
        y = 160 - 138 * value / top
        body.append(f'<path d="M44 {y:.1f}H356"/><text x="40" y="{y + 4:.1f}" class="end">{value:,}</text>')
    step = 312 / len(found)
    for n, (number, label) in enumerate(zip(found, labels, strict=True)):
        high = max(1.0, 138 * number / top) if number else 0.0
        size = f'width="{step - 1:.2f}" height="{high:.1f}"'
        body.append(f'<rect class="done" x="{44 + n * step:.2f}" y="{160 - high:.1f}" {size}>')
        body.append(f"<title>{label}: {number:,}</title></rect>")
    for tick, x, anchor in zip(ticks, (44, 200, 356), ("start", "mid", "end"), strict=True):
        body.append(f'<text x="{x}" y="175" class="{anchor}">{tick}</text>')
    return _svg(f"{axes[1]}, by {axes[0]}", 200, body)


def _throughput(summary: _Summary) -> str:
    if not summary.ends:
        return "<p>Nothing is done yet.</p>"
    low, high = min(summary.ends), max(summary.ends)
    start, width, found = _bins(summary.ends, min(low, summary.first), high, 60, 1)
    end = start + width * len(found)
    layout = "%H:%M:%S" if end - start < 3600 else "%H:%M" if end - start < 86400 else "%m-%d %H:%M"
    labels = [_utc(start + n * width, "%Y-%m-%d %H:%M:%S UTC") or "" for n in range(len(found))]
    ticks = [_utc(at, layout) or "" for at in (start, (start + end) / 2, end)]
    axes = (_utc(start, "time (UTC) from %Y-%m-%d") or "", f"rows done in {_duration(width)}")
    return _columns(axes, found, labels, ticks)


def _finish(ordered: array[float]) -> str:
    if not ordered:
        return "<p>Nothing is done yet.</p>"
    # One row that took a day must not push all others into one column.
    start, width, found = _bins(ordered, ordered[0], _quantile(ordered, 0.99), 30, 0.001)
    edges = [_duration(start + n * width) for n in range(len(found) + 1)]
    labels = [f"{low} to {high}" for low, high in pairwise(edges)]
    ticks = (edges[0], _duration(start + width * len(found) / 2), edges[-1])
    chart = _columns(("from submission to end", "rows done"), found, labels, ticks)
    longer = sum(value >= start + width * len(found) for value in ordered)
    more = f"<p>{longer:,} took longer, {_duration(ordered[-1])} at most; they are in the last column.</p>"
    return chart + more * bool(longer)


def _why(reasons: Counter[tuple[State, str]]) -> str:
    body: list[str] = []
    y, shown = 12, reasons.most_common(10)
    for (state, reason), number in shown:
        for line in textwrap.wrap(reason, 60, max_lines=3, placeholder=" …"):
            body.append(f'<text x="4" y="{y}">{escape(line)}</text>')
            y += 13
        width = max(1.0, 240 * number / shown[0][1])
        body.append(f'<rect class="{state}" x="4" y="{y - 8}" width="{width:.1f}" height="11">')
        body.append(f"<title>{number:,} {state}: {escape(reason)}</title></rect>")
        body.append(f'<text x="{width + 9:.1f}" y="{y + 1}">{number:,} {state}</text>')
        y += 24
    body.append(f'<text x="4" y="{y}">rows, by reason; … stands for what differs</text>')
    more = f"<p>There are {len(reasons) - 10:,} more reasons.</p>" if len(reasons) > 10 else ""
    chart = _svg("Failures and unknowns by reason", y + 8, body) + more
    return chart if shown else "<p>Nothing failed, and nothing is unknown.</p>"


def _unknown(entries: list[Entry], rows: int) -> str:
    if not entries:
        return "<p>There are none.</p>"
    names = ("row", "project", "since (UTC)", "reason")
    lines: list[str] = []
    for entry in entries:
        cells = (entry.key, entry.project_id, _utc(entry.ended_at) or "", mask(entry.reason or "")[:1_000])
        pairs = zip(names, cells, strict=True)
        lines.append("".join(f'<td data-name="{name}">{escape(cell)}</td>' for name, cell in pairs))
    head = "".join(f"<th>{name}</th>" for name in names)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    more = f"<p>And {rows - _SHOWN:,} more; the CSV report has all.</p>" if rows > _SHOWN else ""
    return f"{_ADVICE}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _html(ledger: Ledger, file: IO[bytes]) -> None:
    summary = _Summary()
    for entry in ledger.entries():
        summary.add(entry)
    counts, rows, done = summary.counts, summary.counts.total(), summary.counts[State.DONE]
    ordered, span = _in_order(summary.took), summary.last - summary.first
    first, last = (at if math.isfinite(at) else None for at in (summary.first, summary.last))
    figures = {
        "rows": f"{rows:,}",
        # Rounded down: 100 % means all of them.
        "done": f"{math.floor(1000 * done / rows) / 10:g} %" if rows else "-",
        "failed": f"{counts[State.FAILED]:,}",
        "unknown": f"{counts[State.UNKNOWN]:,}",
        "jobs submitted": f"{summary.jobs:,}",
        "first submission (UTC)": _utc(first, _CLOCK) or "-",
        "last end (UTC)": _utc(last, _CLOCK) or "-",
        "median time to finish": _duration(_quantile(ordered, 0.5)),
        "95 % finish within": _duration(_quantile(ordered, 0.95)),
        "rows done per minute": f"{60 * done / span:,.1f}" if done and span > 0 else "-",
    }
    shown = [state for state in _COLOURS if counts[state]]
    bar = [f'<i class="{s}" style="flex-grow:{counts[s]}" title="{counts[s]:,} {s}"></i>' for s in shown]
    legend = [f'<li><i class="{s}"></i>{counts[s]:,} {s}</li>' for s in shown]
    light, dark = ("".join(f"--{s}:{c[n]};" for s, c in _COLOURS.items()) for n in (0, 1))
    page = _PAGE.substitute(
        light=light,
        dark=dark,
        states="\n".join(f".{s} {{ background: var(--{s}); fill: var(--{s}); }}" for s in _COLOURS),
        name=escape(Path(ledger.name).name),
        made=_utc(time.time(), _CLOCK),
        bar="".join(bar),
        legend="".join(legend),
        figures="".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in figures.items()),
        throughput=_throughput(summary),
        finish=_finish(ordered),
        reasons=_why(summary.reasons),
        unknown=_unknown(summary.unknown, counts[State.UNKNOWN]),
    )
    file.write(page.encode())


_ADVICE = """<p>Their submission was not answered: a job may exist, and nothing was sent again.
<code>techforge batch unknown --check</code> asks storage whether the video has appeared; only
<code>--resubmit</code> sends again, and may pay twice.</p>"""

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>$name: campaign report</title>
<style>
:root { color-scheme: light dark; --back:#fff; --text:#1f2328; --dim:#59636e; --line:#d1d9e0; $light }
@media (prefers-color-scheme: dark) {
  :root { --back:#0d1117; --text:#e6edf3; --dim:#9198a1; --line:#3d444d; $dark }
}
* { box-sizing: border-box; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
body { margin: 0 auto; padding: 1rem; max-width: 74rem; background: var(--back); color: var(--text);
  font: 15px/1.45 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; margin: 0; }
h2 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
p { margin: .3rem 0; color: var(--dim); }
.bar { display: flex; gap: 1px; height: 1.4rem; margin: 1rem 0 .4rem; }
.bar i { min-width: 3px; flex: 0 1 0; }
ul { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin: 0; padding: 0; list-style: none; }
li i { display: inline-block; width: .8em; height: .8em; margin-right: .4em; }
dl, .charts { display: grid; gap: .8rem 1.5rem; margin: 1.2rem 0 0;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, var(--least)), 1fr)); }
dl { --least: 9.5rem; }
dt { color: var(--dim); font-size: .85rem; }
dd { margin: 0; font-size: 1.15rem; font-variant-numeric: tabular-nums; }
.charts { --least: 20rem; }
section { break-inside: avoid; }
svg { display: block; width: 100%; max-width: 36rem; font-size: 11px; }
text { fill: var(--dim); }
path { stroke: var(--line); }
.mid { text-anchor: middle; }
.end { text-anchor: end; }
$states
table { width: 100%; border-collapse: collapse; font-size: .85rem; margin-top: .6rem; }
th, td { padding: .35rem .5rem; text-align: left; vertical-align: top; }
tr { border-bottom: 1px solid var(--line); }
@media (max-width: 40rem) {
  thead { display: none; }
  tr, td { display: block; padding: .15rem 0; }
  td::before { content: attr(data-name) ": "; color: var(--dim); }
}
</style>
</head>
<body>
<h1>$name</h1>
<p>Campaign report, made $made UTC</p>
<div class="bar" role="img" aria-label="rows by state">$bar</div>
<ul>$legend</ul>
<dl>$figures</dl>
<div class="charts">
<section><h2>Throughput</h2>$throughput</section>
<section><h2>Time to finish</h2>$finish</section>
<section><h2>Failures and unknowns</h2>$reasons</section>
</div>
<h2>Unknown rows</h2>
$unknown
</body>
</html>
""")
