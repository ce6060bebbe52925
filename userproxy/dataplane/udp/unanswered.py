"""The datagrams of a client that nobody has answered yet, to be sent again if they are refused. Pure.

A refusal (ICMP port unreachable) comes within moments, and does not say to which datagram. So what was sent
just before the last one is kept with it: a resolver asks for both address families at once. Older ones are
not, or a pod that goes away would have its last minutes told again to another one.
"""

from __future__ import annotations

RECENT_SECONDS = 0.25
"""So old may a datagram be that is sent again; the last one may be of any age."""

MOST = 4
"""Datagrams of one session."""

ROOM_BYTES = 16 << 20
"""For those of all sessions of a process. Where there is no room, a datagram is not sent again."""


class Room:
    """What all sessions keep together.

    Args:
        most: bytes.

    Attributes:
        taken: bytes.
    """

    __slots__ = ("most", "taken")

    def __init__(self, most: int = ROOM_BYTES) -> None:
        self.most = most
        self.taken = 0


class Unanswered:
    """What one session keeps. Lives as long as it; `clear` it in the end."""

    __slots__ = ("_kept", "_room")

    def __init__(self, room: Room) -> None:
        self._room = room
        self._kept: list[tuple[float, bytes]] = []

    def __bool__(self) -> bool:
        return bool(self._kept)

    def keep(self, datagram: bytes, now: float) -> None:
        """A datagram was sent; `now` in monotonic time."""
        kept, room = self._kept, self._room
        while kept and (len(kept) >= MOST or now - kept[0][0] > RECENT_SECONDS):
            room.taken -= len(kept.pop(0)[1])
        if room.taken + len(datagram) <= room.most:
            room.taken += len(datagram)
            kept.append((now, datagram))

    def all(self) -> list[bytes]:
        """What is kept, in the order in which it was sent."""
        return [datagram for _, datagram in self._kept]

    def clear(self) -> None:
        """An answer came: somebody is there."""
        for _, datagram in self._kept:
            self._room.taken -= len(datagram)
        self._kept.clear()
