"""Check the setup, and say how to fix it."""

# ruff: noqa: FBT002, PLC0415
# Typer's options are arguments with defaults. Late imports, because a package may be missing or broken.

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
from techforge.cli.exit_codes import ExitCode, KeyProblemError, code_of
from techforge.cli.messages import SubmissionProgress, advice, print_json, reporting_errors, without_advice
from techforge.errors import APIError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

app = typer.Typer(rich_markup_mode=None, help=__doc__)

MAX_CLOCK_SKEW = 30
"""Accepted error of the clock, in seconds. Signed URLs are valid for minutes."""
TIMEOUT = 10.0
INVALID_KEY = {"x-api-key": "nobodys-key"}
"""The API must reject this key. Only then is the real key sent to this address."""


@frozen
class Finding:
    """The result of one check. A bad one says what to do, and has an exit code."""

    about: str
    state: Literal["ok", "note", "bad"]
    found: str
    do: str = ""
    code: int = ExitCode.DONE


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print only JSON on stdout.")] = False,
) -> None:
    """Check Python, packages, API key, address, proxy, network and clock, and say what to do.

    This costs nothing. It sends two requests: one with an invalid key, which the API must reject, and one
    for the signature of a path that does not exist.
    """
    with reporting_errors(SubmissionProgress(as_json)):
        findings: list[Finding] = []
        for finding in run_checks():
            findings.append(finding)
            if not as_json:
                _print(finding)
        code = next((finding.code for finding in findings if finding.state == "bad"), ExitCode.DONE)
        if as_json:
            print_json({"ok": not code, "findings": [asdict(finding) for finding in findings]})
        else:
            typer.echo("No problems found." if not code else "Follow the lines with →, then run this again.")
        raise typer.Exit(code)


def run_checks() -> Iterator[Finding]:
    """Run the checks in order; those that need the network come last."""
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
    response, finding = _network()
    yield finding
    if response is None:
        return
    yield _clock(*response)
    if key is not None and finding.state == "ok":
        yield _key_accepted(key)


def _python() -> Finding:
    return Finding("Python", "ok", f"{sys.version.split()[0]} at {sys.executable}")


def _packages() -> Iterator[Finding]:
    needed = {"httpx": "", "attrs": "", "python-dateutil": "", "typer": "", "rich": ""}
    extras = {"av": "mock", "starlette": "mock", "pyarrow": "parquet", "psycopg": "distributed"}
    found = {name: _version(name) for name in (*needed, *extras)}
    installed = ", ".join(f"{name} {found[name]}" for name in needed if found[name])
    missing = [name for name in needed if not found[name]]
    if missing:
        do = "Reinstall it: pip install --force-reinstall 'techforge[cli]'"
        yield Finding("Packages", "bad", f"missing: {', '.join(missing)}", do, ExitCode.BROKEN)
    else:
        yield Finding("Packages", "ok", f"techforge {__version__}, {installed}")
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
        key, _ = keys.lookup()
    except KeyProblemError as problem:
        return None, Finding("API key", "bad", str(problem), keys.WEB_APP, ExitCode.AUTH)
    if key is None:
        do = f"Set TFI_API_KEY ({keys.EXPORT_KEY}), or run: techforge auth login. {keys.WEB_APP}"
        return None, Finding("API key", "bad", "none", do, ExitCode.AUTH)
    return key.value, Finding("API key", "ok", f"found in the {key.source}; it is not shown")


def _address() -> Finding:
    url = keys.base_url()
    source = f", from {BASE_URL_VARIABLE}" if os.environ.get(BASE_URL_VARIABLE) else ""
    try:
        Settings.build("not-a-key", {})
    except TechForgeError as error:
        do = f"Correct {BASE_URL_VARIABLE}, or unset it to use {LIVE_URL}."
        return Finding("Address", "bad", str(error), do, ExitCode.USAGE)
    return Finding("Address", "ok", mask(url) + source)


def _proxy() -> Finding:
    host = urlsplit(keys.base_url()).hostname or ""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(urlsplit(keys.base_url()).scheme) or proxies.get("all")
    if is_loopback(host) or not proxy:
        return Finding("Proxy", "ok", "none")
    if urllib.request.proxy_bypass(host):
        return Finding("Proxy", "ok", f"none for {host} (NO_PROXY)")
    return Finding("Proxy", "ok", mask(proxy))


