"""The sync half of the package, from the async half: wrapper/techforge/_sync from wrapper/techforge/_async.

`python3 scripts/dev.py -s regenerate` writes it, together with generated/.
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
    r"for asyncio; it belongs to one event loop": (
        "with blocking calls; safe to share between threads and to fork"
    ),
    r"for asyncio": "with blocking calls",
    r", also an async one, that": " that",
}
"""Each expression of the async half, and what the sync half has in its place; in this order."""

SORT = ["--select", "I", "--fix", "--config", 'lint.isort.known-first-party = ["techforge"]']
LEFT_OVER = re.compile(r"async|await", re.IGNORECASE)


class RuleError(Exception):
    """A rule that replaces nothing, or one that is missing."""


def synchronous(text: str) -> str:
    """Return what the sync half has in the place of this text."""
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
            if LEFT_OVER.search(line):
                raise RuleError(f"scripts/unasync.py: no rule for {line.strip()!r} in {folder.name}/{name}")
        (target / name).write_text(HEADER.format(name=name) + text, encoding="utf-8")
    # The new names may need another order, and fewer lines.
    for command in (["check", *SORT], ["format"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--quiet", "--isolated", "--no-cache"]
        subprocess.run([*ruff, "--no-respect-gitignore", "--line-length", "110", str(target)], check=True)
