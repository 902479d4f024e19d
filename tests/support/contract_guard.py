"""Holds all that the wrapper sends, and all that it is answered, to openapi.json, by a validator not ours.

openapi-core judges. What it lets pass although the contract, or a standard that the contract builds on,
does not, is judged here: see `_wire_problems` and `FORMATS`.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch
from urllib.parse import quote, unquote, urljoin, urlsplit

import httpx
import pytest
from attrs import define, field, frozen
from openapi_core import Config, OpenAPI
from openapi_core.datatypes import RequestParameters
from rfc3339_validator import validate_rfc3339
from werkzeug.datastructures import Headers, ImmutableMultiDict

from techforge._drivers.aio_http import AsyncHttp
from techforge._drivers.facade import Facade
from techforge._drivers.sync_http import SyncHttp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator
    from contextlib import AbstractAsyncContextManager

    import httpcore

    from techforge import _flow
    from techforge._drivers.pool import Request
    from techforge._drivers.response import ReceivedResponse
    from techforge.mock import MockServer
    from techforge.mock.journal import Journal, Record

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = json.loads((ROOT / "openapi.json").read_text("utf-8"))
SERVER = DOCUMENT["servers"][0]["url"]
# Whoever calls httpx from here is no wrapper: scripts, tests that ask the mock themselves, and the mock.
NOT_OURS = (str(ROOT / "scripts"), str(ROOT / "tests"), str(ROOT / "wrapper" / "techforge" / "mock"))

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# RFC 3986: a scheme, and nothing but its characters; what they may be where, the parser knows.
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:([A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+")
# RFC 6570, as OpenAPI says for parameters without allowReserved: all else is percent-encoded.
_QUERY = re.compile(r"([A-Za-z0-9._~-]|%[0-9A-Fa-f]{2})+=([A-Za-z0-9._~-]|%[0-9A-Fa-f]{2})*")


def _is_uri(value: object) -> bool:
    try:
        return not isinstance(value, str) or bool(_URI.fullmatch(value) and urlsplit(value))
    except ValueError:
        return False


FORMATS = {
    "uri": _is_uri,
    "uuid": lambda value: not isinstance(value, str) or bool(_UUID.fullmatch(value)),
    "date-time": lambda value: not isinstance(value, str) or validate_rfc3339(value),
}
# The client sends what the contract declares; servers may add to what it declares.
SENT = OpenAPI.from_dict(
    DOCUMENT, config=Config(extra_format_validators=FORMATS, additional_properties_default_policy="forbid")
)
ANSWERED = OpenAPI.from_dict(DOCUMENT, config=Config(extra_format_validators=FORMATS))


@frozen
class Message:
    """One request as openapi-core wants to see it, with what else of it went over the wire."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)
    host_url: str = SERVER

    @property
    def path(self) -> str:
        """The path, still encoded."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """The query, still encoded."""
        return self.target.partition("?")[2]

    @property
    def at_the_server(self) -> tuple[str, str, str, bytes]:
        """What a server tells of it, by which the two can be matched."""
        path, _, query = unquote(self.target).partition("#")[0].partition("?")
        return self.method, path, query, self.body

    @property
    def parameters(self) -> RequestParameters:
        """The parameters, by place."""
        pairs = [pair.partition("=") for pair in self.query.split("&") if pair]
        return RequestParameters(
            query=ImmutableMultiDict([(unquote(name), unquote(value)) for name, _, value in pairs]),
            header=Headers(list(self.headers)),
        )

    @property
    def content_type(self) -> str:
        """The content type, empty where there is none."""
        return ", ".join(value for name, value in self.headers if name == "content-type")

    @classmethod
    def of(cls, request: httpx.Request, prefix: str) -> Message:
        """Take a request as httpx sends it; the prefix is what the test's base URL adds."""
        headers = tuple((name.decode().lower(), value.decode()) for name, value in request.headers.raw)
        target = _wire(request.url)[3] + (f"#{request.url.fragment}" if request.url.fragment else "")
        return cls(request.method.lower(), target.removeprefix(prefix), headers, request.read())

    @classmethod
    def received(cls, record: Record) -> Message:
        """Take a request as the mock server received it."""
        target = quote(record.path) + (f"?{record.query}" if record.query else "")
        return cls(record.method.lower(), target, tuple(record.headers.items()), record.body)


@frozen
class Answer:
    """One response as openapi-core wants to see it."""

    status_code: int
    headers: Headers
    content_type: str
    data: bytes


