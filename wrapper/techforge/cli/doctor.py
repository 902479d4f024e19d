"""Find out what is wrong, and what to do about it."""

# ruff: noqa: FBT002, PLC0415
# Typer's options are arguments with defaults; and what is looked for may be missing, or broken.

from __future__ import annotations

import os
import sys
import time
import urllib.request
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

import typer
from attrs import asdict, frozen

from techforge import TechForgeError, __version__
from techforge._checks import is_loopback
from techforge._config import BASE_URL_VARIABLE, LIVE_URL, Settings
from techforge._masking import mask
from techforge.cli import keys
from techforge.cli.auth import try_key
from techforge.cli.exits import Code, KeyProblemError, code_of
from techforge.cli.told import Known, advice, bare, result, told
from techforge.errors import APIError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

app = typer.Typer(rich_markup_mode=None, help=__doc__)

_SKEW = 30
"""Seconds by which a clock may be wrong: signed URLs live for minutes."""
_SECONDS = 10.0
_NO_KEY = {"x-api-key": "nobodys-key"}
"""What has to be refused; the real key is for a server that has shown itself to be the API."""


@frozen
class Finding:
    """One thing that was looked at. What is bad says what to do, and has an exit code."""

    about: str
    state: Literal["ok", "note", "bad"]
    found: str
    do: str = ""
    code: int = Code.DONE


@app.command()
def doctor(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON on stdout, and nothing else there.")
    ] = False,
) -> None:
    """Look at Python, packages, key, address, proxy, network and clock, and say what to do.

    What it sends costs nothing: a request with a key that is none, which must be refused, and one for
    the signature of a path that does not exist.
    """
    with told(Known(as_json)):
        findings: list[Finding] = []
        for finding in examined():
            findings.append(finding)
            if not as_json:
                _say(finding)
        code = next((finding.code for finding in findings if finding.state == "bad"), Code.DONE)
        if as_json:
            result({"ok": not code, "findings": [asdict(finding) for finding in findings]})
        else:
            typer.echo("All is well." if not code else "Do what the lines with → say, then run this again.")
        raise typer.Exit(code)


def examined() -> Iterator[Finding]:
    """Look at one thing after the other; what needs the network comes last."""
    yield _python()
    yield from _packages()
    yield _keyring()
    key, finding = _key()
    yield finding
    address = _address()
    yield address
    if address.state == "bad":
        return
    yield _proxy()
    answer, finding = _reached()
    yield finding
    if answer is None:
        return
    yield _clock(*answer)
    if key is not None and finding.state == "ok":
        yield _accepted(key)


def _python() -> Finding:
    # Which versions there may be, pip has seen to.
    return Finding("Python", "ok", f"{sys.version.split()[0]} at {sys.executable}")


def _packages() -> Iterator[Finding]:
    needed = {"httpx": "", "attrs": "", "python-dateutil": "", "typer": "", "rich": ""}
    extras = {"av": "mock", "starlette": "mock", "pyarrow": "parquet", "psycopg": "distributed"}
    found = {name: _version(name) for name in (*needed, *extras)}
    there = ", ".join(f"{name} {found[name]}" for name in needed if found[name])
    missing = [name for name in needed if not found[name]]
    if missing:
        do = "Install it again: pip install --force-reinstall 'techforge[cli]'"
        yield Finding("Packages", "bad", f"missing: {', '.join(missing)}", do, Code.BROKEN)
    else:
        yield Finding("Packages", "ok", f"techforge {__version__}, {there}")
    absent = sorted({extra for name, extra in extras.items() if not found[name]})
    if absent:
        wanted = ",".join(absent)
        yield Finding(
            "Extras", "note", f"not installed: {wanted}", f"If needed: pip install 'techforge[{wanted}]'"
        )


def _version(package: str) -> str | None:
    try:
        return version_of(package)
    except PackageNotFoundError:
        return None


def _keyring() -> Finding:
    try:
        return Finding("Keyring", "ok", keys.backend())
    except KeyProblemError as problem:
        return Finding("Keyring", "note", str(problem))


def _key() -> tuple[str | None, Finding]:
    try:
        key, _ = keys.look()
    except KeyProblemError as problem:
        return None, Finding("API key", "bad", str(problem), keys.WEB_APP, Code.AUTH)
    if key is None:
        do = f"Set TFI_API_KEY ({keys.BY_HAND}), or: techforge auth login. {keys.WEB_APP}"
        return None, Finding("API key", "bad", "none", do, Code.AUTH)
    return key.value, Finding("API key", "ok", f"present, from the {key.source}; it is not shown")


def _address() -> Finding:
    url = keys.base_url()
    given = f", from {BASE_URL_VARIABLE}" if os.environ.get(BASE_URL_VARIABLE) else ""
    try:
        Settings.build("not-a-key", {})
    except TechForgeError as error:
        do = f"Correct {BASE_URL_VARIABLE}, or unset it for {LIVE_URL}."
        return Finding("Address", "bad", str(error), do, Code.USAGE)
    return Finding("Address", "ok", mask(url) + given)


