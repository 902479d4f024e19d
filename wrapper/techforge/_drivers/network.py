"""What the network backends of both drivers share.

Each connection has a network backend of its own. So httpcore's public interface is enough to know whether a
connection was established, and whether an answer has begun to arrive.
"""

from __future__ import annotations

import ipaddress
import math
import select
from contextlib import contextmanager
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TypeAlias

from techforge._drivers.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Generator

    # As `getaddrinfo` returns it: family, type, protocol, canonical name, address.
    Address: TypeAlias = tuple[Any, Any, int, str, Any]

ATTEMPT_DELAY = 0.25
"""Seconds after which the next address of a host is tried as well (RFC 8305, section 5)."""


class ConnectionState:
    """What a connection has come to, and the deadline of the request that it serves."""

    def __init__(self, handshakes: int) -> None:
        """Expect so many TLS handshakes: one with the server, and one with its proxy if that has TLS, too."""
        self._missing_handshakes = handshakes
        self._is_connected = False
        self.deadline = Deadline(math.inf)
        self.has_answer = False
        """A byte has arrived since the request began."""

    def begin(self, deadline: Deadline) -> None:
        """Begin a request."""
        self.deadline = deadline
        self.has_answer = False

    def connected(self) -> None:
        """Note that there is a socket."""
        self._is_connected = True

    def handshake_done(self) -> None:
        """Note the end of a TLS handshake; what came before it was a proxy's."""
        self._missing_handshakes -= 1
        self.has_answer = False

    def stop_reading(self) -> bool:
        """Receive nothing more; return False, and go on, if something waits at the socket."""
        return True

    @property
    def is_established(self) -> bool:
        """Whether a request can have been sent: connected, through the proxy, and past the TLS handshake."""
        return self._is_connected and self._missing_handshakes <= 0


def is_address(host: str) -> bool:
    """Tell whether a host is an IP address, which nobody has to look up."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def by_turns(found: list[Address]) -> list[Address]:
    """Let the families take turns: a host may have many addresses of a family that does not work here."""
    first = [address for address in found if address[0] == found[0][0]]
    others = [address for address in found if address[0] != found[0][0]]
    return [address for pair in zip_longest(first, others) for address in pair if address]


def has_input(descriptor: int) -> bool:
    """Tell whether a socket has anything to read; of an idle connection, that is its end."""
    if descriptor < 0:
        return True
    if not hasattr(select, "poll"):
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


@contextmanager
def raised_as(broken: type[Exception], late: type[Exception]) -> Generator[None]:
    """Raise what the system says as httpcore would."""
    try:
        yield
    except TimeoutError as error:
        raise late(str(error)) from error
    except OSError as error:
        raise broken(str(error)) from error
