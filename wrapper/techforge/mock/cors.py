"""What a browser asks before a page may use the mock: beside the contract, for this machine's pages only."""

import re
from typing import Final

from attrs import frozen
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# A page from elsewhere could otherwise use whatever mock its reader has running.
_LOOPBACK: Final = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?")


@frozen
class Cors:
    """An ASGI layer that lets pages from a loopback address call the app; other requests pass as they are."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a preflight, and say in other answers that the page may read them."""
        headers = Headers(scope=scope)
        origin = headers.get("origin", "")
        if not _LOOPBACK.fullmatch(origin):
            await self.app(scope, receive, send)
            return
        allowed = {"access-control-allow-origin": origin, "vary": "origin"}
        # Without this header it is no preflight, and the contract knows no OPTIONS.
        method = headers.get("access-control-request-method")
        if scope["method"] == "OPTIONS" and method:
            allowed["access-control-allow-methods"] = method
            allowed["access-control-allow-headers"] = headers.get("access-control-request-headers", "")
            await Response(status_code=204, headers=allowed)(scope, receive, send)
            return
        allowed["access-control-expose-headers"] = "retry-after, x-request-id"

        async def readable(message: Message) -> None:
            if message["type"] == "http.response.start":
                # A copy: what the app has sent is its own.
                message = {**message, "headers": list(message["headers"])}
                MutableHeaders(scope=message).update(allowed)
            await send(message)

        await self.app(scope, receive, readable)
