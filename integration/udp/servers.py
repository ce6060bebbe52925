"""UDP servers in the lab's pods that say who they are and whom they see, and their clients."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

from integration.sockets import PATIENCE_SECONDS, inside, udp_from
from userproxy.model.address import Address

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from userproxy.lab.deployment import Lab

PORT = 7000
LARGEST = 65507
"""Bytes of a datagram, at most: 65,535 with the headers of IP and UDP."""

WHO = b"who?"
_LOOK_SECONDS = 0.02


class Echo:
    """It answers `who?...` with `NAME PEER who?...`, and sends everything else back, in both families.

    Attributes:
        name: of the pod.
        got: the datagrams that it got, whole.
    """

    def __init__(self, lab: Lab, name: str, port: int = PORT) -> None:
        self.name = name
        self.got: list[bytes] = []
        with inside(lab, name):
            self._sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self._sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._sock.bind(("", port))
        self._sock.settimeout(_LOOK_SECONDS)
        self._over = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def tell(self, peer: str, news: bytes) -> None:
        """Send something that nobody has asked for."""
        to = Address.parse(peer)
        self._sock.sendto(news, (to.ip if to.is_ipv6 else f"::ffff:{to.ip}", to.port))

    def close(self) -> None:
        """Nobody listens there any more: who asks is refused."""
        self._over = True
        self._thread.join()
        self._sock.close()

    def _serve(self) -> None:
        while not self._over:
            with contextlib.suppress(TimeoutError):
                datagram, peer = self._sock.recvfrom(LARGEST)
                self.got.append(datagram)
                seen = Address(peer[0].removeprefix("::ffff:"), peer[1])
                about = f"{self.name} {seen} ".encode() if datagram.startswith(WHO) else b""
                self._sock.sendto(about + datagram, peer)


@contextlib.contextmanager
def serving(lab: Lab, names: Sequence[str]) -> Iterator[dict[str, Echo]]:
    """Servers in these pods, by name."""
    servers = {name: Echo(lab, name) for name in names}
    try:
        yield servers
    finally:
        for server in servers.values():
            server.close()


def client(lab: Lab, member: str, address: Address, port: int = 0) -> socket.socket:
    """A client that hears of this address alone; 0 leaves its port to the kernel."""
    return udp_from(lab.namespace(member), address, PATIENCE_SECONDS, port)


def ask(sock: socket.socket) -> tuple[str, str]:
    """Which pod answers, and whom it sees."""
    sock.send(WHO)
    name, peer, _ = sock.recv(100).decode().split()
    return name, peer


def echoes(sock: socket.socket, size: int) -> bool:
    """Whether a datagram of this size comes back as it was sent."""
    datagram = bytes(number % 251 for number in range(size))
    sock.send(datagram)
    return sock.recv(LARGEST) == datagram
