"""Mutants by hand: deviations from HTTP, JSON and the promises of the contract that no schema states.

`variations` has the opposite: servers that differ from the mock in what the contract leaves open. They must
pass.
"""

import json
import re
import time
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode

import h11
import uvicorn.protocols.http.h11_impl as uvicorn_h11
from attrs import evolve
from mutant_server import JSON, Answer, Json, Mutant, Request, is_json, is_utf8, where

import techforge.mock
from techforge.mock.app import Api
from techforge.mock.signing import SignatureRefusedError, Signer
from techforge.mock.store import Store

KEY = techforge.mock.TEST_API_KEY
METHODS = ("GET", "PUT", "POST", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE")
HTML = b"<!doctype html><html><body><h1>Bad Request</h1></body></html>"

When = Callable[[Request], object]
Change = Callable[[Answer], Answer]


def deviations(operation: Any) -> Iterator[Mutant]:
    """Return the mutants that each operation has."""
    groups: dict[str, Callable[[Any], Iterator[Mutant]]] = {
        "content negotiation": _negotiation,
        "JSON of responses": _json_answers,
        "JSON of requests": _json_requests,
        "request headers": _request_headers,
        "spellings of a path": _paths,
        "redirects": _redirects,
    }
    for family, group in groups.items():
        for mutant in group(operation):
            yield evolve(mutant, name=f"{operation.id}: {mutant.name}", family=family)


def _refuse(operation: Any, what: str, when: When, status: int = 400) -> Mutant:
    """Refuse some valid requests."""
    return Mutant(
        what,
        say=lambda request, answer: (
            answer.with_json({"message": "refused"}).with_status(status)
            if operation.serves(request) and answer.status < 300 and when(request)
            else answer
        ),
    )


def _change(
    operation: Any, what: str, when: When, change: Change, statuses: range = range(200, 300)
) -> Mutant:
    """Change the answers to some requests."""
    return Mutant(
        what,
        say=lambda request, answer: (
            change(answer)
            if operation.serves(request) and answer.status in statuses and when(request)
            else answer
        ),
    )


def _always(_request: Request) -> bool:
    return True


def _header(name: str, pattern: str = "") -> When:
    return lambda request: re.search(pattern, request.headers.get(name, "\0"))


def _has(name: str) -> When:
    return lambda request: name in request.headers


def _as(media_type: str, body: bytes = HTML) -> Change:
    return lambda answer: evolve(answer, body=body).with_header("content-type", media_type)


def _gzipped(answer: Answer) -> Answer:
    packer = zlib.compressobj(wbits=31)
    packed = packer.compress(answer.body) + packer.flush()
    return evolve(answer, body=packed).with_header("content-encoding", "gzip")


def _negotiation(operation: Any) -> Iterator[Mutant]:
    refuse, change = partial(_refuse, operation), partial(_change, operation)
    accept = "accept"
    yield refuse("Accept: text/html brings 406", _header(accept, "^text/html$"), 406)
    yield refuse("a list in Accept brings 406", _header(accept, ","), 406)
    yield refuse("Accept with a quality brings 406", _header(accept, "q="), 406)
    yield refuse("Accept: application/* brings 406", _header(accept, r"application/\*"), 406)
    yield refuse("no Accept brings 406", lambda request: accept not in request.headers, 406)
    yield refuse("Accept-Language brings 406", _has("accept-language"), 406)
    yield refuse("Accept-Charset brings 406", _has("accept-charset"), 406)
    yield change("Accept: text/html brings HTML", _header(accept, "text/html"), _as("text/html"))
    yield change(
        "Accept: application/xml brings XML", _header(accept, "xml"), _as("application/xml", b"<a/>")
    )
    yield change("gzip although it is not accepted", _header("accept-encoding", "identity"), _gzipped)
    for status in (206, 304, 406):
        yield change(f"{status} that nobody asked for", _always, lambda a, s=status: a.with_status(s))
    yield refuse("Expect: 100-continue brings 417", _has("expect"), 417)
    yield refuse("Upgrade brings 426", _has("upgrade"), 426)
    if operation.method == "GET":
        yield change(
            "Range brings 206",
            _has("range"),
            lambda a: evolve(a, body=a.body[:1]).with_status(206).with_header("content-range", "bytes 0-0/9"),
        )
        yield change("If-None-Match brings 304", _has("if-none-match"), lambda a: a.with_status(304))
        yield change("If-Modified-Since brings 304", _has("if-modified-since"), lambda a: a.with_status(304))
    if operation.body_nodes:
        quoted = _header("content-type", '"')
        yield refuse("a quoted charset is refused", quoted)
        yield refuse("Content-Type without a blank after ; is refused", _header("content-type", ";[^ ]"))
        bad_json = lambda request: not is_json(request.body)  # noqa: E731
        wrong_type = _header("content-type", "text/|form")
        for what, when in {"malformed JSON": bad_json, "another media type": wrong_type}.items():
            for how, answer in {
                "HTML": _as("text/html"),
                "text": _as("text/plain", b"Bad Request"),
                "JSON that is no object": _as(JSON, b'"Bad Request"'),
                "nothing": lambda a: evolve(a, body=b""),
            }.items():
                yield change(f"{what} brings a 400 with {how}", when, answer, range(400, 401))
    in_query = lambda request: KEY in request.query  # noqa: E731
    yield change("a key in the query brings a 401 with HTML", in_query, _as("text/html"), range(401, 402))


def _latin_1(body: Json) -> bytes:
    return json.dumps(body | {"note": "ï"}, ensure_ascii=False).encode("latin-1")


def _json_answers(operation: Any) -> Iterator[Mutant]:
    changes: dict[str, Callable[[Json], bytes]] = {
        "an undeclared name twice": lambda body: json.dumps(body)[:-1].encode() + b', "note": 1, "note": 2}',
        "a declared name twice": lambda body: (
            b'{"%s": 7, ' % next(iter(body)).encode() + json.dumps(body)[1:].encode()
        ),
        "NaN in an undeclared field": lambda body: json.dumps(body)[:-1].encode() + b', "note": NaN}',
        "Infinity in an undeclared field": lambda body: json.dumps(body | {"note": [float("inf")]}).encode(),
        "UTF-16": lambda body: json.dumps(body).encode("utf-16"),
        "UTF-16 without a byte order mark": lambda body: json.dumps(body).encode("utf-16-le"),
        "UTF-32": lambda body: json.dumps(body).encode("utf-32-le"),
        "Latin-1": _latin_1,
        "a byte order mark": lambda body: b"\xef\xbb\xbf" + json.dumps(body).encode(),
        "a text with a raw line break": lambda body: json.dumps(body)[:-1].encode() + b', "note": "a\nb"}',
        "a prefix against inclusion": lambda body: b")]}',\n" + json.dumps(body).encode(),
        "a second value behind it": lambda body: json.dumps(body).encode() * 2,
        "a comment": lambda body: b"/* */" + json.dumps(body).encode(),
        "a comma at its end": lambda body: json.dumps(body)[:-1].encode() + b",}",
        "itself as a text": lambda body: json.dumps(json.dumps(body)).encode(),
        "an array around it": lambda body: json.dumps([body]).encode(),
    }
    for kind, statuses in (("success", range(200, 300)), ("error", range(400, 600))):
        for what, change in changes.items():
            yield _change(
                operation,
                f"the JSON of a {kind} has {what}",
                _always,
                lambda answer, change=change: evolve(answer, body=change(answer.json)),
                statuses,
            )
        for name in ("content-type", "retry-after") if kind == "error" else ("content-type",):
            yield _change(
                operation,
                f"a {kind} has {name} twice",
                _always,
                lambda a, n=name: evolve(a, more=((n, a.headers[n]),)) if n in a.headers else a,
                statuses,
            )
    yield _change(
        operation,
        "401 has no challenge",
        _always,
        lambda answer: answer.without_header("www-authenticate"),
        range(401, 402),
    )
    yield _change(
        operation,
        "the challenge of 401 is no challenge",
        _always,
        lambda answer: answer.with_header("www-authenticate", "="),
        range(401, 402),
    )


def _json_requests(operation: Any) -> Iterator[Mutant]:
    if not operation.body_nodes:
        return
    refuse = partial(_refuse, operation)
    valid = operation.example

    def accept(what: str, accepts: When) -> Mutant:
        return Mutant(
            what,
            ask=lambda request: (
                evolve(request.with_header("content-type", JSON), body=valid)
                if operation.serves(request) and accepts(request)
                else request
            ),
        )

    def bad(pattern: bytes) -> When:
        return lambda request: re.search(pattern, request.body) and not is_json(request.body)

    def in_declared(pattern: str) -> When:
        fields = "|".join(node.path[-1] for node in operation.body_nodes if len(node.path) == 1)
        return bad(rf'"({fields})": {pattern}'.encode())

    def depth(body: bytes) -> int:
        return max(
            (body[:at].count(b"[") - body[:at].count(b"]") for at in range(0, len(body), 7)), default=0
        )

    yield accept("NaN is a number in a declared field", in_declared("NaN"))
    yield accept("a raw line break is in a text", bad(rb'"[^"]*\n[^"]*"'))
    yield accept("a raw tab is in a text", bad(rb'"[^"]*\t[^"]*"'))
    yield accept("\\x41 is an escape", bad(rb"\\x"))
    yield accept("numbers may have a plus", bad(rb": \+"))
    yield accept("numbers may be hexadecimal", bad(rb": 0x"))
    yield accept("numbers may begin with a point", bad(rb": \."))
    yield accept("numbers may end with a point", bad(rb"[0-9]\.[,}]"))
    yield accept("names need no quotes", bad(rb"[{,] ?\w+:"))
    yield accept("True and None are values", bad(rb"True|None"))
    yield accept("JSON may be UTF-16 without a byte order mark", lambda r: r.body.startswith(b"{\0"))
    yield accept("JSON may be big-endian UTF-16", lambda r: r.body.startswith(b"\0{"))
    yield accept("JSON may be UTF-32", lambda r: b"\0\0\0" in r.body)
    yield accept(
        "broken UTF-8 is replaced",
        lambda r: not is_utf8(r.body) and is_json(r.body.decode(errors="replace").encode()),
    )
    yield accept(
        "Latin-1 may be in a declared field",
        lambda r: re.search(rb'"language": "[^"]*[\x80-\xff]', r.body) and not is_utf8(r.body),
    )
    yield accept("surrogates are taken as UTF-8", lambda r: b"\xed\xa0" in r.body)
    yield accept("an array of one body will do", lambda r: is_json(r.body) and _is_list(r.body))
    yield accept("names may be in camel case", lambda r: re.search(rb'"(imageUrl|projectId)"', r.body))
    yield accept("names may be in capitals", lambda r: re.search(rb'"(IMAGE_URL|PROJECT_ID)"', r.body))
    yield refuse("raw UTF-8 is refused", lambda r: any(byte > 127 for byte in r.body))
    yield refuse("raw characters beyond the BMP are refused", lambda r: re.search(rb"[\xf0-\xf4]", r.body))
    yield refuse("raw UTF-8 in a name is refused", lambda r: re.search(rb'"[^"]*[\x80-\xff][^"]*":', r.body))
    yield refuse("raw UTF-8 brings 500", lambda r: any(byte > 127 for byte in r.body), 500)
    yield refuse("an escaped slash is refused", lambda r: rb"\/" in r.body)
    yield refuse("an escaped letter is refused", lambda r: re.search(rb"\\u00[46]", r.body))
    yield refuse("a NUL in a text is refused", lambda r: rb"\u0000" in r.body)
    yield refuse("a number with an exponent is refused", lambda r: re.search(rb": ?-?[0-9.]+[eE]", r.body))
    for size in (10_000, 100_000, 500_000):
        yield refuse(f"more than {size} bytes are refused", lambda r, size=size: len(r.body) > size, 413)
    for levels in (10, 32):
        yield refuse(
            f"more than {levels} levels are refused",
            lambda r, levels=levels: len(r.body) < 3000 and depth(r.body) > levels,
        )
    yield refuse("more than 50 fields are refused", lambda r: _count(r.body) > 50)
    for name in ("__proto__", "id", "$ref", "status"):
        yield refuse(
            f"an unknown field {name!r} is refused", lambda r, name=name: f'"{name}":'.encode() in r.body
        )
    yield refuse("an empty name is refused", lambda r: b'"":' in r.body)
    yield refuse("the order of the fields matters", lambda r: _first(r.body) not in {"image_url", None})
    yield refuse("JSON without blanks is refused", lambda r: b'":"' in r.body)


def _is_list(body: bytes) -> bool:
    value = json.loads(body)
    return isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict)


