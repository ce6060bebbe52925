"""How a backend is, and why: what `userproxy backends` shows."""

from __future__ import annotations

from typing import NamedTuple

REMOVED = "removed"


class Condition(NamedTuple):
    """The state of a backend.

    Attributes:
        state: `up`, `draining`, `unused`, `down`, `ejected` (by clients' dials), or `removed`: its Service
            has it no longer, and connections on it live on.
        reason: why; empty where there is nothing to say.
        since: when that began, in seconds of the clock of whoever judged.
    """

    state: str
    reason: str
    since: float
