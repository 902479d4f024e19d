"""Let the documentation show a docstring's examples as code, without a heading above each."""

import re
from typing import Any

import griffe

# From a prompt to the next blank line: what doctest takes for one example and what it prints.
_EXAMPLES = re.compile(r"^>>> .*?(?=\n\s*\n|\Z)", re.MULTILINE | re.DOTALL)


class Doctests(griffe.Extension):
    """Puts fences around examples."""

    def on_object(self, *, obj: griffe.Object, **_kwargs: Any) -> None:
        """Rewrite an object's docstring."""
        if obj.docstring:
            obj.docstring.value = _EXAMPLES.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)
