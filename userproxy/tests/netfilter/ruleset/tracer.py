"""Walks a packet through a ruleset value, as the kernel would."""

from __future__ import annotations

import ipaddress
import itertools
import sys
from typing import TYPE_CHECKING

import msgspec

from userproxy.model.address import Address
from userproxy.model.heartbeat import BEAT_PORT, mark_of
from userproxy.netfilter.elements.access import constant_elements
from userproxy.netfilter.elements.packing import packing_of
from userproxy.netfilter.elements.table import Elements
from userproxy.netfilter.ruleset.chains import STATE_NEW, STATUS_DNAT, ruleset
from userproxy.netfilter.ruleset.language import (
    UDP,
    Constant,
    DnatBy,
    Equals,
    Erase,
    Field,
    Goto,
    HasAny,
    In,
    Jump,
    JumpBy,
    Masked,
    Match,
    Note,
    NotIn,
    Random,
    Rule,
    Simple,
)
from userproxy.netfilter.ruleset.sets import FAMILIES, IPV4, IPV6, PROTOCOLS
from userproxy.tests.twins import original, twin

if TYPE_CHECKING:
    from collections.abc import Iterable

    from userproxy.model.state import NodeState
    from userproxy.netfilter.ruleset.language import Chain, Key, Part
    from userproxy.netfilter.ruleset.sets import Family

_FOREIGN = {
    family.number: {other.source, other.destination, other.original_destination}
    for family, other in itertools.permutations(FAMILIES)
}
_DSTNAT_HOOKS = ("prerouting", "output")


FAMILY = IPV4
"""Of what is sent: with IPv6, all addresses have twins in the kernel, and those who ask need not know."""


