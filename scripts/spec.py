"""Report what another contract would change: for the API's users, for the SDK's users, and in the wrapper.

Usage:
    python3 scripts/dev.py spec FILE-OR-URL            report the changes, and write nothing
    python3 scripts/dev.py spec --json FILE-OR-URL     print the report as one JSON object
    python3 scripts/dev.py spec --apply FILE-OR-URL    write openapi.json, generated/ and CHANGELOG.md

FILE-OR-URL is one OpenAPI 3 document, as JSON or YAML. Exit codes: 0 the changes were reported, 1 the
document cannot be applied, 2 it is not a contract.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from attrs import evolve, field, frozen

import changes.api
import changes.sdk
import regenerate
from changes import Change, Impact
from changes.candidate import BadCandidateError, read
from changes.limits import limits, new_operations
from changes.tolerance import as_yaml, proposals
from changes.version import Proposal, for_sdk, level_of, propose
from regenerate import RefusedError
from techforge import __version__

ROOT = Path(__file__).resolve().parent.parent
UNRELEASED = "## Unreleased\n"


def main() -> int:
    """Run the command line; the result is its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("candidate", metavar="FILE-OR-URL")
    parser.add_argument("--apply", action="store_true", help="write it")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")
    arguments = parser.parse_args()
    try:
        candidate = read(str(arguments.candidate))
        regenerate.require_pins()
        # Inside the checkout, since only a rename within one filesystem is atomic.
        with TemporaryDirectory(
            prefix=".regenerate-", dir=ROOT if arguments.apply else None, ignore_cleanup_errors=True
        ) as folder:
            report = examine(candidate, Path(folder))
            print(json.dumps(report.as_json(), indent=2, ensure_ascii=False) if arguments.json else report)
            outcome = apply(candidate, report, Path(folder)) if arguments.apply else ""
    except BadCandidateError as reason:
        print(f"spec: {reason}", file=sys.stderr)
        return 2
    except (RefusedError, OSError) as reason:
        print(f"spec: nothing is written: {reason}", file=sys.stderr)
        return 1
    if outcome:
        print(f"\n{outcome}", file=sys.stderr if arguments.json else sys.stdout)
    return 0


@frozen
class Report:
    """What a candidate changes, for whom."""

    api: list[Change]
    sdk: list[Change] = field(factory=list[Change])
    wrapper: list[str] = field(factory=list[str])
    """mypy's errors; empty if the types fit."""
    todo: list[str] = field(factory=list[str])
    """What to do before the candidate can be applied."""
    failing: list[str] = field(factory=list[str])
    """The checks that fail once the candidate is applied, and why."""
    overlay: list[dict[str, Any]] = field(factory=list[dict[str, Any]])
    """Actions that make generated code read the responses of new operations tolerantly."""
    fresh: Path | None = None
    """The client generated from it; None if the generator failed."""

    @property
    def proposal(self) -> Proposal:
        """The next version: changes of the SDK decide, and those of the API that it cannot hide."""
        return propose(__version__, [*self.sdk, *for_sdk(self.api)])

    @property
    def fits(self) -> bool:
        """Whether the wrapper works with the generated code as it is."""
        breaking = any(change.work and change.impact is Impact.BREAKING for change in self.api)
        return self.fresh is not None and not self.todo and not self.wrapper and not breaking

    def as_json(self) -> dict[str, Any]:
        """Return the report for programs; the level of a change is what it means to its own audience."""
        proposal = self.proposal
        return {
            "level": proposal.level,
            "version": proposal.version,
            "fits": self.fits,
            "changes": [
                {
                    "level": level_of(change.impact, __version__),
                    "audience": audience,
                    "path": change.where,
                    "change": change.what,
                }
                for audience, found in (("api", self.api), ("sdk", self.sdk))
                for change in found
            ],
            "wrapper": [*self.wrapper, *self.work],
            "todo": self.todo,
            "failing": self.failing,
            "overlay": self.overlay,
        }

    @property
    def work(self) -> list[str]:
        """What to change in the wrapper where mypy does not see it, with the places that require it."""
        places: dict[str, list[str]] = {}
        for change in self.api:
            if change.work:
                places.setdefault(f"{change.what}: {change.work}", []).append(change.where)
        return [f"{', '.join(where)}: {work}" for work, where in places.items()]

    @property
    def silent(self) -> list[Change]:
        """Breaking changes that mypy cannot see, and that have no rule for the wrapper."""
        return [
            change
            for change in self.api
            if change.silent and not change.work and change.impact is Impact.BREAKING
        ]

    def __str__(self) -> str:
        unknown = "unknown: there is no generated client"
        parts = {
            "To be done first": self.todo,
            "The user of the API": _lines(self.api) or ["no change"],
            "The user of the SDK, after regenerating": _lines(self.sdk)
            or ["no change" if self.fresh else unknown],
            "The wrapper": ["its types do not fit; mypy says:", *self.wrapper]
            if self.wrapper
            else ["its types fit" if self.fresh else unknown],
            "To be changed in the wrapper, where mypy does not see it": self.work,
            "Added to generator-overlay.yaml by --apply; check it": [
                f"{next(iter(action.keys() - {'target', 'description'}))} {action['target']}"
                for action in self.overlay
            ],
            "Checks that fail after --apply, until the code follows": self.failing,
            "mypy cannot see these: check by hand whether the wrapper has to change": _lines(self.silent),
        }
        sections = ["\n  ".join([title, *lines]) for title, lines in parts.items() if lines]
        return "\n\n".join([f"Proposed version: {self._version()}", *sections])

    def _version(self) -> str:
        proposal = self.proposal
        if proposal.level == "none":
            return f"{proposal.version} (none: nothing changes)"
        reason, *others = proposal.reasons
        more = f", and {len(others)} more" if others else ""
        # What will have to change in the wrapper is not known yet.
        unsure = proposal.level != "major" and (not self.fits or self.silent)
        higher = " or higher" if unsure else ""
        why = f"{reason.where}: {reason.what}{more}"
        return f"{proposal.version}{higher} ({proposal.level}, now {__version__}): {why}"


