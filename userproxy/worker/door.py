"""How a control side finds the workers that an earlier one has left behind.

Each worker listens on an abstract unix socket. Such names belong to a network namespace, as listeners and
rules do, and vanish with their process.
"""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

_PREFIX = "userproxy-worker-"
_UCRED = struct.Struct("3i")  # pid, uid, gid: unix(7)


def open_door(pid: int) -> socket.socket:
    """Listen for a control side.

    Raises:
        OSError: the name is taken.
    """
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        door.bind(f"\0{_PREFIX}{pid}")
        door.listen()
    except OSError:
        door.close()
        raise
    door.settimeout(0)
    return door


def admits(visitor: socket.socket) -> bool:
    """Whether whoever came to the door may become the control side: our own user, or root."""
    credentials = visitor.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    uid = _UCRED.unpack(credentials)[1]
    return uid in (0, os.geteuid())


def knock_everywhere() -> list[socket.socket]:
    """A connection to each worker in this network namespace whose door is open."""
    doors = []
    for line in Path("/proc/self/net/unix").read_text().splitlines()[1:]:
        name = line.rpartition(" ")[2]
        if name.startswith(f"@{_PREFIX}") and name not in doors:
            doors.append(name)
    visits = []
    for name in doors:
        visit = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        visit.settimeout(1.0)
        try:
            visit.connect(f"\0{name[1:]}")
        except OSError:  # it ended meanwhile
            visit.close()
        else:
            visits.append(visit)
    return visits
