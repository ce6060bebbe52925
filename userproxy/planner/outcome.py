"""What one Service port comes to on this node: its listeners, its captures, and what its owner must know.

How it comes to that is a matter of its path (`userproxy.planner.paths`).
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from userproxy.model.address import Address, IpFamily, family_of
from userproxy.model.service import EntryKind, Path, PoolName, Protocol, ServicePortName
from userproxy.model.settings import NoEndpoints
from userproxy.model.snapshot import Problem
from userproxy.model.state import Drop, Frontend, Pool, Refuse, Serve, Steer, Target
from userproxy.planner import topology
from userproxy.planner.entries import frontends_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from userproxy.model.endpoint import Endpoint
    from userproxy.model.service import ServicePort
    from userproxy.planner.context import PlanContext
    from userproxy.planner.entries import EntryFrontend
    from userproxy.planner.topology import Choice


class Traffic(NamedTuple):
    """One Service port to be planned.

    Attributes:
        service: as its author wants it served.
        endpoints: all of its endpoints.
        ports: by pool, its host ports; a pool that needs none, or for which none is left, is missing.
        context: of this node.
    """

    service: ServicePort
    endpoints: tuple[Endpoint, ...]
    ports: Mapping[PoolName, int]
    context: PlanContext

    @property
    def entries(self) -> list[EntryFrontend]:
        """Those that can be captured."""
        return frontends_of(self.service, self.context)

    def choice(self, pool: PoolName) -> Choice:
        """The endpoints that take the traffic of a pool."""
        return topology.select(self.service, self.of_family(pool.family), self.context.node, pool.policy)

    @property
    def pods(self) -> tuple[str, ...]:
        """The IPs of all endpoints of families that the node has."""
        network = self.context.network
        served = (each.address for each in self.endpoints if network.host_ip(each.address.family))
        return tuple(address.ip for address in served)

    def of_family(self, family: IpFamily) -> list[Endpoint]:
        """The endpoints of this family."""
        return [endpoint for endpoint in self.endpoints if endpoint.address.family is family]


class Outcome(msgspec.Struct, frozen=True, eq=False):
    """What one Service port comes to. Compared by identity.

    Attributes:
        name: of the Service port.
        serves: by pool, its listeners.
        captures: a target for each of its frontends that are served.
        pools: by frontend in `captures`, the pool that it leads to.
        problems: in any order.
        guards: its listeners, to be refused to whoever was not redirected to them.
        flows: if it is UDP, where the flows of each of its captured frontends may lead.
        checked: by pool, the pods that netfilter sends its packets to, if they are to be checked.
        steered: by pool, what a steering process must know to choose for its packets.
        cluster_ips: that it has.
        ranges: by frontend, the networks whose clients alone may reach it.
        pods: IPs of those to which the kernel sends its connections, or has sent some that go on.
    """

    name: ServicePortName
    serves: dict[PoolName, Serve] = {}
    captures: dict[Frontend, Target] = {}
    pools: dict[Frontend, PoolName] = {}
    problems: tuple[Problem, ...] = ()
    guards: tuple[Frontend, ...] = ()
    flows: dict[Frontend, tuple[Address, ...]] = {}
    checked: dict[PoolName, Pool] = {}
    steered: dict[PoolName, Steer] = {}
    cluster_ips: tuple[str, ...] = ()
    ranges: dict[Frontend, tuple[str, ...]] = {}
    pods: tuple[str, ...] = ()


def target_of(choice: Choice, target: Target, otherwise: Target | None = None) -> Target:
    """The target, if there is anybody to take the traffic; else the other one, by default to refuse it."""
    if choice.drop:
        return Drop()
    return target if choice.backends else otherwise or Refuse()


def holds_clients(service: ServicePort) -> bool:
    """Whether clients wait at a listener of ours while there are no endpoints."""
    return service.protocol is Protocol.TCP and service.settings.no_endpoints is NoEndpoints.HOLD


def unserved_addresses(service: ServicePort, context: PlanContext) -> tuple[Problem, ...]:
    """That none of its addresses is served, if so: it has none of a family that the node has.

    A Service of both families on a node of one is as it should be.
    """
    families = sorted({entry.address.family for entry in service.entries})
    if not families or any(context.network.host_ip(family) for family in families):
        return ()
    return (_family_problem(service.name, service.entries[0].address, families[0]),)


def cluster_ips_of(service: ServicePort, context: PlanContext) -> tuple[str, ...]:
    """The cluster IPs of which every port that is not captured is refused."""
    return tuple(address.ip for address in service.cluster_ips if context.network.host_ip(address.family))


def ranges_of(traffic: Traffic, entries: list[EntryFrontend]) -> dict[Frontend, tuple[str, ...]]:
    """By frontend of a load balancer IP, the networks whose clients alone may reach it.

    A node that is among them may have that IP on an interface, and then asks from there.
    """
    ranges = traffic.service.source_ranges
    if not ranges:
        return {}
    networks = [ipaddress.ip_network(network) for network in ranges]
    nodes = [ipaddress.ip_address(ip) for ip in traffic.context.network.host_ips]
    admitted = {family_of(str(node)) for node in nodes for network in networks if node in network}
    found = {}
    for entry in entries:
        if entry.kind is EntryKind.LOAD_BALANCER_IP and not entry.frontend.outside:
            address = entry.frontend.address
            own = (str(ipaddress.ip_network(address.ip)),) if address.family in admitted else ()
            found[entry.frontend] = (*ranges, *own)
    return found


def without_conflicts(outcomes: list[Outcome]) -> list[Outcome]:
    """Leave each frontend to the first that has it, and tell the others.

    Whoever has it from pods has it from outside too. A source settles such conflicts by age; this is for one
    that did not, and for addresses of which only the node knows that they are the same: those of its node
    ports.
    """
    owners: dict[Frontend, ServicePortName] = {}
    settled: list[Outcome] = []
    for outcome in outcomes:
        kept = {key for key in outcome.captures if _anywhere(key) not in owners}
        lost = [key for key in outcome.captures if key not in kept]
        settled.append(_without(outcome, kept, lost, owners) if lost else outcome)
        owners.update(dict.fromkeys(map(_anywhere, kept), outcome.name))
    return settled


def _anywhere(key: Frontend) -> Frontend:
    return msgspec.structs.replace(key, outside=False) if key.outside else key


def _without(
    outcome: Outcome,
    kept: set[Frontend],
    lost: list[Frontend],
    owners: dict[Frontend, ServicePortName],
) -> Outcome:
    claims = dict.fromkeys(map(_anywhere, lost))
    conflicts = (_conflict_problem(outcome.name, key, owners[key]) for key in claims)
    return msgspec.structs.replace(
        outcome,
        captures={key: target for key, target in outcome.captures.items() if key in kept},
        pools={key: pool for key, pool in outcome.pools.items() if key in kept},
        problems=(*outcome.problems, *conflicts),
        flows={key: pods for key, pods in outcome.flows.items() if key in kept},
        ranges={key: ranges for key, ranges in outcome.ranges.items() if key in kept},
        steered={name: _without_frontends(steer, lost) for name, steer in outcome.steered.items()},
    )


def _without_frontends(steer: Steer, lost: list[Frontend]) -> Steer:
    inside, outside = ({key.address for key in lost if key.outside is side} for side in (False, True))
    return msgspec.structs.replace(
        steer,
        frontends=tuple(each for each in steer.frontends if each not in inside),
        outside=tuple(each for each in steer.outside if each not in outside),
    )


def exhausted_problem(name: ServicePortName, ports: range, remedy: str = "") -> Problem:
    """No host port is left for one of its listeners; the remedy is what may be done beside the obvious."""
    message = (
        f"refused, as no host port is left in {ports.start}-{ports.stop - 1}: widen --port-range{remedy}"
    )
    return Problem(str(name), "PortRangeExhausted", message)


def unlimited_problem(name: ServicePortName) -> Problem:
    """It asks for limits that nobody keeps on its path, on this kernel."""
    message = (
        f"max-connections and max-connections-per-client are not kept on the path {Path.REDIRECT_TO_POD}, as "
        f"the kernel cannot count connections: load nft_connlimit and start again, or set userproxy.dev/path "
        f"to {Path.STEERED} or {Path.REDIRECT_TO_HOST}"
    )
    return Problem(str(name), "LimitsNotKept", message)


def _family_problem(name: ServicePortName, address: Address, family: IpFamily) -> Problem:
    message = (
        f"{address} is not served, as this node has no {family} address: give it one and a default route, or "
        f"name one with --host-ip"
    )
    return Problem(str(name), "AddressFamilyNotSupported", message)


def _conflict_problem(name: ServicePortName, key: Frontend, owner: ServicePortName) -> Problem:
    message = f"{key.address}/{key.protocol} belongs to {owner}: give one of the two another address or port"
    return Problem(str(name), "PortConflict", message)
