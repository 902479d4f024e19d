"""`techforge video`, as a person and as a script uses it."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

import sample_media
from techforge import APIResponseError, JobOutcomeUnknownError, JobParams, Outcome
from techforge.cli import serving, video
from techforge.cli.app import app
from techforge.cli.messages import SubmissionProgress, reporting_errors
from techforge.mock import MockServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.servers import Script, Scripted

ROOT = Path(__file__).resolve().parents[2]
MEDIA = ("--image", "https://cdn.example.com/i.png", "--audio", "https://cdn.example.com/a.mp3")
COMMAND = [sys.executable, "-c", "from techforge.cli import main; main()"]
UUID = r"[0-9a-f]{8}-[0-9a-f-]{27}"
PROJECT = "468ea7a0-66e1-4357-a760-236e54167f3e"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def use(mock: MockServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the environment point at a mock."""
    monkeypatch.setenv("TFI_API_KEY", mock.api_key)
    monkeypatch.setenv("TFI_BASE_URL", mock.url)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[MockServer]:
    """Return a mock whose jobs are done at once."""
    with MockServer(render=False, job_polls=0) as mock:
        use(mock, monkeypatch)
        yield mock


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[MockServer]:
    """Return a mock whose jobs never end."""
    with MockServer(render=False, job_seconds=3600) as mock:
        use(mock, monkeypatch)
        yield mock


def techforge(*arguments: str) -> Any:
    """Run the command line in this process."""
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def sent(mock: MockServer) -> dict[str, Any]:
    """Return the body of the one submission."""
    (record,) = mock.journal.requests(operation="createJob")
    return json.loads(record.body)


def test_every_field_is_an_option() -> None:
    """Those of `JobParams`, and those of the contract: a new one is missed here."""
    command: Any = get_command(video.app)
    options = {parameter.name for parameter in command.commands["create"].params}
    assert set(JobParams.__annotations__) - options == set()
    contract = json.loads((ROOT / "openapi.json").read_text("utf-8"))
    fields = contract["components"]["schemas"]["JobRequest"]["properties"]
    assert set(fields) - options == set()


@pytest.mark.undeclared("mood", "note")
def test_every_option_is_sent(quick: MockServer) -> None:
    """Each field arrives as what it is."""
    created = techforge(
        *("video", "create", *MEDIA, "--project", PROJECT, "--job-type", "ai_talking_video"),
        *("--is-clone-required", "--language", "en", "--version", "5", "--output-size", "400", "--no-crop"),
        *("--dynamic-scale", "1.5", "--iteration-count", "3", "--expand-ratio", "0.25"),
        *("--value", "a", "--value", "b", "--extra", 'mood={"calm": 1}', "--extra", "note=as it is"),
    )
    assert created.exit_code == 0, created.stderr
    body = sent(quick)
    assert body == {
        "image_url": MEDIA[1],
        "audio_url": MEDIA[3],
        "project_id": PROJECT,
        "job_type": "ai_talking_video",
        "is_clone_required": True,
        "language": "en",
        "version": 5,
        "output_size": 400,
        "crop": False,
        "dynamic_scale": 1.5,
        "iteration_count": 3,
        "expand_ratio": 0.25,
        "values": ["a", "b"],
        "mood": {"calm": 1},
        "note": "as it is",
    }
    assert set(JobParams.__annotations__) - {"extra"} <= set(body)


def test_what_is_not_given_is_not_sent(quick: MockServer) -> None:
    """The API decides what it is then; the ids are on stdout, for `video wait $(…)`, and on stderr."""
    created = techforge("video", "create", *MEDIA)
    assert set(sent(quick)) == {"image_url", "audio_url", "project_id", "job_type"}
    job, project = created.stdout.split()
    assert f"techforge video wait {job} {project}" in created.stderr
    assert created.stderr.index(f"Project: {project}") < created.stderr.index(f"Job: {job}")
    assert techforge("video", "wait", job, project).exit_code == 0


