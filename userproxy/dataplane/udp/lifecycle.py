"""What a session may be, and why it ends. Pure."""

from __future__ import annotations

import enum


class State(enum.StrEnum):
    """How far a session is. The values are those of conntrack's flows."""

    UNREPLIED = "unreplied"
    REPLIED = "replied"


class Reason(enum.StrEnum):
    """Why a session ended, as the log prints it."""

    IDLE = "idle"
    ANSWERED = "answered"
    """It was a short one, and every question has its answer."""
    EVICTED = "evicted"
    """Another one needed the room."""
    LISTENER_CLOSED = "listener-closed"
    """The Service is gone, and with it the way back to the client."""
    HANDED_OVER = "handed-over"
    """Another worker has it now."""
    AGED = "aged"
    BACKEND_REMOVED = "backend-removed"
    KILLED = "killed"
    SHUTDOWN = "shutdown"