_watching: list[ContractGuard] = []


@define(repr=False)
class ContractGuard:
    """What one test has sent and received by way of the wrapper, and what was wrong with it."""

    undeclared: frozenset[str] = frozenset()
    """Fields that the test sends although the contract does not know them."""
    prefix: str = ""
    """The path of the test's base URL."""
    requests: list[Message] = field(factory=list)
    storage: list[httpx.Request] = field(factory=list)
    answers: int = 0
    problems: list[str] = field(factory=list)
    """What was wrong with requests."""
    lies: list[str] = field(factory=list)
    """What was wrong with answers."""
    _signed: set[tuple[object, ...]] = field(factory=set)
    _keys: set[str] = field(factory=set)
    _met: set[str] = field(factory=set)
    _foreign: list[Message] = field(factory=list)
    _journals: dict[Journal, list[Record]] = field(factory=dict)
    """Those of the test's servers, each with what it was made to forget."""

    def sent(self, request: httpx.Request) -> Message | None:
        """Judge a request of the wrapper; return it, unless it was one to storage."""
        # Storage is where an answer of the API has led to. Everything else must be an operation.
        if _wire(request.url) in self._signed:
            self.storage.append(request)
            self.problems += _storage_problems(request, self._keys)
            return None
        message = Message.of(request, self.prefix)
        self._judge(message)
        return message

    def asked(self, request: httpcore.Request) -> Message:
        """Judge a request that goes to the API without httpx."""
        headers = tuple((name.decode().lower(), value.decode()) for name, value in request.headers)
        target = request.url.target.decode().removeprefix(self.prefix)
        message = Message(request.method.decode().lower(), target, headers, b"".join(request.stream))
        self._judge(message)
        return message

    def _judge(self, message: Message) -> None:
        self.requests.append(message)
        self._keys |= {value for name, value in message.headers if name == _key_header() and value}
        body = message.body
        if self.undeclared and body:
            fields = json.loads(body)
            self._met |= fields.keys() & self.undeclared
            body = json.dumps({n: v for n, v in fields.items() if n not in self.undeclared}).encode()
        where = f"{message.method.upper()} {message.path}"
        judged = Message(message.method, message.target, message.headers, body)
        self.problems += [f"{where}: {problem}" for problem in request_problems(judged)]

    def answered(self, message: Message, response: httpx.Response, body: bytes | None) -> None:
        """Judge an answer; without a body, as far as it came."""
        self.answers += 1
        where = f"{response.status_code} to {message.method.upper()} {message.path}"
        self.lies += [f"{where}: {lie}" for lie in response_problems(message, response, body)]
        self._expect(_member(body, "signedUrl"))

    def redirected(self, request: httpx.Request, response: httpcore.Response) -> None:
        """Note where storage leads to."""
        self._expect(httpx.Headers(response.headers).get("location", ""), _plain(request.url))

    def _expect(self, url: object, base: str = "") -> None:
        if isinstance(url, str):
            # What is no URL cannot be asked for either.
            with suppress(ValueError, httpx.InvalidURL):
                self._signed.add(_wire(httpx.URL(urljoin(base, url))))

    def foreign(self, request: httpx.Request) -> None:
        """Note a request that is the test's own."""
        self._foreign.append(Message.of(request, ""))

    def serves(self, journal: Journal) -> None:
        """Note the journal of a server."""
        self._journals.setdefault(journal, [])

    def forgets(self, journal: Journal) -> None:
        """Keep what a journal is about to forget."""
        if journal in self._journals:
            self._journals[journal] += journal.requests()

    def missed(self) -> list[Message]:
        """Judge what only the test's mock servers saw, sent by another process say; return it."""
        storage = [Message.of(request, "") for request in self.storage]
        known = Counter(message.at_the_server for message in [*self.requests, *storage, *self._foreign])
        records = [each for journal, kept in self._journals.items() for each in [*kept, *journal.requests()]]
        missed: list[Message] = []
        # The API's first: the keys that it is told are those that storage must not see.
        for record in sorted(records, key=lambda record: record.server):
            message = Message.received(record)
            known[message.at_the_server] -= 1
            if known[message.at_the_server] < 0 and _is_the_wrappers(record):
                missed.append(message)
                self._judge_record(record, message)
        return missed

    def _judge_record(self, record: Record, message: Message) -> None:
        if record.server == "storage":
            url = f"http://storage{message.target}"
            request = httpx.Request(record.method, url, headers=record.headers, content=record.body)
            self.storage.append(request)
            self.problems += _storage_problems(request, self._keys)
            return
        self._judge(message)
        if record.status is not None:
            self.answers += 1
            self.lies += _status_problems(message, record.status)

    def forgive(self) -> list[str]:
        """Return what was wrong so far, and forget it: the test has meant it."""
        problems = self.problems.copy()
        self.problems.clear()
        self.lies.clear()
        return problems

    def verify(self, *, may_lie: bool = False, must_lie: bool = False) -> None:
        """Fail for what broke the contract, and for a mark that allows what did not happen."""
        __tracebackhide__ = True
        never = sorted(self.undeclared - self._met)
        if self.problems:
            problem = "the wrapper sent what the contract does not allow"
        elif self.lies and not may_lie:
            problem = (
                'the contract does not allow these answers; a test about that has @pytest.mark.lying("why")'
            )
        elif must_lie and not self.lies:
            problem = "marked as lying, and every answer kept to the contract"
        elif never:
            problem = f"marked as undeclared, and never sent: {', '.join(never)}"
        else:
            return
        pytest.fail("\n".join([problem, *self.problems, *self.lies]), pytrace=False)


