"""The data side's UDP on loopback: a listener, clients and backends; a test sets the clock and the timers."""

from __future__ import annotations

import contextlib
import select
import socket as net
from _socket import socket
from typing import TYPE_CHECKING

from userproxy.backends.service import LiveService
from userproxy.dataplane.connections import ConnectionTable
from userproxy.dataplane.udp.datagrams import Datagrams
from userproxy.dataplane.udp.listener import listen
from userproxy.dataplane.udp.session import Session
from userproxy.model.address import Address
from userproxy.model.counters import Counters
from userproxy.model.service import Protocol, ServicePortName
from userproxy.model.settings import Settings
from userproxy.model.state import Backend, Serve
from userproxy.tests.dataplane.rig.polling import Polling
from userproxy.tests.sockets import Clock, VirtualTimers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from userproxy.dataplane.udp.listener import DatagramListener
    from userproxy.tests.sockets import Sockets

ECHO = ServicePortName("default", "echo")
LOOPBACK = "127.0.0.1"


class Exchange(Polling):
    """One process's part of UDP, driven by hand.

    Args:
        sockets: that are given back in the end.
        most: sessions.

    Attributes:
        ended: the sessions that are over, in order.
    """

    def __init__(self, sockets: Sockets, most: int = 100) -> None:
        self._sockets = sockets
        self.clock = Clock()
        self.timers = VirtualTimers()
        self.poller = sockets.poller(self.clock)
        self.counters = Counters()
        self.table = ConnectionTable(self.counters, recorded=10)
        self.ended: list[Session] = []
        self.datagrams = Datagrams(self.timers.loop, self.poller, self.table, self._on_ended, most)
        self.services: dict[ServicePortName, LiveService] = {}
        self.listener: DatagramListener

    def serve(
        self,
        *backends: socket | Address,
        name: ServicePortName = ECHO,
        sock: socket | None = None,
        **more: object,
    ) -> Serve:
        """Serve on a new listener, or on one that another process has had."""
        sock = sock or listen(Address(LOOPBACK, 0))
        serve = _serve(name, Address(*sock.getsockname()), backends, more)
        service = self.services[name] = LiveService(serve, counters=self.counters, clock=self.clock)
        self.listener = self.datagrams.open(serve, service, sock)
        return serve

    def change(
        self, serve: Serve, *backends: socket | Address, leaving: Sequence[socket] = (), **more: object
    ) -> None:
        """The Service has other backends."""
        changed = _serve(
            serve.service, serve.listener, backends, {"leaving": tuple(map(address_of, leaving)), **more}
        )
        self.services[serve.service].update(changed)
        self.listener.update(changed)

    def backend(self) -> socket:
        """A pod that a test plays."""
        sock = self._sockets.keep(socket(net.AF_INET, net.SOCK_DGRAM | net.SOCK_NONBLOCK))
        sock.bind((LOOPBACK, 0))
        return sock

    def gone(self) -> Address:
        """The address of a pod where nobody listens."""
        with contextlib.closing(socket(net.AF_INET, net.SOCK_DGRAM)) as sock:
            sock.bind((LOOPBACK, 0))
            return address_of(sock)

    def client(self, serve: Serve) -> socket:
        """A client that hears of the listener alone."""
        sock = self.backend()
        sock.connect((serve.listener.ip, serve.listener.port))
        return sock

    def says(self, client: socket, text: bytes = b"hello") -> None:
        """A client sends a datagram, and it is taken."""
        client.send(text)
        self.until(lambda: not _readable_listener(self.listener))

    def got(self, sock: socket) -> bytes:
        """The next datagram to arrive."""
        self.until(lambda: readable(sock))
        return sock.recv(1 << 16)

    def asked(self, backend: socket) -> tuple[bytes, tuple[str, int]]:
        """The next question to arrive at a pod, and from where."""
        self.until(lambda: readable(backend))
        datagram, peer = backend.recvfrom(1 << 16)
        return datagram, peer

    def is_ejected(self, serve: Serve, address: Address) -> bool:
        """Whether clients have found a backend to refuse."""
        live = self.services[serve.service].find(address)
        return live is not None and live.ejected

    def exchange(self, client: socket, backend: socket, question: bytes = b"hello") -> tuple[str, int]:
        """A question and its answer; returns whom the pod saw."""
        client.send(question)
        datagram, peer = self.asked(backend)
        assert datagram == question
        backend.sendto(b"re: " + question, peer)
        assert self.got(client) == b"re: " + question
        return peer

    @property
    def sessions(self) -> list[Session]:
        """Those that live, oldest first."""
        return [one for one in self.table.live.values() if isinstance(one, Session)]

    def reasons(self) -> list[str]:
        """Why sessions ended, in order."""
        return [str(one.reason) for one in self.ended]

    def pass_time(self, seconds: float) -> None:
        """So much later, timers have run."""
        self.clock.now += seconds
        self.timers.tick()

    def shut(self) -> None:
        """The end: nothing of any session is kept or counted."""
        self.datagrams.stop()
        assert not self.table.live
        assert not self.poller._handlers
        assert self.datagrams._shared.room.taken == 0
        assert not self.datagrams._shared.unheard.members
        for service in self.services.values():
            assert service.connections == 0
            assert all(live.connections == 0 for live in service.backends)

    def _on_ended(self, session: Session) -> None:
        self.table.remove(session)
        self.ended.append(session)


def readable(sock: socket) -> bool:
    """Whether there is something to be read."""
    return bool(select.select([sock], [], [], 0)[0])


def address_of(sock: socket) -> Address:
    """Where it is."""
    return Address(*sock.getsockname())


def _readable_listener(listener: DatagramListener) -> bool:
    return bool(select.select([listener.fileno()], [], [], 0)[0])


def _serve(
    name: ServicePortName, listener: Address, backends: Sequence[socket | Address], more: dict[str, object]
) -> Serve:
    addresses = (one if isinstance(one, Address) else address_of(one) for one in backends)
    fields = {"settings": Settings(), **more}
    return Serve(
        service=name,
        listener=listener,
        backends=tuple(map(Backend, addresses)),
        protocol=Protocol.UDP,
        **fields,  # type: ignore[arg-type]  # each has the type of its field
    )
