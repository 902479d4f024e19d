"""Which failures are retried over real sockets: it depends on whether a job may exist."""

from __future__ import annotations

import pickle
from email.utils import formatdate
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import techforge
from techforge import (
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    InternalServerError,
    NotFoundError,
    Outcome,
    PermissionDeniedError,
    RateLimitError,
    TechForgeError,
    UnprocessableEntityError,
)
from techforge._drivers import facade

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from techforge import Job
    from techforge.mock import MockServer

wrong = partial(pytest.param, marks=pytest.mark.lying("an answer that the contract does not have"))


# --- server failed: 5xx ---------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 501, 503, 599])
def test_a_server_error_is_retried(
    both: Any, mock: MockServer, media: dict[str, str], done: Job, status: int
) -> None:
    """After a 5xx of the API itself, GET and POST are retried, as its documentation recommends."""
    mock.faults.add(f"status={status};operation=createJob", f"status={status};operation=generateSignedPath")
    assert both.jobs.create(**media).status == "queued"
    assert both.storage.sign(done.output_path).path == done.output_path
    assert mock.journal.count(operation="createJob") == 2
    assert mock.journal.count(operation="generateSignedPath") == 2


def test_a_server_error_is_not_resubmitted_where_that_is_turned_off(
    both: Any, mock: MockServer, media: dict[str, str], done: Job
) -> None:
    """With `resubmit_on_server_error=False` a POST is not retried after a 5xx; a GET is."""
    mock.faults.add("status=503;operation=createJob", "status=503;operation=generateSignedPath")
    careful = both.with_options(resubmit_on_server_error=False)
    with pytest.raises(InternalServerError, match="A job may exist") as caught:
        careful.jobs.create(**media)
    assert (caught.value.attempts, caught.value.outcome) == (1, Outcome.SERVER_FAILED)
    assert caught.value.job_may_exist
    careful.storage.sign(done.output_path)
    assert mock.journal.count(operation="createJob") == 1
    assert mock.journal.count(operation="generateSignedPath") == 2


def test_retries_end(both: Any, mock: MockServer, media: dict[str, str]) -> None:
    """After `max_retries` more attempts, the last failure is raised, with the number of attempts."""
    mock.faults.add("status=503;times=0")
    with pytest.raises(InternalServerError) as caught:
        both.jobs.create(**media)
    assert caught.value.attempts == mock.journal.count() == 3
    assert caught.value.request_id
    assert caught.value.request_id in str(caught.value)
    mock.journal.clear()
    with pytest.raises(InternalServerError):
        both.with_options(max_retries=0).jobs.create(**media)
    assert mock.journal.count() == 1


def test_a_doubt_outlives_later_refusals(both: Any, mock: MockServer, media: dict[str, str]) -> None:
    """If any attempt may have created a job, the error says so, even after a later 4xx."""
    mock.faults.add("status=503;operation=createJob", "status=429;operation=createJob;times=0")
    with pytest.raises(RateLimitError, match="A job may exist") as caught:
        both.with_options(retry_timeout=1.0).jobs.create(**media)
    assert caught.value.job_may_exist


# --- refused: 429 ---------------------------------------------------------------------------------


@pytest.mark.parametrize("retry_after", ["1", "date:2"])
def test_retry_after_is_obeyed(both: Any, mock: MockServer, media: dict[str, str], retry_after: str) -> None:
    """After a 429 the request is sent again, also a POST, when the pause is over."""
    mock.faults.add(f"status=429;retry-after={retry_after}")
    both.jobs.create(**media)
    refused, accepted = mock.journal.requests(operation="createJob")
    # The resolution of an HTTP date is a second, so one of two seconds ahead may be one second away.
    assert 0.99 <= accepted.time - refused.time < 2.5


@pytest.mark.lying("answers in short, without type and body")
def test_a_retry_after_counts_from_the_servers_clock(
    connect: Callable[..., Any], scripted: Callable[..., Any], stopwatch: Any
) -> None:
    """A date is compared with the response's `Date`, so a wrong local clock does not matter."""
    year_2001 = 1_000_000_000

    def answer(_head: str, _connection: socket.socket) -> bytes:
        if len(server.heads) > 1:
            return b'HTTP/1.1 200 OK\r\ncontent-length: 27\r\n\r\n{"signedUrl":"https://a/b"}'
        date, later = formatdate(year_2001, usegmt=True), formatdate(year_2001 + 1, usegmt=True)
        head = f"HTTP/1.1 503 Busy\r\ndate: {date}\r\nretry-after: {later}\r\ncontent-length: 0\r\n\r\n"
        return head.encode()

    server = scripted(answer)
    with stopwatch:
        assert connect("key", base_url=server.url).storage.sign("a/b").url == "https://a/b"
    assert 0.99 <= stopwatch.seconds < 1.5