def _count(body: bytes) -> int:
    value = json.loads(body)
    return len(value) if isinstance(value, dict) else 0


def _first(body: bytes) -> str | None:
    value = json.loads(body)
    return next(iter(value), None) if isinstance(value, dict) else None


_next_event = h11.Connection.next_event


def _with_names(connection: h11.Connection) -> Any:
    """Add a header with the names of the headers, as they were sent."""
    event = _next_event(connection)
    if not isinstance(event, h11.Request):
        return event
    sent = event.headers.raw_items()
    names = b",".join(name for name, _ in sent)
    return h11.Request(
        method=event.method,
        target=event.target,
        headers=[*sent, (b"x-names", names)],
        http_version=event.http_version,
    )


def _request_headers(operation: Any) -> Iterator[Mutant]:
    refuse = partial(_refuse, operation)
    header = next(iter(operation.keys))["name"].lower()

    def case(what: str, name: str, spelt: Callable[[str], object], status: int) -> Mutant:
        def when(request: Request) -> bool:
            names = request.headers.get("x-names", "").split(",")
            return any(each.lower() == name and spelt(each) for each in names)

        return evolve(refuse(what, when, status), wire=((h11.Connection, "next_event", _with_names),))

    yield case("the key's header in capitals is not found", header, str.isupper, 401)
    yield case("the key's header in title case is not found", header, lambda name: name == name.title(), 401)
    if operation.body_nodes:
        yield case("Content-Type in lower case is not found", "content-type", str.islower, 400)
        yield case("Content-Type in capitals is not found", "content-type", str.isupper, 400)

    def accept(what: str, accepts: When) -> Mutant:
        return Mutant(
            what,
            ask=lambda request: (
                evolve(request.with_header(header, KEY), lines=())
                if operation.serves(request) and accepts(request)
                else request
            ),
        )

    def twice(request: Request) -> list[str]:
        values = request.values(header)
        return values if len(values) > 1 else ["", ""]

    yield accept(
        "the first of two lines with a key counts", lambda r: twice(r)[0] == KEY and twice(r)[1] != KEY
    )
    yield accept(
        "the last of two lines with a key counts", lambda r: twice(r)[-1] == KEY and twice(r)[0] != KEY
    )
    yield accept("the key may be there twice", lambda r: set(twice(r)) == {KEY})
    yield accept("the key may have quotes", lambda r: r.headers.get(header) == f'"{KEY}"')
    yield accept("the key may have a scheme", lambda r: r.headers.get(header) == f"Bearer {KEY}")
    yield accept(
        "the key may be encoded",
        lambda r: "%" in r.headers.get(header, "") and unquote(r.headers[header]) == KEY,
    )
    yield accept("the key may be a part of the value", lambda r: KEY in r.headers.get(header, ""))
    if operation.body_nodes:
        yield accept(
            "the key may be in the body", lambda r: KEY.encode() in r.body and header not in r.headers
        )
    yield accept("the key may be in x_api_key", lambda r: r.headers.get(header.replace("-", "_")) == KEY)
    yield accept(
        "the key may be Basic's password",
        lambda r: r.headers.get("authorization", "").startswith("Basic ") and header not in r.headers,
    )
    yield accept("a key in Referer will do", lambda r: KEY in r.headers.get("referer", ""))
    yield accept(
        "requests from this host need no key", lambda r: "127.0.0.1" in r.headers.get("x-forwarded-for", "")
    )
    for name in ("authorization", "cookie", "origin", "referer", "x-forwarded-for", "user-agent"):
        there = (lambda r: "user-agent" not in r.headers) if name == "user-agent" else _has(name)
        yield refuse(f"{'no ' if name == 'user-agent' else ''}{name} is refused", there, 403)
    yield refuse("unknown query parameters are refused", lambda r: set(parse_qs(r.query)) - {"path"})

    def override(name: str) -> Mutant:
        return Mutant(
            f"{name} changes the method",
            ask=lambda request: (
                evolve(request, method=request.headers[name].upper())
                if operation.at(request.path) and name in request.headers
                else request
            ),
        )

    for name in ("x-http-method-override", "x-http-method", "x-method-override"):
        yield override(name)
    yield Mutant(
        "_method changes the method",
        ask=lambda request: (
            evolve(request, method=parse_qs(request.query)["_method"][0].upper())
            if operation.at(request.path) and "_method" in parse_qs(request.query)
            else request
        ),
    )
    yield Mutant(
        "the method may be in lower case",
        ask=lambda request: (
            evolve(request, method=request.method.upper()) if operation.at(request.path) else request
        ),
    )
    yield Mutant(
        "an unknown method is served",
        ask=lambda request: (
            evolve(request, method=operation.method)
            if operation.at(request.path) and request.method not in METHODS
            else request
        ),
    )


