"""Sync and async have the same methods: the generator's rules ensure it, and elsewhere these tests do."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import techforge
from techforge import AsyncTechForge, AsyncTracker, JobParams, TechForge, Tracker
from techforge._async.jobs import AsyncJobs
from techforge._async.storage import AsyncStorage
from techforge._flows.create import create
from techforge._session import AsyncSession, Session
from techforge.batch import AsyncBatch, Batch
from techforge_api.models import JobRequest
from unasync import HEADER, synchronous

CORE = Path(techforge.__file__).parent
NO_IO = {"with_options", "from_ids", "jobs", "storage", "batch", "__init__", "__repr__"}
"""Methods that send nothing, so they are not coroutines."""


def methods(cls: type) -> dict[str, Any]:
    """Return the public methods of a class."""
    return {name: each for name, each in vars(cls).items() if not name.startswith("_") and callable(each)}


def test_the_sync_half_is_generated() -> None:
    """No module of the sync half is written by hand."""
    sources = {path.name: f"_async/{path.name}" for path in (CORE / "_async").glob("*.py")}
    sources["batch.py"] = "batch/campaign.py"
    files = {path.name: path.read_text(encoding="utf-8") for path in (CORE / "_sync").glob("*.py")}
    assert files.keys() == sources.keys()
    for name, text in files.items():
        assert text.startswith(HEADER.format(source=sources[name]))


def test_there_is_no_other_sync_half() -> None:
    """Only drivers, sessions and the protocol of a tracker are written by hand twice."""
    beside = ("cli/", "mock/", "testing/")
    classes = {
        name: path.relative_to(CORE).as_posix()
        for path in CORE.rglob("*.py")
        for name in re.findall(r"^class (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    twins = {
        file
        for name, file in classes.items()
        if name.startswith("Async")
        and {name.removeprefix("Async"), name.replace("Async", "Sync")} & classes.keys()
        and not file.startswith(beside)
    }
    generated = {name for name in twins if name.startswith(("_async/", "batch/campaign.py"))}
    assert len(generated) == 4
    assert {name for name in twins - generated if not name.startswith("_drivers/")} == {
        "_session.py",
        "tracking.py",
    }


def test_rules() -> None:
    """The rules translate each kind of async line, and do not change other lines."""
    assert synchronous(">>> (await client.jobs.find(client.jobs.from_ids(a, b))).job.status") == (
        ">>> client.jobs.find(client.jobs.from_ids(a, b)).job.status"
    )
    assert synchronous("async def __aenter__(self) -> AsyncTechForge:") == "def __enter__(self) -> TechForge:"
    assert synchronous("def wait(self) -> None:") == "def wait(self) -> None:"


@pytest.mark.parametrize("cls", [AsyncTechForge, AsyncJobs, AsyncStorage])
def test_methods_with_io_are_async(cls: type) -> None:
    """Every method that does I/O is a coroutine function; no other method is."""
    coroutines = {name for name, method in methods(cls).items() if inspect.iscoroutinefunction(method)}
    assert coroutines == methods(cls).keys() - NO_IO


@pytest.mark.parametrize(("sync", "other"), [(Batch, AsyncBatch), (Session, AsyncSession)])
def test_batch_and_session_have_the_same_methods_twice(sync: type, other: type) -> None:
    """Sync and async have the same methods, with the same parameters and docstrings."""
    assert methods(sync).keys() == methods(other).keys()
    for name, method in methods(sync).items():
        ours, theirs = inspect.signature(method), inspect.signature(methods(other)[name])
        assert str(ours) == synchronous(str(theirs)), name
        if name != "check_loop":
            assert inspect.getdoc(method) == synchronous(inspect.getdoc(methods(other)[name]) or ""), name


def test_trackers() -> None:
    """`Tracker` and `AsyncTracker` have the same method."""
    assert inspect.signature(Tracker.check) == inspect.signature(AsyncTracker.check)
    assert inspect.iscoroutinefunction(AsyncTracker.check)
    assert Tracker.check.__doc__ == AsyncTracker.check.__doc__


def test_options_are_keywords() -> None:
    """The constructor takes the same `ClientOptions` as `with_options`, and a key."""
    built = inspect.signature(TechForge).parameters
    changed = inspect.signature(TechForge.with_options).parameters
    assert built["options"].annotation == changed["options"].annotation
    assert list(built) == ["api_key", "http_client", "options"]


def test_jobs_have_the_fields_of_the_contract() -> None:
    """`JobParams`, the flow and the generated request have the same fields."""
    from attrs import fields_dict  # noqa: PLC0415

    params = set(get_type_hints(JobParams))
    assert params - {"extra"} == set(fields_dict(JobRequest)) - {"additional_properties"}
    assert params == set(inspect.signature(create).parameters) - {"settings"}
