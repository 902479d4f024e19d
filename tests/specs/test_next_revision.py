"""The API's next revision, change by change: for its users, in generated code, and in the wrapper.

next-revision.json states what the vendor documented in 2026-04. Where the vendor says nothing it is v1.0.0: the
create response keeps its 202, `image_url` and `audio_url` stay required, `info.version` is 1.0.0.
"""

# ruff: noqa: E501 - one change is one line

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from openapi_spec_validator import validate
from support.next_revision import DOCUMENT, SPECS

import regenerate
import spec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from changes import Change
    from spec import Report

# Each change that the vendor documented, and what it changes: for those who call the API (of documentation, only
# what the change is about), for those who use generated code (without documentation), in the files of
# generated/techforge_api (+ added, - removed, ~ changed), and where mypy says that the wrapper no longer fits.
TABLE = """
# job_type is one of seven
api     breaking: CREATE request body.job_type: now limited to ai_talking_video, video, tts, image, photo_qc, pdf, ai_image_generation
sdk     breaking: models.JobRequest.job_type: retyped: str to models.JobType
sdk     additive: models.JobType: added
files   +models/job_type.py ~models/job_request.py
wrapper _flows/create.py: Argument "job_type" to "JobRequest" has incompatible type "str"
# template_id, preferred over project_id
api     additive: CREATE request body.template_id: new optional field
api     additive: CREATE request body.project_id: no longer required
sdk     additive: models.JobRequest.template_id: added
sdk     additive: models.JobRequest.project_id: no longer required
sdk     additive: models.JobRequest.project_id: widened: uuid.UUID to Unset | uuid.UUID
files   ~models/job_request.py
# session_id
api     additive: CREATE request body.session_id: new optional field
sdk     additive: models.JobRequest.session_id: added
files   ~models/job_request.py
# values is an object of strings and assets
api     breaking: CREATE request body.values: type changed from array to object
sdk     breaking: models.JobRequest.values: retyped: list[str] | Unset to models.JobValues | Unset
sdk     additive: models.JobValues: added
sdk     additive: models.Asset: added
files   +models/job_values.py +models/asset.py ~models/job_request.py
wrapper _flows/create.py: Argument "values" to "JobRequest" has incompatible type "Unset | list[str]"
# version is a number
api     additive: CREATE request body.version: no longer limited to 4, 5, 6
api     additive: CREATE request body.version: type changed from integer to number
sdk     breaking: models.JobRequest.version: retyped: models.ModelVersion | Unset to float | Unset
sdk     breaking: models.ModelVersion: removed
files   -models/model_version.py ~models/job_request.py
wrapper _flows/create.py: Module has no attribute "ModelVersion"
wrapper _flows/create.py: Module has no attribute "ModelVersion"
# unknown fields are stored
api     doc-only: CREATE request body: description changed
files   ~models/job_request.py ~api/jobs/create_job.py
# the create answer holds a job
api     breaking: CREATE 202 body.jobId: field removed
api     breaking: CREATE 202 body.status: field removed
api     breaking: CREATE 202 link signOutput: parameters changed
api     additive: CREATE 202 body.job: new required field
api     additive: CREATE 202 body.message: now required
sdk     breaking: models.JobAccepted.job_id: removed
sdk     breaking: models.JobAccepted.status: removed
sdk     breaking: models.JobAccepted.job: added, and required
sdk     breaking: models.JobAccepted.message: newly required
sdk     breaking: models.JobAccepted.message: narrowed: str | Unset to str
sdk     additive: models.NewJob: added
files   ~models/job_accepted.py +models/new_job.py
wrapper _flows/create.py: "JobAccepted" has no attribute "job_id"
wrapper _flows/create.py: "JobAccepted" has no attribute "status"
# the statuses are other words
sdk     breaking: models.JobStatus.DONE: removed
sdk     breaking: models.JobStatus.PROCESSING: removed; renamed to IN_PROGRESS?
sdk     breaking: models.JobStatus.FAILED: value changed from 'failed' to 'FAILED'
sdk     breaking: models.JobStatus.QUEUED: value changed from 'queued' to 'QUEUED'
sdk     additive: models.JobStatus.STARTED: added
sdk     additive: models.JobStatus.IN_PROGRESS: added
sdk     additive: models.JobStatus.SUCCESS: added
files   ~models/job_status.py
# GET /jobs/{id}
api     additive: GET /jobs/{id}: operation added
api     additive: CREATE 202 link jobRow: link added
sdk     additive: api.jobs.get_job: added
sdk     additive: models.Job: added
sdk     additive: models.JobOutput: added
sdk     additive: models.Message: added
files   +api/jobs/get_job.py +models/job.py +models/job_output.py +models/message.py
# PUT /jobs/{id}
api     additive: PUT /jobs/{id}: operation added
sdk     additive: api.jobs.update_job: added
sdk     additive: models.JobUpdate: added
files   +api/jobs/update_job.py +models/job_update.py
# POST /jobs/trigger-job
api     additive: POST /jobs/trigger-job: operation added
sdk     additive: api.jobs.trigger_jobs: added
sdk     additive: models.JobTrigger: added
files   +api/jobs/trigger_jobs.py +models/job_trigger.py
# GET /auth/credits
api     additive: GET /auth/credits: operation added
sdk     additive: api.account: added
sdk     additive: models.Credits: added
files   +api/account/__init__.py +api/account/get_credits.py +models/credits_.py
# GET /api/provider/projects/active
api     additive: GET /api/provider/projects/active: operation added
sdk     additive: api.projects: added
sdk     additive: models.ActiveProjects: added
sdk     additive: models.Project: added
files   +api/projects/__init__.py +api/projects/list_active_projects.py +models/active_projects.py +models/project.py
# GET /api/provider/projects/{projectId}/mapping-fields
api     additive: GET /api/provider/projects/{projectId}/mapping-fields: operation added
sdk     additive: models.MappingFields: added
sdk     additive: models.MappingField: added
sdk     additive: models.ProjectFields: added
sdk     additive: models.ProjectFieldsFields: added
files   +api/projects/get_mapping_fields.py +models/mapping_fields.py +models/mapping_field.py +models/project_fields.py +models/project_fields_fields.py
# a signed URL without an expiry
api     breaking: SIGN 200 body.expiresAt: field removed
sdk     breaking: models.SignedUrl.expires_at: removed
files   ~models/signed_url.py
wrapper _flows/storage.py: "SignedUrl" has no attribute "expires_at"
# a key is signed whether or not there is an object
api     doc-only: SIGN 200: description changed
files   ~api/storage/generate_signed_path.py
# Path query parameter is required
api     doc-only: SIGN 400 body: examples added
# keys stay server-side, in TFI_API_KEY
api     doc-only: components.securitySchemes.apiKey: description changed
"""
CREATE, SIGN = "POST /jobs/v2", "GET /storage/generate-signed-path"
# The list of the models; every change of them is in it.
INDEX = "~models/__init__.py"


