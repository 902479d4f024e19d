"""A user's program in both colours, for the type checkers; it is checked, and never run.

mypy (strict) and pyright (strict) hold it against the public API. Each `assert_type` pins a type that users
see; each wrong call carries the error that it must bring, in mypy's words, which
pyright obeys too: for both of them an ignore that is not needed is an error itself.
"""

from __future__ import annotations

import asyncio
import logging
import os
from datetime import datetime
from pathlib import Path
from typing import assert_never, assert_type
from uuid import UUID, uuid4

import httpx

from techforge import (
    APIConnectionError,
    APIError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    AsyncTechForge,
    AsyncTracker,
    ClientOptions,
    DownloadError,
    InvalidArgumentError,
    Job,
    JobFailedError,
    JobOutcomeUnknownError,
    JobParams,
    JobState,
    JobTimeoutError,
    JobUpdate,
    Outcome,
    PollSchedule,
    RateLimitError,
    SignedUrl,
    TargetExistsError,
    TechForge,
    TechForgeError,
    Tracker,
    Video,
)
from techforge.batch import Entry, RunOptions, State

log = logging.getLogger("studio")

# --- what a program is set to ---------------------------------------------------------------------

options: ClientOptions = {
    "base_url": "https://api.techforgeinnovate.com",
    "timeout": 30,
    "max_retries": 4,
    "retry_timeout": 60.0,
    "resubmit_on_server_error": False,
    "default_headers": {"x-team": "studio"},
    "allow_http": False,
}
params: JobParams = {
    "image_url": "https://cdn.example.com/image.png",
    "audio_url": "https://cdn.example.com/audio.mp3",
    "project_id": uuid4(),
    "version": 5,
    "output_size": 720,
    "crop": True,
    "dynamic_scale": 1,
    "values": ("a", "b"),
    "extra": {"template_id": "t", "nested": [1, {"a": None}]},
}


def current_key() -> str:
    """Return the key that a vault holds now."""
    return os.environ["TFI_API_KEY"]


async def current_key_async() -> str:
    """Return the same, from a vault that is asked over the network."""
    await asyncio.sleep(0)
    return current_key()


# --- a job service of one's own -------------------------------------------------------------------


class Service:
    """Knows where jobs stand, from webhooks."""

    def __init__(self, events: dict[str, str]) -> None:
        """Take what the webhooks have said."""
        self.events = events

    def check(self, job: Job) -> JobState | str:
        """Return where a job stands."""
        status = self.events.get(job.id, "queued")
        return JobState(status, message="no face found") if status == "failed" else status


class AsyncService:
    """The same for asyncio."""

    async def check(self, job: Job) -> str:
        """Return where a job stands; a `str` alone will do."""
        await asyncio.sleep(0)
        return job.status


tracker: Tracker = Service({})
async_tracker: AsyncTracker = AsyncService()


def note(update: JobUpdate) -> None:
    """Keep the ids of what has been paid for."""
    assert_type(update.job, Job)
    assert_type(update.status, str)
    assert_type(update.message, str | None)
    assert_type(update.elapsed, float)
    assert_type(update.polls, int)


async def note_async(update: JobUpdate) -> None:
    """Do the same, later."""
    await asyncio.sleep(0)
    note(update)


def progress(received: int, total: int | None) -> None:
    """Show how far a download is."""
    log.info("%d of %s bytes", received, total or "?")


# --- with blocking calls --------------------------------------------------------------------------


def render(folder: Path) -> Path:
    """Submit a job, wait, and fetch its video."""
    with TechForge() as client:
        assert_type(client, TechForge)
        job = client.jobs.create(**params)
        assert_type(job, Job)
        assert_type(job.id, str)
        assert_type(job.project_id, str)
        assert_type(job.status, str)
        assert_type(job.message, str | None)
        assert_type(job.output_path, str)
        video = client.jobs.wait(
            job, timeout=600, poll=PollSchedule(initial=2, maximum=30), tracker=tracker, on_update=note
        )
        assert_type(video, Video)
        assert_type(video.job, Job)
        assert_type(video.signed, SignedUrl)
        assert_type(video.url, str)
        assert_type(video.path, str)
        assert_type(video.size, int | None)
        assert_type(video.expires_at, datetime | None)
        path = client.jobs.download(video, folder, overwrite=True, on_progress=progress, timeout=60)
        assert_type(path, Path)
        return path


