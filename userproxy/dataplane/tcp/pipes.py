"""What carries bytes from one socket to another: pipes for splice(2), a pool of them, and what else it takes.

A byte passes from socket to socket through a pipe without entering this process. A pipe is held only while it
has bytes in it, so an idle connection holds none.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket as net
from _socket import socket
from typing import Protocol

# The size of a pipe for bytes that pass through, and the most that one splice moves.
PIPE_BYTES = 1 << 20
_COPY_BYTES = 1 << 14

# So many pipes have that size, and others the kernel's default, 64 KiB, which is enough for what slow readers
# leave. The kernel grants a user without capabilities 64 MiB of pipes, and then only such of two pages each
# (pipe(7), pipe-user-pages-soft): this way that is more than 500 of them, and not 64.
_LARGE_PIPES = 32
_splice = os.splice

# To splice as much as there is, and to have the kernel wait for what follows before it sends a small packet.
SPLICE = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
SPLICE_MORE = SPLICE | os.SPLICE_F_MORE


class Carrier(Protocol):
    """Holds a bounded number of bytes on their way from one socket to another.

    Attributes:
        held: how many bytes are in it.
    """

    held: int

    def fill(self, fd: int) -> int:
        """Take bytes from a non-blocking socket, while `held` is 0; 0 means the end of its stream.

        Raises:
            BlockingIOError: there are none now.
            OSError: the socket failed.
        """
        ...

    def carry(self, source: int, sink: int, flags: int) -> int:
        """Take bytes from one non-blocking socket and hand them to another; what that does not take is held.

        Args:
            source: the socket to take from, while `held` is 0.
            sink: the socket to hand to.
            flags: `SPLICE`, or `SPLICE_MORE` if something follows at once.

        Returns:
            How many bytes were taken; 0 means the end of the stream.

        Raises:
            BlockingIOError: there are none now.
            OSError: a socket failed: the sink if bytes are held, or else the source.
        """
        ...

    def drain(self, fd: int) -> int:
        """Hand bytes to a non-blocking socket; returns how many are still held.

        Raises:
            BlockingIOError: the socket takes none now.
            OSError: the socket failed.
        """
        ...


class Pipe:
    """A pipe: the bytes stay in the kernel. Empty whenever it is in the pool.

    Args:
        large: have it take `PIPE_BYTES`, if the kernel allows that.

    Raises:
        OSError: there are no file descriptors for it, or it would take less than a copy buffer.
    """

    __slots__ = ("_read_fd", "_write_fd", "held", "large")

    def __init__(self, *, large: bool = True) -> None:
        self._read_fd, self._write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.held = 0
        self.large = large
        if large:
            # Refused over the user's limit; the size that it has works too.
            with contextlib.suppress(OSError):
                fcntl.fcntl(self._write_fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        if fcntl.fcntl(self._write_fd, fcntl.F_GETPIPE_SZ) < _COPY_BYTES:
            self.close()
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))

    def fill(self, fd: int) -> int:
        """See `Carrier`. The pipe is empty, so EAGAIN can only mean that the socket has nothing."""
        self.held = held = _splice(fd, self._write_fd, PIPE_BYTES, None, None, SPLICE)
        return held

    def put(self, preface: bytes) -> None:
        """Take bytes of our own, no more than the smallest pipe holds: a page."""
        self.held = os.write(self._write_fd, preface)

    def carry(self, source: int, sink: int, flags: int) -> int:
        """See `Carrier`."""
        self.held = count = _splice(source, self._write_fd, PIPE_BYTES, None, None, SPLICE)
        if count:
            try:
                self.held -= _splice(self._read_fd, sink, count, None, None, flags)
            except BlockingIOError:
                return count  # all of it is held
        return count

    def drain(self, fd: int) -> int:
        """See `Carrier`. The pipe has bytes, so EAGAIN can only mean that the socket's buffer is full."""
        self.held -= _splice(self._read_fd, fd, self.held, None, None, SPLICE)
        return self.held

    def close(self) -> None:
        """Close both ends; what is in it is gone."""
        os.close(self._read_fd)
        os.close(self._write_fd)


