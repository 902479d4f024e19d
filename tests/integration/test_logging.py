"""The messages of the standard logger `techforge`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

    from techforge.mock import MockServer

LINE = re.compile(
    r"(?P<method>GET|POST) (?P<target>\S+) -> (?P<result>\w+) "
    r"\(attempt (?P<attempt>\d+), (?P<seconds>\d+\.\d{3}) s, request id (?P<request_id>\S+)\)"
)


def attempts_in(caplog: pytest.LogCaptureFixture) -> list[dict[str, str]]:
    """Return the log lines of attempts."""
    lines = [record.getMessage() for record in caplog.records if record.name == "techforge"]
    return [match.groupdict() for line in lines if (match := LINE.fullmatch(line))]


def test_each_attempt_is_one_line(
    both: Any, mock: MockServer, media: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """Method, path, status, attempt, seconds and request id, for the API and storage."""
    mock.faults.add("status=429;operation=createJob", "status=503;operation=generateSignedPath")
    with caplog.at_level("DEBUG", "techforge"):
        job = both.jobs.create(**media)
        both.jobs.find(job)
    lines = attempts_in(caplog)
    assert [(line["method"], line["result"], line["attempt"]) for line in lines] == [
        ("POST", "429", "1"),
        ("POST", "202", "2"),
        ("GET", "503", "1"),
        ("GET", "200", "2"),
        ("GET", "206", "1"),
    ]
    assert [line["target"] for line in lines[1:4:2]] == ["/jobs/v2", "/storage/generate-signed-path"]
    assert lines[-1]["target"] == f"{mock.storage_url}/{job.output_path}"
    assert all(line["request_id"] != "-" for line in lines[:4])


def test_an_attempt_without_a_response_is_a_line(
    both: Any, mock: MockServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The line has the failure in place of the status."""
    mock.faults.add("close=after-body")
    mock.store.put("a/b.mp4", b"x")
    with caplog.at_level("DEBUG", "techforge"):
        both.storage.sign("a/b.mp4")
    assert [line["result"] for line in attempts_in(caplog)] == ["RemoteProtocolError", "200"]


def test_a_job_is_logged_at_info(both: Any, media: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    """A log at INFO has every job that was paid for."""
    with caplog.at_level("INFO", "techforge"):
        job = both.jobs.create(**media)
    assert f"job {job.id} accepted in project {job.project_id}" in caplog.text
