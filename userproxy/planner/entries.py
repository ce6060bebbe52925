"""By which frontends a Service port is reached on this node, and which policy holds for each. Pure.

| entry | from pods and the node itself | from outside |
|---|---|---|
| cluster IP | the internal policy | likewise, unless cluster IPs are closed to the outside |
| node port, external IP, load balancer IP | any endpoint | the external policy |
| node port on 127.0.0.1, ::1 | any endpoint | never |

Entries of a family of which the node has no address are not there for it.

Source: KEP-1669 and KEP-2086; kube-proxy short-circuits pods and the node alike (`pkg/proxy/nftables`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from userproxy.model.address import Address, family_of
from userproxy.model.service import EntryKind, PoolName, TrafficPolicy
from userproxy.model.state import Frontend
from userproxy.planner.context import LOOPBACKS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.model.service import Entry, ServicePort, ServicePortName
    from userproxy.planner.context import PlanContext


class EntryFrontend(NamedTuple):
    """One frontend of a Service port.

    Attributes:
        frontend: its key.
        kind: of the entry that it is of.
        policy: which endpoints its packets may reach.
    """

    frontend: Frontend
    kind: EntryKind
    policy: TrafficPolicy

    @property
    def is_loopback(self) -> bool:
        """Whether it is a node port on the loopback address, which no other node can be sent to."""
        return self.frontend.address.ip in LOOPBACKS.values()

    def pool_of(self, name: ServicePortName) -> PoolName:
        """The pool that its packets reach, of the Service port that it is of."""
        return PoolName.of(name, self.policy, self.frontend.address.family)


def frontends_of(service: ServicePort, context: PlanContext) -> list[EntryFrontend]:
    """All frontends of a Service port, in the order of its entries; each key once."""
    found = {entry.frontend: entry for entry in _frontends(service, context)}
    return list(found.values())


def pools_of(name: ServicePortName, entries: list[EntryFrontend]) -> tuple[PoolName, ...]:
    """The pools of a Service port that these lead to: one for each policy that holds, and family."""
    kinds = sorted({(entry.policy, entry.frontend.address.family) for entry in entries})
    return tuple(PoolName.of(name, policy, family) for policy, family in kinds)


def _frontends(service: ServicePort, context: PlanContext) -> Iterator[EntryFrontend]:
    for entry in service.entries:
        if not context.network.host_ip(entry.address.family):
            continue
        if entry.kind is EntryKind.CLUSTER_IP:
            frontend = Frontend(service.protocol, entry.address)
            yield EntryFrontend(frontend, entry.kind, service.internal_traffic_policy)
            continue
        for address in _addresses(entry, context):
            frontend = Frontend(service.protocol, address)
            yield EntryFrontend(frontend, entry.kind, TrafficPolicy.CLUSTER)
            if (
                service.external_traffic_policy is TrafficPolicy.LOCAL
                and address.ip not in LOOPBACKS.values()
            ):
                outside = Frontend(service.protocol, address, outside=True)
                yield EntryFrontend(outside, entry.kind, TrafficPolicy.LOCAL)


def _addresses(entry: Entry, context: PlanContext) -> Iterator[Address]:
    if entry.kind is not EntryKind.NODE_PORT:
        yield entry.address
        return
    family = entry.address.family
    for ip in (*context.network.addresses, LOOPBACKS[family]):
        if family_of(ip) is family:
            yield Address(ip, entry.address.port)