def _spellings(path: str) -> dict[str, set[str]]:
    """Return other spellings of a path that careless servers take for it."""
    parent, _, last = path.rpartition("/")
    return {
        "an encoded slash": {f"{parent}%2F{last}", f"{parent}%2f{last}"},
        "dot segments": {f"{parent}/./{last}", f"{parent}/x/../{last}", f"/x/..{path}", f"/.{path}"},
        "encoded dots": {f"{parent}/%2E/{last}"},
        "path parameters": {f"{path};a=b"},
        "a blank at its end": {f"{path}%20"},
        "a NUL at its end": {f"{path}%00"},
        "a line break at its end": {f"{path}%0A"},
        "two slashes inside": {f"{parent}//{last}"},
        "a backslash": {f"{parent}%5C{last}"},
        "a prefix": {f"/api{path}", f"/v1{path}"},
        "more behind it": {f"{path}x", f"{path}2"},
        "one letter in capitals": {f"{path[0]}{path[1:].capitalize()}"},
        "another extension": {f"{path}.xml", f"{path}.html"},
        "encoded twice": {f"{parent}/%25{ord(last[0]):02X}{last[1:]}"},
        "_ for -": {path.replace("-", "_")} - {path},
    }


def _paths(operation: Any) -> Iterator[Mutant]:
    for what, spelt in _spellings(operation.example_path).items():
        # Another operation may have such a path: `/jobs/v2;a=b` is one of `/jobs/{id}`.
        if not all(operation.served.methods(path) for path in spelt):
            yield Mutant(f"a path with {what} is served", ask=_served(operation, what))
    yield _refuse(
        operation, "an encoded letter in the path is not understood", lambda r: "%" in r.raw_path, 404
    )


