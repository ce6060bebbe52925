"""Entries of conntrack on the wire: how to ask for some of them, and how to read one.

linux/netfilter/nfnetlink_conntrack.h and nf_conntrack_netlink.c.
"""

from __future__ import annotations

import functools
import ipaddress
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from userproxy.model.address import Address
from userproxy.model.service import Protocol
from userproxy.netfilter.ruleset.chains import STATUS_DNAT
from userproxy.netfilter.ruleset.language import TCP, UDP
from userproxy.netfilter.ruleset.steering import STATUS_SEEN_REPLY
from userproxy.netfilter.wire.netlink import Message, attribute, attributes

if TYPE_CHECKING:
    from collections.abc import Mapping

NETLINK_NETFILTER = 12
_HEADER = struct.Struct(">BBH")  # struct nfgenmsg: family, ...
ORIGINAL, REPLY, STATUS, PROTOCOL_INFO, TIMEOUT = 1, 2, 3, 4, 7
COUNTERS_UP, COUNTERS_DOWN, ID, TIMESTAMP = 9, 10, 12, 20

_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK
_FILTER, _STATUS_MASK, _FILTER_ORIGINAL = 25, 26, 1
_IP, _PROTOCOL = 1, 2
_SOURCE_IP, _DESTINATION_IP, _SOURCE_IP6, _DESTINATION_IP6 = 1, 2, 3, 4
_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3
_NESTED = 0x8000
_IPV4_BYTES = 4
_BY_DESTINATION, _BY_PROTOCOL, _BY_DESTINATION_PORT = 1 << 1, 1 << 3, 1 << 5  # CTA_FILTER_F_*

_NUMBERS = {Protocol.TCP: TCP, Protocol.UDP: UDP}
_PROTOCOLS = {number: protocol for protocol, number in _NUMBERS.items()}


class Direction(NamedTuple):
    """One direction of an entry, as its packets carry it.

    Attributes:
        protocol: TCP or UDP.
        source: of packets in this direction.
        destination: of packets in this direction.
    """

    protocol: Protocol
    source: Address
    destination: Address


class Status(NamedTuple):
    """Of entries that are asked for: these bits (IPS_...) of the mask, and no others of it."""

    bits: int
    mask: int


TRANSLATED = Status(STATUS_DNAT, STATUS_DNAT)
"""Sent elsewhere than they were addressed."""
UNHEARD = Status(0, STATUS_DNAT | STATUS_SEEN_REPLY)
"""Not so, and not answered."""


def question(
    protocol: Protocol | None = None, destination: Address | None = None, status: Status | None = None
) -> Message:
    """Ask for the entries of one protocol to one original destination, or for all.

    More may be listed than was asked for: by a kernel older than 5.8, or 5.15 for `status`, and for IPv6.
    Look at the answers again.
    """
    family, wanted = int(socket.AF_UNSPEC), b""
    if protocol is not None and destination is not None:
        family = _family_of(ipaddress.ip_address(destination.ip).packed)
        wanted = _original_filter(protocol, destination)
    return Message(_GET, 0, _HEADER.pack(family, 0, 0) + wanted + _status_filter(status), "conntrack")


def questions(protocol: Protocol, status: Status | None = None) -> tuple[Message, ...]:
    """Ask for all entries of a protocol: the kernel filters those of one family at a time."""
    wanted = _original_filter(protocol) + _status_filter(status)
    return tuple(
        Message(_GET, 0, _HEADER.pack(family, 0, 0) + wanted, "conntrack")
        for family in (socket.AF_INET, socket.AF_INET6)
    )


def deletion(original: bytes, number: bytes = b"") -> Message:
    """Delete the entry with this original direction, packed as the kernel listed it.

    Args:
        original: the direction.
        number: the entry is left alone if it is no longer the one with this number (CTA_ID), likewise packed.
    """
    _, destination = _ips(dict(attributes(original)).get(_IP, b""))
    body = _HEADER.pack(_family_of(destination), 0, 0) + attribute(ORIGINAL | _NESTED, original)
    if number:
        body += attribute(ID, number)
    return Message(_DELETE, 0, body, "conntrack entry")


