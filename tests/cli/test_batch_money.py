"""A command of `techforge batch` submits what its user ordered: the server's POSTs are counted."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from techforge.batch import Ledger, State
from techforge.cli.app import app
from techforge.mock import MockServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COMMAND = [sys.executable, "-c", "from techforge.cli import main; main()", "batch"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def mock(monkeypatch: pytest.MonkeyPatch) -> Iterator[MockServer]:
    """Return a mock that the environment points at."""
    with MockServer(render=False, job_polls=0) as mock:
        monkeypatch.setenv("TFI_API_KEY", mock.api_key)
        monkeypatch.setenv("TFI_BASE_URL", mock.url)
        yield mock


def techforge(*arguments: str) -> Any:
    """Run the command line in this process."""
    return CliRunner().invoke(app, ["batch", *arguments], catch_exceptions=False)


def manifest(folder: Path, name: str, *keys: str, header: str = "customer", **files: str) -> None:
    """Write a manifest with a row for each key; `files` names another image for a key."""
    media = ",https://cdn.example.com/{}.png,https://cdn.example.com/a.mp3,c"
    rows = [f"{key}{media.format(files.get(key, f'{name}-{key}'))}" for key in keys]
    (folder / name).write_text("\n".join([f"row_key,image_url,audio_url,{header}", *rows]), encoding="utf-8")


def posts(mock: MockServer) -> int:
    """Return how many jobs the server was asked for."""
    return mock.journal.count(operation="createJob")


# --- campaigns --------------------------------------------------------------------------------------


def test_a_run_submits_no_rows_of_another_manifest(here: Path, mock: MockServer) -> None:
    """After a budget stopped A, running B submits B's rows, and puts B's videos into B's folder."""
    manifest(here, "A.csv", "1", "2", "3", "4")
    manifest(here, "B.csv", "1")
    assert techforge("run", "A.csv", "--out", "a", "--max-jobs", "2").exit_code == 6
    dry = techforge("run", "B.csv", "--out", "b", "--dry-run").stderr
    assert "This run would submit 1 job: 1 new row" in dry
    assert techforge("run", "B.csv", "--out", "b").exit_code == 0
    assert posts(mock) == 3
    assert [path.name for path in (here / "b").iterdir()] == ["1.mp4"]
    assert techforge("resume", "--campaign", "A").exit_code == 0
    assert (posts(mock), len(list((here / "a").iterdir()))) == (5, 4)


def test_commands_name_the_campaign_where_there_are_several(here: Path, mock: MockServer) -> None:
    """Without a name they list what there is; `status` shows all."""
    manifest(here, "A.csv", "1", "2")
    manifest(here, "B.csv", "1")
    stopped = techforge("run", "A.csv", "--max-jobs", "1")
    assert "Continue with: techforge batch resume\n" in stopped.stderr
    assert techforge("run", "B.csv").exit_code == 0
    for command in (["resume"], ["report", "r.csv"], ["rows"], ["retry", "--state", "failed"], ["unknown"]):
        said = techforge(*command)
        assert said.exit_code == 2
        assert "several campaigns: A (http" in said.stderr
    assert techforge("fetch", "--out", "x").exit_code == 2
    shown = json.loads(techforge("status", "--json").stdout)
    assert {name.split()[0]: counts["done"] for name, counts in shown.items()} == {"A": 1, "B": 1}
    assert techforge("status").stdout.count("done") == 2
    assert json.loads(techforge("status", "--campaign", "A", "--json").stdout)["pending"] == 1
    assert (
        "resume --campaign A" in techforge("run", "A.csv", "--max-jobs", "1", "--dry-run").stderr
        or posts(mock) == 2
    )


