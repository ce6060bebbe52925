"""Has clients go elsewhere, and wait, while this process has as much as it may have, or the system gives it.

Before it is full it says so, and goes on accepting: those who are in its listen queues already are not to
wait for that.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from userproxy.dataplane.connections import ConnectionTable
    from userproxy.dataplane.tcp.dial import Dialler
    from userproxy.net.poller import Poller

log = structlog.get_logger(__name__)

# Under pressure accepting pauses and resumes many times a second: not every time is worth a line.
_TELL_SECONDS = 5.0

# A pause in accepting, when the system has run out of something.
_PAUSE_SECONDS = 0.1


class Pressure:
    """Whether accepting waits, for all listeners of a process together.

    Args:
        loop: that drives it.
        poller: in which the acceptors are nested.
        acceptors: of the listening sockets.
        connections: those that are live.
        room: how many more connections there may be.
        reserve: with no more room than that, clients had better go elsewhere.

    Attributes:
        reason: why accepting waits; empty while it does not.
        on_full: called with whether clients had better go elsewhere, when that changes.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        poller: Poller,
        acceptors: Poller,
        connections: ConnectionTable,
        room: Callable[[], float],
        reserve: int,
    ) -> None:
        self.reason = ""
        self.on_full: Callable[[bool], object] | None = None
        self._loop = loop
        self._poller = poller
        self._acceptors = acceptors
        self._connections = connections
        self._room = room
        self._reserve = reserve
        self._is_full = False
        self._starved: list[Dialler] = []
        self._retry: asyncio.TimerHandle | None = None
        self._told = -_TELL_SECONDS

    def rise(self) -> None:
        """A connection came: was it the last one that there may be?"""
        room = self._room()
        if room <= self._reserve:
            self._tell_full(is_full=True)
        if room <= 0:
            self._pause("as many connections as the limit allows")

    def fall(self) -> None:
        """Something ended: may others come?"""
        if not self._is_full or self._retry is not None:
            return
        room = self._room()
        if self.reason and room > 0:
            self.reason = ""
            self._poller.resume(self._acceptors)
        if room > self._reserve:
            self._tell_full(is_full=False)

    def out_of_resources(self, error: OSError) -> None:
        """The system has no more files, or no memory: try again in a moment."""
        self._pause(str(error))
        if self._retry is None:
            self._retry = self._loop.call_later(_PAUSE_SECONDS, self._try_again)

    def starve(self, dialler: Dialler, error: OSError) -> None:
        """Likewise, and this one was let in already: it goes on before anybody else comes."""
        self._starved.append(dialler)
        self.out_of_resources(error)

    def stop(self) -> None:
        """Nobody comes any more."""
        if self._retry is not None:
            self._retry.cancel()

    def _try_again(self) -> None:
        """First come, first served: those let in already, and then those outside."""
        self._retry = None
        starved, self._starved = self._starved, []
        for dialler in starved:
            dialler.open()
        self.fall()

    def _tell_full(self, *, is_full: bool) -> None:
        if is_full is not self._is_full:
            self._is_full = is_full
            if self.on_full is not None:
                self.on_full(is_full)

    def _pause(self, reason: str) -> None:
        self._tell_full(is_full=True)
        if not self.reason:
            self.reason = reason
            self._poller.pause(self._acceptors)
            now = monotonic()
            if now - self._told >= _TELL_SECONDS:
                self._told = now
                log.warning("accepting waits", reason=reason, connections=len(self._connections.live))
