"""The layer in front of each server: it records requests in the journal and injects faults."""

import asyncio
import socket
import struct
import time
import uuid
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus

from attrs import define, field, frozen
from starlette.datastructures import Headers as RawHeaders
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from techforge.mock.faults import Fault, Faults, parse_faults
from techforge.mock.journal import Headers, Journal, Origin, Record

FAULT_HEADER = "x-mock-fault"
CONTROL = "/__mock__/"
BODY_LIMIT = 1_000_000
# RFC 9110, section 15.5.2, requires a challenge in each 401. No scheme is registered for API keys.
CHALLENGE = {"www-authenticate": "ApiKey"}

_HTML = (
    b"<!doctype html><html><head><title>Bad gateway</title></head><body><h1>Bad gateway</h1></body></html>"
)
_LINGER_ZERO = struct.pack("ii", 1, 0)


@frozen
class Gate:
    """An ASGI layer that all requests to one server pass through."""

    app: ASGIApp
    server: Origin
    operation_of: Callable[[str, str], str | None]
    """Returns the operation for a method and a path as it was sent."""
    faults: Faults
    journal: Journal
    latency: float = 0.0
    """Seconds to delay each response."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Record a request, and respond to it with its fault."""
        if scope["path"].startswith(CONTROL):
            await self.app(scope, receive, send)
            return
        operation = self.operation_of(scope["method"], raw_path(scope))
        headers = _headers(scope)
        amend = self.journal.open(
            Record(
                time=time.time(),
                server=self.server,
                operation=operation,
                method=scope["method"],
                path=scope["path"],
                query=scope["query_string"].decode("latin-1"),
                headers=headers,
            )
        )
        await asyncio.sleep(self.latency)
        exchange = _Exchange(self.app, scope, receive, send, amend)
        try:
            fault = self._fault(operation, headers)
        except ValueError as error:
            await exchange.answer(JSONResponse({"message": str(error)}, 400))
            return
        await exchange.run(fault)

    def _fault(self, operation: str | None, headers: Headers) -> Fault:
        asked = parse_faults(headers[FAULT_HEADER]) if FAULT_HEADER in headers else []
        for fault in asked:
            if fault.times != 1 or fault.after or fault.over or fault.share < 1:
                raise ValueError(
                    f"fault {fault.spec!r}: a header is for one request; remove times, after, over and share"
                )
            # A header applies to its own request, also if that goes to storage.
            if fault.operation in {None, operation} and (self.server == "storage" or not fault.of_storage):
                return fault
        return self.faults.take(operation) or Fault()


