"""Neither the API key nor a signature gets out: not by logs, not by errors, not by files."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from support.secret_guard import (
    CANARY,
    INPUT,
    SecretGuard,
    frames_of,
    keeping,
    leaks,
    logged,
    seen_in,
    told_by,
)

from techforge import JobState, SignedUrl, TechForgeError, Video

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from techforge.mock import MockServer


@pytest.fixture
def log() -> Iterator[list[str]]:
    """Return all that is logged at DEBUG, by whoever: ourselves, httpx, httpcore, asyncio."""
    with logged() as lines:
        yield lines


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
    flow: Flow,
    connect: Any,
    mock: MockServer,
    media: dict[str, str],
    done: Any,
    tmp_path: Path,
    log: list[str],
) -> None:
    """No log line, error, result or file holds the key or a signature.

    Of an error everything counts: its text, its pickle, and the frames with their local variables that error
    reporters send away. `Video` and `SignedUrl` hold their URL, which is their purpose, and do not show it.
    """
    outcome = run(flow, connect(CANARY, base_url=mock.url), mock, media, done, tmp_path)
    # That a flow does what its name says: with a colon it fails.
    assert isinstance(outcome, Exception) == (":" in flow.name), outcome
    found = {"logs": leaks("\n".join(log)), "files": leaks(seen_in(tmp_path))}
    if isinstance(outcome, Exception):
        found["error"] = leaks(told_by(outcome))
        # What the user's own frames hold of the input is in ours, too: arguments have to go somewhere.
        found["frames"] = [" ".join(v) for v in frames_of(outcome) if leaks(v[2], of_input=False)]
    else:
        found["result"] = leaks(f"{outcome!r} {outcome}")
        if not isinstance(outcome, Video | SignedUrl):
            found["result"] += leaks(pickle.dumps(outcome).decode("latin-1"))
    assert {where: what for where, what in found.items() if what} == {}


def test_a_redirect_of_storage(
    connect: Any, mock: MockServer, done: Any, log: list[str], tmp_path: Path
) -> None:
    """The location of a redirect may be signed, too: no library logs it."""
    answer = f'{{"signedUrl":"{_redirector(done, mock)}","expiresAt":"2030-01-01T00:00:00Z"}}'
    mock.faults.add(f"status=200;json={answer};{SIGN}")
    with contextlib.suppress(TechForgeError):
        connect(CANARY, base_url=mock.url).jobs.download(done, tmp_path)
    assert [leak for line in log for leak in leaks(line)] == []


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


async def test_a_cancelled_call(mock: MockServer, done: Any, log: list[str]) -> None:
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
    assert [leak for line in log for leak in leaks(line)] == []


@pytest.mark.leaking("on purpose")
def test_the_whole_suite_is_searched(
    connect: Any, mock: MockServer, media: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What every test is searched with finds a key in a line, an error, a variable, a result, and a file."""

    def found() -> set[str]:
        with keeping(SecretGuard()) as guard, contextlib.suppress(TechForgeError):
            connect(mock.api_key, base_url=mock.url).jobs.create(**media)
        return {leak.partition(":")[0] for leak in guard.found}

    mock.faults.add(f"status=400;json={ECHO};times=0")
    assert found() == set()
    with monkeypatch.context() as patch:
        patch.setattr("techforge._drivers.facade.excerpt", lambda body, *_: body.decode())
        assert found() >= {"errors"}
    with monkeypatch.context() as patch:
        patch.setattr("techforge._masking.Secret.__repr__", str.__str__)
        assert found() == {"variables"}
    mock.faults.clear()
    assert found() == set()
    with monkeypatch.context() as patch:
        patch.setattr("techforge._flows.create._str_or_none", lambda _: CANARY)
        assert found() == {"results", "log lines"}
    (tmp_path / "note").write_text(CANARY, "utf-8")
    guard = SecretGuard()
    guard.look("folders", seen_in(tmp_path))
    assert len(guard.found) == 1


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
