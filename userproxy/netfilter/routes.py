"""Routes by which the host itself can connect to a Service IP.

The kernel looks for a route before it looks at nat: on a host without a default route, `connect()` to a
Service IP fails before our rules see a packet. So each Service IP gets a route of its own, in a table of
our own that is asked after all others (`ip rule`, priority 32800, behind `main` and `default`): where any
other route exists, it is taken as before. The route leads to the loopback device; dstnat in output then
sends the packet where it belongs.

An IPv6 route by the loopback device is one of the type `local`, as the kernel makes any other an unreachable
one (`fib6_is_reject`). So that nobody else's packets to a Service IP end on this host, its rule is for those
that the host sends itself (`iif lo`).

An address of the node itself (that of a node port, or an external IP that the node has) needs none: the
kernel's table of local addresses, which is asked first, tells which those are.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
import sys
import threading
from typing import TYPE_CHECKING, Self

from pyroute2.netlink import rtnl

from userproxy.netfilter import NetfilterError
from userproxy.netfilter.host import WITHOUT_FAMILY
from userproxy.netfilter.wire import netlink
from userproxy.netfilter.wire.netlink import (
    Message,
    RefusedError,
    Socket,
    attribute,
    attributes,
    string,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from types import TracebackType

ROUTE_TABLE = 10110
ROUTE_PROTOCOL = 110
"""Marks what is ours (`proto 110`); not in iproute2's rt_protos, so nobody's. Both numbers are ours for
good."""
RULE_PRIORITY = 32800
"""After `main` (32766) and `default` (32767)."""

NETLINK_ROUTE = 0
ROUTES_A_REQUEST = 500
_SCOPE_LINK = 253
_TO_TABLE = 1  # FR_ACT_TO_TBL
_UNICAST, _LOCAL = 1, 2  # RTN_...
_TABLE_LOCAL = 255  # RT_TABLE_LOCAL
_RTM = struct.Struct("=BBBBBBBBI")  # struct rtmsg, and struct fib_rule_hdr alike
_RTA_DST, _RTA_OIF, _RTA_PREFSRC, _RTA_TABLE = 1, 4, 7, 15
_FRA_INTERFACE, _FRA_PRIORITY, _FRA_TABLE, _FRA_PROTOCOL = 3, 6, 15, 21
_IPV4, _IPV6 = int(socket.AF_INET), int(socket.AF_INET6)
_FAMILIES = (_IPV4, _IPV6)
_BITS = {_IPV4: 32, _IPV6: 128}
_SCOPES_AND_TYPES = {_IPV4: (_SCOPE_LINK, _UNICAST), _IPV6: (0, _LOCAL)}
_GONE = (errno.ENOENT, errno.ESRCH)


class Routes:
    """Our routes in the network namespace of the thread that makes the object; any thread may call it."""

    def __init__(self) -> None:
        """Open the socket; nothing is read or changed.

        Raises:
            NetfilterError: the kernel does not speak rtnetlink.
        """
        try:
            self._socket = Socket(NETLINK_ROUTE)
            self._loopback = socket.if_nametoindex("lo")
        except OSError as error:
            raise NetfilterError(f"cannot speak to the kernel's routing: {error}") from error
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; the routes stay."""
        self._socket.close()

    def ensure(self, addresses: Iterable[str], host_ips: Collection[str]) -> None:
        """Let the host connect to these Service IPs, and to no others.

        Reads what is there and changes only what differs. Addresses of the node itself are left out.

        Args:
            addresses: the Service IPs, of either family.
            host_ips: at most one of each family, the source of these connections; without one, the kernel
                chooses it.

        Raises:
            NetfilterError: part of it may be done; call again.
        """
        by_family = _by_family(addresses)
        with self._lock:
            for family in _FAMILIES:
                self._ensure(family, by_family[family], _source(family, host_ips))

    def _ensure(self, family: int, addresses: list[bytes], source: bytes) -> None:
        wanted = {(address, source) for address in self._elsewhere(family, addresses)}
        held = set(self._routes(family))
        self._request([self._route(rtnl.RTM_DELROUTE, *each) for each in sorted(held - wanted)], _GONE)
        new = [self._route(rtnl.RTM_NEWROUTE, *each) for each in sorted(wanted - held)]
        self._request(new, (errno.EEXIST,))
        if wanted:
            self._request([_rule(rtnl.RTM_NEWRULE, family)], (errno.EEXIST,))
        else:
            self._remove_rules(family)

    def add(self, addresses: Collection[str], host_ips: Collection[str]) -> None:
        """Let the host connect to these Service IPs too, beside those of `ensure`.

        Reads which addresses are the node's own, and nothing else.

        Raises:
            NetfilterError: part of it may be done; call again.
        """
        with self._lock:
            for family, packed in _by_family(addresses).items():
                source = _source(family, host_ips)
                elsewhere = self._elsewhere(family, packed)
                new = [self._route(rtnl.RTM_NEWROUTE, address, source) for address in elsewhere]
                self._request(new, (errno.EEXIST,))
                if new:
                    self._request([_rule(rtnl.RTM_NEWRULE, family)], (errno.EEXIST,))

    def discard(self, addresses: Collection[str], host_ips: Collection[str]) -> None:
        """The host need not connect to these Service IPs any more; reads nothing, and the rules stay.

        Raises:
            NetfilterError: part of it may be done; call again.
        """
        with self._lock:
            for family, packed in _by_family(addresses).items():
                source = _source(family, host_ips)
                gone = [self._route(rtnl.RTM_DELROUTE, address, source) for address in packed]
                self._request(gone, _GONE)

    def remove(self) -> tuple[int, int]:
        """Remove our routes and our rules, whoever made them; returns how many routes and rules there were.

        Raises:
            NetfilterError: some are still there.
        """
        with self._lock:
            rules = sum(map(self._remove_rules, _FAMILIES))
            routes = [route for family in _FAMILIES for route in self._routes(family)]
            self._request([self._route(rtnl.RTM_DELROUTE, *each) for each in routes], _GONE)
            return len(routes), rules

    def _remove_rules(self, family: int) -> int:
        rules = self._rules(family)
        self._request([_rule(rtnl.RTM_DELRULE, family)] * rules, _GONE)
        return rules

    def _elsewhere(self, family: int, addresses: list[bytes]) -> list[bytes]:
        """The addresses that are not the node's own."""
        if not addresses:
            return []
        header = _RTM.pack(family, 0, 0, 0, 0, 0, 0, _LOCAL, 0)
        table = attribute(_RTA_TABLE, struct.pack("=I", _TABLE_LOCAL))
        bits = _BITS[family]
        single, networks = set(), []
        for body in self._dump(Message(rtnl.RTM_GETROUTE, 0, header + table, "local addresses")):
            fields = dict(attributes(body, _RTM.size))
            prefix, kind, address = body[1], body[7], fields.get(_RTA_DST, bytes(bits // 8))
            if kind == _LOCAL and prefix == bits:
                single.add(address)
            elif kind == _LOCAL:
                shift = bits - prefix
                networks.append((shift, int.from_bytes(address, "big") >> shift))
        return [
            address
            for address in addresses
            if address not in single
            and not any(int.from_bytes(address, "big") >> shift == network for shift, network in networks)
        ]

    def _routes(self, family: int) -> list[tuple[bytes, bytes]]:
        """Destination and source of the routes in our table that are ours."""
        # The kernel filters by table only for a socket that asked for strict checking, which ours did.
        header = _RTM.pack(family, 0, 0, 0, 0, ROUTE_PROTOCOL, 0, 0, 0)
        question = Message(
            rtnl.RTM_GETROUTE, 0, header + attribute(_RTA_TABLE, struct.pack("=I", ROUTE_TABLE)), "routes"
        )
        found = []
        for body in self._dump(question):
            fields = dict(attributes(body, _RTM.size))
            table = int.from_bytes(fields[_RTA_TABLE], sys.byteorder)
            if table == ROUTE_TABLE and body[5] == ROUTE_PROTOCOL and _RTA_DST in fields:
                found.append((fields[_RTA_DST], fields.get(_RTA_PREFSRC, b"")))
        return found

    def _rules(self, family: int) -> int:
        """How many rules of ours there are (one, unless somebody doubled it)."""
        question = Message(rtnl.RTM_GETRULE, 0, _RTM.pack(family, 0, 0, 0, 0, 0, 0, 0, 0), "rules")
        mine = (struct.pack("=I", RULE_PRIORITY), struct.pack("=I", ROUTE_TABLE), bytes([ROUTE_PROTOCOL]))
        found = [dict(attributes(body, _RTM.size)) for body in self._dump(question)]
        return sum(
            (rule.get(_FRA_PRIORITY), rule.get(_FRA_TABLE), rule.get(_FRA_PROTOCOL)) == mine for rule in found
        )

    def _route(self, kind: int, destination: bytes, source: bytes) -> Message:
        family = _family_of(destination)
        scope, route_type = _SCOPES_AND_TYPES[family]
        header = _RTM.pack(family, _BITS[family], 0, 0, 0, ROUTE_PROTOCOL, scope, route_type, 0)
        body = (
            header
            + attribute(_RTA_DST, destination)
            + attribute(_RTA_OIF, struct.pack("=I", self._loopback))
            + (attribute(_RTA_PREFSRC, source) if source else b"")
            + attribute(_RTA_TABLE, struct.pack("=I", ROUTE_TABLE))
        )
        flags = netlink.NLM_F_CREATE | netlink.NLM_F_EXCL if kind == rtnl.RTM_NEWROUTE else 0
        return Message(kind, flags, body, f"route to {ipaddress.ip_address(destination)}")

    def _request(self, messages: list[Message], tolerated: tuple[int, ...]) -> None:
        for start in range(0, len(messages), ROUTES_A_REQUEST):
            part = messages[start : start + ROUTES_A_REQUEST]
            try:
                refusals = self._socket.request(part)
            except OSError as error:
                raise NetfilterError(f"cannot change the routes of Service IPs: {error}") from error
            for refusal in refusals:
                if refusal.errno not in tolerated:
                    remedy = " (run as root or grant CAP_NET_ADMIN)" if refusal.errno == errno.EPERM else ""
                    raise NetfilterError(f"{part[refusal.position].what}: {refusal}{remedy}")

    def _dump(self, question: Message) -> list[bytes]:
        """The answers that are of the family that was asked for."""
        try:
            found = self._socket.dump(question)
        except RefusedError as error:
            if error.refusal.errno in (errno.ENOENT, *WITHOUT_FAMILY):  # the table has never had a route
                return []
            raise NetfilterError(f"cannot read the routes of Service IPs: {error}") from error
        except OSError as error:
            raise NetfilterError(f"cannot read the routes of Service IPs: {error}") from error
        return [body for body in found if body[0] == question.body[0]]


def _family_of(packed: bytes) -> int:
    return _IPV4 if len(packed) * 8 == _BITS[_IPV4] else _IPV6


def _by_family(addresses: Iterable[str]) -> dict[int, list[bytes]]:
    found: dict[int, list[bytes]] = {family: [] for family in _FAMILIES}
    for address in addresses:
        is_ipv6 = ":" in address
        packed = ipaddress.IPv6Address(address).packed if is_ipv6 else ipaddress.IPv4Address(address).packed
        found[_family_of(packed)].append(packed)
    return found


def _source(family: int, host_ips: Iterable[str]) -> bytes:
    """The host IP of this family; empty if there is none."""
    return next(iter(_by_family(host_ips)[family]), b"")


def _rule(kind: int, family: int) -> Message:
    header = _RTM.pack(family, 0, 0, 0, 0, 0, 0, _TO_TABLE, 0)
    body = (
        header
        + (attribute(_FRA_INTERFACE, string("lo")) if family == _IPV6 else b"")
        + attribute(_FRA_PRIORITY, struct.pack("=I", RULE_PRIORITY))
        + attribute(_FRA_TABLE, struct.pack("=I", ROUTE_TABLE))
        + attribute(_FRA_PROTOCOL, bytes([ROUTE_PROTOCOL]))
    )
    flags = netlink.NLM_F_CREATE | netlink.NLM_F_EXCL if kind == rtnl.RTM_NEWRULE else 0
    return Message(kind, flags, body, "rule for Service IPs")
