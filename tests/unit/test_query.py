"""Query values are encoded as httpx encodes them."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest

from techforge import _flow
from techforge._drivers.facade import Facade
from techforge_api.api.storage import generate_signed_path
from techforge_api.models import SignedUrl

PARAMS: list[dict[str, Any]] = [
    {"path": "a b&x=1#c+d%41e;ü?=/(f).mp4"},
    {"flag": True, "tags": ["a", "b"]},
    {"flag": False, "none": None, "empty": ""},
    {"mixed": [True, None, 1, 2.5, "x y"], "pair": ("a", "b")},
    {"nothing": [], "count": 0, "size": 1, "ratio": 0.1},
    {"a&b": "c=d", "*": "~-._"},
]


@pytest.mark.parametrize("params", PARAMS, ids=str)
def test_a_query_is_encoded_as_httpx_does_it(params: dict[str, Any]) -> None:
    """Names and values are the same as with httpx. A space is %20, as RFC 6570 requires."""
    call = _flow.call(generate_signed_path, SignedUrl, path="x", client=_flow.CLIENT)
    facade = Facade(_flow.Send(call, "key", "https://api.example", {}, 1.0, 1))
    query = facade.build("get", "/x", params=params).target.partition("?")[2]
    expected = httpx.QueryParams(params)
    assert parse_qsl(query, keep_blank_values=True) == expected.multi_items()
    assert query == str(expected).replace("+", "%20")
