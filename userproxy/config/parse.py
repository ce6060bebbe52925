"""How the texts of settings are read. What is wrong raises ValueError, whose message names no setting."""

from __future__ import annotations

import ipaddress
import socket
from ipaddress import IPv4Network, IPv6Network

from userproxy.model.address import MAX_PORT, Address, IpFamily, canonical_ip, family_of

IpNetwork = IPv4Network | IPv6Network
DEFAULT_PORT_RANGE = "10400-18399"
PRIMARY = "primary"
"""In the place of networks: the node's primary addresses."""
_WORDS = {"all": ("0.0.0.0/0", "::/0"), "localhost": ("127.0.0.0/8", "::1/128")}
"""kube-proxy's other words for networks of a node's addresses."""


def parse_port_range(text: str) -> range:
    """Read `10400-18399`.

    Raises:
        ValueError: it is no range of ports.
    """
    first, _, last = text.partition("-")
    if not (first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last) <= MAX_PORT):
        raise ValueError(f"{text!r} is not FIRST-LAST, such as {DEFAULT_PORT_RANGE}")
    return range(int(first), int(last) + 1)


def parse_host_ips(text: str) -> tuple[str, ...]:
    """Read `10.100.0.2,fd00::2`, at most one of each family, in the order of the families.

    Raises:
        ValueError: one is no address, or none that others can reach; or there are two of a family.
    """
    found: dict[IpFamily, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        ip = canonical_ip(part)
        if ipaddress.ip_address(ip).is_link_local:
            raise ValueError(f"{ip} is valid on one link alone: name another address")
        family = family_of(ip)
        if family in found:
            raise ValueError(f"{found[family]} and {ip} are both {family}: name one address of each family")
        found[family] = ip
    return tuple(found[family] for family in IpFamily if family in found)


def parse_networks(text: str) -> tuple[IpNetwork, ...]:
    """Read `10.0.0.0/14,fd00::/8`.

    Raises:
        ValueError: one of them is no network.
    """
    found: list[IpNetwork] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            found.append(ipaddress.ip_network(part, strict=False))
        except ValueError:
            raise ValueError(f"{part!r} is not a network such as 10.0.0.0/14") from None
    return tuple(found)


def parse_node_ports(text: str) -> tuple[IpNetwork, ...]:
    """Read `primary`, `all`, `localhost`, or networks; none: the node's primary addresses.

    Node ports answer at the loopback addresses in any case, so `localhost` adds nothing to others.

    Raises:
        ValueError: it is none of these, or `primary` and others.
    """
    parts = dict.fromkeys(part.strip() for part in text.split(",") if part.strip())
    if not parts:
        raise ValueError("is empty: `primary`, `all`, `localhost`, or networks such as 10.100.0.0/24")
    if parts.keys() <= {PRIMARY, "localhost"} and PRIMARY in parts:
        return ()
    if PRIMARY in parts:
        raise ValueError(f"{text!r}: name either `primary` or networks, not both")
    return parse_networks(",".join(",".join(_WORDS.get(part, (part,))) for part in parts))


def parse_bind_address(text: str) -> Address:
    """Read `0.0.0.0:10256`, or `:10256`: every address, of both families where there are both.

    Raises:
        ValueError: it is no address with a port.
    """
    if text.startswith(":") and text[1:].isdecimal():
        text = f"{'[::]' if socket.has_dualstack_ipv6() else '0.0.0.0'}{text}"  # noqa: S104 - as asked for
    return Address.parse(text)