def end_of(original: Direction, number: int) -> Message:
    """Delete the entry with this original direction, if it is still the one with this number (CTA_ID)."""
    return deletion(_packed(original), number.to_bytes(4, "big"))


def lookup(original: Direction) -> Message:
    """Ask for the one entry with this original direction."""
    return deletion(_packed(original))._replace(kind=_GET)


def fields_of(body: bytes) -> dict[int, bytes]:
    """The attributes of a listed entry."""
    return dict(attributes(body, _HEADER.size))


def status_of(fields: Mapping[int, bytes]) -> int:
    """The bits of its status (IPS_...)."""
    return int.from_bytes(fields.get(STATUS, b""), "big")


def direction(packed: bytes) -> Direction | None:
    """Read the original or the reply direction; None if it is neither TCP nor UDP."""
    parts = dict(attributes(packed))
    ports = dict(attributes(parts.get(_PROTOCOL, b"")))
    protocol = _PROTOCOLS.get(int.from_bytes(ports.get(_NUMBER, b""), "big"))
    source, destination = _ips(parts.get(_IP, b""))
    if protocol is None or not source or not destination:
        return None
    return Direction(
        protocol,
        _address(source, ports[_SOURCE_PORT]),
        _address(destination, ports[_DESTINATION_PORT]),
    )


def _packed(original: Direction) -> bytes:
    """As the kernel lists it."""
    source, destination = (ipaddress.ip_address(each.ip).packed for each in original[1:])
    kinds = (_SOURCE_IP, _DESTINATION_IP) if len(source) == _IPV4_BYTES else (_SOURCE_IP6, _DESTINATION_IP6)
    ips = b"".join(attribute(kind, ip) for kind, ip in zip(kinds, (source, destination), strict=True))
    ports = (
        attribute(_NUMBER, bytes([_NUMBERS[original.protocol]]))
        + attribute(_SOURCE_PORT, original.source.port.to_bytes(2, "big"))
        + attribute(_DESTINATION_PORT, original.destination.port.to_bytes(2, "big"))
    )
    return attribute(_IP | _NESTED, ips) + attribute(_PROTOCOL | _NESTED, ports)


def _original_filter(protocol: Protocol, destination: Address | None = None) -> bytes:
    flags = _BY_PROTOCOL
    ports = attribute(_NUMBER, bytes([_NUMBERS[protocol]]))
    addresses = b""
    if destination is not None:
        flags |= _BY_DESTINATION_PORT
        ports += attribute(_DESTINATION_PORT, destination.port.to_bytes(2, "big"))
    # Asked for an IPv6 address, the kernel (6.18) lists all entries but those that have it
    # (ctnetlink_filter_match_tuple takes the outcome of ipv6_addr_cmp the wrong way round).
    if destination is not None and not destination.is_ipv6:
        flags |= _BY_DESTINATION
        packed = ipaddress.IPv4Address(destination.ip).packed
        addresses = attribute(_IP | _NESTED, attribute(_DESTINATION_IP, packed))
    original = addresses + attribute(_PROTOCOL | _NESTED, ports)
    wanted = attribute(_FILTER_ORIGINAL, struct.pack("=I", flags))
    return attribute(ORIGINAL | _NESTED, original) + attribute(_FILTER | _NESTED, wanted)


def _status_filter(status: Status | None) -> bytes:
    if status is None:
        return b""
    bits, mask = (struct.pack(">I", each) for each in status)
    return attribute(STATUS, bits) + attribute(_STATUS_MASK, mask)


def _ips(packed: bytes) -> tuple[bytes, bytes]:
    """Source and destination, of either family."""
    ips = dict(attributes(packed))
    source = ips.get(_SOURCE_IP) or ips.get(_SOURCE_IP6, b"")
    return source, ips.get(_DESTINATION_IP) or ips.get(_DESTINATION_IP6, b"")


def _family_of(packed: bytes) -> int:
    return socket.AF_INET6 if len(packed) > _IPV4_BYTES else socket.AF_INET


def _address(ip: bytes, port: bytes) -> Address:
    return Address(_text(ip), int.from_bytes(port, "big"))


@functools.lru_cache(maxsize=16384)
def _text(ip: bytes) -> str:
    return str(ipaddress.ip_address(ip))
