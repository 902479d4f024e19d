"""What operations promise together: an accepted job has a video, and its signed URL serves it."""

import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

import requests
import schemathesis
from odd_bodies import choices, resolved
from probes import JSON, SECONDS, Linked, Probe, Said, conforms, probe, told

AT_ONCE = 8

URL_SECONDS = "CONTRACT_URL_SECONDS"
"""The variable with the lifetime of the server's signed URLs, if it is short enough to be waited for."""


@probe
def identifiers_are_new(ask: Probe) -> Iterator[Said]:
    """No two answers name the same thing as new, and what is new has the status that new things have."""
    for status in ask.successes:
        response = resolved(ask.document, ask.definition["responses"][str(status)])["content"][JSON]
        fields = resolved(ask.document, response["schema"]).get("properties", {})
        nodes = {name: resolved(ask.document, each) for name, each in fields.items()}
        names = [name for name, node in nodes.items() if node.get("format") == "uuid"]
        if ask.request.method != "POST" or not names:
            continue
        with ThreadPoolExecutor(AT_ONCE) as pool:
            at_once = [pool.submit(ask.send, session=requests.Session()) for _ in range(AT_ONCE)]
        answers = [*(each.result() for each in at_once), *(ask.send() for _ in range(3))]
        for answer in answers:
            yield "the same again", answer, [status]
        for name in names:
            different = {answer.json()[name] for answer in answers}
            assert len(different) == len(answers), told(f"{name} is the same in several answers", answers[-1])
        # A status of something new is one that the examples show.
        shown = [each["value"] for each in response.get("examples", {}).values()]
        for name, node in nodes.items():
            new = {each[name] for each in shown if name in each}
            for answer in answers if new and "enum" in node else ():
                assert answer.json()[name] in new, told(f"{name} is not that of something new", answer)


@probe
def links_lead_somewhere(ask: Probe) -> Iterator[Said]:
    """What the links of accepted requests lead to is there, and nothing that is named nearly so."""
    for status in ask.successes:
        response = resolved(ask.document, ask.definition["responses"][str(status)])
        for link in response.get("links", {}).values():
            linked = Linked(ask, link)
            made = ask.send()
            yield "the same again", made, [status]
            values = linked.values(ask.case.body, made)
            found = linked.send(values)
            yield f"a link to {values}", found, linked.successes
            case = linked.case(values)
            conforms(case, f"a link to {values}", found)
            opens(found, case)
            for name, value in values.items():
                for near in nearly(value):
                    if linked.is_same(name, near, value):
                        continue
                    answer = linked.send(values | {name: near})
                    yield f"nothing was made that is called {near!r}", answer, linked.nothing(name)
                for pair in ([value, "x"], ["x", value]):
                    if linked.place(name) == "query":
                        yield f"{name} is {pair}", linked.send(values | {name: pair}), [400]
            yield from every_choice(ask, linked, status)


def every_choice(ask: Probe, linked: Linked, status: int) -> Iterator[Said]:
    """Follow the link for each choice that a body may make; nothing that is made later takes its place."""
    made: list[tuple[str, dict[str, str]]] = []
    for what, body in choices(ask.document, ask.body_schema, ask.case.body):
        answer = ask.send(body=json.dumps(body).encode())
        yield what, answer, [status]
        made.append((what, linked.values(body, answer)))
    urls: dict[str, str] = {}
    # The first ones again: signing does not change what is signed.
    for what, values in [*made, *made[:3]]:
        found = linked.send(values)
        yield f"a link to {values}, where {what}", found, linked.successes
        if "signedUrl" in found.json():
            url, key = found.json()["signedUrl"].partition("?")[0], json.dumps(values)
            others = {other for other, known in urls.items() if known == url}
            assert others <= {key}, told("the URL is that of another object", found)
            assert urls.setdefault(key, url) == url, told(
                "the URL is no longer that of the same object", found
            )