def render_in_one_call(client: TechForge) -> Video:
    """Do it in one call, with arguments of one's own."""
    patient = client.with_options(timeout=5, max_retries=0)
    assert_type(patient, TechForge)
    video = patient.jobs.create_and_wait(
        image_url="https://cdn.example.com/image.png",
        audio_url="https://cdn.example.com/audio.mp3",
        project_id=None,
        language=None,
        values=["a"],
        timeout=600,
        poll=2,
        tracker=Service({}),
        on_update=note,
    )
    assert_type(video, Video)
    return video


def go_on(client: TechForge, job_id: str, project_id: UUID, folder: str) -> None:
    """Go on with a job in another process."""
    job = client.jobs.from_ids(job_id, project_id, output_path=None)
    assert_type(job, Job)
    found = client.jobs.find(job)
    assert_type(found, Video | None)
    if found is None:
        return
    signed = client.storage.sign(found.path)
    assert_type(signed, SignedUrl)
    assert_type(signed.expires_at, datetime | None)
    assert_type(client.storage.download(signed.path, folder), Path)
    assert_type(client.jobs.download(job, Path(folder)), Path)


class Studio(TechForge):
    """A client with a method of one's own; what makes clients from it makes these."""

    def render_all(self, jobs: list[JobParams]) -> list[Video]:
        """Render one job after another."""
        careful = self.with_options(resubmit_on_server_error=False)
        return [careful.jobs.create_and_wait(**job) for job in jobs]


def build() -> None:
    """Build clients in all the ways there are."""
    with Studio("key", **options) as studio:
        assert_type(studio, Studio)
        assert_type(studio.with_options(timeout=5), Studio)
    TechForge(current_key, timeout=5).close()
    TechForge(api_key=lambda: "key", http_client=httpx.Client()).close()


# --- with asyncio ---------------------------------------------------------------------------------


async def render_async(folder: Path) -> list[Path]:
    """Do the same for many at once."""
    async with AsyncTechForge(current_key_async, http_client=httpx.AsyncClient(), **options) as client:
        assert_type(client, AsyncTechForge)
        assert_type(client.with_options(timeout=5), AsyncTechForge)
        job = await client.jobs.create(**params)
        assert_type(job, Job)
        video = await client.jobs.wait(job, tracker=async_tracker, on_update=note_async)
        assert_type(video, Video)
        assert_type(await client.jobs.find(job), Video | None)
        assert_type(client.jobs.from_ids(job.id, job.project_id), Job)
        assert_type(await client.storage.sign(video.path), SignedUrl)
        assert_type(await client.storage.download(video.path, folder), Path)
        videos = await asyncio.gather(*(client.jobs.create_and_wait(**params, poll=5.0) for _ in range(3)))
        assert_type(videos, list[Video])
        paths = await asyncio.gather(*(client.jobs.download(v, folder, on_progress=progress) for v in videos))
        assert_type(paths, list[Path])
        return paths


# --- what can go wrong ----------------------------------------------------------------------------


def judge(outcome: Outcome) -> bool:
    """Tell whether to submit again; a type checker says so if an outcome is ever added."""
    match outcome:
        case Outcome.NOT_SENT | Outcome.REFUSED:
            return True
        case Outcome.SERVER_FAILED | Outcome.UNKNOWN | Outcome.DEFINITIVE:
            return False
        case _:
            assert_never(outcome)


run_options: RunOptions = {"out": Path("videos"), "concurrency": 8, "give_up_after": None}


