"""Messages, and file descriptors with them, between two processes on this node.

The socket is of type SOCK_SEQPACKET: the kernel keeps packets, and what comes with them, apart. A message is
one packet or several: the kernel takes none that the send buffer cannot hold, and how large that may be is
not ours to say. The first byte of a packet tells whether more of the message follows.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import os
import socket
from collections import deque
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

log = structlog.get_logger(__name__)

MAX_MESSAGE = 1 << 26
"""Bytes in one message. A Service port with 100,000 backends takes an eighth of it."""

MAX_FDS = 200
"""File descriptors with one message; the kernel's own limit is 253 (SCM_MAX_FD)."""

PACKET = 1 << 16
"""Bytes of a message in one packet."""

_SEND_BUFFER = 1 << 21
_SO_SNDBUFFORCE = 32

_LAST, _MORE = b"\0", b"\1"

# Packets read in one go: connections' bytes wait meanwhile.
_BURST = 16

# These pass, and no event tells when: too many descriptors are on their way (unix(7)), or memory is short.
_PASSING = frozenset({errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM})
_RETRY_SECONDS = 0.02


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
        self._queue: deque[tuple[bytes, bytes | memoryview, list[int]]] = deque()
        self._retry: asyncio.TimerHandle | None = None
        self._begun = bytearray()
        self._empty = asyncio.Event()
        self._empty.set()
        sock.settimeout(0)
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SEND_BUFFER)
        except PermissionError:  # without CAP_NET_ADMIN: as much as the system allows anybody
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        loop.add_reader(sock.fileno(), self._on_readable)

    @property
    def is_open(self) -> bool:
        """Whether the other end may still be there."""
        return self._sock.fileno() >= 0

    def send(self, message: bytes, fds: Sequence[int] = ()) -> None:
        """Send a message, now or as soon as there is room. To an end that is gone, nothing is sent.

        Args:
            message: at most `MAX_MESSAGE` bytes.
            fds: file descriptors that go with it, at most `MAX_FDS`; they stay open here.

        Raises:
            ValueError: it is too large.
            OSError: there is no room, and it cannot wait for some: this process may open no more files.
        """
        if len(message) > MAX_MESSAGE or len(fds) > MAX_FDS:
            raise ValueError(f"a message of {len(message)} bytes with {len(fds)} files is too large")
        if not self.is_open:
            return
        start = 0
        if not self._queue:
            for start in range(0, max(len(message), 1), PACKET):
                last = start + PACKET >= len(message)
                part = memoryview(message)[start : start + PACKET]
                if not self._try(_LAST if last else _MORE, part, fds if last else ()):
                    break
                if last:
                    return
        self._keep(message, start, fds)

    async def flush(self, seconds: float) -> None:
        """Wait until nothing waits to be sent any more, or the other end is gone, or the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._empty.wait()

    def close(self) -> None:
        """Hang up; `closed` is not called."""
        if not self.is_open:
            return
        self._empty.set()
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        if self._retry is not None:
            self._retry.cancel()
        self._sock.close()
        for _, _, fds in self._queue:
            _close_all(fds)
        self._queue.clear()

    def _keep(self, message: bytes, start: int, fds: Sequence[int]) -> None:
        kept: list[int] = []
        try:
            kept += (os.dup(fd) for fd in fds)
        except OSError:
            _close_all(kept)
            if start:  # half of it is sent, and the other half never will be
                self._loop.call_soon(self._hang_up)
            raise
        self._empty.clear()
        if not self._queue and self._retry is None:
            self._loop.add_writer(self._sock.fileno(), self._send_queued)
        for here in range(start, max(len(message), 1), PACKET):
            last = here + PACKET >= len(message)
            part = memoryview(message)[here : here + PACKET]
            self._queue.append((_LAST if last else _MORE, part, kept if last else []))

    def _try(self, mark: bytes, part: bytes | memoryview, fds: Sequence[int]) -> bool:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            self._sock.sendmsg([mark, part], rights, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _PASSING:
                self._retry = self._loop.call_later(_RETRY_SECONDS, self._try_again)
                return False
            # EPIPE, ECONNRESET: the reader hears of it, too.
        return True

    def _try_again(self) -> None:
        self._retry = None
        self._loop.add_writer(self._sock.fileno(), self._send_queued)

    def _send_queued(self) -> None:
        while self._queue:
            mark, part, fds = self._queue[0]
            if not self._try(mark, part, fds):
                if self._retry is not None:
                    self._loop.remove_writer(self._sock.fileno())
                return
            _close_all(fds)
            self._queue.popleft()
        self._empty.set()
        self._loop.remove_writer(self._sock.fileno())

    def _on_readable(self) -> None:
        for _ in range(_BURST):
            try:
                packet, fds, flags, _ = socket.recv_fds(
                    self._sock, PACKET + 1, MAX_FDS, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return
            except OSError:
                packet, fds, flags = b"", [], 0
            if not packet:
                self._hang_up()
                return
            if flags & socket.MSG_CTRUNC:
                log.error("files did not arrive: this process may open no more", arrived=len(fds))
            self._take(packet, fds)
            if not self.is_open:
                return

    def _take(self, packet: bytes, fds: list[int]) -> None:
        if packet[:1] == _LAST and not self._begun:
            self._receive(packet[1:], fds)
            return
        self._begun += memoryview(packet)[1:]
        if len(self._begun) > MAX_MESSAGE:
            _close_all(fds)
            self._hang_up()
        elif packet[:1] == _LAST:
            message, self._begun = bytes(self._begun), bytearray()
            self._receive(message, fds)

    def _hang_up(self) -> None:
        if self.is_open:
            self.close()
            self._closed()


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
