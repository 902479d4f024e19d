"""What `import techforge` gives, and what it leaves alone."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

import techforge
from techforge import errors, models, tracking
from techforge.policy import polling

ROOT = Path(techforge.__file__).parents[1]


def run(program: str) -> str:
    """Run a program in an interpreter of its own, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={"PYTHONPATH": ":".join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_is_sorted_and_true() -> None:
    """`__all__` is sorted, names nothing twice, and everything in it is there."""
    assert techforge.__all__ == sorted(set(techforge.__all__))
    for name in techforge.__all__:
        assert getattr(techforge, name) is not None


@pytest.mark.parametrize("module", [errors, models, tracking, polling], ids=lambda module: module.__name__)
def test_all_is_complete(module: object) -> None:
    """Every class that users meet, to catch, to annotate or to build, is exported by `techforge`."""
    own = {
        name
        for name, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__ and not name.startswith("_")  # type: ignore[attr-defined]
    }
    assert own
    assert own <= set(techforge.__all__)


def test_nothing_else_is_public() -> None:
    """What is not in `__all__` is a module or private: no import of ours is taken for an offer."""
    extra = {name for name in vars(techforge) if not name.startswith("_")} - set(techforge.__all__)
    assert {name for name in extra if not inspect.ismodule(getattr(techforge, name))} == set()


def test_a_star_import() -> None:
    """`from techforge import *` gives exactly `__all__`."""
    listed = run(
        "from techforge import *; print(sorted(n for n in dir() if n != '__version__' and n[0] != '_'))"
    )
    assert listed.strip() == str([name for name in techforge.__all__ if name != "__version__"])


def test_the_errors_are_one_family() -> None:
    """Every error is a `TechForgeError`, so that one `except` catches the SDK's errors and nothing else."""
    for name in techforge.__all__:
        value = getattr(techforge, name)
        if inspect.isclass(value) and issubclass(value, BaseException):
            assert issubclass(value, techforge.TechForgeError), name


def test_the_error_tree_is_drawn_right() -> None:
    """The tree at the top of `errors` shows every error, below its base."""
    assert errors.__doc__
    drawn = errors.__doc__
    for name in (n for n in techforge.__all__ if inspect.isclass(getattr(techforge, n))):
        if issubclass(getattr(techforge, name), techforge.TechForgeError):
            assert name in drawn, name


def test_import_reads_no_environment_and_opens_nothing() -> None:
    """Importing reads no variable of ours, builds no HTTP client or TLS context, starts no thread."""
    program = """
import asyncio, os, ssl, sys, threading
import attrs, dateutil.parser, httpx
seen = []
class Watched(dict):
    def __getitem__(self, key): seen.append(key); return dict.__getitem__(self, key)
    def get(self, key, default=None): seen.append(key); return dict.get(self, key, default)
    def __contains__(self, key): seen.append(key); return dict.__contains__(self, key)
os.environ = Watched(os.environ)
def refuse(*args, **kwargs): raise AssertionError("built at import")
httpx.Client.__init__ = httpx.AsyncClient.__init__ = httpx.create_ssl_context = refuse
ssl.create_default_context = threading.Thread.start = asyncio.new_event_loop = refuse
import techforge
print([key for key in seen if "TFI" in str(key) or "TECHFORGE" in str(key) or "PROXY" in str(key).upper()])
print(sorted(name for name in sys.modules if name.startswith("techforge.mock")))
"""
    assert run(program) == "[]\n[]\n"


def test_the_core_needs_its_dependencies_only() -> None:
    """`import techforge` works without any of the extras."""
    program = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"starlette", "uvicorn", "jsonschema_rs", "av", "PIL", "rich", "yaml"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
import techforge
with techforge.TechForge("key") as client: print(client)
"""
    assert "TechForge(base_url=" in run(program)


def test_import_time() -> None:
    """The import takes well under half a second of its own: command lines start with it."""
    program = (
        "import httpx, attrs, dateutil.parser, time\nstarted = time.perf_counter()\n"
        "import techforge\nprint(time.perf_counter() - started)"
    )
    assert min(float(run(program)) for _ in range(3)) < 0.5


def test_the_version_is_the_packages() -> None:
    """`techforge.__version__` is the version of the distribution, where there is one."""
    assert techforge.__version__.count(".") == 2
    try:
        assert version("techforge") == techforge.__version__
    except PackageNotFoundError:
        pytest.skip("not installed, only on the path")


def test_the_package_is_typed() -> None:
    """Both packages say that they are typed (PEP 561)."""
    assert (ROOT / "techforge" / "py.typed").exists()
