"""Requests in every form that HTTP, URIs and JSON allow, and in forms that they do not."""

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from odd_bodies import branches, resolved, types
from probes import JSON, METHODS, Probe, Said, probe, told

OVERRIDES = ("x-http-method-override", "x-http-method", "x-method-override")


@probe
def headers_change_nothing(ask: Probe) -> Iterator[Said]:
    """No header asks for a response that the contract does not have."""
    # RFC 9110, section 12.5.1: without 406, what is not acceptable is sent nevertheless.
    for accept in (
        *(
            JSON,
            "*/*",
            "application/*",
            f"{JSON};q=0.5",
            f"{JSON}; charset=utf-8",
            "text/html",
            "application/xml",
        ),
        *("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", f"text/plain, {JSON}", None),
    ):
        yield f"Accept: {accept}", ask.send(headers={"accept": accept}), ask.accepted
    for name, value in (
        *(("accept-language", "de, en;q=0.5"), ("accept-charset", "iso-8859-1"), ("expect", "100-continue")),
        *(("authorization", "Bearer other"), ("cookie", "a=b"), ("origin", "https://example.com")),
        *(("referer", "https://example.com/a"), ("x-forwarded-for", "192.0.2.7"), ("x-unknown", "x" * 2000)),
        *(
            ("x-forwarded-host", "example.com"),
            ("user-agent", None),
            ("user-agent", "curl/8.0"),
            ("te", "trailers"),
        ),
    ):
        yield f"{name}: {value}", ask.send(headers={name: value}), ask.accepted
    upgrade = {"upgrade": "h2c", "connection": "upgrade", "http2-settings": ""}
    yield "an offer to upgrade", ask.send(headers=upgrade), ask.accepted
    plain = ask.send(headers={"accept-encoding": "identity"})
    yield "Accept-Encoding: identity", plain, ask.accepted
    assert "content-encoding" not in plain.headers, told("this encoding is not accepted", plain)
    if ask.request.method == "GET":
        for name, value in (
            *(("range", "bytes=0-0"), ("if-none-match", '"x"')),
            *(("if-modified-since", "Fri, 31 Dec 2100 00:00:00 GMT"), ("if-range", '"x"')),
        ):
            yield f"{name}: {value}", ask.send(headers={name: value}), ask.accepted
    yield "an unknown query parameter", ask.send(url=ask.url({"x_unknown": "1"})), ask.accepted
    for other in ("GET", "POST", "DELETE"):
        for name in OVERRIDES:
            yield f"{name}: {other}", ask.send(headers={name: other}), ask.accepted
        yield f"_method={other}", ask.send(url=ask.url({"_method": other})), ask.accepted


@probe
def only_json_is_taken(ask: Probe) -> Iterator[Said]:
    """A body has to be JSON, and to say so, in any of the ways in which that is said."""
    if ask.body_schema is None:
        return
    body = json.dumps(ask.case.body).encode()
    for media_type in (
        *("text/plain", "text/json", "application/x-www-form-urlencoded", "multipart/form-data", None),
        *(
            "application/problem+json",
            "application/vnd.api+json",
            "application/json5",
            "application/x-ndjson",
        ),
    ):
        answer = ask.send(body=body, headers={"content-type": media_type})
        yield f"JSON that says that it is {media_type}", answer, [400]
    # RFC 9110, section 8.3.1: case does not matter, nor do blanks. RFC 8259, section 11: there is no charset.
    for media_type in (
        "Application/JSON",
        f"{JSON}; charset=utf-8",
        f"{JSON};charset=UTF-8",
        f"{JSON} ; a=b",
        f'{JSON}; charset="utf-8"',
        f'{JSON};a="b; c"',
    ):
        answer = ask.send(body=body, headers={"content-type": media_type})
        yield f"JSON that says that it is {media_type}", answer, ask.accepted
    said = {"content-type": JSON}
    for name in ("content-type", "CONTENT-TYPE", "Content-Type"):
        yield name, ask.send(body=body, lines=[(name, JSON)]), ask.accepted
    yield "JSON in chunks", ask.send(body=iter([body[:9], body[9:]]), headers=said), ask.accepted
    spaced = json.dumps(ask.case.body, indent=1).encode()
    yield "JSON in lines", ask.send(body=b"\r\n\t " + spaced + b"\n", headers=said), ask.accepted
    without_end = body.rstrip()[:-1]
    for what, bad in {
        "no body": b"",
        "a body that breaks off": body[:-1],
        "a body with more behind it": body + b"}",
        "a body with another behind it": body + body,
        "a body in single quotes": body.replace(b'"', b"'"),
        "a body whose names have no quotes": re.sub(rb'"(\w+)":', rb"\1:", body),
        "a body with a comma at its end": without_end + b",}",
        "a body with a comment": b"/* a */" + body,
        "a body with a comment behind it": body + b" // a",
        "a body with a byte order mark": b"\xef\xbb\xbf" + body,
        "a body with a prefix": b")]}',\n" + body,
        **{f"a body in {name}": body.decode().encode(name) for name in ENCODINGS},
    }.items():
        yield what, ask.send(body=bad, headers=said), [400]
    yield "a body in an array", ask.send(body=b"[" + body + b"]", headers=said), ask.judged([ask.case.body])
    for what, text, is_valid in spelt(ask):
        yield what, ask.send(body=text, headers=said), ask.accepted if is_valid else [400]


