"""Service ports and their backends as the data side knows them: what is picked from, and what is counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userproxy.dataplane.balancer import RoundRobin

if TYPE_CHECKING:
    from userproxy.model.address import Address
    from userproxy.model.plan import Backend, Serve


class LiveBackend:
    """A backend of one Service port. Lives as long as the Service port has it, or a connection uses it.

    Attributes:
        backend: its address, node and zone.
        sockaddr: what to connect to.
        connections: how many live connections are on it, or being made to it.
        latency: seconds that connecting to it took last; None before the first time.
    """

    __slots__ = ("backend", "connections", "latency", "sockaddr")

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.sockaddr = (backend.address.ip, backend.address.port)
        self.connections = 0
        self.latency: float | None = None

    @property
    def address(self) -> Address:
        """The pod's address."""
        return self.backend.address


class LiveService:
    """One Service port that is served.

    Attributes:
        serve: what is wanted of it, as told last.
        balancer: whose turn it is.
        connections: how many live connections it has.
    """

    def __init__(self, serve: Serve) -> None:
        self.serve = serve
        self.connections = 0
        self.balancer: RoundRobin[LiveBackend] = RoundRobin()
        self.update(serve)

    def find(self, address: Address) -> LiveBackend | None:
        """The backend at an address, if it may be picked."""
        return next((live for live in self.balancer.candidates if live.address == address), None)

    def update(self, serve: Serve) -> None:
        """Take over new backends; those that stay keep their counts."""
        known = {live.address: live for live in self.balancer.candidates}
        self.serve = serve
        self.balancer.update(tuple(_kept(known.get(one.address), one) for one in serve.backends))


def _kept(live: LiveBackend | None, backend: Backend) -> LiveBackend:
    if live is None:
        return LiveBackend(backend)
    live.backend = backend
    return live
