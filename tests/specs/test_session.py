"""The session `spec` of noxfile.py works on a fresh clone. It installs packages: the default run skips it."""

import json
import subprocess
import sys
from pathlib import Path

import spec


def test_the_session_on_a_fresh_clone(tmp_path: Path) -> None:
    """The session installs all that it needs: the contract of the clone itself changes nothing, and fits."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", spec.ROOT, clone], check=True)
    command = [sys.executable, "scripts/dev.py", "spec", "--json", "openapi.json"]

    done = subprocess.run(command, cwd=clone, check=False, capture_output=True, encoding="utf-8")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "level": "none",
        "version": json.loads(done.stdout)["version"],
        "fits": True,
        "changes": [],
        "wrapper": [],
        "todo": [],
    }
