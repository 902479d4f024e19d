"""Control endpoints for tests and job trackers. They are not part of the contract."""

import json
from typing import Any

from attrs import asdict, frozen
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from techforge.mock.faults import Faults
from techforge.mock.gate import CONTROL
from techforge.mock.journal import Journal
from techforge.mock.store import Store


@frozen(eq=False)
class Control:
    """Reads and changes the state of one mock server, without an API key."""

    store: Store
    faults: Faults
    journal: Journal

    def routes(self) -> list[Route]:
        """Return the routes to add to the API server."""
        return [
            Route(CONTROL + "jobs/{job_id}", self._job),
            Route(CONTROL + "journal", self._journal),
            Route(CONTROL + "faults", self._add_fault, methods=["POST"]),
            Route(CONTROL + "reset", self._reset, methods=["POST"]),
        ]

    def reset(self) -> None:
        """Delete all jobs, objects, faults and journal entries."""
        self.store.clear()
        self.faults.clear()
        self.journal.clear()

    async def _job(self, request: Request) -> Response:
        job_id = request.path_params["job_id"]
        view = self.store.poll_job(job_id)
        if view is None:
            return JSONResponse({"message": f"There is no job {job_id!r}."}, 404)
        return JSONResponse(asdict(view))

    async def _journal(self, _request: Request) -> Response:
        return JSONResponse([record.to_dict() for record in self.journal.requests()])

    async def _add_fault(self, request: Request) -> Response:
        try:
            wanted: Any = json.loads(await request.body())
            self.faults.add(str(wanted["spec"]))
        except (ValueError, TypeError, KeyError) as error:
            reason = str(error) if isinstance(error, ValueError) else 'the body must be {"spec": "…"}'
            return JSONResponse({"message": reason}, 400)
        return JSONResponse({"faults": [fault.spec for fault in self.faults.pending()]}, 201)

    async def _reset(self, _request: Request) -> Response:
        self.reset()
        return JSONResponse({"message": "Jobs, objects, faults and journal are empty."})
