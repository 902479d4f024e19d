"""Show how a client finds the pace that an API allows: `nox -s bench-pace`.

For each colour, 64 callers share one client for 60 seconds. A mock server, in a process of its own, allows
100 requests a second, and 33 from half-time on. Printed are the goodput and the share of 429s once there were
10 seconds to settle; drawn, to reports/pace.png, are the rates, the requests under way, and the 429s.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
from attrs import define, field
from matplotlib import pyplot as plt

from mock_process import Address, mock_server
from techforge import AsyncTechForge, RateLimitError, TechForge

if TYPE_CHECKING:
    from collections.abc import Sequence

CALLERS = 64
SETTLE = 10.0
"""Seconds that a client is given to find the pace."""
MEDIA = "https://cdn.example.com"
CHART = Path("reports", "pace.png")


@define
class Run:
    """What was seen of one client."""

    colour: str
    allowed: tuple[float, float]
    seconds: float
    answers: list[tuple[float, int]] = field(factory=list[tuple[float, int]])
    """When the server answered, and with which status."""
    samples: list[tuple[float, float, int, float]] = field(factory=list[tuple[float, float, int, float]])
    """When, the client's rate, requests under way, and how many may be."""
    served: Counter[int] = field(factory=Counter[int])

    def settled(self, half: int) -> tuple[float, float]:
        """Return the share of what was allowed that was used, and that of 429s, after SETTLE."""
        start, end = self.seconds / 2 * half + SETTLE, self.seconds / 2 * (half + 1)
        statuses = Counter(status for at, status in self.answers if start <= at < end)
        return statuses[200] / (end - start) / self.allowed[half], statuses[429] / max(1, statuses.total())


def use_in_threads(run: Run, address: Address, path: str) -> None:
    """Let threads share a client."""
    until = time.monotonic() + run.seconds
    with TechForge(address["api_key"], base_url=address["url"]) as client:

        def work(caller: int) -> None:
            while time.monotonic() < until:
                try:
                    client.storage.sign(path)
                except RateLimitError:
                    continue
                run.served[caller] += 1

        threads = [threading.Thread(target=work, args=[caller]) for caller in range(CALLERS)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            watch(run, client)
            time.sleep(0.05)


def use_in_tasks(run: Run, address: Address, path: str) -> None:
    """Let tasks share a client."""

    async def main() -> None:
        until = time.monotonic() + run.seconds
        async with AsyncTechForge(address["api_key"], base_url=address["url"]) as client:

            async def work(caller: int) -> None:
                while time.monotonic() < until:
                    try:
                        await client.storage.sign(path)
                    except RateLimitError:
                        continue
                    run.served[caller] += 1

            async def look() -> None:
                while time.monotonic() < until:
                    watch(run, client)
                    await asyncio.sleep(0.05)

            await asyncio.gather(look(), *map(work, range(CALLERS)))

    asyncio.run(main())


def watch(run: Run, client: Any) -> None:
    """Note what a client's limiter does now; no user needs to know, so there is no public name for it."""
    limiter = client._session.settings.limiter
    run.samples.append((time.time(), limiter.rate, limiter._in_flight, limiter._concurrency_limit))


def measure(colour: str, allowed: tuple[float, float], seconds: float) -> Run:
    """Use a client of a colour against a server that changes its mind at half-time."""
    run = Run(colour, allowed, seconds)
    with (
        mock_server("--no-render", "--job-polls", "0") as mock,
        httpx.Client(base_url=mock.address["url"]) as control,
        TechForge(mock.address["api_key"], base_url=mock.address["url"]) as client,
    ):
        job = client.jobs.create(image_url=f"{MEDIA}/image.png", audio_url=f"{MEDIA}/audio.mp3")
        path = client.jobs.wait(job).path
        limit(control, allowed[0])
        began = time.time()
        change = threading.Timer(seconds / 2, limit, [control, allowed[1]])
        change.start()
        {"threads": use_in_threads, "tasks": use_in_tasks}[colour](run, mock.address, path)
        change.join()
        journal = control.get("/__mock__/journal", timeout=60).json()
    run.answers = [(at, r["status"]) for r in journal if 0 <= (at := r["time"] - began) < seconds]
    run.samples = [(at - began, *rest) for at, *rest in run.samples]
    return run


def limit(control: httpx.Client, rate: float) -> None:
    """Let the mock allow so many requests a second, and no more than it did before."""
    spec = f"status=429;retry-after=1;over={rate};times=0"
    control.post("/__mock__/faults", json={"spec": spec}).raise_for_status()


def main(arguments: Sequence[str]) -> None:
    """Measure both colours, print a table, and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second (%(default)g)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of a run (%(default)g)")
    options = parser.parse_args(arguments)
    allowed = (options.rate, round(options.rate / 3))
    runs = [measure(colour, allowed, options.seconds) for colour in ("threads", "tasks")]
    print(f"{CALLERS} callers, {options.seconds:g} s; after {SETTLE:g} s to settle:")
    for run in runs:
        for half, rate in enumerate(allowed):
            goodput, refused = run.settled(half)
            print(f"  {run.colour:8} {rate:5g}/s allowed: {goodput:4.0%} used, {refused:5.1%} refused")
        served = sorted(run.served.values())
        print(f"  {run.colour:8} calls served to each caller: {served[0]} to {served[-1]}")
    CHART.parent.mkdir(exist_ok=True)
    draw(runs)
    print(f"Drawn: {CHART}")


def draw(runs: Sequence[Run]) -> None:
    """Draw what happened, a column for each run."""
    figure, rows = plt.subplots(
        3, len(runs), sharex=True, sharey="row", figsize=(12, 8), layout="constrained"
    )
    for run, (rates, under_way, refusals) in zip(runs, rows.T, strict=True):
        seconds = np.arange(run.seconds + 1)
        good, bad = (
            np.histogram([at for at, status in run.answers if status == code], seconds)[0]
            for code in (200, 429)
        )
        at, rate, in_flight, most = np.array(run.samples).T
        half = run.seconds / 2
        rates.set_title(f"{CALLERS} {run.colour}, one client")
        rates.stairs(run.allowed, [0, half, run.seconds], color="black", linestyle="--", label="allowed")
        rates.plot(at, np.where(np.isinf(rate), np.nan, rate), color="tab:orange", label="limiter's rate")
        rates.stairs(good, seconds, color="tab:blue", label="accepted")
        rates.set_ylim(0, 2.5 * run.allowed[0])
        rates.set_ylabel("requests a second")
        under_way.plot(at, np.where(np.isinf(most), np.nan, most), color="tab:orange", label="at most")
        under_way.plot(at, in_flight, color="tab:blue", label="under way")
        under_way.set_ylim(0, CALLERS * 1.1)
        under_way.set_ylabel("requests in flight")
        refusals.stairs(bad, seconds, color="tab:red", fill=True, label="answered 429")
        refusals.set_ylabel("429s a second")
        refusals.set_xlabel("seconds")
        for axes in (rates, under_way, refusals):
            axes.grid(alpha=0.3)
            axes.legend(loc="upper right")
    figure.savefig(CHART, dpi=110)


if __name__ == "__main__":
    main(sys.argv[1:])
