"""The clients over real sockets: keys, options, connections and closing."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
import pytest

import techforge
from techforge import (
    APIConnectionError,
    AsyncTechForge,
    AuthenticationError,
    ConfigurationError,
    InvalidArgumentError,
    Job,
    JobOutcomeUnknownError,
    TechForge,
    TechForgeError,
)
from techforge.auth import TEST_API_KEY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.contract_guard import ContractGuard

    from techforge.mock import MockServer

SIGN = "generateSignedPath"


class Keys:
    """A key provider that returns a list of keys, and then the last one forever."""

    def __init__(self, *keys: str) -> None:
        """Store the keys."""
        self.keys = list(keys)
        self.asked = 0

    def __call__(self) -> str:
        """Return the next key."""
        self.asked += 1
        return self.keys.pop(0) if len(self.keys) > 1 else self.keys[0]


# --- the key --------------------------------------------------------------------------------------


def test_a_wrong_key(connect: Callable[..., Any], mock: MockServer, media: dict[str, str]) -> None:
    """A rejected key raises `AuthenticationError` after one request."""
    with pytest.raises(AuthenticationError) as caught:
        connect("wrong", base_url=mock.url).jobs.create(**media)
    assert (caught.value.status_code, caught.value.attempts) == (401, 1)
    assert mock.journal.count() == 1


def test_a_rotated_key(connect: Callable[..., Any], mock: MockServer, media: dict[str, str]) -> None:
    """After a 401 the provider is asked again, and the request is repeated with the new key."""
    keys = Keys("old", mock.api_key)
    connect(keys, base_url=mock.url, max_retries=0).jobs.create(**media)
    assert keys.asked == 2
    assert [r.headers["x-api-key"] for r in mock.journal.requests()] == ["old", mock.api_key]


def test_another_rejected_key_ends_the_call(
    connect: Callable[..., Any], mock: MockServer, media: dict[str, str]
) -> None:
    """The same key or another rejected key ends the call. The provider is asked twice at most."""
    for keys, requests in ((Keys("old"), 1), (Keys("old", "older", mock.api_key), 2)):
        mock.journal.clear()
        with pytest.raises(AuthenticationError):
            connect(keys, base_url=mock.url).jobs.create(**media)
        assert (keys.asked, mock.journal.count()) == (2, requests)


def test_a_provider_is_asked_once_a_call(connect: Callable[..., Any], mock: MockServer, done: Job) -> None:
    """Retries of a call do not ask the provider again."""
    keys = Keys(mock.api_key)
    client = connect(keys, base_url=mock.url)
    assert keys.asked == 0
    mock.faults.add("status=503;times=2")
    client.storage.sign(done.output_path)
    assert (keys.asked, mock.journal.count()) == (1, 3)
    client.storage.sign(done.output_path)
    assert keys.asked == 2


def test_a_provider_in_a_wait(connect: Callable[..., Any], mock: MockServer, done: Job) -> None:
    """A key that is rotated during a wait does not end the wait."""
    keys = Keys(mock.api_key, "stale", mock.api_key)
    mock.faults.add("cdn-status=404")
    connect(keys, base_url=mock.url).jobs.wait(done, poll=0.02, timeout=5)
    assert keys.asked == 3


async def test_an_async_provider(mock: MockServer, media: dict[str, str]) -> None:
    """The async client awaits an async key provider."""
    keys = Keys("old", mock.api_key)

    async def provide() -> str:
        await asyncio.sleep(0)
        return keys()

    async with AsyncTechForge(provide, base_url=mock.url) as client:
        await client.jobs.create(**media)  # type: ignore[arg-type]
    assert keys.asked == 2


@pytest.mark.parametrize("key", ["", "a b", "key\n", "clé", "\x7f", None, b"key", 7])
def test_a_provider_that_returns_an_invalid_key(
    connect: Callable[..., Any], mock: MockServer, media: dict[str, str], key: Any
) -> None:
    """The key is checked like an argument: nothing is sent, and the error does not repeat it."""
    with pytest.raises(ConfigurationError) as caught:
        connect(lambda: key, base_url=mock.url).jobs.create(**media)
    assert not key or repr(key) not in str(caught.value)
    assert mock.journal.count() == 0


def test_an_error_of_the_provider(
    connect: Callable[..., Any], mock: MockServer, media: dict[str, str]
) -> None:
    """An exception of the provider is raised unchanged, and nothing is sent."""

    def provide() -> str:
        raise LookupError("no vault")

    with pytest.raises(LookupError, match="no vault"):
        connect(provide, base_url=mock.url).jobs.create(**media)
    assert mock.journal.count() == 0


# --- the environment and options ------------------------------------------------------------------


def test_the_environment(
    connect: Callable[..., Any], mock: MockServer, media: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Key and base URL come from environment variables. Arguments win."""
    with pytest.raises(ConfigurationError, match="TFI_API_KEY"):
        connect()
    monkeypatch.setenv("TFI_API_KEY", mock.api_key)
    monkeypatch.setenv("TFI_BASE_URL", mock.url)
    connect().jobs.create(**media)
    with pytest.raises(AuthenticationError):
        connect("other").jobs.create(**media)
    monkeypatch.setenv("TFI_BASE_URL", "https://api.example.com")
    connect(base_url=mock.url + "/").jobs.create(**media)
    assert mock.journal.count() == 3


