"""`techforge doctor`: each thing that may be wrong is found, and what to do about it is said."""

from __future__ import annotations

import json
import sys
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from techforge.cli.app import app

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from support.servers import Scripted

    from techforge.mock import MockServer


@pytest.fixture(autouse=True)
def _no_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test see the keyring of this machine."""
    monkeypatch.setitem(sys.modules, "keyring", None)


@pytest.fixture
def here(mock: MockServer, monkeypatch: pytest.MonkeyPatch) -> MockServer:
    """Return a mock that the environment points at."""
    monkeypatch.setenv("TFI_API_KEY", mock.api_key)
    monkeypatch.setenv("TFI_BASE_URL", mock.url)
    return mock


def doctor(*arguments: str) -> Any:
    """Run the command line in this process."""
    return CliRunner().invoke(app, ["doctor", *arguments], catch_exceptions=False)


def findings() -> tuple[int, dict[str, dict[str, Any]]]:
    """Return the exit code, and what was found of what."""
    said = doctor("--json")
    facts = json.loads(said.stdout)
    assert facts["ok"] == (said.exit_code == 0)
    for finding in facts["findings"]:
        assert finding["do"] or finding["state"] != "bad", finding
    return said.exit_code, {finding["about"]: finding for finding in facts["findings"]}


def test_all_is_well(here: MockServer) -> None:
    """A line for each thing; nothing that costs money, and the key only where it is needed, and not shown."""
    said = doctor()
    assert said.exit_code == 0, said.stdout
    assert "No problems found" in said.stdout
    for about in ("Python", "Packages", "API key", "Address", "Proxy", "Network", "Clock", "Key accepted"):
        assert f"  {about}" in said.stdout
    assert here.api_key not in said.output
    asked = [(record.operation, record.status) for record in here.journal.requests()]
    assert asked == [("generateSignedPath", 401), ("generateSignedPath", 404)]


def test_no_key(here: MockServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says how to get one, and goes on looking."""
    monkeypatch.delenv("TFI_API_KEY")
    code, found = findings()
    assert (code, found["API key"]["state"], found["Network"]["state"]) == (3, "bad", "ok")
    assert "techforge auth login" in found["API key"]["do"]
    assert here.journal.count() == 1


def test_a_key_that_is_refused(here: MockServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there, and does not work."""
    monkeypatch.setenv("TFI_API_KEY", "some-other-key")
    code, found = findings()
    assert (code, found["API key"]["state"], found["Key accepted"]["state"]) == (3, "ok", "bad")
    assert "/api-access" in found["Key accepted"]["found"]
    assert "techforge auth login" in found["Key accepted"]["do"]
    assert "→" in doctor().stdout
    del here


@pytest.mark.parametrize(
    ("fault", "code", "do"),
    [
        ("status=500", 9, "contact support if it persists"),
        ("status=429", 7, "contact support to raise your rate limit"),
        ("close=after-body", 8, "Try again later"),
    ],
)
def test_a_key_that_cannot_be_tried(here: MockServer, fault: str, code: int, do: str) -> None:
    """The network answered a moment ago: the arrow says what to do, and the last line where to look."""
    here.faults.add(f"{fault};operation=generateSignedPath;times=0;after=1")
    said = doctor()
    assert said.exit_code == code
    found, arrow, last = said.stdout.splitlines()[-3:]
    assert "Key accepted" in found
    assert arrow.strip().startswith("→")
    assert do in arrow
    assert do not in found
    assert last == "Follow the lines with →, then run this again."
    assert "list" not in said.stdout


def test_nobody_is_there(here: MockServer, closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network's own words, and what they mean."""
    monkeypatch.setenv("TFI_BASE_URL", f"http://127.0.0.1:{closed_port}")
    code, found = findings()
    assert (code, "techforge mock" in found["Network"]["do"]) == (8, True)
    monkeypatch.setenv("TFI_BASE_URL", "https://nowhere.invalid")
    code, found = findings()
    assert (code, "DNS" in found["Network"]["do"]) == (8, True), found
    del here


@pytest.mark.parametrize("url", ["http://api.example.com", "https://user:secret@api.example.com", "nonsense"])
def test_an_address_that_is_none(here: MockServer, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent there."""
    monkeypatch.setenv("TFI_BASE_URL", url)
    code, found = findings()
    assert (code, found["Address"]["state"]) == (2, "bad")
    assert "secret" not in str(found)
    assert "Network" not in found
    del here


def test_a_proxy(here: MockServer, closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named, without its password; what is on this machine is asked without it."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:secret@127.0.0.1:{closed_port}")
    monkeypatch.setenv("HTTP_PROXY", f"http://user:secret@127.0.0.1:{closed_port}")
    assert findings()[0] == 0
    monkeypatch.setenv("TFI_BASE_URL", "https://api.example.com")
    code, found = findings()
    assert (code, str(closed_port) in found["Proxy"]["found"]) == (8, True)
    assert "secret" not in str(found)
    monkeypatch.setenv("NO_PROXY", "api.example.com")
    assert "NO_PROXY" in findings()[1]["Proxy"]["found"]
    del here


def answering(status: str, ahead: float) -> Callable[[str, socket.socket], bytes]:
    """Return what answers so, by a clock that is so many seconds ahead of ours."""

    def answer(_head: str, _connection: socket.socket) -> bytes:
        import time  # noqa: PLC0415

        date = formatdate(time.time() + ahead, usegmt=True)
        return f"HTTP/1.1 {status}\r\ndate: {date}\r\ncontent-length: 0\r\n\r\n".encode()

    return answer


@pytest.mark.lying("a server of another kind")
@pytest.mark.parametrize(("ahead", "word"), [(-3600, "ahead"), (3600, "behind")])
def test_a_clock_that_is_wrong(
    ahead: float, word: str, scripted: Callable[[Any], Scripted], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the server's, in seconds."""
    server = scripted(answering("401 Unauthorized", ahead))
    monkeypatch.setenv("TFI_BASE_URL", server.url)
    _, found = findings()
    assert found["Clock"]["state"] == "bad"
    assert f"s {word}" in found["Clock"]["found"]
    assert "NTP" in found["Clock"]["do"]


@pytest.mark.lying("a server of another kind")
def test_something_else_answers(scripted: Callable[[Any], Scripted], monkeypatch: pytest.MonkeyPatch) -> None:
    """A login page is not the API, and does not get the key."""
    server = scripted(answering("200 OK", 0))
    monkeypatch.setenv("TFI_BASE_URL", server.url)
    monkeypatch.setenv("TFI_API_KEY", "some-key")
    code, found = findings()
    assert (code, "login page" in found["Network"]["do"]) == (9, True)
    assert "Key accepted" not in found
    assert not any("some-key" in head for head in server.heads)
