"""A node by itself, to see what the kernel does with our rules: a host, two pods, and somebody outside.

```
server1 10.0.1.2 --- 10.0.1.1 host 10.0.2.1 --- 10.0.2.2 server2
                            10.100.0.2 (eth0)
                                |
                            10.100.0.9 outside, which is also 10.0.9.9, a pod of another node
```

A socket belongs to the namespace of the thread that makes it, for life: so a test enters a namespace, makes
its sockets or its `Nftables` there, and steps out again.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from integration.echo import PATIENCE_SECONDS, echo_server
from integration.sockets import connect_from, inside_namespace, udp_from
from userproxy.model.address import Address
from userproxy.model.state import Perimeter

if TYPE_CHECKING:
    import socket
    from contextlib import AbstractContextManager

HOST_IP = "10.100.0.2"
LISTENER = Address(HOST_IP, 10400)
VIP = Address("10.3.241.152", 80)
SERVER1, SERVER2 = Address("10.0.1.2", 8080), Address("10.0.2.2", 8080)
OUTSIDE_IP, POD_ELSEWHERE_IP = "10.100.0.9", "10.0.9.9"
NODE_PORT = Address(HOST_IP, 30080)
EXTERNAL = Address("203.0.113.9", 80)
LOAD_BALANCER = Address("198.51.100.7", 80)
PERIMETER = Perimeter(uplinks=("eth0",), inside=("10.0.0.0/14",))
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
            _ip("-n", host, "address", "add", f"10.0.{number}.1/24", "dev", member)
            _link_up(host, member)
            _ip("-n", pod, "address", "add", f"10.0.{number}.2/24", "dev", "eth0")
            _link_up(pod, "eth0")
            _ip("-n", pod, "route", "add", "default", "via", f"10.0.{number}.1")
        with self.inside("host"):
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1", encoding="ascii")

    def _connect_outside(self, host: str, outside: str) -> None:
        _ip("-n", host, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", outside)
        for name, ip in ((host, HOST_IP), (outside, OUTSIDE_IP)):
            _ip("-n", name, "address", "add", f"{ip}/24", "dev", "eth0")
            _link_up(name, "eth0")
        _ip("-n", outside, "address", "add", f"{POD_ELSEWHERE_IP}/32", "dev", "lo")
        _ip("-n", host, "route", "add", f"{POD_ELSEWHERE_IP}/32", "via", OUTSIDE_IP)
        for network in ("10.3.240.0/20", f"{EXTERNAL.ip}/32", f"{LOAD_BALANCER.ip}/32"):
            _ip("-n", outside, "route", "add", network, "via", HOST_IP)

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
        self.run("host", "ip", "route", "add", "default", "via", "10.100.0.1")

    def serving(self, member: str, address: Address, name: str) -> AbstractContextManager[None]:
        """A server that tells each client its own name and the client's address, and echoes from then on."""
        return echo_server(self.names[member], (address.ip, address.port), name)

    def connect(
        self, member: str, address: Address = VIP, source: str = "", patience: float = PATIENCE_SECONDS
    ) -> socket.socket:
        """A TCP connection from there, and from one of its addresses if it has several."""
        return connect_from(self.names[member], address, patience, source)

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


def _link_up(namespace: str, device: str) -> None:
    """Without IPv6 addresses of its own, whose routes the kernel adds some time later."""
    _ip("-n", namespace, "link", "set", device, "addrgenmode", "none", "up")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=30)
