"""The programs in examples/ work, with the mock as their API."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

sys.path.append(str(Path(__file__).parents[2] / "examples"))
import web_service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from techforge.mock import MockServer

EXAMPLES = Path(__file__).parents[2] / "examples"
MEDIA = {"image_url": "https://a.example/i.png", "audio_url": "https://a.example/a.mp3"}
TOKEN = {"x-webhook-token": "a token of ours"}


def run(mock: MockServer, name: str, *arguments: object, said: str = "") -> subprocess.CompletedProcess[str]:
    """Run an example as a user would, with the mock as its API."""
    environment = os.environ | mock.environ | {"PYTHONPATH": ":".join(filter(None, sys.path))}
    return subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name, *map(str, arguments)],
        env=environment,
        input=said,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@asynccontextmanager
async def serving() -> AsyncIterator[httpx.AsyncClient]:
    """Start the web service, and yield a client of it."""
    app = web_service.make_app()
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://ours") as service,
    ):
        yield service


@pytest.fixture
async def service(
    mock: MockServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of the web service."""
    environment = mock.environ | {"WEBHOOK_TOKEN": TOKEN["x-webhook-token"], "VIDEOS": str(tmp_path)}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    async with serving() as service:
        yield service


@pytest.fixture
def uvicorn(mock: MockServer, tmp_path: Path) -> Iterator[str]:
    """Start the web service as its docstring says, in a process with uvloop; return its URL."""
    pytest.importorskip("uvloop")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    environment = os.environ | mock.environ | {"WEBHOOK_TOKEN": "x", "VIDEOS": str(tmp_path)}
    environment["PYTHONPATH"] = ":".join(filter(None, sys.path))
    # `uvicorn[standard]` uses these by default; if they are missing, naming them fails.
    chosen = ["--loop", "uvloop", "--http", "httptools", "--port", str(port), "--log-level", "warning"]
    command = [sys.executable, "-m", "uvicorn", "--factory", "web_service:make_app", *chosen]
    with subprocess.Popen(command, env=environment, cwd=EXAMPLES) as server:
        yield f"http://127.0.0.1:{port}"
        server.terminate()


def test_the_web_service_under_uvicorn_standard(uvicorn: str, mock: MockServer) -> None:
    """With uvloop and httptools an order is submitted once, and the video is shown."""
    transport = httpx.HTTPTransport(retries=10)  # retry until the server has started
    with httpx.Client(transport=transport, base_url=uvicorn, timeout=30) as service:
        ordered = service.post("/videos", json=MEDIA)
        assert ordered.status_code == 202, ordered.text
        assert mock.journal.count(operation="createJob") == 1
        assert service.get(ordered.headers["location"]).json()["status"] == "done"


def event(mock: MockServer, **more: str) -> dict[str, Any]:
    """Return the event that a job service would send about the last job."""
    sent = mock.journal.requests(operation="createJob")[-1]
    return {"jobId": sent.job_id, "projectId": sent.json()["project_id"], **more}


def names(folder: Path) -> list[str]:
    """Return the names of the files in a folder."""
    return sorted(path.name for path in folder.iterdir())


async def test_a_video_is_ordered_and_shown(service: httpx.AsyncClient, mock: MockServer) -> None:
    """An order is accepted at once, and the page with the video is not cached."""
    mock.next_job(polls=1)
    ordered = await service.post("/videos", json=MEDIA)
    assert ordered.status_code == 202
    place = ordered.headers["location"]
    assert (await service.get(place)).json()["status"] == "queued"
    shown = await service.get(place)
    assert shown.headers["cache-control"] == "no-store"
    async with httpx.AsyncClient() as anybody:
        assert (await anybody.get(shown.json()["url"])).content[4:8] == b"ftyp"
    assert (await service.get("/videos/of-nobody")).status_code == 404


async def test_the_webhook_fetches_the_video(
    service: httpx.AsyncClient, mock: MockServer, tmp_path: Path
) -> None:
    """It uses `from_ids`, also for a job of another process. A repeated event does no harm."""
    await service.post("/videos", json=MEDIA)
    done = event(mock, status="done")
    async with serving() as other:
        for _ in range(2):
            assert (await other.post("/webhook", json=done, headers=TOKEN)).status_code == 202
    assert names(tmp_path) == [f"{done['jobId']}.mp4"]


async def test_the_webhook_reports_a_failure(
    service: httpx.AsyncClient, mock: MockServer, tmp_path: Path
) -> None:
    """The page shows the reason of a failed job."""
    mock.next_job(fails="no face found")
    place = (await service.post("/videos", json=MEDIA)).headers["location"]
    failed = event(mock, status="failed", message="no face found")
    assert (await service.post("/webhook", json=failed, headers=TOKEN)).status_code == 202
    assert (await service.get(place)).json() == {"status": "failed", "message": "no face found"}
    assert names(tmp_path) == []


