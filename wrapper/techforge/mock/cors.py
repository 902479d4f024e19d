"""CORS: let web pages on this machine use the mock. This is not part of the contract."""

import re
from typing import Final

from attrs import frozen
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Other pages could use a mock that their reader runs.
_LOOPBACK: Final = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?")


@frozen
class Cors:
    """An ASGI layer that lets pages on a loopback address call the app. Other requests are unchanged."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to preflight requests, and add CORS headers to other responses."""
        headers = Headers(scope=scope)
        origin = headers.get("origin", "")
        if not _LOOPBACK.fullmatch(origin):
            await self.app(scope, receive, send)
            return
        allowed = {"access-control-allow-origin": origin, "vary": "origin"}
        # Only preflight requests have this header. The contract has no OPTIONS.
        method = headers.get("access-control-request-method")
        if scope["method"] == "OPTIONS" and method:
            allowed["access-control-allow-methods"] = method
            allowed["access-control-allow-headers"] = headers.get("access-control-request-headers", "")
            await Response(status_code=204, headers=allowed)(scope, receive, send)
            return
        allowed["access-control-expose-headers"] = "retry-after, x-request-id"

        async def readable(message: Message) -> None:
            if message["type"] == "http.response.start":
                # Copy it, since the message belongs to the app.
                message = {**message, "headers": list(message["headers"])}
                MutableHeaders(scope=message).update(allowed)
            await send(message)

        await self.app(scope, receive, readable)
