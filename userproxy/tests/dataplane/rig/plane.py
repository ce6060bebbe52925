"""A whole data plane on loopback: real listeners, clients and backends, and timers that a test runs."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import socket as net
from typing import TYPE_CHECKING

import msgspec

from userproxy.dataplane.plane import DataPlane, Limits
from userproxy.dataplane.tcp.listener import listen
from userproxy.model.address import Address
from userproxy.model.service import ServicePortName
from userproxy.model.settings import Check, HealthCheck, Settings
from userproxy.model.state import Backend, Serve
from userproxy.tests.dataplane.rig.polling import Polling
from userproxy.tests.sockets import VirtualTimers

if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable, Iterator, Sequence

    from userproxy.model.counts import ServiceCount
    from userproxy.tests.sockets import Sockets

WEB, CART = ServicePortName("default", "web"), ServicePortName("shop", "cart", "http")
NOT_CHECKED = Check(kind=HealthCheck.OFF)


class Loop(VirtualTimers):
    """The part of an event loop that a data plane needs; a test drives the plane's sockets itself."""

    def add_reader(self, _fd: int, _callback: Callable[[], None]) -> None:
        """The test calls back."""

    def remove_reader(self, _fd: int) -> None:
        """Likewise."""


class Plane(Polling):
    """A data plane, its clients and its backends.

    Args:
        sockets: that are given back in the end.
        place: of this plane among all, and their number.
        max_connections: of the plane.
    """

    def __init__(
        self, sockets: Sockets, place: tuple[int, int] = (0, 1), max_connections: int = 1000
    ) -> None:
        self._sockets = sockets
        self.timers = Loop()
        self.plane = DataPlane(
            self.timers.loop, limits=Limits(max_connections, pipes=4), linger=60.0, place=place
        )
        self.poller = self.plane._poller

    def backend(self, backlog: int = 16) -> net.socket:
        """A pod: a listening socket."""
        sock = net.create_server(("127.0.0.1", 0), backlog=backlog)
        sock.setblocking(False)  # noqa: FBT003 - takes no keyword
        self._sockets.keep(sock)
        return sock

    def serve(
        self,
        *backends: net.socket,
        name: ServicePortName = WEB,
        settings: Settings | None = None,
        affinity: float | None = None,
    ) -> Serve:
        """Serve on a new listener."""
        sock = listen(Address("127.0.0.1", 0))
        serve = _serve(name, Address(*sock.getsockname()), backends, settings or Settings(check=NOT_CHECKED))
        serve = msgspec.structs.replace(serve, affinity=affinity)
        self.plane.serve([serve], {serve.name: sock})
        return serve

    def change(self, serve: Serve, *backends: net.socket, settings: Settings | None = None) -> Serve:
        """Tell the plane of other backends, or settings, of what it serves."""
        changed = _serve(serve.service, serve.listener, backends, settings or serve.settings)
        self.plane.serve([changed], {})
        return changed

    def connect(self, serve: Serve) -> net.socket:
        """A client that has connected to the listener; whether it is let in is to be seen.

        Raises:
            ConnectionRefusedError: nobody listens there.
        """
        client = net.create_connection((serve.listener.ip, serve.listener.port))
        client.setblocking(False)  # noqa: FBT003 - takes no keyword
        self._sockets.keep(client)
        return client

    def pair(self, serve: Serve, backend: net.socket) -> tuple[net.socket, net.socket]:
        """A connection through the plane: the client's end, and the backend's."""
        client = self.connect(serve)
        return client, self.taken(backend)

    def taken(self, backend: net.socket) -> net.socket:
        """The next connection that a backend gets."""
        self.until(lambda: readable(backend))
        there, _ = backend.accept()
        there.setblocking(False)  # noqa: FBT003 - takes no keyword
        self._sockets.keep(there)
        return there

    def relays(self, client: net.socket, there: net.socket) -> bool:
        """Whether what the client says arrives, and the answer too."""
        for sender, receiver in ((client, there), (there, client)):
            sender.send(b"hello")
            self.until(lambda end=receiver: readable(end))  # type: ignore[misc]
            if receiver.recv(100) != b"hello":
                return False
        return True

    def is_reset(self, sock: socket) -> bool:
        """Wait for its end; whether that is a reset."""
        self.until(lambda: readable(sock))
        try:
            sock.recv(1)
        except ConnectionResetError:
            return True
        return False

    def finish(self, client: net.socket, there: net.socket) -> None:
        """Both sides close in order, and the plane notices."""
        ended = self.plane.counters.connections_ended
        before = sum(ended.values())
        client.close()
        there.close()
        self.until(lambda: sum(ended.values()) > before)

    def report(self, name: ServicePortName = WEB) -> list[ServiceCount]:
        """What it tells of a Service port, a part for each of its lives."""
        return [count for count in self.plane.report() if count.pool.service_port == name]

    def told(self, name: ServicePortName = WEB) -> list[tuple[str, str, int]]:
        """Of its backends: address, state and connections."""
        return [
            (str(backend.address), backend.state, backend.connections)
            for count in self.report(name)
            for backend in count.backends
        ]

    def shut(self) -> None:
        """The end."""
        self.plane.close(list(self.plane.services))
        for connection in list(self.plane.connections.live.values()):
            connection.abort()
        self.plane.shut()


def readable(sock: socket) -> bool:
    """Whether there is something to be read, or accepted."""
    return bool(select.select([sock], [], [], 0)[0])


def address_of(sock: socket) -> Address:
    """Where it listens."""
    return Address(*sock.getsockname())


@contextlib.contextmanager
def files_left(count: int) -> Iterator[None]:
    """This process may open no more than so many files meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = [os.dup(0) for _ in range(count + 1)]
    for fd in free:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[count], hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _serve(
    name: ServicePortName, listener: Address, backends: Sequence[net.socket], settings: Settings
) -> Serve:
    return Serve(
        service=name,
        listener=listener,
        backends=tuple(Backend(address_of(backend)) for backend in backends),
        settings=settings,
    )
