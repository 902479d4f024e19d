"""The API's next revision, change by change: what it is to its users, to generated code and to the wrapper.

next-revision.json states what the vendor documented in 2026-04. Where the vendor is silent it stays with
v1.0.0: the create answer keeps its 202, `image_url` and `audio_url` stay required, `info.version` is 1.0.0.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from attrs import frozen
from openapi_spec_validator import validate
from support.next_revision import DOCUMENT, SPECS

import regenerate
import spec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from changes import Change
    from spec import Report

CREATE, SIGN = "POST /jobs/v2", "GET /storage/generate-signed-path"
KINDS = "ai_talking_video, video, tts, image, photo_qc, pdf, ai_image_generation"


@frozen
class Expected:
    """What comes of one change that the vendor documented."""

    api: tuple[str, ...]
    """What it is to those who call the API. Of changes in words, only those that a row is about."""
    sdk: tuple[str, ...] = ()
    """What it is to those who use generated code, but for changes in words; `models.` is techforge_api's."""
    files: str = ""
    """What regeneration does in generated/techforge_api: + file added, - file gone, ~ file changed."""
    wrapper: tuple[str, ...] = ()
    """Where mypy then says that the wrapper no longer fits."""


REVISION = {
    "job_type is one of seven": Expected(
        api=(f"breaking: {CREATE} request body.job_type: now limited to {KINDS}",),
        sdk=(
            "breaking: models.JobRequest.job_type: retyped: str to models.JobType",
            "additive: models.JobType: added",
        ),
        files="+models/job_type.py ~models/job_request.py",
        wrapper=('_flows/create.py: Argument "job_type" to "JobRequest" has incompatible type "str"',),
    ),
    "template_id, preferred over project_id": Expected(
        api=(
            f"additive: {CREATE} request body.template_id: new optional field",
            f"additive: {CREATE} request body.project_id: no longer required",
        ),
        sdk=(
            "additive: models.JobRequest.template_id: added",
            "breaking: models.JobRequest.project_id: widened: uuid.UUID to Unset | uuid.UUID",
        ),
        files="~models/job_request.py",
    ),
    "session_id": Expected(
        api=(f"additive: {CREATE} request body.session_id: new optional field",),
        sdk=("additive: models.JobRequest.session_id: added",),
        files="~models/job_request.py",
    ),
    "values is an object of strings and assets": Expected(
        api=(f"breaking: {CREATE} request body.values: type changed from array to object",),
        sdk=(
            "breaking: models.JobRequest.values: retyped: list[str] | Unset to models.JobValues | Unset",
            "additive: models.JobValues: added",
            "additive: models.Asset: added",
        ),
        files="+models/job_values.py +models/asset.py ~models/job_request.py",
        wrapper=(
            '_flows/create.py: Argument "values" to "JobRequest" has incompatible type "Unset | list[str]"',
        ),
    ),
    "version is a number": Expected(
        api=(
            f"additive: {CREATE} request body.version: no longer limited to 4, 5, 6",
            f"additive: {CREATE} request body.version: type changed from integer to number",
        ),
        sdk=(
            "breaking: models.JobRequest.version: retyped: models.ModelVersion | Unset to float | Unset",
            "breaking: models.ModelVersion: removed",
        ),
        files="-models/model_version.py ~models/job_request.py",
        wrapper=('_flows/create.py: Module has no attribute "ModelVersion"',) * 2,
    ),
    # v1.0.0 allows them, too: JSON Schema's default.
    "unknown fields are stored": Expected(
        api=(f"doc-only: {CREATE} request body: description changed",),
        files="~models/job_request.py ~api/jobs/create_job.py",
    ),
    "the create answer holds a job": Expected(
        api=(
            f"breaking: {CREATE} 202 body.jobId: field removed",
            f"breaking: {CREATE} 202 body.status: field removed",
            f"breaking: {CREATE} 202 link signOutput: something else changed: parameters; judge it by hand",
            f"additive: {CREATE} 202 body.job: new required field",
            f"additive: {CREATE} 202 body.message: now required",
        ),
        sdk=(
            "breaking: models.JobAccepted.job_id: removed",
            "breaking: models.JobAccepted.status: removed",
            "breaking: models.JobAccepted.job: added, and required",
            "breaking: models.JobAccepted.message: newly required",
            "breaking: models.JobAccepted.message: narrowed: str | Unset to str",
            "additive: models.NewJob: added",
        ),
        files="~models/job_accepted.py +models/new_job.py",
        wrapper=(
            '_flows/create.py: "JobAccepted" has no attribute "job_id"',
            '_flows/create.py: "JobAccepted" has no attribute "status"',
        ),
    ),
    # The API's users meet them in a field that is new, so to them nothing has changed its words.
    "the statuses are other words": Expected(
        api=(),
        sdk=(
            "breaking: models.JobStatus.DONE: removed",
            "breaking: models.JobStatus.PROCESSING: removed; renamed to IN_PROGRESS?",
            "breaking: models.JobStatus.FAILED: value changed from 'failed' to 'FAILED'",
            "breaking: models.JobStatus.QUEUED: value changed from 'queued' to 'QUEUED'",
            "additive: models.JobStatus.STARTED: added",
            "additive: models.JobStatus.IN_PROGRESS: added",
            "additive: models.JobStatus.SUCCESS: added",
        ),
        files="~models/job_status.py",
    ),
    "GET /jobs/{id}": Expected(
        api=(
            "additive: GET /jobs/{id}: operation added",
            f"additive: {CREATE} 202 link jobRow: link added",
        ),
        sdk=(
            "additive: api.jobs.get_job: added",
            "additive: models.Job: added",
            "additive: models.JobOutput: added",
            "additive: models.Message: added",
        ),
        files="+api/jobs/get_job.py +models/job.py +models/job_output.py +models/message.py",
    ),
    "PUT /jobs/{id}": Expected(
        api=("additive: PUT /jobs/{id}: operation added",),
        sdk=(
            "additive: api.jobs.update_job: added",
            "additive: models.JobUpdate: added",
        ),
        files="+api/jobs/update_job.py +models/job_update.py",
    ),
    "POST /jobs/trigger-job": Expected(
        api=("additive: POST /jobs/trigger-job: operation added",),
        sdk=(
            "additive: api.jobs.trigger_jobs: added",
            "additive: models.JobTrigger: added",
        ),
        files="+api/jobs/trigger_jobs.py +models/job_trigger.py",
    ),
    "GET /auth/credits": Expected(
        api=("additive: GET /auth/credits: operation added",),
        sdk=(
            "additive: api.account: added",
            "additive: models.Credits: added",
        ),
        files="+api/account/__init__.py +api/account/get_credits.py +models/credits_.py",
    ),
    "GET /api/provider/projects/active": Expected(
        api=("additive: GET /api/provider/projects/active: operation added",),
        sdk=(
            "additive: api.projects: added",
            "additive: models.ActiveProjects: added",
            "additive: models.Project: added",
        ),
        files="+api/projects/__init__.py +api/projects/list_active_projects.py"
        " +models/active_projects.py +models/project.py",
    ),
    "GET /api/provider/projects/{projectId}/mapping-fields": Expected(
        api=("additive: GET /api/provider/projects/{projectId}/mapping-fields: operation added",),
        sdk=(
            "additive: models.MappingFields: added",
            "additive: models.MappingField: added",
            "additive: models.ProjectFields: added",
            "additive: models.ProjectFieldsFields: added",
        ),
        files="+api/projects/get_mapping_fields.py +models/mapping_fields.py +models/mapping_field.py"
        " +models/project_fields.py +models/project_fields_fields.py",
    ),
    "a signed URL without an expiry": Expected(
        api=(f"breaking: {SIGN} 200 body.expiresAt: field removed",),
        sdk=("breaking: models.SignedUrl.expires_at: removed",),
        files="~models/signed_url.py",
        wrapper=('_flows/storage.py: "SignedUrl" has no attribute "expires_at"',),
    ),
    "a key is signed whether or not there is an object": Expected(
        api=(f"doc-only: {SIGN} 200: description changed",),
        files="~api/storage/generate_signed_path.py",
    ),
    "Path query parameter is required": Expected(
        api=(f"doc-only: {SIGN} 400 body: examples added",),
    ),
    "keys stay server-side, in TFI_API_KEY": Expected(
        api=("doc-only: components.securitySchemes.apiKey: description changed",),
    ),
}
# The list of the models; every change of them is in it.
INDEX = "~models/__init__.py"