def test_the_mock_key_never_goes_live(connect: Callable[..., Any], mock: MockServer) -> None:
    """The mock's key is refused for the live API, from whatever source it comes."""
    live = "https://api.techforgeinnovate.com"
    with pytest.raises(ConfigurationError, match="mock"):
        connect(TEST_API_KEY)
    with pytest.raises(ConfigurationError, match="mock"):
        connect(TEST_API_KEY, base_url=mock.url).with_options(base_url=live)
    with pytest.raises(ConfigurationError, match="mock"):
        connect(lambda: TEST_API_KEY).storage.sign("a/b")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("base_url", "api.example.com"),
        ("base_url", "http://api.example.com"),
        ("base_url", "https://user:secret@api.example.com"),
        ("base_url", "https://api.example.com/?a=b"),
        ("base_url", "https://api.example.com:99999"),
        ("base_url", 7),
        ("timeout", 0),
        ("timeout", -1),
        ("timeout", True),
        ("timeout", "60"),
        ("timeout", None),
        ("timeout", math.nan),
        ("max_retries", -1),
        ("max_retries", 1.5),
        ("max_retries", None),
        ("retry_timeout", 0),
        ("default_headers", {"X-API-Key": "other"}),
        ("default_headers", {"Host": "elsewhere"}),
        ("default_headers", {"x": "a\r\ny: b"}),
        ("default_headers", {"x y": "a"}),
        ("default_headers", {"x": 1}),
        ("retries", 3),
    ],
)
def test_wrong_options(connect: Callable[..., Any], mock: MockServer, option: str, value: Any) -> None:
    """The client and `with_options` refuse a wrong option and name it."""
    options = {"base_url": mock.url} | {option: value}
    client = connect(mock.api_key, base_url=mock.url)
    for build in (lambda: connect("key", **options), lambda: client.with_options(**{option: value})):
        with pytest.raises((InvalidArgumentError, ConfigurationError), match=option):
            build()


@pytest.mark.parametrize("timeout", [math.inf, 1e12])
def test_a_timeout_without_end(
    connect: Callable[..., Any], mock: MockServer, media: dict[str, str], timeout: float
) -> None:
    """A timeout may be any positive number of seconds, also infinity, in sync and async."""
    client = connect(mock.api_key, base_url=mock.url, timeout=timeout, retry_timeout=timeout)
    job = client.jobs.create(**media)
    assert client.jobs.wait(job, timeout=timeout, poll=0.02).job.status == "done"


