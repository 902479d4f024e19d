"""The programs of the documents run as they are printed there."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.postgres import campaign

from techforge import TechForge
from techforge.batch import Ledger, load
from techforge.mock import MockServer

DOCUMENTS = Path(__file__).resolve().parent.parent / "docs"
# The tests of these are elsewhere: they are like the README's, or tests themselves.
ELSEWHERE = {
    "mock.md": "tests/test_readme.py",
    "notebooks.md": "tests/test_readme.py",
    "testing.md": "tests/testing/test_documents.py",
}
PROGRAMS = {
    f"{document.name}-{place}": program
    for document in sorted(DOCUMENTS.glob("*.md"))
    if document.name not in ELSEWHERE
    for place, program in enumerate(
        re.findall(r"```python\n(.*?)```", document.read_text("utf-8"), re.DOTALL), 1
    )
}
MANIFEST = "image_url,audio_url\nhttps://cdn.example.com/i.png,https://cdn.example.com/a.mp3\n"
MEDIA = {"image_url": "https://cdn.example.com/i.png", "audio_url": "https://cdn.example.com/a.mp3"}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a mock server that a program finds by itself, with what it may expect in its folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "campaign.csv").write_text(MANIFEST, encoding="utf-8")
    with MockServer(render=False, job_polls=0) as mock:
        (tmp_path / "techforge.key").write_text(f"{mock.api_key}\n", encoding="utf-8")
        monkeypatch.setenv("TFI_API_KEY", mock.api_key)
        monkeypatch.setenv("TFI_BASE_URL", mock.url)
        yield mock


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name.startswith("batch.md")])
def test_a_program_on_campaigns_runs(name: str, server: MockServer, postgres_url: str) -> None:
    """Each program copied from there works by itself, with a database of this machine."""
    names: dict[str, Any] = {"__name__": "__main__"}
    ledger_url = campaign(postgres_url)
    with Ledger(ledger_url) as ledger, TechForge() as client:
        load(ledger, "campaign.csv", client._session.settings)
    exec(PROGRAMS[name].replace("postgresql://user@host/database", ledger_url), names)  # noqa: S102
    if "on_webhook" in names:
        names["on_webhook"]({"jobId": "of-nobody"})
    else:
        assert server.journal.count(operation="createJob") == 1


@pytest.mark.parametrize("name", [name for name in PROGRAMS if not name.startswith("batch.md")])
def test_a_program_runs(name: str, server: MockServer, tmp_path: Path) -> None:
    """What is copied from there submits one job, and what it defines can be used."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(PROGRAMS[name], name, "exec"), names)  # noqa: S102
    if "app" in names:
        asyncio.run(_order_and_hear(names["app"]))
    elif "fetch" in names:
        assert Path(names["fetch"](names["submit"](MEDIA), tmp_path)["file"]).exists()
        names["client"].close()
    if "MockServer" not in names:
        assert server.journal.count(operation="createJob") == 1


async def _order_and_hear(app: Any) -> None:
    """Use a web service as its users and its job service do."""
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://service") as client,
    ):
        ordered = (await client.post("/videos", json=MEDIA)).json()
        heard = await client.post("/webhook", json={"jobId": ordered["id"]})
        assert heard.json()["size"] > 0
        assert (await client.post("/webhook", json={"jobId": "of-nobody"})).status_code == 404


def test_each_error_has_its_cause_and_its_cure() -> None:
    """Whoever looks an error up finds it."""
    import techforge  # noqa: PLC0415

    table = [line for line in (DOCUMENTS / "errors.md").read_text("utf-8").splitlines() if "|" in line]
    told = {name for line in table for name in re.findall(r"`(\w+)`", line.split("|")[1])}
    errors = [getattr(techforge, name) for name in techforge.__all__ if name.endswith("Error")]
    assert told == {error.__name__ for error in errors}
