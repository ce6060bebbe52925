"""What this node has of the network, read by rtnetlink(7): its addresses, and where its outside is."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
import sys

from pyroute2.netlink import rtnl

from userproxy.netfilter import NetfilterError
from userproxy.netfilter.wire.netlink import Message, RefusedError, Socket, attribute, attributes

NETLINK_ROUTE = 0
_IFA = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix length, flags, scope, interface
_RTM = struct.Struct("=BBBBBBBBI")  # struct rtmsg: family, destination length, ..., table, protocol, ...
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF = 1, 4
_HOST_PREFIX = 32
_SCOPE_HOST = 254
_THE_WORLD = ipaddress.IPv4Address("192.0.2.1").packed
"""TEST-NET-1 (RFC 5737). The kernel is asked for a route, and no packet is sent."""
_NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ESRCH)


class Host:
    """Reads them in the network namespace of the thread that makes the object; any thread may call it.

    Raises:
        NetfilterError: the kernel does not speak rtnetlink; likewise each of the methods.
    """

    def __init__(self) -> None:
        try:
            self._socket = Socket(NETLINK_ROUTE)
        except OSError as error:
            raise NetfilterError(f"cannot speak to the kernel's routing: {error}") from error

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def addresses(self) -> tuple[str, ...]:
        """The IPv4 addresses of this node that others may reach it by, sorted; without loopback."""
        found = set()
        for body in self._dump(
            Message(rtnl.RTM_GETADDR, 0, _IFA.pack(socket.AF_INET, 0, 0, 0, 0), "addresses")
        ):
            _, _, _, scope, _ = _IFA.unpack_from(body)
            fields = dict(attributes(body, _IFA.size))
            packed = fields.get(_IFA_LOCAL) or fields.get(_IFA_ADDRESS)
            if packed and scope != _SCOPE_HOST:
                found.add(str(ipaddress.IPv4Address(packed)))
        return tuple(sorted(found))

    def uplinks(self) -> tuple[str, ...]:
        """The name of the interface of the default route; none where there is no such route."""
        header = _RTM.pack(socket.AF_INET, _HOST_PREFIX, 0, 0, 0, 0, 0, 0, 0)
        question = Message(rtnl.RTM_GETROUTE, 0, header + attribute(_RTA_DST, _THE_WORLD), "way out")
        try:
            body = self._socket.get(question)
        except RefusedError as error:
            if error.refusal.errno in _NO_ROUTE:
                return ()
            raise NetfilterError(f"cannot read the node's {question.what}: {error}") from error
        except OSError as error:
            raise NetfilterError(f"cannot read the node's {question.what}: {error}") from error
        interface = dict(attributes(body, _RTM.size)).get(_RTA_OIF, b"")
        try:
            return (socket.if_indextoname(int.from_bytes(interface, sys.byteorder)),)
        except OSError:  # it has gone
            return ()

    def _dump(self, question: Message) -> list[bytes]:
        try:
            return self._socket.dump(question)
        except (RefusedError, OSError) as error:
            raise NetfilterError(f"cannot read the node's {question.what}: {error}") from error