def _proxy() -> Finding:
    host = urlsplit(keys.base_url()).hostname or ""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(urlsplit(keys.base_url()).scheme) or proxies.get("all")
    if is_loopback(host) or not proxy:
        return Finding("Proxy", "ok", "none")
    if urllib.request.proxy_bypass(host):
        return Finding("Proxy", "ok", f"none for {host} (NO_PROXY)")
    return Finding("Proxy", "ok", mask(proxy))


def _reached() -> tuple[tuple[httpx.Response, float] | None, Finding]:
    """Send a request with a key that is none, which has to be refused."""
    import httpx

    url = f"{keys.base_url().rstrip('/')}/storage/generate-signed-path"
    local = is_loopback(urlsplit(url).hostname)
    try:
        with httpx.Client(timeout=_SECONDS, trust_env=not local, follow_redirects=False) as client:
            began = time.time()
            answer = client.get(url, params={"path": "techforge-doctor/none.mp4"}, headers=_NO_KEY)
            took = time.time() - began
    except Exception as error:  # noqa: BLE001 - proxies, certificates, names: all have their own errors
        return None, Finding("Network", "bad", *explain(error), Code.NETWORK)
    found = f"{keys.origin()} answers in {1000 * took:.0f} ms"
    if answer.status_code in {401, 403}:
        return (answer, began + took / 2), Finding("Network", "ok", found)
    found += f", but with {answer.status_code} to a key that is none, where the API says 401"
    do = (
        f"Something else may be answering, a proxy or a login page: see whether {BASE_URL_VARIABLE} is right."
    )
    if answer.status_code >= 500:
        do = "The API has trouble; try again later."
    return (answer, began + took / 2), Finding("Network", "bad", found, do, Code.SERVER)


def explain(error: Exception) -> tuple[str, str]:
    """Return why the API cannot be reached, and what to do about it."""
    text = mask(str(error)) or type(error).__name__
    do = next((do for words, do in _CURES if any(word in text.lower() for word in words)), _CURES[-1][1])
    return f"{keys.origin()} cannot be reached: {text}", do


_CURES: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("certificate",),
        "Where a network inspects TLS, let SSL_CERT_FILE name its certificate; see that the clock is right.",
    ),
    (
        ("name or service", "name resolution", "getaddrinfo", "nodename"),
        "See whether DNS works, TFI_BASE_URL is right, and whether your network wants a proxy (HTTPS_PROXY).",
    ),
    (
        ("refused", "connect call failed"),  # the second is asyncio's word for it
        "Nobody listens there: see whether TFI_BASE_URL is right; a mock is started by: techforge mock",
    ),
    (
        ("proxy", "407"),
        "See whether HTTPS_PROXY is right, and holds what the proxy asks for; NO_PROXY goes past it.",
    ),
    (
        ("",),
        "See whether this machine has a network, and whether a firewall or a proxy (HTTPS_PROXY) is between.",
    ),
)


def _clock(answer: httpx.Response, asked: float) -> Finding:
    try:
        theirs = parsedate_to_datetime(answer.headers["date"])
    except (KeyError, ValueError):
        return Finding("Clock", "note", "the server does not say what time it has")
    skew = datetime.fromtimestamp(asked, UTC).timestamp() - theirs.timestamp()
    # The header has whole seconds.
    if abs(skew) <= _SKEW:
        return Finding("Clock", "ok", "right, to the second" if abs(skew) < 1.5 else f"{skew:+.0f} s off")
    way = "ahead" if skew > 0 else "behind"
    do = "Set it by NTP: certificates and the expiry of signed URLs depend on it."
    return Finding("Clock", "bad", f"{abs(skew):.0f} s {way} of the server's", do, Code.BROKEN)


def _accepted(key: str) -> Finding:
    try:
        try_key(key)
    except KeyProblemError as problem:
        do = "Replace the key where it comes from: TFI_API_KEY, or techforge auth login."
        return Finding("Key accepted", "bad", str(problem), do, Code.AUTH)
    except APIError as error:
        return Finding("Key accepted", "bad", bare(error), advice(error), code_of(error))
    return Finding("Key accepted", "ok", "yes")


_MARKS: dict[str, tuple[str, Any]] = {
    "ok": ("ok  ", typer.colors.GREEN),
    "note": ("note", typer.colors.YELLOW),
    "bad": ("BAD ", typer.colors.RED),
}


def _say(finding: Finding) -> None:
    mark, colour = _MARKS[finding.state]
    plain = bool(os.environ.get("NO_COLOR"))
    typer.secho(f"{mark}  ", nl=False, fg=None if plain else colour)
    typer.echo(f"{finding.about:12}  {finding.found}")
    if finding.do:
        typer.echo(f"{'':20}→ {finding.do}")
