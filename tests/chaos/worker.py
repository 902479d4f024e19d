"""One process of a campaign under attack: `worker.py run|work LEDGER URL KEY [OPTIONS AS JSON]`.

Its times are short, so that what a killed process has left is found out soon.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from techforge import TechForge
from techforge.batch import reconciler

if TYPE_CHECKING:
    from techforge.batch import Dispatcher


def dispatcher(ledger: str) -> Dispatcher | None:
    """Return one that takes workers for dead after three seconds."""
    if not ledger.startswith("postgresql:"):
        return None
    from techforge.batch.procrastinate import Procrastinate  # noqa: PLC0415 - not on SQLite

    return Procrastinate(ledger, worker_timeout=3.0)


def main() -> None:
    """Run a campaign's rows, or join those who do."""
    what, ledger, url, key, options = sys.argv[1:]
    reconciler.LEASE_SECONDS = 3.0
    given = {"concurrency": 8, "dispatcher": dispatcher(ledger), **json.loads(options)}
    rate = given.pop("max_rate", None)
    with TechForge(key, base_url=url, timeout=3.0, retry_timeout=5.0) as client:
        paced = client if rate is None else client.with_options(max_rate=rate)
        ended = (
            paced.batch.work(ledger, **given)
            if what == "work"
            else paced.batch.run(given.pop("rows"), ledger=ledger, **given)
        )
        for entry in ended:
            sys.stdout.write(f"{entry.key} {entry.state}\n")


if __name__ == "__main__":
    main()
