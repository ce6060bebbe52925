"""Packets as a netfilter queue brings them, and the answers. Pure.

Only as much of a packet is read as tells whose connection it begins. One that cannot be read, as it is a
fragment, too short, or no TCP or UDP, has no flow: it is to go on as it came. Checksums are for its receiver.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from userproxy.model.flow_key import TCP, UDP

ACCEPT, DROP = 1, 0

_PACKET_TYPE, _VERDICT_TYPE, _SUBSYSTEM = 0, 1, 3 << 8
_PACKET_HEADER, _VERDICT_HEADER, _MARK, _PAYLOAD = 1, 2, 3, 10
_NETLINK, _GENERAL, _ATTRIBUTE = struct.Struct("=IH10x"), 4, struct.Struct("=HH")
_KIND = 0x3FFF
_REQUEST = 1
_U32, _U16 = struct.Struct(">I"), struct.Struct(">H")
_VERDICT = struct.Struct(">24sII4sI")
_VERDICT_BYTES = 40
_FIRST = _NETLINK.size + _GENERAL

# IPv4: version and length without options; IPv6: version.
_PLAIN, _IPV6 = 0x45, 6
_FRAGMENT = 0x3FFF  # more to come, or not the first
_IPV6_HEADER = 40
_TCP_BYTES, _UDP_BYTES = 20, 8
# Hop-by-hop options, routing, destination options (RFC 8200): skipped, up to so many.
_EXTENSIONS, _MOST_EXTENSIONS = frozenset({0, 43, 60}), 4


class Packet(NamedTuple):
    """A packet that waits.

    Attributes:
        id: by which it is answered.
        mark: that it has.
        flow: the key of its connection (`userproxy.model.flow_key`), empty if it cannot be read.
        sequence: of TCP: the sequence number, by which a packet that is sent again is known.
    """

    id: int
    mark: int
    flow: bytes
    sequence: int


def packets_of(data: bytes) -> list[Packet]:
    """The packets in what was read from the socket, which may be several messages, and others' between."""
    found = []
    offset, size = 0, len(data)
    while offset + _FIRST <= size:
        length, kind = _NETLINK.unpack_from(data, offset)
        if length < _FIRST:
            break
        if kind == _SUBSYSTEM | _PACKET_TYPE:
            packet = _packet(data, offset + _FIRST, min(offset + length, size))
            if packet is not None:
                found.append(packet)
        offset += (length + 3) & ~3
    return found


def _packet(data: bytes, offset: int, end: int) -> Packet | None:
    number, mark, payload = -1, 0, b""
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size or offset + length > end:
            break
        kind &= _KIND
        if kind == _PAYLOAD:
            payload = data[offset + 4 : offset + length]
        elif kind == _PACKET_HEADER and length >= 2 * _ATTRIBUTE.size:
            (number,) = _U32.unpack_from(data, offset + 4)
        elif kind == _MARK and length >= 2 * _ATTRIBUTE.size:
            (mark,) = _U32.unpack_from(data, offset + 4)
        offset += (length + 3) & ~3
    return None if number < 0 else Packet(number, mark, *_flow_of(payload))


def _flow_of(packet: bytes) -> tuple[bytes, int]:
    """The key of the connection, and the sequence number."""
    if len(packet) < _TCP_BYTES:
        return b"", 0
    if packet[0] == _PLAIN:
        if _U16.unpack_from(packet, 6)[0] & _FRAGMENT:
            return b"", 0
        return _with_ports(packet, packet[9], 20, packet[12:20])
    if packet[0] >> 4 == _IPV6:
        return _ipv6(packet)
    header = (packet[0] & 15) * 4
    if packet[0] >> 4 != _PLAIN >> 4 or header < _TCP_BYTES or _U16.unpack_from(packet, 6)[0] & _FRAGMENT:
        return b"", 0
    return _with_ports(packet, packet[9], header, packet[12:20])


def _ipv6(packet: bytes) -> tuple[bytes, int]:
    if len(packet) < _IPV6_HEADER:
        return b"", 0
    kind, offset = packet[6], _IPV6_HEADER
    for _ in range(_MOST_EXTENSIONS):
        if kind not in _EXTENSIONS:
            break
        if offset + 2 > len(packet):
            return b"", 0
        kind, offset = packet[offset], offset + 8 + packet[offset + 1] * 8
    return _with_ports(packet, kind, offset, packet[8:40])


def _with_ports(packet: bytes, kind: int, offset: int, ips: bytes) -> tuple[bytes, int]:
    if kind == TCP and len(packet) >= offset + _TCP_BYTES:
        return b"\6" + ips + packet[offset : offset + 4], _U32.unpack_from(packet, offset + 4)[0]
    if kind == UDP and len(packet) >= offset + _UDP_BYTES:
        return b"\x11" + ips + packet[offset : offset + 4], 0
    return b"", 0


class Answers:
    """Writes the answers for the packets of one queue.

    Args:
        queue: its number.
    """

    def __init__(self, queue: int) -> None:
        header = struct.pack("=IHHII", _VERDICT_BYTES, _SUBSYSTEM | _VERDICT_TYPE, _REQUEST, 0, 0)
        general = struct.pack(">BBH", 0, 0, queue)
        self._prefix = header + general + _ATTRIBUTE.pack(12, _VERDICT_HEADER)
        self._mark = _ATTRIBUTE.pack(8, _MARK)

    def accept(self, number: int, mark: int) -> bytes:
        """Let a packet go on, with this mark."""
        return _VERDICT.pack(self._prefix, ACCEPT, number, self._mark, mark)

    def drop(self, number: int) -> bytes:
        """Have a packet vanish."""
        return _VERDICT.pack(self._prefix, DROP, number, self._mark, 0)
