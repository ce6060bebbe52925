"""Sending probes: from raw sockets, so many a second."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING, Self

from userproxy.model.probing import PROBE_MARK

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from userproxy.netfilter.ending.probes import Segment

PROBES_A_SECOND = 10_000
"""At most: a packet of 40 bytes each, so 4 Mbit/s."""

_SO_MARK = 36
_BURST = 100


class Sender:
    """Sends packets that it has made itself. They take the ways that the routes say, and conntrack is blind.

    Attributes:
        lacking: what is missing, so that nothing can be sent; empty if nothing is.
    """

    def __init__(self) -> None:
        self.lacking = ""
        self._sockets: dict[bool, socket.socket] = {}  # by whether it is for IPv6

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in self._sockets.values():
            each.close()

    def send(self, segments: Iterable[Segment]) -> None:
        """Send them, not faster than is allowed. One that cannot be sent is left out."""
        began = time.monotonic()
        for sent, segment in enumerate(segments):
            if sent and sent % _BURST == 0:
                time.sleep(max(0.0, began + sent / PROBES_A_SECOND - time.monotonic()))
            raw = self._socket(is_ipv6=segment.destination.is_ipv6)
            if raw is None:
                return
            # No route, or a firewall of the host: then that end is not heard of.
            with contextlib.suppress(OSError):
                raw.sendto(segment.packed(), (segment.destination.ip, 0))

    def _socket(self, *, is_ipv6: bool) -> socket.socket | None:
        if is_ipv6 not in self._sockets and not self.lacking:
            family = socket.AF_INET6 if is_ipv6 else socket.AF_INET
            try:
                # By this protocol, packets have their headers.
                raw = socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW)
            except PermissionError:
                self.lacking = "CAP_NET_RAW is missing"
                return None
            raw.setsockopt(socket.SOL_SOCKET, _SO_MARK, PROBE_MARK)
            self._sockets[is_ipv6] = raw
        return self._sockets.get(is_ipv6)
