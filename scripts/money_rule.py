"""The money rule: a request that has no value in its body cannot order a job."""

import json
import re
from typing import cast


def carries_value(body: bytes | None) -> bool:
    """Return whether a body has anything that a job could be made of."""
    try:
        content: object = json.loads(body or b"null")
    except (ValueError, RecursionError):
        return re.search(rb"\w", body or b"") is not None
    if isinstance(content, dict):
        return any(value is not None for value in cast("dict[str, object]", content).values())
    return content not in (None, [])