def _served(operation: Any, spelling: str) -> Callable[[Request], Request]:
    """Take a path for the one that the operation has served before, if it is a spelling of it."""
    real = operation.example_path

    def ask(request: Request) -> Request:
        nonlocal real
        raw = request.raw_path
        if operation.serves(request):
            real = raw
        elif not operation.served.methods(raw) and raw in _spellings(real)[spelling]:
            return evolve(request, path=unquote(real), raw_path=real)
        return request

    return ask


def _redirects(operation: Any) -> Iterator[Mutant]:
    def hop(request: Request, answer: Answer, status: int) -> Answer:
        if not operation.serves(request) or answer.status >= 300 or "hop" in parse_qs(request.query):
            return answer
        target = f"{request.raw_path}?{request.with_query(hop='1').query}"
        return evolve(answer.with_header("location", target), status=status, body=b"").with_header(
            "content-length", "0"
        )

    for status in (301, 302, 303, 307, 308):
        yield Mutant(f"a {status} leads to the answer", say=partial(hop, status=status))
    yield Mutant(
        "a slash at the end is redirected",
        say=lambda request, answer: (
            answer.with_status(307).with_header("location", request.path[:-1])
            if request.path.endswith("/") and operation.at(request.path[:-1])
            else answer
        ),
    )


def behaviours() -> Iterator[Mutant]:
    """Return the mutants that do not keep what the operations promise together."""
    for mutant in (*_new_statuses(), *_lost_jobs(), *_replaced_jobs(), *_repeated_ids(), *_refused_jobs()):
        yield evolve(mutant, name=f"createJob: {mutant.name}", family="jobs")
    for mutant in (*_lookups(), *_parameter_names()):
        yield evolve(mutant, name=f"generateSignedPath: {mutant.name}", family="lookups")
    for mutant in (*_expiries(), *_other_urls(), *_revoked_urls(), *_ranges(), *_signatures()):
        yield evolve(mutant, family="signed URLs")


def _is_create(request: Request) -> bool:
    return (request.method, request.path) == ("POST", "/jobs/v2")


def _is_sign(request: Request) -> bool:
    return (request.method, request.path) == ("GET", "/storage/generate-signed-path")


_accept, _find_object, _sign = Store.accept, Store.find_object, Api._sign