def request_problems(message: Message) -> list[str]:
    """Say what the contract has against a request."""
    # Much of what a suite sends is alike, and openapi-core takes its time.
    headers = tuple(pair for pair in message.headers if pair[0] != "host")
    return list(_judged(message.method, message.target, headers, message.body))


@cache
def _judged(method: str, target: str, headers: tuple[tuple[str, str], ...], body: bytes) -> tuple[str, ...]:
    message = Message(method, target, headers, body)
    wrong = list(_wire_problems(message))
    # What is no JSON in no UTF-8 makes openapi-core stumble, and has been told of.
    return tuple(wrong or [text for error in SENT.iter_request_errors(message) for text in _texts(error)])


def _wire_problems(message: Message) -> Iterator[str]:
    """Say what openapi-core does not see."""
    # Where there is no such operation, openapi-core says so.
    operation = DOCUMENT["paths"].get(message.path, {}).get(message.method)
    if operation and message.body and "requestBody" not in operation:
        yield "it has a body, and the operation takes none"
    if message.body and "json" in message.content_type:
        yield from _json_problems(message.body, message.content_type)
    yield from _query_problems(message, operation)
    yield from _key_problems(message)


def _query_problems(message: Message, operation: dict[str, Any] | None) -> Iterator[str]:
    pairs = message.query.split("&") if message.query else []
    names = Counter(unquote(pair.partition("=")[0]) for pair in pairs)
    if operation:
        declared = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "query"}
        for name in names.keys() - declared:
            yield f"query parameter {name!r} is not declared"
    if names.total() > len(names):
        yield "a query parameter is given twice"
    for pair in pairs:
        if not _QUERY.fullmatch(pair):
            yield f"the query is not percent-encoded as RFC 6570 says: {pair!r}"
    try:
        unquote(message.query, errors="strict")
    except UnicodeDecodeError:
        yield f"the query is not UTF-8: {message.query!r}"
    if message.target.endswith("?"):
        yield "the query is empty"


def _key_problems(message: Message) -> Iterator[str]:
    keys = [value for name, value in message.headers if name == _key_header()]
    if len(keys) != 1 or not keys[0].strip():
        yield f"there must be one {_key_header()}, and something in it; there are {len(keys)}"
    elsewhere = [*(value for name, value in message.headers if name != _key_header()), message.target]
    if _hold_any([*elsewhere, message.body.decode("latin-1")], keys):
        yield "the key is elsewhere, too"
    for name in {"authorization", "cookie"} & {name for name, _ in message.headers}:
        yield f"the header {name} is not declared"


