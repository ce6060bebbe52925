"""What a data plane has counted, as messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userproxy.model import messages

if TYPE_CHECKING:
    from userproxy.dataplane.plane import DataPlane
    from userproxy.dataplane.services import LiveService


def services(plane: DataPlane) -> list[messages.ServiceCount]:
    """The Service ports that ever had a connection."""
    found = (_service(live) for live in plane.services.values())
    return [count for count in found if count.backends]


def totals(plane: DataPlane, serial: int) -> messages.Totals:
    """The plane as a whole."""
    return messages.Totals(
        serial=serial,
        connections=len(plane.connections.live),
        opened=plane.connections.opened,
        ended={reason.value: count for reason, count in plane.connections.ended.items()},
        paused=plane.paused,
    )


def _service(live: LiveService) -> messages.ServiceCount:
    return messages.ServiceCount(
        service=live.serve.service,
        connections=live.connections,
        backends=tuple(
            messages.BackendCount(
                address=backend.address, connections=backend.connections, latency=backend.latency
            )
            for backend in live.balancer.candidates
            if backend.connections or backend.latency is not None
        ),
    )
