"""The layers: which module may import which."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

import techforge
import techforge_api

if TYPE_CHECKING:
    from collections.abc import Mapping

CORE = Path(techforge.__file__).parent
GENERATED = Path(techforge_api.__file__).parent
BESIDE_THE_CORE = {"mock", "batch", "cli", "testing", "display.py", "notebook.py"}


@frozen
class Import:
    """One module that a file imports; `lazy` inside a function, `typing` for type checkers only."""

    module: str
    typing: bool
    lazy: bool

    def of(self, *packages: str) -> bool:
        """Tell whether it is one of these packages, or inside one."""
        return any(self.module == package or self.module.startswith(f"{package}.") for package in packages)


def module_of(path: Path) -> str:
    """Return the dotted name of a file of either package."""
    root = CORE.parent if path.is_relative_to(CORE) else GENERATED.parent
    name = ".".join(path.relative_to(root).with_suffix("").parts)
    return name.removesuffix(".__init__")


def imports(path: Path) -> list[Import]:
    """Return all that a file imports, wherever in it, relative imports resolved."""
    found: list[Import] = []
    package = module_of(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]

    def visit(node: ast.AST, *, typing: bool, lazy: bool) -> None:
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                for child in node.body:
                    visit(child, typing=True, lazy=lazy)
                for child in node.orelse:
                    visit(child, typing=typing, lazy=lazy)
                return
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                lazy = True
            case ast.Import():
                found.extend(Import(alias.name, typing, lazy) for alias in node.names)
            case ast.ImportFrom():
                base = package[: len(package) - node.level + 1] if node.level else []
                module = ".".join([*base, *([node.module] if node.module else [])])
                # `from a import b` may name the module a.b, or something in a: count both.
                found.extend(Import(f"{module}.{alias.name}", typing, lazy) for alias in node.names)
            case _:
                pass
        for child in ast.iter_child_nodes(node):
            visit(child, typing=typing, lazy=lazy)

    visit(ast.parse(path.read_text("utf-8")), typing=False, lazy=False)
    return found


def core() -> list[Path]:
    """Return the files of the hand-written core."""
    files = sorted(CORE.rglob("*.py"))
    return [path for path in files if path.relative_to(CORE).parts[0] not in BESIDE_THE_CORE]


def offenders(files: list[Path], *packages: str, typing_too: bool = True) -> list[str]:
    """Return who of these files imports one of these packages."""
    return [
        f"{module_of(path)} imports {imported.module}"
        for path in files
        for imported in imports(path)
        if imported.of(*packages) and (typing_too or not imported.typing)
    ]


def inside(*parts: str) -> list[Path]:
    """Return the files of the core within these packages."""
    return [path for path in core() if path.relative_to(CORE).parts[0] in parts]


def outside(*parts: str) -> list[Path]:
    """Return the files of the core that are not within these packages."""
    return [path for path in core() if path.relative_to(CORE).parts[0] not in parts]


def test_there_is_something_to_look_at() -> None:
    """The tests below look at the files that they mean to."""
    assert len(core()) > 20
    assert len(inside("_flows")) > 4
    assert len(inside("policy")) > 3
    assert len(inside("_drivers")) > 2
    assert len(list(GENERATED.rglob("*.py"))) > 10


def test_generated_code_imports_nothing_of_ours() -> None:
    """The generated package stands on its own: it can be regenerated without a look at the wrapper."""
    assert offenders(sorted(GENERATED.rglob("*.py")), "techforge") == []


def test_policies_import_errors_only() -> None:
    """Decisions know nothing of requests: of ours, they import the errors, and the lock that they share."""
    known = ("techforge.errors", "techforge.policy.lock")
    named = [(path, imported) for path in inside("policy") for imported in imports(path)]
    own = [
        f"{module_of(path)} imports {i.module}" for path, i in named if i.of("techforge") and not i.of(*known)
    ]
    assert own == []


def test_flows_and_policies_do_no_io() -> None:
    """Flows say what they want done; they have no network, loop, clock or randomness to do it with."""
    forbidden = (
        "httpx",
        "httpcore",
        "asyncio",
        "time",
        "random",
        "socket",
        "ssl",
        "requests",
        "subprocess",
        "queue",
    )
    assert offenders(inside("_flows", "policy"), *forbidden) == []
    assert offenders(inside("_flows"), "threading") == []
    locks = [i.module for p in inside("policy") for i in imports(p) if i.of("threading")]
    assert set(locks) <= {"threading.RLock"}


def test_flows_import_no_driver() -> None:
    """The loops do not know who carries them out."""
    above = ("techforge._drivers", "techforge._session", "techforge._async", "techforge._sync")
    assert offenders([*inside("_flows", "policy"), CORE / "_flow.py"], *above) == []


def test_only_drivers_import_httpx() -> None:
    """Httpx could be replaced by changing one package: elsewhere it is named for type checkers only."""
    assert offenders(outside("_drivers"), "httpx", "httpcore", typing_too=False) == []
    named = offenders(outside("_drivers"), "httpx", "httpcore")
    assert {line.partition(" ")[0] for line in named} <= {
        "techforge._async.client",
        "techforge._session",
        "techforge._sync.client",
    }


def test_only_drivers_import_asyncio() -> None:
    """Nothing but the drivers knows of event loops."""
    assert offenders(outside("_drivers"), "asyncio", "anyio", "concurrent", typing_too=False) == []


def test_one_seam_to_the_generated_code() -> None:
    """Operations and models of the generated package are used by the flows alone, and not by the drivers."""
    named = offenders(outside("_flows"), "techforge_api", typing_too=False)
    assert named == []


def test_the_core_does_without_the_rest() -> None:
    """The core does not import what is built on top of it, except for `client.batch` and in IPython."""
    found = offenders(core(), *(f"techforge.{name.removesuffix('.py')}" for name in BESIDE_THE_CORE))
    ways = (
        "techforge._async.client imports techforge.batch.",
        "techforge._sync.client imports techforge.batch.",
        "techforge._sync.batch imports techforge.batch.",
        "techforge imports techforge.notebook",
    )
    assert [line for line in found if not line.startswith(ways)] == []


def test_the_core_imports_what_it_declares() -> None:
    """The core needs attrs, httpx and dateutil of others, and nothing that an extra brings."""
    others = {
        imported.module.partition(".")[0]
        for path in core()
        for imported in imports(path)
        if imported.module.partition(".")[0] not in sys.stdlib_module_names
    }
    assert others <= {"techforge", "techforge_api", "attrs", "httpx", "httpcore", "dateutil", "__future__"}


def graph() -> dict[str, set[str]]:
    """Return which module of the package imports which, typing-only and lazy imports included."""
    modules = {module_of(path): path for path in CORE.rglob("*.py")}

    def known(name: str) -> str:
        while name not in modules:
            name = name.rpartition(".")[0]
        return name

    return {
        module: {known(each.module) for each in imports(path) if each.of("techforge")} - {module}
        for module, path in modules.items()
    }


def cycles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Return each group of modules that import each other, in a roundabout way or not (Tarjan)."""
    found: list[list[str]] = []
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []

    def visit(module: str) -> None:
        order[module] = lowest[module] = len(order)
        stack.append(module)
        for other in sorted(edges[module]):
            if other not in order:
                visit(other)
            if other in stack:
                lowest[module] = min(lowest[module], lowest[other])
        if lowest[module] == order[module]:
            at = stack.index(module)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for module in sorted(edges):
        if module not in order:
            visit(module)
    return found


