"""The pytest plugin in a user's own test suite: a separate pytest with the user's code."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

import techforge

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
WRAPPER = str(Path(techforge.__file__).parents[1])
CODE = """
from techforge import TechForge

def make_video(**how):
    with TechForge() as client:
        return client.jobs.create_and_wait(
            image_url="https://a.example/i.png", audio_url="https://a.example/a.mp3", **how
        )
"""
MEDIA = 'image_url="https://a.example/i.png", audio_url="https://a.example/a.mp3"'

Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs a user's tests with our plugin and other named plugins."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", ":".join(filter(None, sys.path)))
    pytester.makepyfile(my_code=CODE)

    def run(tests: str, *arguments: str) -> pytest.RunResult:
        pytester.makepyfile(test_mine=tests)
        plugins = ("-p", "pytest_techforge", "-p", "no:cacheprovider")
        return pytester.runpytest_subprocess(*plugins, "-W", "error", *arguments, timeout=120)

    return run


def test_my_own_job_code_in_five_lines(run: Run) -> None:
    """A `TechForge()` in the user's code is a client of the mock, without any configuration."""
    tests = """
    import my_code

    def test_make_video(techforge_mock):
        techforge_mock.faults.add("status=503;operation=createJob;retry-after=0")
        assert my_code.make_video().job.status == "done"
        assert techforge_mock.journal.count(operation="createJob") == 2
        assert techforge_mock.journal.requests()[0].json()["image_url"] == "https://a.example/i.png"
        assert techforge_mock.journal.requests(operation="generateSignedPath")[0].json() is None
    """
    run(tests).assert_outcomes(passed=1)


def test_each_test_has_a_mock_of_its_own(run: Run) -> None:
    """Neither the state of the mock nor an environment variable is left for the next test."""
    tests = """
    import os
    import my_code

    def test_one(techforge_mock):
        techforge_mock.faults.add("status=400;times=0")
        techforge_mock.next_job(fails="no")
        assert os.environ["TFI_BASE_URL"] == techforge_mock.url

    def test_two(techforge_mock):
        my_code.make_video()
        assert techforge_mock.journal.count(operation="createJob") == 1

    def test_three():
        assert not {"TFI_BASE_URL", "TFI_API_KEY"} & os.environ.keys()
    """
    run(tests).assert_outcomes(passed=3)


def test_jobs_can_be_planned(run: Run) -> None:
    """Tests set the duration, failure and video of the next jobs."""
    tests = f"""
    import pytest
    from techforge import JobFailedError

    def test_jobs(techforge_mock, techforge_client, techforge_clock, tmp_path):
        techforge_mock.next_job(polls=3, video=b"bytes of mine")
        techforge_mock.next_job(fails="no face found")
        jobs = techforge_client.jobs
        first, second, third = [jobs.create({MEDIA}) for _ in range(3)]
        video = jobs.wait(first, poll=60)
        assert techforge_clock.sleeps == [60, 60, 60]
        assert jobs.download(video, tmp_path).read_bytes() == b"bytes of mine"
        with pytest.raises(JobFailedError, match="no face found"):
            jobs.wait(second, tracker=techforge_mock.tracker)
        assert jobs.wait(third, tracker=techforge_mock.tracker).job.status == "done"
        assert techforge_mock.tracker.check(jobs.from_ids(first.project_id, first.project_id)) is None

    @pytest.mark.techforge_mock(job_polls=2)
    def test_the_rest_is_as_for_all_jobs(techforge_mock, techforge_client, techforge_clock):
        techforge_mock.next_job(video=b"bytes of mine")
        techforge_client.jobs.create_and_wait({MEDIA}, poll=60)
        assert techforge_clock.sleeps == [60, 60]

    def test_wrong_plans(techforge_mock):
        with pytest.raises(ValueError, match="fails=… or video=…"):
            techforge_mock.next_job(fails="no", video=b"")
        with pytest.raises(ValueError, match="polls=… or seconds=…"):
            techforge_mock.next_job(polls=1, seconds=1)
    """
    run(tests).assert_outcomes(passed=3)


def test_pauses_take_no_time(run: Run) -> None:
    """A wait of half an hour without a video, and a job of ten minutes, take no real time."""
    tests = f"""
    import time
    import pytest
    from techforge import JobTimeoutError

    def test_waiting(techforge_mock, techforge_client):
        started = time.monotonic()
        techforge_mock.next_job(seconds=600)
        assert techforge_client.jobs.create_and_wait({MEDIA}).job.status == "done"
        techforge_mock.next_job(seconds=6000)
        with pytest.raises(JobTimeoutError) as caught:
            techforge_client.jobs.create_and_wait({MEDIA})
        assert 1700 < caught.value.elapsed < 1801
        assert time.monotonic() - started < 20
    """
    run(tests).assert_outcomes(passed=1)


def test_a_mark_gives_the_server_options(run: Run) -> None:
    """The closest mark sets the options of the mock. An unknown option is an error."""
    tests = f"""
    import pytest
    pytestmark = pytest.mark.techforge_mock(job_polls=5, api_keys=["a", "b"])

    @pytest.mark.techforge_mock(job_polls=2)
    def test_marked(techforge_mock, techforge_client, techforge_clock):
        techforge_client.jobs.create_and_wait({MEDIA}, poll=1)
        assert techforge_clock.sleeps == [1, 1]
        assert techforge_mock.api_key == "a"

    @pytest.mark.techforge_mock(speed=2)
    def test_wrong(techforge_mock):
        pass
    """
    result = run(tests, "--strict-markers")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*@pytest.mark.techforge_mock:*unexpected keyword argument 'speed'"])


