"""A packet of our own, sent for real, and where the kernel has led it."""

from __future__ import annotations

import os
import select
import socket
import time
from typing import TYPE_CHECKING, Self

import msgspec

from userproxy.model.address import Address
from userproxy.model.service import Protocol
from userproxy.model.state import Frontend
from userproxy.netfilter.conntrack.flows import flows

if TYPE_CHECKING:
    from types import TracebackType

_SECONDS = 2.0


class Sent(msgspec.Struct, frozen=True):
    """What became of it.

    Attributes:
        source: whose packet it was: our own address.
        led_to: where conntrack has it go; empty if nobody has translated it, or nobody let it pass.
        answer: what came back: `connected`, or why not; of UDP nothing is waited for.
        milliseconds: until then.
    """

    source: str
    led_to: str
    answer: str
    milliseconds: float


class Sender:
    """Sends one packet from this node, and keeps the connection as long as the block: it can be looked at.

    Args:
        protocol: TCP: a connection is made, and nothing said. UDP: an empty datagram.
        destination: of the packet.

    Raises:
        OSError: it cannot be sent: there is no route, or it may not leave.
    """

    def __init__(self, protocol: Protocol, destination: Address) -> None:
        self._frontend = Frontend(protocol, destination)
        kind = socket.SOCK_STREAM if protocol is Protocol.TCP else socket.SOCK_DGRAM
        family = socket.AF_INET6 if destination.is_ipv6 else socket.AF_INET
        self._socket = socket.socket(family, kind)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def send(self) -> Sent:
        """Send it, and wait for an answer for a bounded time.

        Raises:
            NetfilterError: conntrack cannot be read.
        """
        began = time.monotonic()
        answer = self._connect()
        milliseconds = round((time.monotonic() - began) * 1000, 3)
        source = Address(*self._socket.getsockname()[:2])
        found = (flow for flow in flows({self._frontend}) if flow.client == source)
        flow = next(found, None)
        return Sent(str(source), str(flow.backend) if flow else "", answer, milliseconds)

    def _connect(self) -> str:
        address = self._frontend.address
        self._socket.settimeout(0)
        number = self._socket.connect_ex((address.ip, address.port))
        if self._frontend.protocol is Protocol.UDP:
            if not number:
                self._socket.send(b"")
            return os.strerror(number) if number else "sent"
        _, connected, _ = select.select([], [self._socket], [], _SECONDS)
        if not connected:
            return f"no answer within {_SECONDS:g} s"
        number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return os.strerror(number).lower() if number else "connected"
