"""Neither the API key nor a signature gets out: not by logs, not by errors, not by files."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
import re
import traceback
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from techforge import JobState, SignedUrl, TechForgeError, Video
from techforge.mock import MockServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CANARY = "canary-key-314159265358979"
INPUT = "canary-input-271828182845904"
"""A token in the query of an input's URL: what gives access to the user's own image."""

_SIGNATURE = re.compile(r"signature=[0-9a-f]{8,}")
_SERVER = ("uvicorn", "techforge.mock")
"""The loggers of the other side, which runs in this process only here."""


@pytest.fixture
def mock() -> Iterator[MockServer]:
    """Return a mock that knows the canary."""
    with MockServer(job_looks=0, render=False, api_keys=[CANARY]) as server:
        yield server


class Lines(logging.Handler):
    """Every log line of the client's side, formatted, with its traceback."""

    def __init__(self) -> None:
        """Keep nothing yet."""
        super().__init__(level=0)
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        if not record.name.startswith(_SERVER):
            self.lines.append(self.format(record))


@pytest.fixture
def log() -> Iterator[Lines]:
    """Return all that is logged at DEBUG, by whoever: ourselves, httpx, httpcore, asyncio."""
    lines = Lines()
    root = logging.getLogger()
    loggers = [root, *map(logging.getLogger, ("techforge", "httpx", "httpcore", "asyncio"))]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    root.addHandler(lines)
    yield lines
    root.removeHandler(lines)
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


def leaks(text: str, *, of_input: bool = True) -> list[str]:
    """Return the secrets that a text holds, with the words around them."""
    secrets = [CANARY, INPUT] if of_input else [CANARY]
    found = [match for secret in secrets for match in re.finditer(re.escape(secret), text)]
    found += _SIGNATURE.finditer(text)
    return [text[max(0, match.start() - 80) : match.end() + 20] for match in found]


def frames_of(error: BaseException | None) -> Iterator[tuple[str, str, str]]:
    """Yield place, name and repr of each local variable that an error reporter shows of an error."""
    while error is not None:
        for frame, line in traceback.walk_tb(error.__traceback__):
            place = f"{frame.f_code.co_filename}:{line}"
            # The frames of the tests hold what a user knows anyway.
            if "/tests/" not in place.replace("\\", "/"):
                for name, value in frame.f_locals.items():
                    try:
                        yield place, name, repr(value)
                    except Exception as failure:  # noqa: BLE001 - half-built objects have no repr
                        yield place, name, f"<{failure!r}>"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def told_by(error: BaseException) -> str:
    """Return all that an error tells of itself: its text and its causes', attributes, notes, pickle."""
    pickled = pickle.dumps(error).decode("latin-1")
    said = "".join(traceback.TracebackException.from_exception(error).format_exception_only())
    return "\n".join([str(error), said, repr(error), repr(vars(error)), repr(error.args), pickled])


def seen_in(folder: Path) -> str:
    """Return the names and the contents of all files."""
    return "\n".join(f"{path} {path.read_bytes()!r}" for path in folder.rglob("*") if path.is_file())


class Flow:
    """One thing that users do, well or badly."""

    def __init__(self, name: str, act: Callable[..., Any], *faults: str, options: Any = None) -> None:
        """Describe it."""
        self.name, self.act, self.faults, self.options = name, act, faults, options or {}

    def __repr__(self) -> str:
        return self.name


def _create(client: Any, media: dict[str, str], **more: Any) -> Any:
    return client.jobs.create(**{**media, "image_url": f"{media['image_url']}?token={INPUT}"}, **more)


class _Tracker:
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def check(self, _job: object) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


