"""A server of the API's next revision: the mock's own parts, with another contract and other answers."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from techforge.mock import MockServer
from techforge.mock.app import Api, _Call, _RefusedError
from techforge.mock.cdn import Cdn
from techforge.mock.contract import read
from techforge.mock.faults import STORAGE
from techforge.mock.gate import Gate
from techforge.mock.renderer import tiny_video
from techforge.mock.signing import Signer

if TYPE_CHECKING:
    from starlette.requests import Request

    from techforge.mock.contract import Operation

SPECS = Path(__file__).resolve().parents[1] / "specs"
DOCUMENT: dict[str, Any] = json.loads((SPECS / "next-revision.json").read_text("utf-8"))
CONTRACT = read(DOCUMENT)


class NextRevision(MockServer):
    """The next revision's API and its storage. Its jobs stay where they are until a test moves them on."""

    def __init__(self) -> None:
        """Take the mock's two origins, and put other operations behind the first."""
        super().__init__(render=False)
        self.rows: dict[str, dict[str, Any]] = {}
        signer = Signer()
        api = _Api(CONTRACT, self.store, signer, lambda: self.storage_url, [self.api_key], self.rows)
        cdn = Cdn(self.store, signer)
        self._gates = (
            Gate(api.app(), "api", _operation_of, self.faults, self.journal),
            Gate(cdn, "storage", lambda _method, _path: STORAGE, self.faults, self.journal),
        )

    def finish(self, job_id: str, *, key: str | None = None) -> None:
        """Put a job's video into storage, and say so in its row; by default where v1.0.0 has put it."""
        row = self.rows[job_id]
        key = key or f"ai-talking-videos/{row['input']['project_id']}/outputs/{job_id}.mp4"
        self.store.put(key, tiny_video())
        row |= {"job_status": "SUCCESS", "output": {"output": key}}


@frozen(eq=False)
class _Api(Api):
    """The operations of the next revision; `answer` holds each answer to the contract."""

    rows: dict[str, dict[str, Any]]

    async def _checked(self, operation: Operation, request: Request) -> _Call:
        try:
            return await super()._checked(operation, request)
        except _RefusedError as error:
            if operation.id == "generateSignedPath" and error.status == 400:
                raise _NoPathError(400, message="Path query parameter is required") from None
            raise

    def _carry_out(self, operation: Operation, call: _Call) -> tuple[int, dict[str, Any]]:
        match operation.id:
            case "createJob":
                body = self._create(call)
            case "getJob" | "updateJob":
                body = self._row(call)
            case "triggerJobs":
                body = self._trigger(call)
            case "generateSignedPath":
                # Whether or not there is such an object.
                body = {"signedUrl": self.signer.sign(self.storage_url(), call.query["path"]).url}
            case _:
                body = _example(operation, call)
        (status,) = (status for status in operation.answers if status.startswith("2"))
        return int(status), body

    def _create(self, call: _Call) -> dict[str, Any]:
        row = _new_row(call.body)
        self.rows[row["uuid"]] = row
        call.request.state.job_id = row["uuid"]
        head = {name: row[name] for name in ("uuid", "job_status", "job_type", "template_id")}
        return {"message": "Job created", "job": head}

    def _row(self, call: _Call) -> dict[str, Any]:
        row = self.rows.get(call.path["id"])
        if row is None:
            return {"message": "Job not found"}
        given = call.body or {}
        row |= {name: given[name] for name in ("job_status", "output") if name in given}
        return row

    def _trigger(self, call: _Call) -> dict[str, Any]:
        if not self.rows.keys() >= set(call.body["ids"]):
            return {"message": "No job found"}
        for job_id in call.body["ids"]:
            self.rows[job_id] |= {"job_status": "QUEUED", "output": None}
        return {"message": "Job triggered"}


class _NoPathError(_RefusedError):
    """A refusal that gives its reason as `error`, and not as `message`."""

    def body(self) -> dict[str, Any]:
        """Return the answer's body."""
        return {"error": str(self)}


def _new_row(body: dict[str, Any]) -> dict[str, Any]:
    return {
        "uuid": str(uuid.uuid4()),
        "user_id": 7,
        "template_id": body.get("template_id"),
        "input": body,
        "output": None,
        "values": body.get("values", {}),
        "job_status": "QUEUED",
        "job_type": body["job_type"],
        "credit_used": "12.5",
        "created_at": "2026-04-01T12:00:00.000Z",
        "updated_at": "2026-04-01T12:00:00.000Z",
    }


def _example(operation: Operation, call: _Call) -> dict[str, Any]:
    answer = DOCUMENT["paths"][operation.path][operation.method.lower()]["responses"]["200"]
    (example,) = answer["content"]["application/json"]["examples"].values()
    wanted = call.path.get("projectId")
    if wanted and wanted != example["value"]["data"]["projectId"]:
        raise _RefusedError(404, message="Project not found")
    return example["value"]


def _operation_of(method: str, path: str) -> str | None:
    operation = CONTRACT.find(method, path)
    return operation.id if operation else None