def _json_problems(body: bytes, content_type: str) -> Iterator[str]:
    def no_constant(name: str) -> None:
        raise ValueError(f"{name} is not a value of JSON")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a name is given twice in one object")
        return dict(pairs)

    _, _, charset = content_type.lower().replace('"', "").partition("charset=")
    if charset not in {"", "utf-8"}:
        yield f"JSON is UTF-8 (RFC 8259), not {charset}"
    try:
        json.loads(body.decode(), parse_constant=no_constant, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        yield f"the body is no JSON (RFC 8259): {error}"


def response_problems(message: Message, response: httpx.Response, body: bytes | None) -> list[str]:
    """Say what the contract has against an answer."""
    # The fields of a body that did not come to its end are not known; its status and headers are.
    headers = Headers([(name, value) for name, value in response.headers.multi_items()])
    content_type = response.headers.get("content-type", "")
    if body is not None and response.headers.get("content-encoding"):
        try:
            body = httpx.Response(200, headers=response.headers, content=body).content
        except httpx.DecodingError as error:
            return [f"the body cannot be unpacked: {error}"]
    if body and "json" in content_type and (wrong := list(_json_problems(body, content_type))):
        return wrong
    answer = Answer(response.status_code, headers, content_type, b"" if body is None else body)
    asked = Message(message.method, message.path, (), b"")
    errors = [text for error in ANSWERED.iter_response_errors(asked, answer) for text in _texts(error)]
    return errors if body is not None else [text for text in errors if "Missing response data" not in text]


def _status_problems(message: Message, status: int) -> Iterator[str]:
    """Say whether a status is not declared: of an answer that went elsewhere, a journal keeps no more."""
    operation = DOCUMENT["paths"].get(message.path, {}).get(message.method)
    if operation and not {str(status), f"{status // 100}XX", "default"} & operation["responses"].keys():
        yield f"{status} to {message.method.upper()} {message.path}: the contract has no such status"


def _is_the_wrappers(record: Record) -> bool:
    """Tell whether the wrapper has sent all of this, whatever process it was in."""
    headers = record.headers
    # Storage is told nothing of who asks.
    ours = (
        headers.get("user-agent", "").startswith("techforge-python/")
        if record.server == "api"
        else (headers.get("accept"), headers.get("accept-encoding")) == ("*/*", "identity")
    )
    # Of what was cut off, by a fault or with its process, nobody has seen the rest.
    return ours and headers.get("content-length", "0") == str(len(record.body))


def _storage_problems(request: httpx.Request, keys: set[str]) -> Iterator[str]:
    sent = [*request.headers.values(), _plain(request.url), request.read().decode("latin-1")]
    if _key_header() in request.headers or _hold_any(sent, keys):
        yield "storage: the key went there"
    for name in {"authorization", "cookie"} & set(request.headers):
        yield f"storage: {name} went there"
    if request.method != "GET" or request.read():
        yield f"storage: {request.method} with {len(request.read())} bytes, where a plain GET is due"


def _hold_any(texts: Iterable[str], keys: Iterable[str]) -> bool:
    # A test's key may be a word; what is shorter than a real one may be anywhere by chance.
    return any(key in text for key in keys if len(key) >= 8 for text in texts)


def _texts(error: Exception) -> list[str]:
    """Say what openapi-core found, without the value that it found it in."""
    found = getattr(error.__cause__, "schema_errors", None) or ()
    return [f"{'.'.join(map(str, e.absolute_path)) or 'it'}: {e.message}" for e in found] or [
        f"{error}" + (f" ({error.__cause__})" if error.__cause__ else "")
    ]


@cache
def _key_header() -> str:
    (scheme,) = DOCUMENT["components"]["securitySchemes"].values()
    return scheme["name"].lower()


def _member(body: bytes | None, name: str) -> object:
    try:
        return json.loads(body or b"null").get(name)
    except (ValueError, RecursionError, AttributeError):
        return None


def _plain(url: httpx.URL) -> str:
    # The wrapper's signed URLs keep their query to themselves.
    return httpx.URL.__str__(url)


def _wire(url: httpx.URL) -> tuple[str, str, int | None, str]:
    return url.scheme, url.host, url.port, url.raw_path.decode("ascii")


def _is_ours() -> bool:
    """Tell whether the wrapper has called httpx: whoever else has, lies in `NOT_OURS`."""
    frame = sys._getframe(3)
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in {
        "httpx",
        "contextlib",
    }:
        frame = frame.f_back
    return frame is None or not frame.f_code.co_filename.startswith(NOT_OURS)


def by_hand(command: _flow.Send) -> None:
    """Judge the request that a driver would have made of a command."""
    arguments = {name: value for name, value in command.call.arguments.items() if name != "client"}
    for guard in _watching:
        guard.sent(Facade(command).build(**command.call.endpoint._get_kwargs(**arguments)).for_httpx())


class _Tee(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The body of an answer, which is judged when the wrapper has read it to its end, or given up."""

    def __init__(self, guard: ContractGuard, message: Message, response: httpx.Response) -> None:
        self._judge = guard.answered, message, response
        self._stream: Any = response.stream
        self._chunks: list[bytes] = []

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            self._chunks.append(chunk)
            yield chunk
        self._end(b"".join(self._chunks))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            self._chunks.append(chunk)
            yield chunk
        self._end(b"".join(self._chunks))

    def close(self) -> None:
        self._end(None)
        self._stream.close()

    async def aclose(self) -> None:
        self._end(None)
        await self._stream.aclose()

    def _end(self, body: bytes | None) -> None:
        if self._judge:
            judge, message, response = self._judge
            self._judge = ()
            judge(message, response, body)


@contextmanager
def watching(guard: ContractGuard) -> Iterator[ContractGuard]:
    """Let a guard see all that passes, over our own connections or through httpx."""
    with _watching_httpx(guard), _watching_connections(guard), _watching_servers(guard):
        _watching.append(guard)
        try:
            yield guard
        finally:
            _watching.pop()


@contextmanager
def _watching_httpx(guard: ContractGuard) -> Iterator[None]:
    """What goes to the API by way of a client of the user's."""
    send, asend = httpx.Client._send_single_request, httpx.AsyncClient._send_single_request

    def before(request: httpx.Request) -> Message | None:
        if _is_ours():
            return guard.sent(request)
        guard.foreign(request)
        return None

    def after(message: Message | None, response: httpx.Response) -> httpx.Response:
        if message and response.is_stream_consumed:
            guard.answered(message, response, response.content)
        elif message:
            response.stream = _Tee(guard, message, response)
        return response

    def sync_send(client: httpx.Client, request: httpx.Request) -> httpx.Response:
        message = before(request)
        return after(message, send(client, request))

    async def async_send(client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
        message = before(request)
        return after(message, await asend(client, request))

    with (
        patch.object(httpx.Client, "_send_single_request", sync_send),
        patch.object(httpx.AsyncClient, "_send_single_request", async_send),
    ):
        yield


@contextmanager
def _watching_connections(guard: ContractGuard) -> Iterator[None]:
    """What goes to the API, and to storage, over connections of our own."""
    over, aover = SyncHttp._exchange_over, AsyncHttp._exchange_over
    open_, aopen = SyncHttp.open, AsyncHttp.open

    def sync_open(http: SyncHttp, request: httpx.Request, deadline: float) -> Any:
        guard.sent(request)
        lent = open_(http, request, deadline)
        guard.redirected(request, lent.response)
        return lent

    async def async_open(http: AsyncHttp, request: httpx.Request, deadline: float) -> Any:
        guard.sent(request)
        lent = await aopen(http, request, deadline)
        guard.redirected(request, lent.response)
        return lent

    @contextmanager
    def exchange(pool: Any, request: Request, received: ReceivedResponse) -> Iterator[None]:
        message, whole = guard.asked(pool.request(request)), False
        try:
            yield
            whole = True
        finally:
            if received.status_code:
                response = httpx.Response(received.status_code, headers=received.headers)
                guard.answered(message, response, received.content() if whole else None)

    def sync_over(
        http: SyncHttp, connection: Any, pool: Any, request: Request, received: ReceivedResponse
    ) -> None:
        with exchange(pool, request, received):
            over(http, connection, pool, request, received)

    async def async_over(
        http: AsyncHttp, connection: Any, pool: Any, request: Request, received: ReceivedResponse
    ) -> None:
        with exchange(pool, request, received):
            await aover(http, connection, pool, request, received)

    with (
        patch.object(SyncHttp, "_exchange_over", sync_over),
        patch.object(AsyncHttp, "_exchange_over", async_over),
        patch.object(SyncHttp, "open", sync_open),
        patch.object(AsyncHttp, "open", async_open),
    ):
        yield


@contextmanager
def _watching_servers(guard: ContractGuard) -> Iterator[None]:
    """What reaches mock servers, whoever has started them, and from whatever process."""
    try:
        from techforge.mock import MockServer  # noqa: PLC0415 - as in conftest.py
        from techforge.mock.journal import Journal  # noqa: PLC0415
    except ImportError:
        yield
        return
    serving, clear = MockServer.serving, Journal.clear

    def serve(server: MockServer) -> AbstractAsyncContextManager[MockServer]:
        guard.serves(server.journal)
        return serving(server)

    def forget(journal: Journal) -> None:
        guard.forgets(journal)
        clear(journal)

    with patch.object(MockServer, "serving", serve), patch.object(Journal, "clear", forget):
        yield