SIGN = "operation=generateSignedPath;times=0"
POST = "operation=createJob;times=0"
ECHO = f'{{"message":"bad key {CANARY} for http://127.0.0.1/x?signature=0123456789abcdef and https://u:{INPUT}@h/"}}'
lies = partial(pytest.param, marks=pytest.mark.lying("an answer that the contract does not have"))
FLOWS = [
    Flow("create", lambda c, m, _j, _f: _create(c, m)),
    pytest.param(
        Flow("create: 400", lambda c, m, _j, _f: _create(c, m, output_size="big")),
        marks=pytest.mark.undeclared("output_size"),
    ),
    Flow("create: 400 that echoes", lambda c, m, _j, _f: _create(c, m), f"status=400;json={ECHO};{POST}"),
    Flow("create: 500 that echoes", lambda c, m, _j, _f: _create(c, m), f"status=500;json={ECHO};{POST}"),
    Flow("create: 401", lambda c, m, _j, _f: _create(c, m), f"status=401;{POST}"),
    Flow("create: 429", lambda c, m, _j, _f: _create(c, m), f"status=429;retry-after=600;{POST}"),
    Flow("create: 503", lambda c, m, _j, _f: _create(c, m), f"status=503;{POST}"),
    Flow("create: lost", lambda c, m, _j, _f: _create(c, m), f"close=after-body;{POST}"),
    Flow("create: reset", lambda c, m, _j, _f: _create(c, m), f"close=mid-answer;reset=1;{POST}"),
    Flow("create: late", lambda c, m, _j, _f: _create(c, m), f"delay=9;{POST}", options={"timeout": 0.2}),
    lies(Flow("create: broken JSON", lambda c, m, _j, _f: _create(c, m), f"body=broken-json;{POST}")),
    lies(Flow("create: 202 that echoes", lambda c, m, _j, _f: _create(c, m), f"json={ECHO};{POST}")),
    lies(Flow("create: HTML", lambda c, m, _j, _f: _create(c, m), f"body=html;{POST}")),
    Flow(
        "create: refused", lambda c, m, _j, _f: c.with_options(base_url="http://127.0.0.1:1").jobs.create(**m)
    ),
    Flow("create: wrong argument", lambda c, m, _j, _f: _create(c, m, project_id="x")),
    Flow(
        "create: wrong URL",
        lambda c, m, _j, _f: c.jobs.create(**{**m, "image_url": f"ftp://h/i?token={INPUT}"}),
    ),
    Flow("create: NaN", lambda c, m, _j, _f: _create(c, m, dynamic_scale=float("nan"))),
    Flow("sign", lambda c, _m, j, _f: c.storage.sign(j.output_path)),
    Flow("sign: 404", lambda c, _m, _j, _f: c.storage.sign("a/b")),
    Flow("sign: 500", lambda c, _m, j, _f: c.storage.sign(j.output_path), f"status=500;{SIGN}"),
    lies(
        Flow(
            "sign: broken JSON",
            lambda c, _m, j, _f: c.storage.sign(j.output_path),
            f"body=broken-json;{SIGN}",
        )
    ),
    Flow("sign: truncated", lambda c, _m, j, _f: c.storage.sign(j.output_path), f"body=truncated;{SIGN}"),
    lies(
        Flow(
            "sign: by another number",
            lambda c, _m, j, _f: c.storage.sign(j.output_path),
            f'status=201;json={{"signedUrl":"https://h/x?signature=0123456789abcdef"}};{SIGN}',
        )
    ),
    lies(
        Flow(
            "sign: no web server",
            lambda c, _m, j, _f: c.storage.sign(j.output_path),
            f'json={{"signedUrl":"ftp://h/x?signature=0123456789abcdef"}};{SIGN}',
        )
    ),
    lies(
        Flow(
            "sign: plain http",
            lambda c, _m, j, _f: c.storage.sign(j.output_path),
            f'json={{"signedUrl":"http://h/x?signature=0123456789abcdef"}};{SIGN}',
        )
    ),
    Flow("find", lambda c, _m, j, _f: c.jobs.find(j)),
    Flow("find: 500", lambda c, _m, j, _f: c.jobs.find(j), "cdn-status=500;times=0"),
    Flow("find: lost", lambda c, _m, j, _f: c.jobs.find(j), "close=after-body;operation=storage;times=0"),
    Flow(
        "find: late",
        lambda c, _m, j, _f: c.jobs.find(j),
        "delay=9;operation=storage;times=0",
        options={"timeout": 0.2},
    ),
    lies(
        Flow(
            "find: no such host",
            lambda c, _m, j, _f: c.jobs.find(j),
            f'json={{"signedUrl":"https://ex_ämple.invalid/x?signature=0123456789abcdef"}};{SIGN}',
        )
    ),
    lies(
        Flow(
            "find: no such port",
            lambda c, _m, j, _f: c.jobs.find(j),
            f'json={{"signedUrl":"http://127.0.0.1:1/x?signature=0123456789abcdef"}};{SIGN}',
        )
    ),
    Flow("wait", lambda c, _m, j, _f: c.jobs.wait(j, poll=0.02, timeout=5)),
    Flow("wait: 404", lambda c, _m, j, _f: c.jobs.wait(j, poll=0.02, timeout=0.1), "cdn-status=404;times=0"),
    Flow("wait: 503", lambda c, _m, j, _f: c.jobs.wait(j, poll=0.01, timeout=5), "cdn-status=503;times=0"),
    Flow(
        "wait: late",
        lambda c, _m, j, _f: c.jobs.wait(j, poll=0.01, timeout=0.2),
        "delay=9;operation=storage;times=0",
    ),
    Flow(
        "wait: failed",
        lambda c, _m, j, _f: c.jobs.wait(j, tracker=_Tracker(JobState("failed", "no face")), poll=0.02),
    ),
    Flow(
        "wait: tracker raises",
        lambda c, _m, j, _f: c.jobs.wait(j, tracker=_Tracker(OSError("db")), poll=0.01),
    ),
    Flow("create and wait", lambda c, m, _j, _f: c.jobs.create_and_wait(**m, poll=0.02, timeout=5)),
    Flow(
        "create and wait: 404",
        lambda c, m, _j, _f: c.jobs.create_and_wait(**m, poll=0.02, timeout=0.1),
        "cdn-status=404;times=0",
    ),
    Flow("download", lambda c, _m, j, f: c.jobs.download(j, f)),
    Flow("download, resumed", lambda c, _m, j, f: c.jobs.download(j, f), "cdn-close-after=100000"),
    Flow("download: expired", lambda c, _m, j, f: c.jobs.download(j, f), "cdn-expired=1;times=0"),
    Flow(
        "download: given up",
        lambda c, _m, j, f: c.jobs.download(j, f),
        "cdn-close-after=100000",
        "cdn-status=503;times=0",
    ),
    Flow(
        "download: lost",
        lambda c, _m, j, f: c.jobs.download(j, f),
        "cdn-close-after=1000;reset=1",
        "close=after-body;operation=storage;times=0",
    ),
    Flow("download: 418", lambda c, _m, j, f: c.jobs.download(j, f), "cdn-status=418;times=0"),
    Flow(
        "download: the user's error", lambda c, _m, j, f: c.jobs.download(j, f, on_progress=lambda *_: 1 // 0)
    ),
    Flow(
        "download: late",
        lambda c, _m, j, f: c.jobs.download(j, f, timeout=0.3),
        "drip=0.05;operation=storage",
    ),
]


@pytest.fixture(params=FLOWS, ids=repr)
def flow(request: pytest.FixtureRequest) -> Flow:
    """Return one thing that users do."""
    return request.param


def run(flow: Flow, client: Any, mock: MockServer, media: dict[str, str], done: Any, folder: Path) -> Any:
    """Run a flow, and return its result or its error."""
    mock.faults.add(*flow.faults)
    try:
        return flow.act(client.with_options(**flow.options), media, done, folder)
    except Exception as error:  # noqa: BLE001 - this is what is examined
        return error


def test_nothing_gets_out(
    flow: Flow, connect: Any, mock: MockServer, media: dict[str, str], done: Any, tmp_path: Path, log: Lines
) -> None:
    """No log line, error, result or file holds the key or a signature.

    Of an error everything counts: its text, its pickle, and the frames with their local variables that error
    reporters send away. `Video` and `SignedUrl` hold their URL, which is their purpose, and do not show it.
    """
    outcome = run(flow, connect(CANARY, base_url=mock.url), mock, media, done, tmp_path)
    # That a flow does what its name says: with a colon it fails.
    assert isinstance(outcome, Exception) == (":" in flow.name), outcome
    found = {"logs": leaks("\n".join(log.lines)), "files": leaks(seen_in(tmp_path))}
    if isinstance(outcome, Exception):
        found["error"] = leaks(told_by(outcome))
        # What the user's own frames hold of the input is in ours, too: arguments have to go somewhere.
        found["frames"] = [" ".join(v) for v in frames_of(outcome) if leaks(v[2], of_input=False)]
    else:
        found["result"] = leaks(f"{outcome!r} {outcome}")
        if not isinstance(outcome, Video | SignedUrl):
            found["result"] += leaks(pickle.dumps(outcome).decode("latin-1"))
    assert {where: what for where, what in found.items() if what} == {}


def test_a_redirect_of_storage(connect: Any, mock: MockServer, done: Any, log: Lines, tmp_path: Path) -> None:
    """The location of a redirect may be signed, too: no library logs it."""
    answer = f'{{"signedUrl":"{_redirector(done, mock)}","expiresAt":"2030-01-01T00:00:00Z"}}'
    mock.faults.add(f"status=200;json={answer};{SIGN}")
    with contextlib.suppress(TechForgeError):
        connect(CANARY, base_url=mock.url).jobs.download(done, tmp_path)
    assert [leak for line in log.lines for leak in leaks(line)] == []


def _redirector(done: Any, mock: MockServer) -> str:
    import socket  # noqa: PLC0415
    import threading  # noqa: PLC0415

    listener = socket.create_server(("127.0.0.1", 0))
    answer = (
        f"HTTP/1.1 302 Found\r\nlocation: {mock.storage_url}/{done.output_path}"
        "?signature=0123456789abcdef\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    )

    def serve() -> None:
        with listener, listener.accept()[0] as connection:
            connection.recv(65536)
            connection.sendall(answer.encode())

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}/x"


async def test_a_cancelled_call(mock: MockServer, done: Any, log: Lines) -> None:
    """Nor does a cancelled call leak anything, by its error or by asyncio's debug mode."""
    from techforge import AsyncTechForge  # noqa: PLC0415

    asyncio.get_running_loop().set_debug(True)
    mock.faults.add("delay=9;operation=storage;times=0")
    async with AsyncTechForge(CANARY, base_url=mock.url) as client:
        task = asyncio.create_task(client.jobs.wait(done, timeout=9))
        await asyncio.sleep(0.2)
        shown = repr(task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
    assert leaks(shown + told_by(caught.value)) == []
    assert [v for v in frames_of(caught.value) if leaks(v[2])] == []
    assert [leak for line in log.lines for leak in leaks(line)] == []


def test_the_canary_would_be_found() -> None:
    """The search finds what it looks for: in texts, in pickles, in causes, and in local variables."""

    def fail(secret: str) -> None:
        raise TechForgeError(len(secret))

    namespace: dict[str, Any] = {}
    exec(compile("def call(fail, secret): fail(secret)", "/elsewhere.py", "exec"), namespace)  # noqa: S102
    with pytest.raises(TechForgeError) as caught:
        namespace["call"](fail, CANARY)
    assert [name for _, name, value in frames_of(caught.value) if leaks(value)] == ["secret"]
    assert leaks(told_by(TechForgeError("x?signature=0123456789abcdef")))
    caught.value.job = CANARY  # type: ignore[assignment]
    assert leaks(told_by(caught.value))
