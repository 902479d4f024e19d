"""The messages of a single call's errors, over real sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from techforge import (
    APIConnectionError,
    APITimeoutError,
    InvalidArgumentError,
    JobOutcomeUnknownError,
    NotFoundError,
    RateLimitError,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from techforge.mock import MockServer


def test_an_error_without_a_response_names_the_host(
    connect: Callable[..., Any], mock: MockServer, media: dict[str, str], closed_port: int
) -> None:
    """A wrong base_url is visible: refused, cut off or timed out."""
    with pytest.raises(APIConnectionError, match=f"cannot connect to 127.0.0.1:{closed_port} ") as caught:
        connect("key", base_url=f"http://127.0.0.1:{closed_port}", max_retries=0).jobs.create(**media)
    assert not caught.value.job_may_exist
    host = mock.url.removeprefix("http://")
    client = connect(mock.api_key, base_url=mock.url, max_retries=0)
    mock.faults.add("close=after-body;operation=createJob")
    with pytest.raises(JobOutcomeUnknownError, match=f"the connection to {host} broke"):
        client.jobs.create(**media)
    mock.faults.add("delay=30;operation=generateSignedPath;times=0")
    with pytest.raises(APITimeoutError, match=f"no response in time from {host}"):
        client.with_options(timeout=0.1).storage.sign("a/b.mp4")
    assert mock.journal.count(operation="createJob") == 1


def test_a_429_at_the_deadline_stays_a_429(both: Any, mock: MockServer, media: dict[str, str]) -> None:
    """However short the time that its `Retry-After` leaves. One POST was sent."""
    mock.faults.add("status=429;retry-after=1;operation=createJob;times=0")
    for left in (0.0, 0.004, 0.009):
        sent = mock.journal.count(operation="createJob")
        client = both.with_options(retry_timeout=1.0 + left, max_in_flight=10)
        with pytest.raises(RateLimitError, match="contact support to raise your rate limit") as caught:
            client.jobs.create(**media)
        assert (caught.value.status_code, caught.value.retry_after) == (429, 1.0)
        assert mock.journal.count(operation="createJob") == sent + 1


def test_an_unfinished_job_has_no_video_yet(
    both: Any, mock: MockServer, media: dict[str, str], tmp_path: Path
) -> None:
    """`jobs.download` says how to wait. `storage` says that no object exists."""
    mock.store.pace = type(mock.store.pace)(seconds=3600)
    job = both.jobs.create(**media)
    with pytest.raises(NotFoundError, match=r"does not exist yet\. Wait for it with jobs\.wait") as caught:
        both.jobs.download(job, tmp_path)
    assert caught.value.job == job
    for call in (both.storage.sign, lambda path: both.storage.download(path, tmp_path)):
        with pytest.raises(NotFoundError) as caught:
            call(job.output_path)
        assert (caught.value.job, "yet" in str(caught.value)) == (None, False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:9000/a.png", "http://minio:9000/a.png", "portrait.png"])
def test_unreachable_media_is_not_submitted(
    connect: Callable[..., Any], mock: MockServer, media: dict[str, str], url: str
) -> None:
    """A private URL or a local path is refused. The API here has a public name."""
    client = connect("key", base_url="https://api.example.com")
    with pytest.raises(InvalidArgumentError, match="fetches media from the internet"):
        client.jobs.create(**{**media, "image_url": url})
    if url != "portrait.png":
        local = connect(mock.api_key, base_url=mock.url)
        assert local.jobs.create(**{**media, "image_url": url}).status == "queued"
        assert mock.journal.count(operation="createJob") == 1
