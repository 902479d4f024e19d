"""The signature in a user's media URL is a secret, and a server's control characters are never printed."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from rich.traceback import Traceback
from support.secret_guard import frames_of, told_by
from typer.testing import CliRunner

from techforge import APIError, InvalidArgumentError, JobOutcomeUnknownError, TechForge, TechForgeError
from techforge.batch import BadManifestError, Ledger, RowConflictError, write_report
from techforge.cli.app import app

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECRET = "s1gnature/of+mine=="  # noqa: S105
SIGNED = (
    f"https://cdn.example.com/face.png?X-Amz-Date=20261126&X-Amz-Signature={quote(SECRET, safe='')}&w=400"
)
MEDIA = {"image_url": SIGNED, "audio_url": SIGNED.replace("face.png", "voice.mp3")}
ECHOES = {
    "the URL": SIGNED,
    "encoded": quote(SIGNED, safe=""),
    "the query": SIGNED.partition("?")[2],
    "a value": quote(SECRET, safe=""),
    "decoded": f"bad signature {SECRET}",
    "in quotes": f"\"{SIGNED}\" and '{SIGNED}'",
}
EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\n\u202egpj.exe"


def has_secret(text: str) -> bool:
    """Return whether a text holds the signature, encoded or not."""
    return any(form in text for form in (SECRET, quote(SECRET), quote(SECRET, safe=""), "s1gnature"))


def variables(error: BaseException) -> list[str]:
    """Return the variables of our frames that hold the signature."""
    return [
        f"{place} {name} = {value}"
        for place, name, value in frames_of(error)
        if "/techforge" in place and has_secret(value)
    ]


def response(status: str, body: bytes, request_id: str = "r1") -> bytes:
    """Return the bytes of a response."""
    fields = f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close"
    return f"HTTP/1.1 {status}\r\nx-request-id: {request_id}\r\n{fields}\r\n\r\n".encode("latin-1") + body


@pytest.mark.parametrize("status", ["202 Accepted", "400 Bad Request", "503 Down", "302 Found"])
@pytest.mark.lying("answers that quote the request")
@pytest.mark.undeclared("face_url", "more")
def test_a_response_that_quotes_the_request(
    connect: Callable[..., Any], scripted: Callable[..., Any], status: str
) -> None:
    """Neither the error nor a variable of our frames shows a signature."""
    for echo in ECHOES.values():
        for body in (json.dumps({"message": echo}), f"<html>{echo}</html>"):
            server = scripted(lambda _h, _s, body=body: response(status, body.encode()))
            client = connect("a-key-0123456789", base_url=server.url, max_retries=0)
            with pytest.raises((APIError, JobOutcomeUnknownError)) as caught:
                client.jobs.create(**MEDIA, extra={"face_url": SIGNED, "more": [SIGNED]})
            assert not has_secret(told_by(caught.value)), echo
            assert variables(caught.value) == []


@pytest.mark.parametrize(
    "status",
    [
        pytest.param("202 Accepted", marks=pytest.mark.lying("an answer without a job")),
        "400 Bad Request",
        "503 Down",
    ],
)
def test_a_request_id_that_quotes_the_request(
    connect: Callable[..., Any], scripted: Callable[..., Any], status: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the error nor a log shows a signature or the key."""
    caplog.set_level(logging.DEBUG)
    key = "a-key-0123456789"
    for echo in (*ECHOES.values(), key):
        server = scripted(lambda _h, _s, echo=echo: response(status, b"{}", echo))
        client = connect(key, base_url=server.url, max_retries=0)
        with pytest.raises((APIError, JobOutcomeUnknownError)) as caught:
            client.jobs.create(**MEDIA)
        shown = told_by(caught.value)
        assert not has_secret(shown), echo
        assert key not in shown
        assert variables(caught.value) == []
    lines = [
        record.getMessage() for record in caplog.records if record.name in {"techforge", "httpcore.http11"}
    ]
    assert "request id ***)" in "".join(lines)
    assert not [line for line in lines if has_secret(line) or key in line]


