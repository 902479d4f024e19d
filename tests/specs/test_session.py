"""The session `spec` of noxfile.py works on a fresh clone. It installs packages: the default run skips it."""

import json
import subprocess
import sys

import pytest

import spec


def test_the_session_on_a_fresh_clone(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The session installs all that it needs: the contract of the clone itself changes nothing, and fits."""
    # Not in tmp_path: the search for secrets would find those in the tests of the clone.
    clone = tmp_path_factory.mktemp("fresh") / "clone"
    command = ["git", "clone", "--quiet", "--no-hardlinks", str(spec.ROOT), str(clone)]
    subprocess.run(command, check=True)
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
        "failing": [],
        "overlay": [],
    }
