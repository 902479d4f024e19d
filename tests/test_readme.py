"""The programs in the README run as they are printed there."""

import re
from pathlib import Path

import pytest

from techforge._config import Settings
from techforge._flows import download, wait
from techforge.mock import MockServer
from techforge.policy.polling import PollSchedule

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / name for name in ("README.md", "docs/mock.md", "docs/notebooks.md")]
PROGRAMS = [
    program
    for document in DOCUMENTS
    for program in re.findall(r"```python\n(.*?)```", document.read_text("utf-8"), re.DOTALL)
    if "def test_" not in program  # tests/testing/test_documents.py runs those
]


@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
def test_a_program_of_the_readme_runs(program: str, tmp_path: Path, monkeypatch, capsys) -> None:
    """What a newcomer copies works; the mock stands in for the live API."""
    monkeypatch.chdir(tmp_path)
    with MockServer(render=False, job_seconds=0.1) as mock:
        monkeypatch.setenv("TFI_API_KEY", mock.api_key)
        monkeypatch.setenv("TFI_BASE_URL", mock.url)
        names: dict[str, object] = {"__name__": "__main__"}
        code = compile(program.replace("http://127.0.0.1:8642", mock.url), "README.md", "exec")
        exec(code, names)  # noqa: S102
        if "MockServer" not in program:
            assert mock.journal.count(operation="createJob") == 1
        video = names.get("video")
        assert video is None or video.job.status == "done"
    assert "failed:" not in capsys.readouterr().out


def test_links_and_paths_of_the_documents_exist() -> None:
    """A link leads somewhere."""
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text("utf-8")):
            assert (document.parent / target).exists(), f"{document.name} -> {target}"


def test_the_defaults_in_the_readme_are_the_defaults() -> None:
    """The table of behaviours says what the code does."""
    settings = Settings.build("key", {}, {})
    retry, poll = settings.retry, PollSchedule(jitter=0)
    first, second, third = (poll.interval(n, 0) for n in range(3))
    claims = [
        f"| time for one attempt | {settings.timeout:g} s |",
        f"| retries | {retry.max_retries}, with",
        f"backoff ({retry.backoff_initial:g} s … {retry.backoff_max:g} s)",
        f"| time for a call with its retries | {retry.retry_timeout:g} s;",
        f"for {wait.DEFAULT_TIMEOUT / 60:g} minutes at most",
        f"| time for a download | {download.DEFAULT_TIMEOUT / 3600:g} hour |",
        f"after {first:g} s, {second:g} s, {third:g} s … {poll.maximum:g} s",
        f"± {PollSchedule().jitter * 100:g} %",
        f"{poll.max_failures} failures in a row are tolerated",
    ]
    text = (ROOT / "README.md").read_text("utf-8")
    assert [claim for claim in claims if claim not in text] == []
