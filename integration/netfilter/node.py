"""A node by itself, to see what the kernel does with our rules: a host, two pods, and somebody outside.

```
server1 10.0.1.2 --- 10.0.1.1 host 10.0.2.1 --- 10.0.2.2 server2
                            10.100.0.2 (eth0)
                                |
                            10.100.0.9 outside, which is also 10.0.9.9, a pod of another node
```

Each address has an IPv6 twin beside it (`userproxy.tests.twins`): `Node6` is the same node where everybody
uses these, and whoever asks it goes on speaking of IPv4.

A socket belongs to the namespace of the thread that makes it, for life: so a test enters a namespace, makes
its sockets or its `Nftables` there, and steps out again.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from integration.echo import PATIENCE_SECONDS, echo_server
from integration.sockets import connect_from, connecting_from, inside_namespace, udp_from
from userproxy.model.address import Address
from userproxy.model.state import Frontend, Perimeter
from userproxy.netfilter.nftables import Nftables
from userproxy.netfilter.routes import Routes
from userproxy.tests.twins import original, twin

if TYPE_CHECKING:
    import socket
    from collections.abc import Collection, Iterable
    from contextlib import AbstractContextManager

    from userproxy.model.actions import CaptureChange

HOST_IP = "10.100.0.2"
LISTENER = Address(HOST_IP, 10400)
VIP = Address("10.3.241.152", 80)
SERVER1, SERVER2 = Address("10.0.1.2", 8080), Address("10.0.2.2", 8080)
OUTSIDE_IP, POD_ELSEWHERE_IP = "10.100.0.9", "10.0.9.9"
NODE_PORT = Address(HOST_IP, 30080)
EXTERNAL = Address("203.0.113.9", 80)
LOAD_BALANCER = Address("198.51.100.7", 80)
PERIMETER = Perimeter(uplinks=("eth0",), inside=("10.0.0.0/14",))
BOTH_FAMILIES = pytest.mark.parametrize("family", ["IPv4", "IPv6"], indirect=True)
"""A scenario that holds in either: it says IPv4, and is run with the IPv6 twins of its addresses too."""
REFUSED = (ConnectionRefusedError, PermissionError)
"""A host's own datagram that is refused in output fails in `send` already, and there the errno is EPERM."""


class Node:
    """The four namespaces; `host` has a default route only if asked for."""

    def __init__(self, name: str) -> None:
        self.names = {member: f"{name}-{member}" for member in ("host", "server1", "server2", "outside")}

    def up(self) -> None:
        """Make namespaces, links, addresses and routes."""
        for name in self.names.values():
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        host = self.names["host"]
        self._connect_outside(host, self.names["outside"])
        for number, member in enumerate(("server1", "server2"), start=1):
            pod = self.names[member]
            _ip("-n", host, "link", "add", member, "type", "veth", "peer", "name", "eth0", "netns", pod)
            _address(host, f"10.0.{number}.1/24", member)
            _link_up(host, member)
            _address(pod, f"10.0.{number}.2/24", "eth0")
            _link_up(pod, "eth0")
            _route(pod, "default", f"10.0.{number}.1")
        with self.inside("host"):
            for setting in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
                (Path("/proc/sys/net") / setting).write_text("1", encoding="ascii")

    def _connect_outside(self, host: str, outside: str) -> None:
        _ip("-n", host, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", outside)
        for name, ip in ((host, HOST_IP), (outside, OUTSIDE_IP)):
            _address(name, f"{ip}/24", "eth0")
            _link_up(name, "eth0")
        _address(outside, f"{POD_ELSEWHERE_IP}/32", "lo")
        _route(host, f"{POD_ELSEWHERE_IP}/32", OUTSIDE_IP)
        for network in ("10.3.240.0/20", f"{EXTERNAL.ip}/32", f"{LOAD_BALANCER.ip}/32"):
            _route(outside, network, HOST_IP)

    def down(self) -> None:
        """Delete the namespaces, as far as they exist."""
        for name in self.names.values():
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)

    def inside(self, member: str) -> AbstractContextManager[None]:
        """This thread is in the member's namespace for the time of the block."""
        return inside_namespace(self.names[member])

    def run(self, member: str, *command: str) -> str:
        """What a program prints there; it must succeed."""
        command = ("ip", "netns", "exec", self.names[member], *command)
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout

    def default_route(self) -> None:
        """Give the host a default route that leads nowhere: enough for `connect()`."""
        _route(self.names["host"], "default", "10.100.0.1")

    def lead_nowhere(self, ip: str) -> None:
        """What the host sends to this address is lost outside, and nobody says so."""
        _route(self.names["host"], ip, OUTSIDE_IP)
        for each in (ip, twin(ip)):
            _ip("-n", self.names["outside"], "route", "add", "blackhole", each)

    def serving(self, member: str, address: Address, name: str) -> AbstractContextManager[None]:
        """A server that tells each client its own name and the client's address, and echoes from then on."""
        return echo_server(self.names[member], (address.ip, address.port), name)

    def connect(
        self, member: str, address: Address = VIP, source: str = "", patience: float = PATIENCE_SECONDS
    ) -> socket.socket:
        """A TCP connection from there, and from one of its addresses if it has several."""
        return connect_from(self.names[member], address, patience, source)

    def connecting(self, member: str, address: Address) -> socket.socket:
        """A TCP connection from there that nobody has answered yet; whoever reads from it waits for that."""
        return connecting_from(self.names[member], address)

    def ask(
        self, member: str, address: Address = VIP, source: str = "", patience: float = PATIENCE_SECONDS
    ) -> str:
        """Who answers a new TCP connection from there, and what it sees: `server1 10.0.1.1`."""
        with self.connect(member, address, source, patience) as connection:
            return connection.recv(100).decode()

    def ask_udp(self, member: str, address: Address = VIP, source_port: int = 0) -> str:
        """The same by UDP; the answer must come from the address that was asked."""
        with udp_from(self.names[member], address, PATIENCE_SECONDS, source_port) as client:
            client.send(b"who?")
            return client.recv(100).decode()


