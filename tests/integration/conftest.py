"""Fixtures for these tests: a port that ignores connection attempts."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Return a port that does not respond to connection attempts, as in a blackholed network."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        fillers: list[socket.socket] = []
        with suppress(TimeoutError):
            # When its backlog is full, the system drops further attempts.
            while len(fillers) < 8:
                fillers.append(socket.create_connection(listener.getsockname(), timeout=0.2))
        yield listener.getsockname()[1]
        for filler in fillers:
            filler.close()
