"""What a daemon would serve on this node, and how, without one: nothing is opened, captured or written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from userproxy.control.host_address import HostAddress
from userproxy.control.port_file import HostPorts, PortFile
from userproxy.control.reconcile import context_of
from userproxy.model.address import IpFamily
from userproxy.model.planned import DROPPED, HELD, LEFT_OUT, REFUSED, SERVED, PlannedRow
from userproxy.model.service import Path, PoolName
from userproxy.model.snapshot import Problem
from userproxy.model.state import Drop, NodeState, Refuse, ToPods
from userproxy.planner.context import path_of
from userproxy.planner.entries import frontends_of
from userproxy.planner.state import Planner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from userproxy.config import Config
    from userproxy.control.host_address import Surroundings
    from userproxy.model.address import Address
    from userproxy.model.service import ServicePort
    from userproxy.model.snapshot import Snapshot
    from userproxy.model.state import Target
    from userproxy.planner.context import PlanContext


class Forecast(msgspec.Struct, frozen=True):
    """What a daemon would do.

    Attributes:
        node: that it would run on.
        host_ips: of its listeners.
        services: a row for each pool, sorted.
        problems: what its operator and the authors of Services must know, sorted.
        state: what its workers and the kernel would be told.
    """

    node: str
    host_ips: tuple[str, ...]
    services: tuple[PlannedRow, ...]
    problems: tuple[Problem, ...]
    state: NodeState


def forecast(config: Config, snapshot: Snapshot, surroundings: Callable[[], Surroundings]) -> Forecast:
    """Plan a snapshot as a daemon with this configuration would, with the host ports that it remembers.

    Args:
        config: of the daemon.
        snapshot: the desired state.
        surroundings: tells what else the node has of the network.
    """
    address = HostAddress(config, surroundings=surroundings)
    ports = HostPorts.load(config.ports, PortFile(config.state_dir))
    context = context_of(config, snapshot, address)
    state, problems = Planner(ports.book).wanted(snapshot, context, NodeState())
    rows = [row for service in snapshot.services.values() for row in _rows(service, snapshot, state, context)]
    return Forecast(
        node=context.node.name,
        host_ips=address.ips,
        services=tuple(sorted(rows, key=lambda row: (row.service, row.policy, row.family))),
        problems=tuple(sorted({*snapshot.problems, *problems, *address.problems})),
        state=state,
    )


def _rows(
    service: ServicePort, snapshot: Snapshot, state: NodeState, context: PlanContext
) -> Iterator[PlannedRow]:
    endpoints = snapshot.endpoints.get(service.name, ())
    kinds = {entry.frontend: entry.kind for entry in frontends_of(service, context)}
    path = path_of(service, context.mode)
    pools = [pool for pool in PoolName.all_of(service.name) if pool in state.frontends]
    for pool in pools:
        frontends = state.frontends[pool]
        known = sum(each.address.family is pool.family for each in endpoints)
        target = _best([state.captures[frontend] for frontend in frontends])
        backends = _backends(pool, target, state)
        serve = state.serves.get(pool)
        lacks_port = serve is None and path is Path.REDIRECT_TO_HOST
        outcome, reason = _outcome(target, known, backends, lacks_port=lacks_port)
        yield PlannedRow(
            service=str(service.name),
            protocol=service.protocol.value,
            path=path.value,
            policy=pool.policy.value,
            family=pool.family.value,
            outcome=outcome,
            reason=reason,
            entries=tuple(dict.fromkeys(f"{kinds[each].value} {each.address}" for each in frontends)),
            listener=str(serve.listener) if serve else None,
            backends=tuple(map(str, backends)),
            endpoints=known,
        )
    if not pools:
        yield _left_out(service, path, len(endpoints))


def _left_out(service: ServicePort, path: Path, endpoints: int) -> PlannedRow:
    family = service.entries[0].address.family if service.entries else IpFamily.IPV4
    return PlannedRow(
        service=str(service.name),
        protocol=service.protocol.value,
        path=path.value,
        policy=service.internal_traffic_policy.value,
        family=family.value,
        outcome=LEFT_OUT,
        reason="none of its entries is served on this node",
        entries=tuple(f"{entry.kind.value} {entry.address}" for entry in service.entries),
        listener=None,
        backends=(),
        endpoints=endpoints,
    )


def _best(targets: list[Target]) -> Target:
    """What tells how a pool is served: only a node port on a loopback address may differ from the others."""
    return next((target for target in targets if not isinstance(target, Refuse | Drop)), targets[0])


def _backends(pool: PoolName, target: Target, state: NodeState) -> tuple[Address, ...]:
    if isinstance(target, ToPods):
        return target.pods
    serve = state.serves.get(pool)
    return tuple(backend.address for backend in serve.backends) if serve else ()


def _outcome(
    target: Target, endpoints: int, backends: tuple[Address, ...], *, lacks_port: bool
) -> tuple[str, str]:
    """What becomes of a pool's packets, and why if they reach nobody."""
    if isinstance(target, Drop):
        return DROPPED, "its policy is Local, and none of its endpoints is on this node"
    if backends and not isinstance(target, Refuse):
        return SERVED, ""
    reason = "it has no endpoints"
    if lacks_port:
        reason = "no host port is left for it"
    elif endpoints:
        reason = f"of its {endpoints} endpoints none may be picked"
    return REFUSED if isinstance(target, Refuse) else HELD, reason
