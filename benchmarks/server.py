"""A server on loopback that answers at once, and costs as little as may be: what is compared is the client.

It says its port on the first line. With a path it serves that file, too, under /object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from pathlib import Path

LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
RANGE = re.compile(rb"(?i)\r\nrange: *bytes=(\d+)-(\d*)")
ANSWERS = {
    b"/videos/": {
        "id": "v",
        "object": "video",
        "created_at": 1,
        "status": "queued",
        "model": "sora-2",
        "progress": 0,
    },
    b"/v1/models/": {"id": "m", "type": "model", "created_at": "2024-12-01T12:00:00Z", "display_name": "M"},
    b"/v1/tasks/": {
        "id": "17f20503-6c24-4c16-946b-35dbbce2af2f",
        "status": "RUNNING",
        "createdAt": "2024-12-01T12:00:00Z",
        "progress": 0.5,
    },
    b"/jobs/job_1": {
        "job_id": "job_1",
        "status": "IN_PROGRESS",
        "progress": 0.5,
        "estimated_completion_at": None,
    },
    b"/v1/voices/": {"stability": 0.5, "similarity_boost": 0.7, "style": 0.0, "use_speaker_boost": True},
    b"/v1/customers/": {
        "id": "c",
        "object": "customer",
        "created": 1,
        "email": "a@example.com",
        "livemode": False,
    },
    b"/v1/predictions/": {
        "id": "p",
        "version": "v",
        "model": "a/b",
        "status": "processing",
        "input": {"text": "a"},
        "created_at": "2024-12-01T12:00:00Z",
        "urls": {"get": "https://a.example/p", "cancel": "https://a.example/c"},
    },
    b"/fal-ai/": {
        "status": "IN_PROGRESS",
        "request_id": "r",
        "logs": None,
        "response_url": "https://a.example/r",
    },
    b"path=waiting": None,
    b"/storage/": {"signedUrl": "{url}/object?signature=0", "expiresAt": "2035-01-01T00:00:00Z"},
    b"/jobs/v2": {"jobId": "15a6331b-3837-4ae8-8fa7-d3ead3388d77", "status": "queued", "message": "accepted"},
}


def answers(url: str) -> list[tuple[bytes, bytes]]:
    """Return what is answered to a request whose first line holds a text."""
    made = []
    for text, answer in ANSWERS.items():
        status = {b"/jobs/v2": "202 Accepted", b"path=waiting": "404 Not Found"}.get(text, "200 OK")
        body = json.dumps(answer or {"message": "there is no such object"}).replace("{url}", url)
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\nx-request-id: 1\r\n"
        made.append((text, f"{head}content-length: {len(body)}\r\n\r\n{body}".encode()))
    return made


class Connection(asyncio.Protocol):
    """Answers whole requests, also where several have come together."""

    transport: asyncio.Transport
    known: list[tuple[bytes, bytes]]
    served: Path | None = None
    delay = 0.0

    def __init__(self) -> None:
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for type checkers
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer what is complete."""
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            head = self.received[:end]
            length = LENGTH.search(head)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self.received) < whole:
                return
            self.received = self.received[whole:]
            self.answer(head)

    def answer(self, head: bytes) -> None:
        """Answer one request."""
        line = head[: head.index(b"\r\n")]
        if b"/object" in line and self.served is not None:
            self.task = asyncio.get_running_loop().create_task(self.serve(head, self.served))
            return
        known = (answer for text, answer in self.known if text in line)
        found = next(known, b"HTTP/1.1 501 Not known to the benchmark\r\ncontent-length: 0\r\n\r\n")
        last = b"\r\nconnection: close" in head.lower()
        if self.delay and line.startswith(b"POST"):
            asyncio.get_running_loop().call_later(self.delay, self.say, found, last)
        else:
            self.say(found, last)

    def say(self, answer: bytes, last: bool) -> None:  # noqa: FBT001 - call_later passes no names
        """Send an answer; after the last one, close."""
        self.transport.write(answer)
        if last:
            self.transport.close()

    async def serve(self, head: bytes, path: Path) -> None:
        """Send a file, or the part of it that is asked for."""
        size, wanted = path.stat().st_size, RANGE.search(head)  # noqa: ASYNC240 - it serves one client
        first, last = (int(wanted[1]), int(wanted[2] or size - 1)) if wanted else (0, size - 1)
        last = min(last, size - 1)
        status = f"206 Partial Content\r\ncontent-range: bytes {first}-{last}/{size}" if wanted else "200 OK"
        fields = f'content-length: {last - first + 1}\r\netag: "1"\r\ncontent-type: video/mp4'
        self.transport.write(f"HTTP/1.1 {status}\r\n{fields}\r\n\r\n".encode())
        with path.open("rb") as file:
            await asyncio.get_running_loop().sendfile(self.transport, file, first, last - first + 1)


async def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds until a POST is answered")
    parser.add_argument("served", nargs="?", type=Path)
    options = parser.parse_args()
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0, backlog=4096)
    port = server.sockets[0].getsockname()[1]
    Connection.known = answers(f"http://127.0.0.1:{port}")
    Connection.served, Connection.delay = options.served, options.delay
    print(port, flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
