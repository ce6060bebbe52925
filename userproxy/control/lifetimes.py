"""Connections of the kernel that the author of a Service wants ended: too old, or to a pod that is gone.

Workers see to those that they relay (`dataplane/tcp/expiry.py`). Here conntrack is read, for those Services
alone that ask for it, and not at all while there is none. When a connection began, the kernel may know; if it
does not, it is as old as it has been known here.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

from userproxy.control.sides import end_carried
from userproxy.model.endings import Reason
from userproxy.model.service import Protocol
from userproxy.model.settings import AGE_JITTER

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from userproxy.control.sides import Sides
    from userproxy.model.address import Address
    from userproxy.model.service import ServicePortName
    from userproxy.model.settings import Settings
    from userproxy.model.snapshot import Snapshot
    from userproxy.netfilter.conntrack.flows import Flow

log = structlog.get_logger("userproxy.control")

_LOOK_SECONDS = 1.0
_SHARE = 10
"""Looking takes at most this part of the time of a thread."""
_AGAIN_SECONDS = 60.0
"""After which it is tried again to end a connection that could not be ended."""

# A prime near 2 ** 32 / phi: successive numbers are spread evenly (Knuth, TAOCP 6.4).
_SPREAD = 2654435761


class CarriedLifetimes:
    """Ends connections of the kernel whose time is over. Lives as long as the daemon.

    Args:
        sides: that carry connections.
        clock: seconds since the epoch.
    """

    def __init__(self, sides: Sides, clock: Callable[[], float] = time.time) -> None:
        self._sides = sides
        self._clock = clock
        self._snapshot: Snapshot | None = None
        self._limited: dict[ServicePortName, Settings] = {}
        self._seen: dict[int, float] = {}  # by number, when it was seen first
        self._again: dict[int, float] = {}
        self._gone: dict[tuple[ServicePortName, Address], float] = {}  # since when a pod is missing

    async def run(self, snapshot: Callable[[], Snapshot | None]) -> None:
        """Look again and again, until cancelled."""
        while True:
            began = time.monotonic()
            try:
                await self.look(snapshot())
            except Exception as error:  # noqa: BLE001 - told, and tried again
                log.error("connections of the kernel are not ended in time", error=str(error))  # noqa: TRY400
            await asyncio.sleep(max(_LOOK_SECONDS, _SHARE * (time.monotonic() - began)))

    async def look(self, snapshot: Snapshot | None) -> None:
        """End those whose time is over.

        Raises:
            NetfilterError: they cannot be ended.
        """
        if snapshot is not self._snapshot:
            self._snapshot = snapshot
            services = snapshot.services.values() if snapshot else ()
            self._limited = {each.name: each.settings for each in services if _limits(each.settings)}
        found = await self._sides.flows.carried(self._limited) if self._limited else []
        now = self._clock()
        tcp = [(name, flow) for name, flow in found if flow.frontend.protocol is Protocol.TCP]
        self._seen = {flow.id: self._seen.get(flow.id, now) for _, flow in tcp}
        self._again = {number: at for number, at in self._again.items() if number in self._seen}
        self._notice_gone({(name, flow.backend) for name, flow in tcp}, now)
        reasons = [(flow, self._reason(name, flow, now)) for name, flow in tcp]
        for reason in (Reason.BACKEND_REMOVED, Reason.AGED):
            due = [flow for flow, why in reasons if why is reason]
            if not due:
                continue
            done = await end_carried(self._sides, due, reason)
            left = [flow.id for flow in due if flow.id not in done.ended]
            self._again |= dict.fromkeys(left, now + _AGAIN_SECONDS)
            log.info(
                "connections that the kernel carried were ended",
                ended=len(due) - len(left),
                left=len(left),
                reason=reason.value,
            )

    def _notice_gone(self, used: Collection[tuple[ServicePortName, Address]], now: float) -> None:
        endpoints = self._snapshot.endpoints if self._snapshot else {}
        known = {name: {each.address for each in endpoints.get(name, ())} for name, _ in used}
        gone = [(name, pod) for name, pod in used if pod not in known[name]]
        self._gone = {key: self._gone.get(key, now) for key in gone}

    def _reason(self, name: ServicePortName, flow: Flow, now: float) -> Reason | None:
        """Why the time of a connection is over; None if it is not."""
        settings = self._limited[name]
        if now < self._again.get(flow.id, 0.0):
            return None
        gone, allowed = self._gone.get((name, flow.backend)), settings.close_on_removal
        if gone is not None and allowed is not None and now - gone >= allowed:
            return Reason.BACKEND_REMOVED
        began = self._seen[flow.id] if flow.started is None else flow.started
        age = settings.max_connection_age
        if age is not None and now - began >= age * (1.0 + AGE_JITTER * _spread(flow.id)):
            return Reason.AGED
        return None


def _spread(number: int) -> float:
    """A number between -1 and 1 that is always the same for a connection."""
    return (number * _SPREAD & 0xFFFFFFFF) / 0x80000000 - 1.0


def _limits(settings: Settings) -> bool:
    return settings.max_connection_age is not None or settings.close_on_removal is not None