@define(eq=False)
class _Exchange:
    """One request and its response."""

    app: ASGIApp
    scope: Scope
    receive: Receive
    send: Send
    amend: Callable[..., None]
    fault: Fault = field(factory=Fault)
    unread: list[Message] = field(factory=list[Message], init=False)
    sent: int = field(default=0, init=False)

    async def run(self, fault: Fault) -> None:
        """Respond to the request as the fault says."""
        self.fault = self.scope["state"]["fault"] = fault
        if fault != Fault():
            self.amend(fault=fault)
        if fault.close == "before-body":
            await asyncio.sleep(fault.delay)
            await self._hang_up()
            return
        if not await self._read_body():
            return
        if not fault.rewrites:
            await self.app(self.scope, self._receive, self._deliver)
            return
        answer = self._rewritten(await self._captured() if fault.carries_out else None)
        if fault.close == "after-body":
            await asyncio.sleep(fault.delay)
            await self._hang_up()
        elif fault.close == "mid-answer" or fault.body == "truncated":
            await self._send_half(answer)
        else:
            await self.answer(answer)

    async def answer(self, response: Response) -> None:
        """Send a complete response."""
        await response(self.scope, self._receive, self._deliver)

    async def _read_body(self) -> bool:
        """Read the whole request; return whether it is complete."""
        body, more = b"", True
        while more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                return False
            # Read oversized bodies to the end, too: a client that is still sending would miss the response.
            body = (body + message.get("body", b""))[: BODY_LIMIT + 1]
            more = message.get("more_body", False)
        self.amend(body=body)
        self.unread.append({"type": "http.request", "body": body, "more_body": False})
        return True

    async def _receive(self) -> Message:
        return self.unread.pop() if self.unread else await self.receive()

    async def _deliver(self, message: Message) -> None:
        """Send one message of the response: delayed, slowly or incomplete, as the fault says."""
        if message["type"] == "http.response.start":
            self.amend(job_id=self.scope["state"].get("job_id"))
            await asyncio.sleep(self.fault.delay)
            self.amend(status=message["status"])
            own = [(b"date", formatdate(usegmt=True).encode()), (b"x-request-id", uuid.uuid4().hex.encode())]
            await self.send({**message, "headers": [*message["headers"], *own]})
            return
        body, limit = message.get("body", b""), self.fault.cdn_close_after
        cut = limit is not None and self.sent + len(body) >= limit
        if limit is not None:
            body = body[: max(limit - self.sent, 0)]
        self.sent += len(body)
        if self.fault.drip:
            for at in range(len(body)):
                await asyncio.sleep(self.fault.drip)
                await self.send({**message, "body": body[at : at + 1], "more_body": True})
            body = b""
        await self.send({**message, "body": body, "more_body": cut or message.get("more_body", False)})
        if cut:
            await self._hang_up()

    async def _captured(self) -> Response:
        """Process the request, and return its response without sending it."""
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        await self.app(self.scope, self._receive, keep)
        self.amend(job_id=self.scope["state"].get("job_id"))
        response = Response(b"".join(message.get("body", b"") for message in messages), messages[0]["status"])
        response.raw_headers = messages[0]["headers"]
        return response

    def _rewritten(self, own: Response | None) -> Response:
        """Return the response as the fault changes it."""
        fault = self.fault
        status = fault.status or (own.status_code if own and fault.body != "html" else 200)
        answer: Response
        if fault.body == "html":
            answer = HTMLResponse(_HTML)
        elif fault.json is not None:
            text = fault.json.replace("$job_id", str(self.scope["state"].get("job_id")))
            answer = Response(text, media_type="application/json")
        elif own and status < 400:
            answer = own
        else:
            answer = JSONResponse({"message": f"The mock injected this fault: {fault.spec}"})
        if fault.body == "empty":
            answer = Response()
        elif fault.body == "broken-json":
            answer = Response(_half(answer), media_type=answer.headers.get("content-type"))
        answer.status_code = status
        if status == HTTPStatus.UNAUTHORIZED:
            answer.headers.update(CHALLENGE)
        if fault.retry_after:
            answer.headers["retry-after"] = _retry_after(fault.retry_after)
        return answer

    async def _send_half(self, answer: Response) -> None:
        headers = answer.raw_headers
        if self.fault.close == "mid-answer":
            # Without a length the body is sent in chunks; the last chunk is missing.
            headers = [(name, value) for name, value in headers if name != b"content-length"]
        await self._deliver({"type": "http.response.start", "status": answer.status_code, "headers": headers})
        await self._deliver({"type": "http.response.body", "body": _half(answer), "more_body": True})
        await self._hang_up()

    async def _hang_up(self) -> None:
        """Close or reset the connection, and wait until it is closed."""
        transport: asyncio.Transport = self.scope["state"]["transport"]
        if self.fault.reset:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        transport.close()
        # If this returned earlier, uvicorn would report a missing response.
        while (await self.receive())["type"] != "http.disconnect":
            pass


def raw_path(scope: Scope) -> str:
    """Return the path as it was sent, before percent-decoding."""
    path: bytes = scope["raw_path"]
    return path.decode("ascii")


def _half(answer: Response) -> bytes:
    body = bytes(answer.body)
    return body[: len(body) // 2]


def _headers(scope: Scope) -> Headers:
    received = RawHeaders(scope=scope)
    return Headers({name: ", ".join(received.getlist(name)) for name in received})


def _retry_after(value: str) -> str:
    if value.startswith("date:"):
        return formatdate(time.time() + int(value.removeprefix("date:")), usegmt=True)
    return value