def _new_statuses() -> Iterator[Mutant]:
    for status in ("processing", "done", "failed"):
        yield Mutant(
            f"a new job is {status}",
            say=where(
                lambda request, answer: _is_create(request) and answer.status == 202,
                lambda answer, status=status: answer.with_json(answer.json | {"status": status}),
            ),
        )
    number = iter(range(1, 10**9))
    yield Mutant(
        "every third new job has failed",
        say=where(
            lambda request, answer: _is_create(request) and answer.status == 202,
            lambda answer: (
                answer if next(number) % 3 else answer.with_json(answer.json | {"status": "failed"})
            ),
        ),
    )


def _lost_jobs() -> Iterator[Mutant]:
    def lost(what: str, when: Callable[[Json], object]) -> Mutant:
        ids: set[str] = set()

        def say(request: Request, answer: Answer) -> Answer:
            if _is_create(request) and answer.status == 202 and when(json.loads(request.body)):
                ids.add(answer.json["jobId"])
            if _is_sign(request) and answer.status == 200 and any(each in request.query for each in ids):
                return answer.with_json({"message": "not found"}).with_status(404)
            return answer

        return Mutant(f"a job {what} is lost", say=say)

    for name in ("crop", "is_clone_required"):
        for value in (True, False):
            yield lost(f"with {name} {str(value).lower()}", lambda b, n=name, v=value: b.get(n) is v)
    for version in (4, 5, 6):
        yield lost(f"with version {version}", lambda b, v=version: b.get("version") == v)
    yield lost("with no more than the required fields", lambda b: len(b) == 4)
    for name in ("language", "values", "output_size", "version", "crop"):
        yield lost(f"without {name}", lambda b, n=name: n not in b)
    yield lost("with an unknown field", lambda b: "x_unknown" in b)
    yield lost("with another project than the example's", lambda b: "468ea7a0-66e1" not in b["project_id"])
    yield lost("with a project in capitals", lambda b: b["project_id"] != b["project_id"].lower())


def _refused_jobs() -> Iterator[Mutant]:
    def answered(what: str, when: Callable[[Json], object], status: int) -> Mutant:
        def say(request: Request, answer: Answer) -> Answer:
            if _is_create(request) and answer.status == 202 and when(json.loads(request.body)):
                return answer.with_json({"message": "refused"}).with_status(status)
            return answer

        return Mutant(what, say=say)

    def image(pattern: str) -> Callable[[Json], object]:
        return lambda body: re.search(pattern, body["image_url"])

    for what, pattern in {
        "on this host": r"//(127\.|localhost|\[::1\])",
        "with a port": r"//[^/]+:[0-9]+",
        "with a user": "//[^/]+@",
        "with an IPv6 address": r"//\[",
        "without a path": "^https?://[^/]+$",
        "of the scheme data": "^data:",
        "of more than 2000 characters": ".{2000}",
    }.items():
        yield answered(f"a URL {what} is refused", image(pattern), 400)
    yield answered("the same URL twice is refused", lambda b: b["image_url"] == b["audio_url"], 400)
    yield answered("more than 500 values are refused", lambda b: len(b.get("values", ())) > 500, 400)
    yield answered("an integer of 20 digits brings 500", lambda b: b.get("output_size", 0) > 10**19, 500)
    yield answered("a number above 1e100 brings 500", lambda b: b.get("dynamic_scale", 0) > 1e100, 500)
    yield answered(
        "version 4 with a clone is refused",
        lambda b: (b.get("version"), b.get("is_clone_required")) == (4, True),
        400,
    )
    yield answered(
        "no crop and no clone is refused",
        lambda b: (b.get("crop"), b.get("is_clone_required")) == (False, False),
        400,
    )

    def taken(what: str, pattern: bytes) -> Mutant:
        def ask(request: Request) -> Request:
            if not _is_create(request) or not re.search(pattern, request.body) or not is_json(request.body):
                return request
            body = json.loads(request.body)
            return evolve(request, body=json.dumps(body | {"image_url": "https://example.com/"}).encode())

        return Mutant(what, ask=ask)

    yield taken(
        "a URL with letters that are not ASCII is taken", rb'"image_url": "https://[^"]*(\\u|[\x80-\xff])'
    )
    yield taken("a URL with half an escape is taken", rb'"image_url": "https://[^"]*%[^0-9A-Fa-f]')
    yield taken("a URL with < and > is taken", rb'"image_url": "https://[^"]*[<>]')
    yield Mutant(
        "a key of more than 2000 characters brings 414",
        say=lambda request, answer: (
            answer.with_json({}).with_status(414)
            if _is_sign(request) and len(request.query) > 2000
            else answer
        ),
    )


def _replaced_jobs() -> Iterator[Mutant]:
    def forget_others(*, first: bool) -> Callable[[Store, Any], str]:
        def accept(store: Store, body: Any) -> str:
            job_id = _accept(store, body)
            mine = [key for key, job in store._owners.items() if job.project_id == body["project_id"]]
            for key in mine[1:] if first else mine[:-1]:
                store._owners.pop(key)
                store._objects.pop(key, None)
            return job_id

        return accept

    yield Mutant(
        "the next job of a project replaces the first",
        patches=((Store, "accept", forget_others(first=False)),),
    )
    yield Mutant(
        "only the first job of a project gets a video",
        patches=((Store, "accept", forget_others(first=True)),),
    )


