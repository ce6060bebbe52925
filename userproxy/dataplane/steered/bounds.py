"""How long what is not decided may last, and how much of it there may be."""

from __future__ import annotations

HELD_SECONDS = 0.1
"""How long a packet is held at most, and so how long a dial that sees how a backend is has."""

MOST_HELD = 512
"""Packets held at once, for whatever reason: others still find room in the queue."""

MEMORY_SECONDS = 70.0
"""So long a connection is known of which conntrack has said nothing: clients send again after 1, 3, 7, 15, 31
and 63 s."""

MOST_UNCONFIRMED = 65536
"""Connections of which conntrack has said nothing, as in a flood of first packets: the oldest gives way."""