@pytest.mark.parametrize("retry_after", ["3600", "date:3600"])
def test_a_pause_that_does_not_fit_fails_at_once(
    both: Any, mock: MockServer, media: dict[str, str], retry_after: str, stopwatch: Any
) -> None:
    """If `Retry-After` exceeds `retry_timeout`, the call fails at once. The error has the pause."""
    mock.faults.add(f"status=429;retry-after={retry_after}")
    with stopwatch, pytest.raises(RateLimitError) as caught:
        both.jobs.create(**media)
    assert caught.value.retry_after == pytest.approx(3600, abs=1)
    assert "retry after: 3" in str(caught.value)
    assert (caught.value.outcome, caught.value.job_may_exist) == (Outcome.REFUSED, False)
    assert mock.journal.count() == 1
    assert stopwatch.seconds < 0.5


@pytest.mark.parametrize(
    "retry_after", ["soon", "-1", "", "nan", "inf", "1e400", "1" * 400, "99999999999999"]
)
@pytest.mark.lying("a Retry-After of nonsense")
def test_a_retry_after_of_nonsense_breaks_nothing(
    connect: Callable[..., Any], scripted: Callable[..., Any], retry_after: str
) -> None:
    """A `Retry-After` that is invalid, or beyond the calendar, raises a typed error."""
    text = f"HTTP/1.1 429 Slow\r\nretry-after: {retry_after}\r\ncontent-length: 0\r\n\r\n"
    server = scripted(lambda _head, _connection: text.encode())
    with pytest.raises(RateLimitError):
        connect("key", base_url=server.url, retry_timeout=0.5).storage.sign("a/b")