@pytest.mark.parametrize(
    "wrong",
    [
        {"version": 7},
        {"image_url": SIGNED.replace("https://", "ftp://")},
        {"image_url": SIGNED.replace("https://", "")},
        {"image_url": SIGNED.replace("cdn.example.com", "10.0.0.7")},
        {"audio_url": SIGNED + " "},
        {"extra": {"crop": SIGNED}},
        {"extra": {"x": float("nan"), "url": SIGNED}},
    ],
)
def test_a_wrong_argument(connect: Callable[..., Any], wrong: dict[str, Any]) -> None:
    """The check of an argument shows no signature."""
    client = connect("a-key-0123456789", base_url="https://api.example.com")
    with pytest.raises(InvalidArgumentError) as caught:
        client.jobs.create(**{**MEDIA, **wrong})
    assert not has_secret(told_by(caught.value))
    assert variables(caught.value) == []


def test_nobody_answers(connect: Callable[..., Any], closed_port: int) -> None:
    """Neither does a connection that fails, with `create_and_wait` as well."""
    client = connect("a-key-0123456789", base_url=f"http://127.0.0.1:{closed_port}", max_retries=0)
    for call in (client.jobs.create, client.jobs.create_and_wait):
        with pytest.raises(APIError) as caught:
            call(**MEDIA)
        assert not has_secret(told_by(caught.value))
        assert variables(caught.value) == []


