"""Our table in a state that was planned, and packets that are sent through it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from userproxy.model.address import Address
from userproxy.model.heartbeat import BEAT_PORT, mark_of
from userproxy.netfilter.elements.access import constant_elements
from userproxy.netfilter.elements.table import Elements
from userproxy.netfilter.ruleset.chains import ruleset
from userproxy.netfilter.ruleset.language import UDP
from userproxy.netfilter.ruleset.sets import IPV4, IPV6, PROTOCOLS
from userproxy.netfilter.trace.walk import Packet, Table
from userproxy.tests.twins import original, twin

if TYPE_CHECKING:
    from collections.abc import Iterable

    from userproxy.model.state import NodeState
    from userproxy.netfilter.ruleset.language import Key

FAMILY = IPV4
"""Of what is sent: with IPv6, all addresses have twins in the kernel, and those who ask need not know."""


class Kernel(Table):
    """Our table in this state. Counts what is looked up.

    Args:
        state: of the table.
        draw: the random number.
        alive: whose workers' hearts beat, by index; None: all do.
    """

    def __init__(self, state: NodeState, draw: int = 0, alive: Iterable[int] | None = None) -> None:
        held = Elements(twin(state) if FAMILY is IPV6 else state)
        super().__init__(ruleset(held.made()), [*held, *constant_elements()], draw)
        self.lookups = 0
        for index in range(state.workers) if alive is None else alive:
            self.beat(index)

    def beat(self, index: int, port: int = BEAT_PORT) -> str:
        """A worker's datagram over loopback, of IPv4 whatever the family; the verdict."""
        packet = Packet(
            source="127.0.0.1", destination=Address("127.0.0.1", port), protocol=UDP, mark=mark_of(index)
        )
        return super().send(packet, "output")[0]

    def elements(self, name: str) -> dict[bytes, bytes | str]:
        """The elements of the family's set of this name."""
        return self.sets[f"{name}{FAMILY.suffix}"]

    def find(self, key: Key, name: str, packet: Packet) -> bytes | str | None:
        """Of `Table`."""
        self.lookups += name != PROTOCOLS.name  # of a byte: the kernel keeps a bitmap
        return super().find(key, name, packet)

    def send(self, packet: Packet, *points: str) -> tuple[str, Packet]:
        """Of `Table`."""
        if FAMILY is IPV4 or packet.destination.is_ipv6:
            return super().send(packet, *points)
        verdict, sent = super().send(twin(packet), *points)
        before = sent.original and Address(original(sent.original.ip), sent.original.port)
        destination = Address(original(sent.destination.ip), sent.destination.port)
        return verdict, msgspec.structs.replace(
            sent, source=packet.source, destination=destination, original=before
        )