class Node6(Node):
    """The node as those see it who use IPv6: what they ask and hear is told of its IPv4 twins."""

    def serving(self, member: str, address: Address, name: str) -> AbstractContextManager[None]:
        """As a node of IPv4 does."""
        return super().serving(member, twin(address), name)

    def connect(
        self, member: str, address: Address = VIP, source: str = "", patience: float = PATIENCE_SECONDS
    ) -> socket.socket:
        """As a node of IPv4 does."""
        return super().connect(member, twin(address), twin(source), patience)

    def connecting(self, member: str, address: Address) -> socket.socket:
        """As a node of IPv4 does."""
        return super().connecting(member, twin(address))

    def ask(
        self, member: str, address: Address = VIP, source: str = "", patience: float = PATIENCE_SECONDS
    ) -> str:
        """As a node of IPv4 does."""
        return _told_of_ipv4(super().ask(member, address, source, patience))

    def ask_udp(self, member: str, address: Address = VIP, source_port: int = 0) -> str:
        """As a node of IPv4 does."""
        return _told_of_ipv4(super().ask_udp(member, twin(address), source_port))


class Nftables6(Nftables):
    """Our table, which is told of IPv4 addresses and has their twins."""

    def apply(self, change: CaptureChange) -> None:
        """As a table of IPv4 does."""
        super().apply(twin(change))

    def used(self) -> set[Frontend]:
        """As a table of IPv4 does."""
        return {_told_frontend(each) for each in super().used()}


class Routes6(Routes):
    """The same of our routes."""

    def ensure(self, addresses: Iterable[str], host_ips: Collection[str]) -> None:
        """As routes of IPv4 are."""
        super().ensure(map(twin, addresses), twin(tuple(host_ips)))

    def add(self, addresses: Collection[str], host_ips: Collection[str]) -> None:
        """As routes of IPv4 are."""
        super().add(twin(tuple(addresses)), twin(tuple(host_ips)))

    def discard(self, addresses: Collection[str], host_ips: Collection[str]) -> None:
        """As routes of IPv4 are."""
        super().discard(twin(tuple(addresses)), twin(tuple(host_ips)))


def _told_frontend(frontend: Frontend) -> Frontend:
    address = Address(original(frontend.address.ip), frontend.address.port)
    return Frontend(frontend.protocol, address, outside=frontend.outside)


def _told_of_ipv4(said: str) -> str:
    name, ip = said.split()
    return f"{name} {original(ip)}"


def _address(namespace: str, address: str, device: str) -> None:
    """An address, and its twin; and one of the link's own, by which a router asks for its neighbours."""
    _ip("-n", namespace, "address", "add", address, "dev", device)
    _ip("-n", namespace, "address", "add", twin(address), "dev", device, "nodad")
    if device != "lo":
        last = address.partition("/")[0].rpartition(".")[2]
        _ip("-n", namespace, "address", "add", f"fe80::{last}/64", "dev", device, "nodad")


def _route(namespace: str, destination: str, gateway: str) -> None:
    _ip("-n", namespace, "route", "add", destination, "via", gateway)
    _ip("-n", namespace, "-6", "route", "add", twin(destination), "via", twin(gateway))


def _link_up(namespace: str, device: str) -> None:
    """Without IPv6 addresses of its own, whose routes the kernel adds some time later."""
    _ip("-n", namespace, "link", "set", device, "addrgenmode", "none", "up")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=30)
