"""Balancers in front that say who their clients are: read before anything else happens to a connection.

Only those networks are believed that the Service names, and theirs must begin with a header of the PROXY
protocol; nobody else's bytes are looked at.

| what happens | then |
|---|---|
| a header comes, in however many pieces | its client is the connection's; a backend is dialled |
| it names nobody (a balancer's own check) | likewise, under the balancer's address |
| something else comes, the end, or a reset | the connection is reset |
| nothing comes in time | likewise |
"""

from __future__ import annotations

import ipaddress
import socket as net
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import structlog

from userproxy.net.poller import READ, Watch
from userproxy.net.proxy_protocol import MOST_BYTES, BadHeaderError, decode

if TYPE_CHECKING:
    import asyncio
    from _socket import socket

    from userproxy.net.poller import Poller
    from userproxy.net.proxy_protocol import Header

log = structlog.get_logger(__name__)

# How often those that wait are looked at, and what a header may take: it is sent with the handshake.
_TICK_SECONDS = 0.25
_SECONDS = 5.0


def is_announced(client: str, networks: tuple[str, ...]) -> bool:
    """Whether connections from an IP begin with a header.

    Args:
        client: the IP.
        networks: of the balancers, in CIDR notation.
    """
    if not networks:
        return False
    ip = ipaddress.ip_address(client)
    return any(ip in network for network in _parsed(networks))


@lru_cache(maxsize=1024)
def _parsed(networks: tuple[str, ...]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(map(ipaddress.ip_network, networks))


class Greeted(Protocol):
    """Whose client has yet to be named.

    Attributes:
        number: unique while the daemon lives.
    """

    number: int

    def greeted(self, header: Header | None) -> None:
        """What was said; None if nothing that can be understood."""
        ...

    def abort(self) -> None:
        """Give everything up."""
        ...


class _Greeting:
    """One connection's header, as it comes in."""

    __slots__ = ("_begun", "_desk", "began", "owner", "sock")

    def __init__(self, desk: Reception, owner: Greeted, sock: socket, began: float) -> None:
        self.owner = owner
        self.sock = sock
        self.began = began
        self._desk = desk
        self._begun = b""

    def on_ready(self, _mask: int) -> None:
        """The poller's call: there is something to read, or an end."""
        try:
            seen = self.sock.recv(MOST_BYTES - len(self._begun), net.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            seen = b""
        begun = self._begun + seen
        try:
            header = decode(begun) if seen else None
        except BadHeaderError as failure:
            self._desk.complain(self.owner, str(failure))
            header, seen = None, b""
        # All of a header that goes on is the header's: what is behind it stays in the socket for the backend.
        if header is not None:
            self.sock.recv(header.size - len(self._begun))
        elif seen:
            self.sock.recv(len(seen))
            self._begun = begun
            return
        self._desk.leave(self.owner)
        self.owner.greeted(header)

    def abort(self) -> None:
        """`on_ready` or a look raised."""
        self.owner.abort()


class Reception:
    """All connections whose header is awaited. Lives as long as the data plane.

    Args:
        loop: that drives it.
        poller: of their sockets.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, poller: Poller) -> None:
        self._poller = poller
        self._watch: Watch[_Greeting] = Watch(loop, _TICK_SECONDS, self._look)

    def enter(self, owner: Greeted, sock: socket) -> None:
        """Read the header of a connection, and tell its owner."""
        greeting = _Greeting(self, owner, sock, self._poller.clock())
        self._poller.register(sock.fileno(), READ, greeting)
        self._watch.add(owner.number, greeting)

    def leave(self, owner: Greeted) -> None:
        """Read no more of it, if its header is awaited."""
        greeting = self._watch.members.pop(owner.number, None)
        if greeting is not None:
            self._poller.unregister(greeting.sock.fileno())

    def complain(self, owner: Greeted, failure: str) -> None:
        """Tell of one that is no header."""
        log.warning("a balancer did not say who its client is", number=owner.number, reason=f"not {failure}")

    def stop(self) -> None:
        """Look at nobody any more."""
        self._watch.stop()

    def _look(self, greeting: _Greeting) -> None:
        if self._poller.clock() - greeting.began >= _SECONDS:
            self.leave(greeting.owner)
            greeting.owner.greeted(None)
