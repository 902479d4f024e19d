"""The server starts quickly, stops cleanly, and is a good command."""

import asyncio
import gc
import json
import logging
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest

from techforge import auth, mock
from techforge.mock import MockServer

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_many_servers(job: dict[str, Any]) -> None:
    """Servers in one process have ports and state of their own, and leave no thread behind."""
    before = threading.active_count()
    with MockServer(render=False) as first, MockServer(render=False) as second:
        urls = {first.url, first.storage_url, second.url, second.storage_url}
        assert len(urls) == 4
        httpx.post(first.url + "/jobs/v2", json=job, headers={"x-api-key": first.api_key})
        assert (first.journal.count(), second.journal.count()) == (1, 0)
    assert threading.active_count() == before
    with pytest.raises(httpx.ConnectError):
        httpx.get(first.url)


def test_start_and_stop_are_quick() -> None:
    """A test can afford a server of its own."""
    started = time.monotonic()
    for _ in range(5):
        with MockServer():
            pass
    assert time.monotonic() - started < 2.5


def test_stop_does_not_wait_for_answers(job: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """A server stops, and says nothing, although clients still wait."""
    with MockServer(render=False) as server, httpx.Client(base_url=server.url) as client:
        failures: list[Exception] = []

        def ask() -> None:
            try:
                client.post("/jobs/v2", json=job, headers={"x-mock-fault": "delay=60"})
            except httpx.HTTPError as error:
                failures.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        while not server.journal.count():
            time.sleep(0.01)
        started = time.monotonic()
        server.__exit__(None, None, None)
        thread.join()
    assert time.monotonic() - started < 1
    assert len(failures) == 1
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_taken_port_is_an_error_at_once(server: MockServer) -> None:
    """A port that is taken is reported where the server is started."""
    with pytest.raises(OSError, match="in use"), MockServer(port=int(server.url.rpartition(":")[2])):
        pass


def test_no_url_before_the_start() -> None:
    """A URL that does not exist yet is not made up."""
    with pytest.raises(RuntimeError, match="is not running"):
        _ = MockServer().url


def test_in_a_running_loop() -> None:
    """The server can share the event loop of a test."""

    async def run() -> int:
        async with MockServer(render=False).serving() as server, httpx.AsyncClient() as client:
            return (await client.get(server.url)).status_code

    assert asyncio.run(run()) == 404


def test_keep_alive(server: MockServer) -> None:
    """Connections are kept: one is enough for many requests."""
    ports: set[int] = set()
    with httpx.Client(base_url=server.url) as client:
        for _ in range(3):
            with client.stream("GET", "/") as answer:
                answer.read()
                ports.add(answer.extensions["network_stream"].get_extra_info("client_addr")[1])
    assert len(ports) == 1


def test_answers_do_not_wait_for_acknowledgements(server: MockServer) -> None:
    """Head and body of an answer go out at once: Nagle's algorithm would cost 40 ms for each."""
    with httpx.Client(base_url=server.url) as client:
        waits: list[float] = []
        for _ in range(11):
            started = time.monotonic()
            client.get("/")
            waits.append(time.monotonic() - started)
    assert sorted(waits)[5] < 0.02


def test_client_is_taken_at_its_word_for_nothing(server: MockServer) -> None:
    """Proxy headers change nothing: URLs are signed for the storage origin as it is."""
    server.store.put("x", b"x")
    answer = httpx.get(
        server.url + "/storage/generate-signed-path?path=x",
        headers={"x-api-key": server.api_key, "host": "evil.example", "x-forwarded-host": "evil.example"},
    )
    assert answer.json()["signedUrl"].startswith(server.storage_url + "/x?")


def test_public_names() -> None:
    """The package has the documented names, and says so when asked for others."""
    assert mock.TEST_API_KEY is auth.TEST_API_KEY
    assert all(getattr(mock, name) for name in mock.__all__)
    with pytest.raises(AttributeError, match="Nope"):
        mock.Nope  # noqa: B018


@pytest.mark.parametrize(
    ("program", "traceback"),
    [
        ("from techforge.mock import MockServer", True),
        ("import runpy; runpy.run_module('techforge.mock', run_name='__main__')", False),
        ("from techforge.cli import main; import sys; sys.argv[1:] = ['mock']; main()", False),
    ],
    ids=["import", "python -m", "techforge mock"],
)
def test_missing_extra_is_explained(program: str, traceback: bool) -> None:
    """Without the extra's packages, an import and both commands say what to install; commands in one line."""
    if "techforge.cli" in program:
        pytest.importorskip("typer")  # the command line has an extra of its own
    code = (
        "import importlib.util as util\n"
        "real = util.find_spec\n"
        "util.find_spec = lambda name, *more: None if name == 'av' else real(name, *more)\n"
        f"{program}\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == (1 if traceback else 2)
    assert 'techforge.mock needs av: install it with  pip install "techforge[mock]"' in result.stderr
    assert ("Traceback" in result.stderr) == traceback


PYTHON_M = ("-W", "error", "-m", "techforge.mock")
TECHFORGE_MOCK = ("-W", "error", "-c", "from techforge.cli import main; main()", "mock")
has_cli = pytest.mark.skipif(find_spec("typer") is None, reason="the command line has an extra of its own")
both_commands = pytest.mark.parametrize(
    "start",
    [
        pytest.param(PYTHON_M, id="python -m"),
        pytest.param(TECHFORGE_MOCK, id="techforge mock", marks=has_cli),
    ],
)


@contextmanager
def command(start: tuple[str, ...], *options: str) -> "Iterator[subprocess.Popen[str]]":
    """Run the command, and end it whatever the test makes of it."""
    program = [sys.executable, *start, "--port", "0", *options]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@both_commands
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_command(start: tuple[str, ...], number: signal.Signals, job: dict[str, Any]) -> None:
    """Both commands take the same options, print one line of JSON, and end cleanly on a signal."""
    options = ("--json", "--job-polls", "1", "--no-render", "--api-key", "k", "--fault", "status=503")
    with command(start, *options, "--ttl", "9", "--latency", "0.01", "--failure-rate", "0") as process:
        assert process.stdout
        facts = json.loads(process.stdout.readline())
        assert facts.keys() == {"url", "storage_url", "api_key"}
        assert facts["api_key"] == "k"
        seen = [
            httpx.post(facts["url"] + "/jobs/v2", json=job, headers={"x-api-key": "k"}).status_code
            for _ in range(2)
        ]
        assert seen == [503, 202]
        process.send_signal(number)
        rest, errors = process.communicate(timeout=5)
    assert (process.returncode, rest, errors) == (0, "", "")


@has_cli
def test_both_commands_have_the_same_help() -> None:
    """One parser serves both commands, so an option of one is an option of the other."""

    def options(start: tuple[str, ...]) -> set[str]:
        with command(start, "--help") as process:
            said, _ = process.communicate(timeout=5)
        assert process.returncode == 0
        return set(re.findall(r"--[a-z-]+", said))

    assert (
        options(PYTHON_M) == options(TECHFORGE_MOCK) >= {"--json", "--api-key", "--latency", "--failure-rate"}
    )


@both_commands
def test_command_refuses_nonsense(start: tuple[str, ...], server: MockServer) -> None:
    """A bad option ends the command with a message instead of a traceback: 2 for usage, 8 for the network."""
    taken = server.url.rpartition(":")[2]
    for options, code, reason in (
        (["--fault", "x=1"], 2, "unknown part 'x'"),
        (["--failure-rate", "2"], 2, "2 is not from 0 to 1"),
        (["--ttl", "-1"], 2, "-1 is less than 0"),
        (["--job-polls", "1", "--job-seconds", "1"], 2, "not allowed with"),
        (["--port", taken], 8, f"port {taken}"),
        (["--port", "99999"], 8, "To use any free port, pass --port 0"),
    ):
        with command(start, *options) as process:
            _, errors = process.communicate(timeout=5)
        assert (process.returncode, reason in errors) == (code, True), errors
        assert "Traceback" not in errors


def test_stopping_leaves_no_connection_open() -> None:
    """A connection that came in at the last moment is closed as well; pytest reports one that is not."""
    for _ in range(20):
        with MockServer(render=False) as server:
            address = urlsplit(server.url)
            clients = [socket.create_connection((address.hostname, address.port)) for _ in range(3)]
        for client in clients:
            client.close()
    gc.collect()


def test_the_command_says_why_a_job_failed(job: dict[str, Any]) -> None:
    """The API tells nobody; whoever runs the mock reads it on stderr."""
    with command(PYTHON_M) as server:
        assert server.stdout
        assert server.stderr
        url = server.stdout.readline().strip().removeprefix("export TFI_BASE_URL=")
        assert "Ctrl-C stops it" in server.stderr.readline()
        bad = {**job, "image_url": "http://127.0.0.1:1/x.png"}
        answer = httpx.post(url + "/jobs/v2", json=bad, headers={"x-api-key": mock.TEST_API_KEY})
        job_id = answer.json()["jobId"]
        line = server.stderr.readline()
    assert job_id in line
    assert "image_url" in line
