"""`techforge auth`, and where all commands find their key."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from techforge.cli import keys
from techforge.cli.app import app

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from techforge.mock import MockServer

LIVE = "https://api.techforgeinnovate.com"


class Backend:
    """A keyring of the system's, as the package `keyring` has one for each."""


class FakeKeyring(ModuleType):
    """The package `keyring`, with what it keeps."""

    def __init__(self, backend: object) -> None:
        """Keep nothing yet."""
        super().__init__("keyring")
        self.kept: dict[tuple[str, str], str] = {}
        self.backend = backend

    def get_keyring(self) -> object:
        """Return the backend."""
        return self.backend

    def get_password(self, service: str, name: str) -> str | None:
        """Return what is kept."""
        return self.kept.get((service, name))

    def set_password(self, service: str, name: str, value: str) -> None:
        """Keep something."""
        self.kept[service, name] = value

    def delete_password(self, service: str, name: str) -> None:
        """Keep it no longer."""
        del self.kept[service, name]


@pytest.fixture
def keyring(_no_keyring: None, monkeypatch: pytest.MonkeyPatch) -> FakeKeyring:
    """Return the system's keyring."""
    fake = FakeKeyring(Backend())
    monkeypatch.setitem(sys.modules, "keyring", fake)
    return fake


@pytest.fixture(autouse=True)
def _no_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test see the keyring of this machine."""
    monkeypatch.setitem(sys.modules, "keyring", None)


def techforge(*arguments: str, **how: Any) -> Any:
    """Run the command line in this process."""
    return CliRunner().invoke(app, arguments, catch_exceptions=False, **how)


MEDIA = ("--image", "https://cdn.example.com/i.png", "--audio", "https://cdn.example.com/a.mp3")


def test_a_key_from_login_to_logout(
    mock: MockServer, keyring: FakeKeyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read from stdin, tried, kept, used by all commands, and forgotten; and never shown."""
    monkeypatch.setenv("TFI_BASE_URL", mock.url)
    said = techforge("auth", "login", input=f"{mock.api_key}\n")
    assert said.exit_code == 0, said.stderr
    assert keyring.kept == {("techforge", mock.url): mock.api_key}
    assert mock.journal.count(operation="createJob") == 0
    status = techforge("auth", "status", "--check")
    assert ("the keyring" in status.stdout, "The API accepts it" in status.stdout) == (True, True)
    facts = json.loads(techforge("auth", "status", "--json").stdout)
    assert facts == {"address": mock.url, "source": "keyring", "accepted": None, "problem": ""}
    created = techforge("video", "create", *MEDIA)
    assert created.exit_code == 0, created.stderr
    assert techforge("storage", "sign", "a/b.mp4").exit_code == 10
    out = techforge("auth", "logout")
    assert (out.exit_code, keyring.kept) == (0, {})
    assert techforge("auth", "status").exit_code == 3
    assert "There was no key" in techforge("auth", "logout").stderr
    for run in (said, status, created, out):
        assert mock.api_key not in run.output


