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
from userproxy.model.carried import Counts, End, How
from userproxy.netfilter.conntrack import entry
from userproxy.netfilter.ruleset.chains import STATUS_DNAT
from userproxy.netfilter.ruleset.steering import STATUS_ASSURED, STATUS_SEEN_REPLY
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
        end: of one that is over, what is told of that.
    """

    told: Told
    flow: bytes
    backend: Address
    end: End | None = None


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

_BEHIND = {
    family: (
        each.width,
        4 + each.size + each.source + each.width + 4,
        4 + each.size + each.ports + 8,
        4 + 2 * each.size,
    )
    for family, each in _LAYOUTS.items()
}
"""Likewise the width of an IP, where the reply's destination IP is, its port, and what comes behind."""

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_FAMILY, _FIRST = 0, 4  # in struct nfgenmsg, and behind it
_NESTED = 0x8000
_DELETED = 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE
_PACKETS, _BYTES = 1, 2
_CLOSE_INIT = 0x04  # IP_CT_TCP_FLAG_CLOSE_INIT
# Of TCP, the state is the first thing that is told (tcp_to_nlattr in nf_conntrack_proto_tcp.c).
_ID_HEAD = _ATTRIBUTE.pack(8, entry.ID)
_STATE_HEAD, _STATE_AT = _ATTRIBUTE.pack(5, 1), 8
# Then come two window scales, and the flags of either direction. Those of the client's:
_FLAGS_HEAD, _FLAGS_AT = _ATTRIBUTE.pack(6, 4), 32
# A member of an enum takes a while to look up, and this is asked for often.
_OVER = _TIME_WAIT, _CLOSE = int(TcpState.TIME_WAIT), int(TcpState.CLOSE)
_CLIENT_FIRST, _BACKEND_FIRST = How.CLIENT_FIRST, How.BACKEND_FIRST


def heard(data: bytes) -> list[Heard]:
    """What the messages in what was received tell, in their order; what is of no use is left out."""
    found = []
    offset, size = 0, len(data)
    while offset + _HEADER.size <= size:
        length, kind, flags, _, port = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            break
        one = _read(
            data[offset + _HEADER.size : offset + length], kind == _DELETED, flags & NLM_F_CREATE, port
        )
        if one is not None:
            found.append(one)
        offset += (length + 3) & ~3
    return found


def listed_one(body: bytes) -> Heard | None:
    """A connection that lives, as the kernel lists it; None if it is of no use, or over."""
    ends = _ends(body)
    status, state, _ = _condition(body)
    if ends is None or not status & STATUS_DNAT or state in _OVER:
        return None
    return Heard(Told.ANSWERED if status & STATUS_SEEN_REPLY else Told.NEW, *ends)


def counts_of(fields: dict[int, bytes]) -> Counts | None:
    """What a connection has carried, by the attributes of its entry; None if that is not told."""
    if entry.COUNTERS_UP not in fields:
        return None
    up, down = (dict(attributes(fields.get(each, b""))) for each in (entry.COUNTERS_UP, entry.COUNTERS_DOWN))
    numbers = [int.from_bytes(way.get(kind, b"")) for way in (up, down) for kind in (_PACKETS, _BYTES)]
    return Counts(*numbers)


def _read(body: bytes, gone: bool, created: int, port: int) -> Heard | None:
    ends = _ends(body)
    if ends is None:
        return None
    if created and not gone:
        return Heard(Told.NEW, *ends)
    condition = _condition(body)
    status, state, _ = condition
    answered = status & STATUS_SEEN_REPLY
    if gone or state in _OVER:
        # A reset that is the first answer is a refusal, and the entry is gone at once. One that is still
        # there was answered by a SYN-ACK, and reset by a client that never meant it: a scan, a flood.
        is_refusal = gone and not port and state == _CLOSE and not status & STATUS_ASSURED
        told = Told.OVER if answered and not is_refusal else Told.FAILED
        return Heard(told, *ends, _end(body, ends[0], gone, port, condition))
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


def _end(body: bytes, flow: bytes, gone: bool, port: int, condition: tuple[int, int, bytes]) -> End:
    """What is told of its end: by a message that it is over, or that its entry is gone."""
    width, seen, seen_port, behind = _BEHIND[body[_FAMILY]]
    ip, number = body[seen : seen + width], body[seen_port : seen_port + 2]
    source = None if number == flow[-4:-2] and ip == flow[1 : 1 + width] else _address(ip, number)
    how = _how(port, *condition[1:])
    # The kernel's number comes first, unless there is a zone.
    if not gone and body[behind : behind + 4] == _ID_HEAD:
        return End(how, int.from_bytes(body[behind + 4 : behind + 8]), source)
    fields = dict(attributes(body, behind))
    return End(how, int.from_bytes(fields.get(entry.ID, b"")), source, counts_of(fields))


def _how(port: int, state: int, protocol: bytes) -> How:
    if port:
        return How.DELETED
    if state == _TIME_WAIT:
        known = protocol[_FLAGS_AT - 4 : _FLAGS_AT] == _FLAGS_HEAD
        return _BACKEND_FIRST if known and not protocol[_FLAGS_AT] & _CLOSE_INIT else _CLIENT_FIRST
    return How.RESET if state == _CLOSE else How.EXPIRED


def _condition(body: bytes) -> tuple[int, int, bytes]:
    """Its status, and of TCP its state, which comes later in the message; 0 where there is none.

    And all that is told of TCP.
    """
    status = 0
    layout = _LAYOUTS.get(body[_FAMILY]) if body else None
    for kind, payload in attributes(body, _FIRST if layout is None else _FIRST + 2 * layout.size):
        if kind == entry.STATUS:
            status = int.from_bytes(payload, "big")
        elif kind == entry.PROTOCOL_INFO:
            head, state = payload[4:_STATE_AT], payload[_STATE_AT : _STATE_AT + 1]
            return status, state[0] if head == _STATE_HEAD and state else 0, payload
    return status, 0, b""


@functools.lru_cache(maxsize=4096)
def _address(ip: bytes, port: bytes) -> Address:
    return Address(str(ipaddress.ip_address(ip)), int.from_bytes(port, "big"))
