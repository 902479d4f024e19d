"""Keep an API key in the system's keyring."""

# ruff: noqa: FBT002
# Typer's options are arguments with defaults.

from __future__ import annotations

import os
import sys
from getpass import getpass
from typing import Annotated
from uuid import uuid4

import typer

from techforge import NotFoundError, TechForge
from techforge.auth import API_KEY_VARIABLE
from techforge.cli import keys
from techforge.cli.exits import Code, KeyProblemError
from techforge.cli.told import Known, note, result, told
from techforge.errors import APIConnectionError, APIError, AuthenticationError, PermissionDeniedError

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=__doc__)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and nothing else there.")]


@app.command()
def login(
    check: Annotated[
        bool, typer.Option(help="Ask the API whether it takes the key; that costs nothing.")
    ] = True,
) -> None:
    """Put a key into the keyring: asked for without showing it, or read from stdin.

    It is kept for the address in use, and never sent to another one.
    """
    with told():
        try:
            keys.backend()  # nobody is asked for a key that cannot be kept
        except KeyProblemError as problem:
            raise KeyProblemError(f"A key cannot be kept: {problem}. {keys.INSTEAD}") from None
        key = keys.checked(_asked())
        if check:
            try:
                try_key(key)
            except APIConnectionError:
                note(f"{keys.origin()} cannot be reached, so the key was not checked.", typer.colors.YELLOW)
        keys.keep(key)
        note(f"The key for {keys.origin()} is in the system's keyring.")
        if os.environ.get(API_KEY_VARIABLE):
            note(f"{API_KEY_VARIABLE} is set, and is used instead of it.", typer.colors.YELLOW)


@app.command()
def status(
    check: Annotated[
        bool, typer.Option("--check", help="Ask the API whether it takes the key; that costs nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say which key is used, and for which address; the key itself is not shown."""
    with told(Known(as_json)):
        key, why = keys.look()
        if key is None and not as_json:
            keys.find()
        accepted = None
        if key is not None and check:
            try_key(key.value)
            accepted = True
        if as_json:
            source = key.source if key else None
            result({"address": keys.origin(), "source": source, "accepted": accepted, "problem": why.strip()})
            if key is None:
                raise typer.Exit(Code.AUTH)
        elif key is not None:
            place = f"the environment, {API_KEY_VARIABLE}" if key.source == "environment" else "the keyring"
            typer.echo(f"The key for {keys.origin()} comes from {place}.")
            if accepted:
                typer.echo("The API takes it.")


@app.command()
def logout() -> None:
    """Take the key for the address in use out of the keyring."""
    with told():
        gone = keys.forget()
        note(
            f"The key for {keys.origin()} is no longer in the keyring."
            if gone
            else f"There was no key for {keys.origin()} in the keyring."
        )
        if os.environ.get(API_KEY_VARIABLE):
            note(f"{API_KEY_VARIABLE} is still set; unset it, too.", typer.colors.YELLOW)


def try_key(key: str) -> None:
    """Ask the API to sign a path that does not exist, which it does for those with a key only.

    Raises:
        APIError: it cannot be reached, or does not take the key.
    """
    with TechForge(key, max_retries=0, retry_timeout=10.0, timeout=10.0) as client:
        try:
            client.storage.sign(f"techforge-doctor/{uuid4()}.mp4")
        except NotFoundError:
            return
        except (AuthenticationError, PermissionDeniedError) as error:
            raise KeyProblemError(
                f"{keys.origin()} does not accept this key ({error.status_code}). {keys.WEB_APP}"
            ) from None
        except APIError as error:
            # Whoever is told that a request is wrong has shown a key that is right.
            if error.status_code not in {400, 422}:
                raise


def _asked() -> str:
    # Not typer's prompt, which asks before it hides: what is pasted at once would be lost, and seen.
    key = getpass("API key (not shown): ") if sys.stdin.isatty() else sys.stdin.readline()
    if not key.strip():
        raise KeyProblemError(
            f"No key was given: type it, or pipe it, e.g. from a password manager. {keys.WEB_APP}"
        )
    return key.strip()
