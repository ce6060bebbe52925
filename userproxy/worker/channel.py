"""Messages, and file descriptors with them, between two processes on this node.

The socket is of type SOCK_SEQPACKET: the kernel keeps messages, and what comes with them, apart.
"""

from __future__ import annotations

import array
import os
import socket
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

MAX_MESSAGE = 1 << 19
"""Bytes in one message; senders split what is larger."""

MAX_FDS = 200
"""File descriptors with one message; the kernel's own limit is 253 (SCM_MAX_FD)."""

_SO_SNDBUFFORCE = 32

# Messages read in one go: connections' bytes wait meanwhile.
_BURST = 16


class Channel:
    """One end of a connection between control and a worker. Sending never blocks: what does not fit waits.

    Args:
        sock: the connected socket, which it owns from now on.
        loop: that drives it.
        receive: called with each message and the file descriptors that came with it, which it then owns.
        closed: called once when the other end is gone.
    """

    def __init__(
        self,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        receive: Callable[[bytes, list[int]], None],
        closed: Callable[[], None],
    ) -> None:
        self._sock = sock
        self._loop = loop
        self._receive = receive
        self._closed = closed
        self._queue: deque[tuple[bytes, list[int]]] = deque()
        sock.settimeout(0)
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 4 * MAX_MESSAGE)
        except PermissionError:  # without CAP_NET_ADMIN: as much as the system allows anybody
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MAX_MESSAGE)
        loop.add_reader(sock.fileno(), self._on_readable)

    @property
    def is_open(self) -> bool:
        """Whether the other end may still be there."""
        return self._sock.fileno() >= 0

    def send(self, message: bytes, fds: Sequence[int] = ()) -> None:
        """Send a message, now or as soon as there is room. To an end that is gone, nothing is sent."""
        if not self.is_open:
            return
        if not self._queue and self._try(message, fds):
            return
        if not self._queue:
            self._loop.add_writer(self._sock.fileno(), self._on_writable)
        self._queue.append((message, [os.dup(fd) for fd in fds]))

    def close(self) -> None:
        """Hang up; `closed` is not called."""
        if not self.is_open:
            return
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        for _, fds in self._queue:
            _close_all(fds)
        self._queue.clear()

    def _try(self, message: bytes, fds: Sequence[int]) -> bool:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            self._sock.sendmsg([message], rights, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        except OSError:  # EPIPE, ECONNRESET: the reader hears of it, too
            pass
        return True

    def _on_writable(self) -> None:
        while self._queue:
            message, fds = self._queue[0]
            if not self._try(message, fds):
                return
            _close_all(fds)
            self._queue.popleft()
        self._loop.remove_writer(self._sock.fileno())

    def _on_readable(self) -> None:
        for _ in range(_BURST):
            try:
                message, fds, _flags, _ = socket.recv_fds(
                    self._sock, MAX_MESSAGE, MAX_FDS, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return
            except OSError:
                message, fds = b"", []
            if not message:
                self.close()
                self._closed()
                return
            self._receive(message, fds)
            if not self.is_open:
                return


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
