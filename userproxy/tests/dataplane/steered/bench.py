"""A Service port that is steered, with numbered backends, and a clock that the test sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from userproxy.backends.service import LiveService
from userproxy.dataplane.steered.decision import Decision
from userproxy.dataplane.steered.port import Port
from userproxy.model.address import Address
from userproxy.model.counters import Counters
from userproxy.model.flow_key import flow_key, frontend_key
from userproxy.model.service import Protocol, ServicePortName
from userproxy.model.settings import Settings
from userproxy.model.state import Backend, Steer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

FRONTEND = Address("10.3.241.152", 80)


def address(number: int) -> Address:
    """Of the backend with this number."""
    return Address(f"10.0.1.{number + 1}", 8080)


def steer(numbers: Iterable[int], settings: Settings | None = None) -> Steer:
    """These backends, in this order."""
    return Steer(
        service=ServicePortName("default", "web"),
        backends=tuple(Backend(address(number)) for number in numbers),
        frontends=(FRONTEND,),
        settings=settings or Settings(),
    )


class Bench:
    """The decision about one Service port, of TCP and of UDP alike."""

    def __init__(self, count: int, settings: Settings | None = None) -> None:
        self.now = 1000.0
        self.settings = settings
        self.counters = Counters()
        wanted = steer(range(count), settings)
        self.service = LiveService(wanted, draw=lambda: 0.5, clock=lambda: self.now, counters=self.counters)
        self.port = Port(self.service, wanted)
        self.decision = Decision(self.counters, lambda: self.now)
        for protocol in Protocol:
            self.decision.frontends[frontend_key(protocol, FRONTEND)] = self.port
        self.decision.listed()
        self._tokens = 0

    def first(self, flow: bytes, sequence: int = 1) -> int:
        """A first packet."""
        self._tokens += 1
        return self.decision.first(flow, sequence, (self._tokens, 0))

    @property
    def token(self) -> int:
        """Of the packet that came last."""
        return self._tokens

    def update(self, numbers: Iterable[int], *moving: int) -> None:
        """The Service port has these backends from now on; the kernel is being told of these indices."""
        self.port.update(msgspec.structs.replace(steer(numbers, self.settings), moving=moving))
        self.decision.settle(self.port)

    def take_settled(self) -> list[tuple[int, int]]:
        """What has been said of held packets: of which one, and what."""
        found = [(token[0], answer) for token, answer in self.decision.settled]
        self.decision.settled.clear()
        return found

    def dialled(self, error: int = 0, *, failing: Collection[int] | None = None) -> list[int]:
        """Let the dials that were asked for have an outcome; returns whose they were.

        Args:
            error: that they have.
            failing: the backends whose dials have it, while the others' are answered; None: all.
        """
        asked, self.decision.to_dial = self.decision.to_dial, []
        whose = [self.number_of(live.address) for _, live in asked]
        for number, (port, live) in zip(whose, asked, strict=True):
            self.decision.dialled(port, live, error if failing is None or number in failing else 0, 0.001)
        return whose

    def counted(self) -> list[int]:
        """The connections on each backend."""
        return [live.connections for live in self.service.backends]

    @staticmethod
    def number_of(backend: Address) -> int:
        """Of the backend at this address."""
        return int(backend.ip.rpartition(".")[2]) - 1


def flow(client: int, port: int = 40000, protocol: Protocol = Protocol.TCP) -> bytes:
    """The key of a client's connection."""
    return flow_key(protocol, Address(f"10.0.9.{client}", port), FRONTEND)