class Copy:
    """A small buffer in memory, for when no file descriptor is left for a pipe: slower, but always there."""

    __slots__ = ("_bytes", "held")

    def __init__(self) -> None:
        self._bytes = b""
        self.held = 0

    def fill(self, fd: int) -> int:
        """See `Carrier`."""
        self._bytes = os.read(fd, _COPY_BYTES)
        self.held = len(self._bytes)
        return self.held

    def put(self, preface: bytes) -> None:
        """Take bytes of our own."""
        self._bytes = preface
        self.held = len(preface)

    def carry(self, source: int, sink: int, flags: int) -> int:  # noqa: ARG002 - write(2) has no such flag
        """See `Carrier`."""
        count = self.fill(source)
        if count:
            with contextlib.suppress(BlockingIOError):
                self.drain(sink)
        return count

    def drain(self, fd: int) -> int:
        """See `Carrier`."""
        self._bytes = self._bytes[os.write(fd, self._bytes) :]
        self.held = len(self._bytes)
        return self.held


class Urgent:
    """The byte at a socket's urgent mark; it is urgent on the other side too.

    splice(2) never passes the mark, and says that there is nothing, or even that the stream has ended. What
    the byte means is for the two ends to know: telnet's Synch, an FTP client's abort, a database's break. If
    it came among the others, an end that does not expect it there would take it for data (RFC 6093).

    The socket must take urgent bytes inline: recv() would pass over it otherwise.
    """

    __slots__ = ("_byte", "held")

    def __init__(self) -> None:
        self._byte = b""
        self.held = 0

    def fill(self, fd: int) -> int:
        """See `Carrier`. The mark goes with its byte: from there on, splice works again."""
        sock = _borrow(fd)
        try:
            self._byte = sock.recv(1)
        finally:
            sock.detach()
        self.held = len(self._byte)
        return self.held

    def carry(self, source: int, sink: int, flags: int) -> int:  # noqa: ARG002 - nothing is waited for
        """See `Carrier`."""
        count = self.fill(source)
        if count:
            with contextlib.suppress(BlockingIOError):
                self.drain(sink)
        return count

    def drain(self, fd: int) -> int:
        """See `Carrier`."""
        sock = _borrow(fd)
        try:
            sock.send(self._byte, net.MSG_OOB)
        finally:
            sock.detach()
        self.held = 0
        return 0


def _borrow(fd: int) -> socket:
    return socket(net.AF_INET, net.SOCK_STREAM | net.SOCK_NONBLOCK, 0, fd)


class PipePool:
    """Lends carriers: a pipe, the most recently used large one first, or else a copy buffer.

    Args:
        limit: how many pipes may exist at once.

    Attributes:
        at_hand: an empty carrier for whoever moves bytes at the moment; who leaves some in it takes it away.
    """

    def __init__(self, limit: int) -> None:
        self._spare: list[Pipe] = []
        self._limit = limit
        self._made = 0
        self.at_hand: Pipe | Copy = self._next()

    @property
    def limit(self) -> int:
        """How many pipes may exist at once."""
        return self._limit

    @property
    def lent(self) -> int:
        """How many pipes have been taken away."""
        return self._made - len(self._spare) - isinstance(self.at_hand, Pipe)

    def take(self) -> Pipe | Copy:
        """Take the carrier at hand away, with what is in it."""
        taken = self.at_hand
        self.at_hand = self._next()
        return taken

    def discard(self) -> None:
        """Throw the carrier at hand away, whatever is in it, and have another one."""
        carrier = self.take()
        if isinstance(carrier, Pipe):
            self._made -= 1
            carrier.close()

    def release(self, carrier: Carrier) -> None:
        """Take a carrier back. One that still has bytes is not used again."""
        if not isinstance(carrier, Pipe):
            return
        if carrier.held:
            self._made -= 1
            carrier.close()
        elif isinstance(self.at_hand, Pipe):
            if carrier.large and not self.at_hand.large and not self.at_hand.held:
                carrier, self.at_hand = self.at_hand, carrier
            self._spare.insert(len(self._spare) if carrier.large else 0, carrier)
        else:
            self.at_hand = carrier

    def trim(self, spare: int) -> None:
        """Close all but so many of the pipes that nobody uses, and have one at hand if there may be one."""
        while len(self._spare) > spare:
            self._made -= 1
            self._spare.pop(0).close()
        if not isinstance(self.at_hand, Pipe):
            self.at_hand = self._next()

    def close(self) -> None:
        """Close all pipes that nobody has taken. Nothing can be moved after this."""
        self._limit = 0
        self.trim(0)
        if isinstance(self.at_hand, Pipe):
            self._made -= 1
            self.at_hand.close()
            self.at_hand = Copy()

    def _next(self) -> Pipe | Copy:
        if self._spare:
            return self._spare.pop()
        if self._made >= self._limit:
            return Copy()
        try:
            pipe = Pipe(large=self._made < _LARGE_PIPES)
        except OSError:  # EMFILE or ENFILE: no file descriptor for this process, or for the system; ENOBUFS
            return Copy()
        self._made += 1
        return pipe
