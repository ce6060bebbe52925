"""What a session may be. Pure."""

from __future__ import annotations

import enum


class State(enum.StrEnum):
    """How far a session is. The values are those of conntrack's flows."""

    UNREPLIED = "unreplied"
    REPLIED = "replied"
