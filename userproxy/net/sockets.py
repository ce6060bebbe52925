"""Socket options, and what they are for."""

from __future__ import annotations

import errno
import fcntl
import socket as net
import struct
from _socket import socket

from userproxy.model.address import Address

# How a connection fails of which nothing is heard any more: keepalive, or data sent again and again (tcp(7)).
NOBODY_THERE = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN)

# What a call for a new socket says when this process, or the system, can have no more of them for now.
OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

# SO_LINGER on, for no time: close() sends a reset and forgets what was not sent (socket(7)). So does the
# kernel when it closes the sockets of a process that has died.
RESET_ON_CLOSE = struct.pack("ii", 1, 0)

# SO_LINGER off: what was sent is delivered, and then the end of it, after close() too.
DELIVER_ON_CLOSE = struct.pack("ii", 0, 0)

# A dead peer is noticed after 15 s of silence and 9 unanswered probes (what the original kube-proxy used).
_KEEPALIVE_SECONDS = 15

# asm-generic/sockios.h.
_SIOCATMARK = 0x8905

_NEW_SOCKET = net.SOCK_STREAM | net.SOCK_NONBLOCK | net.SOCK_CLOEXEC

# linux/netfilter_ipv4.h and linux/netfilter_ipv6/ip6_tables.h: the destination before it was rewritten.
_SO_ORIGINAL_DST = 80
_SOCKADDR_IN = struct.Struct("!2xH4s8x")
_SOCKADDR_IN6 = struct.Struct("!2xH4x16s4x")


def reset_on_close(sock: socket) -> None:
    """Have every close() send a reset, until `deliver_on_close`: what came before it was not the whole.

    What a listening socket accepts has it too, at no cost.
    """
    sock.setsockopt(net.SOL_SOCKET, net.SO_LINGER, RESET_ON_CLOSE)


def deliver_on_close(sock: socket) -> None:
    """What has been sent is the whole: have it delivered, with its end, even if this process dies now."""
    sock.setsockopt(net.SOL_SOCKET, net.SO_LINGER, DELIVER_ON_CLOSE)


def dialling_socket(address: Address) -> socket:
    """A socket to reach an address with, that does not block, and that loses no urgent byte.

    Raises:
        OSError: this process, or the system, can have no more of them for now.
    """
    sock = socket(net.AF_INET6 if address.is_ipv6 else net.AF_INET, _NEW_SOCKET)
    sock.setsockopt(net.IPPROTO_TCP, net.TCP_NODELAY, 1)
    take_urgent_inline(sock)
    return sock


def keep_alive(sock: socket) -> None:
    """Have the kernel probe a silent peer."""
    sock.setsockopt(net.SOL_SOCKET, net.SO_KEEPALIVE, 1)
    sock.setsockopt(net.IPPROTO_TCP, net.TCP_KEEPIDLE, _KEEPALIVE_SECONDS)
    sock.setsockopt(net.IPPROTO_TCP, net.TCP_KEEPINTVL, _KEEPALIVE_SECONDS)


def take_urgent_inline(sock: socket) -> None:
    """Have the kernel leave urgent bytes where they are in the stream (socket(7), SO_OOBINLINE).

    Otherwise one that nobody has read yet gives way to the next, and is lost: so it is to be said before the
    first one can come.
    """
    sock.setsockopt(net.SOL_SOCKET, net.SO_OOBINLINE, 1)


def at_urgent_mark(fd: int) -> bool:
    """Whether the next byte of a socket is the urgent one (sockatmark(3))."""
    try:
        return fcntl.ioctl(fd, _SIOCATMARK, bytes(4)) != bytes(4)
    except OSError:  # not every kind of socket has urgent bytes
        return False


def turn_away(client: socket) -> None:
    """Reset a connection that was only just accepted."""
    reset_on_close(client)
    client.close()


def original_destination(sock: socket) -> Address | None:
    """What the client of an accepted socket had connected to, before netfilter rewrote it.

    Returns:
        The address; None if conntrack does not know the connection, so that it was not redirected.
    """
    raw = original_sockaddr(sock)
    if raw is None:
        return None
    port, ip = (_SOCKADDR_IN if sock.family == net.AF_INET else _SOCKADDR_IN6).unpack(raw)
    return Address(net.inet_ntop(sock.family, ip), port)


def original_sockaddr(sock: socket) -> bytes | None:
    """Likewise, as the kernel gives it."""
    try:
        if sock.family == net.AF_INET:
            return sock.getsockopt(net.SOL_IP, _SO_ORIGINAL_DST, _SOCKADDR_IN.size)
        return sock.getsockopt(net.IPPROTO_IPV6, _SO_ORIGINAL_DST, _SOCKADDR_IN6.size)
    except OSError:
        return None
