"""Walks a packet through a ruleset value, as the kernel would. Pure."""

from __future__ import annotations

import ipaddress
import itertools
import sys
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from userproxy.model.address import Address
from userproxy.netfilter.elements.packing import packing_of
from userproxy.netfilter.ruleset.chains import STATE_INVALID, STATE_NEW, STATUS_DNAT
from userproxy.netfilter.ruleset.language import (
    Bits,
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
    Mark,
    Masked,
    Match,
    Note,
    NotIn,
    Over,
    Queue,
    Random,
    Rule,
    Simple,
    SnatBy,
)
from userproxy.netfilter.ruleset.sets import FAMILIES, IPV4, IPV6

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from userproxy.netfilter.elements.element import Element
    from userproxy.netfilter.ruleset.language import Chain, Hook, Key, Part, Ruleset
    from userproxy.netfilter.ruleset.sets import Family

_FOREIGN = {
    family.number: {other.source, other.destination, other.original_destination}
    for family, other in itertools.permutations(FAMILIES)
}
_OF_CONNECTIONS = {
    Field.ORIGINAL_PORT,
    Field.CONNECTION_PROTOCOL,
    *(family.original_destination for family in FAMILIES),
}
_ICMP = {IPV4.number: 1, IPV6.number: 58}
_DSTNAT_HOOKS = ("prerouting", "output")
PASSES = ("accept", "")
"""Verdicts after which a packet goes on."""