def run_a_campaign(client: TechForge) -> list[str]:
    """Run one, and download what is missing."""
    ended = [entry.key for entry in client.batch.run("campaign.csv", campaign="spring", **run_options)]
    for entry in client.batch.fetch(out="videos"):
        assert_type(entry, Entry)
        assert_type(entry.state, State)
    return ended


async def run_a_campaign_async(client: AsyncTechForge) -> None:
    """Run one with asyncio."""
    async for entry in client.batch.run([{"image_url": "https://a.example"}], max_jobs=3, on_conflict="keep"):
        assert_type(entry, Entry)


def survive(client: TechForge) -> Job | None:  # noqa: C901 - one branch for each kind of error
    """Handle every kind of error by what it carries."""
    try:
        return client.jobs.create_and_wait(**params).job
    except InvalidArgumentError as error:
        assert_type(error.field, str)
    except JobOutcomeUnknownError as error:
        assert_type(error.job_id, str | None)
        assert_type(error.project_id, str)
        assert_type(error.error, APIError)
    except JobTimeoutError as error:
        assert_type(error.job, Job)
        assert_type(error.last_error, Exception | None)
        assert_type(error.retry_after, float | None)
        return error.job
    except JobFailedError as error:
        assert_type(error.job, Job)
        assert_type(error.reason, str | None)
    except RateLimitError as error:
        assert_type(error.retry_after, float | None)
    except APIStatusError as error:
        assert_type(error.status_code, int | None)
        assert_type(error.request_id, str | None)
        assert_type(error.body, str)
    except (APITimeoutError, APIConnectionError, APIResponseError) as error:
        assert_type(error.outcome, Outcome)
        assert_type(error.job_may_exist, bool)
    except TargetExistsError as error:
        assert_type(error.target, str)
    except DownloadError as error:
        assert_type(error.received, int)
        assert_type(error.error, APIError | None)
    except TechForgeError as error:
        assert_type(error.job, Job | None)
    return None


# --- what type checkers must refuse ---------------------------------------------------------------


async def mistakes(client: TechForge, other: AsyncTechForge, job: Job) -> None:
    """Make the mistakes that people make."""
    client.jobs.create(image_url="https://cdn.example.com/image.png")  # type: ignore[call-arg]
    client.jobs.create(**params, outputsize=400)  # type: ignore[call-arg]
    client.jobs.create(image_url="https://a.example", audio_url="https://a.example", version="5")  # type: ignore[arg-type]
    client.jobs.wait(job.id)  # type: ignore[arg-type]
    client.batch.run("campaign.csv", outt="videos")  # type: ignore[call-arg]
    client.batch.run("campaign.csv", max_jobs="10")  # type: ignore[arg-type]
    client.batch.work("postgresql://host/db", outt="videos")  # type: ignore[call-arg]
    client.jobs.wait(job, 60)  # type: ignore[call-arg]
    client.jobs.wait(job, timeout="60")  # type: ignore[arg-type]
    client.jobs.wait(job, tracker=AsyncService())  # type: ignore[arg-type]
    client.jobs.wait(job, on_update=progress)  # type: ignore[arg-type]
    log.info(client.jobs.find(job).url)  # type: ignore[union-attr]
    client.with_options(retries=3)  # type: ignore[call-arg]
    client.with_options(api_key="other")  # type: ignore[call-arg]
    job.status = "done"  # type: ignore[misc]
    TechForge(http_client=httpx.AsyncClient())  # type: ignore[arg-type]
    TechForge(timeout="60")  # type: ignore[arg-type]
    TechForge(7)  # type: ignore[arg-type]
    other.jobs.wait(job)  # type: ignore[unused-coroutine]
    await other.jobs.wait(job, tracker=Service({}))  # type: ignore[arg-type]
    await other.jobs.download(job.id, ".")  # type: ignore[arg-type]
    log.info((await other.jobs.find(job)).path)  # type: ignore[union-attr]
