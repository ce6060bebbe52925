"""Which endpoints take a Service port's traffic on this node.

The rules are kube-proxy's (`pkg/proxy/topology.go`): readiness with a fallback to terminating endpoints,
KEP-1669 and KEP-2086 for the traffic policies, KEP-2433 and KEP-3015 for the hints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from userproxy.model.service import TrafficPolicy
from userproxy.model.state import Backend

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from userproxy.model.endpoint import Endpoint
    from userproxy.model.service import ServicePort
    from userproxy.model.snapshot import Node


class Choice(msgspec.Struct, frozen=True):
    """The endpoints that take traffic, and what becomes of it where there are none.

    Attributes:
        backends: in the order of the endpoints.
        drop: there are endpoints, but the policy forbids all of them from here: the traffic is dropped, so
            that clients try again elsewhere. Otherwise traffic without backends is refused.
        far: that take traffic only while most of the backends cannot be reached: hints prefer others.
    """

    backends: tuple[Backend, ...] = ()
    drop: bool = False
    far: tuple[Backend, ...] = ()


def select(
    service: ServicePort,
    endpoints: Sequence[Endpoint],
    node: Node,
    policy: TrafficPolicy | None = None,
) -> Choice:
    """Choose the endpoints for traffic that enters on a node.

    Args:
        service: whose traffic it is.
        endpoints: all of the Service port's, of one address family.
        node: that the traffic enters on.
        policy: which endpoints that traffic may reach; None means traffic to a cluster IP.
    """
    if policy is None:
        policy = service.internal_traffic_policy
    if policy is TrafficPolicy.LOCAL:
        local = _usable([endpoint for endpoint in endpoints if node.name and endpoint.node == node.name])
        return Choice(_backends(local), drop=not local and bool(_usable(endpoints)))
    usable = _usable(endpoints)
    near = _near(usable, node)
    if len(near) == len(usable):
        return Choice(_backends(near))
    chosen = {endpoint.address for endpoint in near}
    far = [endpoint for endpoint in usable if endpoint.address not in chosen]
    return Choice(_backends(near), far=_backends(far))


def _usable(endpoints: Sequence[Endpoint]) -> list[Endpoint]:
    """Those that are ready; while there are none, those that still serve while they terminate."""
    wanted = [endpoint for endpoint in endpoints if not endpoint.drained]
    ready = [endpoint for endpoint in wanted if endpoint.ready]
    return ready or [endpoint for endpoint in wanted if endpoint.serving and endpoint.terminating]


def _near(usable: list[Endpoint], node: Node) -> list[Endpoint]:
    """Those hinted for this node, else those hinted for its zone, else all.

    Hints count only if every ready endpoint has them and one is meant for us: a partial set means that the
    control plane is still writing them, and none for us that it planned without us. Terminating endpoints
    are a last resort, to which hints do not apply.
    """
    if not all(endpoint.ready for endpoint in usable):
        return usable
    if all(endpoint.hint_nodes for endpoint in usable):
        same_node = [endpoint for endpoint in usable if node.name in endpoint.hint_nodes]
        if same_node:
            return same_node
    if all(endpoint.hint_zones for endpoint in usable):
        same_zone = [endpoint for endpoint in usable if node.zone in endpoint.hint_zones]
        if same_zone:
            return same_zone
    return usable


def _backends(endpoints: Iterable[Endpoint]) -> tuple[Backend, ...]:
    return tuple(Backend(endpoint.address, endpoint.node, endpoint.zone) for endpoint in endpoints)
