"""Test the contract tests: each mutant is a mock server with one deviation, and they must find it.

Other servers differ from the mock in what the contract permits: they must pass.

    python3 scripts/dev.py contract-mutants               a sample; each commit tries another one
    python3 scripts/dev.py contract-mutants --seed SEED   the sample of that seed, to repeat a failure
    python3 scripts/dev.py contract-mutants --all         the whole catalogue
    python3 scripts/dev.py contract-mutants TEXT …        the mutants whose name contains one of the texts

The report contains the output of schemathesis for each mutant.
"""

import argparse
import importlib
import io
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Literal

from attrs import asdict, frozen

from contract import CHECKS, REPORTS, ROOT, URL_SECONDS, suite
from dev import default_seed

REPORT = REPORTS.with_name("contract-mutants.json")
ORIGINAL = "the unmodified server"
PERMITTED = "permitted"
AT_ONCE = 2
SAMPLE_SIZE = 50
# A fork of a process that has imported all of this is ready at once.
PRELOADED = [
    "mutants",
    "extra_checks",
    *(
        f"schemathesis.{name}"
        for name in (
            "cli.commands.run.executor",
            "engine.core",
            "engine.run.unit",
            "engine.run.stateful",
            "specs.openapi._hypothesis",
            "specs.openapi.adapter.v3_1",
            "specs.openapi.analysis",
            "specs.openapi.coverage",
            "specs.openapi.stateful.links",
        )
    ),
]


@frozen
class Trial:
    """How the contract tests did on one server."""

    name: str
    family: str
    failed: list[str]
    """The checks that found something."""
    error: str
    """What kept the tests from a verdict, if anything did: that is no check that has failed."""
    seconds: float
    output: str

    @property
    def verdict(self) -> Literal["passed", "killed", "ERROR", "REFUSED", "SURVIVED"]:
        """The outcome; what is in capitals is none to be content with."""
        if self.error:
            return "ERROR"
        if self.family in {ORIGINAL, PERMITTED}:
            return "REFUSED" if self.failed else "passed"
        return "killed" if self.failed else "SURVIVED"

    def __str__(self) -> str:
        """Return a row of the table."""
        return (
            f"{self.verdict:8} {self.seconds:5.1f} s  {self.name:65} {self.error or ', '.join(self.failed)}"
        )


def main(arguments: Sequence[str]) -> int:
    """Try a sample, a part or all of the catalogue; return 0 if the tests judge each server correctly."""
    parser = argparse.ArgumentParser(prog="dev.py contract-mutants")
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="try the mutants whose name contains a TEXT")
    parser.add_argument("--all", action="store_true", help="try the whole catalogue")
    parser.add_argument("--seed", help="of the sample (default: the commit)")
    options = parser.parse_args(arguments)
    mutants = servers(json.loads((ROOT / "openapi.json").read_text("utf-8")))
    if options.texts or options.all:
        names = chosen(mutants, options.texts)
    else:
        seed = options.seed or default_seed()
        names = sampled(mutants, seed)
        print(f"Trying a sample: {len(names) - 1} of {len(mutants)} servers. To repeat it:")
        print(f"    python3 scripts/dev.py contract-mutants --seed {seed}", flush=True)
    return report(tried(names), len(names))


def sampled(mutants: Iterable[str], seed: str) -> list[str]:
    """Return the unmodified server and a sample of the mutants that depends on nothing but the seed."""
    names = list(mutants)
    return [ORIGINAL, *random.Random(seed).sample(names, min(SAMPLE_SIZE, len(names)))]  # noqa: S311 - no secret


def catalogue(document: Any) -> dict[str, Any]:
    """Return the mutants of the server that a document describes, by name."""
    sys.path.append(str(CHECKS))
    mutants = importlib.import_module("mutants").catalogue(document)
    return {mutant.name: mutant for mutant in mutants}


def servers(document: Any) -> dict[str, Any]:
    """Return the mutants, and the servers that do what the contract permits, by name."""
    mutants = catalogue(document)
    return {each.name: each for each in importlib.import_module("deviations").variations()} | mutants


def chosen(mutants: Iterable[str], texts: Sequence[str]) -> list[str]:
    """Return the names that contain one of the texts; all of them if there is none."""
    names = [name for name in (ORIGINAL, *mutants) if not texts or any(text in name for text in texts)]
    if not names:
        sys.exit(f"No mutant has {' or '.join(texts)} in its name; without arguments, all are tried.")
    return names


