"""`techforge batch` on PostgreSQL: what an operator sees and runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from support.postgres import campaign
from typer.testing import CliRunner

from techforge.batch import Ledger, State
from techforge.batch.postgres_session import Address
from techforge.cli.app import app
from techforge.mock import MockServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
PROGRAM = """
from techforge.batch import runner
from techforge.cli import main
runner.GRACE_SECONDS = 2.0
main()
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a manifest of 32 rows."""
    lines = "".join(f"k{n},https://a.example/{n}.png,https://a.example/a.mp3\n" for n in range(32))
    (tmp_path / "c.csv").write_text("row_key,image_url,audio_url\n" + lines, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MockServer]:
    """Start a mock whose jobs end at once."""
    with MockServer(render=False, job_polls=0) as mock:
        monkeypatch.setenv("TFI_API_KEY", mock.api_key)
        monkeypatch.setenv("TFI_BASE_URL", mock.url)
        yield mock


@pytest.fixture
def url(postgres_url: str) -> str:
    """Return the URL of a ledger that does not exist yet."""
    return campaign(postgres_url)


def techforge(*arguments: str) -> Any:
    """Run the command line in this process."""
    return CliRunner().invoke(app, ["batch", *arguments], catch_exceptions=False)


def test_sigterm_while_the_database_is_locked(here: Path, server: MockServer, url: str) -> None:
    """It kept the process alive for half a minute, and then 32 ids were lost."""
    server.faults.add("delay=1;operation=createJob;times=0")
    address = Address.of(url)
    command = [sys.executable, "-c", PROGRAM, "batch", "run", "c.csv", "--ledger", url]
    with (
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process,
        address.connect() as db,
    ):
        while server.journal.count(operation="createJob") < 32:
            time.sleep(0.05)
        address.prepare(db)
        with db.transaction():
            db.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
            time.sleep(1.5)  # the responses arrive
            process.send_signal(signal.SIGTERM)
            started = time.monotonic()
            _, output = process.communicate(timeout=30)
            assert time.monotonic() - started < 6
    jobs = {record.job_id for record in server.journal.requests(operation="createJob")}
    assert len(jobs) == 32
    assert {job for job in jobs if job and job in output} == jobs
    assert process.returncode == 143
    # The journal has the ids, too.
    assert techforge("run", "c.csv", "--ledger", url).exit_code == 0
    with Ledger(url) as ledger:
        assert ledger.counts()[State.DONE] == 32
    assert server.journal.count(operation="createJob") == 32
    del here


def test_sigterm_of_an_idle_worker_while_the_database_is_locked(
    here: Path, server: MockServer, url: str
) -> None:
    """It lived on after the lock: the dispatcher failed while it was cancelled, and was started again."""
    server.faults.add("delay=1;operation=createJob;times=0")
    assert techforge("load", "c.csv", "--ledger", url).exit_code == 0
    command = [sys.executable, "-c", PROGRAM, "batch", "worker", "--ledger", url, "--concurrency", "1"]
    address = Address.of(url)
    with ExitStack() as stack, address.connect() as db:
        workers = [
            stack.enter_context(subprocess.Popen(command, stderr=subprocess.DEVNULL)) for _ in range(2)
        ]
        stack.callback(lambda: [worker.kill() for worker in workers])
        while server.journal.count(operation="createJob") < 3:
            time.sleep(0.05)
        address.prepare(db)
        statement = "SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = current_schema()"
        tables = ", ".join(name for (name,) in db.execute(statement))
        with db.transaction():
            db.execute(f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE".encode())
            time.sleep(3)  # the dispatcher waits for its tables
            for worker in workers:
                worker.send_signal(signal.SIGTERM)
            started = time.monotonic()
            codes = [worker.wait(30) for worker in workers]
            assert time.monotonic() - started < 6
    assert codes == [143, 143]
    del here


def test_a_ledger_that_does_not_exist_yet_has_its_own_exit_code(
    here: Path, server: MockServer, url: str
) -> None:
    """A supervisor starts the worker again then, but not after a wrong option."""
    assert techforge("worker", "--ledger", url).exit_code == 12
    waited = techforge("worker", "--ledger", url, "--wait-for-ledger", "1")
    assert waited.exit_code == 12
    assert "there is no ledger" in waited.stderr
    assert techforge("worker", "--ledger", "postgresql://h/d?schema=public").exit_code == 2
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-c", PROGRAM, "batch", "worker", "--ledger", url, "--wait-for-ledger", "30"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        assert "waiting up to 30 s for the ledger" in process.stderr.readline()
        assert techforge("load", "c.csv", "--ledger", url).exit_code == 0
        assert process.wait(30) == 0
    assert server.journal.count(operation="createJob") == 32
    del here


def test_a_failover_is_confirmed(here: Path, server: MockServer, url: str) -> None:
    """Until then, every command that submits ends with an exit code of its own."""
    assert techforge("load", "c.csv", "--ledger", url).exit_code == 0
    with Ledger(url) as ledger:
        server_fact = {"system identifier": "1", "timeline": None, "table": None}
        change = "UPDATE facts SET value = ? WHERE name = 'server'"
        ledger._db.run(lambda db: db.execute(change, (json.dumps(server_fact),)))
    for command in ("resume", "worker"):
        refused = techforge(command, "--ledger", url)
        assert refused.exit_code == 13
        assert "it is another server (system identifier 1, now " in refused.stderr
    assert techforge("run", "c.csv", "--ledger", url).exit_code == 13
    assert techforge("status", "--ledger", url).exit_code == 0
    assert server.journal.count(operation="createJob") == 0
    assert techforge("resume", "--ledger", url, "--after-failover").exit_code == 0
    assert server.journal.count(operation="createJob") == 32
    assert techforge("worker", "--ledger", url).exit_code == 0
    del here


@pytest.mark.parametrize("is_shared", [False, True], ids=["sqlite", "postgres"])
def test_all_pending_rows_are_doubted(is_shared: bool, here: Path, server: MockServer, url: str) -> None:
    """After a backup was restored: nothing is submitted for them before somebody decides."""
    ledger = ("--ledger", url) if is_shared else ()
    assert techforge("load", "c.csv", *ledger).exit_code == 0
    doubted = techforge("unknown", "--pending", *ledger)
    assert "32 rows are unknown now. List with: techforge batch unknown" in doubted.stderr
    assert techforge("resume", *ledger).exit_code == 5
    assert server.journal.count(operation="createJob") == 0
    assert "the ledger was restored from a backup" in techforge("unknown", *ledger).stdout
    assert "1 row is pending again" in techforge("unknown", "k0", "--resubmit", *ledger).stderr
    del here