def test_a_campaign(scripted: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ledger reasons, reports and outputs show no signature, and no control character."""
    message = json.dumps({"message": f"{EVIL} {' '.join(ECHOES.values())}"}).encode()

    def answer(head: str, _socket: object) -> bytes:
        return response("400 Bad Request" if head.startswith("POST") else "404 Not Found", message)

    server = scripted(answer)
    monkeypatch.setenv("TFI_API_KEY", "a-key-0123456789")
    monkeypatch.setenv("TFI_BASE_URL", server.url)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.csv").write_text(f"row_key,image_url,audio_url\na,{SIGNED},{SIGNED}\n", encoding="utf-8")
    outputs = [CliRunner().invoke(app, ["batch", "run", "c.csv", "--dry-run"]).output]
    assert '"image_url": "https://cdn.example.com/face.png?***"' in outputs[0]
    commands = "run c.csv", "run c.csv --json", "rows", "rows --json", "unknown", "status"
    outputs += [CliRunner().invoke(app, ["batch", *command.split()]).output for command in commands]
    with Ledger(tmp_path / "techforge.sqlite") as ledger:
        (entry,) = ledger.entries()
        outputs.append(str(entry.reason))
        assert "?***" in repr(entry)
        assert not has_secret(repr(entry))
        reports = [write_report(ledger, tmp_path / name) for name in ("r.csv", "r.html")]
    outputs += [report.read_text("utf-8") for report in reports]
    for output in outputs:
        assert not has_secret(output)
        assert not set(EVIL) & set(output) & set("\x1b\x07\x9b\u202e")
    assert "owned" in str(entry.reason)
    assert "\n" not in str(entry.reason)


def test_a_manifest_that_is_refused(tmp_path: Path) -> None:
    """Errors about rows have no signature in their frames."""
    rows = [{"row_key": "a", **MEDIA}, {"row_key": "a", **MEDIA, "image_url": "https://cdn.example.com/b"}]
    bad = [{"row_key": "a", **MEDIA, "version": 7}]
    with TechForge("a-key-0123456789", base_url="http://127.0.0.1:9") as client:
        for manifest, kind in ((rows, RowConflictError), (bad, BadManifestError), (rows[:1], TechForgeError)):
            with pytest.raises(kind) as caught:
                list(client.batch.run(manifest, ledger=tmp_path / "l"))
            assert not has_secret(told_by(caught.value))
            assert variables(caught.value) == []


@pytest.mark.lying("control characters")
def test_control_characters_of_a_server(
    scripted: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They are escaped in errors, logs and the output of commands."""
    caplog.set_level(logging.DEBUG, "techforge")
    job = {"jobId": "15a6331b-3837-4ae8-8fa7-d3ead3388d77", "status": EVIL, "message": EVIL}
    signed = {"signedUrl": f"https://cdn.example.com/x?{EVIL}", "expiresAt": EVIL}
    texts: list[str] = []
    for status, body in (
        ("202 Accepted", job),
        ("503 Down", {"message": EVIL}),
        ("400 Bad", {"error": EVIL}),
    ):

        def answer(head: str, _socket: object, status: str = status, body: object = body) -> bytes:
            return response(status, json.dumps(body if head.startswith("POST") else signed).encode())

        server = scripted(answer)
        monkeypatch.setenv("TFI_API_KEY", "a-key-0123456789")
        monkeypatch.setenv("TFI_BASE_URL", server.url)
        media = ("--image", "https://a.example/i", "--audio", "https://a.example/a")
        create = "video", "create", *media, "--no-retry-server-errors"
        commands = create, (*create, "--json"), ("storage", "sign", "a/b")
        texts += [CliRunner().invoke(app, command).output for command in commands]
    for text in (*texts, caplog.text):
        assert not set(text) & set("\x1b\x07\x9b\u202e"), text


@pytest.mark.parametrize("status", ["400 Bad Request", "503 Down"])
def test_a_traceback_that_shows_the_beginning_of_variables(
    connect: Callable[..., Any], scripted: Callable[..., Any], status: str
) -> None:
    """Rich cuts the key, URLs and bodies to 80 characters. What is left shows no secret."""
    key = "a-key-" + "0123456789" * 20
    media = {name: f"{url}&more={'x' * 200}" for name, url in MEDIA.items()}
    server = scripted(lambda _h, _s: response(status, json.dumps(media).encode(), SIGNED))
    with pytest.raises(APIError) as caught:
        connect(key, base_url=server.url, max_retries=0).jobs.create(**media)
    error = caught.value
    trace = Traceback.extract(type(error), error, error.__traceback__, show_locals=True)
    shown = [
        f"{frame.filename}:{frame.lineno} {name} = {node}"
        for stack in trace.stacks
        for frame in stack.frames
        if "/tests/" not in frame.filename
        for name, node in (frame.locals or {}).items()
    ]
    assert shown
    assert [line for line in shown if has_secret(line) or "a-key-" in line] == []


@pytest.mark.parametrize(
    "arguments",
    [
        *(
            f"video create --audio https://cdn.example.com/a.mp3 --image {start}{SIGNED.partition('://')[2]}"
            for start in ("", "'' https://", "file:///", "/srv/", "u:s1gnature@", "https:/u:s1gnature@")
        ),
        f"video wait {SIGNED} 468ea7a0-66e1-4357-a760-236e54167f3e",
        f"video wait 15a6331b-3837-4ae8-8fa7-d3ead3388d77 {SIGNED}",
        f"storage sign cdn.example.com//a.mp4?{SIGNED.partition('?')[2]}",
        f"batch status --ledger https://user:s1gnature@h/db?{SIGNED.partition('?')[2]}",
        f"batch run {SIGNED}",
        f"batch run {SIGNED}.csv",
        "batch status --ledger postgres:/u:s1gnature@h/db",
        "batch status --ledger user:s1gnature@h/db",
        "batch status --ledger mysql://user:s1gnature@h/db?password=s1gnature",
    ],
)
def test_a_url_in_the_wrong_place(arguments: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A command that refuses a value shows neither its query nor its password."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFI_API_KEY", "a-key-0123456789")
    monkeypatch.setenv("TFI_BASE_URL", "https://api.example.com")
    words = [word.replace("''", " ") for word in arguments.replace("'' ", "''").split(" ")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2, result.output
    assert not has_secret(result.output), result.output
    assert "INTERNAL" not in result.output