def _lines(found: list[Change]) -> list[str]:
    """Return changes as text, breaking ones first."""
    return [str(change) for impact in Impact for change in found if change.impact is impact]


def examine(candidate: dict[str, Any], folder: Path) -> Report:
    """Return what a candidate changes; write its client and a copy of the wrapper into a folder."""
    contract = json.loads((ROOT / "openapi.json").read_text(encoding="utf-8"))
    known = limits(contract)
    failing = [line for line in limits(candidate) if line not in known]
    failing += new_operations(contract, candidate)
    report = Report(changes.api.compare(contract, candidate), failing=failing)
    tolerant, todo = regenerate.tolerant(candidate)
    overlay = proposals(contract, tolerant)
    report = evolve(report, overlay=overlay)
    tolerant, _ = regenerate.relaxed(tolerant, overlay)
    fresh = folder / "generated"
    try:
        regenerate.generate(tolerant, folder)
    except RefusedError as problem:
        todo.append(_shortened(str(problem)))
        # After a warning there is a client, without what the generator does not support.
        if not fresh.exists():
            return evolve(report, todo=todo)
    shutil.copytree(ROOT / "wrapper", folder / "wrapper", ignore=shutil.ignore_patterns("__pycache__"))
    sdk: list[Change] = []
    try:
        sdk = changes.sdk.compare(ROOT, folder)
    except LookupError as problem:
        todo.append(str(problem))
    return evolve(report, sdk=sdk, wrapper=check_wrapper(folder), todo=todo, fresh=fresh)


def _shortened(problem: str) -> str:
    """Return a message of the generator without the parts of the document that it quotes."""
    words = re.sub(r"^\{$.*?^\}$", "", problem, flags=re.MULTILINE | re.DOTALL)
    # The generator prints a status as the repr of an object.
    words = re.sub(r"status code <\S+ object at \w+>", "a status", words)
    return "\n    ".join(line for line in words.splitlines() if line and "open an issue" not in line)


def check_wrapper(folder: Path) -> list[str]:
    """Return mypy's errors in the modules that use generated code, which is in the same folder."""
    uses = re.compile(rf"^\s*(from|import) {regenerate.PACKAGE}\b", re.MULTILINE)
    modules = [path for path in (folder / "wrapper").rglob("*.py") if uses.search(path.read_text("utf-8"))]
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
    # A cache would have the errors of another candidate; other modules need packages that are not installed.
    command += ["--cache-dir", os.devnull, "--follow-imports", "silent"]
    command += ["--no-error-summary", "--no-pretty", "--hide-error-context"]
    command += [str(path.relative_to(folder)) for path in sorted(modules)]
    result = subprocess.run(command, cwd=folder, check=False, capture_output=True, encoding="utf-8")
    if result.returncode > 1:
        return [f"mypy failed: {result.stdout}{result.stderr}"]
    return [line for line in result.stdout.splitlines() if ": error: " in line]


def apply(candidate: dict[str, Any], report: Report, folder: Path) -> str:
    """Write openapi.json, generated/, CHANGELOG.md and the overlay, all or none; return what to do next."""
    contract, changelog = ROOT / "openapi.json", ROOT / "CHANGELOG.md"
    text = json.dumps(candidate, indent=2, ensure_ascii=False) + "\n"
    if text.encode() == contract.read_bytes():
        return "openapi.json is the same already; nothing is written."
    if report.todo or report.fresh is None:
        raise RefusedError("see 'To be done first'")
    fresh = {path: folder / "next" / path.name for path in (contract, changelog)}
    (folder / "next").mkdir()
    fresh[contract].write_text(text, encoding="utf-8")
    fresh[changelog].write_text(_with_entry(changelog.read_text(encoding="utf-8"), report), encoding="utf-8")
    if report.overlay:
        overlay = ROOT / "generator-overlay.yaml"
        fresh[overlay] = folder / "next" / overlay.name
        text = overlay.read_text(encoding="utf-8") + as_yaml(report.overlay)
        fresh[overlay].write_text(text, encoding="utf-8")
    fresh[regenerate.GENERATED / regenerate.PACKAGE] = report.fresh / regenerate.PACKAGE
    regenerate.swap(fresh, aside=folder / "old")
    return (
        f"openapi.json, generated/{', generator-overlay.yaml' * bool(report.overlay)} and CHANGELOG.md are"
        ' written. Next: CONTRIBUTING.md, "When the contract changes", from step 3 on.\n'
        "Before you take another candidate in its place: "
        "`git restore openapi.json generated generator-overlay.yaml CHANGELOG.md`."
    )


def _with_entry(changelog: str, report: Report) -> str:
    """Return the changelog with the changes of the contract below the heading of the next release."""
    found = [change for change in report.api if change.impact is not Impact.DOC_ONLY]
    lines = [f"- {change}\n" for change in found] or ["- Only documentation has changed.\n"]
    entry = f"\n### The API's contract (the next version is {report.proposal.version} or higher)\n" + "".join(
        lines
    )
    head, heading, rest = changelog.partition(UNRELEASED)
    if not heading:
        head, first, rest = changelog.partition("## ")
        return f"{head}{UNRELEASED}{entry}\n{first}{rest}"
    return f"{head}{heading}{entry}{rest}"


if __name__ == "__main__":
    sys.exit(main())
