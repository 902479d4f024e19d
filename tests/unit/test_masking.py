"""Strings and bytes that stay hidden."""

import copy
import json

import httpx
import pytest

from techforge._masking import Secret, SecretBytes, SecretUrl

URL = f"https://cdn.example.com/a.png?X-Amz-Signature=s3cret{'0' * 90}"


@pytest.mark.parametrize(
    "hidden",
    [Secret("s3cret" * 20), SecretUrl(URL), SecretBytes(b"s3cret" * 20)],
    ids=lambda x: type(x).__name__,
)
def test_a_part_stays_hidden(hidden: Secret | SecretUrl | SecretBytes) -> None:
    """Tools that show variables, such as Rich, cut a long value and show the repr of the part."""
    parts = [hidden[:80], hidden[:-1], hidden[40:], hidden[::2], hidden[:90][40:], hidden[40:][:50]]
    assert "s3cret" not in repr([*parts, *map(copy.copy, parts)])
    plain = hidden.encode() if isinstance(hidden, str) else bytes(hidden)
    assert [part.encode() if isinstance(part, str) else bytes(part) for part in parts[:4]] == [
        *(plain[:80], plain[:-1], plain[40:], plain[::2])
    ]
    assert hidden[0] == (plain[0] if isinstance(hidden, bytes) else chr(plain[0]))


def test_a_url_shows_where_it_goes() -> None:
    """Only its query is hidden."""
    assert repr(SecretUrl(URL)[:80]) == repr(SecretUrl(URL)) == "'https://cdn.example.com/a.png?***'"


def test_what_is_hidden_is_sent_in_full() -> None:
    """JSON, headers and URLs hold the value itself."""
    assert json.dumps({"a": SecretUrl(URL)}) == json.dumps({"a": URL})
    body = SecretBytes(b"s3cret" * 20)
    request = httpx.Request("POST", SecretUrl(URL), headers={"x-api-key": Secret("s3cret")}, content=body)
    assert (str(request.url), request.headers["x-api-key"], request.content) == (URL, "s3cret", bytes(body))
