"""The checks of requests: keys, bodies, parameters and the errors that the mock makes on demand."""

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from odd_bodies import resolved, types, validator, values, variations
from probes import SECONDS, Probe, Said, conforms, probe, told


@probe
def key_is_needed(ask: Probe) -> Iterator[Said]:
    """Nothing but the whole key in its own header opens an operation."""
    for header in ask.key_headers:
        key = ask.request.headers[header]
        basic = base64.b64encode(f"{key}:".encode()).decode()
        for what, value in {
            "without a key": None,
            "with an empty key": "",
            "with a wrong key": "wrong",
            "with the key's beginning": key[:-1],
            "with more than the key": f"{key}x",
            "with the key in capitals": key.upper(),
            "with the key twice": f"{key}, {key}",
            "with the key in quotes": f'"{key}"',
            "with the key as a bearer token": f"Bearer {key}",
            "with the key encoded": f"%{ord(key[0]):02X}{key[1:]}",
            "with the key in the middle": f"a {key} b",
        }.items():
            yield what, ask.send(headers={header: value}), [401]
        for what, pair in {
            "the key in two lines": (key, key),
            "another key in a line before": ("wrong", key),
            "another key in a line behind": (key, "wrong"),
        }.items():
            # RFC 9110, section 5.3: two lines mean a list, and a list is no key.
            yield what, ask.send(lines=[(header, value) for value in pair]), [400, 401]
        # RFC 9110, sections 5.1 and 5.5: case does not matter in names, nor do blanks around values.
        for name in (header.upper(), header.title(), header.lower()):
            yield f"the key in {name}", ask.send(lines=[(name, key)]), ask.accepted
        yield "the key between blanks", ask.send(lines=[(header, f"  {key}\t ")]), ask.accepted
        for name, value in {
            "cookie": f"{header}={key}",
            "authorization": f"Bearer {key}",
            "referer": f"https://example.com/?{header}={key}",
            "x-forwarded-for": "127.0.0.1",
            header.replace("-", "_"): key,
            "proxy-authorization": f"Bearer {key}",
            **dict.fromkeys(("api-key", "apikey", "x-key", "x-auth-token", "x-access-token"), key),
        }.items():
            yield f"with the key in {name}", ask.send(headers={header: None, name: value}), [401]
        for what, value in {
            "as it is": key,
            "as Basic": f"Basic {basic}",
            "as Basic's password": f"Basic {base64.b64encode(f':{key}'.encode()).decode()}",
            "as Token": f"Token {key}",
        }.items():
            answer = ask.send(headers={header: None, "authorization": value})
            yield f"with the key in authorization, {what}", answer, [401]
        for name in (header, "api_key", "key", "token"):
            answer = ask.send(url=ask.url({name: key}), headers={header: None})
            yield f"with the key in the query, as {name}", answer, [401]
        if ask.body_schema is not None and isinstance(ask.case.body, dict):
            body = json.dumps(ask.case.body | {header: key, "api_key": key}).encode()
            yield "with the key in the body", ask.send(body=body, headers={header: None}), [401]


@probe
def only_what_is_valid_is_taken(ask: Probe) -> Iterator[Said]:
    """A body or a parameter is taken if the schema allows it, and refused if not."""
    if ask.body_schema is not None:
        valid = validator(ask.document, ask.body_schema).is_valid
        for what, body in variations(ask.document, ask.body_schema, ask.case.body):
            answer = ask.send(body=json.dumps(body).encode())
            yield what, answer, ask.accepted if valid(body) else [400]
            raw = json.dumps(body, ensure_ascii=False)
            if not raw.isascii() and valid(body):
                yield f"{what}, not escaped", ask.send(body=raw.encode()), ask.accepted
    for each in ask.definition.get("parameters", []):
        parameter = resolved(ask.document, each)
        # Of texts, the query has the form of the schema; of others, it would have to be guessed.
        if parameter["in"] != "query" or types(ask.document, parameter["schema"]) != {"string"}:
            continue
        name, valid = parameter["name"], validator(ask.document, parameter["schema"]).is_valid
        texts = [value for value in values(ask.document, parameter["schema"]) if isinstance(value, str)]
        given = next(value for value in texts if valid(value))
        for value in texts:
            answer = ask.send(url=ask.url({name: value}))
            yield f"{name} is {value[:50]!r}", answer, [*ask.successes, 404] if valid(value) else [400]
        yield f"{name} twice", ask.send(url=ask.url({name: [given, given]})), [400]
        for other in (name.upper(), name.capitalize(), f"{name}[]", "key", "file"):
            renamed = ask.send(url=ask.url({name: [], other: given}))
            yield f"{other} for {name}", renamed, [400] if parameter.get("required") else ask.accepted
        wrong = [400] if parameter.get("required") else [*ask.successes, 404]
        yield f"without {name}", ask.send(url=ask.url({name: []})), wrong


@probe
def errors_are_as_documented(ask: Probe) -> Iterator[Said]:
    """Errors that a good server seldom has keep to the contract, too: the mock makes them on demand."""
    for documented, response in ask.definition["responses"].items():
        status = int(documented.replace("XX", "03"))
        if status < 400:
            continue
        waits = "Retry-After" in resolved(ask.document, response).get("headers", {})
        for wait in (None, "2", "date:2") if waits else (None,):
            fault = f"status={status}" + (f";retry-after={wait}" if wait else "")
            answer = ask.send(headers={"x-mock-fault": fault})
            yield fault, answer, [status]
            conforms(ask.case, fault, answer)
            given = answer.headers.get("retry-after")
            # The contract lets a server leave it out; the mock promises it to whoever asks for it.
            assert not wait or asked_for(given, wait), told(f"{fault}: Retry-After is {given}", answer)


def asked_for(given: str | None, wait: str) -> bool:
    """Tell whether a Retry-After is what the mock was asked for."""
    if given is None or not wait.startswith("date:"):
        return given == wait
    ahead = parsedate_to_datetime(given) - datetime.now(UTC)
    return timedelta(seconds=-SECONDS) < ahead <= timedelta(seconds=int(wait.removeprefix("date:")) + 1)