def test_the_environment_comes_first(
    mock: MockServer, keyring: FakeKeyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is what a person has just set; login and logout say so."""
    monkeypatch.setenv("TFI_BASE_URL", mock.url)
    monkeypatch.setenv("TFI_API_KEY", mock.api_key)
    keyring.kept["techforge", mock.url] = "another-key"
    assert techforge("video", "create", *MEDIA).exit_code == 0
    assert "TFI_API_KEY is set" in techforge("auth", "login", input=f"{mock.api_key}\n").stderr
    assert "still set" in techforge("auth", "logout").stderr


def test_a_key_is_for_one_host(
    mock: MockServer, keyring: FakeKeyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The live API's key is not sent anywhere else, by no command; nor the mock's to the live API."""
    keyring.kept["techforge", LIVE] = "the-live-key"
    monkeypatch.setenv("TFI_BASE_URL", mock.url)
    for command in (
        ("video", "create", *MEDIA),
        ("storage", "sign", "a/b.mp4"),
        ("video", "download", *("468ea7a0-66e1-4357-a760-236e54167f3e",) * 2),
        ("auth", "status", "--check"),
    ):
        refused = techforge(*command)
        assert (refused.exit_code, "no API key for" in refused.stderr) == (3, True), refused.stderr
    assert mock.journal.count() == 0
    monkeypatch.setenv("TFI_BASE_URL", LIVE)
    refused = techforge("auth", "login", "--no-check", input="techforge-mock-key\n")
    assert (refused.exit_code, keyring.kept) == (3, {("techforge", LIVE): "the-live-key"})
    assert keys.get().value == "the-live-key"
    for other in ("https://api.techforgeinnovate.com.evil.example", "https://api.techforgeinnovate.com:444"):
        monkeypatch.setenv("TFI_BASE_URL", other)
        assert keys.lookup()[0] is None


def test_a_wrong_key_is_not_kept(
    mock: MockServer, keyring: FakeKeyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API is asked; who cannot reach it is told that it was not."""
    monkeypatch.setenv("TFI_BASE_URL", mock.url)
    for wrong in ("wrong-key\n", "two words\n", "\n", ""):
        refused = techforge("auth", "login", input=wrong)
        assert (refused.exit_code, keyring.kept) == (3, {}), refused.stderr
        assert "wrong-key" not in refused.output
        assert "two words" not in refused.output
    mock.faults.add("close=before-body;times=0")
    unsure = techforge("auth", "login", input="some-key\n")
    assert (unsure.exit_code, "was not checked" in unsure.stderr) == (0, True)
    assert keyring.kept == {("techforge", mock.url): "some-key"}


def test_campaigns_use_it_too(
    mock: MockServer, keyring: FakeKeyring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch finds its key where all commands do."""
    monkeypatch.setenv("TFI_BASE_URL", mock.url)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.csv").write_text(f"image_url,audio_url\n{MEDIA[1]},{MEDIA[3]}\n", encoding="utf-8")
    assert techforge("batch", "run", "c.csv").exit_code == 3
    keyring.kept["techforge", mock.url] = mock.api_key
    assert techforge("batch", "run", "c.csv").exit_code == 0


def _plain() -> FakeKeyring:
    return FakeKeyring(type("PlaintextKeyring", (), {})())


def _chained() -> FakeKeyring:
    return FakeKeyring(type("ChainerBackend", (), {"backends": [_plain().backend]})())


def _none() -> FakeKeyring:
    return FakeKeyring(type("Keyring", (), {"__module__": "keyring.backends.fail"})())


def _locked() -> FakeKeyring:
    fake = FakeKeyring(Backend())

    def locked(*_: str) -> None:
        raise RuntimeError("locked, said the keyring of some-key")

    fake.get_password = fake.set_password = locked  # type: ignore[method-assign, assignment]
    return fake


def _null() -> FakeKeyring:
    fake = FakeKeyring(Backend())
    fake.set_password = lambda *_: None  # type: ignore[method-assign]
    return fake


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (_null, "does not return the key"),
        (lambda: None, "pip install keyring"),
        (_plain, "plain file"),
        (_chained, "plain file"),
        (_none, "install gnome-keyring"),
        (_locked, "RuntimeError"),
    ],
)
def test_without_a_keyring(
    make: Callable[[], FakeKeyring | None], why: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A key is then kept nowhere, and in no plain file; what to do instead is said."""
    monkeypatch.setitem(sys.modules, "keyring", make())
    monkeypatch.setenv("HOME", str(tmp_path))
    refused = techforge("auth", "login", "--no-check", input="some-key\n")
    assert (refused.exit_code, why in refused.stderr) == (3, True), refused.stderr
    assert "set TFI_API_KEY in the environment: read -rs TFI_API_KEY && export TFI_API_KEY" in refused.stderr
    assert "some-key" not in refused.output
    assert list(tmp_path.rglob("*")) == []
    status = techforge("auth", "status")
    assert (status.exit_code, make is _null or why in status.stderr) == (3, True)
    facts = techforge("auth", "status", "--json")
    assert (facts.exit_code, json.loads(facts.stdout)["source"]) == (3, None)
    assert techforge("auth", "logout").exit_code == (0 if make is _null else 3)


def test_a_key_is_never_an_argument() -> None:
    """An argument is in the shell's history, and in everybody's list of processes."""
    assert techforge("auth", "login", "some-key").exit_code == 2


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pty")
def test_a_key_that_is_typed_is_not_seen(mock: MockServer, tmp_path: Path) -> None:
    """The prompt hides it."""
    (tmp_path / "keyring.py").write_text(
        "from pathlib import Path\n"
        "def get_keyring(): return object()\n"
        "kept = {}\n"
        "def get_password(*what): return kept.get(what)\n"
        "def set_password(*what):\n"
        "    kept[what[:2]] = what[2]\n"
        f"    Path({str(tmp_path / 'kept')!r}).write_text(str(len(what[2])))\n"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    environment = os.environ | {"TFI_BASE_URL": mock.url, "PYTHONPATH": path}
    leader, follower = pty.openpty()
    command = [sys.executable, "-c", "from techforge.cli import main; main()", "auth", "login"]
    with subprocess.Popen(
        command, env=environment, stdin=follower, stdout=follower, stderr=follower, start_new_session=True
    ) as process:
        os.close(follower)
        seen, late = b"", threading.Timer(20, process.kill)
        late.start()
        while b"not shown" not in seen:
            seen += os.read(leader, 1024)
        os.write(leader, f"{mock.api_key}\n".encode())
        while True:
            try:
                seen += os.read(leader, 1024)
            except OSError:
                break
        late.cancel()
    os.close(leader)
    assert process.returncode == 0, seen
    assert (tmp_path / "kept").read_text() == str(len(mock.api_key))
    assert mock.api_key.encode() not in seen
