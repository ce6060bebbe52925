"""The listening sockets of all workers, and what is served on each.

The control side holds them too: a worker that takes the place of a dead one gets them from here, so that none
is ever closed in between, and no client is refused.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, NamedTuple

from userproxy.dataplane.tcp.listener import listen as listen_to_streams
from userproxy.dataplane.udp.listener import listen as listen_to_datagrams
from userproxy.model.service import Protocol
from userproxy.net.sockets import reset_on_close

if TYPE_CHECKING:
    from collections.abc import Iterable

    from userproxy.model.address import Address
    from userproxy.model.service import PoolName
    from userproxy.model.state import Serve


class Opened(NamedTuple):
    """What came of opening listeners.

    Attributes:
        accepted: what is served now: new, or with other backends.
        names: of those that have a new listener.
        former: the sockets that have been replaced, to be closed once the workers know.
        failures: why listeners could not be opened.
    """

    accepted: list[Serve]
    names: frozenset[PoolName]
    former: list[socket.socket]
    failures: dict[PoolName, OSError]


class Listeners:
    """The sockets, by Service port. Lives as long as the worker pool.

    Attributes:
        serves: what is served on them.
        sockets: the listening sockets.
    """

    def __init__(self) -> None:
        self.serves: dict[PoolName, Serve] = {}
        self.sockets: dict[PoolName, socket.socket] = {}

    def open(self, serves: Iterable[Serve]) -> Opened:
        """Open the listeners that are new, and note what is served on all."""
        accepted: list[Serve] = []
        opened: dict[PoolName, socket.socket] = {}
        failures: dict[PoolName, OSError] = {}
        for serve in serves:
            known = self.serves.get(serve.name)
            if known is None or _place_of(known) != _place_of(serve):
                try:
                    opened[serve.name] = _open(serve)
                except OSError as error:
                    failures[serve.name] = error
                    continue
            accepted.append(serve)
        former = [self.sockets[name] for name in opened if name in self.sockets]
        self.sockets |= opened
        self.serves |= {serve.name: serve for serve in accepted}
        return Opened(accepted, frozenset(opened), former, failures)

    def adopt(self, serve: Serve, fd: int) -> None:
        """Take over a listening socket of an earlier daemon; a second one for a Service port is closed."""
        sock = socket.socket(fileno=fd)
        reset_on_close(sock)  # it may be older than the version that began to
        if serve.name in self.sockets:
            sock.close()
        else:
            self.sockets[serve.name] = sock
            self.serves[serve.name] = serve

    def discard(self, names: Iterable[PoolName]) -> None:
        """Close the sockets of these Service ports, which must be there."""
        for name in names:
            del self.serves[name]
            self.sockets.pop(name).close()

    def close(self) -> None:
        """Close all sockets here; workers have theirs."""
        for sock in self.sockets.values():
            sock.close()


def _place_of(serve: Serve) -> tuple[Protocol, Address]:
    return serve.protocol, serve.listener


def _open(serve: Serve) -> socket.socket:
    """A socket of the Service port's own.

    Raises:
        OSError: as the two functions have it.
    """
    listen = listen_to_datagrams if serve.protocol is Protocol.UDP else listen_to_streams
    return socket.socket(fileno=listen(serve.listener).detach())