def told(changes: Iterable[Change]) -> set[str]:
    """Return changes as the table has them."""
    return {
        str(change).replace("techforge_api.types.", "").replace("techforge_api.", "") for change in changes
    }


def test_the_revision_is_openapi() -> None:
    """What the tools are tried on is a valid document of OpenAPI 3.1."""
    validate(DOCUMENT)
    assert DOCUMENT["openapi"].startswith("3.1.")


# With the overlay that a maintainer has moved on to the revision


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Return what `-s spec` says of the revision."""
    root = tmp_path_factory.mktemp("root")
    shutil.copy(regenerate.ROOT / "generator-config.yaml", root)
    shutil.copy(SPECS / "next-revision-overlay.yaml", root / "generator-overlay.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(regenerate, "ROOT", root)
        return spec.examine(DOCUMENT, tmp_path_factory.mktemp("revision"))


@pytest.fixture(scope="module")
def difference(report: Report) -> set[str]:
    """Return what regeneration does to generated/, written as in `Expected.files`."""
    assert report.fresh is not None
    old, new = regenerate.files(regenerate.GENERATED), regenerate.files(report.fresh)
    signs = {
        **dict.fromkeys(new.keys() - old.keys(), "+"),
        **dict.fromkeys(old.keys() - new.keys(), "-"),
        **{name: "~" for name in old.keys() & new.keys() if old[name] != new[name]},
    }
    return {sign + name.removeprefix("techforge_api/") for name, sign in signs.items()}


@pytest.fixture(scope="module")
def misfits(report: Report) -> list[str]:
    """Return where the wrapper no longer fits, written as in `Expected.wrapper`."""
    line = re.compile(r"wrapper/techforge/(.+?):\d+: error: (.+?)(?:;.*)?  \[[a-z-]+\]")
    found = [line.fullmatch(error) for error in report.wrapper]
    return [f"{match[1]}: {match[2]}" if match else "a line of another form" for match in found]


@pytest.mark.parametrize("expected", REVISION.values(), ids=REVISION)
def test_each_change_has_its_verdict(
    report: Report, difference: set[str], misfits: list[str], expected: Expected
) -> None:
    """What the vendor changed is found by each reader of it, and taken for what it is."""
    assert set(expected.api) <= told(report.api)
    assert set(expected.sdk) <= told(report.sdk)
    assert set(expected.files.split()) <= difference
    assert set(expected.wrapper) <= set(misfits)


def test_nothing_is_told_that_has_no_reason(report: Report, difference: set[str], misfits: list[str]) -> None:
    """All that is told beyond the table is words; no file changes and nothing breaks beyond it."""
    rows = REVISION.values()
    beyond = told([*report.api, *report.sdk]) - {line for row in rows for line in (*row.api, *row.sdk)}
    assert [line for line in beyond if not line.startswith("doc-only")] == []
    assert difference == {INDEX, *(file for row in rows for file in row.files.split())}
    assert sorted(misfits) == sorted(line for row in rows for line in row.wrapper)
    assert report.todo == []


def test_it_is_a_major_version(report: Report) -> None:
    """What breaks the SDK's users asks for a new major version, and says why."""
    breaking = {line for row in REVISION.values() for line in row.sdk if line.startswith("breaking")}
    assert (report.proposal.level, told(report.proposal.reasons)) == ("major", breaking)