def expected(rows: str = TABLE) -> dict[str, list[str]]:
    """Return the lines of the table by their first word."""
    found: dict[str, list[str]] = {"api": [], "sdk": [], "files": [], "wrapper": []}
    for line in rows.strip().splitlines():
        kind, _, text = line.partition(" ")
        if kind == "files":
            found[kind] += text.split()
        elif kind != "#":
            found[kind].append(text.strip().replace("CREATE", CREATE, 1).replace("SIGN", SIGN, 1))
    return found


def told(changes: Iterable[Change]) -> set[str]:
    """Return changes as the table has them."""
    return {
        str(change).replace("techforge_api.types.", "").replace("techforge_api.", "") for change in changes
    }


def test_the_revision_is_openapi() -> None:
    """The document is valid OpenAPI 3.1."""
    validate(DOCUMENT)
    assert DOCUMENT["openapi"].startswith("3.1.")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Return the report of `-s spec` with the overlay for the revision."""
    root = tmp_path_factory.mktemp("root")
    shutil.copy(regenerate.ROOT / "generator-config.yaml", root)
    shutil.copy(SPECS / "next-revision-overlay.yaml", root / "generator-overlay.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(regenerate, "ROOT", root)
        return spec.examine(DOCUMENT, tmp_path_factory.mktemp("revision"))


@pytest.fixture(scope="module")
def found(report: Report) -> dict[str, list[str]]:
    """Return what the report has, in the form of the table."""
    assert report.fresh is not None
    old, new = regenerate.files(regenerate.GENERATED), regenerate.files(report.fresh)
    signs = {
        **dict.fromkeys(new.keys() - old.keys(), "+"),
        **dict.fromkeys(old.keys() - new.keys(), "-"),
        **{name: "~" for name in old.keys() & new.keys() if old[name] != new[name]},
    }
    line = re.compile(r"wrapper/techforge/(.+?):\d+: error: (.+?)(?:;.*)?  \[[a-z-]+\]")
    return {
        "api": sorted(told(report.api)),
        "sdk": sorted(told(report.sdk)),
        "files": [sign + name.removeprefix("techforge_api/") for name, sign in signs.items()],
        "wrapper": [f"{match[1]}: {match[2]}" for each in report.wrapper if (match := line.fullmatch(each))],
    }


@pytest.mark.parametrize(
    "rows", TABLE.strip().removeprefix("# ").split("\n# "), ids=lambda rows: rows.split("\n")[0]
)
def test_each_change_has_its_verdict(found: dict[str, list[str]], rows: str) -> None:
    """Each change is found for each reader, with its verdict."""
    for kind, lines in expected(f"# {rows}").items():
        assert set(lines) <= set(found[kind])


def test_nothing_else_is_reported(found: dict[str, list[str]], report: Report) -> None:
    """Beyond the table the report has changes of documentation only."""
    table = expected()
    beyond = {*found["api"], *found["sdk"]} - {*table["api"], *table["sdk"]}
    assert [line for line in beyond if not line.startswith("doc-only")] == []
    assert set(found["files"]) == {INDEX, *table["files"]}
    assert sorted(found["wrapper"]) == sorted(table["wrapper"])
    assert len(report.wrapper) == len(table["wrapper"])
    assert report.todo == []


def test_it_is_a_major_version(report: Report) -> None:
    """What breaks users of the SDK, and what the API no longer accepts, requires a new major version."""
    table = expected()
    breaking = {line for line in [*table["sdk"], *table["api"]] if line.startswith("breaking")}
    # Generated code hides it if a response has changed, unless a type shows it.
    breaking -= {line for line in table["api"] if re.search(r"(GET|POST) \S+ 20", line)}
    assert (report.proposal.level, told(report.proposal.reasons)) == ("major", breaking)


def test_responses_are_read_tolerantly(report: Report) -> None:
    """With its overlay, generated code reads a job of unknown status and kind, and keeps its id as written."""
    program = """
