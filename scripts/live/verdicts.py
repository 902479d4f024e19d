"""What `contract_live.py` says to an answer: whether openapi.json allows it, and the request deserved it."""

import re
from collections.abc import Callable, Iterator
from typing import Any, cast

import httpx
from attrs import Factory, define, field, frozen
from openapi_core import Config, OpenAPI
from openapi_core.testing import MockRequest, MockResponse

from live.plan import Check, Json
from techforge._answers import job_in

DOCUMENTED = "as documented"
BROKEN = "contract broken"
"""The document has no such answer."""
UNEXPECTED = "unexpected"
"""The document has such an answer, but not for this request."""
UNKNOWN = "could not tell"
NOTED = "noted"

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")
# openapi-core knows the other formats by itself.
_FORMATS: dict[str, Callable[[Any], bool]] = {"uri": lambda value: bool(_URI.fullmatch(str(value)))}
_JOB_ID = re.compile(r"job[^\s?&#]{0,80}?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})", re.IGNORECASE)


@define
class Answer:
    """What came back: the status, and as much of the rest as could be had."""

    status: int
    headers: httpx.Headers
    body: bytes = field(default=b"", repr=False)
    lost: str = ""
    """Why the body is not whole."""

    @property
    def job_id(self) -> str | None:
        """The id of a job that it names, in its body or in a header: `Location: /jobs/…`, say."""
        named = _JOB_ID.search("\n".join(f"{name}:{value}" for name, value in self.headers.items()))
        return job_in(self.body)[0] or (named[1] if named else None)


def _contract_of(judge: "Judge") -> OpenAPI:
    return OpenAPI.from_dict(judge.document, Config(extra_format_validators=_FORMATS))


@frozen
class Judge:
    """Holds answers to a document."""

    document: Json
    contract: OpenAPI = field(init=False, default=Factory(_contract_of, takes_self=True))

    def __call__(self, check: Check, answer: Answer, *, again: bool) -> tuple[str, list[str]]:
        """Return the verdict on an answer, and why; `again` says that the request is repeated anyway."""
        if not check.operation:
            return NOTED, [f"it answers {answer.status}"]
        said = [] if answer.status in check.expected else [f"{answer.status} instead of {check.expectation}"]
        if check.expected == (404,) and answer.status == 200:
            said.append("the vendor's later documents say that it may sign any key")
        if answer.lost:
            return UNKNOWN, [*said, answer.lost]
        if differences := list(self._differences(check, answer)):
            return BROKEN, [*said, *differences]
        if not said:
            return DOCUMENTED, []
        return (NOTED, ["429, as documented; asked again"]) if again else _undeserved(check, answer, said)

    def _differences(self, check: Check, answer: Answer) -> Iterator[str]:
        """Say how an answer differs from what the contract allows."""
        content_type = answer.headers.get("content-type", "")
        request = MockRequest(self.document["servers"][0]["url"], check.method, check.path)
        response = MockResponse(answer.body, answer.status, dict(answer.headers), content_type)
        try:
            for error in self.contract.iter_response_errors(request, response):
                yield from _words(error)
        # The validator stumbles over some content types and bodies, and over telling of them.
        except (ValueError, LookupError, RecursionError):
            yield f"it cannot be read as {content_type or 'anything: it has no content type'}"


def _undeserved(check: Check, answer: Answer, said: list[str]) -> tuple[str, list[str]]:
    if answer.status == 429 or answer.status >= 500:
        return UNKNOWN, [*said, "documented, and no answer to this"]
    if answer.status in check.undecided:
        return UNKNOWN, [*said, "refused for its body, and one that is complete must not be sent"]
    return UNEXPECTED, said


def _words(error: Exception) -> Iterator[str]:
    """Say what openapi-core has found, one by one."""
    cause = error.__cause__
    if problems := cast("tuple[Any, ...]", getattr(cause, "schema_errors", ())):
        for problem in problems:
            place = getattr(error, "name", "") or ".".join(map(str, problem.absolute_path)) or "body"
            yield f"{place}: {problem.message}"
        return
    yield str(cause or error)
