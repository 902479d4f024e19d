"""Files of this machine: the API wants URLs, and only the mock server can be given one of here."""

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
from techforge.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping


def local(value: str) -> Path | None:
    """Return the file that is meant, None if it is none."""
    if not _checks.is_path(value):
        return None
    if value[:5].lower() == "file:":
        return Path(url2pathname(urlsplit(value).path))
    return Path(value).expanduser()


@contextmanager
def published(media: Mapping[str, str], *, to_mock: bool) -> Generator[dict[str, str]]:
    """Give each field a URL, for as long as this lasts; a file has one against the mock only.

    Raises:
        InvalidArgumentError: a file is not there, or the API could not fetch it.
    """
    files = {name: path for name, value in media.items() if (path := local(value)) is not None}
    for name, path in files.items():
        if not path.is_file():
            raise InvalidArgumentError(
                name,
                f"there is no file {media[name]!r} here, and it is not a URL: those begin with https://",
            )
        if not to_mock:
            served = "Only the mock server (techforge mock) gets files of this machine."
            raise InvalidArgumentError(name, f"{_checks.path_problem(media[name])}. {served}")
    if not files:
        yield dict(media)
        return
    paths = {f"/{secrets.token_urlsafe(9)}/{quote(path.name)}": path for path in files.values()}
    with _serving(paths) as url:
        places = dict(zip(files, paths, strict=True))
        yield {name: f"{url}{places[name]}" if name in places else value for name, value in media.items()}


@contextmanager
def _serving(paths: Mapping[str, Path]) -> Generator[str]:
    class Files(BaseHTTPRequestHandler):
        """These files, and nothing beside them."""

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
            """Say nothing: stderr tells of the job."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Files)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
