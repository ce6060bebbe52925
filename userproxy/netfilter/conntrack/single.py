"""One connection in conntrack: what is known of it, and having it forgotten. By its key, at once."""

from __future__ import annotations

import errno
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from userproxy.netfilter.conntrack import entry
from userproxy.netfilter.wire.netlink import Message, RefusedError, Socket, attribute, attributes

if TYPE_CHECKING:
    from collections.abc import Callable

_GET = 1 << 8 | 1  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET
_NESTED = 0x8000
_IP, _PROTOCOL = 1 | _NESTED, 2 | _NESTED
_IPV4_KEY = 13
_SEEN_REPLY = 1 << 1
_TCP, _STATE = 1, 1
_OVER = (b"\7", b"\x08")  # TCP_CONNTRACK_TIME_WAIT, TCP_CONNTRACK_CLOSE


class Single(NamedTuple):
    """What is known of one.

    Attributes:
        answered: whether there has been a packet in the other direction.
        over: of TCP: both sides have finished, or it was reset.
    """

    answered: bool
    over: bool


class Conntrack:
    """Asks about one connection at a time. Lives as long as the process; needs CAP_NET_ADMIN.

    Args:
        connect: opens the socket.
    """

    def __init__(self, connect: Callable[[int], Socket] = Socket) -> None:
        self._socket = connect(entry.NETLINK_NETFILTER)

    def find(self, flow: bytes) -> Single | None:
        """What conntrack knows of a connection, by its key (`userproxy.model.flow_key`); None: nothing.

        Raises:
            OSError: it cannot be asked.
            RefusedError: likewise.
        """
        family = socket.AF_INET if len(flow) == _IPV4_KEY else socket.AF_INET6
        body = struct.pack(">BBH", family, 0, 0) + attribute(entry.ORIGINAL | _NESTED, original_of(flow))
        try:
            fields = entry.fields_of(self._socket.get(Message(_GET, 0, body, "conntrack entry")))
        except RefusedError as error:
            if error.refusal.errno == errno.ENOENT:
                return None
            raise
        status = int.from_bytes(fields.get(entry.STATUS, b""), "big")
        tcp = dict(attributes(dict(attributes(fields.get(entry.PROTOCOL_INFO, b""))).get(_TCP, b"")))
        return Single(bool(status & _SEEN_REPLY), tcp.get(_STATE) in _OVER)

    def forget(self, flow: bytes) -> None:
        """Have its entry deleted, before this returns; one that is not there is no error.

        Raises:
            OSError: nothing is known of it.
        """
        self._socket.request([entry.deletion(original_of(flow))])

    def close(self) -> None:
        """Ask no more."""
        self._socket.close()


def original_of(flow: bytes) -> bytes:
    """The original direction of a connection, as the kernel packs it."""
    size = 4 if len(flow) == _IPV4_KEY else 16
    first = 1 if size == 4 else 3  # noqa: PLR2004 - CTA_IP_V4_SRC, CTA_IP_V6_SRC; the destinations follow
    ips = attribute(first, flow[1 : 1 + size]) + attribute(first + 1, flow[1 + size : 1 + 2 * size])
    ports = attribute(1, flow[:1]) + attribute(2, flow[-4:-2]) + attribute(3, flow[-2:])
    return attribute(_IP, ips) + attribute(_PROTOCOL, ports)
