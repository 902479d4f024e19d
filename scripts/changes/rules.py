"""The rules for contracts: what each change of openapi.json means to those who call the API.

A request may be allowed more, and a response may contain less; the reverse breaks clients. A client knows the
class of every status (RFC 9110, section 15), so an error status may come or go. A change without a rule is
breaking until a person has judged it.
"""

from attrs import evolve, frozen

from changes import Change, Impact

_TABLE = """
what changed             | sent     | answered | typed | message
-------------------------+----------+----------+-------+---------------------------------------------------
type wider               | additive | breaking | yes   | type changed from {old} to {new}
type narrower            | breaking | additive | yes   | type changed from {old} to {new}
type changed             | breaking | breaking | yes   | type changed from {old} to {new}
enum added               | breaking | additive | yes   | now limited to {new}
enum removed             | additive | breaking | yes   | no longer limited to {old}
enum grown               | additive | breaking | no    | enum grown: {new}
enum shrunk              | breaking | additive | yes   | enum shrunk: {old}
typed format added       | breaking | additive | yes   | {key} added: {new}
typed format removed     | additive | breaking | yes   | {key} removed: {old}
typed format changed     | breaking | breaking | yes   | {key} changed from {old} to {new}
constraint added         | breaking | additive | no    | {key} added: {new}
constraint removed       | additive | breaking | no    | {key} removed: {old}
constraint changed       | breaking | breaking | no    | {key} changed from {old} to {new}
limit tighter            | breaking | additive | no    | {key} changed from {old} to {new}
limit looser             | additive | breaking | no    | {key} changed from {old} to {new}
flag on                  | breaking | additive | no    | {key} now holds
flag off                 | additive | breaking | no    | {key} no longer holds
optional field added     | additive | additive | yes   | new optional field
required field added     | breaking | additive | yes   | new required field
field removed            | breaking | breaking | yes   | field removed{renamed}
now required             | breaking | additive | yes   | now required
no longer required       | additive | breaking | yes   | no longer required
unknown fields rejected  | breaking | additive | yes   | unknown fields no longer allowed
unknown fields allowed   | additive | breaking | yes   | unknown fields now allowed
alternative added        | additive | breaking | yes   | {key} added: {new}
alternative removed      | breaking | additive | yes   | {key} removed: {old}
condition added          | breaking | additive | yes   | {key} added: {new}
condition removed        | additive | breaking | yes   | {key} removed: {old}
schema replaced          | breaking | breaking | yes   | {new} instead of {old}
serialization changed    | breaking | breaking | no    | {key} {fate}
more permitted           | additive | additive | no    | {key} now holds
less permitted           | breaking | breaking | no    | {key} no longer holds
read only                | breaking | doc-only | no    | now read-only
no longer read only      | additive | doc-only | no    | no longer read-only
write only               | doc-only | breaking | no    | now write-only
no longer write only     | doc-only | additive | no    | no longer write-only
default changed          | breaking | doc-only | no    | default {fate}
documentation changed    | doc-only | doc-only | no    | {key} {fate}
deprecated               | additive | additive | no    | now deprecated
written differently      | doc-only | doc-only | no    | written differently, with the same meaning
something else           | breaking | breaking | no    | something else {fate}: {key}; judge it by hand
operation added          | additive | additive | yes   | operation added
operation removed        | breaking | breaking | yes   | operation removed
operation moved          | breaking | breaking | no    | operation removed (moved to {new}?)
operationId changed      | doc-only | doc-only | no    | operationId changed from {old} to {new}
webhook added            | additive | additive | no    | webhook added
webhook removed          | breaking | breaking | no    | webhook removed
optional parameter added | additive | additive | yes   | new optional parameter
required parameter added | breaking | breaking | yes   | new required parameter
parameter removed        | breaking | breaking | yes   | parameter removed{renamed}
optional body added      | additive | additive | yes   | body added
required body added      | breaking | additive | yes   | body added
body removed             | breaking | breaking | yes   | body removed
success added            | breaking | breaking | no    | status added
success removed          | breaking | breaking | no    | status removed
error added              | additive | additive | no    | status added
error removed            | additive | additive | no    | status removed
content type added       | additive | additive | no    | content type {name} added
content type removed     | breaking | breaking | no    | content type {name} removed
header added             | additive | additive | no    | header added
header removed           | breaking | breaking | no    | header removed
link added               | additive | additive | no    | link added
link removed             | breaking | breaking | no    | link removed
link changed             | breaking | breaking | no    | {key} {fate}
callback added           | additive | additive | no    | callback added
callback removed         | breaking | breaking | no    | callback removed
security needs more      | breaking | breaking | no    | security: now needs {new}
security needs less      | additive | additive | no    | security: no longer needs {old}
security accepts more    | additive | additive | no    | security: also accepts {new}
security accepts less    | breaking | breaking | no    | security: no longer accepts {old}
scheme changed           | breaking | breaking | no    | {key} {fate}
server added             | additive | additive | no    | server {name} added
server removed           | breaking | breaking | no    | server {name} removed
server changed           | breaking | breaking | no    | {key} {fate}
unused component changed | doc-only | doc-only | no    | {fate}; no operation uses it
"""
"""`sent` and `answered`: what it means in a request, and in a response. `typed`: whether the types of the
generated code show it, in a request or in a success."""

ABSORBED = {"operation moved", "server removed", "server changed"}
"""What the SDK hides from its users although it is in a request. It also hides what is in a response, unless
a public type shows it. It cannot hide that the server no longer accepts a request."""

_SECURITY = (
    "an option in `_config.py`, sent by `_drivers/facade.py`, not sent to storage, and masked in every repr"
)
WORK = {
    "operation added": "nothing offers it yet: a flow and a method, if users need it",
    "operation moved": "the import in `_flows/`, and the path in error messages",
    "security needs more": _SECURITY,
    "security accepts less": _SECURITY,
    "scheme changed": "`auth.py`, if it affects how the key is sent",
    "server removed": "`LIVE_URL` in `_config.py` and `LIVE_HOST` in `auth.py`",
    "error added": "`errors.py`, if users should tell it apart",
    "error removed": "`wait` relies on the 404 of signing",
}
"""What to change in the wrapper."""


@frozen
class Rule:
    """One row of the table."""

    sent: Impact
    answered: Impact
    typed: bool
    message: str


RULES = {
    name: Rule(Impact(sent), Impact(answered), typed == "yes", message)
    for name, sent, answered, typed, message in (
        [cell.strip() for cell in row.split("|")] for row in _TABLE.strip().splitlines()[2:]
    )
}


@frozen
class At:
    """A place in the API."""

    place: str = ""
    sent: bool = True
    """Whether the client sends what is there; otherwise it receives it."""
    typed: bool = False
    """Whether generated code has types for what is there."""
    followed: frozenset[str] = frozenset()
    """The documents ("old", "new") whose references led here, while the other document's led elsewhere."""
    operation: str = ""
    """The operation that it belongs to."""

    def inside(self, suffix: str) -> "At":
        """Return a place below this one."""
        return evolve(self, place=self.place + suffix)

    def note(self, rule: str, /, **words: str) -> Change:
        """Return a change at this place, as its rule judges it."""
        row = RULES[rule]
        impact = row.sent if self.sent else row.answered
        silent = not (row.typed and self.typed) and impact is not Impact.DOC_ONLY
        absorbed = not self.sent or rule in ABSORBED
        return Change(impact, self.place, row.message.format_map(words), silent, absorbed, WORK.get(rule, ""))
