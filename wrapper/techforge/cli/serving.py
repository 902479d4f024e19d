"""Serve local files to the mock. The live API needs public URLs."""

from __future__ import annotations

import secrets
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

from techforge import _checks
from techforge._masking import as_typed
from techforge.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping


def local(value: str) -> Path | None:
    """Return the path that a value names, or None for a URL."""
    if not _checks.is_path(value):
        return None
    if value[:5].lower() == "file:":
        return Path(url2pathname(urlsplit(value).path))
    return Path(value).expanduser()


@contextmanager
def published(media: Mapping[str, str], *, to_mock: bool) -> Generator[dict[str, str]]:
    """Yield a URL for each field. Local files are served for the mock until the context ends.

    Raises:
        InvalidArgumentError: a file does not exist, or the address is not a mock's.
    """
    files = {name: path for name, value in media.items() if (path := local(value)) is not None}
    for name, path in files.items():
        if not path.is_file():
            raise InvalidArgumentError(
                name,
                f"{as_typed(media[name])!r} is not a file, and not a URL: a URL begins with https://",
            )
        if not to_mock:
            served = "Local files work with the mock only (techforge mock)."
            raise InvalidArgumentError(name, f"{_checks.path_problem(media[name])}. {served}")
    if not files:
        yield dict(media)
        return
    paths = {f"/{secrets.token_urlsafe(9)}/{quote(path.name)}": path for path in files.values()}
    with _serving(paths) as url:
        path_of = dict(zip(files, paths, strict=True))
        yield {name: f"{url}{path_of[name]}" if name in path_of else value for name, value in media.items()}


@contextmanager
def _serving(paths: Mapping[str, Path]) -> Generator[str]:
    class Files(BaseHTTPRequestHandler):
        """Serves only these files."""

        files: ClassVar[Mapping[str, Path]] = paths

        def do_GET(self) -> None:
            path = self.files.get(self.path)
            if path is None:
                self.send_error(404)
                return
            data = path.read_bytes()
            self.send_response(200)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Log nothing: stderr is for messages about the job."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Files)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