class Packet(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules can see of a packet; the first of a new connection unless said otherwise.

    Attributes:
        source: IP.
        source_port: of the sender.
        destination: IP and port, as they are now.
        original: the destination before it was rewritten; None if it was not.
        device: by which it came in; empty for the host's own.
        protocol: IPPROTO_TCP or IPPROTO_UDP.
        mark: of the packet.
        flags: of TCP; by default those of a SYN.
        user: whose socket sends it, if it is the host's own.
        state: of its connection, as a bit (`ct state`).
        status: of its connection, as bits (`ct status`).
        error: it tells by ICMP that the connection's packets do not arrive; `protocol` is the connection's.
        reply: whether it goes the way of its connection's answers (`ct direction`).
        has_socket: whether there is one that would get it, should it end on this host.
    """

    source: str = "10.0.1.3"
    source_port: int = 40000
    destination: Address
    original: Address | None = None
    device: str = ""
    protocol: int = 6
    mark: int = 0
    flags: int = 0x02
    user: int = 0
    state: int = STATE_NEW
    status: int = 0
    error: bool = False
    reply: bool = False
    has_socket: bool = True

    @property
    def family(self) -> Family:
        """As its destination has it."""
        return IPV6 if self.destination.is_ipv6 else IPV4

    @property
    def ip_protocol(self) -> int:
        """As its IP header has it."""
        return self.protocol if not self.error else _ICMP[self.family.number]


class Step(NamedTuple):
    """A rule that applied.

    Attributes:
        hook: of the base chain that the packet came by.
        chain: where the rule stands.
        rule: itself.
        packet: after it.
    """

    hook: Hook
    chain: str
    rule: Rule
    packet: Packet


class Table:
    """Our table with these elements.

    Args:
        ruleset: its static part.
        elements: of its sets and maps.
        draw: stands for the random number.
        answer: stands for the steering process: the packet with its answer. None: nobody listens.

    Attributes:
        steps: the rules that applied, of all packets that were sent.
        draw: as above.
        answer: likewise.
        counts: by set and key, how many connections live that were counted there; none if it is not known.
    """

    def __init__(
        self,
        ruleset: Ruleset,
        elements: Iterable[Element],
        draw: int = 0,
        answer: Callable[[Packet], Packet] | None = None,
    ) -> None:
        self.draw, self.answer = draw, answer
        self.steps: list[Step] = []
        self.counts: dict[tuple[str, bytes], int] = {}
        self.ruleset = ruleset
        self.chains = {chain.name: chain for chain in ruleset.chains}
        self.sets: dict[str, dict[bytes, bytes | str]] = {each.name: {} for each in ruleset.sets}
        self.ranges: dict[str, list[tuple[bytes, bytes]]] = {each.name: [] for each in ruleset.sets}
        for element in elements:
            if element.last:
                self.ranges[element.set].append((element.key, element.last))
            else:
                self.sets[element.set][element.key] = element.data or element.chain

    def send(self, packet: Packet, *points: str) -> tuple[str, Packet]:
        """The verdict after these hooks in turn (`prerouting`, `input`), and the packet as it leaves them."""
        for each in points:
            hooks = ((chain.hook, chain) for chain in self.chains.values() if chain.hook)
            here = [(hook, chain) for hook, chain in hooks if hook.point == each]
            for hook, chain in sorted(here, key=lambda pair: pair[0].priority):
                if hook.type == "nat" and _is_settled(packet, each):
                    continue
                verdict, packet = self._walk(hook, chain, packet)
                if verdict not in PASSES:
                    return verdict, packet
        return "accept", packet

    def _walk(self, hook: Hook, chain: Chain, packet: Packet) -> tuple[str, Packet]:
        for rule in chain.rules:
            if not all(self.holds(match, packet) for match in rule.matches):
                continue
            place = len(self.steps)
            verdict, packet, applied = self._decide(hook, rule, packet)
            if applied:
                self.steps.insert(place, Step(hook, chain.name, rule, packet))
            if verdict or isinstance(rule.action, Goto):
                return verdict, packet
        return "", packet

    def _decide(self, hook: Hook, rule: Rule, packet: Packet) -> tuple[str, Packet, bool]:
        """What the rule's action comes to, and whether it came to anything."""
        match rule.action:
            case Jump(name) | Goto(name):
                return *self._walk(hook, self.chains[name], packet), True
            case JumpBy(key, name):
                target = self.find(key, name, packet)
                if not target:
                    return "", packet, False
                return *self._walk(hook, self.chains[str(target)], packet), True
            case DnatBy() | SnatBy():
                translated = self._translate(rule.action, packet)
                return ("accept", translated, True) if translated else ("", packet, False)
            case Queue():
                return "accept", self.answer(packet) if self.answer else packet, True
            case Mark() | Simple():
                return *_done(rule.action, packet), True

    def _translate(self, action: DnatBy | SnatBy, packet: Packet) -> Packet | None:
        """The packet with another destination or source; None if the map has none for it."""
        data = self.find(action.key, action.map, packet)
        if not isinstance(data, bytes):
            return None
        if isinstance(action, SnatBy):
            return msgspec.structs.replace(packet, source=str(ipaddress.ip_address(data)))
        return msgspec.structs.replace(
            packet,
            destination=packing_of(packet.destination.ip).unpack_address(data),
            original=packet.destination,
            status=packet.status | STATUS_DNAT,
        )

    def holds(self, match: Match, packet: Packet) -> bool:
        """Whether a match of a rule does; what the rule notes by it is noted."""
        match match:
            case Equals(field, value):
                return {
                    Field.TRANSPARENT: 0 if packet.has_socket else None,
                    Field.FAMILY: packet.family.number,
                    Field.PROTOCOL: packet.ip_protocol,
                    Field.CONNECTION_PROTOCOL: packet.protocol,
                    Field.PORT: packet.destination.port,
                    Field.DIRECTION: packet.reply,
                }[field] == value
            case Masked(field, mask, value):
                return _bits_of(field, packet) & mask == value
            case HasAny(field, bits):
                return bool(_bits_of(field, packet) & bits)
            case In(key, name) | NotIn(key, name):
                return (self.find(key, name, packet) is None) is isinstance(match, NotIn)
            case Note() | Erase():
                self._note(match, packet)
            case Over(key, name, most):
                return self.counts.get((name, self.key(key, packet)), 0) >= most
        return True

    def _note(self, note: Note | Erase, packet: Packet) -> None:
        key, held = self.key(note.key, packet), self.sets[note.set]
        if isinstance(note, Erase):
            held.pop(key, None)
        else:
            held.setdefault(key, self.key(note.data, packet))

    def find(self, key: Key, name: str, packet: Packet) -> bytes | str | None:
        """What a set or map has for a packet; None if nothing, and an empty text in a set."""
        if packet.state == STATE_INVALID and _OF_CONNECTIONS.intersection(key):
            return None  # the rule breaks off: there is no connection that could be asked
        packed = self.key(key, packet)
        if any(first <= packed <= last for first, last in self.ranges[name]):
            return ""
        return self.sets[name].get(packed)

    def key(self, key: Key, packet: Packet) -> bytes:
        """What a packet is looked up by."""
        packed = b"".join(self._part(part, packet) for part in key)
        return packed[:1] if key in ((Field.PROTOCOL,), (Field.FAMILY,)) else packed

    def _part(self, part: Part, packet: Packet) -> bytes:
        if isinstance(part, Random):
            return (part.offset + self.draw % part.modulus).to_bytes(4, sys.byteorder)
        if isinstance(part, Constant):
            return part.value.to_bytes(4, sys.byteorder)
        if isinstance(part, Bits):
            return (_bits_of(part.field, packet) & part.mask).to_bytes(4, sys.byteorder)
        if part in _FOREIGN[packet.family.number]:
            raise ValueError(f"a rule of the other family looks at {packet}")
        before = packet.original or packet.destination
        fields = {
            Field.FAMILY: bytes([packet.family.number, 0, 0, 0]),
            Field.MARK: packet.mark.to_bytes(4, sys.byteorder),
            Field.USER: packet.user.to_bytes(4, sys.byteorder),
            Field.DEVICE: packet.device.encode().ljust(16, b"\0"),
            Field.SOURCE: _ip(packet.source),
            Field.SOURCE6: _ip(packet.source),
            Field.DESTINATION: _ip(packet.destination.ip),
            Field.DESTINATION6: _ip(packet.destination.ip),
            Field.PROTOCOL: bytes([packet.ip_protocol, 0, 0, 0]),
            Field.CONNECTION_PROTOCOL: bytes([packet.protocol, 0, 0, 0]),
            Field.PORT: _port(packet.destination.port),
            Field.SOURCE_PORT: _port(packet.source_port),
            Field.ORIGINAL_DESTINATION: _ip(before.ip),
            Field.ORIGINAL_DESTINATION6: _ip(before.ip),
            Field.ORIGINAL_PORT: _port(before.port),
        }
        return fields[part]


def _done(action: Mark | Simple, packet: Packet) -> tuple[str, Packet]:
    if isinstance(action, Mark):
        return "", msgspec.structs.replace(packet, mark=packet.mark & action.keep | action.put)
    return action.value, packet


def _bits_of(field: Field, packet: Packet) -> int:
    return {
        Field.STATE: packet.state,
        Field.STATUS: packet.status,
        Field.MARK: packet.mark,
        Field.TCP_FLAGS: packet.flags,
    }[field]


def _is_settled(packet: Packet, point: str) -> bool:
    """Whether no more nat rules are asked about the packet's connection here."""
    return not packet.state & STATE_NEW or (point in _DSTNAT_HOOKS and bool(packet.status & STATUS_DNAT))


def _ip(ip: str) -> bytes:
    return ipaddress.ip_address(ip).packed


def _port(port: int) -> bytes:
    return port.to_bytes(2, "big") + bytes(2)
