"""Compare the SDK with its peers, and with what is underneath: `nox -s bench`.

A ratio is to httpx doing the same in the same round; every figure is the median of the rounds. The server and
the client have a core each. It prints tables, writes reports/bench.json and reports/bench.png, and with
`--publish` puts them into docs/performance.md. `nox -s bench-smoke` sees that all of this works.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from contextlib import contextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import asdict, frozen
from clients import CLIENTS, Client

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent
REPORTS = Path("reports")
PAGE = HERE.parent / "docs" / "performance.md"
BEGIN, END = "<!-- figures: written by nox -s bench -- --publish -->\n", "<!-- end of figures -->\n"
Figures = dict[str, dict[str, float]]


@frozen
class Size:
    """How much is done for a figure."""

    rounds: int = 7
    starts: int = 3
    """Processes of which the least is taken, for what happens once in each."""
    calls: int = 1000
    tasks: int = 2000
    in_flight: tuple[int, ...] = (1, 10, 100, 1000)
    jobs: int = 10_000
    ramp: float = 30.0
    seconds: float = 60.0
    download: int = 2 * 2**30


SMOKE = Size(1, 1, 20, 20, (1, 10), 20, 0.2, 0.5, 2**22)


def main(arguments: list[str]) -> None:
    """Measure, print, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--smoke", action="store_true", help="do little of everything: the figures mean nothing"
    )
    parser.add_argument("--only", nargs="*", help="parts: start, sync, async, growth, waits, download")
    parser.add_argument("--keep", action="store_true", help="take the other parts from the last run")
    parser.add_argument("--publish", action="store_true", help="put the figures into docs/performance.md")
    options = parser.parse_args(arguments)
    size = SMOKE if options.smoke else Size()
    parts = {
        "start": starts,
        "sync": sync_calls,
        "async": async_calls,
        "growth": growth,
        "waits": waits,
        "download": downloads,
    }
    chosen = {name: part for name, part in parts.items() if not options.only or name in options.only}
    REPORTS.mkdir(exist_ok=True)
    kept = REPORTS / "bench.json"
    results: dict[str, Figures] = json.loads(kept.read_text("utf-8"))["results"] if options.keep else {}
    record = {"machine": machine(), "versions": versions(), "size": asdict(size), "results": results}
    for name, part in chosen.items():
        print(f"\n{name} …", file=sys.stderr, flush=True)
        results[name] = part(size)
        print(table(name, results[name]), flush=True)
        kept.write_text(json.dumps(record, indent=2), encoding="utf-8")
    if {"start", "sync", "async", "growth"} <= results.keys():
        draw(results, REPORTS / "bench.png")
    if options.publish:
        publish(record)


# --- what is measured -----------------------------------------------------------------------------


def starts(size: Size) -> Figures:
    """Importing; building a client, too; and calling once, too."""
    with server() as url:

        def measure(client: Client) -> dict[str, float]:
            figures: dict[str, float] = {}
            for until in ("imports", "build", "call"):
                if until == "imports" or getattr(client, until):
                    child = partial(in_child, "start", client=asdict(client), url=url, until=until)
                    runs = [child() for _ in range(size.starts)]
                    figures[f"{until} ms"] = 1000 * min(run["cpu"] for run in runs)
                    figures["modules"] = runs[0]["modules"] if until != "call" else figures["modules"]
            return figures

        return compared(installed(CLIENTS), measure, size.rounds)


def sync_calls(size: Size) -> Figures:
    """One blocking call at a time."""
    with server() as url:

        def measure(client: Client) -> dict[str, float]:
            return micro(in_child("calls", client=asdict(client), url=url, count=size.calls))

        return compared([client for client in installed(CLIENTS) if client.call], measure, size.rounds)


def async_calls(size: Size) -> Figures:
    """A hundred calls at once."""
    in_flight = min(100, size.in_flight[-1])
    return at_once([client for client in installed(CLIENTS) if client.acall], size, in_flight)