def _network() -> tuple[tuple[httpx.Response, float] | None, Finding]:
    """Send a request with an invalid key, which the API must reject."""
    import httpx

    url = f"{keys.base_url().rstrip('/')}/storage/generate-signed-path"
    local = is_loopback(urlsplit(url).hostname)
    try:
        with httpx.Client(timeout=TIMEOUT, trust_env=not local, follow_redirects=False) as client:
            started = time.time()
            response = client.get(url, params={"path": "techforge-doctor/none.mp4"}, headers=INVALID_KEY)
            duration = time.time() - started
    except Exception as error:  # noqa: BLE001 - proxies, TLS and DNS have their own exceptions
        return None, Finding("Network", "bad", *explain(error), ExitCode.NETWORK)
    found = f"{keys.origin()} answered in {1000 * duration:.0f} ms"
    if response.status_code in {401, 403}:
        return (response, started + duration / 2), Finding("Network", "ok", found)
    found += f", but with {response.status_code} to an invalid key instead of 401"
    do = f"A proxy or a login page may be answering instead of the API. Check {BASE_URL_VARIABLE}."
    if response.status_code >= 500:
        do = "The API has a problem. Try again later."
    return (response, started + duration / 2), Finding("Network", "bad", found, do, ExitCode.SERVER)


def explain(error: Exception) -> tuple[str, str]:
    """Return why the API cannot be reached, and what to do."""
    text = mask(str(error)) or type(error).__name__
    do = next((do for words, do in _FIXES if any(word in text.lower() for word in words)), _FIXES[-1][1])
    return f"{keys.origin()} cannot be reached: {text}", do


_FIXES: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("certificate",),
        "If your network inspects TLS, set SSL_CERT_FILE to its certificate. Check this machine's clock.",
    ),
    (
        ("name or service", "name resolution", "getaddrinfo", "nodename"),
        "Check DNS and TFI_BASE_URL. If your network needs a proxy, set HTTPS_PROXY.",
    ),
    (
        ("refused", "connect call failed"),  # asyncio says "connect call failed"
        "No server listens at this address. Check TFI_BASE_URL; to start a mock: techforge mock",
    ),
    (
        ("proxy", "407"),
        "Check HTTPS_PROXY, and the user and password in it. NO_PROXY lists hosts that need no proxy.",
    ),
    (
        ("",),
        "Check this machine's network, its firewall, and whether a proxy is needed (HTTPS_PROXY).",
    ),
)


def _clock(response: httpx.Response, sent_at: float) -> Finding:
    try:
        server_time = parsedate_to_datetime(response.headers["date"])
    except (KeyError, ValueError):
        return Finding("Clock", "note", "the server's response has no date")
    skew = datetime.fromtimestamp(sent_at, UTC).timestamp() - server_time.timestamp()
    if abs(skew) <= MAX_CLOCK_SKEW:
        return Finding("Clock", "ok", "right, to the second" if abs(skew) < 1.5 else f"{skew:+.0f} s off")
    direction = "ahead of" if skew > 0 else "behind"
    do = "Set the clock by NTP. Certificates and signed URLs depend on it."
    return Finding("Clock", "bad", f"{abs(skew):.0f} s {direction} the server's", do, ExitCode.BROKEN)


def _key_accepted(key: str) -> Finding:
    try:
        try_key(key)
    except KeyProblemError as problem:
        do = "Replace the key: set TFI_API_KEY, or run: techforge auth login."
        return Finding("Key accepted", "bad", str(problem), do, ExitCode.AUTH)
    except APIError as error:
        return Finding("Key accepted", "bad", without_advice(error), advice(error), code_of(error))
    return Finding("Key accepted", "ok", "yes")


_MARKS: dict[str, tuple[str, Any]] = {
    "ok": ("ok  ", typer.colors.GREEN),
    "note": ("note", typer.colors.YELLOW),
    "bad": ("BAD ", typer.colors.RED),
}


def _print(finding: Finding) -> None:
    mark, colour = _MARKS[finding.state]
    plain = bool(os.environ.get("NO_COLOR"))
    typer.secho(f"{mark}  ", nl=False, fg=None if plain else colour)
    typer.echo(f"{finding.about:12}  {finding.found}")
    if finding.do:
        typer.echo(f"{'':20}→ {finding.do}")
