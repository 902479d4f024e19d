"""The clients over real sockets: keys, options, connections, and their end."""

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
    """A key provider that hands out one key after another, then the last for ever."""

    def __init__(self, *keys: str) -> None:
        """Remember the keys."""
        self.keys = list(keys)
        self.asked = 0

    def __call__(self) -> str:
        """Return the next key."""
        self.asked += 1
        return self.keys.pop(0) if len(self.keys) > 1 else self.keys[0]


# --- the key --------------------------------------------------------------------------------------


def test_a_wrong_key(connect: Callable[..., Any], mock: MockServer, media: dict[str, str]) -> None:
    """A key that the API refuses is a 401 of ours, sent once."""
    with pytest.raises(AuthenticationError) as caught:
        connect("wrong", base_url=mock.url).jobs.create(**media)
    assert (caught.value.status_code, caught.value.attempts) == (401, 1)
    assert mock.journal.count() == 1


def test_a_rotated_key(connect: Callable[..., Any], mock: MockServer, media: dict[str, str]) -> None:
    """After a 401 a key provider is asked once more, and the newer key is used; a 401 did nothing."""
    keys = Keys("old", mock.api_key)
    connect(keys, base_url=mock.url, max_retries=0).jobs.create(**media)
    assert keys.asked == 2
    assert [r.headers["x-api-key"] for r in mock.journal.requests()] == ["old", mock.api_key]


def test_a_key_that_does_not_get_better(
    connect: Callable[..., Any], mock: MockServer, media: dict[str, str]
) -> None:
    """The same key again, or another wrong one, ends the call: the provider is asked twice, not more."""
    for keys, requests in ((Keys("old"), 1), (Keys("old", "older", mock.api_key), 2)):
        mock.journal.clear()
        with pytest.raises(AuthenticationError):
            connect(keys, base_url=mock.url).jobs.create(**media)
        assert (keys.asked, mock.journal.count()) == (2, requests)


def test_a_provider_is_asked_once_a_call(connect: Callable[..., Any], mock: MockServer, done: Job) -> None:
    """Each call asks for the current key once, its retries not again."""
    keys = Keys(mock.api_key)
    client = connect(keys, base_url=mock.url)
    assert keys.asked == 0
    mock.faults.add("status=503;times=2")
    client.storage.sign(done.output_path)
    assert (keys.asked, mock.journal.count()) == (1, 3)
    client.storage.sign(done.output_path)
    assert keys.asked == 2


def test_a_provider_in_a_wait(connect: Callable[..., Any], mock: MockServer, done: Job) -> None:
    """A key that is rotated in the middle of a wait does not end it."""
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
def test_a_provider_of_nonsense(
    connect: Callable[..., Any], mock: MockServer, media: dict[str, str], key: Any
) -> None:
    """A provider's answer is checked like a key that is given: nothing is sent, nothing is repeated."""
    with pytest.raises(ConfigurationError) as caught:
        connect(lambda: key, base_url=mock.url).jobs.create(**media)
    assert not key or repr(key) not in str(caught.value)
    assert mock.journal.count() == 0


def test_an_error_of_the_provider(
    connect: Callable[..., Any], mock: MockServer, media: dict[str, str]
) -> None:
    """What a provider raises comes out as it is; nothing is sent."""

    def provide() -> str:
        raise LookupError("no vault")

    with pytest.raises(LookupError, match="no vault"):
        connect(provide, base_url=mock.url).jobs.create(**media)
    assert mock.journal.count() == 0


# --- the environment and options ------------------------------------------------------------------


