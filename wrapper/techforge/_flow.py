"""The vocabulary of flows: generators that say what they want done, and never do it.

A flow yields commands and is sent their results; a driver carries them out, in either colour. So every
loop of this package exists once, and is tested without a network or a clock.
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
    """A generated module, seen as the two of its functions that this package calls."""

    def sync_detailed(self, *args: P.args, **kwargs: P.kwargs) -> Response[Any]: ...
    async def asyncio_detailed(self, *args: P.args, **kwargs: P.kwargs) -> Response[Any]: ...


@define(eq=False, repr=False)
class Call(Generic[T]):
    """One operation with its arguments.

    `repeatable` is False where carrying it out twice would cost the user something.
    """

    endpoint: Endpoint[...]
    arguments: Mapping[str, Any]
    returns: type[T]
    repeatable: bool = True
    about: str = ""

    def never_twice(self, about: str) -> Call[T]:
        """Return the same call, marked as not repeatable; `about` says for people where it would show."""
        return evolve(self, repeatable=False, about=about)


@define
class Attempts:
    """What the attempts at a call have come to so far.

    `in_doubt` when one may have been carried out, `resubmitted` when the call was sent again all the same.
    """

    count: int = 0
    in_doubt: bool = False
    resubmitted: bool = False


CLIENT = cast("AuthenticatedClient", None)
"""Stands for the facade that a driver passes to the generated function."""


def call(endpoint: Endpoint[P], returns: type[T], *args: P.args, **kwargs: P.kwargs) -> Call[T]:
    """Return a call whose arguments the type checkers hold against the generated signature."""
    if args:
        raise TypeError("generated functions with positional parameters are not supported")
    return Call(endpoint, kwargs, returns)


class Command:
    """Something that a driver can carry out; no repr shows what it carries."""


@define(eq=False, repr=False)
class Send(Command):
    """Send a call to the API; the result is what the generated function parsed."""

    call: Call[Any]
    api_key: str
    base_url: str
    headers: Mapping[str, str]
    timeout: float
    attempt: int


@define(eq=False, repr=False)
class Open(Command):
    """Start a GET on a signed URL, without our key; the result is an `Opened`."""

    url: str = field(converter=SecretUrl)
    headers: Mapping[str, str]
    timeout: float


@define(eq=False, repr=False)
class Opened:
    """The head of an answer from storage; header names are lower-case."""

    status_code: int
    headers: Mapping[str, str]
    retry_after: float | None = None


@define(eq=False, repr=False)
class Read(Command):
    """Read the next bytes of what was opened; the result is empty at the end."""

    timeout: float


@define(eq=False, repr=False)
class Close(Command):
    """Let go of what was opened. At the end of a flow the driver does so by itself."""


@define(eq=False, repr=False)
class Sleep(Command):
    """Do nothing for some seconds, or until the client is closed."""

    seconds: float


@define(eq=False, repr=False)
class Invoke(Command):
    """Call the user's code, and await what it returns where that is awaitable.

    The await ends after `timeout` seconds; code that blocks cannot be stopped.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    timeout: float


@define(eq=False, repr=False)
class Block(Command):
    """Call our own code that touches files; the async driver does so in a thread."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()


class Step(Generic[T]):
    """What a driver does next with a flow; its repr shows nothing of the answer that it carries."""

    def __init__(self, flow: Flow[T], result: object = None, error: BaseException | None = None) -> None:
        self._flow = flow
        self._result = result
        self._error = error

    def __call__(self) -> Command:
        """Let the flow go on to its next command."""
        if self._error is not None:
            return self._flow.throw(self._error)
        return self._flow.send(self._result)


# What `yield` returns has no type of its own: these give each command its result's.


def send(command: Send, _returns: type[T]) -> Flow[T]:
    """Yield a `Send`; the driver has checked the type."""
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