def nearly(name: str) -> Iterator[str]:
    """Yield names that a careless lookup takes for another one."""
    stem, dot, extension = name.rpartition(".")
    folder, _, file = name.rpartition("/")
    first, _, rest = name.partition("/")
    project = f"{first}/00000000-0000-4000-8000-000000000000/{rest.partition('/')[2]}"
    yield from (f"{name}x", name[:-1], name.upper(), f"/{name}", folder, "", "/", ".", "*", "%")
    yield from (
        f"{name}\0",
        f"{name}\0.mp4",
        f" {name}",
        f"{name} ",
        f"{name}\n",
        f"\t{name}",
        f"+{name}",
        f"{name}+",
    )
    yield from (
        f"./{name}",
        f"{folder}/./{file}",
        f"{folder}/x/../{file}",
        f"../{name}",
        f"x/../{name}",
        f"{folder}/../{file}",
    )
    yield from (
        f"{folder}//{file}",
        f"{name}/",
        name.replace("/", "\\"),
        name.replace("/", "%2F"),
        quote(name, safe=""),
    )
    yield from (
        name.replace(".", "%2E"),
        f"%{ord(name[0]):02X}{name[1:]}",
        f"{stem}.*",
        f"{folder}/*",
        f"{name[:-1]}?",
    )
    yield from (
        f"{stem}%",
        f"{name[:-1]}_",
        f"https://example.com/{name}",
        f"s3://bucket/{name}",
        f"file:///{name}",
    )
    yield from (
        f"{folder}/*{file[5:]}",
        f"bucket/{name}",
        f"outputs/{name}",
        *(f"{stem}.{each}" for each in ("mov", "webm", "mp3", "MP4")),
    )
    yield from (
        stem,
        file,
        file.removesuffix(dot + extension),
        rest,
        project,
        f"{first}/x/{file}",
        f"{folder}s/{file}",
    )
    yield from (
        f"{folder}/x/{file}",
        f"{name}?a=b",
        f"{name}#a",
        f"{name};a=b",
        f'"{name}"',
        f"'{name}'",
        f"{name},{name}",
    )
    yield from (
        f"{folder}/{file.upper().removesuffix('.MP4')}.mp4",
        f"{folder}/{file.replace('-', '')}",
        name.replace("-", ""),
    )
    yield from (f"{folder[:-1]}/{file}", name.replace(".", "\uff0e"), f"{name}.", f"{name}.bak", f"{name}~")
    yield "x" * 7000


@schemathesis.check
def signed_url_opens(_ctx: Any, response: Any, case: Any) -> None:
    """A signed URL serves its object without a key, until it expires; any other URL does not."""
    opens(response, case)


def opens(response: Any, case: Any) -> None:
    """Follow a signed URL, if there is one."""
    signs = case.operation.definition.raw["operationId"] == "generateSignedPath"
    if not signs or response.status_code != 200 or not case.operation.is_valid_response(response):
        return
    signed = response.json()
    url = signed["signedUrl"]
    left = datetime.fromisoformat(signed["expiresAt"]) - datetime.now(UTC)
    assert timedelta() < left < timedelta(days=1), f"A short-lived URL expires in {left}"
    for value in response.request.headers.values():
        assert str(value) not in unquote(url) or len(value) < 12, "The signed URL contains the key"
    served = fetched(url)
    assert served.status_code == 200, told("The signed URL does not open", served)
    assert served.content, "The signed URL brings nothing"
    assert served.headers["content-type"].startswith("video/"), told("The signed URL brings no video", served)
    for forgery in forged(url):
        refused = fetched(forgery)
        assert refused.status_code == 403, told(
            f"A URL that was never signed brings {refused.status_code}", refused
        )
    a_part_is_a_part(url, served.content)