def test_a_retry_after_beyond_a_day_stops_no_client(
    both: Any, mock: MockServer, media: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """25 hours are a mistake: normal backoff applies, and the log says so once."""
    facade._log_ignored_retry_after.cache_clear()
    mock.faults.add("status=429;retry-after=90000;times=2")
    with caplog.at_level("INFO", "techforge"):
        assert both.jobs.create(**media).id
        assert both.jobs.create(**media).id
    assert sum("Retry-After is ignored" in record.message for record in caplog.records) == 1


# --- unknown: no readable response ----------------------------------------------------------------


def test_a_dripping_head_ends_with_the_timeout(
    connect: Callable[..., Any], scripted: Callable[..., Any], stopwatch: Any
) -> None:
    """Headers that arrive byte by byte do not extend the timeout."""
    head = b"HTTP/1.1 200 OK\r\nx-long: " + b"x" * 40
    server = scripted(lambda _head, connection: server.drip(connection, head, 0.05))
    with stopwatch, pytest.raises(APITimeoutError):
        connect("key", base_url=server.url, timeout=0.4, max_retries=0).storage.sign("a/b")
    assert stopwatch.seconds < 0.9


def test_an_endless_response_is_not_read_to_its_end(
    connect: Callable[..., Any], scripted: Callable[..., Any]
) -> None:
    """Reading stops after one megabyte."""
    server = scripted(lambda _head, _connection: b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 3_000_000)
    with pytest.raises(APIResponseError, match="more than"):
        connect("key", base_url=server.url, max_retries=0).storage.sign("a/b")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        wrong(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nnope"),
        wrong(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n\xff\xfe"),
        wrong(b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100_000),
        wrong(b'HTTP/1.1 200 OK\r\n\r\n{"signedUrl":7}'),
        wrong(b'HTTP/1.1 200 OK\r\n\r\n{"signedUrl":null}'),
        wrong(b'HTTP/1.1 200 OK\r\n\r\n{"signedUrl":"ftp://a/b"}'),
        wrong(b'HTTP/1.1 200 OK\r\n\r\n{"signedUrl":"https:///b"}'),
        wrong(b"HTTP/1.1 204 No Content\r\n\r\n"),
    ],
    ids=lambda answer: answer[:60].decode("latin-1"),
)
def test_no_response_raises_a_foreign_error(
    connect: Callable[..., Any], scripted: Callable[..., Any], answer: bytes
) -> None:
    """Every response leads to an `APIError`, never to a ValueError or an error of httpx."""
    server = scripted(lambda _head, _connection: answer)
    with pytest.raises(techforge.APIError) as caught:
        connect("key", base_url=server.url, max_retries=0).storage.sign("a/b")
    assert (caught.value.method, caught.value.path) == ("GET", "/storage/generate-signed-path")


# --- never sent -----------------------------------------------------------------------------------


def test_an_invalid_host(connect: Callable[..., Any]) -> None:
    """A base URL that httpx cannot use raises a `TechForgeError`."""
    with pytest.raises(TechForgeError):
        connect("key", base_url="https://ex_ämple.com").storage.sign("a/b")


# --- definitive -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequestError),
        (401, AuthenticationError),
        wrong(402, APIStatusError),
        wrong(403, PermissionDeniedError),
        wrong(404, NotFoundError),
        wrong(409, ConflictError),
        wrong(418, APIStatusError),
        wrong(422, UnprocessableEntityError),
        wrong(499, APIStatusError),
    ],
)
@pytest.mark.parametrize(
    "body", ["json={}", wrong("body=html"), wrong("body=empty"), 'json={"error":"e"}', wrong("json=[1]")]
)
def test_a_4xx_is_not_retried(
    both: Any, mock: MockServer, media: dict[str, str], status: int, kind: type[APIStatusError], body: str
) -> None:
    """Its class depends on the status, whatever the body is."""
    mock.faults.add(f"status={status};{body}")
    with pytest.raises(kind) as caught:
        both.jobs.create(**media)
    assert type(caught.value) is kind
    assert (caught.value.status_code, caught.value.outcome) == (status, Outcome.DEFINITIVE)
    assert not caught.value.job_may_exist
    assert mock.journal.count() == 1


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('json={"message":"no face"}', "no face"),
        ('json={"error":"no face"}', "no face"),
        ('json={"error":{"message":"no face"}}', "no face"),
        ('json={"message":["no","face"]}', '["no", "face"]'),
        ('json={"message":"","error":"no face"}', "no face"),
    ],
)
def test_what_the_server_says_is_in_the_message(
    both: Any, mock: MockServer, media: dict[str, str], body: str, said: str
) -> None:
    """The error has the API's own message, in any shape."""
    mock.faults.add(f"status=400;{body}")
    with pytest.raises(BadRequestError) as caught:
        both.jobs.create(**media)
    assert said in str(caught.value)
    assert caught.value.body


@pytest.mark.lying("HTML")
def test_html_of_a_gateway(both: Any, mock: MockServer) -> None:
    """A 502 with HTML is retried for a GET. The log has the beginning of the page."""
    mock.faults.add("status=502;body=html;times=3")
    with pytest.raises(InternalServerError) as caught:
        both.storage.sign("a/b.mp4")
    assert caught.value.attempts == 3
    assert "<h1>Bad gateway</h1>" in caught.value.body


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.lying("redirects")
def test_a_redirect_is_not_followed(
    connect: Callable[..., Any],
    mock: MockServer,
    scripted: Callable[..., Any],
    media: dict[str, str],
    status: int,
) -> None:
    """Otherwise the key would go where the redirect points."""
    text = f"HTTP/1.1 {status} Moved\r\nlocation: {mock.url}/jobs/v2\r\ncontent-length: 0\r\n\r\n"
    server = scripted(lambda _head, _connection: text.encode())
    client = connect("key", base_url=server.url)
    for call in (lambda: client.storage.sign("a/b"), lambda: client.jobs.create(**media)):
        with pytest.raises(TechForgeError, match="redirect"):
            call()
    assert mock.journal.count() == 0
    assert len([head for head in server.heads if head.startswith("POST")]) == 1


# --- what every error is --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", ["status=429;retry-after=3600", wrong("status=418"), "close=after-body", wrong("body=html")]
)
def test_errors_survive_pickle(both: Any, mock: MockServer, media: dict[str, str], fault: str) -> None:
    """Text and attributes stay the same in another process."""
    mock.faults.add(f"{fault};operation=createJob")
    with pytest.raises(TechForgeError) as caught:
        both.jobs.create(**media)
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own
    assert type(copy) is type(caught.value)
    assert str(copy) == str(caught.value)
    facts = {name: value for name, value in vars(caught.value).items() if name != "error"}
    assert {name: value for name, value in vars(copy).items() if name != "error"} == facts
