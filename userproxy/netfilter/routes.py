"""Routes by which the host itself can connect to a Service IP.

The kernel looks for a route before it looks at nat: on a host without a default route, `connect()` to a
Service IP fails before our rules see a packet. So each Service IP gets a route of its own, in a table of
our own that is asked after all others (`ip rule`, priority 32800, behind `main` and `default`): where any
other route exists, it is taken as before. The route leads to the loopback device; dstnat in output then
sends the packet where it belongs.

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
from userproxy.netfilter.wire import netlink
from userproxy.netfilter.wire.netlink import (
    Message,
    RefusedError,
    Socket,
    attribute,
    attributes,
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
_HOST_PREFIX = 32
_SCOPE_LINK = 253
_TO_TABLE = 1  # FR_ACT_TO_TBL
_UNICAST, _LOCAL = 1, 2  # RTN_...
_TABLE_LOCAL = 255  # RT_TABLE_LOCAL
_RTM = struct.Struct("=BBBBBBBBI")  # struct rtmsg, and struct fib_rule_hdr alike
_RTA_DST, _RTA_OIF, _RTA_PREFSRC, _RTA_TABLE = 1, 4, 7, 15
_FRA_PRIORITY, _FRA_TABLE, _FRA_PROTOCOL = 6, 15, 21
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

    def ensure(self, addresses: Iterable[str], host_ip: str) -> None:
        """Let the host connect to these Service IPs, with `host_ip` as its source; and to no others.

        Without one (empty), the kernel chooses the source.

        Reads what is there and changes only what differs. IPv6 addresses are left out, and those of the node.

        Raises:
            NetfilterError: part of it may be done; call again.
        """
        source = _source(host_ip)
        with self._lock:
            wanted = {(address, source) for address in self._elsewhere(addresses)}
            held = set(self._routes())
            self._request([self._route(rtnl.RTM_DELROUTE, *each) for each in sorted(held - wanted)], _GONE)
            new = [self._route(rtnl.RTM_NEWROUTE, *each) for each in sorted(wanted - held)]
            self._request(new, (errno.EEXIST,))
            if wanted:
                self._request([_rule(rtnl.RTM_NEWRULE)], (errno.EEXIST,))
            else:
                self._remove_rules()

    def add(self, addresses: Collection[str], host_ip: str) -> None:
        """Let the host connect to these Service IPs too, beside those of `ensure`.

        Reads which addresses are the node's own, and nothing else.

        Raises:
            NetfilterError: part of it may be done; call again.
        """
        source = _source(host_ip)
        with self._lock:
            new = [self._route(rtnl.RTM_NEWROUTE, address, source) for address in self._elsewhere(addresses)]
            self._request(new, (errno.EEXIST,))
            if new:
                self._request([_rule(rtnl.RTM_NEWRULE)], (errno.EEXIST,))

    def discard(self, addresses: Collection[str], host_ip: str) -> None:
        """The host need not connect to these Service IPs any more; reads nothing, and the rule stays.

        Raises:
            NetfilterError: part of it may be done; call again.
        """
        source = _source(host_ip)
        with self._lock:
            gone = [self._route(rtnl.RTM_DELROUTE, address, source) for address in _packed(addresses)]
            self._request(gone, _GONE)

    def remove(self) -> tuple[int, int]:
        """Remove our routes and our rule, whoever made them; returns how many routes and rules there were.

        Raises:
            NetfilterError: some are still there.
        """
        with self._lock:
            rules, routes = self._remove_rules(), self._routes()
            self._request([self._route(rtnl.RTM_DELROUTE, *each) for each in routes], _GONE)
            return len(routes), rules

    def _remove_rules(self) -> int:
        rules = self._rules()
        self._request([_rule(rtnl.RTM_DELRULE)] * rules, _GONE)
        return rules

    def _elsewhere(self, addresses: Iterable[str]) -> list[bytes]:
        """The addresses that are not the node's own."""
        header = _RTM.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, _LOCAL, 0)
        table = attribute(_RTA_TABLE, struct.pack("=I", _TABLE_LOCAL))
        single, networks = set(), []
        for body in self._dump(Message(rtnl.RTM_GETROUTE, 0, header + table, "local addresses")):
            fields = dict(attributes(body, _RTM.size))
            prefix, kind, address = body[1], body[7], fields.get(_RTA_DST, bytes(4))
            if kind == _LOCAL and prefix == _HOST_PREFIX:
                single.add(address)
            elif kind == _LOCAL:
                shift = _HOST_PREFIX - prefix
                networks.append((shift, int.from_bytes(address, "big") >> shift))
        return [
            address
            for address in _packed(addresses)
            if address not in single
            and not any(int.from_bytes(address, "big") >> shift == network for shift, network in networks)
        ]

    def _routes(self) -> list[tuple[bytes, bytes]]:
        """Destination and source of the routes in our table that are ours."""
        # The kernel filters by table only for a socket that asked for strict checking, which ours did.
        header = _RTM.pack(socket.AF_INET, 0, 0, 0, 0, ROUTE_PROTOCOL, 0, 0, 0)
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

    def _rules(self) -> int:
        """How many rules of ours there are (one, unless somebody doubled it)."""
        question = Message(rtnl.RTM_GETRULE, 0, _RTM.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0), "rules")
        mine = (struct.pack("=I", RULE_PRIORITY), struct.pack("=I", ROUTE_TABLE), bytes([ROUTE_PROTOCOL]))
        found = [dict(attributes(body, _RTM.size)) for body in self._dump(question)]
        return sum(
            (rule.get(_FRA_PRIORITY), rule.get(_FRA_TABLE), rule.get(_FRA_PROTOCOL)) == mine for rule in found
        )

    def _route(self, kind: int, destination: bytes, source: bytes) -> Message:
        header = _RTM.pack(socket.AF_INET, _HOST_PREFIX, 0, 0, 0, ROUTE_PROTOCOL, _SCOPE_LINK, _UNICAST, 0)
        body = (
            header
            + attribute(_RTA_DST, destination)
            + attribute(_RTA_OIF, struct.pack("=I", self._loopback))
            + (attribute(_RTA_PREFSRC, source) if source else b"")
            + attribute(_RTA_TABLE, struct.pack("=I", ROUTE_TABLE))
        )
        flags = netlink.NLM_F_CREATE | netlink.NLM_F_EXCL if kind == rtnl.RTM_NEWROUTE else 0
        return Message(kind, flags, body, f"route to {ipaddress.IPv4Address(destination)}")

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
        try:
            return self._socket.dump(question)
        except RefusedError as error:
            if error.refusal.errno == errno.ENOENT:  # the table has never had a route
                return []
            raise NetfilterError(f"cannot read the routes of Service IPs: {error}") from error
        except OSError as error:
            raise NetfilterError(f"cannot read the routes of Service IPs: {error}") from error


def _source(host_ip: str) -> bytes:
    return ipaddress.IPv4Address(host_ip).packed if host_ip else b""


def _packed(addresses: Iterable[str]) -> list[bytes]:
    return [ipaddress.IPv4Address(address).packed for address in addresses if ":" not in address]


def _rule(kind: int) -> Message:
    header = _RTM.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, _TO_TABLE, 0)
    body = (
        header
        + attribute(_FRA_PRIORITY, struct.pack("=I", RULE_PRIORITY))
        + attribute(_FRA_TABLE, struct.pack("=I", ROUTE_TABLE))
        + attribute(_FRA_PROTOCOL, bytes([ROUTE_PROTOCOL]))
    )
    flags = netlink.NLM_F_CREATE | netlink.NLM_F_EXCL if kind == rtnl.RTM_NEWRULE else 0
    return Message(kind, flags, body, "rule for Service IPs")
