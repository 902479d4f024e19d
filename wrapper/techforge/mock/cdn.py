"""The storage server: objects behind signed URLs, as a CDN serves them."""

import re
from collections.abc import AsyncIterator
from email.utils import formatdate
from xml.sax.saxutils import escape

from attrs import frozen
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from techforge.mock.faults import Fault
from techforge.mock.signing import SignatureRefusedError, Signer
from techforge.mock.store import Store, StoredObject

_CHUNK = 256 * 1024
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.IGNORECASE)


@frozen(eq=False)
class Cdn:
    """An ASGI app that serves the objects of the store for signed URLs."""

    store: Store
    signer: Signer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to one request."""
        response = self._answer(Request(scope, receive), scope["state"]["fault"])
        await response(scope, receive, send)

    def _answer(self, request: Request, fault: Fault) -> Response:
        path = request.scope["path"].removeprefix("/")
        if request.method not in {"GET", "HEAD"}:
            return _error(405, "MethodNotAllowed", "Objects are read-only.", allow="GET, HEAD")
        if fault.cdn_status is not None:
            return _error(fault.cdn_status, "Fault", f"The mock injected this fault: {fault.spec}")
        if fault.cdn_expired:
            return _error(403, "AccessDenied", "The URL has expired.")
        try:
            query = request.query_params
            self.signer.check(path, query.get("expires"), query.get("signature"))
        except SignatureRefusedError as error:
            return _error(403, "AccessDenied", str(error))
        if fault.cdn_change_etag:
            self.store.retag(path)
        stored = self.store.get(path)
        if stored is None:
            return _error(404, "NoSuchKey", "There is no such object.")
        return _serve(stored, request, ranges=not fault.cdn_ignore_range)


def _serve(stored: StoredObject, request: Request, *, ranges: bool) -> Response:
    size = len(stored.data)
    modified = formatdate(stored.modified, usegmt=True)
    headers = {"accept-ranges": "bytes", "etag": stored.etag, "last-modified": modified}
    if _names(request.headers.get("if-none-match", ""), stored.etag):
        return Response(None, 304, headers)
    wanted = None
    # Ignore Range on HEAD (RFC 9110, section 14.2), and if the object has changed.
    if (
        ranges
        and request.method == "GET"
        and request.headers.get("if-range") in {None, stored.etag, modified}
    ):
        wanted = _range(request.headers.get("range", ""), size)
    if wanted is not None and not wanted:
        message = f"The object has {size} bytes."
        return _error(416, "InvalidRange", message, **{"content-range": f"bytes */{size}"})
    if wanted:
        headers["content-range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{size}"
    span = wanted or range(size)
    headers |= {"content-type": stored.content_type, "content-length": str(len(span))}
    return StreamingResponse(_chunks(stored.data, span), 206 if wanted else 200, headers)


def _range(header: str, size: int) -> range | None:
    """Return the requested range: empty if it is outside the object, None for the whole object."""
    match = _RANGE.fullmatch(header.strip())
    if not match or not any(match.groups()):
        return None
    first, last = match.groups()
    if not first:
        return range(max(size - int(last), 0), size)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(int(last) + 1, size) if last else size)


def _names(header: str, etag: str) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return "*" in tags or etag in tags


async def _chunks(data: bytes, span: range) -> AsyncIterator[memoryview]:
    # Views instead of slices, so that many readers share one copy of a large object.
    view = memoryview(data)[span.start : span.stop]
    for at in range(0, len(view), _CHUNK):
        yield view[at : at + _CHUNK]


def _error(status: int, code: str, message: str, **headers: str) -> Response:
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>\n"
    )
    return Response(body, status, headers, "application/xml")
