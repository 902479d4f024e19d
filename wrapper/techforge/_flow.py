"""Flows are generators that yield commands and do no I/O themselves.

A driver executes each command, sync or async, and sends the result back. So every loop of this package is
written once, and is tested without a network or a clock.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeAlias, TypeVar, cast

from attrs import define, evolve, field

from techforge._masking import SecretUrl

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from techforge_api.client import AuthenticatedClient
    from techforge_api.types import Response

T = TypeVar("T")
P = ParamSpec("P")
Flow: TypeAlias = Generator["Command", Any, T]


class Endpoint(Protocol[P]):
    """The two functions of a generated module that this package calls."""

    def sync_detailed(self, *args: P.args, **kwargs: P.kwargs) -> Response[Any]: ...
    async def asyncio_detailed(self, *args: P.args, **kwargs: P.kwargs) -> Response[Any]: ...


@define(eq=False, repr=False)
class Call(Generic[T]):
    """One operation with its arguments.

    `repeatable` is False if processing it twice would cost the user money. `duplicate_hint` then tells
    people where to look for duplicates.
    """

    endpoint: Endpoint[...]
    arguments: Mapping[str, Any]
    returns: type[T]
    repeatable: bool = True
    duplicate_hint: str = ""

    def not_repeatable(self, duplicate_hint: str) -> Call[T]:
        """Return a copy of this call that is not repeatable."""
        return evolve(self, repeatable=False, duplicate_hint=duplicate_hint)


@define
class Attempts:
    """The attempts at one call so far.

    `may_have_run` is True if the server may have processed one of them, `was_resubmitted` if the call was
    sent again after that.
    """

    count: int = 0
    may_have_run: bool = False
    was_resubmitted: bool = False


CLIENT = cast("AuthenticatedClient", None)
"""A placeholder for the facade that a driver passes to the generated function."""


def call(endpoint: Endpoint[P], returns: type[T], *args: P.args, **kwargs: P.kwargs) -> Call[T]:
    """Return a call; type checkers check its arguments against the generated signature."""
    if args:
        raise TypeError("generated functions with positional parameters are not supported")
    return Call(endpoint, kwargs, returns)


class Command:
    """A command to a driver. Commands have no repr, since they contain secrets."""


@define(eq=False, repr=False)
class Send(Command):
    """Send a call to the API. The result is the response as the generated function parsed it."""

    call: Call[Any]
    api_key: str
    base_url: str
    headers: Mapping[str, str]
    timeout: float
    attempt: int


@define(eq=False, repr=False)
class Open(Command):
    """Start a GET on a signed URL, without the API key. The result is an `Opened`."""

    url: str = field(converter=SecretUrl)
    headers: Mapping[str, str]
    timeout: float


@define(eq=False, repr=False)
class Opened:
    """The status and headers of a response from storage. Header names are in lower case."""

    status_code: int
    headers: Mapping[str, str] = field(repr=False)
    retry_after: float | None = None


@define(eq=False, repr=False)
class Read(Command):
    """Read the next bytes of the response. The result is empty at its end."""

    timeout: float


@define(eq=False, repr=False)
class Close(Command):
    """Close the response. At the end of a flow, the driver does so itself."""


@define(eq=False, repr=False)
class Sleep(Command):
    """Sleep for some seconds, or until the client is closed."""

    seconds: float


@define(eq=False, repr=False)
class Invoke(Command):
    """Call user code, and await its result if that is awaitable.

    The await ends after `timeout` seconds. Blocking code cannot be stopped.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    timeout: float


@define(eq=False, repr=False)
class Block(Command):
    """Call our own code that reads or writes files. The async driver runs it in a thread."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()


class Step(Generic[T]):
    """The next step of a flow. It has no repr of its own, since it contains a response."""

    def __init__(self, flow: Flow[T], result: object = None, error: BaseException | None = None) -> None:
        self._flow = flow
        self._result = result
        self._error = error

    def __call__(self) -> Command:
        """Run the flow up to its next command."""
        if self._error is not None:
            return self._flow.throw(self._error)
        return self._flow.send(self._result)


# A `yield` expression is untyped. These functions give each command the type of its result.


def send(command: Send, _returns: type[T]) -> Flow[T]:
    """Yield a `Send`. The driver checks the type of the result."""
    return cast("T", (yield command))


def opened(command: Open) -> Flow[Opened]:
    """Yield an `Open`."""
    return cast("Opened", (yield command))


def read(timeout: float) -> Flow[bytes]:
    """Yield a `Read`."""
    return cast("bytes", (yield Read(timeout)))


def invoke(function: Callable[..., Any], *arguments: object, timeout: float) -> Flow[Any]:
    """Yield an `Invoke`."""
    return (yield Invoke(function, arguments, timeout))


def block(function: Callable[..., T], *arguments: object) -> Flow[T]:
    """Yield a `Block`."""
    return cast("T", (yield Block(function, arguments)))
