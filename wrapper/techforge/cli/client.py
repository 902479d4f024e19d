"""The client of a command, and what it can be told about the server that it speaks to."""

from __future__ import annotations

import json
import logging
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from attrs import frozen

from techforge import APIConnectionError, Outcome, TechForge
from techforge._checks import is_loopback
from techforge._logging import logger, retry_logger
from techforge.cli import keys
from techforge.cli.told import note
from techforge.tracking import JobState

if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Unpack

    from techforge import ClientOptions, Job


@contextmanager
def connected(*, shows_warnings: bool = False, **options: Unpack[ClientOptions]) -> Generator[TechForge]:
    """Give a client with the key that the command line finds, from the environment or the keyring.

    Retries are shown on stderr as they happen. Other warnings are shown if asked for: a command that ends
    with the error itself need not say it twice.
    """
    with TechForge(keys.find().value, **options) as client:
        handlers: tuple[tuple[logging.Logger, logging.Handler], ...] = (
            ((logger, _Note(logging.WARNING)),)
            if shows_warnings
            else ((retry_logger, _Note()), (logger, logging.NullHandler()))
        )
        for to, handler in handlers:
            to.addHandler(handler)
        try:
            yield client
        finally:
            for to, handler in handlers:
                to.removeHandler(handler)


class _Note(logging.Handler):
    """Says what is logged as the command says everything."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line on stderr."""
        note(record.getMessage())


@frozen
class MockJobs:
    """The mock's job service, as a tracker: v1.0.0 of the API tells of no job that it has failed."""

    url: str

    def check(self, job: Job) -> JobState | None:
        """Ask where the job stands."""
        try:
            row = _ask(f"{self.url}/__mock__/jobs/{job.id}")
        except OSError as error:
            raise APIConnectionError(
                f"the mock's job service: {error}",
                outcome=Outcome.NOT_SENT,
                method="GET",
                path="/__mock__/jobs",
            ) from error
        if row.get("status") is None:
            return JobState("failed", "the mock server does not know the job; it may have been restarted")
        return JobState(row["status"], row.get("message"), row.get("output_path"))


def mock_jobs() -> MockJobs | None:
    """Return the mock's job service if it is the mock server that is spoken to, and nothing else."""
    url = keys.base_url().rstrip("/")
    if not is_loopback(urlsplit(url).hostname):
        return None
    try:
        known = str(_ask(f"{url}/__mock__/jobs/none").get("message", ""))
    except OSError:
        return None
    # A tunnel to the live API is on this machine, too.
    return MockJobs(url) if known.startswith("There is no job 'none'") else None


def _ask(url: str) -> dict[str, Any]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as answer:
            body = answer.read(100_000)
    except urllib.request.HTTPError as error:
        body = error.read(100_000)
    try:
        row: object = json.loads(body)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}  # pyright: ignore[reportUnknownVariableType]