def test_answers_are_read_tolerantly(report: Report) -> None:
    """With its overlay, generated code reads a job of unknown status and kind, and its id as it is spelt."""
    program = """
from techforge_api.models import Job, JobAccepted, JobStatus
head = {"uuid": "AB-1", "job_status": "PAUSED", "job_type": "hologram", "later": 1}
job = JobAccepted.from_dict({"message": "Job created", "job": head}).job
assert (job.uuid, job.job_status, job.job_type, job["later"]) == ("AB-1", "PAUSED", "hologram", 1)
row = head | {"credit_used": "12.5", "created_at": "", "updated_at": "", "output": None}
assert Job.from_dict(row).to_dict() == row
assert Job.from_dict(row | {"job_status": "SUCCESS"}).job_status is JobStatus.SUCCESS
"""
    command = [sys.executable, "-c", program]
    subprocess.run(command, cwd=report.fresh, check=True)


# With the overlay of v1.0.0


def test_overlay_actions_without_a_target_are_named() -> None:
    """Half of today's overlay is about what is gone: each such action is named, and has to go first."""
    assert regenerate.tolerant(DOCUMENT)[1] == [
        f"generator-overlay.yaml: action {number} changes nothing: $.components.schemas.{target}"
        for number, target in (
            (1, "JobAccepted.properties.status"),
            (5, "SignedUrl.properties.expiresAt.format"),
            (6, "JobAccepted.properties.jobId.format"),
        )
    ]


def test_an_overlay_action_may_invent_a_field() -> None:
    """Action 2 widens a field that is gone, and so brings it back: it has to go with action 1.

    Nobody says so. mypy would find one place less in the wrapper, which reads that field.
    """
    today, tolerant = (doc["components"]["schemas"] for doc in (DOCUMENT, regenerate.tolerant(DOCUMENT)[0]))
    assert tolerant["JobAccepted"]["properties"].keys() - today["JobAccepted"]["properties"] == {"status"}
    assert {name for name in tolerant if tolerant[name] != today[name]} == {"JobAccepted"}