def test_the_environment(
    connect: Callable[..., Any], mock: MockServer, media: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Key and base URL come from the vendor's variables where they are not given; what is given wins."""
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
    """The mock's key and the live API do not go together, given, provided, or by `with_options`."""
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
    """A wrong option is refused when it is given, by name, to the client or to `with_options`."""
    options = {"base_url": mock.url} | {option: value}
    client = connect(mock.api_key, base_url=mock.url)
    for build in (lambda: connect("key", **options), lambda: client.with_options(**{option: value})):
        with pytest.raises((InvalidArgumentError, ConfigurationError), match=option):
            build()


@pytest.mark.parametrize("timeout", [math.inf, 1e12])
def test_a_timeout_without_end(
    connect: Callable[..., Any], mock: MockServer, media: dict[str, str], timeout: float
) -> None:
    """A timeout is any positive number of seconds, infinity too, in both colours."""
    client = connect(mock.api_key, base_url=mock.url, timeout=timeout, retry_timeout=timeout)
    job = client.jobs.create(**media)
    assert client.jobs.wait(job, timeout=timeout, poll=0.02).job.status == "done"


def test_with_options(both: Any, mock: MockServer, media: dict[str, str]) -> None:
    """`with_options` changes what it names in a new client, keeps the rest, and leaves the old one alone."""
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
    """A base URL may lead through a gateway's path."""
    guard.prefix = "/gateway/v1"
    server = scripted(lambda *_: b'HTTP/1.1 200 OK\r\ncontent-length: 27\r\n\r\n{"signedUrl":"https://a/b"}')
    connect("key", base_url=f"{server.url}/gateway/v1/").storage.sign("a/b")
    assert server.heads[0].startswith("GET /gateway/v1/storage/generate-signed-path?path=a%2Fb ")


def test_the_retry_budget_is_shared(both: Any, mock: MockServer, done: Job) -> None:
    """Retries are bounded for all calls of a client together: an outage is not multiplied."""
    mock.faults.add("status=503;times=0")
    client = both.with_options(max_retries=50)
    for _ in range(4):
        with pytest.raises(techforge.InternalServerError):
            client.storage.sign(done.output_path)
    assert mock.journal.count() == 4 + 100


# --- connections ----------------------------------------------------------------------------------


def test_connections_are_kept(both: Any, mock: MockServer, done: Job) -> None:
    """Calls in a row share one connection: no handshake for each poll."""
    for _ in range(4):
        both.storage.sign(done.output_path)
    pool = both._session.driver.http._pool(mock.url)
    assert [connection.http.info().rpartition(" ")[2] for connection in pool._idle] == ["4"]


def test_an_http_client_of_ones_own(mock: MockServer, media: dict[str, str], tmp_path: Path) -> None:
    """`http_client=` carries the API's requests, not the downloads; it adds nothing, and stays open."""
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


async def test_an_async_http_client_of_ones_own(
    mock: MockServer, media: dict[str, str], tmp_path: Path
) -> None:
    """The same for asyncio."""
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
def test_a_bug_of_ones_own_transport_is_not_hidden(media: dict[str, str], error: Exception) -> None:
    """What an `http_client` of one's own raises comes out as it is, or as the cause where a job may exist."""

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


def test_an_answer_that_was_read_before(mock: MockServer, done: Job, media: dict[str, str]) -> None:
    """A hook may have read the answer, and a test's transport gives it as a whole: it is the answer still."""

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


async def test_an_answer_that_was_read_before_in_async(
    mock: MockServer, done: Job, media: dict[str, str]
) -> None:
    """The same for asyncio."""

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
    """The sync client takes an `httpx.Client`, the async one an `httpx.AsyncClient`, and nothing else."""
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
    """Return every call that sends something."""
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
    """A closed client sends nothing, says so at each call, and may be closed again."""
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


def test_a_closed_client_with_connections_of_ones_own(
    mock: MockServer, done: Job, media: dict[str, str], tmp_path: Path
) -> None:
    """The same where the connections are the user's: they stay open, and are left alone."""
    with httpx.Client() as own:
        client = TechForge(mock.api_key, base_url=mock.url, http_client=own)
        client.close()
        for call in calls(client, done, media, tmp_path):
            with pytest.raises(ConfigurationError, match="closed"):
                call()
    assert mock.journal.count() == 0


def test_connections_of_ones_own_that_are_closed(mock: MockServer, media: dict[str, str]) -> None:
    """An `http_client` that its owner has closed is told of as what it is."""
    own = httpx.Client()
    own.close()
    with (
        TechForge(mock.api_key, base_url=mock.url, http_client=own) as client,
        pytest.raises(ConfigurationError, match="closed"),
    ):
        client.jobs.create(**media)  # type: ignore[arg-type]


async def test_a_closed_async_client_with_connections_of_ones_own(mock: MockServer, done: Job) -> None:
    """The same for asyncio."""
    async with httpx.AsyncClient() as own:
        client = AsyncTechForge(mock.api_key, base_url=mock.url, http_client=own)
        await client.close()
        with pytest.raises(ConfigurationError, match="closed"):
            await client.storage.sign(done.output_path)
    assert mock.journal.count() == 0


def test_options_share_the_end(both: Any, done: Job) -> None:
    """A client of `with_options` shares the connections, so closing either closes both."""
    other = both.with_options(timeout=5)
    other.close()
    with pytest.raises(ConfigurationError, match="closed"):
        both.storage.sign(done.output_path)


def test_a_loop_of_ones_own(mock: MockServer, done: Job) -> None:
    """An async client belongs to one event loop; in another it says so instead of hanging."""
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
    """The repr of a client tells where it points, and not with which key."""
    with TechForge("canary", base_url="https://api.example.com/x") as client:
        assert repr(client) == "TechForge(base_url='https://api.example.com/x')"
        assert "canary" not in repr(client._session.settings)


def test_no_error_but_ours_without_a_network(
    connect: Callable[..., Any], closed_port: int, tmp_path: Path
) -> None:
    """Without a network every call ends in an error of ours, within its bounds."""
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