def fetched(url: str, **headers: str) -> requests.Response:
    """Get from storage."""
    try:
        return requests.get(url, timeout=SECONDS, allow_redirects=False, headers=headers)
    except requests.RequestException as error:
        raise AssertionError(f"The signed URL leads nowhere: {error}") from error


def a_part_is_a_part(url: str, whole: bytes) -> None:
    """Hold storage to RFC 9110, section 14: it ignores a range, or sends just that."""
    for first, last in ((0, 0), (2, 9)):
        part = fetched(url, range=f"bytes={first}-{last}")
        if part.status_code == 200:
            assert part.content == whole, told("Without 206, this should be the whole object", part)
        else:
            assert part.status_code == 206, told("A range brings something else", part)
            named = part.headers.get("content-range")
            assert named == f"bytes {first}-{last}/{len(whole)}", told(f"Content-Range is {named}", part)
            assert part.content == whole[first : last + 1], told("These are other bytes", part)
    # Section 13.1.5: this is a part of another object.
    changed = fetched(url, **{"range": "bytes=0-0", "if-range": '"another"'})
    assert (changed.status_code, changed.content) == (200, whole), told(
        "If-Range is another object's", changed
    )
    behind = fetched(url, range=f"bytes={len(whole)}-")
    named = behind.headers.get("content-range")
    assert (behind.status_code, behind.content) == (200, whole) or (
        behind.status_code == 416 and named in {None, f"bytes */{len(whole)}"}
    ), told("A range behind the end brings something else", behind)


def forged(signed: str) -> Iterator[str]:
    """Change a signed URL in each way that must break its signature."""
    url = urlsplit(signed)
    yield urlunsplit(url._replace(query=""))
    yield urlunsplit(url._replace(path=f"{url.path}.bak"))
    query = parse_qsl(url.query)
    for at, (name, value) in enumerate(query):
        half, last = len(value) // 2, "1" if value[-1] == "0" else "0"
        texts = (value[::-1], value[:-1], value[:half], value[:half] + value[half:][::-1], value[:-1] + last)
        for other in (str(int(value) + 3600), str(int(value) - 1)) if value.isdecimal() else texts:
            yield urlunsplit(url._replace(query=urlencode([*query[:at], (name, other), *query[at + 1 :]])))


@probe
def signed_urls_expire_on_time(ask: Probe) -> Iterator[Said]:
    """A signed URL works until `expiresAt` and no longer, if that is soon enough to be waited for."""
    for status in ask.successes if URL_SECONDS in os.environ else ():
        response = resolved(ask.document, ask.definition["responses"][str(status)])
        for link in response.get("links", {}).values():
            linked, made = Linked(ask, link), ask.send()
            yield "the same again", made, [status]
            values = linked.values(ask.case.body, made)
            signing = linked.send(values)
            yield f"a link to {values}", signing, linked.successes
            if "signedUrl" in signing.json():
                works_until_it_expires(signing, partial(linked.send, values))


def works_until_it_expires(signing: requests.Response, sign_again: Callable[[], object]) -> None:
    """Hold a signed URL to its `expiresAt`, in both directions."""
    lifetime = timedelta(seconds=float(os.environ[URL_SECONDS]))
    url, expires = signing.json()["signedUrl"], datetime.fromisoformat(signing.json()["expiresAt"])
    left = expires - datetime.now(UTC)
    # expiresAt has whole seconds, rounded up; a response takes its time.
    assert lifetime - timedelta(seconds=1) < left <= lifetime + timedelta(seconds=1), told(
        f"the URL expires in {left} instead of {lifetime}", signing
    )
    for moment, status in ((-0.5, 200), (0.25, 403)):
        time.sleep(max((expires - datetime.now(UTC)).total_seconds() + moment, 0))
        # Another URL for the same object changes nothing.
        sign_again()
        answer = fetched(url)
        seconds = (datetime.now(UTC) - expires).total_seconds()
        assert answer.status_code == status, told(f"{seconds:.2f} s after it expires, the URL brings", answer)
