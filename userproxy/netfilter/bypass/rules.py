"""One rule of somebody else's: which destinations it names, and what it does with them. Pure.

A rule is a list of expressions that load parts of the packet into registers, compare them, and decide
(linux/netfilter/nf_tables.h). What is not understood here makes the rule unsure, not an error: a rule that
names a destination is there for that destination, whatever else it asks.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import TYPE_CHECKING, NamedTuple

from userproxy.netfilter.wire.netlink import attributes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ANY_FAMILY, IPV4, IPV6 = 0, 2, 10
"""As the kernel numbers them (NFPROTO_...)."""
_IPV6_BEGINS = 1 << 128
"""Addresses of both families are on one line of numbers, those of IPv6 behind those of IPv4."""
EVERY_ADDRESS = {
    ANY_FAMILY: (0, 2 * _IPV6_BEGINS - 1),
    IPV4: (0, 0xFFFFFFFF),
    IPV6: (_IPV6_BEGINS, 2 * _IPV6_BEGINS - 1),
}
"""By family, the first and the last number."""
INTERVAL_END = 1  # NFT_SET_ELEM_INTERVAL_END

_PROTOCOL, _DESTINATION, _PORT = "protocol", "destination", "port"
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_META_FAMILY, _META_PROTOCOL = 15, 16
_OF_EITHER = ((_PROTOCOL, -_META_PROTOCOL, 0, 1), (_PORT, _TRANSPORT_HEADER, 2, 2))
_PLACES = {
    IPV4: ((_PROTOCOL, _NETWORK_HEADER, 9, 1), (_DESTINATION, _NETWORK_HEADER, 16, 4), *_OF_EITHER),
    IPV6: ((_PROTOCOL, _NETWORK_HEADER, 6, 1), (_DESTINATION, _NETWORK_HEADER, 24, 16), *_OF_EITHER),
}
"""By family, where in a packet the parts of a destination are: their header, offset and size."""
_SIZES = {_PROTOCOL: 1, _PORT: 2}
_ADDRESS_SIZES = {IPV4: 4, IPV6: 16}
_EQUAL = 0
_INVERTED = 1
_JUMPS = (-3, -4)
_REGISTER_BASE, _SLOTS_A_REGISTER, _SLOT = 8, 4, 4
_DNAT = 1
_TRANSLATING_TARGETS = (b"DNAT", b"REDIRECT", b"NETMAP", b"TPROXY")  # of iptables
_LONGEST = 8  # both IPv4 addresses at once; what is longer is IPv6, where nothing has said so
_HARMLESS = ("counter", "log", "masq", "objref", "last")


class Destinations(NamedTuple):
    """What packets are addressed to.

    Attributes:
        first: the lowest address, as a number (`number_of`).
        last: the highest one.
        protocol: its number; 0 for any.
        port: 0 for any.
    """

    first: int
    last: int
    protocol: int = 0
    port: int = 0

    def has(self, ip: int, protocol: int, port: int) -> bool:
        """Whether packets to that address, by that protocol, are among them."""
        return self.first <= ip <= self.last and self.protocol in (0, protocol) and self.port in (0, port)


def number_of(packed: bytes) -> int:
    """Where an address is on the line of numbers."""
    number = int.from_bytes(packed, "big")
    return number + _IPV6_BEGINS if len(packed) == _ADDRESS_SIZES[IPV6] else number


def number_of_text(ip: str) -> int:
    """The same of an address in text form."""
    return number_of(ipaddress.ip_address(ip).packed)


class Lookup(NamedTuple):
    """A rule's look into a set or a map.

    Attributes:
        set: its name.
        fields: where in the key the parts of a destination are: name to (offset, size), in bytes.
        inverted: what is not in the set is meant.
    """

    set: str
    fields: Mapping[str, tuple[int, int]]
    inverted: bool

    @property
    def names_destinations(self) -> bool:
        """Whether the keys have destination addresses."""
        return _DESTINATION in self.fields and not self.inverted

    def destinations(self, key: bytes, last: bytes) -> Destinations:
        """What an element stands for; `last` is the end of its range, or the key again."""
        parts = {}
        for name, (offset, size) in self.fields.items():
            part = slice(offset, offset + size)
            parts[name] = (number_of(key[part]), number_of(last[part]))
        single = {name: low if low == high else 0 for name, (low, high) in parts.items()}
        return Destinations(*parts[_DESTINATION], single.get(_PROTOCOL, 0), single.get(_PORT, 0))


class Line(NamedTuple):
    """What a rule comes to.

    Attributes:
        destinations: that it names; None if it names no address.
        rest: likewise, with protocol and port but for any address.
        sure: whether nothing else is asked of a packet.
        lookups: into sets, in order.
        chain: where it jumps or goes; empty if it does not.
        translates: it gives a packet another destination.
    """

    destinations: Destinations | None
    rest: Destinations
    sure: bool
    lookups: tuple[Lookup, ...]
    chain: str
    translates: bool


class _Loaded(NamedTuple):
    """What a register has: some bytes of a header, masked."""

    header: int
    offset: int
    size: int
    mask: bytes = b""


def read_rule(expressions: Iterable[tuple[str, Mapping[int, bytes]]], family: int = ANY_FAMILY) -> Line:
    """Read a rule of a table of that family, by the name and the attributes of each of its expressions."""
    reading = _Reading(family)
    for name, fields in expressions:
        reading.take(name, fields)
    return reading.line()


def ranges(elements: Iterable[tuple[bytes, bytes | None, int]]) -> list[tuple[bytes, bytes, int]]:
    """The ranges of keys that a set's elements amount to, each with the number of the element it begins at.

    Args:
        elements: key, the range's last key where the kernel lists it so, and flags. A range is listed in
            this way, or as two elements, the second of which has `INTERVAL_END` and is the first key beyond.
    """
    listed = [(key, last, flags, number) for number, (key, last, flags) in enumerate(elements)]
    if not any(flags & INTERVAL_END for _, _, flags, _ in listed):
        return [(key, last or key, number) for key, last, _, number in listed]
    found, listed = [], sorted(listed, key=lambda each: (each[0], not each[2] & INTERVAL_END))
    for (key, _, flags, number), (end, _, _, _) in zip(listed, [*listed[1:], (b"", b"", 0, 0)], strict=True):
        if not flags & INTERVAL_END:
            beyond = int.from_bytes(end, "big") if end else 1 << 8 * len(key)
            found.append((key, (beyond - 1).to_bytes(len(key), "big"), number))
    return found


def is_translating_target(name: bytes) -> bool:
    """Whether that target of iptables gives a packet another destination."""
    return name in _TRANSLATING_TARGETS


class _Reading:
    """The registers while a rule is read, and what has been asked of a packet so far."""

    def __init__(self, family: int) -> None:
        self._family = family
        self._slots: dict[int, _Loaded] = {}
        self._asked: dict[str, tuple[int, int]] = {}
        self._sure = True
        self._lookups: list[Lookup] = []
        self._chain = ""
        self._translates = False

    def take(self, name: str, fields: Mapping[int, bytes]) -> None:
        """Go on with the next expression."""
        match name:
            case "payload":
                self._load_payload(fields)
            case "meta":
                self._load_meta(fields)
            case "bitwise":
                self._mask(fields)
            case "cmp":
                self._compare(fields)
            case "lookup":
                self._look_up(fields)
            case "immediate":
                self._decide(fields)
            case "match":
                self._match_of_iptables(fields)
            case "nat" | "target" | "redir" | "tproxy":
                self._translates |= _is_translation(name, fields)
            case _ if name not in _HARMLESS:
                self._sure = False
                self._slots.clear()  # it may have loaded something

    def line(self) -> Line:
        every = EVERY_ADDRESS[self._family]
        first, last = self._asked.get(_DESTINATION, every)
        protocol, port = (self._asked.get(name, (0, 0))[0] for name in (_PROTOCOL, _PORT))
        rest = Destinations(*every, protocol, port)
        named = Destinations(first, last, protocol, port) if _DESTINATION in self._asked else None
        return Line(named, rest, self._sure, tuple(self._lookups), self._chain, self._translates)

    def _load_payload(self, fields: Mapping[int, bytes]) -> None:
        header, offset, size = (_number(fields, kind) for kind in (2, 3, 4))
        if 1 in fields:
            self._load(_number(fields, 1), _Loaded(header, offset, size))

    def _load_meta(self, fields: Mapping[int, bytes]) -> None:
        key = _number(fields, 2)
        if 1 not in fields:  # it sets something
            return
        self._load(_number(fields, 1), _Loaded(-key, 0, 1 if key == _META_PROTOCOL else 4))

    def _mask(self, fields: Mapping[int, bytes]) -> None:
        loaded = self._slots.get(_slot(_number(fields, 1)))
        if loaded is not None:
            self._load(_number(fields, 2), loaded._replace(mask=_value(fields.get(4, b""))))

    def _compare(self, fields: Mapping[int, bytes]) -> None:
        loaded = self._slots.get(_slot(_number(fields, 1)))
        value = _value(fields.get(3, b""))
        if loaded is None or _number(fields, 2) != _EQUAL:
            self._sure = False
            return
        if loaded.header == -_META_FAMILY and value[0] in _PLACES:
            self._family = self._family or value[0]
        covered = 0
        for name, header, offset, size in _PLACES[self._family_of(loaded)]:
            if loaded.header == header:
                begin = max(offset, loaded.offset)
                end = min(offset + size, loaded.offset + loaded.size)
                if begin < end:
                    part = slice(begin - loaded.offset, end - loaded.offset)
                    self._ask(name, value[part], (loaded.mask or b"\xff" * loaded.size)[part])
                    covered += end - begin
        if covered < loaded.size and loaded.header != -_META_FAMILY:
            self._sure = False

    def _look_up(self, fields: Mapping[int, bytes]) -> None:
        slot = _slot(_number(fields, 2))
        found: dict[str, tuple[int, int]] = {}
        for where, loaded in self._slots.items():
            for name, header, offset, size in _PLACES[self._family_of(loaded)]:
                if where >= slot and loaded[:3] == (header, offset, size) and not loaded.mask:
                    found[name] = ((where - slot) * _SLOT, size)
        name = fields[1].rstrip(b"\0").decode(errors="replace")
        self._lookups.append(Lookup(name, found, inverted=bool(_number(fields, 5) & _INVERTED)))
        self._slots.clear()

    def _decide(self, fields: Mapping[int, bytes]) -> None:
        verdict = dict(attributes(dict(attributes(fields.get(2, b""))).get(2, b"")))
        if 1 in verdict and struct.unpack(">i", verdict[1])[0] in _JUMPS:
            self._chain = verdict[2].rstrip(b"\0").decode(errors="replace")

    def _match_of_iptables(self, fields: Mapping[int, bytes]) -> None:
        name, info = fields[1].rstrip(b"\0"), fields.get(3, b"")
        if name in (b"tcp", b"udp") and len(info) >= struct.calcsize("=4H"):
            _, _, lowest, highest = struct.unpack_from("=4H", info)
            if lowest == highest:
                self._ask(_PORT, lowest.to_bytes(2, "big"), b"\xff\xff")
            elif (lowest, highest) != (0, 0xFFFF):
                self._sure = False
        elif name != b"comment":
            self._sure = False

    def _ask(self, name: str, value: bytes, mask: bytes) -> None:
        size = _SIZES.get(name) or _ADDRESS_SIZES[self._family]
        missing = bytes(size - len(value))
        low, bits = (int.from_bytes(part + missing, "big") for part in (value, mask))
        first, last = low & bits, low | (~bits & (1 << 8 * size) - 1)
        self._asked[name] = number_of(first.to_bytes(size, "big")), number_of(last.to_bytes(size, "big"))

    def _family_of(self, loaded: _Loaded) -> int:
        """Of the rule; where nothing has said it yet, that of what it looks at."""
        if not self._family and loaded.header == _NETWORK_HEADER:
            self._family = IPV6 if loaded.size > _LONGEST else IPV4
        return self._family or IPV4

    def _load(self, register: int, loaded: _Loaded) -> None:
        self._slots[_slot(register)] = loaded


def _is_translation(name: str, fields: Mapping[int, bytes]) -> bool:
    if name == "nat":
        return _number(fields, 1) == _DNAT
    return name != "target" or is_translating_target(fields[1].rstrip(b"\0"))


def _slot(register: int) -> int:
    """Registers of 16 bytes are four of 4 bytes under another name."""
    if register >= _REGISTER_BASE:
        return register - _REGISTER_BASE
    return (register - 1) * _SLOTS_A_REGISTER


def _number(fields: Mapping[int, bytes], kind: int) -> int:
    return int.from_bytes(fields.get(kind, b""), "big")


def _value(packed: bytes) -> bytes:
    return dict(attributes(packed)).get(1, b"")