def _repeated_ids() -> Iterator[Mutant]:
    last: dict[str, Any] = {}

    def same_in_time(seconds: float) -> Mutant:
        def say(request: Request, answer: Answer) -> Answer:
            if not _is_create(request) or answer.status != 202:
                return answer
            if time.monotonic() - last.get("time", -1) > seconds:
                last.update(time=time.monotonic(), id=answer.json["jobId"])
            return answer.with_json(answer.json | {"jobId": last["id"]})

        return Mutant(f"jobs within {seconds:g} s have the same id", say=say)

    yield same_in_time(0.001)
    yield same_in_time(0.003)
    by_project: dict[str, str] = {}
    yield Mutant(
        "a repeated body brings the same id",
        say=lambda request, answer: (
            answer.with_json(
                answer.json | {"jobId": by_project.setdefault(request.body.decode(), answer.json["jobId"])}
            )
            if _is_create(request) and answer.status == 202
            else answer
        ),
    )


def _lookups() -> Iterator[Mutant]:
    def near(what: str, clean: Callable[[str], object]) -> Mutant:
        def find_object(store: Store, path: str) -> Any:
            found = _find_object(store, path)
            if found is not None:
                return found
            other = clean(path)
            keys = [key for key in store._owners if (other(key) if callable(other) else key == other)]
            return _find_object(store, keys[0]) if keys else None

        return Mutant(f"finds a key {what}", patches=((Store, "find_object", find_object),))

    def matches(test: Callable[[str, str], object]) -> Callable[[str], object]:
        return lambda path: lambda key: test(path, key)

    yield near("with a NUL behind it", lambda path: path.partition("\0")[0] if "\0" in path else None)
    yield near("with a blank before it", str.lstrip)
    yield near("with a blank behind it", str.rstrip)
    yield near("with a line break behind it", lambda path: path.rstrip("\r\n"))
    yield near("with ./ in it", lambda path: path.replace("./", "", 1) if ".." not in path else None)
    yield near("with .. in it", lambda path: re.sub(r"[^/]+/\.\./", "", path, count=1))
    yield near("with two slashes in it", lambda path: re.sub("//+", "/", path))
    yield near("with a slash behind it", lambda path: path.removesuffix("/"))
    yield near("with backslashes", lambda path: path.replace("\\", "/"))
    yield near("that is encoded twice", unquote)
    yield near("with + for a blank", lambda path: path.replace("+", " ").strip())
    yield near(
        "with a wildcard",
        matches(lambda p, k: "*" in p and re.fullmatch(".*".join(map(re.escape, p.split("*"))), k)),
    )
    yield near(
        "with SQL's wildcard",
        matches(lambda p, k: "%" in p and re.fullmatch(".*".join(map(re.escape, p.split("%"))), k)),
    )
    yield near(
        "with ? for a letter",
        matches(lambda p, k: "?" in p and re.fullmatch(".".join(map(re.escape, p.split("?"))), k)),
    )
    yield near("in a full URL", matches(lambda p, k: p.startswith("http") and p.endswith("/" + k)))
    yield near("in an s3 URL", matches(lambda p, k: p.startswith("s3://") and p.endswith("/" + k)))
    yield near(
        "below any other folder",
        matches(lambda p, k: p.endswith("/" + k) and "://" not in p and len(p) > len(k) + 1),
    )
    yield near(
        "with another extension",
        matches(lambda p, k: p.rpartition(".")[0] == k.rpartition(".")[0] and "/" in p),
    )
    yield near("without its extension", matches(lambda p, k: p == k.rpartition(".")[0]))
    yield near("with an extension in capitals", matches(lambda p, k: p == k[:-3] + "MP4"))
    yield near("by its file name", matches(lambda p, k: p and p == k.rpartition("/")[2]))
    yield near("by its job", matches(lambda p, k: p and p == k.rpartition("/")[2].removesuffix(".mp4")))
    yield near("without its first folder", matches(lambda p, k: p and p == k.partition("/")[2]))
    yield near(
        "in another project",
        matches(
            lambda p, k: (
                "/outputs/" in p
                and p.rpartition("/")[2] == k.rpartition("/")[2]
                and p.startswith("ai-talking-videos/")
            )
        ),
    )
    yield near(
        "in another folder",
        matches(lambda p, k: p.rpartition("/")[2] == k.rpartition("/")[2] and p.count("/") == 3),
    )
    yield near("with a query behind it", lambda path: path.partition("?")[0])
    yield near("with a fragment behind it", lambda path: path.partition("#")[0])
    yield near(
        "with an id in capitals",
        matches(lambda p, k: p.lower() == k and p.startswith("ai-") and p.endswith(".mp4")),
    )
    yield near(
        "with an id without hyphens",
        matches(lambda p, k: p.replace("-", "") == k.replace("-", "") and p.startswith("ai-")),
    )
    yield near("in quotes", lambda path: path.strip("\"'"))


def _parameter_names() -> Iterator[Mutant]:
    def renamed(other: str) -> Mutant:
        return Mutant(
            f"the parameter may be {other}",
            ask=lambda request: (
                evolve(request, query=request.query.replace(f"{other}=", "path=", 1))
                if _is_sign(request)
                and quote(other) in request.query
                and "path=" not in f"&{request.query}".replace(f"&{other}=", "")
                else request
            ),
        )

    for other in ("Path", "PATH", "key", "file"):
        yield renamed(other)

    def pick(index: int) -> Callable[[Request], Request]:
        def ask(request: Request) -> Request:
            values = parse_qs(request.query, keep_blank_values=True).get("path", [])
            several = _is_sign(request) and len(set(values)) > 1
            return evolve(request, query=urlencode({"path": values[index]})) if several else request

        return ask

    yield Mutant("the first of two different keys counts", ask=pick(0))
    yield Mutant("the last of two different keys counts", ask=pick(-1))


