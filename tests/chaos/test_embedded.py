"""One process on SQLite that is killed, runs out of disk, and meets a server that is not well."""

from __future__ import annotations

import random
import resource
import subprocess
import sys
import time
from pathlib import Path

from support.chaos import KILLS, WORKER, attacked

from techforge.batch import State


def test_killed_again_and_again(file: str) -> None:
    """Nothing is submitted twice, nothing is lost, and what is unknown nobody could know."""
    with attacked(file, 25 * KILLS, faults=3.0, max_rate=60, out=str(Path(file).parent / "out")) as campaign:
        for _ in range(KILLS):
            process = campaign.start("run")
            time.sleep(random.uniform(0.5, 1.3))  # noqa: S311
            campaign.kill(process)
        campaign.start("run")
        campaign.wait()
        counts = campaign.reckon()
    assert counts[State.DONE] > 10 * KILLS
    assert len(list((Path(file).parent / "out").glob("*.mp4"))) == counts[State.DONE]


def test_a_disk_that_fills(file: str) -> None:
    """The process ends with an error; with room on the disk the next one goes on."""
    with attacked(file, 300) as campaign:
        campaign.start("run", max_jobs=1)
        campaign.wait()
        campaign.processes.clear()
        room = max(path.stat().st_size for path in Path(file).parent.glob("techforge.sqlite*"))
        limited = (
            "import resource, signal, runpy, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
            f"resource.setrlimit(resource.RLIMIT_FSIZE, ({room + 30_000}, resource.RLIM_INFINITY));"
            "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
        )
        arguments = [str(WORKER), "run", file, campaign.mock.url, campaign.mock.api_key, '{"rows": []}']
        full = subprocess.run(
            [sys.executable, "-c", limited, *arguments], check=False, capture_output=True, timeout=60
        )
        assert full.returncode != 0
        assert b"cannot be read or written" in full.stderr
        assert 0 < campaign.ended() < 300
        campaign.kills = 1  # what was under way when it ended is in doubt
        campaign.start("run")
        campaign.wait()
        campaign.reckon()
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
