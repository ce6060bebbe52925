"""What a data plane, or the checks of the control side, have counted, as messages."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from userproxy.model import messages

if TYPE_CHECKING:
    from collections.abc import Iterable

    from userproxy.backends.backend import LiveBackend
    from userproxy.backends.service import LiveService
    from userproxy.dataplane.plane import DataPlane


def services(lives: Iterable[LiveService]) -> list[messages.ServiceCount]:
    """Those of the Service ports that ever had a connection or a check."""
    found = (_service(live) for live in lives)
    return [count for count in found if count.backends]


def totals(plane: DataPlane, serial: int) -> messages.Totals:
    """The plane as a whole."""
    return messages.Totals(
        serial=serial,
        connections=len(plane.connections.live),
        opened=plane.connections.opened,
        ended={reason.value: count for reason, count in plane.connections.ended.items()},
        paused=plane.paused,
        turned_away=plane.connections.turned_away,
        checks=dict(plane.checker.made),
        failed_dials=dict(plane.counted.failed_dials),
        retried_dials=dict(plane.counted.retried_dials),
        changes=dict(plane.counted.changes),
    )


def _service(live: LiveService) -> messages.ServiceCount:
    now = monotonic()
    return messages.ServiceCount(
        service=live.pool.service,
        connections=live.connections,
        backends=tuple(
            _backend(backend, now)
            for backend in live.backends
            if backend.connections or backend.latency is not None or backend.down or backend.ejected
        ),
    )


def _backend(live: LiveBackend, now: float) -> messages.BackendCount:
    condition = live.condition(now)
    return messages.BackendCount(
        address=live.address,
        connections=live.connections,
        latency=live.latency,
        state=condition.state,
        reason=condition.reason,
        seconds=now - condition.since,
    )
