"""Reports of a campaign: its rows as a CSV or Parquet table, and an HTML page with figures and next steps."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import secrets
import shlex
import time
from base64 import b64encode
from collections import Counter
from functools import partial
from hashlib import sha256
from html import escape
from importlib import import_module
from importlib.resources import files
from itertools import islice
from os import fsync
from pathlib import Path
from string import Template
from typing import IO, TYPE_CHECKING, Any

from techforge._masking import mask, mask_all, printable
from techforge.batch.campaign import LEDGER
from techforge.batch.ledger import Entry, Ledger, State
from techforge.errors import InvalidArgumentError, TechForgeError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator
    from decimal import Decimal

_OURS = (
    *("row_key", "line", "state", "job_id", "project_id"),
    *("file", "reason", "attempts", "submitted_at", "ended_at"),
)
_NUMBERS = {"line", "attempts"}
_PARQUET_BATCH = 5_000
"""Rows of a Parquet file that are written together."""
_MAX_REASONS = 2_000
"""Different reasons that are counted; rows with any further reason are counted as one."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_NUMBER = re.compile(r"[+-]?[\d.,]*\d(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
# Reasons that differ only in numbers, addresses and ids are one reason. A status code is kept.
_VARIABLE_PART = re.compile(
    r"(?<=: )(?P<status>[1-5]\d\d)(?=:| \()|\b[a-z]+://\S+|\b(?=[\w-]*\d)[\w-]{8,}|\b\d+([.:]\d+)*",
    re.IGNORECASE,
)


class ReportError(TechForgeError):
    """The report could not be written. An earlier report in its place is unchanged."""


def write(ledger: Ledger, to: str | os.PathLike[str], *, price: Decimal | None = None) -> Path:
    """Write a report of a campaign, and return its path.

    Every format has all rows. The HTML page adds figures, the reasons, and a next step for each row that is
    not done. The file appears when it is complete, and replaces an earlier report. URLs in params and reasons
    are written without their query; your own columns are written unchanged.

    Args:
        ledger: The open ledger.
        to: The file. Its suffix chooses the format: .csv, .html or .parquet, which needs pyarrow.
        price: Your price of one job. With it, the HTML page shows the cost.

    >>> from techforge.batch import Ledger
    >>> with Ledger(folder / "campaign.sqlite") as ledger:
    ...     write(ledger, folder / "report.csv").name
    'report.csv'

    Raises:
        InvalidArgumentError: `to` cannot be a report, or `price` is negative or not a number.
        ReportError: the file could not be written, or pyarrow is not installed.
    """
    target = Path(to)
    writers: dict[str, Callable[[Ledger, IO[bytes]], None]] = {
        ".csv": _csv,
        ".parquet": _parquet,
        ".html": partial(_html, price=price),
    }
    writer = writers.get(target.suffix.lower())
    if writer is None:
        raise InvalidArgumentError("to", f"{target.name!r} must end with .csv, .parquet or .html")
    if price is not None and not (price.is_finite() and price >= 0):
        raise InvalidArgumentError("price", f"{price} is not a price; it must be 0 or more")
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
        reason = error.strerror or str(error)
        raise ReportError(
            f"{target} could not be written: {reason}. An earlier report is unchanged."
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return target


# --- tables


def _columns_and_rows(ledger: Ledger) -> tuple[list[str], Iterator[list[Any]]]:
    """Return the column names, and the rows."""
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
            name = f"metadata.{name}"  # noqa: PLW2901 - until the name is free
        taken.add(name)
        own.append(name)

    def rows() -> Iterator[list[Any]]:
        for entry in ledger.entries():
            if entry.n > last:  # added since the first pass, so its columns may be missing in the header
                return
            # A pending row with a time was refused (429): nothing of it is submitted.
            sent = None if entry.state is State.PENDING else entry.posted_at
            yield [
                *(entry.key, entry.line, str(entry.state), entry.job_id, entry.project_id, entry.file),
                *(
                    entry.reason and printable(mask(entry.reason)),
                    entry.attempts,
                    _utc(sent),
                    _utc(entry.ended_at),
                ),
                *(_text(entry.metadata.get(name)) for name in metadata),
                *(_text(mask_all(entry.params.get(name))) for name in params),
            ]

    return [*_OURS, *own, *params], rows()


def _text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _utc(at: float | None, layout: str = "%Y-%m-%dT%H:%M:%SZ") -> str | None:
    return None if at is None else time.strftime(layout, time.gmtime(at))


def _harmless(cell: object) -> object:
    # A spreadsheet would run a formula in anybody's metadata (CWE-1236).
    if isinstance(cell, str) and cell.startswith(_FORMULA) and not _NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell


def _csv(ledger: Ledger, file: IO[bytes]) -> None:
    names, rows = _columns_and_rows(ledger)
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
    names, rows = _columns_and_rows(ledger)
    types = [arrow.int64() if name in _NUMBERS else arrow.string() for name in _OURS]
    types += [arrow.string()] * (len(names) - len(_OURS))
    schema = arrow.schema(list(zip(names, types, strict=True)))
    with parquet.ParquetWriter(file, schema) as writer:
        while batch := list(islice(rows, _PARQUET_BATCH)):
            columns = map(arrow.array, zip(*batch, strict=True), types)
            writer.write_batch(arrow.record_batch(list(columns), schema=schema))


# --- the page

_CLOCK = "%Y-%m-%d %H:%M:%S"
_CODE = re.compile("`([^`]*)`")
_NEXT_STEPS = {
    "done": "",
    "submitted": "`techforge batch resume{options}` waits for its video.",
    "posting": "A run is sending its request. If none is active: `techforge batch resume{options}` "
    "changes it to unknown, because its job may exist.",
    "pending": "`techforge batch resume{options}` submits it.",
    "failed": "The API refused it: no job exists. Run `techforge batch retry --state failed{options}`, then "
    "`techforge batch resume{options}`.",
    "failed with a job": "Its job may have been paid for, so `techforge batch retry` leaves it alone. To pay "
    "for another job, change its row_key in the manifest and run the manifest again.",
    "unknown": "A job may exist. Look for the project in your job service. If it has a job: "
    "`techforge batch unknown --job {key}=JOB{options}`. If not: "
    "`techforge batch unknown --resubmit {key}{options}` submits the row again, which may be paid twice.",
    "unknown with a job": "`techforge batch unknown --check{options}` asks storage for the video of its job.",
    "skipped": "Nothing was sent. Correct line {line} of the manifest and run the manifest again.",
}
"""What to do about a row. `{key}` is the row's key, quoted for a shell; `{options}` chooses the campaign."""


def _kind(entry: Entry) -> str:
    """Return the state of a row, and whether its job is known if the next step depends on that."""
    kind = f"{entry.state} with a job"
    return kind if entry.job_id and kind in _NEXT_STEPS else str(entry.state)


def _common(reason: str) -> str:
    """Return a reason without the parts that differ from row to row."""
    common = _VARIABLE_PART.sub(lambda found: found["status"] or "…", printable(mask(reason[:8_000]))[:2_000])
    return common if len(common) <= 300 else f"{common[:299]}…"


def _json(entry: Entry) -> str:
    """Return a row as JSON that is safe inside a script element."""
    own = {name: _text(value) for name, value in entry.metadata.items() if value is not None}
    row = (entry.key, entry.line, _kind(entry), entry.attempts, entry.job_id, entry.project_id, entry.file)
    text = json.dumps([*row, entry.reason and printable(mask(entry.reason)), own], separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _table(caption: str, last_column: str, rows: Iterable[tuple[str, int, str]]) -> str:
    """Return a table of states, row counts and texts, which are HTML."""
    body = "\n".join(
        f'<tr><th scope="row"><i class="dot {kind}"></i>{kind}</th><td>{number:,}</td><td>{text}</td></tr>'
        for kind, number, text in rows
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("State", "Rows", last_column))
    return (
        f'<table class="stacked states"><caption>{caption}</caption><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{body}</tbody></table>"
    )


def _reasons(reasons: Counter[tuple[str, str]]) -> str:
    rows = [(state, number, escape(reason)) for (state, reason), number in reasons.most_common(10)]
    if rest := reasons.total() - sum(number for _, number, _ in rows):
        rows.append(("all", rest, "other reasons"))
    return _table("Reasons", "Reason; … stands for what differs", rows) if rows else ""


def _summary(kinds: Counter[str], first: float | None, last: float | None, price: Decimal | None) -> str:
    rows = kinds.total()
    jobs = sum(kinds[kind] for kind in ("done", "submitted", "failed with a job", "unknown with a job"))
    most = jobs + kinds["unknown"] + kinds["posting"]
    # Rounded down: 100 % means all rows.
    done = f"; {math.floor(1000 * kinds['done'] / rows) / 10:g} % are done" if rows else ""
    said = [f"Rows: {rows:,}{done}.", f"Jobs: {jobs:,}"]
    said[-1] += f", and up to {most:,} if each row without an answer has one." if most > jobs else "."
    if price is not None:
        cost = f"{jobs * price:,f}" + f", up to {most * price:,f}" * (most > jobs)
        said.append(f"Cost: {cost}, computed from your own price of {price:f} for each job.")
    if first is not None:
        said.append(f"First submission: {_utc(first, _CLOCK)} UTC.")
    if last is not None:
        said.append(f"Last end: {_utc(last, _CLOCK)} UTC.")
    return "".join(f"<p>{text}</p>" for text in said)


def _html(ledger: Ledger, file: IO[bytes], *, price: Decimal | None) -> None:
    page = files("techforge.batch").joinpath("report.html").read_text("utf-8")
    # The rows are at the top of the page, so that one pass over the ledger makes both rows and figures.
    above, _, below = page.partition("$rows")
    below, tag, script = below.rpartition("<script>")
    digest = sha256(script.partition("</script>")[0].encode()).digest()
    place = Path(ledger.name).name if not ledger.is_shared else ledger.name
    title = escape(ledger.campaign_name)
    options = f" --campaign {shlex.quote(ledger.campaign_name)}"
    options += f" --ledger {shlex.quote(ledger.name)}" * (ledger.name != LEDGER)

    def put(text: str, **values: str) -> None:
        # A file name may hold bytes that are not UTF-8.
        file.write((Template(text).substitute(values) if values else text).encode(errors="replace"))

    def steps(key: str, line: str) -> dict[str, str]:
        return {kind: step.format(key=key, line=line, options=options) for kind, step in _NEXT_STEPS.items()}

    put(above, title=title, hash=b64encode(digest).decode())
    put('{"steps":' + json.dumps(steps("{key}", "{line}")).replace("<", "\\u003c") + ',"rows":[')
    kinds, reasons = Counter[str](), Counter[tuple[str, str]]()
    first = last = None
    for entry in ledger.entries():
        put((",\n" if kinds else "\n") + _json(entry))
        state = str(entry.state)
        kinds[_kind(entry)] += 1
        if state in {"failed", "unknown", "skipped"}:
            reason = state, _common(entry.reason or "no reason was given")
            is_full = len(reasons) >= _MAX_REASONS and reason not in reasons
            reasons[(state, "other reasons") if is_full else reason] += 1
        if entry.posted_at is not None and state != "pending":
            first = min(first or entry.posted_at, entry.posted_at)
        # An unknown row has the time at which it became unknown, not the end of its job.
        if entry.ended_at is not None and state in {"done", "failed"}:
            last = max(last or entry.ended_at, entry.ended_at)
    put("\n]}")
    shown = {kind: kinds[kind] for kind in _NEXT_STEPS if kinds[kind]}
    said = ", ".join(f"{number:,} {kind}" for kind, number in shown.items())
    bar = "".join(f'<i class="{kind}" style="flex-grow: {number}"></i>' for kind, number in shown.items())
    next_steps = {kind: _CODE.sub(r"<code>\1</code>", escape(s)) for kind, s in steps("KEY", "LINE").items()}
    choices = {"open": "not done", "all": "all"} | {kind: f"{kind} ({n:,})" for kind, n in shown.items()}
    put(
        below,
        title=title,
        made=_utc(time.time(), _CLOCK) or "",
        ledger=escape(place),
        bar=f'<div class="bar" role="img" aria-label="rows by state: {said}">{bar}</div>' if said else "",
        summary=_summary(kinds, first, last, price),
        states=_table("Rows by state", "Next step", [(k, n, next_steps[k]) for k, n in shown.items()]),
        reasons=_reasons(reasons),
        csv=escape(f"techforge batch report report.csv{options}"),
        choices="".join(f'<option value="{value}">{text}</option>' for value, text in choices.items()),
    )
    put(tag + script)
