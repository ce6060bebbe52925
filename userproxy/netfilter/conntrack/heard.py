"""What conntrack tells of translated connections, read with few steps: it tells much of each.

The kernel begins each with both directions, in a layout that depends on the family alone
(ctnetlink_dump_tuples in net/netfilter/nf_conntrack_netlink.c); what has another layout is of no use here.
"""

from __future__ import annotations

import enum
import functools
import ipaddress
import struct
from typing import NamedTuple

from userproxy.model.address import Address
from userproxy.netfilter.conntrack import entry
from userproxy.netfilter.ruleset.chains import STATUS_DNAT
from userproxy.netfilter.wire.netlink import NLM_F_CREATE, attributes


class Told(enum.Enum):
    """What is told of a connection."""

    NEW = enum.auto()
    """Its first packet has passed."""
    ANSWERED = enum.auto()
    """The pod has answered: of TCP, its SYN-ACK has passed; of UDP, its first datagram."""
    OVER = enum.auto()
    """It was answered, and is over; the kernel may keep the entry for some time."""
    FAILED = enum.auto()
    """It is over, and the pod has never answered, or has refused."""


class Heard(NamedTuple):
    """A connection, and what is told of it.

    Attributes:
        told: what.
        flow: its key (`userproxy.model.flow_key`).
        backend: the pod.
    """

    told: Told
    flow: bytes
    backend: Address


class TcpState(enum.IntEnum):
    """States of TCP as conntrack has them (enum tcp_conntrack in linux/netfilter/nf_conntrack_tcp.h)."""

    SYN_RECV = 2
    TIME_WAIT = 7
    CLOSE = 8


class _Layout(NamedTuple):
    """Where the parts of a direction are, from its own attribute on.

    Attributes:
        size: of the whole.
        source: where the source IP is; its destination follows, behind the head of an attribute.
        width: of an IP.
        protocol: where its number is.
        ports: where the source port is, and eight bytes behind it the destination's.
    """

    size: int
    source: int
    width: int
    protocol: int
    ports: int


_LAYOUTS = {2: _Layout(52, 12, 4, 32, 40), 10: _Layout(76, 12, 16, 56, 64)}
"""By address family."""

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_FAMILY, _FIRST = 0, 4  # in struct nfgenmsg, and behind it
_NESTED = 0x8000
_DELETED = 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE
_SEEN_REPLY, _ASSURED = 1 << 1, 1 << 2
# Of TCP, the state is the first thing that is told (tcp_to_nlattr in nf_conntrack_proto_tcp.c).
_STATE_HEAD, _STATE_AT = _ATTRIBUTE.pack(5, 1), 8
_OVER = (TcpState.TIME_WAIT, TcpState.CLOSE)


def heard(data: bytes) -> list[Heard]:
    """What the messages in what was received tell, in their order; what is of no use is left out."""
    found = []
    offset, size = 0, len(data)
    while offset + _HEADER.size <= size:
        length, kind, flags, _, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            break
        one = _read(data[offset + _HEADER.size : offset + length], kind == _DELETED, flags & NLM_F_CREATE)
        if one is not None:
            found.append(one)
        offset += (length + 3) & ~3
    return found


def listed_one(body: bytes) -> Heard | None:
    """A connection that lives, as the kernel lists it; None if it is of no use, or over."""
    ends = _ends(body)
    status, state = _condition(body)
    if ends is None or not status & STATUS_DNAT or state in _OVER:
        return None
    return Heard(Told.ANSWERED if status & _SEEN_REPLY else Told.NEW, *ends)


def _read(body: bytes, gone: bool, created: int) -> Heard | None:
    ends = _ends(body)
    if ends is None:
        return None
    if created and not gone:
        return Heard(Told.NEW, *ends)
    status, state = _condition(body)
    answered = status & _SEEN_REPLY
    if gone or state in _OVER:
        # A reset that is the first answer is a refusal, and the entry is gone at once. One that is still
        # there was answered by a SYN-ACK, and reset by a client that never meant it: a scan, a flood.
        is_refusal = gone and state == TcpState.CLOSE and not status & _ASSURED
        return Heard(Told.OVER if answered and not is_refusal else Told.FAILED, *ends)
    return Heard(Told.ANSWERED, *ends) if answered else None


def _ends(body: bytes) -> tuple[bytes, Address] | None:
    """The connection's key, and its pod."""
    layout = _LAYOUTS.get(body[_FAMILY]) if body else None
    if layout is None or len(body) < _FIRST + 2 * layout.size:
        return None
    size, source, width, protocol, ports = layout
    reply = _FIRST + size
    if _ATTRIBUTE.unpack_from(body, _FIRST) != (size, entry.ORIGINAL | _NESTED):
        return None
    if _ATTRIBUTE.unpack_from(body, reply) != (size, entry.REPLY | _NESTED):
        return None
    client, port = _FIRST + source, _FIRST + ports
    frontend = client + width + _ATTRIBUTE.size
    flow = (
        body[_FIRST + protocol : _FIRST + protocol + 1]
        + body[client : client + width]
        + body[frontend : frontend + width]
        + body[port : port + 2]
        + body[port + 8 : port + 10]
    )
    pod, pod_port = reply + source, reply + ports
    return flow, _address(body[pod : pod + width], body[pod_port : pod_port + 2])


def _condition(body: bytes) -> tuple[int, int]:
    """Its status, and of TCP its state, which comes later in the message; 0 where there is none."""
    status = 0
    layout = _LAYOUTS.get(body[_FAMILY]) if body else None
    for kind, payload in attributes(body, _FIRST if layout is None else _FIRST + 2 * layout.size):
        if kind == entry.STATUS:
            status = int.from_bytes(payload, "big")
        elif kind == entry.PROTOCOL_INFO:
            head, state = payload[4:_STATE_AT], payload[_STATE_AT : _STATE_AT + 1]
            return status, state[0] if head == _STATE_HEAD and state else 0
    return status, 0


@functools.lru_cache(maxsize=4096)
def _address(ip: bytes, port: bytes) -> Address:
    return Address(str(ipaddress.ip_address(ip)), int.from_bytes(port, "big"))
