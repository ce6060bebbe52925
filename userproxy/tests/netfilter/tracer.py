"""Walks a packet through a ruleset value, as the kernel would."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import msgspec

from userproxy.model.address import Address, canonical_ip
from userproxy.netfilter.elements import Elements, protocol_elements
from userproxy.netfilter.ruleset import (
    STATE_NEW,
    STATUS_DNAT,
    DnatBy,
    Equals,
    Field,
    Goto,
    HasAny,
    In,
    Jump,
    JumpBy,
    Match,
    Note,
    Random,
    Rule,
    Simple,
    ruleset,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from userproxy.model.state import Frontend, Target
    from userproxy.netfilter.ruleset import Chain, Key


class Packet(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules can see of a packet; the first of a new connection unless said otherwise."""

    source: str = "10.0.1.3"
    destination: Address
    protocol: int = 6
    state: int = STATE_NEW
    status: int = 0
    family: int = 2


class Kernel:
    """Our table with these captures and guards; `draw` stands for the random number."""

    def __init__(
        self, captures: Mapping[Frontend, Target], draw: int = 0, guards: Iterable[Frontend] = ()
    ) -> None:
        held = Elements(captures, guards)
        self.draw = draw
        self.ruleset = ruleset(held.sizes())
        self.chains = {chain.name: chain for chain in self.ruleset.chains}
        self.sets: dict[str, dict[bytes, bytes | str]] = {each.name: {} for each in self.ruleset.sets}
        for element in [*held, *protocol_elements()]:
            self.sets[element.set][element.key] = element.data or element.chain

    def send(self, packet: Packet, *point: str) -> tuple[str, Packet]:
        """The verdict after these hooks in turn (`prerouting`, `input`), and the packet as it leaves them."""
        for each in point:
            base = [chain for chain in self.chains.values() if chain.hook and chain.hook.point == each]
            for chain in sorted(base, key=lambda chain: chain.hook.priority if chain.hook else 0):
                if chain.hook and chain.hook.type == "nat" and not packet.state & STATE_NEW:
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
                target = self.sets[name].get(self._key(key, packet))
                return self._walk(self.chains[str(target)], packet) if target else ("", packet)
            case DnatBy(key, name):
                data = self.sets[name].get(self._key(key, packet))
                if not isinstance(data, bytes):
                    return "", packet
                ip = ".".join(str(byte) for byte in data[:4])
                destination = Address(canonical_ip(ip), int.from_bytes(data[4:6], "big"))
                return "accept", msgspec.structs.replace(
                    packet, destination=destination, status=packet.status | STATUS_DNAT
                )
            case Simple() as simple:
                return simple.value, packet

    def _holds(self, match: Match, packet: Packet) -> bool:
        match match:
            case Equals(field, value):
                return {Field.FAMILY: packet.family, Field.PROTOCOL: packet.protocol}[field] == value
            case HasAny(field, bits):
                return bool({Field.STATE: packet.state, Field.STATUS: packet.status}[field] & bits)
            case In(key, name):
                return self._key(key, packet) in self.sets[name]
            case Note(key, name):
                self.sets[name][self._key(key, packet)] = b""
                return True

    def _key(self, key: Key, packet: Packet) -> bytes:
        if len(key) == 1:
            return bytes([packet.protocol])
        return b"".join(self._part(part, packet) for part in key)

    def _part(self, part: Field | Random, packet: Packet) -> bytes:
        if isinstance(part, Random):
            return (self.draw % part.modulus).to_bytes(4, sys.byteorder)
        fields = {
            Field.SOURCE: bytes(map(int, packet.source.split("."))),
            Field.DESTINATION: bytes(map(int, packet.destination.ip.split("."))),
            Field.PROTOCOL: bytes([packet.protocol, 0, 0, 0]),
            Field.PORT: packet.destination.port.to_bytes(2, "big") + bytes(2),
        }
        return fields[part]
