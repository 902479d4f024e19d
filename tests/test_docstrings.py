"""Every example in a docstring runs, and everything public has a docstring."""

from __future__ import annotations

import ast
import contextlib
import doctest
import importlib
import inspect
import io
import pkgutil
import re
from typing import TYPE_CHECKING, Any

import pytest
from support.postgres import campaign

import techforge
from techforge import AsyncTechForge, TechForge, TechForgeError
from techforge._async.jobs import AsyncJobs
from techforge._async.storage import AsyncStorage
from techforge._sync.jobs import Jobs
from techforge._sync.storage import Storage
from techforge.batch import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

    from techforge import Job
    from techforge.mock import MockServer

WITHOUT_EXAMPLES = ("techforge.mock", "techforge.cli")


def modules() -> Iterator[ModuleType]:
    """Yield every module of the core, private ones too: an example that lies there misleads a maintainer."""
    yield techforge
    for found in pkgutil.walk_packages(techforge.__path__, "techforge."):
        if not found.name.startswith(WITHOUT_EXAMPLES):
            yield importlib.import_module(found.name)


EXAMPLES = {
    test.name: test
    for module in modules()
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, globs={})
    if test.examples
}


def public_objects() -> dict[str, Any]:
    """Return everything that users can name: exports, resources, and their public methods."""
    classes = [getattr(techforge, name) for name in techforge.__all__]
    classes += [Jobs, AsyncJobs, Storage, AsyncStorage]
    found: dict[str, Any] = {}
    for cls in filter(inspect.isclass, classes):
        found[cls.__name__] = cls
        for name, member in vars(cls).items():
            if not name.startswith("_") and (callable(member) or isinstance(member, property | classmethod)):
                found[f"{cls.__name__}.{name}"] = member
    return found


PUBLIC = public_objects()

SOURCES = {
    value: inspect.getsource(value)
    for value in PUBLIC.values()
    if inspect.isclass(value) and issubclass(value, TechForgeError)
}


@pytest.fixture
def names(
    client: TechForge, done: Job, mock: MockServer, tmp_path: Path, request: pytest.FixtureRequest
) -> dict[str, Any]:
    """Return the names that examples may use without saying where they come from."""
    # An example that builds its own client names the mock's default port; here it has another.
    found = {"client": client, "done": done, "folder": tmp_path, "mock_url": mock.url}
    examples = EXAMPLES[request.node.callspec.params["name"]].examples
    if any("ledger_url" in example.source for example in examples):
        found["ledger_url"] = campaign(request.getfixturevalue("postgres_url"))
        with Ledger(found["ledger_url"]) as ledger:
            ledger.load([])
    return found


def is_async(test: doctest.DocTest) -> bool:
    """Tell whether an example awaits."""
    return any(re.search(r"\bawait\b|\basync (with|for)\b", example.source) for example in test.examples)


@pytest.mark.parametrize("name", [name for name, test in EXAMPLES.items() if not is_async(test)])
def test_examples(name: str, names: dict[str, Any]) -> None:
    """An example does what it says."""
    test = EXAMPLES[name]
    test.globs = vars(importlib.import_module(_module_of(name))) | names
    said = io.StringIO()
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.REPORT_NDIFF)
    runner.run(test, out=said.write, clear_globs=False)
    assert runner.summarize(verbose=False).failed == 0, said.getvalue()


@pytest.mark.parametrize("name", [name for name, test in EXAMPLES.items() if is_async(test)])
async def test_async_examples(name: str, names: dict[str, Any], async_client: AsyncTechForge) -> None:
    """An example of the async colour, typed into `python -m asyncio`, does what it says."""
    globs = vars(importlib.import_module(_module_of(name))) | names | {"client": async_client}
    checker = doctest.OutputChecker()
    for example in EXAMPLES[name].examples:
        got = await _typed(example.source, globs)
        assert checker.check_output(example.want, got, 0), f"{example.source}wanted {example.want}got {got}"


async def _typed(source: str, globs: dict[str, Any]) -> str:
    """Run a statement the way that `python -m asyncio` does, and return what it prints."""
    code = compile(source, "<example>", "single", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        result = eval(code, globs)  # noqa: S307 - our own examples
        if inspect.iscoroutine(result):
            await result
    return said.getvalue()


def _module_of(name: str) -> str:
    while True:
        try:
            return importlib.import_module(name).__name__
        except ImportError:
            name = name.rpartition(".")[0]


def test_the_examples_are_found() -> None:
    """Both runners have examples to run, of both clients and all resources."""
    assert len(EXAMPLES) > 20
    found = {name.rpartition("techforge.")[2] for name in EXAMPLES}
    assert {
        "_sync.jobs.Jobs.create",
        "_async.jobs.AsyncJobs.create",
        "_async.client.AsyncTechForge",
    } <= found
    assert inspect.iscoroutinefunction(test_async_examples)


@pytest.mark.parametrize("name", PUBLIC)
def test_everything_public_says_what_it_is(name: str) -> None:
    """Each public class, method and property has a docstring, whose first line is a sentence of its own."""
    doc = inspect.getdoc(PUBLIC[name])
    assert doc, f"{name} has no docstring"
    if inspect.isclass(PUBLIC[name]):
        # attrs and TypedDict write docstrings of their own where there is none.
        assert "__doc__" in vars(PUBLIC[name])
    first, _, rest = doc.partition("\n")
    assert first.endswith((".", ":")), f"{name}: {first!r} is no sentence"
    assert len(first) <= 105
    assert not rest or rest.startswith("\n"), f"{name}: a blank line follows the first"


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, value in PUBLIC.items()
        if not (inspect.isclass(value) and issubclass(value, TechForgeError))
        and not isinstance(value, property)
        and name.partition(".")[0] in techforge.__all__
    ],
)
def test_what_is_exported_has_an_example(name: str) -> None:
    """Everything exported, but for errors, shows how it is used, itself or in one of its methods."""
    value = PUBLIC[name]
    exempt = {"Outcome", "TechForge.close", "AsyncTechForge.close", "AsyncTracker", "Tracker.check",
              "AsyncTracker.check", "PollSchedule.interval", "PollSchedule.every"}  # fmt: skip
    if name in exempt:
        pytest.skip("a value to compare with, an end, or what its class shows")
    assert ">>>" in (inspect.getdoc(value) or ""), f"{name} has no example"


@pytest.mark.parametrize(
    "name", [name for name in PUBLIC if name.startswith(("Jobs.", "Storage.", "AsyncJobs.", "AsyncStorage."))]
)
def test_each_method_has_an_example(name: str) -> None:
    """Every method of a resource shows how it is called."""
    assert ">>>" in (inspect.getdoc(PUBLIC[name]) or ""), f"{name} has no example"


@pytest.mark.parametrize(
    "name", [n for n, v in PUBLIC.items() if inspect.isclass(v) and issubclass(v, TechForgeError)]
)
def test_documented_attributes_exist(name: str) -> None:
    """Each attribute in an error's docstring exists; a word in backticks may also be a name of the SDK."""
    cls = PUBLIC[name]
    source = "".join(SOURCES.get(base, "") for base in cls.__mro__)
    known = set(re.findall(r"self\.(\w+)", source)) | set(re.findall(r"^    (\w+):", source, re.MULTILINE))
    text = inspect.getdoc(cls) or ""
    listed = re.findall(r"\w+", " ".join(re.findall(r"^    (\w[\w, ]*):", text, re.MULTILINE)))
    for word in [*listed, *re.findall(r"`(\w+)`", text)]:
        assert word in known or hasattr(techforge, word), f"{name} has no {word}"