def tried(names: Sequence[str]) -> Iterator[Trial]:
    """Try servers, each in a process of its own; the results come in the same order."""
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(CHECKS), os.environ.get("PYTHONPATH")]))
    context.set_forkserver_preload(PRELOADED)
    with ProcessPoolExecutor(AT_ONCE, context, max_tasks_per_child=1) as pool:
        yield from pool.map(try_one, names)


def try_one(name: str) -> Trial:
    """Run the contract tests against a server, up to the first failure."""
    started, output = time.monotonic(), io.StringIO()
    family = ""
    with redirect_stdout(output), redirect_stderr(output):
        try:
            family, failed, errors = verdict(name)
        except Exception as error:  # noqa: BLE001 - whatever it is, it says nothing about the mutant
            failed, errors = [], [f"{type(error).__name__}: {error}"]
    return Trial(name, family, failed, ", ".join(errors), time.monotonic() - started, output.getvalue())


def verdict(name: str) -> tuple[str, list[str], list[str]]:
    """Return the family of a server, the checks that have failed on it, and what else has gone wrong."""
    # The tests of this script need no schemathesis.
    from schemathesis.cli import schemathesis  # noqa: PLC0415

    from techforge.mock import MockServer  # noqa: PLC0415

    document = json.loads((ROOT / "openapi.json").read_text("utf-8"))
    mutant = servers(document).get(name)
    family = mutant.family if mutant else ORIGINAL
    server_of = mutant.serving if mutant else MockServer
    status = None
    os.environ |= {"CONTRACT_URL_SECONDS": str(URL_SECONDS), "CONTRACT_STOP": "1"}
    with tempfile.TemporaryDirectory() as folder:
        run, events = Path(folder, "run.json"), Path(folder, "events.ndjson")
        # Where schemathesis keeps its memory is relative: a trial has its own.
        with chdir(folder), server_of(render=False, job_polls=0, ttl=URL_SECONDS) as server:
            arguments = [*suite(server.url, server.api_key), "--max-failures", "1", "--no-color"]
            arguments += ["--report-json-path", str(run), "--report-ndjson-path", str(events)]
            try:
                schemathesis.main(arguments, prog_name="schemathesis")
            except SystemExit as end:
                status = end.code
        errors = [each["title"] for each in json.loads(run.read_text("utf-8"))["errors"]]
        failed = failed_checks(events.read_text("utf-8"))
    errors += without_effect(mutant) if mutant else []
    if bool(status) != bool(failed) and not errors:
        errors = [f"schemathesis ends with {status}, which does not fit the checks that failed"]
    return family, failed, errors


def without_effect(mutant: Any) -> list[str]:
    """Return an error if a mutant has answered each request as the unmodified server does.

    It was not killed, and it has not survived: it does nothing, or no check sends what it reacts to.
    """
    idle = mutant.family != PERMITTED and not mutant.effects
    return ["no response differed from the unmodified server's"] if idle else []


def failed_checks(events: str) -> list[str]:
    """Return the names of the checks that failed, from schemathesis' report of everything."""
    recorders = [
        json.loads(line).get("ScenarioFinished", {}).get("recorder", {}) for line in events.splitlines()
    ]
    checks = [
        check for recorder in recorders for case in recorder.get("checks", {}).values() for check in case
    ]
    return list(dict.fromkeys(check["name"] for check in checks if check["status"] == "failure"))


def report(trials: Iterable[Trial], count: int) -> int:
    """Show each trial when it is over, then all of them in short; the result is 0 if none is in capitals."""
    done: list[Trial] = []
    for trial in trials:
        done.append(trial)
        print(f"[{len(done):{len(str(count))}}/{count}] {trial}", flush=True)
    REPORT.parent.mkdir(exist_ok=True)
    rows = [asdict(trial) | {"verdict": trial.verdict} for trial in done]
    REPORT.write_text(json.dumps(rows, indent=2, ensure_ascii=False), "utf-8")
    wrong = [trial for trial in done if trial.verdict.isupper()]
    for trial in wrong:
        print(f"\nWhat schemathesis said of {trial.name}:\n{trial.output}")
    families = dict.fromkeys(trial.family for trial in done)
    print()
    for family in families:
        verdicts = Counter(trial.verdict for trial in done if trial.family == family)
        print(f"{family:30} {', '.join(f'{count} {verdict}' for verdict, count in verdicts.items())}")
    mutants = [trial for trial in done if trial.family not in {ORIGINAL, PERMITTED}]
    killed = sum(trial.verdict == "killed" for trial in mutants)
    print(f"\n{killed} of {len(mutants)} killed. What schemathesis said: {REPORT}")
    if wrong:
        print("Close each hole with a check in tests/contract/, not by dropping the mutant:")
        print(*wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
