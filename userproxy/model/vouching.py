"""How a worker tells the kernel for which client a connection to a backend is: by datagrams, as hearts beat.

A datagram with this mark is addressed to the client, and sent just before the connection begins: our rules
note whose datagram it was, for whom, and drop it. The next connection of that user, which is the worker
itself, gets the client's address. Another datagram takes that back, as soon as the first segment is out. Only
who has CAP_NET_ADMIN can give a socket a mark, so nobody else vouches.
"""

from __future__ import annotations

VOUCH_MARK = 0x75701000
"""Beside those of heartbeats."""

VOUCH_BITS = 0xFFFFFF00
"""Of a mark, those that are `VOUCH_MARK`."""

VOUCH_PORT, RETRACT_PORT = 9, 10
"""Where a datagram is addressed to: the next connection is for this client, or it is for nobody."""

NOTED_SECONDS = 1
"""After which the kernel forgets what was not taken back: the worker has been killed."""

MOST_NOTED = 1024
"""More than there are workers."""
