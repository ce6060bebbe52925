"""An epoll loop with a tick, for the load's two programs; it knows when it was not given a processor."""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

TICK_SECONDS = 0.01
STALL_SECONDS = 0.2


class Loop:
    """Sockets and a tick, on one thread.

    Attributes:
        now: when the current round began, by CLOCK_MONOTONIC.
        stalls: from when to when nothing was done here for more than STALL_SECONDS.
    """

    def __init__(self) -> None:
        self.now = time.monotonic()
        self.stalls: list[tuple[float, float]] = []
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}

    def watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        """Call the handler with what epoll says of that file descriptor, until it is forgotten."""
        self._handlers[fd] = handler
        self._epoll.register(fd, events)

    def change(self, fd: int, events: int) -> None:
        """Watch it for something else."""
        self._epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """No longer watch it; whoever calls closes it, which takes it from the epoll."""
        self._handlers.pop(fd, None)

    def run(self, tick: Callable[[], bool]) -> None:
        """Go on, with a tick every TICK_SECONDS, until that says False."""
        due = self.now = time.monotonic()
        while True:
            ready = self._epoll.poll(max(0.0, due - time.monotonic()))
            before, self.now = self.now, time.monotonic()
            if self.now - before > STALL_SECONDS:
                self.stalls.append((before, self.now))
            for fd, events in ready:
                if handler := self._handlers.get(fd):  # none: one before it in this round has closed it
                    handler(events)
            if self.now >= due:
                due = self.now + TICK_SECONDS
                if not tick():
                    return

    def stalled(self, since: float) -> float:
        """For how many seconds since then it did not run."""
        return sum(max(0.0, to - max(since, fro)) for fro, to in self.stalls if to > since)
