"""A campaign under attack, and the reckoning afterwards."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from attrs import define, field

from techforge.batch import Ledger, NoLedgerError, State
from techforge.mock import MockServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from techforge.batch import Entry

WORKER = Path(__file__).parents[1] / "chaos" / "worker.py"
KILLS = int(os.environ.get("TECHFORGE_CHAOS_KILLS", "4"))
"""How often processes are killed: `nox -s chaos` asks for more."""
at_length = pytest.mark.skipif(KILLS < 10, reason="takes long: run by -s chaos")
CONCURRENCY = 8
FAULTS = (
    "status=429;retry-after=0",
    "status=500",
    "status=500;create=1",
    "close=before-body",
    "close=after-body",
    "reset=1;close=after-body",
)
"""What the server does to a submission now and then; some of them it has accepted."""


RECKONINGS: list[str] = []
"""What the attacks have come to, for the summary."""


@define
class Campaign:
    """The processes of a campaign, and the server that they ask."""

    ledger: str
    mock: MockServer
    count: int
    options: dict[str, Any] = field(factory=dict[str, Any])
    processes: list[subprocess.Popen[bytes]] = field(factory=list["subprocess.Popen[bytes]"])
    kills: int = 0
    stderr: Any = field(factory=tempfile.TemporaryFile)

    def rows(self) -> list[dict[str, str]]:
        """Return a manifest."""
        audio = "https://cdn.example.com/a.mp3"
        names = [f"https://cdn.example.com/{n}.png" for n in range(self.count)]
        return [{"image_url": name, "audio_url": audio} for name in names]

    def start(self, what: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start a process."""
        given = json.dumps({**self.options, **options} | ({"rows": self.rows()} if what == "run" else {}))
        command = [sys.executable, str(WORKER), what, self.ledger, self.mock.url, self.mock.api_key, given]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=self.stderr)
        self.processes.append(process)
        return process

    def loaded(self) -> None:
        """Wait until the loader has done its work, so that others can join."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with suppress(NoLedgerError):
                if self.counts().total():
                    return
            time.sleep(0.05)
        raise TimeoutError("nothing was loaded")

    def joined(self, count: int) -> None:
        """Wait until this many workers have joined; a busy machine takes seconds to start one."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with Ledger(self.ledger, new=False) as ledger:
                if len(ledger.get_fact("workers") or ()) >= count:
                    return
            time.sleep(0.1)
        raise TimeoutError("the workers did not join")

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill a process, unless it has ended."""
        self.kills += process.poll() is None
        process.kill()
        process.wait()
        self.processes.remove(process)

    def wait(self, timeout: float = 120) -> None:
        """Wait until all processes have ended by themselves."""
        deadline = time.monotonic() + timeout
        for process in self.processes:
            code = process.wait(deadline - time.monotonic())
            self.stderr.seek(0)
            assert code == 0, self.stderr.read().decode()

    def counts(self) -> Counter[State]:
        """Return how many rows are in each state."""
        with Ledger(self.ledger, new=False) as ledger:
            return Counter(ledger.counts())

    def ended(self) -> int:
        """Return how many rows have ended."""
        counts = self.counts()
        return counts[State.DONE] + counts[State.FAILED] + counts[State.UNKNOWN]

    def reckon(self) -> Counter[State]:
        """Hold the ledger against what the server has accepted; return how many rows are in each state."""
        with Ledger(self.ledger, new=False) as ledger:
            entries = list(ledger.entries())
        accepted: Counter[str] = Counter()
        faults: dict[str, set[str]] = {}
        ids: dict[str, str] = {}
        for record in self.mock.journal.requests(operation="createJob"):
            with suppress(ValueError):
                project = json.loads(record.body)["project_id"]
                faults.setdefault(project, set()).add(record.fault.spec if record.fault else "")
                if record.job_id is not None:
                    accepted[project] += 1
                    ids[project] = record.job_id
        assert len(entries) == self.count, "rows were lost"
        assert [project for project, times in accepted.items() if times > 1] == [], "rows were posted twice"
        for entry in entries:
            if entry.state is State.DONE:
                assert ids[entry.project_id] == entry.job_id, "a row is done without its job"
            else:
                assert entry.state is State.UNKNOWN, f"row {entry.key} has not ended: {entry}"
                self._explain(entry, faults.get(entry.project_id, set()))
        missing = set(accepted) - {entry.project_id for entry in entries}
        assert not missing, "jobs were accepted that no row knows"
        died = sum(_died(entry) for entry in entries if entry.state is State.UNKNOWN)
        assert died <= CONCURRENCY * self.kills, "more rows are unknown than were under way"
        counts = Counter(entry.state for entry in entries)
        doubtful = [entry.project_id for entry in entries if entry.state is State.UNKNOWN]
        made = sum(project in accepted for project in doubtful)
        RECKONINGS.append(
            f"{self.kills} kills, {self.count:,} rows: {counts[State.DONE]:,} done, {len(doubtful)} unknown "
            f"({made} of them accepted), 0 lost, 0 posted twice"
        )
        return counts

    @staticmethod
    def _explain(entry: Entry, faults: set[str]) -> None:
        """Hold that a row is unknown only where nobody could know."""
        if _died(entry):
            return
        ambiguous = any("status=500" in fault or "close=" in fault for fault in faults)
        assert ambiguous, f"{entry.key} is unknown without a cause: {entry.reason}"


def _died(entry: Entry) -> bool:
    """Tell whether a row's process was killed, or frozen for longer than it waits for an answer."""
    return "process ended" in str(entry.reason) or "no response in time" in str(entry.reason)


@contextmanager
def attacked(ledger: str, count: int, *, faults: float = 0.0, **options: Any) -> Iterator[Campaign]:
    """Yield a campaign; `faults` is how many a second the server is given."""
    with MockServer(render=False, job_seconds=0.2) as mock:
        mock.faults.add("delay=0.03;operation=createJob;times=0")
        campaign = Campaign(ledger, mock, count, options)
        over = threading.Event()

        def vex() -> None:
            while faults and not over.wait(random.expovariate(faults)):
                mock.faults.add(f"{random.choice(FAULTS)};operation=createJob")  # noqa: S311

        thread = threading.Thread(target=vex)
        thread.start()
        try:
            yield campaign
        finally:
            over.set()
            thread.join()
            campaign.stderr.close()
            for process in campaign.processes:
                process.kill()
                process.wait()