def test_a_server_for_the_session(run: Run) -> None:
    """The mock of the session serves a user's own server, and can be reset."""
    tests = f"""
    import os
    import pytest
    from techforge import TechForge

    @pytest.fixture(scope="session")
    def my_app(techforge_mock_session):
        return os.environ | techforge_mock_session.environ

    def create(app):
        with TechForge(app["TFI_API_KEY"], base_url=app["TFI_BASE_URL"]) as client:
            return client.jobs.create({MEDIA})

    def test_one(my_app, techforge_mock_session):
        job = create(my_app)
        assert "TFI_BASE_URL" not in os.environ

    def test_two(my_app, techforge_mock_session):
        assert techforge_mock_session.journal.count(operation="createJob") == 1
        techforge_mock_session.next_job(fails="no")
        techforge_mock_session.faults.add("status=400")
        techforge_mock_session.reset()
        assert techforge_mock_session.journal.count() == 0
        job = create(my_app)
        assert techforge_mock_session.tracker.check(job).status == "done"
    """
    run(tests).assert_outcomes(passed=2)


ASYNC = f"""
    import my_code
    import pytest
    from techforge import AsyncTechForge, JobFailedError

    {{mark}}
    async def test_client(techforge_mock, techforge_async_client, techforge_clock):
        techforge_mock.next_job(polls=3)
        techforge_mock.next_job(fails="no face found")
        jobs = techforge_async_client.jobs
        assert (await jobs.create_and_wait({MEDIA}, poll=60)).job.status == "done"
        assert techforge_clock.sleeps == [60, 60, 60]
        with pytest.raises(JobFailedError, match="no face found"):
            await jobs.create_and_wait({MEDIA}, tracker=techforge_mock.async_tracker)

    {{mark}}
    async def test_own(techforge_mock):
        async with AsyncTechForge() as client:
            await client.jobs.create({MEDIA})
"""


@pytest.mark.parametrize(
    ("mark", "plugins"),
    [
        ("@pytest.mark.asyncio", "-p asyncio"),
        ("", "-p asyncio -o asyncio_mode=auto"),
        ("@pytest.mark.anyio", "-p anyio"),
        ("@pytest.mark.asyncio", "-p asyncio -p anyio"),
    ],
)
def test_async_tests(run: Run, mark: str, plugins: str) -> None:
    """An async test has a client in its own event loop, whichever plugin runs it."""
    options = ["-o", "asyncio_default_fixture_loop_scope=function"] if "-p asyncio" in plugins else []
    backend = (
        "@pytest.fixture\n    def anyio_backend():\n        return 'asyncio'\n\n    "
        if "anyio" in mark
        else ""
    )
    tests = ASYNC.replace("{mark}", backend + mark, 1).replace("{mark}", mark)
    run(tests, *plugins.split(), *options).assert_outcomes(passed=2)


@pytest.mark.parametrize("plugins", ["", "-p anyio"])
@pytest.mark.parametrize("kind", ["", "async "])
def test_no_plugin_runs_async_tests(run: Run, plugins: str, kind: str) -> None:
    """The error says what to install."""
    result = run(f"{kind}def test_async(techforge_async_client):\n    pass\n", *plugins.split())
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*@pytest.mark.anyio*pip install pytest-asyncio*"])


def test_without_the_mock(run: Run, pytester: pytest.Pytester) -> None:
    """If the extra is missing, the error says in one sentence how to install it."""
    pytester.makeconftest(
        """
        import importlib.util
        found = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *rest: None if name == "uvicorn" else found(name, *rest)
        """
    )
    result = run("def test_mock(techforge_client):\n    pass\n")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(['*techforge.mock needs uvicorn: *pip install "techforge?mock?"*'])
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*ImportError*")


def test_the_unused_plugin_loads_nothing(run: Run) -> None:
    """Without its fixtures, a test run loads this one module, and nothing of the SDK."""
    tests = """
    import sys

    def test_nothing():
        ours = {"techforge", "techforge_api", "httpx", "httpcore", "starlette", "uvicorn", "attr", "asyncio"}
        assert "pytest_techforge" in sys.modules
        assert not ours & {name.partition(".")[0] for name in sys.modules}
    """
    run(tests).assert_outcomes(passed=1)
    # Modules of pytest itself are already loaded. The minimum of five, because the machine may be busy.
    program = (
        "import pytest, time\nstarted = time.perf_counter()\nimport pytest_techforge\n"
        "print(time.perf_counter() - started)"
    )
    assert min(float(said(program)) for _ in range(5)) < 0.01


def test_the_sdk_does_not_import_pytest() -> None:
    """No module that a program imports needs pytest."""
    program = (
        "import sys\nsys.modules['pytest'] = None\n"
        "import techforge, techforge.mock.server, techforge.testing\nprint(0)"
    )
    assert said(program) == "0\n"


def said(program: str) -> str:
    """Run a program in a new interpreter, and return its output."""
    environment = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def test_pytest_finds_the_plugin() -> None:
    """The wheel declares it, with the name that `-p` uses."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["entry-points"] == {"pytest11": {"pytest_techforge": "pytest_techforge"}}
