"""A mock server with one deviation, and what its mutants are made of: requests and responses to change."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from typing import Any
from unittest import mock
from urllib.parse import parse_qsl, quote, urlencode

from attrs import evolve, field, frozen

import techforge.mock.server
from techforge.mock import MockServer
from techforge.mock.contract import Contract, problems, read

Json = Any
JSON = "application/json"
PERMITTED = "permitted"
Lines = tuple[tuple[str, str], ...]


@frozen
class Request:
    """A request, as the server receives it."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    raw_path: str = ""
    """The path before it is decoded."""
    lines: Lines = ()
    """All header lines; `headers` has the last one of each name."""

    def with_query(self, **query: str) -> "Request":
        """Return the request with more in its query."""
        return evolve(self, query="&".join(filter(None, [self.query, urlencode(query)])))

    def with_header(self, name: str, value: str) -> "Request":
        """Return the request with another header, or with another value of it."""
        return evolve(self, headers=self.headers | {name: value})

    def values(self, name: str) -> list[str]:
        """Return the values of all lines of a header."""
        return [value for each, value in self.lines if each == name]


@frozen
class Answer:
    """What the server says to it."""

    status: int
    headers: dict[str, str]
    body: bytes
    more: Lines = ()
    """Further header lines."""

    @property
    def json(self) -> Json:
        """The body, read."""
        return json.loads(self.body)

    def with_json(self, value: Json) -> "Answer":
        """Return the answer with another body."""
        return evolve(self, body=json.dumps(value).encode())

    def with_header(self, name: str, value: str) -> "Answer":
        """Return the answer with another header, or with another value of it."""
        return evolve(self, headers=self.headers | {name: value})

    def with_status(self, status: int) -> "Answer":
        """Return the answer with another status."""
        return evolve(self, status=status)

    def without_header(self, name: str) -> "Answer":
        """Return the answer without a header."""
        return evolve(self, headers={key: value for key, value in self.headers.items() if key != name})


Ask = Callable[[Request], Request]
Say = Callable[[Request, Answer], Answer]


@frozen
class Mutant:
    """One deviation: the name says which."""

    name: str
    document: Json = None
    """What the server holds requests to in the place of the contract."""
    ask: Ask = lambda request: request
    """What the server takes a request for."""
    say: Say = lambda _request, answer: answer
    """What it makes of its own answer."""
    patches: tuple[tuple[Any, str, Any], ...] = ()
    """What it does in the place of functions of the mock."""
    wire: tuple[tuple[Any, str, Any], ...] = ()
    """What it does in the place of functions of its HTTP library."""
    storage: Say = lambda _request, answer: answer
    """What storage makes of its own answer."""
    family: str = ""
    """The kind of deviation, for the report."""
    effects: list[str] = field(factory=list, eq=False, repr=False)
    """The requests that were answered otherwise than by the unmodified server."""

    @property
    def is_permitted(self) -> bool:
        """Whether the contract leaves open what this server does."""
        return self.family == PERMITTED

    @contextmanager
    def serving(self, **options: Any) -> Iterator[MockServer]:
        """Run the mutated server."""
        note = self.effects.append
        with ExitStack() as stack:
            for target, name, value in self.patches:
                changed = _observed(getattr(target, name), value, note)
                stack.enter_context(mock.patch.object(target, name, changed))
            for target, name, value in self.wire:
                stack.enter_context(mock.patch.object(target, name, value))
            judged = None
            if self.document:
                served = read(self.document)
                judged = (techforge.mock.server.contract(), served)
                stack.enter_context(mock.patch.object(techforge.mock.server, "contract", return_value=served))
            server = MockServer(**options)
            api, storage = server._gates
            server._gates = (
                _Layer(api, self.ask, self.say, note, judged),
                _Layer(storage, _same, self.storage, note),
            )
            yield stack.enter_context(server)


def _same(request: Request) -> Request:
    return request


def _observed(
    original: Callable[..., Any], replacement: Callable[..., Any], note: Callable[[str], None]
) -> Callable[..., Any]:
    """Return a replacement that notes when it does something else than the original."""

    def outcome(function: Callable[..., Any], arguments: Any) -> tuple[Any, Exception | None]:
        try:
            return function(*arguments), None
        except Exception as error:  # noqa: BLE001 - it is raised again, if it is the replacement's
            return None, error

    def call(*arguments: Any) -> Any:
        value, error = outcome(original, arguments)
        other, other_error = outcome(replacement, arguments)
        if (value, type(error)) != (other, type(other_error)):
            note(str(arguments[1:]))
        if other_error:
            raise other_error
        return other

    return call


