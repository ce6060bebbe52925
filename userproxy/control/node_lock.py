"""One userproxy for each node: whoever holds the lock may touch the kernel's rules.

The lock is a unix socket with an abstract name. Such names belong to a network namespace, just as netfilter's
rules do, and the kernel takes the name back when its holder ends in whatever way: nothing can be stale.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import Self

NAME = "userproxy-node"

_UCRED = struct.Struct("3i")  # pid, uid, gid: unix(7)
_BACKLOG = 128


class NodeLockError(Exception):
    """The lock cannot be had. One line, with the remedy."""


class NodeLockedError(NodeLockError):
    """Another process holds the lock.

    Attributes:
        pid: of the holder, or None if the kernel does not tell (it is outside of our pid namespace).
    """

    def __init__(self, pid: int | None) -> None:
        holder = f"pid {pid}" if pid else "its pid is not visible from here"
        super().__init__(f"another userproxy is at work on this node ({holder}): stop it first")
        self.pid = pid


class NodeLock:
    """The lock of this network namespace: held from `acquire` to `release`, or as a context manager.

    Args:
        name: of the abstract socket.
    """

    def __init__(self, name: str = NAME) -> None:
        self._address = f"\0{name}"
        self._socket: socket.socket | None = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            NodeLockedError: another process holds it, or another NodeLock of this one.
            NodeLockError: the kernel gives no such socket.
        """
        if not self.try_acquire():
            raise NodeLockedError(self._holder())

    def try_acquire(self) -> bool:
        """Take the lock if nobody has it; returns whether it is ours now.

        Raises:
            NodeLockError: the kernel gives no such socket.
        """
        if self._socket is not None:
            return True
        candidate = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            candidate.bind(self._address)
            candidate.listen(_BACKLOG)
        except OSError as error:
            candidate.close()
            if error.errno == errno.EADDRINUSE:
                return False
            raise NodeLockError(f"cannot lock this node: {error.strerror or error}") from None
        self._socket = candidate
        return True

    def release(self) -> None:
        """Give the lock back; nothing happens if it is not held."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _holder(self) -> int | None:
        # The kernel answers with the credentials of whoever called listen(). Nobody accepts: who asks stays
        # in the holder's backlog, and once that is full the pid can no longer be told.
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(0)
            try:
                probe.connect(self._address)
                credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
            except OSError:
                return None
        return _UCRED.unpack(credentials)[0] or None
