"""Forgetting UDP flows.

A flow keeps the translation of its first packet for as long as its client keeps sending. Whoever changes
where a UDP frontend leads, or removes it, has its entries forgotten, or old clients stay with what is gone.
TCP connections end by themselves and are left alone.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from typing import TYPE_CHECKING

from userproxy.model.service import Protocol
from userproxy.netfilter import NetfilterError
from userproxy.netfilter.ruleset import UDP
from userproxy.netfilter.wire.netlink import (
    Message,
    RefusedError,
    Socket,
    attribute,
    attributes,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from userproxy.model.plan import Frontend

NETLINK_NETFILTER = 12
SINGLE_DUMPS = 8
"""Up to so many frontends the kernel is asked for each one's flows; for more, once for all UDP flows."""

_CT_GET, _CT_DELETE = 1 << 8 | 1, 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK
_TUPLE_ORIG, _FILTER, _FILTER_ORIG_FLAGS = 1, 25, 1
_TUPLE_IP, _TUPLE_PROTO, _IP_DST, _PROTO_NUMBER, _PROTO_DST_PORT = 1, 2, 2, 1, 3
_NESTED = 0x8000
_BY_DESTINATION, _BY_PROTOCOL, _BY_DESTINATION_PORT = 1 << 1, 1 << 3, 1 << 5  # CTA_FILTER_F_*
_HEADER = struct.pack(">BBH", socket.AF_INET, 0, 0)


def forget(frontends: Iterable[Frontend]) -> int:
    """Forget the UDP flows whose original destination is one of these frontends; returns how many there were.

    Blocks, briefly; for any thread. TCP and IPv6 frontends are left out.

    Raises:
        NetfilterError: some flows may be left; call again.
    """
    wanted = {
        (ipaddress.IPv4Address(each.address.ip).packed, each.address.port)
        for each in frontends
        if each.protocol == Protocol.UDP and not each.address.is_ipv6
    }
    if not wanted:
        return 0
    try:
        connection = Socket(NETLINK_NETFILTER)
        try:
            return _forget(connection, wanted)
        finally:
            connection.close()
    except (RefusedError, OSError) as error:
        refused = isinstance(error, RefusedError) and error.refusal.errno == errno.EPERM
        remedy = " (run as root or grant CAP_NET_ADMIN)" if refused else ""
        raise NetfilterError(f"cannot forget UDP flows: {error}{remedy}") from error


def _forget(connection: Socket, wanted: set[tuple[bytes, int]]) -> int:
    filters = [_filter(*each) for each in wanted] if len(wanted) <= SINGLE_DUMPS else [_filter()]
    stale = {
        original
        for question in filters
        for body in connection.dump(Message(_CT_GET, 0, _HEADER + question, "conntrack"))
        for original in _original(body, wanted)
    }
    deletions = [
        Message(_CT_DELETE, 0, _HEADER + attribute(_TUPLE_ORIG | _NESTED, original), "conntrack entry")
        for original in sorted(stale)
    ]
    for refusal in connection.request(deletions):
        if refusal.errno != errno.ENOENT:  # it expired meanwhile
            raise RefusedError(refusal, "conntrack entry")
    return len(deletions)


def _filter(ip: bytes = b"", port: int = 0) -> bytes:
    """What the kernel is to list: UDP flows, of one original destination or of any.

    A kernel older than 5.8 lists everything, which is why the answers are looked at again.
    """
    flags = _BY_PROTOCOL
    protocol = attribute(_PROTO_NUMBER, bytes([UDP]))
    addresses = b""
    if ip:
        flags |= _BY_DESTINATION | _BY_DESTINATION_PORT
        protocol += attribute(_PROTO_DST_PORT, port.to_bytes(2, "big"))
        addresses = attribute(_TUPLE_IP | _NESTED, attribute(_IP_DST, ip))
    original = addresses + attribute(_TUPLE_PROTO | _NESTED, protocol)
    return attribute(_TUPLE_ORIG | _NESTED, original) + attribute(
        _FILTER | _NESTED, attribute(_FILTER_ORIG_FLAGS, struct.pack("=I", flags))
    )


def _original(body: bytes, wanted: set[tuple[bytes, int]]) -> Iterator[bytes]:
    """The original tuple of a listed entry, if it is one to forget."""
    original = dict(attributes(body, len(_HEADER))).get(_TUPLE_ORIG, b"")
    parts = dict(attributes(original))
    addresses = dict(attributes(parts.get(_TUPLE_IP, b"")))
    protocol = dict(attributes(parts.get(_TUPLE_PROTO, b"")))
    port = int.from_bytes(protocol.get(_PROTO_DST_PORT, b""), "big")
    if protocol.get(_PROTO_NUMBER) == bytes([UDP]) and (addresses.get(_IP_DST, b""), port) in wanted:
        yield original
