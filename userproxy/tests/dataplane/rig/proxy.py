"""The data side around connections: a table, a Service with backends, clients; no listeners."""

from __future__ import annotations

import errno
import os
import select
import socket as net
import struct
from _socket import socket
from typing import TYPE_CHECKING

from userproxy.backends.service import LiveService
from userproxy.dataplane.connections import ConnectionTable
from userproxy.dataplane.tcp.connection import Connection
from userproxy.dataplane.tcp.context import Context
from userproxy.dataplane.tcp.dial import Dial, Dialling
from userproxy.dataplane.tcp.greeting import Reception
from userproxy.dataplane.tcp.lifecycle import State
from userproxy.dataplane.tcp.pipes import PipePool
from userproxy.dataplane.tcp.sources import Sources
from userproxy.dataplane.tcp.waiting import WaitingRoom
from userproxy.model.address import Address
from userproxy.model.counters import Counters
from userproxy.model.service import ServicePortName
from userproxy.model.state import Backend, Serve
from userproxy.net.poller import Watch
from userproxy.net.sockets import reset_on_close, take_urgent_inline
from userproxy.tests.dataplane.rig.polling import PATIENCE
from userproxy.tests.sockets import Clock, VirtualTimers

if TYPE_CHECKING:
    from collections.abc import Callable

    from userproxy.model.service import PoolName
    from userproxy.model.settings import Settings
    from userproxy.tests.sockets import Sockets

LISTENER = Address("127.0.0.1", 10400)


class Proxy:
    """The data side around connections, without its listeners."""

    def __init__(self, sockets: Sockets) -> None:
        self._sockets = sockets
        self.clock = Clock()
        self.timers = VirtualTimers()
        self.poller = sockets.poller(self.clock)
        self.pipes = PipePool(4)
        self.table = ConnectionTable(Counters(), recorded=10)
        self.starved: list[OSError] = []
        self.needed: list[PoolName] = []
        self.context = Context(
            poller=self.poller,
            pipes=self.pipes,
            dialling=Dialling(
                self.poller,
                Watch(self.timers.loop, 0.05, Dial.look),
                starved=lambda _, error: self.starved.append(error),
                sources=Sources(self.table.counters),
            ),
            half_closed=Watch(self.timers.loop, 1.0, Connection.look_at_half_closed),
            resting=Watch(self.timers.loop, 0.1, Connection.wake),
            reception=Reception(self.timers.loop, self.poller),
            waiting=WaitingRoom(self.timers.loop, self.poller, self.table.counters, self.needed.append),
            id_of=self.table.id_of,
            ended=self.table.remove,
        )
        self.service = LiveService(Serve(service=ServicePortName("shop", "cart", "http"), listener=LISTENER))

    def serve(self, *backends: socket, settings: Settings | None = None) -> None:
        """Serve with these backends, sockets that are bound to their addresses, and maybe other settings."""
        pool = self.service.pool
        known = tuple(Backend(Address(*backend.getsockname())) for backend in backends)
        chosen = pool.settings if settings is None else settings
        self.service.update(Serve(service=pool.service, listener=LISTENER, backends=known, settings=chosen))
        self.context.waiting.settle(self.service)

    def accept(self, said: bytes = b"", *, finished: bool = False) -> tuple[Connection, socket]:
        """A new connection, and its client, who has said this much already, and maybe finished."""
        client, accepted = self._sockets.tcp_pair()
        take_urgent_inline(accepted)  # as it has it from a listener
        reset_on_close(accepted)
        if said:
            client.send(said)
            assert select.select([accepted], [], [], PATIENCE)[0]
        if finished:
            client.shutdown(net.SHUT_WR)
        connection = Connection(
            self.table.next_number(), self.context, self.service, accepted, client.getsockname()
        )
        self.table.add(connection)
        connection.open()
        return connection, client

    def listening(self, backlog: int = 8) -> socket:
        """A backend."""
        sock = self.bound()
        sock.listen(backlog)
        return sock

    def bound(self) -> socket:
        """A backend that refuses: it has its address, and does not listen."""
        sock = self._sockets.keep(socket(net.AF_INET, net.SOCK_STREAM | net.SOCK_NONBLOCK))
        sock.bind(("127.0.0.1", 0))
        return sock

    def silent(self) -> socket:
        """A backend that does not answer: its queue is full."""
        sock = self.listening(0)
        for _ in range(2):
            filler = self._sockets.keep(socket(net.AF_INET, net.SOCK_STREAM | net.SOCK_NONBLOCK))
            filler.connect_ex(sock.getsockname())
        return sock

    def taken(self, backend: socket) -> socket:
        """The connection that a backend got."""
        self.until(lambda: select.select([backend], [], [], 0)[0])
        fd, _ = backend._accept()  # type: ignore[attr-defined]  # what socket.accept() calls
        os.set_blocking(fd, False)
        return self._sockets.keep(socket(net.AF_INET, net.SOCK_STREAM | net.SOCK_NONBLOCK, 0, fd))

    def until(self, happened: Callable[[], object]) -> None:
        """Serve what is ready until something has happened."""
        for _ in range(100_000):
            if happened():
                return
            self.poller.dispatch()
        raise AssertionError("it does not happen")

    def received(self, sock: socket) -> bytes:
        """The next bytes to arrive; empty for the end."""
        self.until(lambda: select.select([sock], [], [], 0)[0])
        return sock.recv(1 << 16)

    def established(self) -> tuple[Connection, socket, socket]:
        """A connection, its client, and its backend's end."""
        backend = self.listening()
        self.serve(backend)
        connection, client = self.accept()
        there = self.taken(backend)
        assert connection.state is State.ESTABLISHED
        return connection, client, there

    def reaches(self, connection: Connection, state: State) -> bool:
        """Whether it gets into a state; if not, the test fails."""
        self.until(lambda: connection.state is state)
        return True

    def nothing_is_left(self) -> bool:
        """Whether nothing of any connection is kept or counted."""
        return (
            not self.table.live
            and self.service.connections == 0
            and all(live.connections == 0 for live in self.service.backends)
            and not self.context.dialling.waiting.members
            and not self.context.half_closed.members
            and not len(self.context.waiting)
            and not self.poller._handlers
            and self.pipes.lent == 0
        )


def reset(sock: socket) -> None:
    """Close with a reset."""
    reset_on_close(sock)
    sock.close()


def segments_sent(sock: socket) -> int:
    """How many TCP segments it has sent (`tcpi_segs_out` of struct tcp_info in linux/tcp.h)."""
    found: int = struct.unpack_from("I", sock.getsockopt(net.IPPROTO_TCP, net.TCP_INFO, 140), 136)[0]
    return found


def is_reset(proxy: Proxy, sock: socket) -> bool:
    """Whether it ends with a reset rather than in order."""
    try:
        return not proxy.received(sock) and False
    except ConnectionResetError:
        return True


class Slow(socket):
    """A socket whose handshake is not over before connect() returns, as with a backend on another node."""

    def connect_ex(self, address: object) -> int:
        """Of `socket`."""
        super().connect_ex(address)  # type: ignore[arg-type]
        return errno.EALREADY


class Narrow(socket):
    """A socket that takes little at once."""

    def connect_ex(self, address: object) -> int:
        """Of `socket`."""
        self.setsockopt(net.SOL_SOCKET, net.SO_SNDBUF, 4096)
        return super().connect_ex(address)  # type: ignore[arg-type]


class NarrowAndSlow(Narrow, Slow):
    """Both."""
