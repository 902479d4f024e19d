"""The client of a command, and the mock's job states."""

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
from techforge.cli.messages import note
from techforge.tracking import JobState

if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Unpack

    from techforge import ClientOptions, Job


@contextmanager
def connected(*, shows_warnings: bool = False, **options: Unpack[ClientOptions]) -> Generator[TechForge]:
    """Open a client with the key from the environment or the keyring.

    Retries are printed on stderr as they happen. Other warnings are printed with `shows_warnings` only:
    most commands end with the error itself.
    """
    with TechForge(keys.get().value, **options) as client:
        handlers: tuple[tuple[logging.Logger, logging.Handler], ...] = (
            ((logger, _StderrHandler(logging.WARNING)),)
            if shows_warnings
            else ((retry_logger, _StderrHandler()), (logger, logging.NullHandler()))
        )
        for source, handler in handlers:
            source.addHandler(handler)
        try:
            yield client
        finally:
            for source, handler in handlers:
                source.removeHandler(handler)


class _StderrHandler(logging.Handler):
    """Prints log messages on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        note(record.getMessage())


@frozen
class MockJobs:
    """A tracker for jobs of the mock. Without a tracker, v1.0.0 of the API does not report failed jobs."""

    url: str

    def check(self, job: Job) -> JobState | None:
        """Return the job's state."""
        try:
            row = _get_json(f"{self.url}/__mock__/jobs/{job.id}")
        except OSError as error:
            raise APIConnectionError(
                f"the mock's job service: {error}",
                outcome=Outcome.NOT_SENT,
                method="GET",
                path="/__mock__/jobs",
            ) from error
        if row.get("status") is None:
            return JobState("failed", "the mock does not know this job; it may have been restarted")
        return JobState(row["status"], row.get("message"), row.get("output_path"))


def mock_jobs() -> MockJobs | None:
    """Return a tracker if the address is a mock's, otherwise None."""
    url = keys.base_url().rstrip("/")
    if not is_loopback(urlsplit(url).hostname):
        return None
    try:
        message = str(_get_json(f"{url}/__mock__/jobs/none").get("message", ""))
    except OSError:
        return None
    # A loopback address may also be a tunnel to the live API.
    return MockJobs(url) if message.startswith("There is no job 'none'") else None


def _get_json(url: str) -> dict[str, Any]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as response:
            body = response.read(100_000)
    except urllib.request.HTTPError as error:
        body = error.read(100_000)
    try:
        row: object = json.loads(body)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}  # pyright: ignore[reportUnknownVariableType]
