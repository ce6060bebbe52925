"""A client and a backend with the two legs of a connection in between, driven by hand."""

from __future__ import annotations

import fcntl
import socket as net
import struct
import sys
import termios
from typing import TYPE_CHECKING

import pytest

from userproxy.dataplane.tcp.pipes import PipePool
from userproxy.dataplane.tcp.relay import Leg
from userproxy.net.sockets import take_urgent_inline
from userproxy.tests.dataplane.rig.polling import Polling
from userproxy.tests.sockets import Clock, Sockets

if TYPE_CHECKING:
    from _socket import socket

# Of the spliced relay, and of the one that must do without pipes.
MAX_PIPES = pytest.mark.parametrize("max_pipes", [4, 0], ids=["splice", "copy"])


class Relay(Polling):
    """A client and a backend with two legs in between, and what the legs report.

    It does what a connection does about the reports, no more: an end is handed on, a failure is the end, and
    what is reported after that is ignored.

    Attributes:
        client, backend: the far ends, which a test plays.
        rests_of: the legs that have left the poller for a moment, and whether again.
    """

    def __init__(self, sockets: Sockets, max_pipes: int, *, tcp: bool = False) -> None:
        self.clock = Clock()
        self.poller = sockets.poller(self.clock)
        self.pipes = PipePool(max_pipes)
        self.ends: list[str] = []
        self.over = False
        self.rests_of: list[tuple[str, bool]] = []
        connect = sockets.tcp_pair if tcp else sockets.pair
        self.client, near = connect()
        self.backend, far = connect()
        if tcp:
            for sock in (near, far):  # as from a listener, and as dialled
                take_urgent_inline(sock)
        self.client_leg = Leg(near, self, self.poller, self.pipes)
        self.backend_leg = Leg(far, self, self.poller, self.pipes)
        self.client_leg.other, self.backend_leg.other = self.backend_leg, self.client_leg
        self.client_leg.start(registered=False)
        self.backend_leg.start(registered=False)

    def finished(self, leg: Leg) -> None:
        """Of `Ends`."""
        self.ends.append(f"{self._name(leg)} finished")
        leg.other.sock.shutdown(net.SHUT_WR)

    def failed(self, leg: Leg, error: int) -> None:  # noqa: ARG002 - of `Ends`
        """Of `Ends`."""
        if not self.over:
            self.ends.append(f"{self._name(leg)} failed")
        self.close()

    def rests(self, leg: Leg, *, again: bool) -> None:
        """Of `Ends`."""
        self.rests_of.append((self._name(leg), again))

    def abort(self) -> None:
        """Of `Ends`."""
        self.ends.append("aborted")
        self.close()

    def close(self) -> None:
        """Give everything back."""
        if not self.over:
            self.over = True
            for leg in (self.client_leg, self.backend_leg):
                leg.release()
                self.poller.close(leg.sock)

    def _name(self, leg: Leg) -> str:
        return "client" if leg is self.client_leg else "backend"


def take(sock: socket, most: int = 1 << 20) -> bytes | None:
    """What has arrived; None for nothing yet, empty for the end."""
    try:
        return sock.recv(most)
    except BlockingIOError:
        return None


def give(sock: socket, data: bytes) -> int:
    """Send what is taken of it; returns how many bytes."""
    try:
        return sock.send(data)
    except BlockingIOError:
        return 0


def block(relay: Relay, data: bytes) -> int:
    """Have the client send to a backend that does not read until nothing moves; returns the bytes sent."""
    sent = 0
    while count := give(relay.client, data[sent:]):
        sent += count
        relay.settle()
    return sent


def fill(sock: socket) -> None:
    """Send to a peer that does not read until there is no room, and nothing under way to make some."""
    while _in_flight(sock) or give(sock, bytes(1 << 16)):
        pass


def unacknowledged(sock: socket) -> int:
    """How many bytes the peer has yet to acknowledge."""
    count: int
    (count,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
    return count


def _in_flight(sock: socket) -> int:
    """How many segments the peer has not acknowledged: `tcpi_unacked` of struct tcp_info."""
    return int.from_bytes(sock.getsockopt(net.IPPROTO_TCP, net.TCP_INFO, 28)[24:], sys.byteorder)


def receive_all(relay: Relay, sock: socket) -> bytes:
    """Read to the end, and serve what is ready in between."""
    received: list[bytes] = []

    def ended() -> bool:
        while part := take(sock):
            received.append(part)
        return part == b""

    relay.until(ended)
    return b"".join(received)