ENCODINGS = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le")
BAD_NUMBERS = (
    *(
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"01",
        b"-01",
        b"+1",
        b".5",
        b"5.",
        b"1e",
        b"0x10",
        b"1_000",
        b"1,5",
    ),
    *(b"True", b"None", b"undefined"),
)
GOOD_NUMBERS = (b"1e0", b"1E+2", b"10e-1", b"1.0", b"-0", b"0.10")
BAD_TEXTS = {
    "a control character": b'"\x01"',
    "a raw line break": b'"a\nb"',
    "a raw tab": b'"a\tb"',
    "an unknown escape": rb'"\x41"',
    "half an escape": rb'"\u00"',
    "single quotes": b"'a'",
    "Latin-1": '"na\xefve"'.encode("latin-1"),
    "a byte that is not UTF-8": b'"\xff"',
    "half a character": b'"\xe4\xbd"',
    "UTF-8 that is too long": b'"\xc0\xaf"',
    "surrogates as UTF-8": b'"\xed\xa0\xbd\xed\xb8\x80"',
}
GOOD_TEXTS = {
    "raw UTF-8": '"na\xefve \u4f60\u597d"'.encode(),
    "a raw character beyond the BMP": '"\U0001f600"'.encode(),
    "escaped letters": rb'"\u0041\u0062\u00ef"',
    "escaped surrogates": rb'"\ud83d\ude00"',
    "an escaped slash": rb'"a\/b"',
    "an escaped NUL": rb'"\u0000"',
}
LARGE_TEXTS = {f"{size} characters": b'"' + b"x" * size + b'"' for size in (20_000, 200_000, 700_000)}
GOOD_VALUES = {
    **{f"{levels} arrays in each other": b"[" * levels + b"]" * levels for levels in (20, 100)},
    **{f"{levels} objects in each other": b'{"a":' * levels + b"1" + b"}" * levels for levels in (20, 100)},
}
NAMES = ("", "__proto__", "constructor", "id", "status", "$ref", "a.b", "a b", "na\xefve", "\U0001f600")


def spelt(ask: Probe) -> Iterator[tuple[str, bytes, bool]]:
    """Yield bodies with a value that is spelt unusually, well or badly, in declared and other fields."""
    if not isinstance(ask.case.body, dict):
        return
    fields = declared(ask)
    sized: set[str] = set()
    for name, kinds in {**fields, "x_unknown": {"string", "number"}}.items():
        bad = [(repr(text.decode()), text) for text in BAD_NUMBERS] if "number" in kinds else []
        good = [(repr(text.decode()), text) for text in GOOD_NUMBERS] if kinds & {"number", "integer"} else []
        if "string" in kinds:
            bad += BAD_TEXTS.items()
            good += GOOD_TEXTS.items()
            # Large ones take time: one declared field is enough.
            good += () if name in fields and sized else LARGE_TEXTS.items()
            sized.add(name)
        if name not in fields:
            good += GOOD_VALUES.items()
        for what, text in bad:
            yield f"{name} has {what}", with_text(ask.case.body, name, text), False
        for what, text in good:
            body = with_text(ask.case.body, name, text)
            yield f"{name} has {what}", body, ask.is_valid(json.loads(body))
    for name in NAMES:
        body = ask.case.body | {name: "x"}
        yield f"an unknown name {name!r}", json.dumps(body, ensure_ascii=False).encode(), ask.is_valid(body)
    many = ask.case.body | {f"x_{number}": number for number in range(200)}
    yield "many unknown names", json.dumps(many).encode(), ask.is_valid(many)
    yield "no blanks", json.dumps(ask.case.body, separators=(",", ":")).encode(), True
    yield "another order", json.dumps(dict(reversed(ask.case.body.items()))).encode(), True
    for name in ask.case.body:
        first, *rest = name.split("_")
        for other in {name.upper(), "".join([first, *map(str.capitalize, rest)])} - {name}:
            body = {other if each == name else each: value for each, value in ask.case.body.items()}
            yield f"{other} for {name}", json.dumps(body).encode(), ask.is_valid(body)


