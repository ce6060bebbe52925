"""Which way this host sends packets to an address: the kernel's routes, which anybody may ask for.

Source: rtnetlink(7). RTM_F_FIB_MATCH has the kernel tell the route itself, and not what one packet gets.
"""

from __future__ import annotations

import contextlib
import socket as net
import struct
from _socket import socket
from typing import NamedTuple

from userproxy.model.address import IpFamily, family_of

# linux/rtnetlink.h, linux/if_link.h
_NEWLINK, _GETLINK, _NEWROUTE, _GETROUTE = 16, 18, 24, 26
_REQUEST = 1
_FIB_MATCH = 0x2000
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_VIA = 1, 4, 5, 18
_IFLA_LINKINFO, _INFO_KIND = 18, 1
_KIND_BITS = 0x3FFF  # of an attribute's kind, those that are not flags

_HEADER = struct.Struct("=IHHII")
_ROUTE = struct.Struct("=BBBBBBBBI")  # struct rtmsg
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg
_ATTRIBUTE = struct.Struct("=HH")
_NUMBER = struct.Struct("=I")
_FAMILIES = {IpFamily.IPV4: (int(net.AF_INET), 32), IpFamily.IPV6: (int(net.AF_INET6), 128)}
_ANSWER_BYTES = 32 * 1024
_MOST_KINDS = 1024

UNICAST, LOCAL = 1, 2
"""Types of routes (RTN_...): to elsewhere, and to an address of this host."""


class Way(NamedTuple):
    """A route.

    Attributes:
        kind: of it (RTN_...).
        device: the index of the interface.
        prefix: how many bits of an address it asks for.
        direct: whether the address itself is on the interface, and no gateway leads there.
    """

    kind: int
    device: int
    prefix: int
    direct: bool


class Ways:
    """Asks the kernel, in the network namespace of the thread that makes the object. Nothing blocks.

    Raises:
        OSError: the kernel does not speak rtnetlink.
    """

    def __init__(self) -> None:
        self._socket = socket(net.AF_NETLINK, net.SOCK_RAW | net.SOCK_CLOEXEC | net.SOCK_NONBLOCK, 0)
        self._kinds: dict[int, str] = {}

    def close(self) -> None:
        """Ask no more."""
        self._socket.close()

    def to(self, ip: str) -> Way | None:
        """The route to an address; None if there is none."""
        family, bits = _FAMILIES[family_of(ip)]
        question = _ROUTE.pack(family, bits, 0, 0, 0, 0, 0, 0, _FIB_MATCH)
        packed = net.inet_pton(family, ip)
        answer = self._ask(_GETROUTE, question + _ATTRIBUTE.pack(4 + len(packed), _RTA_DST) + packed)
        if answer is None:
            return None
        found = _attributes(answer, _ROUTE.size)
        (device,) = _NUMBER.unpack(found.get(_RTA_OIF, bytes(4)))
        direct = _RTA_GATEWAY not in found and _RTA_VIA not in found
        return Way(answer[7], device, answer[1], direct)

    def kind_of(self, device: int) -> str:
        """What kind of interface that is, `veth` say; empty for a card, or for one that has gone."""
        known = self._kinds.get(device)  # an index is not given twice
        if known is not None:
            return known
        answer = self._ask(_GETLINK, _LINK.pack(0, 0, device, 0, 0))
        if answer is None:
            return ""
        info = _attributes(answer, _LINK.size).get(_IFLA_LINKINFO, b"")
        kind = _attributes(info, 0).get(_INFO_KIND, b"").rstrip(b"\0").decode(errors="replace")
        if len(self._kinds) >= _MOST_KINDS:
            self._kinds.clear()
        self._kinds[device] = kind
        return kind

    def _ask(self, kind: int, body: bytes) -> bytes | None:
        """The body of the answer; None if it is that there is none."""
        with contextlib.suppress(OSError):
            self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST, 0, 0) + body)
            answer = self._socket.recv(_ANSWER_BYTES)  # it is there before send() returns
            length, answered, *_ = _HEADER.unpack_from(answer)
            if answered in (_NEWROUTE, _NEWLINK):
                return answer[_HEADER.size : length]
        return None


def _attributes(data: bytes, offset: int) -> dict[int, bytes]:
    found = {}
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _KIND_BITS] = data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found
