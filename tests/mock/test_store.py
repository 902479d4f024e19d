"""Jobs move by time or by polls, and only done ones have a video."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import httpx
import pytest

from techforge.mock import MockServer
from techforge.mock.contract import contract
from techforge.mock.store import Pace, Store


class Clock:
    """A clock that moves when told to."""

    now = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def make_store(pace: Pace, render: "Future[bytes]", clock: Clock) -> Store:
    """A store whose renders end when the test wants it."""
    return Store(pace, lambda _request: render, contract().output_path, clock=clock)


def ready(data: bytes = b"video") -> "Future[bytes]":
    """A render that is over."""
    future: Future[bytes] = Future()
    future.set_result(data)
    return future


def status(store: Store, job_id: str) -> str:
    """What one poll shows."""
    view = store.poll_job(job_id)
    assert view
    return view.status


def test_by_time(job: Mapping[str, Any], output_path: Callable[[str], str]) -> None:
    """A job is queued, then processing, and done once it has lasted long enough."""
    clock = Clock()
    store = make_store(Pace(2.0), ready(), clock)
    job_id = store.accept(job)
    seen = []
    for clock.now in (100.0, 100.19, 100.2, 101.99, 102.0):
        seen.append(status(store, job_id))
        assert (store.get(output_path(job_id)) is not None) == (seen[-1] == "done")
    assert seen == ["queued", "queued", "processing", "processing", "done"]


def test_by_polls(job: Mapping[str, Any], output_path: Callable[[str], str]) -> None:
    """With N polls, N polls find the job unfinished, be it through storage or the job endpoint."""
    store = make_store(Pace(polls=3), ready(), Clock())
    job_id = store.accept(job)
    assert status(store, job_id) == "queued"
    assert store.find_object(output_path(job_id)) is None
    assert status(store, job_id) == "processing"
    assert store.find_object(output_path(job_id))
    assert status(store, job_id) == "done"


def test_polls_of_one_job_are_its_own(job: Mapping[str, Any]) -> None:
    """Polling one job does not move another."""
    store = make_store(Pace(polls=1), ready(), Clock())
    first, second = store.accept(job), store.accept(job)
    assert [status(store, first), status(store, first)] == ["queued", "done"]
    assert status(store, second) == "queued"


def test_not_done_before_the_render(job: Mapping[str, Any]) -> None:
    """However long it has lasted, a job without a video is not done."""
    render: Future[bytes] = Future()
    store = make_store(Pace(polls=0), render, Clock())
    job_id = store.accept(job)
    assert status(store, job_id) == "processing"
    render.set_result(b"video")
    assert status(store, job_id) == "done"


def test_failed_render(job: Mapping[str, Any], output_path: Callable[[str], str]) -> None:
    """A job whose render fails has failed, with the reason, and never gets an object."""
    render: Future[bytes] = Future()
    render.set_exception(ValueError("no such picture"))
    store = make_store(Pace(polls=0), render, Clock())
    job_id = store.accept(job)
    view = store.poll_job(job_id)
    assert view
    assert (view.status, view.message) == ("failed", "no such picture")
    assert store.find_object(output_path(job_id)) is None


def test_changed_video_stays_changed(job: Mapping[str, Any], output_path: Callable[[str], str]) -> None:
    """What a test puts in a video's place is not undone by the next poll."""
    store = make_store(Pace(polls=0), ready(), Clock())
    job_id = store.accept(job)
    assert store.find_object(output_path(job_id))
    store.put(output_path(job_id), b"changed")
    assert status(store, job_id) == "done"
    stored = store.find_object(output_path(job_id))
    assert stored
    assert stored.data == b"changed"


def test_etag_follows_the_content() -> None:
    """Equal content has an equal ETag, other content another."""
    store = make_store(Pace(), ready(), Clock())
    first, same, other = store.put("a", b"1"), store.put("b", b"1"), store.put("a", b"2")
    assert first.etag == same.etag != other.etag
    assert not first.etag.startswith("W/")


def test_job_endpoint(
    server: MockServer, api: httpx.Client, job: dict[str, Any], output_path: Callable[[str], str]
) -> None:
    """A tracker can follow a job beside the contract, without a key."""
    job_id = api.post("/jobs/v2", json=job).json()["jobId"]
    view = httpx.get(f"{server.url}/__mock__/jobs/{job_id}").json()
    assert view == {
        "job_id": job_id,
        "project_id": job["project_id"],
        "status": "done",
        "message": "The video is ready.",
        "output_path": output_path(job_id),
    }
    assert api.get("/__mock__/jobs/nope").status_code == 404


def test_signing_is_a_poll(job: dict[str, Any], output_path: Callable[[str], str]) -> None:
    """Polling by signing alone brings a job to its end."""
    with MockServer(job_polls=2, render=False) as server:
        headers = {"x-api-key": server.api_key}
        job_id = httpx.post(server.url + "/jobs/v2", json=job, headers=headers).json()["jobId"]
        path = {"path": output_path(job_id)}
        url = server.url + "/storage/generate-signed-path"
        seen = [httpx.get(url, params=path, headers=headers).status_code for _ in range(4)]
        assert seen == [404, 404, 200, 200]


def test_clock_is_the_servers(job: dict[str, Any], output_path: Callable[[str], str]) -> None:
    """A test can move the server's time instead of waiting."""
    clock = Clock()
    with MockServer(job_seconds=60, render=False, clock=clock) as server:
        job_id = server.store.accept(job)
        assert server.store.find_object(output_path(job_id)) is None
        clock.now += 60
        assert server.store.find_object(output_path(job_id))


def test_reset(api: httpx.Client, server: MockServer, job: dict[str, Any]) -> None:
    """A reset leaves nothing of what was."""
    job_id = api.post("/jobs/v2", json=job).json()["jobId"]
    server.faults.add("status=503")
    assert api.post("/__mock__/reset").status_code == 200
    assert api.get(f"/__mock__/jobs/{job_id}").status_code == 404
    assert not server.faults.pending()
    assert server.journal.count() == 0


@pytest.mark.parametrize("polls", [0, 1, 5])
def test_pace_has_no_gap(polls: int) -> None:
    """Stages only ever go forward."""
    order = ["queued", "processing", "over"]
    stages = [order.index(Pace(polls=polls).stage(0, poll)) for poll in range(polls + 2)]
    assert stages == sorted(stages)
    assert stages[-2:] == [2, 2] if polls == 0 else stages[-3] < 2 == stages[-2]
