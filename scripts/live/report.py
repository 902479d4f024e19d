"""What `contract_live.py` shows and keeps of a run: neither a key nor what signs a URL."""

import html
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from attrs import define, field, frozen

from live.plan import Check, Json
from live.verdicts import Answer
from techforge._masking import mask

_HEADERS = ("content-type", "retry-after", "location", "allow", "www-authenticate", "date")
_EXCERPT = 600
_PARAMETERS = re.compile(r"(\?|\\+u003f|%3f|&#63;|&#x3f;)[^\s\"'<>]*=[^\s\"'<>]*", re.IGNORECASE)


def _spelt(key: str) -> re.Pattern[str]:
    """Return a pattern of the key in any spelling: as it is, or escaped in JSON, a repr, a URL or HTML."""
    spellings = (
        rf"\\*(?:{re.escape(c)}|u00{ord(c):02x}|%{ord(c):02x}|&#0*{ord(c)};|&#x0*{ord(c):x};|{re.escape(html.escape(c))})"
        for c in key
    )
    return re.compile("".join(spellings), re.IGNORECASE)


@frozen
class Masker:
    """Takes the key and what signs URLs out of all that is shown."""

    key: re.Pattern[str] = field(converter=_spelt, repr=False)

    def __call__(self, text: str) -> str:
        """Return a text that may be shown."""
        return mask(self.key.sub("***", text) if self.key.pattern else text)

    def of_answer(self, text: str) -> str:
        """Return what may be shown of an answer, which may escape a secret, or the terminal."""
        if text[:1] in {"{", "[", '"'}:
            with suppress(ValueError, RecursionError):
                text = json.dumps(json.loads(text), ensure_ascii=False)
        text = text.replace("\\/", "/")
        text = _PARAMETERS.sub("?***", self(text))
        text = "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
        return text if len(text) <= _EXCERPT else text[:_EXCERPT] + "…"


@define
class Report:
    """What was found so far, in two files that are rewritten after each request: no end of a run loses it."""

    markdown: Path
    masked: Masker
    head: Json
    checks: list[Json] = field(factory=list[Json])
    not_checked: list[str] = field(factory=list[str])
    end: str = "It was cut off."

    def add(self, check: Check, answer: Answer | None, verdict: str, details: list[str]) -> None:
        """Add what came of a request, and say it."""
        shown = self.masked.of_answer
        entry: Json = {
            "name": check.name,
            "operation": check.operation or "beside the contract",
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
                "body": shown(answer.body.decode("utf-8", "replace")),
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
