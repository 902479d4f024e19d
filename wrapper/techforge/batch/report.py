"""The end of a campaign: what became of each row as a table, and of all together as a page."""

from __future__ import annotations

import csv
import heapq
import io
import json
import math
import re
import secrets
import time
from array import array
from collections import Counter
from html import escape
from importlib import import_module
from itertools import chain, count, islice, pairwise
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
_NONE = "no reason was given"
_WIDTHS = [
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30),
    *(60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200),
    *(86400 * 2**n for n in range(20)),
]
"""How wide bins may be, in seconds."""
_STEPS = (1, 0.001), (10, 0.01), (60, 0.1), (3600, 1), (86400, 60), (math.inf, 3600)
"""By what durations below so many seconds differ, as they are shown."""
_COLOURS = {
    State.DONE: ("#1a7f37", "#3fb950"),
    State.SUBMITTED: ("#0969da", "#4493f8"),
    State.POSTING: ("#8250df", "#bc8cff"),
    State.PENDING: ("#6e7781", "#8b949e"),
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
            why = state, _alike(entry.reason or _NONE)
            full = len(self.reasons) >= _REASONS and why not in self.reasons
            self.reasons[(state, "other reasons") if full else why] += 1


def _alike(reason: str) -> str:
    """Return what a reason has in common with others of its kind."""
    kind = _PARTICULAR.sub(lambda found: found["status"] or "…", mask(reason)[:2_000])
    return kind if len(kind) <= 300 else f"{kind[:299]}…"


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


def _rate(value: float) -> str:
    return f"{value:,.1f}" if value >= 1 else f"{value:.2g}"


def _bins(
    values: Iterable[float], low: float, high: float, most: int, least: float
) -> tuple[float, float, list[int]]:
    """Return where bins begin, how wide they are, and how many values are in each; the last has the rest."""
    width = next(w for w in _WIDTHS if w >= least and high // w - low // w < most)
    found = [0] * (int(high // width - low // width) + 1)
    for value in values:
        found[min(len(found) - 1, int(value // width - low // width))] += 1
    return low // width * width, width, found


def _columns(axes: tuple[str, str], found: list[int], labels: list[str], ticks: list[str]) -> str:
    """Return a chart of columns: of each its number and what it stands for; and ticks below."""
    top = next(m * 10**k for k in count() for m in (2, 4, 6, 8, 10) if m * 10**k >= max(found))
    most = max(range(len(found)), key=found.__getitem__)
    told = f"{sum(found):,} rows in all; at most {found[most]:,} in a column, as in {labels[most]}"
    body = [
        f"<title>{axes[1]}, by {axes[0]}</title><desc>{told}</desc>",
        f'<text x="4" y="11">{axes[1]}</text><text x="200" y="196" class="mid">{axes[0]}</text>',
    ]
    for value in (0, top // 2, top):
        y = 160 - 138 * value / top
        body.append(f'<path d="M44 {y:.1f}H356"/><text x="40" y="{y + 4:.1f}" class="end">{value:,}</text>')
    step = 312 / len(found)
    # A single column as wide as the chart looks like a background.
    wide = min(step - 1, 40)
    for n, (number, label) in enumerate(zip(found, labels, strict=True)):
        high = max(1.0, 138 * number / top) if number else 0.0
        x = 44 + (n + 0.5) * step - wide / 2
        body.append(
            f'<rect class="done" x="{x:.2f}" y="{160 - high:.1f}" width="{wide:.2f}" height="{high:.1f}">'
        )
        body.append(f"<title>{label}: {number:,}</title></rect>")
    for n, anchor in ((0, "start"), (len(found) // 2, "mid"), (len(found), "end")):
        if n or anchor == "start":
            body.append(f'<text x="{44 + n * step:.1f}" y="176" class="{anchor}">{ticks[n]}</text>')
    return f'<svg viewBox="0 0 360 200" role="img">{"".join(body)}</svg>'


def _throughput(summary: _Summary) -> str:
    if not summary.ends:
        return "<p>Nothing is done yet.</p>"
    low, high = min(summary.ends), max(summary.ends)
    start, width, found = _bins(summary.ends, min(low, summary.first), high, 60, 1)
    edges = [start + n * width for n in range(len(found) + 1)]
    span = edges[-1] - start
    layout = "%H:%M:%S" if span < 3600 else "%H:%M" if span < 86400 else "%m-%d %H:%M"
    labels = [_utc(at, f"{_CLOCK} UTC") or "" for at in edges[:-1]]
    ticks = [_utc(at, layout) or "" for at in edges]
    axes = (_utc(start, "time (UTC) from %Y-%m-%d") or "", f"rows done in {_duration(width)}")
    return _columns(axes, found, labels, ticks)


def _finish(ordered: array[float]) -> str:
    if not ordered:
        return "<p>Nothing is done yet.</p>"
    # One row that took a day must not push all others into one column.
    high = _quantile(ordered, 0.99)
    # Narrower than what a duration shows, and two ticks would read the same.
    least = next(w for below, w in _STEPS if high < below)
    _, width, found = _bins(ordered, ordered[0], high, 30, least)
    first = ordered[0] // width
    edges = [_duration((first + n) * width) for n in range(len(found) + 1)]
    labels = [f"{low} to {high}" for low, high in pairwise(edges)]
    chart = _columns(("time from submission to end", "rows done"), found, labels, edges)
    longer = sum(value // width - first >= len(found) for value in ordered)
    more = f"<p>The last column also has {longer:,} that took longer, up to {_duration(ordered[-1])}.</p>"
    return chart + more * bool(longer)


def _why(reasons: Counter[tuple[State, str]]) -> str:
    if not reasons:
        return "<p>Nothing failed, and nothing is unknown.</p>"
    shown = reasons.most_common(10)
    # A list and not a drawing: text that is drawn neither wraps nor is read aloud.
    lines = [
        f'<li>{escape(reason)}<div><i class="{state}" style="width:{70 * number / shown[0][1]:.1f}%"></i>'
        f"<span>{number:,} {state}</span></div></li>"
        for (state, reason), number in shown
    ]
    rest = reasons.total() - sum(number for _, number in shown)
    more = f"<p>Rows with other reasons than these: {rest:,}.</p>" if rest else ""
    return f"<p>Rows, by reason; … stands for what differs.</p><ol>{''.join(lines)}</ol>{more}"


def _unknown(entries: Iterable[Entry]) -> Iterator[str]:
    yield _ADVICE
    for entry in entries:
        reason = escape(mask(entry.reason or _NONE)[:1_000])
        job = f"<br>Its job is {escape(entry.job_id)}." if entry.job_id else ""
        yield (
            f'<tr><th scope="row">{escape(entry.key)}</th><td>{escape(entry.project_id)}</td>'
            f"<td>{_utc(entry.ended_at, _CLOCK) or ''}</td><td>{reason}{job}</td></tr>\n"
        )
    yield "</tbody></table>"


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
        "rows done per minute": _rate(60 * done / span) if done and span > 0 else "-",
    }
    shown = [state for state in _COLOURS if counts[state]]
    said = {s: f"{counts[s]:,} {s}" for s in shown}
    bar = [f'<i class="{s}" style="flex-grow:{counts[s]}" title="{said[s]}"></i>' for s in shown]
    legend = [f'<li><i class="{s}"></i>{said[s]}</li>' for s in shown]
    light, dark = ("".join(f"--{s}:{c[n]};" for s, c in _COLOURS.items()) for n in (0, 1))
    page = _PAGE.substitute(
        light=light,
        dark=dark,
        states="\n".join(f".{s} {{ background: var(--{s}); fill: var(--{s}); }}" for s in _COLOURS),
        name=escape(ledger.name if ledger.is_shared else Path(ledger.name).name),
        made=_utc(time.time(), _CLOCK),
        states_bar=_BAR.format(", ".join(said.values()), "".join(bar), "".join(legend))
        if rows
        else "<p>There are no rows.</p>",
        figures="".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in figures.items()),
        throughput=_throughput(summary),
        finish=_finish(ordered),
        reasons=_why(summary.reasons),
    )
    file.write(page.encode(errors="replace"))
    unknown = _unknown(ledger.entries(State.UNKNOWN)) if counts[State.UNKNOWN] else ["<p>There are none.</p>"]
    for part in chain(unknown, [_END]):
        file.write(part.encode())


_BAR = '<div class="bar" role="img" aria-label="rows by state: {}">{}</div><ul>{}</ul>'

_ADVICE = """<p>A job may exist for each of these. Its submission was sent, and not answered, or answered
with a server error, or its process ended meanwhile. Nothing was sent again.</p>
<p>Where the job is known, <code>techforge batch unknown --check</code> asks storage for its video.
Otherwise look for the project in your job service, webhook events or the web app; what you find there,
<code>unknown --job PROJECT=JOB</code> notes. <code>techforge batch unknown --resubmit</code> submits those
again of which no job is known, and some may be paid twice.</p>
<table aria-labelledby="unknown"><thead><tr><th scope="col">row</th><th scope="col">project</th>
<th scope="col">since (UTC)</th><th scope="col">reason</th></tr></thead><tbody>
"""

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
i, rect { forced-color-adjust: none; }
.bar { display: flex; gap: 1px; height: 1.4rem; margin: 1rem 0 .4rem; }
.bar i { min-width: 3px; flex: 0 1 0; }
ul, ol { margin: 0; padding: 0; list-style: none; }
ul { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; }
ul i { display: inline-block; width: .8em; height: .8em; margin-right: .4em; }
dl, .charts { display: grid; gap: .8rem 1.5rem; margin: 1.2rem 0 0;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, var(--least)), 1fr)); }
dl { --least: 12rem; }
dt { color: var(--dim); font-size: .85rem; }
dd { margin: 0; font-size: 1.15rem; font-variant-numeric: tabular-nums; }
.charts { --least: 20rem; }
section { break-inside: avoid; }
svg { display: block; width: 100%; max-width: 30rem; font-size: 10px; }
text { fill: var(--dim); }
path { stroke: var(--line); }
.mid { text-anchor: middle; }
.end { text-anchor: end; }
$states
ol, ol + p, section > p, table { font-size: .85rem; }
ol, th, td { unicode-bidi: plaintext; text-align: left; }
ol { columns: 22rem; column-gap: 1.5rem; margin-top: .5rem; }
ol li { break-inside: avoid; padding-bottom: .7rem; }
ol div { display: flex; align-items: center; gap: .5rem; color: var(--dim); }
ol i { height: .8rem; min-width: 3px; }
ol span { white-space: nowrap; }
table { width: 100%; border-collapse: collapse; table-layout: fixed; margin-top: .6rem; }
th, td { padding: .35rem .5rem; vertical-align: top; font-weight: normal; }
thead th { color: var(--dim); }
td:nth-child(2) { font: .75rem/1.6 ui-monospace, monospace; }
th { width: 16%; }
th + th { width: 17.5rem; }
th + th + th { width: 7rem; }
th + th + th + th { width: auto; }
tr { border-bottom: 1px solid var(--line); }
@media (max-width: 30rem) { svg { font-size: 12px; } }
@media (max-width: 60rem) {
  dl { --least: 9.5rem; }
  thead { position: absolute; clip-path: inset(50%); }
  tr, tbody th, td { display: block; width: auto; padding: .15rem 0; }
  tr > ::before { color: var(--dim); font-family: system-ui, sans-serif; }
  tbody th::before { content: "row: "; }
  td:nth-child(2)::before { content: "project: "; }
  td:nth-child(3)::before { content: "since (UTC): "; }
  td:nth-child(4)::before { content: "reason: "; }
}
</style>
</head>
<body>
<main>
<h1>$name</h1>
<p>Campaign report, made $made UTC</p>
$states_bar
<dl>$figures</dl>
<div class="charts">
<section><h2>Throughput</h2>$throughput</section>
<section><h2>Time to finish</h2>$finish</section>
</div>
<section><h2>Failures and unknowns</h2>$reasons</section>
<h2 id="unknown">Unknown rows</h2>
""")

_END = """
</main>
</body>
</html>
"""
