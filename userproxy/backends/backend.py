"""A backend as the data side knows it: what is counted on it, and how it is."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

from userproxy.backends.check import Checked
from userproxy.backends.outlier import Outlier
from userproxy.model.condition import REMOVED, Condition
from userproxy.model.counts import BackendCount

if TYPE_CHECKING:
    from userproxy.model.address import Address
    from userproxy.model.state import Backend


class LiveBackend:
    """A backend of one Service port. Lives as long as the Service port has it, or a connection uses it.

    Attributes:
        backend: its address, node and zone.
        sockaddr: what to connect to.
        connections: how many live connections are on it, or being made to it.
        latency: seconds that connecting to it took last; None before the first time.
        outlier: the outcome of clients' dials.
        checked: what our own checks say.
        came: when it came, or came back, in monotonic time.
        changed: when its state changed last, in monotonic time.
        removed: when the Service lost it, in monotonic time; None while it has it.
        error: the errno of the last dial that failed.
    """

    __slots__ = (
        "backend",
        "came",
        "changed",
        "checked",
        "connections",
        "error",
        "latency",
        "outlier",
        "removed",
        "sockaddr",
    )

    def __init__(self, backend: Backend, came: float, now: float) -> None:
        self.backend = backend
        self.sockaddr = (backend.address.ip, backend.address.port)
        self.connections = 0
        self.latency: float | None = None
        self.outlier = Outlier()
        self.checked = Checked()
        self.came = came
        self.changed = now
        self.removed: float | None = None
        self.error = 0

    @property
    def address(self) -> Address:
        """The pod's address."""
        return self.backend.address

    @property
    def ejected(self) -> bool:
        """Whether clients' dials took it out."""
        return self.outlier.ejected

    @property
    def down(self) -> bool:
        """Whether checks took it out."""
        return not self.checked.up

    @property
    def is_known(self) -> bool:
        """Whether there is something to report of it."""
        if self.connections:
            return True
        return self.removed is None and (self.down or self.ejected or self.latency is not None)

    @property
    def in_doubt(self) -> bool:
        """Whether the next check may change its state."""
        checked = self.checked
        return (checked.failed > 0) == checked.up or self.outlier.failures > 0

    def condition(self, now: float) -> Condition:
        """How it is."""
        if self.removed is not None:
            return Condition(REMOVED, "", self.removed)
        if self.down:
            return Condition("down", f"health check: {self.checked.reason or 'recovering'}", self.changed)
        if self.ejected:
            seconds = max(0, math.ceil(self.outlier.until - now))
            return Condition(
                "ejected",
                f"dials fail: {os.strerror(self.error).lower()}; again in {seconds} s",
                self.changed,
            )
        return Condition("up", "", self.changed)

    def report(self, now: float, *, judged: bool = True) -> BackendCount:
        """What is known of it, as a message.

        Args:
            now: in monotonic time.
            judged: whether what dials and checks have found still counts.
        """
        gone = self.removed is not None
        condition = self.condition(now) if judged or gone else Condition("up", "", now)
        return BackendCount(
            address=self.address,
            connections=self.connections,
            latency=self.latency,
            state=condition.state,
            reason=condition.reason,
            seconds=now - condition.since,
            node=self.backend.node if gone else "",
            zone=self.backend.zone if gone else "",
        )