def test_with_options(both: Any, mock: MockServer, media: dict[str, str]) -> None:
    """`with_options` returns a new client with the named changes. The old client stays the same."""
    changed = both.with_options(max_retries=0, default_headers={"X-Team": "blue"})
    again = changed.with_options(default_headers={"x-run": "7", "User-Agent": "mine/1"})
    mock.faults.add("status=503")
    with pytest.raises(techforge.InternalServerError):
        again.jobs.create(**media)
    (record,) = mock.journal.requests()
    assert (record.headers["x-team"], record.headers["x-run"]) == ("blue", "7")
    assert record.headers["user-agent"] == "mine/1"
    mock.faults.add("status=503")
    both.jobs.create(**media)
    *_, last = mock.journal.requests()
    assert mock.journal.count() == 3
    assert "x-team" not in last.headers
    assert last.headers["user-agent"].startswith("techforge-python/")


@pytest.mark.lying("an answer in short, without type and expiry")
def test_a_base_url_with_a_path(
    connect: Callable[..., Any], scripted: Callable[..., Any], guard: ContractGuard
) -> None:
    """A base URL may have the path prefix of a gateway."""
    guard.prefix = "/gateway/v1"
    server = scripted(lambda *_: b'HTTP/1.1 200 OK\r\ncontent-length: 27\r\n\r\n{"signedUrl":"https://a/b"}')
    connect("key", base_url=f"{server.url}/gateway/v1/").storage.sign("a/b")
    assert server.heads[0].startswith("GET /gateway/v1/storage/generate-signed-path?path=a%2Fb ")


def test_the_retry_budget_is_shared(both: Any, mock: MockServer, done: Job) -> None:
    """All calls of a client share one retry budget, so an outage does not multiply requests."""
    mock.faults.add("status=503;times=0")
    client = both.with_options(max_retries=50)
    for _ in range(4):
        with pytest.raises(techforge.InternalServerError):
            client.storage.sign(done.output_path)
    assert mock.journal.count() == 4 + 100


# --- connections ----------------------------------------------------------------------------------


def test_connections_are_kept(both: Any, mock: MockServer, done: Job) -> None:
    """Consecutive polls use one connection."""
    for _ in range(4):
        both.storage.sign(done.output_path)
    pool = both._session.driver.http._pool(mock.url)
    assert [connection.http.info().rpartition(" ")[2] for connection in pool._idle] == ["4"]


def test_a_custom_http_client(mock: MockServer, media: dict[str, str], tmp_path: Path) -> None:
    """It sends requests to the API, but no downloads. It is not changed and not closed."""
    seen: list[str] = []
    own = httpx.Client(
        headers={"x-own": "1", "authorization": "Bearer own"},
        cookies={"own": "1"},
        event_hooks={"request": [lambda request: seen.append(request.url.path)]},
        follow_redirects=True,
    )
    with own:
        with TechForge(mock.api_key, base_url=mock.url, http_client=own) as client:
            video = client.jobs.create_and_wait(**media, poll=0.02, timeout=5)  # type: ignore[arg-type]
            client.jobs.download(video, tmp_path)
        assert not own.is_closed
    assert seen == ["/jobs/v2", "/storage/generate-signed-path", "/storage/generate-signed-path"]
    for record in mock.journal.requests():
        assert not record.headers.keys() & {"x-own", "authorization", "cookie"}


async def test_a_custom_async_http_client(mock: MockServer, media: dict[str, str], tmp_path: Path) -> None:
    """The same on asyncio."""
    seen: list[str] = []

    async def note(request: httpx.Request) -> None:
        seen.append(request.url.path)

    async with httpx.AsyncClient(headers={"x-own": "1"}, event_hooks={"request": [note]}) as own:
        async with AsyncTechForge(mock.api_key, base_url=mock.url, http_client=own) as client:
            video = await client.jobs.create_and_wait(**media, poll=0.02, timeout=5)  # type: ignore[arg-type]
            await client.jobs.download(video, tmp_path)
        assert not own.is_closed
    assert seen == ["/jobs/v2", "/storage/generate-signed-path", "/storage/generate-signed-path"]
    assert not any("x-own" in record.headers for record in mock.journal.requests())


