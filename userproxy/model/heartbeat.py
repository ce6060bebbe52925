"""How a worker tells the kernel that it accepts clients: by datagrams that our rules note and drop.

The mark of a datagram says whose it is. Only who has CAP_NET_ADMIN can give a socket one, so nobody else
beats in a worker's name.
"""

from __future__ import annotations

MARKS = 0x75700000
"""The upper bits of the marks of all workers; the lower ones number them. No other network program uses these
as a whole, and the bits that others ask for by a mask (Cilium's `0x200/0xf00`, before any route is looked up)
are zero."""

MARK_BITS = 0xFFFFFF00
"""Of a mark, those that are `MARKS`."""

MOST_WORKERS = 0x100

BEAT_PORT, LEAVE_PORT = 9, 10
"""Where a datagram is addressed to: the worker accepts clients, or does so no more. Nobody gets it."""

TIMEOUT_SECONDS = 2
"""After so long without a beat the kernel holds that the worker accepts nobody."""

BEAT_SECONDS = 0.5


def mark_of(index: int) -> int:
    """The mark of the worker with this place among the workers, from 0."""
    return MARKS | index
