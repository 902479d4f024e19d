"""Webhooks: the mock posts the end of each job, once, and signs it."""

import hashlib
import hmac
import json
import logging
import queue
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from techforge.mock import MockServer
from techforge.mock.webhook import SIGNATURE_HEADER

SECRET = "a secret of the test"  # noqa: S105


class _Receiver(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        self.events: queue.Queue[tuple[dict[str, str], bytes]] = queue.Queue()
        self.status = 204
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/webhook"

    def next(self) -> tuple[dict[str, str], Any]:
        headers, body = self.events.get(timeout=5)
        return headers, json.loads(body)


class _Handler(BaseHTTPRequestHandler):
    server: _Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.events.put(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def receiver() -> Iterator[_Receiver]:
    """A server that collects webhooks."""
    with _Receiver() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def create(server: MockServer, job: dict[str, Any]) -> str:
    """Submit a job, and return its id."""
    answer = httpx.post(f"{server.url}/jobs/v2", json=job, headers={"x-api-key": server.api_key})
    return str(answer.json()["jobId"])


def test_the_end_of_each_job_is_posted_once(receiver: _Receiver, job: dict[str, Any]) -> None:
    """The body is that of the job service, and the video is there when the webhook arrives."""
    with MockServer(job_seconds=0.1, render=False, webhook=receiver.url) as server:
        server.next_job(fails="no face found")
        failed, done = create(server, job), create(server, job)
        events = {event["job_id"]: event for _, event in (receiver.next(), receiver.next())}
        assert events.keys() == {failed, done}
        assert (events[failed]["status"], events[failed]["message"]) == ("failed", "no face found")
        assert events[done] == httpx.get(f"{server.url}/__mock__/jobs/{done}").json()
        assert server.store.get(events[done]["output_path"])
        # Later polls send nothing more; the next event belongs to the next job.
        last = create(server, job)
        assert receiver.next()[1]["job_id"] == last
    assert receiver.events.empty()


def test_a_job_of_polls_ends_with_its_last_poll(receiver: _Receiver, job: dict[str, Any]) -> None:
    """The webhook does not count as a poll."""
    with MockServer(job_polls=1, render=False, webhook=receiver.url) as server:
        job_id = create(server, job)
        with pytest.raises(queue.Empty):
            receiver.events.get(timeout=0.2)
        assert httpx.get(f"{server.url}/__mock__/jobs/{job_id}").json()["status"] != "done"
        assert receiver.next()[1]["status"] == "done"


@pytest.mark.parametrize("secret", [None, SECRET])
def test_a_secret_signs_the_body(receiver: _Receiver, job: dict[str, Any], secret: str | None) -> None:
    """The signature is the HMAC-SHA256 of the body as it was sent."""
    with MockServer(job_seconds=0, render=False, webhook=receiver.url, webhook_secret=secret) as server:
        create(server, job)
        headers, body = receiver.events.get(timeout=5)
    digest = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    assert headers.get(SIGNATURE_HEADER) == (f"sha256={digest}" if secret else None)
    assert headers["content-type"] == "application/json"


def test_a_receiver_that_fails_is_reported(
    receiver: _Receiver, job: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A webhook is sent once; whoever runs the mock reads why it did not arrive."""
    receiver.status = 500
    with MockServer(job_seconds=0, render=False, webhook=receiver.url) as server:
        first = create(server, job)
        receiver.next()
        second = create(server, job)
        receiver.next()
    reported = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert any(first in text and "responded with 500" in text for text in reported), (first, second, reported)
    assert receiver.events.empty()