def _sign_with(what: str, change: Callable[[Request, Json], Json]) -> Mutant:
    return Mutant(
        f"generateSignedPath: {what}",
        say=lambda request, answer: (
            answer.with_json(change(request, answer.json))
            if _is_sign(request) and answer.status == 200
            else answer
        ),
    )


def _expiries() -> Iterator[Mutant]:
    def shifted(**by: float) -> Callable[[Request, Json], Json]:
        def change(_request: Request, body: Json) -> Json:
            moment = datetime.fromisoformat(body["expiresAt"]) + timedelta(**by)
            return body | {"expiresAt": moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}

        return change

    yield _sign_with("expiresAt is a minute late", shifted(minutes=1))
    yield _sign_with("expiresAt is an hour late", shifted(hours=1))
    yield _sign_with("expiresAt is three seconds late", shifted(seconds=3))
    yield _sign_with("expiresAt is two seconds early", shifted(seconds=-2))

    def expiring(change: Callable[[float], float]) -> Callable[..., None]:
        def check(signer: Signer, path: str, expires: str | None, signature: str | None) -> None:
            if not expires or not signature or signature != signer._signature(path, expires):
                raise SignatureRefusedError("The signature does not match.")
            if signer.clock() >= change(int(expires)):
                raise SignatureRefusedError("The URL has expired.")

        return check

    for what, change in {
        "a signed URL never expires": lambda _: 1e12,
        "a signed URL outlives its expiry by a minute": lambda at: at + 60,
        "a signed URL outlives its expiry by two seconds": lambda at: at + 2,
        "a signed URL dies two seconds early": lambda at: at - 2,
    }.items():
        yield Mutant(f"storage: {what}", patches=((Signer, "check", expiring(change)),))


def _other_urls() -> Iterator[Mutant]:
    seen: list[str] = []

    def first(_request: Request, body: Json) -> Json:
        seen.append(body["signedUrl"])
        return body | {"signedUrl": seen[0]}

    def previous(_request: Request, body: Json) -> Json:
        seen.append(body["signedUrl"])
        return body | {"signedUrl": seen[-2] if len(seen) > 1 else seen[0]}

    yield _sign_with("the URL is that of the first object", first)
    yield _sign_with("the URL is that of the object before", previous)
    yield _sign_with(
        "the URL has the key in it",
        lambda r, b: b | {"signedUrl": f"{b['signedUrl']}&key={r.headers['x-api-key']}"},
    )


def _revoked_urls() -> Iterator[Mutant]:
    signed: set[str] = set()

    def once(api: Api, path: str) -> tuple[int, Json]:
        status, body = _sign(api, path)
        if path in signed:
            return 404, {"message": "Already signed."}
        signed.add(path)
        return status, body

    yield Mutant("generateSignedPath: signs a key once", patches=((Api, "_sign", once),))
    newest: dict[str, str] = {}

    def remember(request: Request, answer: Answer) -> Answer:
        if _is_sign(request) and answer.status == 200:
            plain, _, query = answer.json["signedUrl"].partition("?")
            newest[plain.partition("//")[2].partition("/")[2]] = query
        return answer

    def only_newest(request: Request, answer: Answer) -> Answer:
        # Within a second, two URLs are the same.
        is_newest = newest.get(request.path.removeprefix("/")) == request.query
        return answer if is_newest or answer.status >= 300 else evolve(answer, status=403)

    yield Mutant("storage: signing again revokes the URL before", say=remember, storage=only_newest)
    used: set[str] = set()

    def single_use(request: Request, answer: Answer) -> Answer:
        if answer.status >= 300:
            return answer
        if request.query in used:
            return evolve(answer, status=403)
        used.add(request.query)
        return answer

    yield Mutant("storage: a signed URL works once", storage=single_use)


def _ranges() -> Iterator[Mutant]:
    def ranged(request: Request, answer: Answer) -> bool:
        return "range" in request.headers and answer.status == 206

    yield Mutant(
        "storage: a range begins a byte late",
        storage=where(ranged, lambda a: evolve(a, body=a.body[1:] + b"\0")),
    )
    yield Mutant(
        "storage: a range has the whole object", storage=where(ranged, lambda a: evolve(a, body=a.body * 2))
    )
    yield Mutant(
        "storage: 206 has no Content-Range",
        storage=where(ranged, lambda a: a.without_header("content-range")),
    )
    yield Mutant(
        "storage: Content-Range names other bytes",
        storage=where(ranged, lambda a: a.with_header("content-range", "bytes 5-9/999999")),
    )


