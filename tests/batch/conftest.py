"""What the tests of campaigns share: a ledger's two kinds of database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.postgres import campaign

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return where a ledger can be made."""
    if request.param == "sqlite":
        return str(tmp_path / "ledger.sqlite")
    return campaign(request.getfixturevalue("postgres_url"))