def test_a_manifest_of_the_same_name_in_another_folder(here: Path, mock: MockServer) -> None:
    """Its rows join those of the first one only if the user says so."""
    for folder in ("jan", "feb"):
        (here / folder).mkdir()
        manifest(here / folder, "rows.csv", f"{folder}-1", f"{folder}-2")
    techforge("run", "jan/rows.csv", "--max-jobs", "1")
    stopped = techforge("run", "feb/rows.csv")
    assert (stopped.exit_code, "--campaign NAME" in stopped.stderr) == (2, True)
    assert posts(mock) == 1
    assert techforge("run", "feb/rows.csv", "--campaign", "rows").exit_code == 0
    assert posts(mock) == 4


def test_another_key_does_not_buy_everything_again(
    here: Path, mock: MockServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A campaign belongs to an account; a replaced key continues it when the user says so."""
    manifest(here, "A.csv", "1", "2")
    techforge("run", "A.csv", "--max-jobs", "1")
    with Ledger("techforge.sqlite") as ledger:
        account = ledger.campaign.account
    monkeypatch.setenv("TFI_API_KEY", "another-key-0123456789")
    stopped = techforge("run", "A.csv")
    assert (stopped.exit_code, f"TFI_ACCOUNT={account}" in stopped.stderr) == (2, True)
    monkeypatch.setenv("TFI_ACCOUNT", str(account))
    monkeypatch.setenv("TFI_API_KEY", mock.api_key)
    assert techforge("run", "A.csv").exit_code == 0
    assert posts(mock) == 2


# --- what is about to be submitted ------------------------------------------------------------------


def test_a_dry_run_counts_everything(here: Path, mock: MockServer) -> None:
    """New rows, pending rows of earlier runs, what a budget holds back, the total, and what it costs."""
    manifest(here, "A.csv", "1", "2", "3")
    techforge("run", "A.csv", "--max-jobs", "1", "--price", "0.40")
    manifest(here, "A.csv", "1", "2", "3", "4", "4")
    said = techforge("run", "A.csv", "--dry-run", "--max-jobs", "2").stderr
    assert "1 new row, 3 known from earlier runs, 1 duplicate in the manifest." in said
    assert "would submit 2 jobs of 1 new row and 2 rows still pending from earlier runs." in said
    assert "Cost at 0.40 per job: 0.80." in said
    assert "1 row stays pending because of --max-jobs 2." in said
    assert "Nothing was sent." in said
    assert posts(mock) == 1
    assert json.loads(techforge("status", "--json").stdout)["pending"] == 2
    assert techforge("run", "new.csv", "--dry-run").exit_code == 2
    manifest(here, "new.csv", "1")
    techforge("run", "new.csv", "--dry-run")
    with Ledger("techforge.sqlite") as ledger:
        assert [one.name for one in ledger.campaigns()] == ["A"]


def test_many_jobs_need_an_answer(here: Path, mock: MockServer) -> None:
    """Without a terminal, more than 100 jobs need --yes or --max-jobs; 100 never ask."""
    manifest(here, "A.csv", *map(str, range(101)))
    stopped = techforge("run", "A.csv")
    assert stopped.exit_code == 2
    assert "add --yes, or --max-jobs" in stopped.stderr.lower()
    assert (posts(mock), techforge("status").exit_code) == (0, 12)
    assert techforge("run", "A.csv", "--ask-above", "0", "--max-jobs", "1").exit_code == 6
    assert techforge("run", "A.csv", "--max-jobs", "2").exit_code == 6
    assert posts(mock) == 3
    assert techforge("resume", "--ask-above", "97").exit_code == 2
    assert posts(mock) == 3
    assert techforge("resume").exit_code == 0
    assert posts(mock) == 101


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pty")
@pytest.mark.parametrize(("answer", "code", "jobs"), [(b"n\n", 6, 0), (b"y\n", 0, 3)])
def test_a_terminal_is_asked(here: Path, mock: MockServer, answer: bytes, code: int, jobs: int) -> None:
    """The question comes before a row is loaded, with the number of jobs and the cost."""
    manifest(here, "A.csv", "1", "2", "3")
    leader, follower = pty.openpty()
    command = [*COMMAND, "run", "A.csv", "--ask-above", "2", "--price", "1.5"]
    with subprocess.Popen(command, stdin=follower, stderr=follower, stdout=subprocess.DEVNULL) as process:
        os.close(follower)
        os.write(leader, answer)
        seen = b""
        while True:
            try:
                seen += os.read(leader, 65536)
            except OSError:
                break
    os.close(leader)
    assert b"submits 3 jobs" in seen
    assert b"Cost at 1.5 per job: 4.5." in seen
    assert b"Submit them?" in seen
    assert (process.returncode, posts(mock)) == (code, jobs)
    with Ledger("techforge.sqlite") as ledger:
        assert bool(ledger.campaigns()) is bool(jobs)


def test_the_price_is_shown_wherever_jobs_are_counted(here: Path, mock: MockServer) -> None:
    """In the plan, at the end, in status and in the report; it is remembered, and must be a price."""
    manifest(here, "A.csv", "1", "2")
    mock.faults.add("close=after-body;operation=createJob")
    ran = techforge("run", "A.csv", "--price", "0.40")
    assert "This run submits 2 jobs: 2 new rows. Cost at 0.40 per job: 0.80." in ran.stderr
    assert "Cost at 0.40 per job: 0.40 for 1 job; up to 0.40 more for 1 job that may exist." in ran.stderr
    assert "Cost at 0.40 per job" in techforge("status").stderr
    techforge("report", "r.html")
    assert "0.40" in (here / "r.html").read_text("utf-8")
    assert techforge("run", "A.csv", "--price", "free").exit_code == 2
    assert techforge("run", "A.csv", "--price", "-1").exit_code == 2


def test_a_key_stands_for_one_content(here: Path, mock: MockServer) -> None:
    """Two contents in a manifest, or a row that was edited, stop the run before anything is sent."""
    manifest(here, "A.csv", "1", "2")
    (here / "A.csv").write_text(
        (here / "A.csv").read_text() + "\n1,https://x.example/2.png,https://x.example/a,c"
    )
    stopped = techforge("run", "A.csv")
    assert (stopped.exit_code, "row_key '1': line 2 and line 4 differ" in stopped.stderr) == (2, True)
    assert posts(mock) == 0
    manifest(here, "A.csv", "1", "2")
    assert techforge("run", "A.csv", "--max-jobs", "1").exit_code == 6
    manifest(here, "A.csv", "1", "2", **{"2": "edited"})
    stopped = techforge("run", "A.csv")
    assert (stopped.exit_code, "line 3 differs from what line 3 said" in stopped.stderr) == (2, True)
    assert posts(mock) == 1
    assert techforge("run", "A.csv", "--on-conflict", "replace").exit_code == 0
    assert posts(mock) == 2
    assert b"edited" in mock.journal.requests(operation="createJob")[-1].body


def test_rows_removed_from_the_manifest_are_not_bought(here: Path, mock: MockServer) -> None:
    """Rows that a budget held back, and that the user then deleted, are submitted only on request."""
    manifest(here, "A.csv", "1", "2", "3")
    techforge("run", "A.csv", "--max-jobs", "1")
    manifest(here, "A.csv", "1")
    stopped = techforge("run", "A.csv")
    assert (stopped.exit_code, "2 rows of the campaign 'A' are still pending" in stopped.stderr) == (2, True)
    assert "2 withdrawn" in techforge("run", "A.csv", "--on-removed", "withdraw").stderr
    assert posts(mock) == 1
    manifest(here, "A.csv", "1", "3")
    assert techforge("run", "A.csv", "--max-jobs", "1").exit_code == 0
    assert posts(mock) == 2


def test_a_misspelt_column_stops_the_run(here: Path, mock: MockServer) -> None:
    """Its values would be missing from every job that is paid for."""
    manifest(here, "A.csv", "1", header="langauge")
    stopped = techforge("run", "A.csv")
    assert (stopped.exit_code, "did you mean language?" in stopped.stderr) == (2, True)
    assert (posts(mock), (here / "techforge.sqlite").exists()) == (0, False)
    assert techforge("run", "A.csv", "--allow-column", "langauge").exit_code == 0


def test_private_media_stop_a_campaign(here: Path, mock: MockServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The live API cannot fetch them; the hosts of every row are checked."""
    monkeypatch.setenv("TFI_BASE_URL", "https://api.example.com")
    monkeypatch.setenv("TFI_API_KEY", "a-key-0123456789abcdef")
    lines = ["image_url,audio_url", "https://a.example/1.png,https://a.example/1.mp3"]
    lines.append("https://a.example/2.png,http://10.0.0.7/2.mp3")
    (here / "A.csv").write_text("\n".join(lines), encoding="utf-8")
    stopped = techforge("run", "A.csv", "--dry-run")
    assert (stopped.exit_code, "line 3, column audio_url" in stopped.stderr) == (2, True)
    assert techforge("run", "A.csv", "--dry-run", "--allow-private-media").exit_code == 0
    del mock


# --- what became of it ------------------------------------------------------------------------------


def test_fetch_downloads_what_is_missing(here: Path, mock: MockServer) -> None:
    """After a run without --out, and after a file was deleted; what is there is not fetched again."""
    manifest(here, "A.csv", "1", "2", "3")
    ran = techforge("run", "A.csv")
    assert (
        "Videos are not downloaded without --out. To download them later: techforge batch fetch --out DIR"
        in ran.stderr
    )
    assert "3 videos downloaded to v, 0 existed already, 0 failed." in techforge("fetch", "--out", "v").stderr
    assert techforge("fetch", "--out", str(here / "v")).exit_code == 0  # the same folder, spelled differently
    (here / "v" / "2.mp4").unlink()
    fetched = techforge("fetch", "--out", "v", "--json")
    assert [json.loads(line)["key"] for line in fetched.stdout.splitlines()] == ["2"]
    assert "1 video downloaded to v, 2 existed already" in fetched.stderr
    assert techforge("fetch", "--out", "w", "--name", "{customer}-{row_key}.mp4").exit_code == 0
    assert sorted(path.name for path in (here / "w").iterdir()) == ["c-1.mp4", "c-2.mp4", "c-3.mp4"]
    mock.faults.add("status=404;operation=generateSignedPath;times=0")
    failed = techforge("fetch", "--out", "z")
    assert (failed.exit_code, "0 videos downloaded to z, 0 existed already, 3 failed." in failed.stderr) == (
        4,
        True,
    )
    assert posts(mock) == 3


def test_no_file_of_another_campaign_is_replaced(here: Path, mock: MockServer) -> None:
    """Two campaigns with one key and one folder: the second video stays in storage, and is reported."""
    manifest(here, "A.csv", "1")
    manifest(here, "B.csv", "1")
    techforge("run", "A.csv", "--out", "v")
    (here / "v" / "1.mp4").write_bytes(b"the mock's videos are all the same")
    before = (here / "v" / "1.mp4").stat()
    ran = techforge("run", "B.csv", "--out", "v")
    assert ran.exit_code == 11
    assert "not downloaded, because v/1.mp4 exists" in ran.stderr
    assert (
        "Download to another folder with: techforge batch fetch --out OTHER-FOLDER --campaign B" in ran.stderr
    )
    assert (here / "v" / "1.mp4").stat().st_mtime_ns == before.st_mtime_ns
    taken = techforge("fetch", "--out", "v", "--campaign", "B")
    assert (taken.exit_code, "this campaign did not download it" in taken.stderr) == (4, True)
    assert techforge("fetch", "--out", "w", "--campaign", "B").exit_code == 0
    assert techforge("fetch", "--out", "v", "--campaign", "A").exit_code == 0
    assert posts(mock) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
@pytest.mark.parametrize(
    "plant",
    [Path.touch, os.mkfifo, lambda path: path.symlink_to("/dev/null")],
    ids=["file", "pipe", "device"],
)
def test_a_file_in_the_way_is_not_success(here: Path, plant: Callable[[Path], object]) -> None:
    """The exit code is 11, and the advice is another folder, until the video is in one."""
    manifest(here, "A.csv", "1", "2")
    (here / "v").mkdir()
    plant(here / "v" / "1.mp4")
    for command in (["run", "A.csv", "--out", "v"], ["resume"]):
        ran = techforge(*command)
        assert ran.exit_code == 11
        assert (
            "1 video not downloaded: another file is in its place (reason: techforge batch rows --state "
            "done). Download to another folder with: techforge batch fetch --out OTHER-FOLDER\n" in ran.stderr
        )
        assert "fetch --out v" not in ran.stderr
    assert techforge("fetch", "--out", "OTHER-FOLDER").exit_code == 0
    assert techforge("resume").exit_code == 0


def test_a_later_folder_is_empty_and_says_so(here: Path, mock: MockServer) -> None:
    """A campaign that is done is not downloaded by `run --out`; the hint is `fetch`."""
    manifest(here, "A.csv", "1")
    techforge("run", "A.csv")
    assert (
        "1 video not downloaded to v. Download with: techforge batch fetch --out v"
        in techforge("run", "A.csv", "--out", "v").stderr
    )
    assert posts(mock) == 1


def test_a_name_that_no_file_system_takes_is_not_paid_for(here: Path, mock: MockServer) -> None:
    """File names are limited in bytes."""
    manifest(here, "A.csv", "🎬" * 62)
    assert techforge("run", "A.csv", "--out", "v").exit_code == 2
    assert posts(mock) == 0


def test_run_remembers_its_options(here: Path, mock: MockServer) -> None:
    """The same manifest, run again without options, puts its videos where the first run did."""
    manifest(here, "A.csv", "1", "2")
    techforge("run", "A.csv", "--out", "v", "--name", "{customer}-{row_key}.mp4", "--max-jobs", "1")
    assert techforge("run", "A.csv").exit_code == 0
    assert sorted(path.name for path in (here / "v").iterdir()) == ["c-1.mp4", "c-2.mp4"]
    assert posts(mock) == 2


def test_skipped_rows_stay_visible(here: Path, mock: MockServer) -> None:
    """In status, rows, report and exit code, until the manifest is right."""
    manifest(here, "A.csv", "1")
    good = (here / "A.csv").read_text()
    (here / "A.csv").write_text(good + "\n2,nonsense,https://x.example/a,c")
    ran = techforge("run", "A.csv", "--skip-bad")
    assert (ran.exit_code, "1 row skipped" in ran.stderr) == (4, True)
    assert json.loads(techforge("status", "--json").stdout)["skipped"] == 1
    (line,) = techforge("rows", "--state", "skipped", "--json").stdout.splitlines()
    row = json.loads(line)
    assert (row["line"], "column image_url" in row["reason"]) == (3, True)
    techforge("report", "r.csv")
    assert "skipped" in (here / "r.csv").read_text()
    manifest(here, "A.csv", "1", "2")
    assert techforge("run", "A.csv", "--skip-bad").exit_code == 0
    assert posts(mock) == 2


@pytest.mark.parametrize(
    "content", ["row_key,image_url,audio_url\n1,nonsense,x", "row_key,image_url,audio_url\n"]
)
def test_a_refused_manifest_is_remembered(here: Path, mock: MockServer, content: str) -> None:
    """`resume` and `status` say that nothing was loaded, and why."""
    (here / "A.csv").write_text(content, encoding="utf-8")
    techforge("run", "A.csv")
    for command in ("status", "resume", "rows"):
        said = techforge(command)
        assert (said.exit_code, "The campaign 'A' has no rows" in said.stderr) == (2, True)
    assert posts(mock) == 0


def test_rows_are_listed_and_addressed(here: Path, mock: MockServer) -> None:
    """With ids, state, reason and own columns; commands take keys, and refuse those that do not fit."""
    manifest(here, "A.csv", "1", "2", "3")
    mock.faults.add("status=400;operation=createJob;times=2")
    techforge("run", "A.csv", "--concurrency", "1")
    table = techforge("rows").stdout.splitlines()
    assert table[0] == "key\tline\tstate\tattempts\tjob_id\tproject_id\tfile\treason\tcustomer"
    assert [line.split("\t")[2] for line in table[1:]] == ["failed", "failed", "done"]
    shown = [json.loads(line) for line in techforge("rows", "--state", "done", "--json").stdout.splitlines()]
    assert [(row["key"], row["metadata"]) for row in shown] == [("3", {"customer": "c"})]
    assert "1 row is pending again" in techforge("retry", "2").stderr
    for wrong in (
        ["retry", "3"],
        ["retry", "none"],
        ["retry"],
        ["unknown", "3"],
        ["retry", "--state", "done"],
    ):
        assert techforge(*wrong).exit_code == 2
    assert techforge("resume").exit_code == 4
    assert posts(mock) == 4


def test_a_job_given_by_hand_can_be_corrected(here: Path, mock: MockServer) -> None:
    """It must be a UUID; a wrong one is replaced as long as its video was not found."""
    manifest(here, "A.csv", "1")
    mock.faults.add("close=after-body;operation=createJob")
    techforge("run", "A.csv")
    (record,) = mock.journal.requests(operation="createJob")
    assert techforge("unknown", "--job", "1=typo").exit_code == 2
    assert techforge("unknown", "--job", "1=15a6331b-3837-4ae8-8fa7-d3ead3388d77").exit_code == 0
    assert techforge("unknown", "--job", f"1={record.job_id}").exit_code == 0
    (line,) = techforge("rows", "--json").stdout.splitlines()
    assert "15a6331b-3837-4ae8-8fa7-d3ead3388d77" in json.loads(line)["reason"]  # no id is forgotten
    assert techforge("resume").exit_code == 0
    assert posts(mock) == 1


def test_unknown_rows_count_as_failures(here: Path, mock: MockServer) -> None:
    """`--max-failures` stops a campaign whose every submission ends in doubt."""
    manifest(here, "A.csv", *map(str, range(20)))
    mock.faults.add("status=502;operation=createJob;times=0")
    assert techforge("run", "A.csv", "--max-failures", "3", "--concurrency", "1").exit_code == 5
    assert posts(mock) == 3


def test_a_run_waits_for_a_job_until_its_timeout(here: Path, mock: MockServer) -> None:
    """v1.0.0 never reports a failed job: after `--job-timeout` its row stays submitted, and the run ends."""
    manifest(here, "A.csv", "1")
    mock.faults.add("status=404;operation=generateSignedPath;times=0")
    ran = techforge("run", "A.csv", "--job-timeout", "0.2")
    assert (ran.exit_code, "1 row left" in ran.stderr) == (6, True)
    assert posts(mock) == 1


def test_unknown_rows_are_settled_by_key(here: Path, mock: MockServer) -> None:
    """One is given its job, one is submitted again; the third stays in doubt."""
    manifest(here, "A.csv", "1", "2", "3")
    mock.faults.add("close=after-body;operation=createJob;times=3")
    assert "3 rows have an unknown outcome" in techforge("run", "A.csv", "--concurrency", "1").stderr
    first = mock.journal.requests(operation="createJob")[0]
    assert "Recorded" in techforge("unknown", "--job", f"1={first.job_id}").stderr
    assert "1 row is pending again" in techforge("unknown", "2", "--resubmit").stderr
    assert techforge("resume").exit_code == 5
    assert posts(mock) == 4
    assert json.loads(techforge("status", "--json").stdout) | {} == {
        **dict.fromkeys(map(str, State), 0),
        "done": 2,
        "unknown": 1,
    }
    assert techforge("unknown", "1").exit_code == 2


# --- a reason and an end ----------------------------------------------------------------------------


def test_a_run_that_cannot_begin_says_why(
    here: Path, mock: MockServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One free request finds out before the first row; the sentence is the doctor's."""
    manifest(here, "A.csv", "1")
    monkeypatch.setenv("TFI_ACCOUNT", "acme")
    monkeypatch.setenv("TFI_API_KEY", "wrong-key-0123456789")
    refused = techforge("run", "A.csv")
    assert (refused.exit_code, "does not accept this key (401)" in refused.stderr) == (3, True)
    monkeypatch.setenv("TFI_BASE_URL", "http://127.0.0.1:9")
    away = techforge("run", "A.csv")
    assert (away.exit_code, "cannot be reached" in away.stderr, "No server listens" in away.stderr) == (
        8,
        True,
        True,
    )
    assert posts(mock) == 0


def test_a_run_gives_up(here: Path, mock: MockServer) -> None:
    """Without progress it ends, with the reason and what is left; the warning is on stderr at once."""
    manifest(here, "A.csv", "1", "2")
    mock.faults.add("status=401;operation=createJob;times=0")
    ran = techforge("run", "A.csv", "--give-up-after", "0.3")
    assert ran.exit_code == 3
    assert "nothing succeeded for 0 s" in ran.stderr
    assert "2 rows are still pending" in ran.stderr
    assert ran.stderr.count("the API rejects the key") >= 2
    assert json.loads(techforge("status", "--json").stdout)["pending"] == 2


def test_a_second_process_leaves_no_campaign_behind(here: Path, mock: MockServer) -> None:
    """While one runs, another manifest is refused, and `resume` stays unambiguous."""
    manifest(here, "A.csv", "1")
    manifest(here, "B.csv", "1")
    techforge("load", "A.csv")
    with Ledger("techforge.sqlite", "A") as ledger, ledger.exclusive_lock():
        assert "another process is running" in techforge("run", "B.csv").stderr
        assert [one.name for one in ledger.campaigns()] == ["A"]
    assert techforge("resume").exit_code == 0
    assert posts(mock) == 1


def test_a_ledger_with_two_names_is_refused(here: Path, mock: MockServer) -> None:
    """SQLite does not see the claims made under another name."""
    manifest(here, "A.csv", "1")
    techforge("load", "A.csv")
    os.link("techforge.sqlite", "other.sqlite")
    for place in ("techforge.sqlite", "other.sqlite"):
        refused = techforge("resume", "--ledger", place)
        assert (refused.exit_code, "hard link" in refused.stderr) == (2, True)
    (here / "other.sqlite").unlink()
    (here / "link.sqlite").symlink_to("techforge.sqlite")
    with Ledger("techforge.sqlite") as ledger, ledger.exclusive_lock():
        assert "another process" in techforge("resume", "--ledger", "link.sqlite").stderr
    assert posts(mock) == 0


def test_bad_places_are_one_sentence(here: Path, mock: MockServer) -> None:
    """A file as --out, a folder that is missing, another kind of file, a connection string."""
    manifest(here, "A.csv", "1")
    (here / "file").write_text("x" * 9999)
    for options in (
        ["--out", "file"],
        ["--out", "file/x"],
        ["--ledger", "none/l.sqlite"],
        ["--ledger", "file"],
        ["--ledger", "."],
        ["--ledger", "host=db dbname=x"],
        ["--ledger", "mysql://db/x"],
    ):
        said = techforge("run", "A.csv", *options)
        assert said.exit_code == 2, options
        assert len(said.stderr.strip().splitlines()) == 1, said.stderr
    assert posts(mock) == 0
