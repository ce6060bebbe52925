"""What load balancers ask of this node: does it have endpoints of a Service? Pure.

Source: kube-proxy's `pkg/proxy/healthcheck/service_health.go`: distinct addresses of ready endpoints on this
node.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from userproxy.model.address import IpFamily, family_of
from userproxy.model.snapshot import EMPTY, Problem
from userproxy.model.versioned import dropped, touched

if TYPE_CHECKING:
    from collections.abc import Mapping

    from userproxy.model.service import ServicePortName
    from userproxy.model.snapshot import Node, Snapshot


class LocalEndpoints(NamedTuple):
    """How many endpoints of a Service are on this node.

    Attributes:
        namespace: of the Service.
        service: its name.
        local: by family, distinct addresses that are ready.
    """

    namespace: str
    service: str
    local: Mapping[IpFamily, int]


class LocalEndpointCounter:
    """Counts the local endpoints of the Services whose load balancers ask. Lives as long as the daemon."""

    def __init__(self) -> None:
        self._snapshot = EMPTY
        self._node = ""
        self._ports: dict[ServicePortName, int] = {}  # of Services whose load balancers ask
        self._counts: Mapping[int, LocalEndpoints] = {}
        self._conflicts: tuple[Problem, ...] = ()

    @property
    def conflicts(self) -> tuple[Problem, ...]:
        """A problem for each Service whose port is that of another one, by whose name the answer goes."""
        return self._conflicts

    def observe(self, snapshot: Snapshot, node: Node) -> Mapping[int, LocalEndpoints]:
        """Take in the desired state.

        Returns:
            By health check node port, the local endpoints of its Service; the same object as before if
            nothing has changed that matters.
        """
        before, self._snapshot = self._snapshot, snapshot
        ports = dict(self._ports)
        for name in dropped(snapshot.services, before.services):
            ports.pop(name, None)
        for name in touched(snapshot.services, before.services):
            ports.pop(name, None)
            port = snapshot.services[name].health_check_port
            if port is not None:
                ports[name] = port
        changed = {
            *touched(snapshot.endpoints, before.endpoints),
            *dropped(snapshot.endpoints, before.endpoints),
        }
        if ports != self._ports or node.name != self._node or not changed.isdisjoint(ports):
            self._ports, self._node = ports, node.name
            self._counts = self._count(snapshot)
        return self._counts

    def _count(self, snapshot: Snapshot) -> dict[int, LocalEndpoints]:
        local: dict[tuple[str, str], set[str]] = {}
        owners: dict[int, tuple[str, str]] = {}
        conflicts: dict[tuple[str, str], Problem] = {}
        for name, port in sorted(self._ports.items()):
            service = (name.namespace, name.service)
            owner = owners.setdefault(port, service)
            if owner != service:
                conflicts[service] = _conflict(service, port, owner)
            local.setdefault(service, set()).update(
                endpoint.address.ip
                for endpoint in snapshot.endpoints.get(name, ())
                if endpoint.ready and not endpoint.drained and endpoint.node == self._node
            )
        self._conflicts = tuple(conflicts.values())
        return {
            port: LocalEndpoints(*owner, Counter(map(family_of, local[owner])))
            for port, owner in owners.items()
        }


def _conflict(service: tuple[str, str], port: int, owner: tuple[str, str]) -> Problem:
    message = (
        f"healthCheckNodePort {port} belongs to {'/'.join(owner)}, of whose endpoints load balancers are "
        "told: give one of the two another port"
    )
    return Problem("/".join(service), "PortConflict", message)
