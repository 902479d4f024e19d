"""What `contract_live.py` shows and keeps of a run: neither a key nor what signs a URL."""

import base64
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from html.entities import html5
from pathlib import Path

from attrs import define, field, frozen

from live.plan import Check, Json
from live.verdicts import Answer
from techforge._masking import mask

_HEADERS = ("content-type", "retry-after", "location", "allow", "www-authenticate", "date")
_EXCERPT = 600
# ASCII and Latin-1 may be read as UTF-8: they differ in what no key has.
_OTHER_CHARSET = re.compile(r"charset[\s=\"']*(?!utf-?8|us-ascii|iso-8859-1)[^\s=\"']", re.IGNORECASE)
_GAP = r"(?:[\s:,\ufffd]|0{1,2}|\\{1,8}(?:[nrt0]|x00|u0000)){0,8}"
"""What may be between two characters of a key: the service may send a dump, lines of base64, or UTF-16."""


# No repetition here is without a limit, and none of what it is part of fails after one: an answer that is
# made for it must not keep the masking busy.
def _escaped(c: str) -> str:
    """Return a pattern of a character as it is, or escaped in JSON, a repr, a URL or HTML."""
    code = f"{ord(c):02x}"
    names = "|".join(name.rstrip(";") for name, value in html5.items() if value == c)
    entity = rf"&(?:amp;){{0,8}}(?:#0{{0,8}}{ord(c)}|#x0{{0,8}}{code}{names and '|' + names});?"
    return rf"\\{{0,8}}(?:u00{code}|x{code}|%(?:25){{0,8}}{code}|{entity}|{re.escape(c)})"


def _spelt(key: str) -> re.Pattern[str]:
    """Return a pattern of the key in any spelling: escaped, as the numbers of its bytes, or in base64."""
    if not key:
        return re.compile(r"(?!)")
    patterns = [_GAP.join(rf"(?:{_escaped(c)}|{ord(c):02x}|{ord(c)})" for c in key)]
    for data in (key.encode(), key.encode("utf-16-le")):
        # What comes before the key shifts it: of what it shares with that, no character is the key's alone.
        for shift, shared in enumerate((0, 2, 3)):
            whole = base64.b64encode(bytes(shift) + data).decode()[shared : 8 * (shift + len(data)) // 6]
            either = {"+": rf"(?:{_escaped('+')}|-)", "/": rf"(?:{_escaped('/')}|_)"}
            patterns.append(_GAP.join(either.get(c, c) for c in whole))
    return re.compile("|".join(filter(None, patterns)), re.IGNORECASE)


_PARAMETERS = re.compile(_escaped("?") + r"[^\s\"'<>]+", re.IGNORECASE)


def _printable(text: str) -> str:
    """Return a text without what a terminal obeys."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


@frozen
class Masker:
    """Takes the key and what signs URLs out of all that is shown."""

    key: re.Pattern[str] = field(converter=_spelt, repr=False)

    def __call__(self, text: str) -> str:
        """Return a text that may be shown."""
        return mask(self.key.sub("***", text))

    def of_answer(self, text: str) -> str:
        """Return what may be shown of an answer, which may escape a secret, or the terminal."""
        text = self(_printable(text.strip()).replace("\\/", "/"))
        text = _PARAMETERS.sub("?***", text)
        return text if len(text) <= _EXCERPT else text[:_EXCERPT] + "…"

    def of_body(self, answer: Answer) -> str:
        """Return what may be shown of a body: nothing of one in a charset in which the key could hide."""
        if b"\0" in answer.body or _OTHER_CHARSET.search(answer.headers.get("content-type", "")):
            return f"{len(answer.body)} bytes, not shown: they are, or are said to be, other than UTF-8"
        return self.of_answer(answer.body.decode("utf-8", "replace"))


@define
class Report:
    """What was found so far, in two files that are rewritten after each request: no end of a run loses it."""

    markdown: Path
    masked: Masker
    head: Json
    checks: list[Json] = field(factory=list[Json])
    not_checked: list[str] = field(factory=list[str])
    end: str = "The run was cut off."

    def add(self, check: Check, answer: Answer | None, verdict: str, details: list[str]) -> None:
        """Add what came of a request, and say it."""
        shown = self.masked.of_answer
        entry: Json = {
            "name": check.name,
            "operation": check.subject,
            "request": self.masked(check.sent),
            "expected": check.expectation,
            "reason": check.reason,
            "answer": None,
            "verdict": verdict,
            "details": [shown(detail) for detail in details],
        }
        if answer:
            entry["answer"] = {
                "status": answer.status,
                "headers": {name: shown(answer.headers[name]) for name in _HEADERS if name in answer.headers},
                "body": self.masked.of_body(answer),
            }
        self.checks.append(entry)
        # A full disk must not keep the id of a job from being printed.
        with suppress(OSError):
            self.write()
        print(f"{verdict:16}{entry['operation']}: {check.name}", *entry["details"], sep="\n    ", flush=True)

    def write(self) -> None:
        """Write both files."""
        counts = Counter(str(check["verdict"]) for check in self.checks)
        content: Json = {
            **self.head,
            "end": self.masked.of_answer(self.end),
            "summary": counts,
            "checks": self.checks,
            "not checked": self.not_checked,
        }
        self.markdown.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(content, indent=2, ensure_ascii=False)
        self.markdown.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
        self.markdown.write_text("\n".join(self._lines(counts)) + "\n", encoding="utf-8")

    def _lines(self, counts: Mapping[str, int]) -> Iterator[str]:
        yield "# The live API and openapi.json\n"
        yield from (f"- {name}: {value}" for name, value in self.head.items())
        yield f"\n**{self.masked.of_answer(self.end)}**\n"
        yield ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) or "Nothing was sent."
        yield "\n| # | check | verdict |\n|---|---|---|"
        for number, check in enumerate(self.checks, start=1):
            yield f"| {number} | {check['operation']}: {check['name']} | {check['verdict']} |"
        if self.not_checked:
            yield "\n## Not checked\n"
            yield from (f"- {name}" for name in self.not_checked)
        for number, check in enumerate(self.checks, start=1):
            yield f"\n## {number}. {check['operation']}: {check['name']}\n"
            yield f"**{check['verdict']}**. Expected: {check['expected']}, since {check['reason']}.\n"
            lines = [*check["details"], "", check["request"], "", *_lines_of(check["answer"])]
            # Backticks of the service's own would end the block.
            yield "```\n{}\n```".format("\n".join(lines).strip().replace("```", "'''"))


def _lines_of(answer: Json | None) -> Iterator[str]:
    if answer is None:
        yield "no answer"
        return
    yield str(answer["status"])
    yield from (f"{name}: {value}" for name, value in answer["headers"].items())
    yield from ("", answer["body"])
