"""Segments that have an end of a TCP connection speak, whatever its sequence numbers are.

RFC 5961 has an end answer with an ACK that tells what it expects: to any SYN (section 4.2), and as ever to an
ACK that does not fit (RFC 9293, section 3.10.7.4). Firewalls and other nodes' conntrack drop the latter as
invalid, but let a SYN pass from who opened the connection, and a SYN with ACK from the other one. An end that
is gone answers both with a reset, unless somebody listens there: then it takes a SYN for a new connection. So
first comes a SYN, and an ACK later finds out who is gone.
"""

from __future__ import annotations

import enum
import ipaddress
import struct

import msgspec

from userproxy.model.address import Address

_TCP = 6
_HEADER = struct.Struct(">HHIIBBHHH")  # of RFC 9293, without options
_IPV4 = struct.Struct(">BBHHHBBH4s4s")
_IPV6 = struct.Struct(">IHBB16s16s")
_VERSION4, _VERSION6, _HOPS, _WINDOW = 0x45, 6 << 28, 64, 1024
_WORDS = 5 << 4  # the length of the header
_IPV4_BYTES, _CHECKSUM_OFFSET = 4, 16


class Flags(enum.IntFlag):
    """Of a segment."""

    SYN = 0x02
    RST = 0x04
    ACK = 0x10


class Segment(msgspec.Struct, frozen=True):
    """A segment without data.

    Attributes:
        source: in whose name.
        destination: whom it is to have speak.
        flags: of the segment.
        sequence: of it.
        acknowledged: the sequence number that it acknowledges, if it does.
    """

    source: Address
    destination: Address
    flags: Flags
    sequence: int
    acknowledged: int

    def packed(self) -> bytes:
        """The IP packet. The kernel fills in the checksum of an IPv4 header."""
        source, destination = (
            ipaddress.ip_address(each.ip).packed for each in (self.source, self.destination)
        )
        acknowledged = self.acknowledged if self.flags & Flags.ACK else 0
        ports = self.source.port, self.destination.port
        tcp = _HEADER.pack(*ports, self.sequence, acknowledged, _WORDS, self.flags, _WINDOW, 0, 0)
        pseudo = source + destination + struct.pack(">II", len(tcp), _TCP)  # of either family: the same sum
        checksum = struct.pack(">H", _checksum(pseudo + tcp))
        tcp = tcp[:_CHECKSUM_OFFSET] + checksum + tcp[_CHECKSUM_OFFSET + 2 :]
        if len(source) == _IPV4_BYTES:
            size = _IPV4.size + len(tcp)
            return _IPV4.pack(_VERSION4, 0, size, 0, 0, _HOPS, _TCP, 0, source, destination) + tcp
        return _IPV6.pack(_VERSION6, len(tcp), _TCP, _HOPS, source, destination) + tcp


def _checksum(data: bytes) -> int:
    """Of the internet (RFC 1071); `data` has an even number of bytes."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
