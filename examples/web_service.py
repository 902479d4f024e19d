"""A web service: it accepts orders, gets a webhook when a video is done, and returns the URL of the video.

    export TFI_API_KEY=… WEBHOOK_TOKEN=…
    uvicorn --factory web_service:make_app          # pip install techforge starlette "uvicorn[standard]"

v1.0.0 of the API sends no webhooks; your own job service sends them, with the ids of a job. The two ids
are enough to find the video, so no task has to wait for it, and the service can restart at any time.
"""

from __future__ import annotations

import hmac
import os
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from attrs import evolve
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from techforge import (
    APIError,
    AsyncTechForge,
    BadRequestError,
    InvalidArgumentError,
    Job,
    JobOutcomeUnknownError,
    RateLimitError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from starlette.requests import Request


class Videos:
    """The jobs of the service, in a dict. In production, use a table in your database."""

    def __init__(self, client: AsyncTechForge, folder: str | Path) -> None:
        self.client, self.folder = client, folder
        self.jobs: dict[str, Job] = {}

    async def order(self, request: Request) -> Response:
        """Submit a job: `POST /videos`."""
        wanted = await request.json()
        try:
            job = await self.client.jobs.create(image_url=wanted["image_url"], audio_url=wanted["audio_url"])
        except (KeyError, InvalidArgumentError, BadRequestError) as error:
            return JSONResponse({"message": f"not a job: {error}"}, 400)
        except RateLimitError as error:
            return JSONResponse({"message": "busy"}, 503, {"retry-after": str(round(error.retry_after or 1))})
        except JobOutcomeUnknownError as error:
            # The job may exist and cost money: a person must decide whether to order again.
            return JSONResponse({"message": "unknown", "project_id": error.project_id}, 502)
        self.jobs[job.id] = job
        return JSONResponse({"id": job.id}, 202, {"location": f"/videos/{job.id}"})

    async def show(self, request: Request) -> Response:
        """Return the URL of the video if it exists: `GET /videos/{id}`."""
        job = self.jobs.get(request.path_params["id"])
        if job is None:
            return JSONResponse({"message": "no such video"}, 404)
        try:
            # Sign a new URL each time: a stored one would expire.
            video = await self.client.jobs.find(job)
        except APIError:
            return JSONResponse({"message": "cannot tell now"}, 503)
        if video is None:
            return JSONResponse({"status": job.status, "message": job.message})
        return JSONResponse({"status": "done", "url": video.url}, headers={"cache-control": "no-store"})

    async def webhook(self, request: Request) -> Response:
        """Handle the end of a job: `POST /webhook`. It may come twice, or for a job of another process."""
        token = request.headers.get("x-webhook-token", "")
        if not hmac.compare_digest(token.encode(), os.environ["WEBHOOK_TOKEN"].encode()):
            return Response(status_code=401)
        event = await request.json()
        try:
            job = self.client.jobs.from_ids(event["jobId"], event["projectId"])
        except (KeyError, InvalidArgumentError) as error:
            return JSONResponse({"message": f"not a job: {error}"}, 400)
        if event.get("status") == "failed":
            self.jobs[job.id] = evolve(job, status="failed", message=event.get("message"))
            return Response(status_code=202)
        self.jobs[job.id] = job
        # Respond to the webhook at once; the download may take long.
        return Response(status_code=202, background=BackgroundTask(self.keep, job))

    async def keep(self, job: Job) -> None:
        """Download the video. A second webhook downloads the same file again."""
        await self.client.jobs.download(job, self.folder, overwrite=True)


def make_app() -> Starlette:
    """Return the service."""
    # One client for all requests: they share its connections and its rate limiter.
    client = AsyncTechForge()
    videos = Videos(client, os.environ.get("VIDEOS", "videos"))

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with client:
            yield

    routes = [
        Route("/videos", videos.order, methods=["POST"]),
        Route("/videos/{id}", videos.show),
        Route("/webhook", videos.webhook, methods=["POST"]),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


if __name__ == "__main__":
    print(f"usage: {__doc__}", file=sys.stderr)  # noqa: T201
    sys.exit(2)