def growth(size: Size) -> Figures:
    """What a call costs, by how many of them there are at once."""
    chosen = [client for client in installed(CLIENTS) if client.name in {"httpx", "aiohttp", "techforge"}]
    figures: Figures = defaultdict(dict)
    for in_flight in size.in_flight:
        for name, measured in at_once(chosen, size, in_flight).items():
            figures[name][f"{in_flight} us"] = measured["cpu us"]
    return dict(figures)


def waits(size: Size) -> Figures:
    """Thousands of jobs waited for at once."""
    with server() as url:
        arguments = {"jobs": size.jobs, "ramp": size.ramp, "seconds": size.seconds}
        measured = in_child("waits", url=url, **arguments)
    return {
        "techforge": {
            "jobs": size.jobs,
            "cpu ms a job-minute": measured["cpu"] * 1000,
            "memory KB a job": measured["memory"] / 1000,
        }
    }


def downloads(size: Size) -> Figures:
    """A large file, beside what curl takes for it."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        source, target = Path(folder, "source"), Path(folder, "target")
        with source.open("wb") as file:
            file.truncate(size.download)
        with server(str(source)) as url:

            def curl(_client: Client) -> dict[str, float]:
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                command = ["curl", "--silent", "--fail", "--output", str(target), f"{url}/object"]
                subprocess.run(command, check=True, preexec_fn=pinned)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                return {"cpu s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}

            def ours(_client: Client) -> dict[str, float]:
                measured = in_child("download", url=url, to=str(target))
                return {"cpu s": measured["cpu"], "memory MiB": measured["memory"]}

            def measure(client: Client) -> dict[str, float]:
                return {"curl": curl, "techforge": ours}[client.name](client)

            names = ["curl", "techforge"] if shutil.which("curl") else ["techforge"]
            return compared([Client(name, "", "") for name in names], measure, min(3, size.rounds))


def at_once(chosen: list[Client], size: Size, in_flight: int) -> Figures:
    """Measure calls on asyncio."""
    with server() as url:

        def measure(client: Client) -> dict[str, float]:
            arguments = {"client": asdict(client), "url": url, "count": size.tasks, "in_flight": in_flight}
            return micro(in_child("tasks", **arguments))

        return compared(chosen, measure, size.rounds)


def micro(measured: dict[str, float]) -> dict[str, float]:
    """Return a measurement in microseconds."""
    return {"cpu us": measured["cpu"] * 1e6, "time us": measured["seconds"] * 1e6}


def compared(chosen: list[Client], measure: Any, rounds: int) -> Figures:
    """Measure each client in each round, in any order; return medians, also of the ratios to the first."""
    seen: dict[str, dict[str, list[float]]] = {client.name: defaultdict(list) for client in chosen}
    base = chosen[0].name
    for _ in range(rounds):
        this: Figures = {}
        for client in random.sample(chosen, len(chosen)):
            this[client.name] = measure(client)
            print(".", end="", file=sys.stderr, flush=True)
        for name, figures in this.items():
            for figure, value in figures.items():
                seen[name][figure].append(value)
                if figure != "modules" and not figure.startswith("time") and figure in this[base]:
                    ratio = f"{figure.rpartition(' ')[0]} ratio"
                    seen[name][ratio].append(value / this[base][figure])
    return {name: {f: statistics.median(v) for f, v in figures.items()} for name, figures in seen.items()}


# --- processes ------------------------------------------------------------------------------------


def pinned(last: int = 1) -> None:
    """Take the last core but so many, where that can be said: the client has one, the server another."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[-1 - last % len(cores)]})


@contextmanager
def server(*arguments: str) -> Iterator[str]:
    """Run the server; the value is its URL."""
    command = [sys.executable, str(HERE / "server.py"), *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, preexec_fn=partial(pinned, 0)
    ) as process:
        try:
            assert process.stdout  # noqa: S101 - for type checkers
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def in_child(task: str, **arguments: Any) -> dict[str, float]:
    """Run a function of measure.py in a process of its own."""
    command = [sys.executable, str(HERE / "measure.py"), task, json.dumps(arguments)]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, preexec_fn=pinned)
    measured: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return measured


