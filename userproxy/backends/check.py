"""Active checks: what the answers to our own questions make of a backend. Pure; times are in seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userproxy.model.settings import HealthCheck

if TYPE_CHECKING:
    from userproxy.model.settings import Check

IN_DOUBT_INTERVAL = 1.0
"""Seconds between two checks of a backend that may be about to change its state."""

USED_SECONDS = 300.0
"""A Service without a connection for so long is checked no more, unless its author asked for checks."""

JITTER = 0.2
"""The share of the interval by which it varies, lest all nodes ask at the same moment."""


class Checked:
    """What the checks of one backend say. It counts as up until they say otherwise.

    Attributes:
        up: whether it may be picked.
        reason: why the last check failed; empty if it passed.
        passed: checks in a row that passed.
        failed: checks in a row that failed.
    """

    __slots__ = ("failed", "passed", "reason", "up")

    def __init__(self) -> None:
        self.up = True
        self.reason = ""
        self.passed = 0
        self.failed = 0

    def take(self, failure: str, check: Check) -> bool:
        """Take in the outcome of a check.

        Args:
            failure: why it failed; empty if it passed.
            check: with the rise and fall that count.

        Returns:
            Whether the backend came up or went down.
        """
        self.reason = failure
        if failure:
            self.passed, self.failed = 0, self.failed + 1
            changed = self.up and self.failed >= check.fall
        else:
            self.passed, self.failed = self.passed + 1, 0
            changed = not self.up and self.passed >= check.rise
        if changed:
            self.up = not self.up
        return changed

    def forget(self) -> None:
        """Nobody asks any more: clients will tell."""
        self.up = True
        self.reason = ""
        self.passed = self.failed = 0


def is_due_at_all(check: Check, now: float, last_used: float) -> bool:
    """Whether a Service's backends are checked now.

    Args:
        check: as the author chose it.
        now: the time.
        last_used: when the Service had its last connection on this node.
    """
    if check.kind is HealthCheck.AUTO:
        return now - last_used < USED_SECONDS
    return check.kind is not HealthCheck.OFF


def next_interval(check: Check, draw: float, *, in_doubt: bool) -> float:
    """Seconds until the next check of a backend.

    Args:
        check: as the author chose it.
        draw: a number at random, at least 0 and below 1.
        in_doubt: whether the backend's state may be about to change.
    """
    interval = min(check.interval, IN_DOUBT_INTERVAL) if in_doubt else check.interval
    return interval * (1.0 + JITTER * (2.0 * draw - 1.0))


def is_healthy(status: int, check: Check) -> bool:
    """Whether an HTTP status is one of those that the author calls healthy."""
    return any(first <= status <= last for first, last in check.status)
