"""Addresses, frontends and networks as the fields of a key, and back.

Fields of a concatenation are padded to 4 bytes; addresses and ports are in network order, numbers in the
host's.
"""

from __future__ import annotations

import functools
import ipaddress
import struct
from typing import TYPE_CHECKING, Any

from userproxy.model.address import Address
from userproxy.model.service import Protocol
from userproxy.model.state import Frontend
from userproxy.netfilter.ruleset.language import TCP, UDP
from userproxy.netfilter.ruleset.sets import FAMILIES, IPV6

if TYPE_CHECKING:
    from userproxy.netfilter.ruleset.sets import Family

INDEX = struct.Struct("=I")
NUMBERS = {Protocol.TCP: TCP, Protocol.UDP: UDP}
_IPV4_BYTES = 4
_PROTOCOLS = {number: protocol for protocol, number in NUMBERS.items()}


class Packing:
    """How the addresses of one family are packed."""

    def __init__(self, family: Family) -> None:
        size = family.address.size
        self.family = family
        self._pack_ip = _pack_ip6 if family is IPV6 else _pack_ip4
        self._address_class: type[Any] = ipaddress.IPv6Address if family is IPV6 else ipaddress.IPv4Address
        self._network_class = ipaddress.IPv6Network if family is IPV6 else ipaddress.IPv4Network
        self._frontend = struct.Struct(f"{size}sB3x2s2x")
        self._address = struct.Struct(f"{size}s2s2x")
        self.frontend_size = self._frontend.size
        self._protocol = size  # where it is in a packed frontend

    def ip(self, ip: str) -> bytes:
        """One address.

        Raises:
            ValueError: it is of another family, or none.
        """
        return self._pack_ip(ip)

    def address(self, address: Address) -> bytes:
        """An address with a port; may raise what `ip` does."""
        return self._address.pack(self._pack_ip(address.ip), address.port.to_bytes(2, "big"))

    def frontend(self, frontend: Frontend) -> bytes:
        """A frontend, whether it is for packets from outside or not; may raise what `ip` does."""
        address = frontend.address
        return self._frontend.pack(
            self._pack_ip(address.ip), NUMBERS[frontend.protocol], address.port.to_bytes(2, "big")
        )

    def networks(self, networks: tuple[str, ...]) -> list[tuple[bytes, bytes]]:
        """The first and last addresses of the fewest networks that amount to those of this family.

        The kernel takes no two ranges that overlap.

        Raises:
            ValueError: one is no network of any family.
        """
        ours: list[Any] = []  # of one class
        for network in networks:
            try:
                parsed = ipaddress.ip_network(network, strict=False)
            except ValueError:
                raise ValueError(f"{network} is not a network") from None
            if isinstance(parsed, self._network_class):
                ours.append(parsed)
        return [
            (each.network_address.packed, each.broadcast_address.packed)
            for each in ipaddress.collapse_addresses(ours)
        ]

    def unpack_ip(self, packed: bytes) -> str:
        """The address in these bytes."""
        if len(packed) == _IPV4_BYTES:
            return "{}.{}.{}.{}".format(*packed)  # `ipaddress` takes three times as long
        return str(ipaddress.IPv6Address(packed))

    def unpack_address(self, packed: bytes) -> Address:
        """The address and port in these bytes."""
        ip, port = self._address.unpack(packed)
        return Address(self.unpack_ip(ip), int.from_bytes(port, "big"))

    def unpack_frontend(self, packed: bytes, *, outside: bool = False) -> Frontend:
        """The frontend with which these bytes begin."""
        ip, number, port = self._frontend.unpack_from(packed)
        address = Address(self.unpack_ip(ip), int.from_bytes(port, "big"))
        return Frontend(_PROTOCOLS[number], address, outside=outside)

    def is_frontend(self, packed: bytes) -> bool:
        """Whether these bytes begin with a frontend of a protocol that is ours."""
        return packed[self._protocol] in _PROTOCOLS

    def unpack_networks(self, first: bytes, last: bytes) -> list[str]:
        """The fewest networks from the first address to the last; none if that is no range."""
        begin, end = (self._address_class(each) for each in (first, last))
        return [str(each) for each in ipaddress.summarize_address_range(begin, end)] if first <= last else []


@functools.lru_cache(maxsize=65536)
def _pack_ip4(ip: str) -> bytes:
    try:
        return ipaddress.IPv4Address(ip).packed
    except ValueError:
        raise ValueError(f"{ip} is not an IPv4 address") from None


@functools.lru_cache(maxsize=65536)
def _pack_ip6(ip: str) -> bytes:
    try:
        return ipaddress.IPv6Address(ip).packed
    except ValueError:
        raise ValueError(f"{ip} is not an IPv6 address") from None


PACKING4, PACKING6 = PACKINGS = tuple(Packing(family) for family in FAMILIES)


def packing_of(ip: str) -> Packing:
    """How addresses of this one's family are packed."""
    return PACKING6 if ":" in ip else PACKING4
