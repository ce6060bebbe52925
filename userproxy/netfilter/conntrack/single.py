"""One connection in conntrack: what is known of it, and having it forgotten. By its key, at once."""

from __future__ import annotations

import errno
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from userproxy.netfilter.conntrack import entry
from userproxy.netfilter.conntrack.heard import counts_of
from userproxy.netfilter.ruleset.steering import STATUS_SEEN_REPLY
from userproxy.netfilter.wire.netlink import Message, RefusedError, Socket, attribute, attributes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from userproxy.model.carried import Counts

_GET = 1 << 8 | 1  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET
_NESTED = 0x8000
_IP, _PROTOCOL = 1 | _NESTED, 2 | _NESTED
_IPV4_KEY = 13
_TCP, _STATE = 1, 1
_AT_ONCE = 256
_ACCOUNTING = Path("/proc/sys/net/netfilter/nf_conntrack_acct")
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
        try:
            fields = entry.fields_of(self._socket.get(_question(flow)))
        except RefusedError as error:
            if error.refusal.errno == errno.ENOENT:
                return None
            raise
        status = entry.status_of(fields)
        tcp = dict(attributes(dict(attributes(fields.get(entry.PROTOCOL_INFO, b""))).get(_TCP, b"")))
        return Single(bool(status & STATUS_SEEN_REPLY), tcp.get(_STATE) in _OVER)

    def counts(self, flows: Sequence[bytes]) -> list[tuple[int, Counts] | None]:
        """What each of these has carried, with its number; None if nothing is known, or it is not counted.

        Raises:
            OSError: it cannot be asked.
        """
        found: list[tuple[int, Counts] | None] = []
        for start in range(0, len(flows), _AT_ONCE):
            part = flows[start : start + _AT_ONCE]
            for body in self._socket.get_each([_question(flow) for flow in part]):
                fields = {} if body is None else entry.fields_of(body)
                counts = counts_of(fields)
                found.append(counts and (int.from_bytes(fields.get(entry.ID, b"")), counts))
        return found

    def forget(self, flow: bytes) -> None:
        """Have its entry deleted, before this returns; one that is not there is no error.

        Raises:
            OSError: nothing is known of it.
        """
        self._socket.request([entry.deletion(original_of(flow))])

    def close(self) -> None:
        """Ask no more."""
        self._socket.close()


def counting() -> bool:
    """Whether the kernel counts what new connections carry (`nf_conntrack_acct`), in this namespace."""
    try:
        return _ACCOUNTING.read_bytes().strip() != b"0"
    except OSError:
        return False


def _question(flow: bytes) -> Message:
    family = socket.AF_INET if len(flow) == _IPV4_KEY else socket.AF_INET6
    body = struct.pack(">BBH", family, 0, 0) + attribute(entry.ORIGINAL | _NESTED, original_of(flow))
    return Message(_GET, 0, body, "conntrack entry")


def original_of(flow: bytes) -> bytes:
    """The original direction of a connection, as the kernel packs it."""
    layout, width, first = _IPV4 if len(flow) == _IPV4_KEY else _IPV6
    head, client, frontend = 4 + width, flow[1 : 1 + width], flow[1 + width : 1 + 2 * width]
    ips = (4 + 2 * head, _IP, head, first, client, head, first + 1, frontend)
    return layout.pack(*ips, 28, _PROTOCOL, 5, 1, flow[0], 6, 2, flow[-4:-2], 6, 3, flow[-2:])


def _layout(width: int, first: int) -> tuple[struct.Struct, int, int]:
    """Of an original direction: heads of attributes, each with its length, and what they hold."""
    return struct.Struct(f"=HH HH{width}s HH{width}s HH HHB3x HH2s2x HH2s2x"), width, first


_IPV4, _IPV6 = _layout(4, 1), _layout(16, 3)  # CTA_IP_V4_SRC, CTA_IP_V6_SRC; the destinations follow
