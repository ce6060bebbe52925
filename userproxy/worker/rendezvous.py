"""How a control side finds the workers that an earlier one has left behind.

Each worker listens on an abstract unix socket. Such names belong to a network namespace, as listeners and
rules do, and vanish with their process. Anybody may take such a name, so each side looks who the other is.
"""

from __future__ import annotations

import os
import secrets
import socket
import struct
from pathlib import Path

PREFIX = "userproxy-worker-"
"""How the names of the workers' sockets begin."""

_UCRED = struct.Struct("3i")  # pid, uid, gid: unix(7)
_CONNECT_SECONDS = 1.0


def listen(prefix: str = PREFIX) -> socket.socket:
    """Listen for a control side, under a name that begins with the prefix.

    The name is never taken already: containers that share a network namespace may share pids, so those
    alone would not do.
    """
    return listen_as(f"{prefix}{os.getpid()}-{secrets.token_hex(4)}")


def listen_as(name: str) -> socket.socket:
    """Listen under this name, in this network namespace.

    Raises:
        OSError: something else has the name.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.bind(f"\0{name}")
        sock.listen()
    except OSError:
        sock.close()
        raise
    sock.settimeout(0)
    return sock


def is_ours(peer: socket.socket, owner: int | None = None) -> bool:
    """Whether the other end is the owner's, or root's: only such a one may give or take orders.

    What counts is whose process it was when it connected or began to listen (unix(7), SO_PEERCRED). Workers
    listen before they become nobody's, so whoever has got hold of such a user, or was given the same one,
    cannot pass for a worker; and for a control side even less.

    Args:
        peer: the connection.
        owner: the user whose daemon this is; that of this process by default.
    """
    return _credentials(peer)[1] in (0, os.geteuid() if owner is None else owner)


def connect_to_all(prefix: str = PREFIX) -> list[tuple[socket.socket, int]]:
    """A connection to each worker in this network namespace that listens for one, and its pid.

    The pid is 0 for a worker whose process cannot be seen from here, as it is in another container.
    """
    visits = []
    for name in _names(os.fsencode(prefix)):
        visit = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        visit.settimeout(_CONNECT_SECONDS)
        try:
            visit.connect(b"\0" + name)
        except OSError:  # it ended meanwhile
            visit.close()
            continue
        if is_ours(visit):
            visits.append((visit, _credentials(visit)[0]))
        else:
            visit.close()
    return visits


def _names(prefix: bytes) -> list[bytes]:
    """The names that begin so. Other programs' may be any bytes."""
    lines = Path("/proc/self/net/unix").read_bytes().splitlines()[1:]
    names = (line.rpartition(b" ")[2] for line in lines)
    return list(dict.fromkeys(name[1:] for name in names if name.startswith(b"@" + prefix)))


def _credentials(peer: socket.socket) -> tuple[int, int, int]:
    found = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(found)
    return pid, uid, gid
