"""A sync and an async method differ only by `await`."""

from __future__ import annotations

import inspect
import re
from functools import cached_property
from typing import Any, get_type_hints

import pytest

from techforge import AsyncTechForge, TechForge
from techforge.resources.jobs import AsyncJobs, Jobs
from techforge.resources.storage import AsyncStorage, Storage

PAIRS = [(TechForge, AsyncTechForge), (Jobs, AsyncJobs), (Storage, AsyncStorage)]
"""Each class with blocking calls, and its other colour."""

NO_IO = {"with_options", "from_ids", "jobs", "storage", "batch"}
"""What sends nothing is no coroutine in either colour."""

CONTEXT = {"__aenter__": "__enter__", "__aexit__": "__exit__"}
COLOURED = {
    "AsyncTechForge": "TechForge",
    "AsyncTracker": "Tracker",
    "AsyncJobs": "Jobs",
    "AsyncStorage": "Storage",
    "AsyncBatch": "Batch",
    "AsyncDriver": "SyncDriver",
    "httpx.AsyncClient": "httpx.Client",
}
"""The only types that may differ."""

PHRASES = {
    "with blocking calls; safe to share between threads and to fork": (
        "for asyncio; it belongs to one event loop"
    ),
    "with blocking calls": "for asyncio",
    "or a function that": "or a function, also an async one, that",
}
"""The only sentences that may."""


def public(cls: type) -> dict[str, Any]:
    """Return what a class offers, by the name of the blocking colour."""
    return {
        CONTEXT.get(name, name): member.func if isinstance(member, cached_property) else member
        for name, member in vars(cls).items()
        if not name.startswith("_") or name in {*CONTEXT, *CONTEXT.values(), "__init__", "__repr__"}
    }


METHODS = [
    pytest.param(member, public(other)[name], name, id=f"{cls.__name__}.{name}")
    for cls, other in PAIRS
    for name, member in public(cls).items()
    if name in public(other)
]


def as_sync(text: str) -> str:
    """Return a text as the blocking colour would put it."""
    for ours, theirs in COLOURED.items():
        text = re.sub(rf"\b{re.escape(ours)}\b", theirs, text)
    return text


def undone(doc: str) -> str:
    """Return a docstring of the async colour as the blocking one's, on one line: the width may differ."""
    doc = as_sync(doc)
    for sync, other in PHRASES.items():
        doc = doc.replace(other, sync)
    doc = re.sub(r"\(await (.*\))\)", r"\1", doc)
    return " ".join(doc.replace("async with", "with").replace("await ", "").split())


@pytest.mark.parametrize(("sync", "other"), PAIRS)
def test_both_colours_offer_the_same(sync: type, other: type) -> None:
    """What one colour can do, the other can."""
    assert public(sync).keys() == public(other).keys()


@pytest.mark.parametrize(("sync", "other", "name"), METHODS)
def test_signatures(sync: Any, other: Any, name: str) -> None:
    """The same parameters in the same order, with the same kinds, defaults and types, and the same result."""
    del name
    ours, theirs = inspect.signature(sync), inspect.signature(other)
    assert [(p.name, p.kind, p.default) for p in ours.parameters.values()] == [
        (p.name, p.kind, p.default) for p in theirs.parameters.values()
    ]
    assert {p.name: p.annotation for p in ours.parameters.values()} == {
        p.name: as_sync(p.annotation) if isinstance(p.annotation, str) else p.annotation
        for p in theirs.parameters.values()
    }
    result = theirs.return_annotation
    assert ours.return_annotation == (as_sync(result) if isinstance(result, str) else result)


@pytest.mark.parametrize(("sync", "other", "name"), METHODS)
def test_what_does_io_is_async(sync: Any, other: Any, name: str) -> None:
    """What does I/O is a coroutine function in the async colour; nothing else is, in either."""
    assert not inspect.iscoroutinefunction(sync)
    expected = name not in NO_IO | {"__init__", "__repr__"}
    assert inspect.iscoroutinefunction(other) == expected


@pytest.mark.parametrize(("sync", "other", "name"), METHODS)
def test_docstrings(sync: Any, other: Any, name: str) -> None:
    """The same words and the same examples, but for `await`."""
    del name
    if sync.__doc__ or other.__doc__:
        assert " ".join(sync.__doc__.split()) == undone(other.__doc__)


@pytest.mark.parametrize(("sync", "other"), PAIRS)
def test_class_docstrings(sync: type, other: type) -> None:
    """The same for the classes."""
    assert sync.__doc__
    assert other.__doc__
    assert " ".join(sync.__doc__.split()) == undone(other.__doc__)


def test_trackers() -> None:
    """`Tracker` and `AsyncTracker` ask the same question."""
    from techforge import AsyncTracker, Tracker  # noqa: PLC0415

    assert inspect.signature(Tracker.check) == inspect.signature(AsyncTracker.check)
    assert inspect.iscoroutinefunction(AsyncTracker.check)
    assert Tracker.check.__doc__ == AsyncTracker.check.__doc__


def test_options_are_keywords() -> None:
    """A client takes what `with_options` takes: the same `ClientOptions`, and a key besides."""
    for cls in (TechForge, AsyncTechForge):
        built, changed = inspect.signature(cls).parameters, inspect.signature(cls.with_options).parameters
        assert built["options"].annotation == changed["options"].annotation
        assert list(built) == ["api_key", "http_client", "options"]


def test_jobs_take_what_the_contract_has() -> None:
    """`JobParams`, the flow and the generated request know the same fields."""
    from attrs import fields_dict  # noqa: PLC0415

    from techforge import JobParams  # noqa: PLC0415
    from techforge._flows.create import create  # noqa: PLC0415
    from techforge_api.models import JobRequest  # noqa: PLC0415

    params = set(get_type_hints(JobParams))
    assert params - {"extra"} == set(fields_dict(JobRequest)) - {"additional_properties"}
    assert params == set(inspect.signature(create).parameters) - {"settings"}
