"""A submission that a gateway answers is sent once; a retry after another 5xx is visible."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from techforge import InternalServerError, JobOutcomeUnknownError, Outcome

if TYPE_CHECKING:
    from techforge import Job
    from techforge.mock import MockServer

GATEWAY = [502, 504, 520, 522, 524, 530]


@pytest.mark.lying("a gateway answers HTML")
@pytest.mark.parametrize("status", GATEWAY)
def test_a_gateway_error_submits_once(
    both: Any, mock: MockServer, media: dict[str, str], status: int
) -> None:
    """The API behind the gateway may have accepted the job. The error names the project."""
    mock.faults.add(f"status={status};create=1;operation=createJob;body=html;times=0")
    with pytest.raises(JobOutcomeUnknownError, match=f"a gateway answered {status}") as caught:
        both.jobs.create(**media)
    assert mock.journal.count(operation="createJob") == 1
    error = caught.value
    assert (error.status_code, error.attempts, error.outcome) == (status, 1, Outcome.UNKNOWN)
    assert "Bad gateway" in error.body
    assert f"A job may exist in project {error.project_id}" in str(error)
    assert isinstance(error.error, InternalServerError)


@pytest.mark.parametrize("status", GATEWAY)
def test_a_gateway_error_of_a_get_is_retried(both: Any, mock: MockServer, done: Job, status: int) -> None:
    """Signing a path twice costs nothing."""
    mock.faults.add(f"status={status};operation=generateSignedPath")
    assert both.storage.sign(done.output_path).path == done.output_path
    assert mock.journal.count(operation="generateSignedPath") == 2


@pytest.mark.parametrize("status", [500, 501, 503, 505, 519, 531, 599])
def test_another_server_error_is_resubmitted_and_the_job_says_so(
    both: Any, mock: MockServer, media: dict[str, str], status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The job counts its requests, and says that a second job may exist."""
    mock.faults.add(f"status={status};operation=createJob")
    with caplog.at_level("WARNING", "techforge"):
        job = both.jobs.create(**media)
    assert mock.journal.count(operation="createJob") == 2
    assert (job.attempts, job.may_have_duplicates) == (2, True)
    assert [record.name for record in caplog.records] == ["techforge.retry"]
    assert f"look in project {job.project_id} for more than one job" in caplog.text


def test_a_gateway_error_after_a_server_error_ends_the_call(
    both: Any, mock: MockServer, media: dict[str, str]
) -> None:
    """The 5xx is retried, the gateway error is not."""
    mock.faults.add("status=503;operation=createJob", "status=502;operation=createJob;times=0")
    with pytest.raises(JobOutcomeUnknownError) as caught:
        both.jobs.create(**media)
    assert mock.journal.count(operation="createJob") == caught.value.attempts == 2


PROGRAM = """
import sys, techforge
with techforge.TechForge(sys.argv[1], base_url=sys.argv[2]) as client:
    client.jobs.create(image_url="https://cdn.example.com/i.png", audio_url="https://cdn.example.com/a.mp3")
"""


def test_a_program_that_does_not_configure_logging_sees_a_resubmission(mock: MockServer) -> None:
    """Python prints the warning on stderr: one line."""
    mock.faults.add("status=503;operation=createJob")
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, mock.api_key, mock.url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stdout, mock.journal.count(operation="createJob")) == (0, "", 2)
    (line,) = ran.stderr.splitlines()
    assert line.startswith("POST /jobs/v2: 503")
    assert "It is sent again" in line