def is_json(body: bytes) -> bool:
    """Whether a body is JSON."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        json.loads(body.decode(), parse_constant=refuse)
    except (ValueError, RecursionError):
        return False
    return True


def is_utf8(body: bytes) -> bool:
    """Whether a body is UTF-8."""
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def where(here: Callable[[Request, Answer], bool], change: Callable[[Answer], Answer]) -> Say:
    """Change some answers."""
    return lambda request, answer: change(answer) if here(request, answer) else answer


def is_valid(served: Contract, request: Request) -> bool | None:
    """Return what a contract says of a request's body and parameters; None if it has no such operation."""
    operation = served.find(request.method, request.path)
    if operation is None:
        return None
    query = dict(parse_qsl(request.query, keep_blank_values=True))
    if any(problems(each.schema, query[each.name]) for each in operation.query if each.name in query):
        return False
    schema = operation.bodies.get(JSON)
    return not schema or (is_json(request.body) and not problems(schema, json.loads(request.body)))


class _Layer:
    """An ASGI app around another that changes what goes in and what comes out."""

    def __init__(
        self,
        app: Any,
        ask: Ask,
        say: Say,
        note: Callable[[str], None],
        judged: tuple[Contract, Contract] | None = None,
    ) -> None:
        self.app, self.ask, self.say, self.note, self.judged = app, ask, say, note, judged

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        lines = tuple((key.decode("latin-1"), value.decode("latin-1")) for key, value in scope["headers"])
        asked = Request(
            method=scope["method"],
            path=scope["path"],
            query=scope["query_string"].decode("latin-1"),
            headers=dict(lines),
            body=body,
            raw_path=scope["raw_path"].decode("latin-1"),
            lines=lines,
        )
        if self.judged and len({is_valid(each, asked) for each in self.judged}) > 1:
            self.note(str(asked))
        taken = self.ask(asked)
        own = await self._own(scope, receive, taken, changed=taken != asked)
        said = self.say(asked, own)
        if said != own or (taken != asked and _gist(await self._own(scope, receive, asked)) != _gist(own)):
            self.note(str(asked))
        if said.status in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}:
            said = evolve(said, body=b"").without_header("content-length")
        elif said.body != own.body and asked.method != "HEAD":
            said = said.with_header("content-length", str(len(said.body)))
        headers = [
            (key.encode("latin-1"), value.encode("latin-1"))
            for key, value in (*said.headers.items(), *said.more)
        ]
        await send({"type": "http.response.start", "status": said.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if asked.method == "HEAD" else said.body})

    async def _own(self, scope: Any, receive: Any, request: Request, *, changed: bool = False) -> Answer:
        """Return the app's own answer to a request."""
        # The app may change these.
        scope = scope | {"state": dict(scope["state"])}
        if changed:
            is_same_path = request.path == scope["path"]
            scope["raw_path"] = (request.raw_path if is_same_path else quote(request.path)).encode()
            scope |= {
                "method": request.method,
                "path": request.path,
                "query_string": request.query.encode("latin-1"),
                "headers": [(k.encode("latin-1"), v.encode("latin-1")) for k, v in request.headers.items()],
            }
        unread = [{"type": "http.request", "body": request.body}]
        sent: list[Any] = []

        async def give() -> Any:
            return unread.pop() if unread else await receive()

        async def keep(message: Any) -> None:
            sent.append(message)

        await self.app(scope, give, keep)
        start = sent[0]
        return Answer(
            status=start["status"],
            headers={key.decode("latin-1"): value.decode("latin-1") for key, value in start["headers"]},
            body=b"".join(message.get("body", b"") for message in sent[1:]),
        )


_PASSING = re.compile(rb"[0-9a-f-]{8,}|[0-9]+")


def _gist(answer: Answer) -> tuple[int, str | None, bytes]:
    """Return what two answers to the same request have in common: all but new ids and times."""
    return answer.status, answer.headers.get("content-type"), _PASSING.sub(b"", answer.body)
