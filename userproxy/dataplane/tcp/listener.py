"""Accepts clients for one Service port.

That they did not connect to the host port itself, but were redirected to it, is netfilter's to see to.

What a crowd, or a client that means no good, can take is bounded:

| what | by |
|---|---|
| half-open connections (a flood of SYNs) | the kernel: `tcp_max_syn_backlog`, then `tcp_syncookies` |
| connections that nobody accepts yet | the backlog and `somaxconn`; beyond them the kernel drops SYNs |
| connections of a Service | `max-connections`: accepting waits, for that Service alone |
| connections of a client IP | `max-connections-per-client`: one more is reset |
| connections of the node | its limit of open files: accepting waits, 16 clients a turn once there is room |
| clients that wait for a pod to answer | 5 s, in which nobody else waits for them |
| clients that wait for a Service to have endpoints | `hold-connections`, and `hold-timeout` |
| bytes that a slow reader does not take | one pipe: then nothing more is read from the other side |
| silent, half-closed connections | the linger time |
| peers that died silently | keepalive: 15 s of silence, and 9 probes that nobody answers |
| silent, open connections | not at all, as the kernel has it, or by `max-connection-age` |
"""

from __future__ import annotations

import os
import socket as net
from _socket import socket
from typing import TYPE_CHECKING

import structlog

from userproxy.net.poller import READ
from userproxy.net.sockets import OUT_OF_RESOURCES, keep_alive, reset_on_close, take_urgent_inline

if TYPE_CHECKING:
    from collections.abc import Callable

    from userproxy.model.address import Address
    from userproxy.net.poller import Poller

log = structlog.get_logger(__name__)

# Listens for more than any burst needs; the kernel takes the lesser of this and net.core.somaxconn.
BACKLOG = 65535

# Clients accepted in one go: others wait for their bytes meanwhile.
_BURST = 16

_CLIENT_SOCKET = net.SOCK_STREAM | net.SOCK_NONBLOCK


def listen(address: Address) -> socket:
    """Open a listening socket.

    Accepted sockets inherit its options, which saves their system calls.

    Raises:
        OSError: EADDRINUSE: something else listens there; EADDRNOTAVAIL: the address is not this node's.
    """
    family = net.AF_INET6 if address.is_ipv6 else net.AF_INET
    sock = socket(family, net.SOCK_STREAM | net.SOCK_NONBLOCK | net.SOCK_CLOEXEC)
    try:
        sock.setsockopt(net.SOL_SOCKET, net.SO_REUSEADDR, 1)
        sock.setsockopt(net.IPPROTO_TCP, net.TCP_NODELAY, 1)
        keep_alive(sock)
        take_urgent_inline(sock)
        reset_on_close(sock)
        sock.bind((address.ip, address.port))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


class Listener:
    """The listening socket of one Service port.

    Args:
        address: where it listens.
        sock: the listening socket, which it owns from now on.
        poller: that it is registered with.
        admit: called with each client: its socket, its IP and port; False means that the others must wait.
        exhausted: called when the system has no resources for another client.
    """

    def __init__(
        self,
        address: Address,
        sock: socket,
        poller: Poller,
        admit: Callable[[socket, tuple[str, int]], bool],
        exhausted: Callable[[OSError], None],
    ) -> None:
        self.address = address
        self._sock = sock
        self._family = net.AF_INET6 if address.is_ipv6 else net.AF_INET
        self._poller = poller
        self._admit = admit
        self._exhausted = exhausted
        self._waits = False
        poller.register(sock.fileno(), READ, self)

    def fileno(self) -> int:
        """The number of the listening socket."""
        return self._sock.fileno()

    def on_ready(self, _mask: int) -> None:
        """The poller's call: accept whoever waits."""
        self._accept(_BURST)

    def abort(self) -> None:
        """The poller's call: accepting one client failed; the others are not to suffer from it."""

    @property
    def waits(self) -> bool:
        """Whether clients have to wait."""
        return self._waits

    def wait(self, waits: bool) -> None:
        """Let clients wait in the kernel's queue, or accept them again."""
        if waits != self._waits:
            self._waits = waits
            self._poller.modify(self._sock.fileno(), 0 if waits else READ)

    def close(self) -> None:
        """Serve those who had been let in already, and accept no more."""
        try:
            self._accept(BACKLOG)
        finally:
            self._poller.unregister(self._sock.fileno())  # another process may have the socket too
            self._poller.close(self._sock)

    def _accept(self, most: int) -> None:
        # What socket.accept() calls itself; it makes no object that we would only take apart again.
        accept = self._sock._accept  # type: ignore[attr-defined]  # noqa: SLF001
        for _ in range(most):
            try:
                fd, peer = accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in OUT_OF_RESOURCES:
                    self._exhausted(error)
                    return
                continue  # accept(2): the client is gone already; on with the next one
            os.set_blocking(fd, False)
            client = socket(self._family, _CLIENT_SOCKET, 0, fd)
            if not self._admit(client, peer[:2]):
                return