def test_cycles_are_found() -> None:
    """The search finds a direct cycle and a roundabout one, and no others."""
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a", "e"}, "e": {"d"}, "f": {"a"}}) == [
        ["a", "b", "c"],
        ["d", "e"],
    ]
    assert cycles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_import_goes_round_in_a_circle() -> None:
    """Each module can be read after those it imports, type checkers' imports and lazy ones included."""
    edges = graph()
    assert "techforge._drivers.sync" in edges["techforge._session"]
    assert "techforge.batch" in edges["techforge._sync.client"]
    found = cycles(edges)
    assert [f"{a} imports {b}" for group in found for a in group for b in edges[a] & {*group}] == []


def test_nobody_reaches_into_private_parts() -> None:
    """Only `_session` does: batch, command line and testing use sessions."""
    pattern = re.compile(r"SLF001|reportPrivateUsage")
    found = {path for path in CORE.rglob("*.py") if pattern.search(path.read_text("utf-8"))}
    assert {path.relative_to(CORE).parts[0] for path in found} <= {"_session.py"}


def test_no_private_name_of_httpx_or_httpcore() -> None:
    """What is private to another package may change in any release: only our own objects are looked into."""
    sources = {path: path.read_text("utf-8") for path in CORE.rglob("*.py")}
    users = {path: text for path, text in sources.items() if re.search("import (httpx|httpcore)", text)}
    assert len(users) > 5
    private = [
        f"{module_of(path)}: {ast.unparse(node)}"
        for path, text in users.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute)
        and re.match("_(?!_)", node.attr)
        and ast.unparse(node.value) not in {"self", "cls", "super()"}
        and node.attr != "_session"  # our clients'
    ]
    assert private == []
    drivers = "".join(text for path, text in sources.items() if "_drivers" in path.parts)
    assert not re.search(
        r"SLF001|reportPrivateUsage|from http(x|core)\S* import _|getattr\([^)]*\"_", drivers
    )


def test_imports_are_all_loaded_early_for_asyncio() -> None:
    """`AsyncTechForge(…)` loads all modules; an import during a request would hold up the event loop."""
    program = """
import asyncio, sys, tempfile
from techforge import AsyncTechForge, PollSchedule
def ours(): return {name for name in sys.modules if name.startswith("techforge")}
async def main():
    async with AsyncTechForge("key", base_url="http://127.0.0.1:1", max_retries=0) as client:
        before = ours()
        job = client.jobs.from_ids(*["15a6331b-3837-4ae8-8fa7-d3ead3388d77"] * 2)
        urls = dict(image_url="https://a.example/i.png", audio_url="https://a.example/a.mp3")
        for call in (client.jobs.create_and_wait(**urls), client.jobs.wait(job), client.jobs.find(job),
                     client.jobs.download(job, tempfile.gettempdir()), client.storage.sign("a/b")):
            try: await asyncio.wait_for(call, 0.2)
            except Exception: pass
        print(sorted(ours() - before))
asyncio.run(main())
"""
    assert run(program) == "[]\n"


def test_sync_imports_wait_for_the_first_request() -> None:
    """Neither `import techforge` nor a sync client loads httpx or the generated code."""
    program = """
import sys, techforge
client = techforge.TechForge("key")
print([name for name in ("httpx", "httpcore", "asyncio", "techforge_api") if name in sys.modules])
"""
    assert run(program) == "[]\n"


def run(program: str) -> str:
    """Run a program in a process of its own, and return what it prints."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, check=True, capture_output=True, encoding="utf-8"
    ).stdout
