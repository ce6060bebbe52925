"""Has clients go elsewhere, and wait, while this process has as much as it may have, or the system gives it.

Before it is full it says so, and goes on accepting: those who are in its listen queues already are not to
wait for that.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

import structlog

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from userproxy.dataplane.connections import ConnectionTable
    from userproxy.dataplane.spare import Spare
    from userproxy.dataplane.tcp.dial import Dialler
    from userproxy.net.poller import Poller

log = structlog.get_logger(__name__)

# Under pressure accepting pauses and resumes many times a second: not every time is worth a line.
_TELL_SECONDS = 5.0

# A pause in accepting, when the system has run out of something.
_PAUSE_SECONDS = 0.1

# Between two tries to get spare files again.
_REFILL_SECONDS = 1.0


class Room(NamedTuple):
    """What there is for more connections.

    Attributes:
        left: how many more there may be.
        reserve: with no more than that, clients had better go elsewhere.
        spare: files for those who cannot.
    """

    left: Callable[[], float]
    reserve: int
    spare: Spare


class Pressure:
    """Whether accepting waits, for all listeners of a process together.

    Args:
        loop: that drives it.
        poller: in which the acceptors are nested.
        acceptors: of the listening sockets.
        connections: those that are live.
        room: for more of them.

    Attributes:
        reason: why accepting waits; empty while it does not.
        full: why clients had better go elsewhere; empty while they need not.
        on_full: called with whether clients had better go elsewhere, when that changes.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        poller: Poller,
        acceptors: Poller,
        connections: ConnectionTable,
        room: Room,
    ) -> None:
        self.reason = ""
        self.on_full: Callable[[bool], object] | None = None
        self._loop = loop
        self._poller = poller
        self._acceptors = acceptors
        self._connections = connections
        self._room = room
        self._refill: asyncio.TimerHandle | None = None
        self.full = ""
        self._starved: list[Dialler] = []
        self._retry: asyncio.TimerHandle | None = None
        self._told = -_TELL_SECONDS

    def rise(self) -> None:
        """A connection came: was it the last one that there may be?"""
        left = self._room.left()
        if left <= self._room.reserve:
            self._tell_full("nearly as many connections as the limit allows")
        if left <= 0:
            self._pause("as many connections as the limit allows", kind="limit")

    def fall(self) -> None:
        """Something ended: may others come?"""
        if not self.full or self._retry is not None:
            return
        left = self._room.left()
        if self.reason and left > 0:
            self.reason = ""
            self._poller.resume(self._acceptors)
        if left > self._room.reserve and self._refill is None:
            self._tell_full("")

    def out_of_resources(self, error: OSError) -> None:
        """The system has no more files, or no memory: try again in a moment, with spare files at once."""
        self._tell_full(str(error))
        has_more = self._room.spare.release()
        if has_more and self._refill is None:
            self._refill = self._loop.call_later(_REFILL_SECONDS, self._get_spare)
        elif not has_more:
            self._pause(str(error), kind="resources")
        if self._retry is None:
            self._retry = self._loop.call_later(0.0 if has_more else _PAUSE_SECONDS, self._try_again)

    def starve(self, dialler: Dialler, error: OSError) -> None:
        """Likewise, and this one was let in already: it goes on before anybody else comes."""
        self._starved.append(dialler)
        self.out_of_resources(error)

    def stop(self) -> None:
        """Nobody comes any more."""
        for timer in (self._retry, self._refill):
            if timer is not None:
                timer.cancel()
        self._room.spare.release()

    def _try_again(self) -> None:
        """First come, first served: those let in already, and then those outside."""
        self._retry = None
        starved, self._starved = self._starved, []
        for dialler in starved:
            dialler.open()
        self.fall()

    def _get_spare(self) -> None:
        self._refill = None
        if self._room.spare.refill():
            self.fall()
        else:
            self._refill = self._loop.call_later(_REFILL_SECONDS, self._get_spare)

    def _tell_full(self, why: str) -> None:
        was_full, self.full = bool(self.full), why
        if bool(why) is not was_full and self.on_full is not None:
            self.on_full(bool(why))

    def _pause(self, reason: str, kind: str) -> None:
        self._tell_full(reason)
        if not self.reason:
            self.reason = reason
            self._connections.counters.accept_pauses[kind] += 1
            self._poller.pause(self._acceptors)
            now = monotonic()
            if now - self._told >= _TELL_SECONDS:
                self._told = now
                log.warning("accepting waits", reason=reason, connections=len(self._connections.live))
