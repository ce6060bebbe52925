"""What is said about packets, and what is known of their connections."""

from __future__ import annotations

import enum


class Say(enum.IntEnum):
    """What is said of a packet, beside the index of a backend, from 0."""

    REFUSE = -1
    """Refuse the client."""
    DROP = -2
    """Let it vanish: the one before it is still held."""
    UNSTEERED = -3
    """Let it go on as it came."""
    HELD = -4
    """Nothing yet: see `Decision.settled`."""
    LOOK = -5
    """Look what conntrack knows of the connection, and ask `Decision.again`."""


class Known(enum.Enum):
    """What conntrack knows of a connection that begins again."""

    NOTHING = enum.auto()
    UNANSWERED = enum.auto()
    """It was there, without an answer, and has been deleted."""
    LIVE = enum.auto()
    OVER = enum.auto()