@pytest.mark.parametrize("error", [RuntimeError("proxy"), KeyError("k"), ValueError("v")])
def test_an_error_of_a_custom_transport_is_not_hidden(media: dict[str, str], error: Exception) -> None:
    """It is raised unchanged, or is the cause of an error that says that a job may exist."""

    def handler(_request: httpx.Request) -> httpx.Response:
        raise error

    with (
        httpx.Client(transport=httpx.MockTransport(handler)) as own,
        TechForge("key", base_url="http://127.0.0.1:1", http_client=own) as client,
    ):
        with pytest.raises(type(error)):
            client.storage.sign("a/b")
        with pytest.raises(JobOutcomeUnknownError) as caught:
            client.jobs.create(**media)  # type: ignore[arg-type]
    assert caught.value.__cause__ is error


def _whole(request: httpx.Request) -> httpx.Response:
    return httpx.Response(202, json={"jobId": str(UUID(int=len(request.content))), "status": "queued"})


def test_a_response_that_was_read_by_a_hook(mock: MockServer, done: Job, media: dict[str, str]) -> None:
    """An event hook may read the response, and a test transport returns it as a whole."""

    def read(response: httpx.Response) -> None:
        response.read()

    with (
        httpx.Client(event_hooks={"response": [read]}) as own,
        TechForge(mock.api_key, base_url=mock.url, http_client=own) as client,
    ):
        assert client.storage.sign(done.output_path).path == done.output_path
    with (
        httpx.Client(transport=httpx.MockTransport(_whole)) as own,
        TechForge("key", base_url="http://127.0.0.1:1", http_client=own) as client,
    ):
        assert client.jobs.create(**media).status == "queued"  # type: ignore[arg-type]


async def test_an_async_response_that_was_read_by_a_hook(
    mock: MockServer, done: Job, media: dict[str, str]
) -> None:
    """The same on asyncio."""

    async def read(response: httpx.Response) -> None:
        await response.aread()

    async with (
        httpx.AsyncClient(event_hooks={"response": [read]}) as own,
        AsyncTechForge(mock.api_key, base_url=mock.url, http_client=own) as client,
    ):
        assert (await client.storage.sign(done.output_path)).path == done.output_path
    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(_whole)) as own,
        AsyncTechForge("key", base_url="http://127.0.0.1:1", http_client=own) as client,
    ):
        assert (await client.jobs.create(**media)).status == "queued"  # type: ignore[arg-type]


def test_an_http_client_of_the_wrong_kind(mock: MockServer) -> None:
    """The sync client needs an `httpx.Client`, the async client an `httpx.AsyncClient`."""
    with httpx.Client() as own:
        for build in (
            lambda: AsyncTechForge("key", base_url=mock.url, http_client=own),  # type: ignore[arg-type]
            lambda: TechForge("key", base_url=mock.url, http_client=httpx),  # type: ignore[arg-type]
        ):
            with pytest.raises(ConfigurationError, match="http_client"):
                build()


async def test_many_tasks_share_a_client(async_client: AsyncTechForge, mock: MockServer, done: Job) -> None:
    """One async client serves many tasks, from the first call on."""
    await asyncio.gather(*(async_client.jobs.find(done) for _ in range(50)))
    assert mock.journal.count(server="storage") == 50


# --- the end --------------------------------------------------------------------------------------


def calls(client: Any, done: Job, media: dict[str, str], folder: Path) -> list[Callable[[], Any]]:
    """Return every call that sends a request."""
    return [
        lambda: client.jobs.create(**media),
        lambda: client.jobs.wait(done, timeout=1),
        lambda: client.jobs.create_and_wait(**media, timeout=1),
        lambda: client.jobs.find(done),
        lambda: client.jobs.download(done, folder),
        lambda: client.storage.sign(done.output_path),
        lambda: client.storage.download(done.output_path, folder),
        lambda: client.with_options(timeout=1).storage.sign(done.output_path),
    ]