@pytest.mark.parametrize("headers", [{}, {"x-webhook-token": "wrong"}])
async def test_the_webhook_needs_its_token(
    service: httpx.AsyncClient, mock: MockServer, headers: Any
) -> None:
    """Without the token, nothing is requested from the API."""
    await service.post("/videos", json=MEDIA)
    assert (await service.post("/webhook", json=event(mock), headers=headers)).status_code == 401
    assert mock.journal.count(operation="generateSignedPath") == 0
    assert (
        await service.post("/webhook", json={"jobId": "../x", "projectId": ""}, headers=TOKEN)
    ).status_code == 400


@pytest.mark.parametrize(
    ("fault", "status", "said"),
    [
        ("status=400", 400, "not a job"),
        ("status=429;retry-after=7200", 503, "busy"),
        ("close=after-body", 502, "unknown"),
    ],
)
async def test_errors_of_the_service(
    service: httpx.AsyncClient, mock: MockServer, fault: str, status: int, said: str
) -> None:
    """The caller learns what to do. A job with an unknown outcome is submitted once."""
    mock.faults.add(f"{fault};operation=createJob;times=0")
    answer = await service.post("/videos", json=MEDIA)
    assert answer.status_code == status
    assert said in answer.json()["message"]
    if said == "busy":
        assert answer.headers["retry-after"] == "7200"
    if said == "unknown":
        (sent,) = mock.journal.requests(operation="createJob")
        assert answer.json()["project_id"] == sent.json()["project_id"]


def test_the_worker(mock: MockServer, tmp_path: Path) -> None:
    """Each order ends with a file or a reason, and its job ids are printed before the wait."""
    mock.faults.add("close=after-body;operation=createJob;after=5")
    orders = [json.dumps({"name": f"n{number}", **MEDIA}) for number in range(20)]
    orders.append(json.dumps({"name": "bad", **MEDIA, "image_url": "no url"}))
    orders += ["no JSON", '{"name": "x"}']
    done = run(mock, "worker.py", tmp_path / "videos", said="\n".join(orders) + "\n")
    assert (done.returncode, done.stderr) == (0, "")
    said = [json.loads(line) for line in done.stdout.splitlines()]
    files = [line for line in said if "file" in line]
    assert len(files) == 19
    assert all(Path(line["file"]).stat().st_size for line in files)
    assert len([line for line in said if "job_id" in line]) == 19
    (unknown,) = [line for line in said if "unknown" in line]
    failed = sorted(line.get("name", line.get("order")) for line in said if "failed" in line)
    assert failed == ["bad", "no JSON", '{"name": "x"}']
    sent = mock.journal.requests(operation="createJob")
    assert len(sent) == 20
    assert unknown["project_id"] in {record.json()["project_id"] for record in sent}


def test_the_campaign(mock: MockServer, tmp_path: Path) -> None:
    """It lists the rows that need a decision. The same command continues a stopped run."""
    manifest = tmp_path / "campaign.csv"
    rows = [f"n{n},https://a.example/{n}.png,https://a.example/a.mp3" for n in range(3)]
    manifest.write_text("\n".join(["row_key,image_url,audio_url", *rows]), encoding="utf-8")
    mock.faults.add("close=after-body;operation=createJob")
    done = run(mock, "campaign.py", manifest, tmp_path / "videos")
    assert done.returncode == 1, done.stderr
    assert [line.split("\t")[1] for line in done.stdout.splitlines()] == ["unknown"]
    assert len([*tmp_path.glob("videos/*.mp4")]) == 2
    again = run(mock, "campaign.py", manifest, tmp_path / "videos")
    assert (again.returncode, again.stdout) == (0, "")
    assert mock.journal.count(operation="createJob") == 3


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_without_arguments_an_example_prints_its_usage(name: str, mock: MockServer) -> None:
    """Nothing is sent."""
    done = run(mock, name)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: ")
    assert "Traceback" not in done.stderr
    assert mock.journal.count() == 0


def test_a_bad_manifest(mock: MockServer, tmp_path: Path) -> None:
    """The row is named, and nothing is sent."""
    manifest = tmp_path / "campaign.csv"
    manifest.write_text("image_url,audio_url\nhttps://a.example/i.png,nowhere\n", encoding="utf-8")
    done = run(mock, "campaign.py", manifest, tmp_path / "videos")
    assert done.returncode == 2
    assert "audio_url" in done.stderr
    assert mock.journal.count() == 0