from techforge_api.models import Job, JobAccepted, JobStatus
head = {"uuid": "AB-1", "job_status": "PAUSED", "job_type": "hologram", "later": 1}
job = JobAccepted.from_dict({"message": "Job created", "job": head}).job
assert (job.uuid, job.job_status, job.job_type, job["later"]) == ("AB-1", "PAUSED", "hologram", 1)
row = head | {"credit_used": "12.5", "created_at": "", "updated_at": "", "output": None}
assert Job.from_dict(row).to_dict() == row
assert Job.from_dict(row | {"job_status": "SUCCESS"}).job_status is JobStatus.SUCCESS
"""
    subprocess.run([sys.executable, "-c", program], cwd=report.fresh, check=True)


def test_overlay_actions_without_a_target_are_named() -> None:
    """With today's overlay, each action whose target is gone is named: it has to go first."""
    assert regenerate.tolerant(DOCUMENT)[1] == [
        f"generator-overlay.yaml: action {number} changes nothing: $.components.schemas.{target}"
        for number, target in (
            (1, "JobAccepted.properties.status"),
            (5, "SignedUrl.properties.expiresAt.format"),
            (6, "JobAccepted.properties.jobId.format"),
        )
    ]


def test_an_overlay_action_may_add_a_field() -> None:
    """Action 2 widens a field that is gone, and so adds it again: remove it together with action 1.

    Nothing reports that; mypy would find one error less in the wrapper, which reads the field.
    """
    today, tolerant = (doc["components"]["schemas"] for doc in (DOCUMENT, regenerate.tolerant(DOCUMENT)[0]))
    assert tolerant["JobAccepted"]["properties"].keys() - today["JobAccepted"]["properties"] == {"status"}
    assert {name for name in tolerant if tolerant[name] != today[name]} == {"JobAccepted"}