def _signatures() -> Iterator[Mutant]:
    def checking(alike: Callable[[str, str], bool]) -> Callable[..., None]:
        def check(signer: Signer, path: str, expires: str | None, signature: str | None) -> None:
            if not expires or not signature or not alike(signature, signer._signature(path, expires)):
                raise SignatureRefusedError("The signature does not match.")
            if signer.clock() >= int(expires):
                raise SignatureRefusedError("The URL has expired.")

        return check

    for what, alike in {
        "the first half of a signature will do": lambda given, right: given[:32] == right[:32],
        "the last character of a signature is not compared": lambda given, right: given[:-1] == right[:-1],
        "a signature may break off": lambda given, right: right.startswith(given),
    }.items():
        yield Mutant(f"storage: {what}", patches=((Signer, "check", checking(alike)),))
    _signature = Signer._signature
    yield Mutant(
        "storage: an expiry may be brought forward",
        patches=(
            (Signer, "_signature", lambda signer, path, at: _signature(signer, path, str(int(at) // 60))),
        ),
    )
    yield Mutant(
        "storage: a range is sent although the object is not that of If-Range",
        storage=lambda request, answer: (
            evolve(answer, body=answer.body[:1])
            .with_status(206)
            .with_header("content-range", f"bytes 0-0/{len(answer.body)}")
            if "if-range" in request.headers and answer.status == 200
            else answer
        ),
    )
    yield Mutant(
        "storage: a range behind the end brings 500",
        storage=lambda _, answer: answer.with_status(500) if answer.status == 416 else answer,
    )
    yield Mutant(
        "storage: a range behind the end brings nothing",
        storage=lambda _, answer: (
            evolve(answer, body=b"").with_status(206) if answer.status == 416 else answer
        ),
    )


# What the contract leaves open.


def _is_api_json(_request: Request, answer: Answer) -> bool:
    return answer.headers.get("content-type") == JSON


_write = h11._writers.write_any_response  # type: ignore[attr-defined]
_WRITERS = h11._writers.WRITERS  # type: ignore[attr-defined]


def _write_http_1_0(response: Any, write: Callable[[bytes], None]) -> None:
    _write(response, lambda data: write(data.replace(b"HTTP/1.1", b"HTTP/1.0", 1)))


def _write_names(change: Callable[[bytes], bytes]) -> Callable[..., None]:
    def write_response(response: Any, write: Callable[[bytes], None]) -> None:
        def changed(data: bytes) -> None:
            name, colon, value = data.partition(b": ")
            write(change(name) + colon + value if colon else data)

        _write(response, changed)

    return write_response


def _http_written(written: Callable[..., None]) -> tuple[tuple[Any, str, Any], ...]:
    changed = _WRITERS | {(h11.SERVER, h11.SEND_RESPONSE): written, (h11.SERVER, h11.IDLE): written}
    return ((h11._connection, "WRITERS", changed),)  # type: ignore[attr-defined]


def variations() -> list[Mutant]:
    """Return servers that do what the contract permits."""

    def answer(what: str, change: Change) -> Mutant:
        return Mutant(what, say=where(_is_api_json, change))

    def field(what: str, name: str, change: Callable[[str], Json]) -> Mutant:
        def say(_request: Request, answer: Answer) -> Answer:
            if answer.headers.get("content-type") != JSON or name not in answer.json:
                return answer
            return answer.with_json(answer.json | {name: change(answer.json[name])})

        return Mutant(what, say=say)

    phrases = dict.fromkeys(uvicorn_h11.STATUS_PHRASES, b"Whatever")
    nothing = dict.fromkeys(uvicorn_h11.STATUS_PHRASES, b"")
    permitted = [
        answer(
            "a charset in Content-Type", lambda a: a.with_header("content-type", f"{JSON}; charset=utf-8")
        ),
        answer("Content-Type in capitals", lambda a: a.with_header("content-type", "Application/JSON;A=b")),
        answer(
            "further headers",
            lambda a: evolve(
                a, more=(("x-new", "1"), ("set-cookie", "a=b"), ("set-cookie", "c=d"), ("vary", "accept"))
            ),
        ),
        answer("further fields", lambda a: a.with_json(a.json | {"x_new": {"a": [None, 1e300, "ü"]}})),
        answer(
            "JSON in lines, its fields in another order",
            lambda a: evolve(
                a,
                body=json.dumps(dict(reversed(a.json.items())), indent=2, ensure_ascii=False).encode()
                + b"\n",
            ),
        ),
        answer("a message for people", lambda a: a.with_json({"message": "ü"} | a.json)),
        answer("empty errors", lambda a: a.with_json({}) if a.status >= 400 else a),
        answer(
            "other errors",
            lambda a: a.with_json({"error": {"code": 7}, "message": None}) if a.status >= 400 else a,
        ),
        Mutant(
            "gzip where it is accepted",
            say=lambda request, a: _gzipped(a) if "gzip" in request.headers.get("accept-encoding", "") else a,
        ),
        field(
            "expiresAt with an offset and a fraction",
            "expiresAt",
            lambda text: datetime.fromisoformat(text).isoformat(timespec="milliseconds"),
        ),
        Mutant("other reason phrases", wire=((uvicorn_h11, "STATUS_PHRASES", phrases),)),
        Mutant("no reason phrases", wire=((uvicorn_h11, "STATUS_PHRASES", nothing),)),
        Mutant("HTTP/1.0", wire=_http_written(_write_http_1_0)),
        Mutant("header names in capitals", wire=_http_written(_write_names(bytes.upper))),
        answer("a connection for each request", lambda a: a.with_header("connection", "close")),
        answer("responses in chunks", lambda a: a.without_header("content-length")),
    ]
    return [evolve(each, name=f"permitted: {each.name}", family="permitted") for each in permitted]