def test_from_a_job_to_a_file(here: Path, quick: MockServer) -> None:
    """`--output` waits and fetches; what is on stdout is the ids and the file."""
    (here / "videos").mkdir()
    created = techforge("video", "create", *MEDIA, "--output", "videos")
    ids, file = created.stdout.splitlines()
    assert Path(file) == Path("videos") / f"{ids.split()[0]}.mp4"
    assert (here / file).stat().st_size > 0
    fetched = techforge("video", "download", *ids.split(), "--output", "again.mp4")
    assert fetched.stdout.splitlines() == ["again.mp4"]
    assert (here / "again.mp4").read_bytes() == (here / file).read_bytes()
    assert techforge("video", "download", *ids.split(), "-o", "again.mp4").exit_code == 2
    assert techforge("video", "download", *ids.split(), "-o", "again.mp4", "--overwrite").exit_code == 0
    assert techforge("video", "wait", *ids.split(), "-o", "third.mp4").exit_code == 0
    assert (here / "third.mp4").exists()
    del quick


def test_json_is_all_that_is_on_stdout(quick: MockServer) -> None:
    """One object, whatever happens; and no signed URL in it."""
    created = techforge("video", "create", *MEDIA, "--output", "v.mp4", "--json")
    facts = json.loads(created.stdout)
    assert (facts["status"], facts["file"], facts["size"] > 0) == ("done", "v.mp4", True)
    assert "signature" not in created.output
    assert f"Job: {facts['job_id']}" in created.stderr
    ids = facts["job_id"], facts["project_id"]
    assert json.loads(techforge("video", "wait", *ids, "--json").stdout)["content_type"] == "video/mp4"
    assert json.loads(techforge("video", "download", *ids, "--json").stdout)["size"] == facts["size"]
    quick.faults.add("status=400;operation=createJob")
    refused = techforge("video", "create", *MEDIA, "--json")
    said = json.loads(refused.stdout)
    assert (refused.exit_code, said["error"]["exit_code"], said["error"]["status_code"]) == (2, 2, 400)
    assert (said["job_id"], said["job_may_exist"]) == (None, False)
    assert re.fullmatch(UUID, said["project_id"])


def test_a_resubmission_is_seen(quick: MockServer) -> None:
    """One line on stderr as it happens, and two facts for programs; without one, no line."""
    quick.faults.add("status=503;operation=createJob")
    created = techforge("video", "create", *MEDIA, "--project", PROJECT, "--json")
    facts = json.loads(created.stdout)
    assert (facts["attempts"], facts["may_have_duplicates"]) == (2, True)
    assert quick.journal.count(operation="createJob") == 2
    (line,) = [line for line in created.stderr.splitlines() if "503" in line]
    assert "It is sent again in" in line
    assert f"look in project {PROJECT} for more than one job" in line
    again = techforge("video", "create", *MEDIA, "--output", "v.mp4", "--json")
    facts = json.loads(again.stdout)
    assert (facts["attempts"], facts["may_have_duplicates"]) == (1, False)
    assert "sent again" not in again.stderr
    ids = facts["job_id"], facts["project_id"]
    assert "attempts" not in json.loads(techforge("video", "wait", *ids, "--json").stdout)


@pytest.mark.parametrize("status", [502, 504, 524])
def test_a_gateway_error_submits_once(quick: MockServer, status: int) -> None:
    """The job may exist: one POST, a code of its own, and where to look."""
    quick.faults.add(f"status={status};create=1;operation=createJob;times=0")
    failed = techforge("video", "create", *MEDIA, "--project", PROJECT)
    assert (failed.exit_code, quick.journal.count(operation="createJob")) == (5, 1), failed.stderr
    assert f"a gateway answered {status}" in failed.stderr
    assert f"A job may exist in project {PROJECT}" in failed.stderr
    assert failed.stderr.count("POST /jobs/v2") == 1


def test_nothing_is_said_twice_on_stderr(quick: MockServer) -> None:
    """A program of its own, since pytest collects what is logged: an error ends in one sentence."""
    quick.faults.add("close=after-body;operation=createJob")
    ran = subprocess.run(
        [*COMMAND, "video", "create", *MEDIA], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stderr.count("POST /jobs/v2")) == (5, 1), ran.stderr


