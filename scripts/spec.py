"""Say what another contract would change: for the API's user, for the SDK's, and for the wrapper.

Usage:
    python3 scripts/dev.py -s spec -- FILE-OR-URL            change nothing, and print it
    python3 scripts/dev.py -s spec -- --apply FILE-OR-URL    write openapi.json, generated/ and CHANGELOG.md

FILE-OR-URL is an OpenAPI 3 document in one piece, as JSON or YAML. The exit code is 0 when the changes
could be told, 2 when the document is none, and 1 when it cannot be taken over.
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
from changes.version import Proposal, for_sdk, propose
from regenerate import RefusedError
from techforge import __version__

ROOT = Path(__file__).resolve().parent.parent
UNRELEASED = "## Unreleased\n"


def main() -> int:
    """Run the command line; the result is its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("candidate", metavar="FILE-OR-URL")
    parser.add_argument("--apply", action="store_true", help="take it over")
    arguments = parser.parse_args()
    apply = bool(arguments.apply)
    try:
        candidate = read(str(arguments.candidate))
        regenerate.require_pins()
        # Inside the checkout, since only a rename within one filesystem is atomic.
        with TemporaryDirectory(
            prefix=".regenerate-", dir=ROOT if apply else None, ignore_cleanup_errors=True
        ) as folder:
            report = examine(candidate, Path(folder))
            print(report)
            outcome = take_over(candidate, report, Path(folder)) if apply else ""
    except BadCandidateError as reason:
        print(f"spec: {reason}", file=sys.stderr)
        return 2
    except RefusedError as reason:
        print(f"spec: {reason}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"spec: nothing is written: {error}", file=sys.stderr)
        return 1
    if outcome:
        print(f"\n{outcome}")
    return 0


# What it would change


@frozen
class Report:
    """What a candidate changes."""

    api: list[Change]
    sdk: list[Change] = field(factory=list[Change])
    wrapper: list[str] = field(factory=list[str])
    """Where its types no longer fit, as mypy says it; empty if they do."""
    todo: list[str] = field(factory=list[str])
    """What has to be done before the candidate can be taken over."""
    fresh: Path | None = None
    """The client generated from it; None if the generator gives none."""

    @property
    def proposal(self) -> Proposal:
        """The version that follows: the SDK's user decides; a changed API alone is at most a minor change."""
        return propose(__version__, [*self.sdk, *for_sdk(self.api)])

    @property
    def silent(self) -> list[Change]:
        """What the wrapper may have to know of, while mypy has nothing to say."""
        return [change for change in self.api if change.silent and change.impact is not Impact.DOC_ONLY]

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
            "No type tells of these: judge by hand whether the wrapper has to change": _lines(self.silent),
            "The SDK's version": [self._version()],
        }
        return "\n\n".join(
            f"{title}\n" + "\n".join(f"  {line}" for line in lines) for title, lines in parts.items() if lines
        )

    def _version(self) -> str:
        proposal = self.proposal
        if proposal.level == "none":
            return f"stays {proposal.version}"
        more = len(proposal.reasons) - 1
        why = f"{proposal.reasons[0].where}: {proposal.reasons[0].what}" + (
            f", and {more} more" if more else ""
        )
        # What the wrapper will have to change is not known yet.
        breaking = any(change.impact is Impact.BREAKING for change in self.api)
        unsure = self.wrapper or self.todo or self.silent or breaking
        least = "at least " if unsure else ""
        return f"{__version__} -> {least}{proposal.version} ({proposal.level}): {why}"


def _lines(told: list[Change]) -> list[str]:
    """Write changes down, the breaking ones first."""
    return [str(change) for impact in Impact for change in told if change.impact is impact]


def examine(candidate: dict[str, Any], folder: Path) -> Report:
    """Tell what `candidate` changes; its client and a copy of the wrapper are written below `folder`."""
    contract = json.loads((ROOT / "openapi.json").read_text(encoding="utf-8"))
    report = Report(changes.api.compare(contract, candidate))
    tolerant, todo = regenerate.tolerant(candidate)
    fresh = folder / "generated"
    try:
        regenerate.generate(tolerant, folder)
    except RefusedError as problem:
        todo.append(_shortened(str(problem)))
        # After a mere warning there is a client, with something left out.
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
    """Leave out the pieces of the document that the generator quotes."""
    words = re.sub(r"^\{$.*?^\}$", "", problem, flags=re.MULTILINE | re.DOTALL)
    return "\n    ".join(line for line in words.splitlines() if line and "open an issue" not in line)


def check_wrapper(folder: Path) -> list[str]:
    """Return what mypy says of the wrapper in `folder` with the generated code beside it."""
    # The mock server reads the contract, not what is generated from it.
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
    # From a cache it would take errors that came with another candidate.
    command += ["--cache-dir", os.devnull, "--exclude", "/mock/"]
    command += ["--no-error-summary", "--no-pretty", "--hide-error-context", "wrapper"]
    result = subprocess.run(command, cwd=folder, check=False, capture_output=True, encoding="utf-8")
    if result.returncode > 1:
        return [f"mypy failed: {result.stdout}{result.stderr}"]
    return [line for line in result.stdout.splitlines() if ": error: " in line]


# Taking it over


def take_over(candidate: dict[str, Any], report: Report, folder: Path) -> str:
    """Write openapi.json, generated/ and CHANGELOG.md, all or none; say what is next."""
    contract, changelog = ROOT / "openapi.json", ROOT / "CHANGELOG.md"
    text = json.dumps(candidate, indent=2, ensure_ascii=False) + "\n"
    if text.encode() == contract.read_bytes():
        return "openapi.json says so already; nothing is written."
    if report.todo or report.fresh is None:
        raise RefusedError("nothing is written: see 'To be done first'")
    fresh = {path: folder / "next" / path.name for path in (contract, changelog)}
    (folder / "next").mkdir()
    fresh[contract].write_text(text, encoding="utf-8")
    fresh[changelog].write_text(_with_entry(changelog.read_text(encoding="utf-8"), report), encoding="utf-8")
    fresh[regenerate.GENERATED / regenerate.PACKAGE] = report.fresh / regenerate.PACKAGE
    regenerate.swap(fresh, aside=folder / "old")
    return (
        "openapi.json, generated/ and CHANGELOG.md are written. Next: CONTRIBUTING.md,"
        ' "When the contract changes", from step 3 on.\n'
        "Before you take another candidate in its place: `git restore openapi.json generated CHANGELOG.md`."
    )


def _with_entry(changelog: str, report: Report) -> str:
    """Add what a user of the SDK wants to know below the heading of the next release."""
    told = [change for change in report.api if change.impact is not Impact.DOC_ONLY]
    lines = [f"- {change}\n" for change in told] or ["- Changes of words alone.\n"]
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
