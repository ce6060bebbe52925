"""IP addresses with a port, as every layer passes and prints them."""

from __future__ import annotations

import enum
import ipaddress

import msgspec

MAX_PORT = 65535


class IpFamily(enum.StrEnum):
    """The families of addresses. The values are those of the Kubernetes API."""

    IPV4 = "IPv4"
    IPV6 = "IPv6"


THE_WORLD = {IpFamily.IPV4: "192.0.2.1", IpFamily.IPV6: "2001:db8::1"}
"""Addresses to ask for a route to; nothing is sent there: they are for documentation (RFC 5737, RFC 3849)."""

_IPV4, _IPV6 = IpFamily  # a member of an enum takes a while to look up, and this is asked for often


class Address(msgspec.Struct, frozen=True, order=True, array_like=True, cache_hash=True):
    """An IP address and a port.

    Attributes:
        ip: in canonical text form (`10.0.1.2`, `fd00::1`), without brackets or zone.
        port: 0 to 65535.
    """

    ip: str
    port: int

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"

    @property
    def is_ipv6(self) -> bool:
        """Whether this is an IPv6 address."""
        return ":" in self.ip

    @property
    def family(self) -> IpFamily:
        """Which family it is of."""
        return _IPV6 if ":" in self.ip else _IPV4

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `10.0.1.2:8080` or `[fd00::1]:8080`.

        Raises:
            ValueError: text is not an IP address and a port; the message quotes it.
        """
        ip, separator, port = text.rpartition(":")
        if not separator or not port.isascii() or not port.isdigit() or int(port) > MAX_PORT:
            raise ValueError(f"{text!r} is not IP:PORT")
        bracketed = ip.startswith("[") and ip.endswith("]")
        if bracketed != (":" in ip):
            raise ValueError(f"{text!r} is not IP:PORT (an IPv6 address stands in brackets)")
        return cls(canonical_ip(ip.strip("[]")), int(port))


def family_of(ip: str) -> IpFamily:
    """The family of an IP address, or of a network in CIDR notation."""
    return _IPV6 if ":" in ip else _IPV4


def canonical_ip(text: str) -> str:
    """The canonical text of an IP address.

    Raises:
        ValueError: text is not an IP address, or one that no packet has; the message quotes it.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an IP address") from None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id:
            raise ValueError(f"{text!r} has a zone, which no Service or endpoint may have")
        if address.ipv4_mapped is not None:
            raise ValueError(f"{text!r} is an IPv4 address in the form of IPv6: write {address.ipv4_mapped}")
    return str(address)