def test_media_that_the_api_cannot_fetch(quick: MockServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A private URL is refused where the API is public, with the option that allows it."""
    private = ("--image", "http://192.168.1.5/i.png", *MEDIA[2:])
    assert techforge("video", "create", *private).exit_code == 0
    monkeypatch.setenv("TFI_BASE_URL", "https://nowhere.invalid")
    refused = techforge("video", "create", *private)
    assert (refused.exit_code, "--allow-private-media" in refused.stderr) == (2, True), refused.stderr
    assert "allow_private_media" not in refused.stderr
    allowed = techforge("video", "create", *private, "--allow-private-media")
    assert (allowed.exit_code, "cannot connect to nowhere.invalid:443" in allowed.stderr) == (8, True)
    assert quick.journal.count(operation="createJob") == 1


LYING = pytest.mark.lying("the contract has no such answer")


@pytest.mark.parametrize(
    ("fault", "code", "says"),
    [
        ("status=401;operation=createJob;times=0", 3, "techforge auth status"),
        pytest.param("status=403;operation=createJob", 3, "techforge auth status", marks=LYING),
        ("status=429;retry-after=300;operation=createJob", 7, "retry after: 300 s"),
        pytest.param("status=422;operation=createJob", 2, "Nothing was done", marks=LYING),
        ("close=after-body;operation=createJob", 5, "A job may exist in project"),
        ("status=503;times=0;operation=createJob", 5, "A job may exist in project"),
        pytest.param("body=html;operation=createJob", 5, "A job may exist in project", marks=LYING),
    ],
)
def test_what_a_failed_submission_says(quick: MockServer, fault: str, code: int, says: str) -> None:
    """A code and a sentence for each kind; whether a job may exist; and the project, whatever happens."""
    quick.faults.add(fault)
    failed = techforge("video", "create", *MEDIA, "--project", PROJECT)
    assert (failed.exit_code, says in failed.stderr) == (code, True), failed.stderr
    assert ("A job may exist" in failed.stderr) == (code == 5)
    assert f"Project: {PROJECT}" in failed.stderr
    assert "jobs.wait" not in failed.stderr
    assert "Traceback" not in failed.output


def test_an_id_in_an_answer_that_cannot_be_believed(capsys: pytest.CaptureFixture[str]) -> None:
    """It is said, with the command that goes on; a program gets it, too."""
    lost = APIResponseError("not readable", outcome=Outcome.UNKNOWN, method="POST", path="/jobs/v2")
    lost.job_id = "15a6331b-3837-4ae8-8fa7-d3ead3388d77"
    with (
        pytest.raises(typer.Exit) as left,
        reporting_errors(SubmissionProgress(as_json=True, project_id=PROJECT)),
    ):
        raise JobOutcomeUnknownError(lost, sent={}, project_id=PROJECT)
    said = capsys.readouterr()
    facts = json.loads(said.out)
    assert (left.value.exit_code, facts["job_id"], facts["job_may_exist"]) == (5, lost.job_id, True)
    assert f"techforge video wait {lost.job_id} {PROJECT}" in said.err


def test_no_5xx_twice(quick: MockServer) -> None:
    """Whoever would rather look than pay twice says so."""
    quick.faults.add("status=503;operation=createJob")
    assert techforge("video", "create", *MEDIA, "--no-retry-server-errors").exit_code == 5
    assert quick.journal.count(operation="createJob") == 1


def test_nothing_is_sent_that_cannot_end_well(here: Path, quick: MockServer) -> None:
    """What can be checked is checked before anything is paid for."""
    (here / "there.mp4").touch()
    for wrong in (
        ("--output", "there.mp4"),
        ("--output", "nowhere/v.mp4"),
        ("--project", "mine"),
        ("--version", "7"),
        ("--timeout", "0"),
        ("--poll", "-1"),
        ("--extra", "nothing"),
        ("--extra", "crop=true"),
    ):
        said = techforge("video", "create", *MEDIA, *wrong)
        assert said.exit_code == 2, (wrong, said.stderr)
        assert "Project:" not in said.stderr
    assert techforge("video", "create", "--image", "cdn.example.com/i.png", *MEDIA[2:]).exit_code == 2
    assert quick.journal.count() == 0


def test_an_impossible_file_is_found_before_the_job_is_paid_for(here: Path, quick: MockServer) -> None:
    """The file is opened, as the download will open it, and nothing of it stays."""
    os.mkfifo(here / "pipe.mp4.part")
    for wrong in ("x" * 246, "x" * 250, "pipe.mp4"):
        said = techforge("video", "create", *MEDIA, "--output", wrong)
        assert said.exit_code in {2, 11}, said.stderr
        assert "Traceback" not in said.output
    assert quick.journal.count() == 0
    assert [path.name for path in here.iterdir()] == ["pipe.mp4.part"]


def test_without_a_server(closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that is not there has a code of its own, and no job exists."""
    monkeypatch.setenv("TFI_BASE_URL", f"http://127.0.0.1:{closed_port}")
    monkeypatch.setenv("TFI_API_KEY", "key")
    failed = techforge("video", "create", *MEDIA)
    assert (failed.exit_code, "Nothing was sent" in failed.stderr) == (8, True)
    assert "TFI_BASE_URL" in failed.stderr


def test_a_job_that_takes_too_long(slow: MockServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait ends, the job goes on: a code of its own, and the command that waits again."""
    waited = techforge("video", "create", *MEDIA, "--wait", "--timeout", "0.5", "--poll", "0.1")
    assert waited.exit_code == 6
    job, project = waited.stdout.split()
    assert f"techforge video wait {job} {project} --timeout 0.5 --poll 0.1" in waited.stderr
    assert "jobs.wait" not in waited.stderr
    monkeypatch.setattr(video, "mock_jobs", lambda: None)
    again = techforge("video", "wait", job, project, "--timeout", "0.3", "--poll", "1")
    assert (again.exit_code, "waiting after 0 s, 0 polls" in again.stderr) == (6, True), again.stderr
    assert "Not done after 0 s and 1 poll.\n" in again.stderr
    assert "unknown" not in again.stderr
    del slow


def test_a_video_that_is_not_there(slow: MockServer) -> None:
    """`download` does not wait."""
    job, project = techforge("video", "create", *MEDIA).stdout.split()
    missing = techforge("video", "download", job, project)
    assert (missing.exit_code, "The video of this job does not exist yet." in missing.stderr) == (10, True)
    assert f"Wait for it with:\n  techforge video wait {job} {project}\n" in missing.stderr
    assert techforge("video", "wait", "no-id!", project).exit_code == 2
    del slow


def test_looking_fails_after_the_submission(slow: MockServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends the wait, the ids are said, and the command that goes on; as it is of the live API."""
    monkeypatch.setattr(video, "mock_jobs", lambda: None)
    for fault, code in (("status=401", 3), ("close=before-body", 8), ("status=500", 9)):
        slow.faults.clear()
        slow.faults.add(f"{fault};operation=generateSignedPath;times=0")
        failed = techforge("video", "create", *MEDIA, "--wait", "--json", "--poll", "0.01")
        facts = json.loads(failed.stdout)
        assert (failed.exit_code, facts["error"]["exit_code"]) == (code, code), failed.stderr
        assert f"techforge video wait {facts['job_id']} {facts['project_id']}" in failed.stderr
        assert "jobs.wait" not in failed.stderr


def test_a_job_that_its_mock_has_forgotten(slow: MockServer) -> None:
    """A mock that was restarted knows it no longer: nobody waits for that."""
    job, project = techforge("video", "create", *MEDIA).stdout.split()
    slow.store.clear()
    gone = techforge("video", "wait", job, project)
    assert (gone.exit_code, "restarted" in gone.stderr) == (4, True)


def test_a_download_that_breaks(quick: MockServer) -> None:
    """The ids are known all the same, and the code is the network's."""
    quick.faults.add("cdn-status=500;operation=storage;times=0;after=1")
    failed = techforge("video", "create", *MEDIA, "--output", "v.mp4", "--json")
    facts = json.loads(failed.stdout)
    assert (failed.exit_code, facts["job_may_exist"]) == (9, True)
    assert f"techforge video download {facts['job_id']} {facts['project_id']} --output v.mp4" in failed.stderr


def test_files_of_this_machine(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mock gets them served, until the job is done; a file that is no image fails its job."""
    (here / "my face.png").write_bytes(sample_media.portrait())
    (here / "no image.png").write_bytes(b"no image at all")
    (here / "voice.wav").write_bytes(sample_media.narration())
    with MockServer(job_seconds=0.1) as mock:
        use(mock, monkeypatch)
        voice = ("--audio", (here / "voice.wav").as_uri(), "--poll", "0.2")
        made = techforge("video", "create", "--image", "my face.png", *voice)
        assert made.exit_code == 0, made.stderr
        assert "served until the job is done" in made.stderr
        url = sent(mock)["image_url"]
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{12}/my%20face\.png", url)
        with pytest.raises(httpx.ConnectError):
            httpx.get(url)
        failed = techforge("video", "create", "--image", "no image.png", *voice)
        assert (failed.exit_code, "image_url: " in failed.stderr) == (4, True), failed.stderr
        assert "could not be fetched" not in failed.stderr


def test_nothing_is_served_beside_the_files(here: Path) -> None:
    """Neither their folder, nor under a name that can be guessed."""
    (here / "face.png").write_bytes(b"face")
    (here / "other.png").write_bytes(b"other")
    with serving.published({"image_url": "face.png"}, to_mock=True) as urls:
        url = urls["image_url"]
        assert httpx.get(url).content == b"face"
        origin = url.rpartition("/")[0].rpartition("/")[0]
        for wrong in (
            url.replace("face", "other"),
            f"{origin}/face.png",
            f"{origin}/",
            f"{url}/../other.png",
        ):
            assert httpx.get(wrong).status_code == 404


def test_a_file_is_not_served_to_the_api(
    here: Path,
    closed_port: int,
    scripted: Callable[[Script], Scripted],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The API fetches URLs: that is said before anything is paid, also where a tunnel is on this machine."""
    (here / "face.png").touch()
    monkeypatch.setenv("TFI_API_KEY", "key")
    other = scripted(lambda *_: b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}")
    for url in ("https://api.techforgeinnovate.com", f"http://127.0.0.1:{closed_port}", other.url):
        monkeypatch.setenv("TFI_BASE_URL", url)
        for name in ("face.png", (here / "face.png").as_uri()):
            refused = techforge("video", "create", "--image", name, *MEDIA[2:])
            assert (refused.exit_code, "Upload the file" in refused.stderr) == (2, True), refused.stderr


def test_a_mistake_of_ours_is_no_traceback(quick: MockServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even then; and the ids are said."""

    def broken(*_: object) -> None:
        raise RuntimeError("https://a.example/x?signature=0123456789abcdef")

    monkeypatch.setattr(video, "_print_result", broken)
    failed = techforge("video", "create", *MEDIA, "--wait")
    assert (failed.exit_code, "Traceback" not in failed.output) == (1, True)
    assert "0123456789abcdef" not in failed.output
    assert re.search(f"techforge video download {UUID} {UUID}", failed.stderr)
    del quick


def started(*arguments: str, **how: Any) -> subprocess.Popen[str]:
    """Start the command line as a process of its own."""
    return subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how
    )


def test_ctrl_c_in_mid_wait(slow: MockServer) -> None:
    """It says how to go on, with the options that it had."""
    with started("video", "create", *MEDIA, "--output", "my video.mp4") as process:
        while not slow.journal.count(operation="createJob"):
            time.sleep(0.02)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        ids, said = process.communicate(timeout=10)
    job, project = ids.split()
    assert process.returncode == 130
    assert f"techforge video wait {job} {project} --output 'my video.mp4'" in said
    assert "Traceback" not in said


def test_ctrl_c_in_mid_submission(slow: MockServer) -> None:
    """The first one waits for the job's id, which is paid for; a second one does not."""
    for presses in (1, 2):
        slow.faults.add("delay=2;operation=createJob")
        before = slow.journal.count(operation="createJob")
        with started("video", "create", *MEDIA, "--wait") as process:
            while slow.journal.count(operation="createJob") == before:
                time.sleep(0.02)
            for _ in range(presses):
                time.sleep(0.3)
                process.send_signal(signal.SIGINT)
            ids, said = process.communicate(timeout=10)
        assert process.returncode == 130
        assert "Traceback" not in said
        if presses == 1:
            assert "techforge video wait " + ids.strip() in said
            assert len(ids.split()) == 2
        else:
            assert not ids
            assert re.search(f"A job may exist in project {UUID}", said)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pty")
def test_a_terminal_sees_it_move(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the wait and the download are live; stdout has the results only."""
    with MockServer(render=False, job_seconds=1.5) as mock:
        use(mock, monkeypatch)
        mock.faults.add("drip=0.0002;operation=storage;after=1")
        leader, follower = pty.openpty()
        command = [*COMMAND, "video", "create", *MEDIA, "--output", "v.mp4"]
        with subprocess.Popen(command, stderr=follower, stdout=subprocess.PIPE, text=True) as process:
            os.close(follower)
            seen, late = b"", threading.Timer(20, process.kill)
            late.start()
            while True:
                try:
                    seen += os.read(leader, 65536)
                except OSError:
                    break
            late.cancel()
            out, _ = process.communicate()
        os.close(leader)
    assert process.returncode == 0
    assert b"next poll in" in seen
    assert re.search(rb"processing after \d s, (1 poll|\d polls), next poll in \d s", seen)
    assert b"/s" in seen
    assert "━".encode() in seen
    assert out.splitlines()[1:] == ["v.mp4"]
    assert (here / "v.mp4").exists()
