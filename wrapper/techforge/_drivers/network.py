"""Code that the network backends of both drivers share.

Each connection has its own network backend. It knows whether the connection was established, and whether a
response has begun to arrive. So httpcore's public interface is enough.
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
    """The state of a connection, and the deadline of its current request."""

    def __init__(self, handshakes: int) -> None:
        """Expect this many TLS handshakes: one with the server, and one with an https proxy."""
        self._missing_handshakes = handshakes
        self._is_connected = False
        self.deadline = Deadline(math.inf)
        self.has_response = False
        """A byte has arrived since the request began."""

    def begin(self, deadline: Deadline) -> None:
        """Start a request."""
        self.deadline = deadline
        self.has_response = False

    def connected(self) -> None:
        """Record that the socket is connected."""
        self._is_connected = True

    def handshake_done(self) -> None:
        """Record the end of a TLS handshake. Bytes before it came from a proxy."""
        self._missing_handshakes -= 1
        self.has_response = False

    def stop_reading(self) -> bool:
        """Stop receiving. Return False, and continue, if the socket's buffer has unread bytes."""
        return True

    @property
    def is_established(self) -> bool:
        """Whether a request can have been sent: connected, through the proxy, and after the TLS handshake."""
        return self._is_connected and self._missing_handshakes <= 0


def is_address(host: str) -> bool:
    """Return whether a host is an IP address, which needs no name resolution."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def interleave_families(found: list[Address]) -> list[Address]:
    """Alternate the address families: a host may have many addresses of a family that does not work."""
    first = [address for address in found if address[0] == found[0][0]]
    others = [address for address in found if address[0] != found[0][0]]
    return [address for pair in zip_longest(first, others) for address in pair if address]


def has_input(descriptor: int) -> bool:
    """Return whether a socket is readable. On an idle connection, this means that it was closed."""
    if descriptor < 0:
        return True
    if not hasattr(select, "poll"):
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


@contextmanager
def as_httpcore_errors(broken: type[Exception], late: type[Exception]) -> Generator[None]:
    """Raise errors of the system as httpcore's errors."""
    try:
        yield
    except TimeoutError as error:
        raise late(str(error)) from error
    except OSError as error:
        raise broken(str(error)) from error