@pytest.mark.parametrize("used", [False, True])
def test_a_closed_client(
    both: Any,
    mock: MockServer,
    done: Job,
    media: dict[str, str],
    tmp_path: Path,
    used: bool,
) -> None:
    """A closed client sends nothing, and each call says so. Closing again does nothing."""
    if used:
        both.storage.sign(done.output_path)
    mock.journal.clear()
    both.close()
    both.close()
    for call in calls(both, done, media, tmp_path):
        with pytest.raises(ConfigurationError, match="closed"):
            call()
    assert mock.journal.count() == 0
    assert list(tmp_path.iterdir()) == []


def test_a_closed_client_with_a_custom_http_client(
    mock: MockServer, done: Job, media: dict[str, str], tmp_path: Path
) -> None:
    """The user's `http_client` stays open."""
    with httpx.Client() as own:
        client = TechForge(mock.api_key, base_url=mock.url, http_client=own)
        client.close()
        for call in calls(client, done, media, tmp_path):
            with pytest.raises(ConfigurationError, match="closed"):
                call()
    assert mock.journal.count() == 0


def test_a_closed_custom_http_client(mock: MockServer, media: dict[str, str]) -> None:
    """The error says that the user's `http_client` is closed."""
    own = httpx.Client()
    own.close()
    with (
        TechForge(mock.api_key, base_url=mock.url, http_client=own) as client,
        pytest.raises(ConfigurationError, match="closed"),
    ):
        client.jobs.create(**media)  # type: ignore[arg-type]


async def test_a_closed_async_client_with_a_custom_http_client(mock: MockServer, done: Job) -> None:
    """The same on asyncio."""
    async with httpx.AsyncClient() as own:
        client = AsyncTechForge(mock.api_key, base_url=mock.url, http_client=own)
        await client.close()
        with pytest.raises(ConfigurationError, match="closed"):
            await client.storage.sign(done.output_path)
    assert mock.journal.count() == 0


def test_closing_a_copy_closes_both(both: Any, done: Job) -> None:
    """A client from `with_options` shares the connections."""
    other = both.with_options(timeout=5)
    other.close()
    with pytest.raises(ConfigurationError, match="closed"):
        both.storage.sign(done.output_path)


def test_another_event_loop(mock: MockServer, done: Job) -> None:
    """An async client raises an error in another event loop, instead of hanging."""
    client = AsyncTechForge(mock.api_key, base_url=mock.url)

    async def use() -> None:
        await client.storage.sign(done.output_path)

    async def use_and_close() -> None:
        await use()
        await client.close()

    with asyncio.Runner() as first:
        first.run(use())
        with pytest.raises(ConfigurationError, match="event loop"):
            asyncio.run(use())
        first.run(use_and_close())


def test_a_client_shows_no_secret() -> None:
    """The repr of a client has the base URL, but not the key."""
    with TechForge("canary", base_url="https://api.example.com/x") as client:
        assert repr(client) == "TechForge(base_url='https://api.example.com/x')"
        assert "canary" not in repr(client._session.settings)


def test_no_error_but_ours_without_a_network(
    connect: Callable[..., Any], closed_port: int, tmp_path: Path
) -> None:
    """Without a network every call raises a `TechForgeError` in time."""
    client = connect("key", base_url=f"http://127.0.0.1:{closed_port}")
    job = Job("15a6331b-3837-4ae8-8fa7-d3ead3388d77", "468ea7a0-66e1-4357-a760-236e54167f3e")
    for call in (
        lambda: client.storage.sign("a/b"),
        lambda: client.jobs.find(job),
        lambda: client.jobs.wait(job, poll=0.02, timeout=5),
        lambda: client.jobs.download(job, tmp_path),
    ):
        with pytest.raises(TechForgeError) as caught:
            call()
        assert isinstance(caught.value, APIConnectionError | techforge.DownloadError)
