"""Notices that addresses or routes of this node have changed.

The kernel tells it by multicast (rtnetlink(7)), address by address and route by route: a burst becomes one
call. What has changed is not told, but that something has; asking anew is cheap, and misses nothing.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from typing import Protocol

    class OnChange(Protocol):
        """Called after a burst of changes, with whether an address was among them, or routes alone."""

        def __call__(self, *, addresses: bool) -> object:
            """It is on the loop's thread."""


_GROUPS = 0x10 | 0x40 | 0x100 | 0x400  # RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, and those of IPv6
_ADDRESS_MESSAGES = (20, 21)  # RTM_NEWADDR, RTM_DELADDR
_RECEIVE_BYTES = 64 * 1024
_HEADER = struct.Struct("=IH10x")
_MOST_READ = 100  # datagrams in a row
BURST_SECONDS = 0.3
"""From the first change of a burst to the call."""


class AddressWatch:
    """Watches the network namespace of the thread that makes the object.

    Args:
        loop: that drives it.
        on_change: called after each burst.

    Raises:
        OSError: the kernel does not speak rtnetlink.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_change: OnChange) -> None:
        self._loop = loop
        self._on_change = on_change
        self._addresses = False
        self._timer: asyncio.TimerHandle | None = None
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, 0)
        self._socket.bind((0, _GROUPS))
        loop.add_reader(self._socket.fileno(), self._read)

    def close(self) -> None:
        """Watch no more."""
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        if self._timer is not None:
            self._timer.cancel()

    def _read(self) -> None:
        for _ in range(_MOST_READ):
            try:
                data = self._socket.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: there were more than the socket holds, of whatever kind
                self._addresses = True
                continue
            self._addresses |= any(kind in _ADDRESS_MESSAGES for kind in _kinds(data))
        if self._timer is None:
            self._timer = self._loop.call_later(BURST_SECONDS, self._tell)

    def _tell(self) -> None:
        self._timer = None
        addresses, self._addresses = self._addresses, False
        self._on_change(addresses=addresses)


def _kinds(data: bytes) -> list[int]:
    """The types of the messages in a datagram."""
    found, offset = [], 0
    while offset + _HEADER.size <= len(data):
        length, kind = _HEADER.unpack_from(data, offset)
        found.append(kind)
        if length < _HEADER.size:
            break
        offset += (length + 3) & ~3
    return found
