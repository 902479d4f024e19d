"""Measure campaigns that several workers run on PostgreSQL: `nox -s bench-workers`.

Two workers run a campaign as fast as they can, against a server on loopback that takes 5 ms for a submission.
Then three share a limit that they are told; and then one that they must find, and that drops in the middle.
`TECHFORGE_TEST_POSTGRES` names a PostgreSQL server; without it one is started, from a wheel.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from bench import server

from techforge import TechForge
from techforge.batch import Ledger, State, load
from techforge.batch.dispatch import default_dispatcher
from techforge.mock import MockServer

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from support.postgres import postgres

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

KEY = "bench-key-of-twenty-characters"
WORKER = """
import sys
from techforge import TechForge

url, key, ledger, concurrency, rate = sys.argv[1:]
options = {"max_rate": float(rate)} if rate != "none" else {}
with TechForge(key, base_url=url, **options) as client:
    for _ in client.batch.work(ledger, concurrency=int(concurrency)):
        pass
"""


def main(arguments: Sequence[str]) -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000], help="of each campaign")
    parser.add_argument("--concurrency", type=int, default=64, help="submissions at once (%(default)s)")
    parser.add_argument("--seconds", type=int, default=40, help="of each shared limit (%(default)s)")
    options = parser.parse_args(arguments)
    with postgres() as place:
        for rows in options.rows:
            throughput(place, rows, options.concurrency)
        shared(place, "told", options.seconds, 50, 50, told=50)
        shared(place, "found, and drops", 2 * options.seconds, 60, 30, told=None)


@contextmanager
def workers(count: int, *arguments: str) -> Iterator[None]:
    """Run workers, until all have ended."""
    with ExitStack() as stack:
        command = [sys.executable, "-c", WORKER, *arguments]
        processes = [stack.enter_context(subprocess.Popen(command)) for _ in range(count)]
        yield
        assert all(process.wait() == 0 for process in processes)  # noqa: S101 - a worker that fails says why


def loaded(place: str, count: int) -> str:
    """Load a campaign; return its ledger."""
    ledger = f"{place}{'&' if '?' in place else '?'}campaign=bench_{uuid4().hex[:8]}"
    names = (f"https://cdn.example.com/{n}.png" for n in range(count))
    rows = ({"image_url": name, "audio_url": "https://cdn.example.com/a.mp3"} for name in names)
    with Ledger(ledger) as book:
        client = TechForge(KEY, base_url="http://127.0.0.1:9")
        load(book, rows, client._session.settings)
        asyncio.run(default_dispatcher(ledger).enqueue(book.chunks()))
    return ledger


def throughput(place: str, count: int, concurrency: int) -> None:
    """Let two workers run a campaign to its end."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "object")
        file.write_bytes(b"x" * 100)
        ledger = loaded(place, count)
        with server("--delay", "0.005", str(file)) as url:
            began = time.monotonic()
            before = os.times()
            with workers(2, url, KEY, ledger, str(concurrency), "none"):
                pass
            seconds = time.monotonic() - began
            after = os.times()
        with Ledger(ledger) as book:
            entries = book.entries(State.DONE)
            times = [(entry.posted_at or 0.0, entry.ended_at or 0.0) for entry in entries]
    span = max(end for _, end in times) - min(begin for begin, _ in times)
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    print(
        f"2 workers: {len(times):,} of {count:,} rows done, {count / span:.0f} rows/s from first submission "
        f"to last end,\n  {seconds:.1f} s in all, {cpu / count * 1000:.2f} s of CPU for 1,000 rows"
    )


def shared(place: str, name: str, seconds: int, first: int, then: int, *, told: float | None) -> None:
    """Let three workers share a limit, which the server changes in the middle."""
    count = int((first + then) / 2 * seconds / 2)  # a submission and a look for each
    ledger = loaded(place, count)
    with MockServer(render=False, job_polls=0) as mock:
        mock.faults.add(limit(first))
        rate = "none" if told is None else str(told)
        with workers(3, mock.url, mock.api_key, ledger, "32", rate):
            time.sleep(seconds / 2)
            changed = time.time()
            if first != then:
                mock.faults.add(limit(then))
        answers = [record for record in mock.journal.requests(server="api") if record.operation]
    times = sorted(answer.time for answer in answers)
    steady = [at for at in times if times[0] + 3 <= at <= times[-1] - 3]
    most = max(sum(at <= other < at + 1 for other in times) for at in times)
    print(
        f"3 workers, a limit that is {name}: mean {len(steady) / (steady[-1] - steady[0]):.1f} requests/s, "
        f"{most} in the fullest second"
    )
    if first != then:
        settled = [answer for answer in answers if answer.time > changed + 10]
        refused = sum(answer.status == 429 for answer in settled)
        span = settled[-1].time - settled[0].time
        print(
            f"  10 s after it dropped to {then}/s: {refused / len(settled):.1%} of answers are 429, "
            f"{(len(settled) - refused) / span:.1f} requests/s are accepted"
        )


def limit(rate: int) -> str:
    """Return the fault that lets so many requests a second pass."""
    return f"status=429;over={rate};times=0"


if __name__ == "__main__":
    os.environ.pop("TFI_BASE_URL", None)
    main(sys.argv[1:])
