"""Connections that the author of a Service wants ended: too old, or to a pod that is gone.

There is nothing to do and no timer while no such Service is served. Otherwise a part of the table of live
connections is looked at twice a second, so that a large table holds nobody up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from userproxy.dataplane.tcp.lifecycle import Event
from userproxy.model.settings import AGE_JITTER

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from userproxy.backends.service import LiveService
    from userproxy.dataplane.connections import Relayed

_TICK_SECONDS = 0.5

# Looked at in one tick: all of so many, or else this share.
_LEAST = 1000
_PARTS = 8

# A prime near 2 ** 32 / phi: successive numbers are spread evenly (Knuth, TAOCP 6.4).
_SPREAD = 2654435761


class Lifetimes:
    """Ends connections whose time is over.

    Args:
        loop: that drives it.
        live: the live connections.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        live: Mapping[int, Relayed],
        clock: Callable[[], float],
    ) -> None:
        self._loop = loop
        self._live = live
        self._clock = clock
        self._services: set[LiveService] = set()
        self._due: list[Relayed] = []
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, service: LiveService) -> None:
        """Look after a Service port's connections, if its settings ask for it."""
        if not _limits(service):
            self._services.discard(service)
            return
        self._services.add(service)
        if self._timer is None:
            self._timer = self._loop.call_later(_TICK_SECONDS, self._tick)

    def stop(self) -> None:
        """End nobody any more."""
        self._services.clear()
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._services = {each for each in self._services if each.connections or not each.retired}
        self._timer = self._loop.call_later(_TICK_SECONDS, self._tick) if self._services else None
        if not self._due:
            self._due = list(self._live.values())
        count = max(_LEAST, len(self._live) // _PARTS)
        part, self._due = self._due[-count:], self._due[:-count]
        now = self._clock()
        for connection in part:
            if connection.service in self._services:
                event = verdict(connection, now)
                if event is not None:
                    connection.end(event)


def verdict(connection: Relayed, now: float) -> Event | None:
    """Why a connection is to end; None if it may go on.

    Args:
        connection: one of a Service port whose settings limit its time.
        now: monotonic seconds.
    """
    settings, backend = connection.service.pool.settings, connection.backend
    if (
        settings.close_on_removal is not None
        and backend is not None
        and backend.removed is not None
        and now - backend.removed >= settings.close_on_removal
    ):
        return Event.BACKEND_REMOVED
    age = settings.max_connection_age
    if age is not None and now - connection.opened >= age * (1.0 + AGE_JITTER * spread(connection.number)):
        return Event.AGED
    return None


def spread(number: int) -> float:
    """A number between -1 and 1 that is always the same for a connection."""
    return (number * _SPREAD & 0xFFFFFFFF) / 0x80000000 - 1.0


def _limits(service: LiveService) -> bool:
    settings = service.pool.settings
    return settings.max_connection_age is not None or settings.close_on_removal is not None
