"""What this node has of the network, read by rtnetlink(7): its addresses, and where its outside is."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import struct
import sys
from typing import TYPE_CHECKING

from pyroute2.netlink import rtnl

from userproxy.model.address import THE_WORLD
from userproxy.netfilter import NetfilterError
from userproxy.netfilter.wire.netlink import Message, RefusedError, Socket, attribute, attributes

if TYPE_CHECKING:
    from collections.abc import Iterator

NETLINK_ROUTE = 0
WITHOUT_FAMILY = (errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.EPFNOSUPPORT)
"""What a kernel says that has been started without IPv6 (`ipv6.disable=1`)."""
_IFA = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix length, flags, scope, interface
_RTM = struct.Struct("=BBBBBBBBI")  # struct rtmsg: family, destination length, ..., table, protocol, ...
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_RTA_DST, _RTA_OIF = 1, 4
_SCOPE_LINK, _SCOPE_HOST = 253, 254
_PASSING = 0x01 | 0x08 | 0x40
"""IFA_F_TEMPORARY (another one every day, RFC 8981), IFA_F_DADFAILED, IFA_F_TENTATIVE: not to rely on."""
_NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ESRCH, errno.EACCES, errno.EINVAL)
_FAMILIES = (socket.AF_INET, socket.AF_INET6)


class Host:
    """Reads them in the network namespace of the thread that makes the object; any thread may call it.

    Raises:
        NetfilterError: the kernel does not speak rtnetlink; likewise each of the methods.
    """

    def __init__(self) -> None:
        try:
            self._socket = Socket(NETLINK_ROUTE)
            self._loopback = socket.if_nametoindex("lo")
        except OSError as error:
            raise NetfilterError(f"cannot speak to the kernel's routing: {error}") from error

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def addresses(self) -> tuple[str, ...]:
        """The addresses of this node that others may reach it by, sorted; without loopback and link-local."""
        found = set()
        for body in self._dump(Message(rtnl.RTM_GETADDR, 0, _IFA.pack(0, 0, 0, 0, 0), "addresses")):
            family, _, _, scope, _ = _IFA.unpack_from(body)
            fields = dict(attributes(body, _IFA.size))
            packed = fields.get(_IFA_LOCAL) or fields.get(_IFA_ADDRESS)
            flags = int.from_bytes(fields.get(_IFA_FLAGS, b""), sys.byteorder)
            if family == socket.AF_INET6 and (scope == _SCOPE_LINK or flags & _PASSING):
                continue
            if packed and family in _FAMILIES and scope != _SCOPE_HOST:
                found.add(str(ipaddress.ip_address(packed)))
        return tuple(sorted(found))

    def uplinks(self) -> tuple[str, ...]:
        """The names of the interfaces of the default routes, sorted; none where there is no such route."""
        worlds = map(ipaddress.ip_address, THE_WORLD.values())
        return tuple(sorted({name for world in worlds for name in self._way_to(world)}))

    def _way_to(self, world: ipaddress.IPv4Address | ipaddress.IPv6Address) -> Iterator[str]:
        family = socket.AF_INET if world.version == 4 else socket.AF_INET6  # noqa: PLR2004 - as it is called
        header = _RTM.pack(family, world.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
        question = Message(rtnl.RTM_GETROUTE, 0, header + attribute(_RTA_DST, world.packed), "way out")
        try:
            body = self._socket.get(question)
        except RefusedError as error:
            if error.refusal.errno in _NO_ROUTE or error.refusal.errno in WITHOUT_FAMILY:
                return
            raise NetfilterError(f"cannot read the node's {question.what}: {error}") from error
        except OSError as error:
            raise NetfilterError(f"cannot read the node's {question.what}: {error}") from error
        interface = dict(attributes(body, _RTM.size)).get(_RTA_OIF, b"")
        index = int.from_bytes(interface, sys.byteorder)
        with contextlib.suppress(OSError):  # it has gone
            if index != self._loopback:  # of a route that says that there is none
                yield socket.if_indextoname(index)

    def _dump(self, question: Message) -> list[bytes]:
        try:
            return self._socket.dump(question)
        except (RefusedError, OSError) as error:
            raise NetfilterError(f"cannot read the node's {question.what}: {error}") from error