def declared(ask: Probe) -> dict[str, set[str]]:
    """Return the fields of texts and numbers that may have many values, with their types."""
    found: dict[str, set[str]] = {}
    for branch in branches(ask.document, ask.body_schema):
        for name, node in branch.get("properties", {}).items():
            kinds = types(ask.document, node)
            is_open = not resolved(ask.document, node).keys() & {"enum", "format", "pattern", "const"}
            if is_open and kinds and kinds <= {"string", "number", "integer"}:
                found[name] = kinds
    return found


def with_text(body: dict[str, Any], name: str, text: bytes) -> bytes:
    """Return the JSON of a body in which a field is spelt like this."""
    mark = "the value is put here"
    return json.dumps(body | {name: mark}).encode().replace(json.dumps(mark).encode(), text)


@probe
def nothing_else_is_served(ask: Probe) -> Iterator[Said]:
    """There are no other paths, and no other methods."""
    url = urlsplit(ask.request.url)
    parent = url.path.rpartition("/")[0]
    known = url.path
    last = known.rpartition("/")[2]
    for path in (
        *(f"{known}/x", known.upper(), parent, f"{known}/", f"/{known}", f"{known}.json", f"{known}.xml"),
        *(
            f"{known}x",
            f"{known}2",
            f"{known};a=b",
            f"{known}%20",
            f"{known}%00",
            f"{known}%0A",
            f"{known}%3Fa=b",
        ),
        *(f"{parent}%2F{last}", f"{parent}%2f{last}", f"{parent}//{last}", f"{parent}%5C{last}"),
        *(
            f"{parent}/./{last}",
            f"{parent}/x/../{last}",
            f"/x/..{known}",
            f"{parent}/%2E/{last}",
            f"/.{known}",
        ),
        *(f"{parent}/%25{ord(last[0]):02X}{last[1:]}", f"{known[0]}{known[1:].capitalize()}"),
        *(f"/api{known}", f"/v1{known}", f"{known}/../{last}", known.replace("-", "_"), f"{known}.html"),
    ):
        if not ask.is_served(path):
            # Without a key, an operation would be known by its 401.
            answer = ask.send(path=path, headers=dict.fromkeys(ask.key_headers))
            yield path, answer, [404]
    # RFC 3986, section 6.2.2.2: an encoded letter is the letter.
    same = f"{parent}/%{ord(last[0]):02X}{last[1:]}"
    yield same, ask.send(path=same), ask.accepted
    yield "an empty query", ask.send(path=f"{known}{'' if url.query else '?'}"), ask.accepted
    item = ask.document["paths"][ask.case.operation.path]
    allowed = {name.upper() for name in item} & set(METHODS)
    for method in METHODS:
        if method not in allowed:
            answer = ask.send(method=method)
            yield method, answer, [405]
            listed = {name.strip() for name in answer.headers.get("allow", "").split(",")}
            assert listed == allowed, told(f"{method}: the Allow header is {listed}", answer)
    # RFC 9110, section 9.1: names of methods are case-sensitive, and one that is unknown is a 501.
    for method in (str(ask.request.method).lower(), "FOO"):
        yield method, ask.send(method=method), [400, 405, 501]
    other = next(method for method in METHODS if method not in allowed)
    for name in OVERRIDES:
        yield f"{other} as {name}", ask.send(method=other, headers={name: ask.request.method}), [405]
    yield f"{other} as _method", ask.send(method=other, url=ask.url({"_method": ask.request.method})), [405]
