"""Manage the API key in the system's keyring."""

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
from techforge.cli.exit_codes import ExitCode, KeyProblemError
from techforge.cli.messages import SubmissionProgress, note, print_json, reporting_errors
from techforge.errors import APIConnectionError, APIError, AuthenticationError, PermissionDeniedError

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=__doc__)

AsJson = Annotated[bool, typer.Option("--json", help="Print only JSON on stdout.")]


@app.command()
def login(
    check: Annotated[bool, typer.Option(help="Check that the API accepts the key, at no cost.")] = True,
) -> None:
    """Save a key in the keyring. The command prompts for it, or reads it from stdin.

    The key is saved for the current address, and is only sent there.
    """
    with reporting_errors():
        try:
            keys.backend()  # check before prompting for a key
        except KeyProblemError as problem:
            raise KeyProblemError(f"A key cannot be saved: {problem}. {keys.INSTEAD}") from None
        key = keys.checked(_prompt())
        if check:
            try:
                try_key(key)
            except APIConnectionError:
                note(f"{keys.origin()} cannot be reached, so the key was not checked.", typer.colors.YELLOW)
        keys.save(key)
        note(f"The key for {keys.origin()} is saved in the system's keyring.")
        if os.environ.get(API_KEY_VARIABLE):
            note(f"{API_KEY_VARIABLE} is set, and is used instead.", typer.colors.YELLOW)


@app.command()
def status(
    check: Annotated[
        bool, typer.Option("--check", help="Check that the API accepts the key, at no cost.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show where the key comes from and which address it is for. The key itself is not shown."""
    with reporting_errors(SubmissionProgress(as_json)):
        key, problem = keys.lookup()
        if key is None and not as_json:
            keys.get()
        accepted = None
        if key is not None and check:
            try_key(key.value)
            accepted = True
        if as_json:
            source = key.source if key else None
            print_json(
                {"address": keys.origin(), "source": source, "accepted": accepted, "problem": problem.strip()}
            )
            if key is None:
                raise typer.Exit(ExitCode.AUTH)
        elif key is not None:
            origin = (
                f"the environment variable {API_KEY_VARIABLE}"
                if key.source == "environment"
                else "the keyring"
            )
            typer.echo(f"The key for {keys.origin()} comes from {origin}.")
            if accepted:
                typer.echo("The API accepts it.")


@app.command()
def logout() -> None:
    """Remove the key for the current address from the keyring."""
    with reporting_errors():
        was_saved = keys.remove()
        note(
            f"The key for {keys.origin()} was removed from the keyring."
            if was_saved
            else f"There was no key for {keys.origin()} in the keyring."
        )
        if os.environ.get(API_KEY_VARIABLE):
            note(
                f"{API_KEY_VARIABLE} is still set. To stop using it: unset {API_KEY_VARIABLE}",
                typer.colors.YELLOW,
            )


def try_key(key: str) -> None:
    """Check a key by requesting the signature of a path that does not exist.

    Raises:
        KeyProblemError: the API rejects the key.
        APIError: the API cannot be reached, or failed.
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
            # The API checks the key first: a 400 or 422 means that it accepted the key.
            if error.status_code not in {400, 422}:
                raise


def _prompt() -> str:
    # typer prints its prompt before it turns off the echo: a key that is pasted early would be visible.
    key = getpass("API key (not shown): ") if sys.stdin.isatty() else sys.stdin.readline()
    if not key.strip():
        raise KeyProblemError(
            f"No key was entered. Type it, or pipe it from a password manager. {keys.WEB_APP}"
        )
    return key.strip()
