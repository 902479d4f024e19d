"""What the attacks share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.chaos import RECKONINGS
from support.postgres import OwnPostgres, campaign

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what the attacks have come to."""
    for reckoning in RECKONINGS:
        terminalreporter.write_line(f"attacked: {reckoning}")


@pytest.fixture
def ledger(postgres_url: str) -> str:
    """Return where a ledger can be made that several processes share."""
    return campaign(postgres_url)


@pytest.fixture
def file(tmp_path: Path) -> str:
    """Return where a ledger can be made that is one process's own."""
    return str(tmp_path / "techforge.sqlite")


@pytest.fixture
def own_postgres() -> Iterator[OwnPostgres]:
    """Return a server that may be killed."""
    with OwnPostgres() as server:
        yield server