def installed(clients: list[Client]) -> list[Client]:
    """Return the clients that can be imported."""
    return [client for client in clients if find_spec(client.imports.split()[1].split(".")[0].rstrip(","))]


# --- what is made of it ---------------------------------------------------------------------------


def versions() -> dict[str, str]:
    """Return what was compared."""
    found = {}
    for name in [*(client.name for client in CLIENTS), "httpcore", "httpx2"]:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """Say on what it was measured."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{python}, {platform.machine()}, {os.cpu_count()} cores"


def table(name: str, figures: Figures) -> str:
    """Return figures as a table in Markdown, the best first."""
    columns = list(dict.fromkeys(column for row in figures.values() for column in row))
    first = next((column for column in columns if column.endswith("ratio")), columns[0])
    rows = sorted(figures.items(), key=lambda item: item[1].get(first, 0.0))
    lines = [f"| {name} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for client, row in rows:
        shown = [number(row[column]) if column in row else "-" for column in columns]
        title = f"**{client}**" if client.startswith("techforge") else client
        lines.append(f"| {title} | {' | '.join(shown)} |")
    return "\n".join(lines)


def number(value: float) -> str:
    """Return a number with the digits that mean something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def draw(results: dict[str, Figures], to: Path) -> None:
    """Draw the ratios as bars, and the growth as lines."""
    from matplotlib import pyplot as plt

    panels = [
        ("start", "build ratio", "import, and build a client"),
        ("start", "call ratio", "import, build, and call once"),
        ("sync", "cpu ratio", "one call at a time"),
        ("async", "cpu ratio", "100 calls at once, on asyncio"),
    ]
    groups = {client.name: client.group for client in CLIENTS}
    colours = {"ours": "tab:orange", "SDK": "tab:blue", "HTTP": "tab:gray"}
    figure, axes = plt.subplots(1, 5, figsize=(22, 6), layout="constrained")
    for axis, (part, column, title) in zip(axes, panels, strict=False):
        rows = sorted(
            ((row[column], name) for name, row in results[part].items() if column in row), reverse=True
        )
        bars = axis.barh(
            [name for _, name in rows],
            [v for v, _ in rows],
            color=[colours[groups[name]] for _, name in rows],
        )
        axis.bar_label(bars, [f"{value:.2f}" for value, _ in rows], padding=3)
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set_xscale("log")
        axis.xaxis.set_minor_formatter("")
        axis.margins(x=0.25)
        axis.set_title(title)
        axis.set_xlabel("CPU, as a multiple of httpx")
    lines = {"techforge": "tab:orange", "httpx": "black", "aiohttp": "tab:gray"}
    for name, row in results["growth"].items():
        in_flight = [int(column.split()[0]) for column in row]
        axes[4].plot(in_flight, [*row.values()], marker="o", label=name, color=lines[name])
    axes[4].set(
        xscale="log", yscale="log", title="CPU of a call", xlabel="calls at once", ylabel="microseconds"
    )
    axes[4].legend()
    axes[4].grid(alpha=0.3)
    figure.savefig(to, dpi=90)
    plt.close(figure)


def publish(record: dict[str, Any]) -> None:
    """Put tables and chart into docs/performance.md."""
    known = ", ".join(f"{name} {release}" for name, release in record["versions"].items())
    about = f"{record['machine']}; {record['size']['rounds']} rounds. {known}."
    tables = "\n\n".join(table(name, figures) for name, figures in record["results"].items())
    text = PAGE.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    tail = rest.partition(END)[2]
    PAGE.write_text(
        f"{head}{BEGIN}{about}\n\n![](performance.png)\n\n{tables}\n{END}{tail}", encoding="utf-8"
    )
    shutil.copyfile(REPORTS / "bench.png", PAGE.with_suffix(".png"))


if __name__ == "__main__":
    main(sys.argv[1:])
