"""Generate wrapper/techforge/_sync, the sync client, from wrapper/techforge/_async.

`python3 scripts/dev.py -s regenerate` writes it together with generated/.
"""

import re
import subprocess
import sys
from pathlib import Path

HEADER = "# Generated from techforge/_async/{name} by scripts/unasync.py; do not edit.\n"

RULES = {
    # Code, and the code in examples
    r"\(await (.*\))\)": r"\1",
    r"async (def|with|for) ": r"\1 ",
    r"await ": "",
    r"__a(enter|exit)__": r"__\1__",
    r"techforge\._async\b": "techforge._sync",
    r"httpx\.AsyncClient": "httpx.Client",
    r"\bAsync(TechForge|Jobs|Storage|Batch|Session|Tracker)\b": r"\1",
    # Documentation
    r"Use a client in one event loop only": "Threads can share a client, and you can use it after a fork",
    r"for asyncio": "with blocking calls",
    r" \(sync or async\)": "",
}
"""Regular expressions in the async code, and their replacements; applied in this order."""

SORT = ["--select", "I", "--fix", "--config", 'lint.isort.known-first-party = ["techforge"]']
REMAINING_ASYNC = re.compile(r"async|await", re.IGNORECASE)


class RuleError(Exception):
    """A rule matches nothing, or a rule is missing."""


def synchronous(text: str) -> str:
    """Return the sync version of a text."""
    for rule, replacement in RULES.items():
        text = re.sub(rule, replacement, text)
    return text


def unasync(folder: Path, target: Path) -> None:
    """Write the sync version of every module in a folder to `target`."""
    sources = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.py"))}
    for rule in RULES:
        if not any(re.search(rule, text) for text in sources.values()):
            raise RuleError(f"scripts/unasync.py: {rule!r} matches nothing in {folder.name}/")
    target.mkdir()
    for name, source in sources.items():
        text = synchronous(source)
        for line in text.splitlines():
            if REMAINING_ASYNC.search(line):
                raise RuleError(f"scripts/unasync.py: no rule for {line.strip()!r} in {folder.name}/{name}")
        (target / name).write_text(HEADER.format(name=name) + text, encoding="utf-8")
    # The new names change the order of imports and the line breaks.
    for command in (["check", *SORT], ["format"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--quiet", "--isolated", "--no-cache"]
        subprocess.run([*ruff, "--no-respect-gitignore", "--line-length", "110", str(target)], check=True)