class Packet(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules can see of a packet; the first of a new connection unless said otherwise."""

    source: str = "10.0.1.3"
    source_port: int = 40000
    destination: Address
    original: Address | None = None
    device: str = ""
    protocol: int = 6
    mark: int = 0
    state: int = STATE_NEW
    status: int = 0

    @property
    def family(self) -> Family:
        """As its destination has it."""
        return IPV6 if self.destination.is_ipv6 else IPV4


class Kernel:
    """Our table in this state; `draw` stands for the random number. Counts what is looked up.

    Args:
        state: of the table.
        draw: the random number.
        alive: whose workers' hearts beat, by index; None: all do.
    """

    def __init__(self, state: NodeState, draw: int = 0, alive: Iterable[int] | None = None) -> None:
        held = Elements(twin(state) if FAMILY is IPV6 else state)
        self.draw = draw
        self.lookups = 0
        self.ruleset = ruleset(held.made())
        self.chains = {chain.name: chain for chain in self.ruleset.chains}
        self.sets: dict[str, dict[bytes, bytes | str]] = {each.name: {} for each in self.ruleset.sets}
        self.ranges: dict[str, list[tuple[bytes, bytes]]] = {each.name: [] for each in self.ruleset.sets}
        for element in [*held, *constant_elements()]:
            if element.last:
                self.ranges[element.set].append((element.key, element.last))
            else:
                self.sets[element.set][element.key] = element.data or element.chain

        for index in range(state.workers) if alive is None else alive:
            self.beat(index)

    def beat(self, index: int, port: int = BEAT_PORT) -> str:
        """A worker's datagram over loopback, of IPv4 whatever the family; the verdict."""
        packet = Packet(
            source="127.0.0.1", destination=Address("127.0.0.1", port), protocol=UDP, mark=mark_of(index)
        )
        return self._send(packet, ("output",))[0]

    def elements(self, name: str) -> dict[bytes, bytes | str]:
        """The elements of the family's set of this name."""
        return self.sets[f"{name}{FAMILY.suffix}"]

    def send(self, packet: Packet, *point: str) -> tuple[str, Packet]:
        """The verdict after these hooks in turn (`prerouting`, `input`), and the packet as it leaves them."""
        if FAMILY is IPV4 or packet.destination.is_ipv6:
            return self._send(packet, point)
        verdict, sent = self._send(twin(packet), point)
        before = sent.original and Address(original(sent.original.ip), sent.original.port)
        destination = Address(original(sent.destination.ip), sent.destination.port)
        return verdict, msgspec.structs.replace(
            sent, source=packet.source, destination=destination, original=before
        )

    def _send(self, packet: Packet, points: Iterable[str]) -> tuple[str, Packet]:
        for each in points:
            base = [chain for chain in self.chains.values() if chain.hook and chain.hook.point == each]
            for chain in sorted(base, key=lambda chain: chain.hook.priority if chain.hook else 0):
                if chain.hook and chain.hook.type == "nat" and _is_settled(packet, each):
                    continue
                verdict, packet = self._walk(chain, packet)
                if verdict not in ("accept", ""):
                    return verdict, packet
        return "accept", packet

    def _walk(self, chain: Chain, packet: Packet) -> tuple[str, Packet]:
        for rule in chain.rules:
            if not all(self._holds(match, packet) for match in rule.matches):
                continue
            verdict, packet = self._decide(rule, packet)
            if verdict or isinstance(rule.action, Goto):
                return verdict, packet
        return "", packet

    def _decide(self, rule: Rule, packet: Packet) -> tuple[str, Packet]:
        match rule.action:
            case Jump(name) | Goto(name):
                return self._walk(self.chains[name], packet)
            case JumpBy(key, name):
                target = self._find(key, name, packet)
                return self._walk(self.chains[str(target)], packet) if target else ("", packet)
            case DnatBy(key, name):
                data = self._find(key, name, packet)
                if not isinstance(data, bytes):
                    return "", packet
                destination = packing_of(packet.destination.ip).unpack_address(data)
                return "accept", msgspec.structs.replace(
                    packet,
                    destination=destination,
                    original=packet.destination,
                    status=packet.status | STATUS_DNAT,
                )
            case Simple() as simple:
                return simple.value, packet

    def _holds(self, match: Match, packet: Packet) -> bool:
        match match:
            case Equals(field, value):
                return {
                    Field.FAMILY: packet.family.number,
                    Field.PROTOCOL: packet.protocol,
                    Field.PORT: packet.destination.port,
                }[field] == value
            case Masked(_, mask, value):
                return packet.mark & mask == value
            case HasAny(field, bits):
                return bool({Field.STATE: packet.state, Field.STATUS: packet.status}[field] & bits)
            case In(key, name):
                return self._find(key, name, packet) is not None
            case NotIn(key, name):
                return self._find(key, name, packet) is None
            case Note() | Erase():
                self._note(match, packet)
        return True

    def _note(self, note: Note | Erase, packet: Packet) -> None:
        key, held = self._key(note.key, packet), self.sets[note.set]
        if isinstance(note, Erase):
            held.pop(key, None)
        else:
            held.setdefault(key, self._key(note.data, packet))

    def _find(self, key: Key, name: str, packet: Packet) -> bytes | str | None:
        self.lookups += name != PROTOCOLS.name  # of a byte: the kernel keeps a bitmap
        packed = self._key(key, packet)
        if any(first <= packed <= last for first, last in self.ranges[name]):
            return ""
        return self.sets[name].get(packed)

    def _key(self, key: Key, packet: Packet) -> bytes:
        packed = b"".join(self._part(part, packet) for part in key)
        return packed[:1] if key in ((Field.PROTOCOL,), (Field.FAMILY,)) else packed

    def _part(self, part: Part, packet: Packet) -> bytes:
        if isinstance(part, Random):
            return (self.draw % part.modulus).to_bytes(4, sys.byteorder)
        if isinstance(part, Constant):
            return part.value.to_bytes(4, sys.byteorder)
        before = packet.original or packet.destination
        fields = {
            Field.FAMILY: bytes([packet.family.number, 0, 0, 0]),
            Field.MARK: packet.mark.to_bytes(4, sys.byteorder),
            Field.DEVICE: packet.device.encode().ljust(16, b"\0"),
            Field.SOURCE: _ip(packet.source),
            Field.SOURCE6: _ip(packet.source),
            Field.DESTINATION: _ip(packet.destination.ip),
            Field.DESTINATION6: _ip(packet.destination.ip),
            Field.PROTOCOL: bytes([packet.protocol, 0, 0, 0]),
            Field.PORT: _port(packet.destination),
            Field.SOURCE_PORT: _port(Address(packet.source, packet.source_port)),
            Field.ORIGINAL_DESTINATION: _ip(before.ip),
            Field.ORIGINAL_DESTINATION6: _ip(before.ip),
            Field.ORIGINAL_PORT: _port(before),
        }
        assert part not in _FOREIGN[packet.family.number], f"a rule of the other family looks at {packet}"
        return fields[part]


def _is_settled(packet: Packet, point: str) -> bool:
    """Whether no more nat rules are asked about the packet's connection here."""
    return not packet.state & STATE_NEW or (point in _DSTNAT_HOOKS and bool(packet.status & STATUS_DNAT))


def _ip(ip: str) -> bytes:
    return ipaddress.ip_address(ip).packed


def _port(address: Address) -> bytes:
    return address.port.to_bytes(2, "big") + bytes(2)
