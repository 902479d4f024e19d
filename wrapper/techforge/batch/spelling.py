"""Find the field that a misspelt column was meant for."""

import re
from collections.abc import Iterable
from difflib import SequenceMatcher
from functools import lru_cache

# A missing or doubled letter scores higher, and so does a wrong one in a name of six letters or more. Names
# that people give to columns of their own score lower: `conversion` has 0.824 beside `version`, and
# `output_file` 0.8 beside `output_size`.
_CUTOFF = 0.83
_words = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+").findall


def _swaps(name: str) -> Iterable[str]:
    return (name[:i] + name[i + 1] + name[i] + name[i + 2 :] for i in range(len(name) - 1))


def _score(name: str, field: str) -> float:
    """Return how alike two names are, from 0 to 1."""
    # Two swapped letters cost a short name more than the cutoff allows.
    return 1.0 if name in _swaps(field) else SequenceMatcher(None, field, name).ratio()


@lru_cache(1024)
def closest(column: str, fields: tuple[str, ...]) -> str | None:
    """Return the field that the name of a column was meant for, or None if the column is somebody's own.

    Upper and lower case, and what stands between words, do not matter. All words of a field and others
    (`language_name`), or one word alone (`project`), are no misspelling.

    >>> fields = ("language", "output_size", "project_id")
    >>> [closest(name, fields) for name in ("langauge", "outputSize", "project", "language_name")]
    ['language', 'output_size', None, None]
    """
    words = [word.lower() for word in _words(column)]
    name = "".join(words)
    scores = {0.0: ""}
    for field in fields:
        parts = field.split("_")
        if name == "".join(parts):
            return field
        if name not in parts and not set(parts) <= set(words):
            scores[_score(name, "".join(parts))] = field
    best = max(scores)
    return scores[best] if best >= _CUTOFF else None
