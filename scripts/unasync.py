"""Generate wrapper/techforge/_sync, the sync client, from wrapper/techforge/_async.

A campaign always runs on asyncio. So `_sync/batch.py` has the signatures and docstrings of `AsyncBatch`, and
each of its methods calls the async one in a thread.

`python3 scripts/dev.py -s regenerate` writes it together with generated/.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

HEADER = "# Generated from techforge/{source} by scripts/unasync.py; do not edit.\n"

RULES = {
    # Code, and the code in examples
    r"\(await (.*\))\)": r"\1",
    r"async (def|with|for) ": r"\1 ",
    r"await ": "",
    r"__a(enter|exit)__": r"__\1__",
    r"techforge\._async\b": "techforge._sync",
    r"httpx\.AsyncClient": "httpx.Client",
    r"\bAsync(Generator|TechForge|Jobs|Storage|Batch|Session|Tracker)\b": r"\1",
    # Documentation
    r"Use a client in one event loop only": "Threads can share a client, and you can use it after a fork",
    r"for asyncio": "with blocking calls",
    r" \(sync or async\)": "",
}
"""Regular expressions in the async code, and their replacements; applied in this order."""

BATCH = '''"""`client.batch`: from a manifest to the videos."""

from __future__ import annotations

from typing import TYPE_CHECKING

from techforge.batch.campaign import LEDGER, ThreadedBatch

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Generator
    from typing import Unpack

    from techforge.batch.campaign import LedgerPath, Manifest, OnProgress
    from techforge.batch.dispatch import Dispatcher
    from techforge.batch.ledger import Entry, Ledger
    from techforge.batch.loading import OnConflict, OnRemoved
    from techforge.batch.options import RunOptions


class Batch(ThreadedBatch):
    """Campaigns. Use it as `client.batch`. A campaign runs in its own thread."""
'''

SORT = ["--select", "I", "--fix", "--config", 'lint.isort.known-first-party = ["techforge"]']
REMAINING_ASYNC = re.compile(r"async|await", re.IGNORECASE)


class RuleError(Exception):
    """A rule matches nothing, or a rule is missing."""


def synchronous(text: str) -> str:
    """Return the sync version of a text."""
    for rule, replacement in RULES.items():
        text = re.sub(rule, replacement, text)
    return text


def batch(campaign: str) -> str:
    """Return the public methods of `AsyncBatch`, with a body that is still to be made synchronous."""
    lines = campaign.splitlines(keepends=True)
    text = BATCH
    for node in ast.walk(ast.parse(campaign)):
        if not isinstance(node, ast.ClassDef) or node.name != "AsyncBatch":
            continue
        for method in node.body:
            if isinstance(method, ast.AsyncFunctionDef) and not method.name.startswith("_"):
                returns = ast.unparse(method.returns or method)
                call = "_entries" if returns.startswith("AsyncGenerator") else "_result"
                options = method.args.kwarg
                arguments = [argument.arg for argument in method.args.args[1:]]
                arguments += [f"{argument.arg}={argument.arg}" for argument in method.args.kwonlyargs]
                arguments += [f"**{options.arg}"] if options else []
                text += "\n" + "".join(lines[method.lineno - 1 : method.body[0].end_lineno])
                text += (
                    f"        return self.{call}(lambda each: each.{method.name}({', '.join(arguments)}))\n"
                )
    return text


def unasync(package: Path, target: Path) -> None:
    """Write the sync version of every module in the package's `_async` and of its campaigns to `target`."""
    sources = {f"_async/{path.name}": path.read_text("utf-8") for path in sorted(package.glob("_async/*.py"))}
    for rule in RULES:
        if not any(re.search(rule, text) for text in sources.values()):
            raise RuleError(f"scripts/unasync.py: {rule!r} matches nothing in _async/")
    sources["batch/campaign.py"] = batch((package / "batch" / "campaign.py").read_text("utf-8"))
    target.mkdir()
    for name, source in sources.items():
        text = synchronous(source)
        for line in text.splitlines():
            if REMAINING_ASYNC.search(line):
                raise RuleError(f"scripts/unasync.py: no rule for {line.strip()!r} in {name}")
        file = "batch.py" if name == "batch/campaign.py" else Path(name).name
        (target / file).write_text(HEADER.format(source=name) + text, encoding="utf-8")
    # The new names change the order of imports and the line breaks.
    for command in (["check", *SORT], ["format"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--quiet", "--isolated", "--no-cache"]
        subprocess.run([*ruff, "--no-respect-gitignore", "--line-length", "110", str(target)], check=True)
