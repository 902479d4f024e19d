"""Measure campaigns: `nox -s bench-batch`.

A million rows are loaded into a ledger and asked about; and campaigns of two sizes are run against a server
on loopback that takes 5 ms for a submission, each beside one that is written by hand (by_hand.py). The server
has a core of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench import pinned, server

from techforge import TechForge
from techforge.batch import Ledger, State, changes, load

if TYPE_CHECKING:
    from collections.abc import Sequence

MIB = 2**20


def main(arguments: Sequence[str]) -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--load", type=int, default=1_000_000, help="rows of the ledger (%(default)s)")
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 50_000], help="of each campaign")
    parser.add_argument("--concurrency", type=int, default=64, help="submissions at once (%(default)s)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        measure_ledger(Path(folder), options.load)
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            measure_campaign(Path(folder), rows, options.concurrency)


def measure_ledger(folder: Path, count: int) -> None:
    """Load a manifest, and ask what a running campaign asks."""
    manifest, path = folder / "manifest.csv", folder / "ledger.sqlite"
    with manifest.open("w", encoding="utf-8") as file:
        file.write("row_key,image_url,audio_url,customer\n")
        for n in range(count):
            file.write(f"r{n},https://cdn.example.com/{n}.png,https://cdn.example.com/{n}.mp3,c{n}\n")
    client = TechForge("bench-key-of-twenty-characters", base_url="http://127.0.0.1:9")
    before = peak()
    with Ledger(path) as ledger:
        began = time.monotonic()
        load(ledger, manifest, client._session.settings)
        seconds, more = time.monotonic() - began, (peak() - before) / MIB
        print(f"{count:,} rows loaded in {seconds:.1f} s, {more:.0f} MiB more")
        for name, ask in {
            "status": ledger.counts,
            "the next 500 pending": lambda: ledger.pending(time.time(), 500, count // 2),
            "a claim": lambda: ledger.apply(changes.claim(count // 2, 1, 0.0, 0.0)),
        }.items():
            began = time.monotonic()
            ask()
            print(f"  {name}: {(time.monotonic() - began) * 1000:.1f} ms")
    print(f"  {size(folder) / count:.0f} bytes of disk a row")


def measure_campaign(folder: Path, count: int, concurrency: int) -> None:
    """Run a campaign to its end."""
    (folder / "object").write_bytes(b"x" * 100)
    rows = (
        {
            "row_key": f"r{n}",
            "image_url": f"https://cdn.example.com/{n}.png",
            "audio_url": "https://cdn.example.com/a.mp3",
        }
        for n in range(count)
    )
    pinned()
    with (
        server("--delay", "0.005", str(folder / "object")) as url,
        TechForge("bench-key-of-twenty-characters", base_url=url) as client,
    ):
        began, cpu = time.monotonic(), time.process_time()
        ended = client.batch.run(rows, ledger=folder / "ledger.sqlite", concurrency=concurrency)
        done = sum(entry.state is State.DONE for entry in ended)
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
        beside = by_hand(url, folder, count, concurrency)
    print(
        f"{done:,} of {count:,} rows done: {count / seconds:.0f} rows/s, {cpu / count * 1000:.2f} s of CPU "
        f"for 1,000, {size(folder) / count:.0f} bytes of disk a row, {peak() / MIB:.0f} MiB at the most\n"
        f"  by hand: {count / beside['seconds']:.0f} rows/s, {beside['cpu'] / count * 1000:.2f} s of CPU for "
        f"1,000: ours takes {seconds / beside['seconds']:.2f} times as long"
    )


def by_hand(url: str, folder: Path, count: int, concurrency: int) -> dict[str, float]:
    """Run the same campaign, written by hand, in a process of its own."""
    script = Path(__file__).with_name("by_hand.py")
    command = [sys.executable, str(script), url, str(folder / "by_hand.sqlite"), str(count), str(concurrency)]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    measured: dict[str, float] = json.loads(result.stdout)
    return measured


def peak() -> float:
    """Return the most bytes of memory ever in use."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def size(folder: Path) -> int:
    """Return the bytes that a ledger takes on disk."""
    return sum(path.stat().st_size for path in folder.glob("ledger.sqlite*"))


if __name__ == "__main__":
    os.environ.pop("TFI_BASE_URL", None)
    main(sys.argv[1:])
