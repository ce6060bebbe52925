"""What one Service port comes to on this node: its listeners, its captures, and what its owner must know.

How it comes to that is a matter of its path (`userproxy.planner.paths`).
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from userproxy.model.address import Address
from userproxy.model.service import EntryKind, PoolName, Protocol, ServicePortName
from userproxy.model.settings import NoEndpoints
from userproxy.model.snapshot import Problem
from userproxy.model.state import Drop, Frontend, Pool, Refuse, Serve, Target
from userproxy.planner.entries import frontends_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from userproxy.model.endpoint import Endpoint
    from userproxy.model.service import ServicePort
    from userproxy.planner.context import PlanContext
    from userproxy.planner.entries import EntryFrontend
    from userproxy.planner.topology import Choice


_GIVE_IPV4 = "give the Service an IPv4 cluster IP (ipFamilies)"


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

    @property
    def same_family(self) -> list[Endpoint]:
        """The endpoints that these may lead to."""
        return [endpoint for endpoint in self.endpoints if not endpoint.address.is_ipv6]


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


def unserved_addresses(service: ServicePort) -> tuple[Problem, ...]:
    """A problem for each address that is not captured."""
    has_ipv4 = any(not address.is_ipv6 for address in service.cluster_ips)
    remedy = "the Service's IPv4 addresses are" if has_ipv4 else _GIVE_IPV4
    return tuple(
        Problem(
            str(service.name),
            "AddressFamilyNotSupported",
            f"{entry.address} is not served, only IPv4 is: {remedy}",
        )
        for entry in service.entries
        if entry.address.is_ipv6
    )


def cluster_ips_of(service: ServicePort) -> tuple[str, ...]:
    """The cluster IPs of which every port that is not captured is refused."""
    return tuple(address.ip for address in service.cluster_ips if not address.is_ipv6)


def ranges_of(traffic: Traffic, entries: list[EntryFrontend]) -> dict[Frontend, tuple[str, ...]]:
    """By frontend of a load balancer IP, the networks whose clients alone may reach it.

    A node that is among them may have that IP on an interface, and then asks from there.
    """
    ranges = traffic.service.source_ranges
    if not ranges:
        return {}
    node = ipaddress.ip_address(traffic.context.network.host_ip)
    admits_node = any(node in ipaddress.ip_network(network) for network in ranges)
    return {
        entry.frontend: (*ranges, f"{entry.frontend.address.ip}/32") if admits_node else ranges
        for entry in entries
        if entry.kind is EntryKind.LOAD_BALANCER_IP and not entry.frontend.outside
    }


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
    )


def exhausted_problem(name: ServicePortName, ports: range, remedy: str = "") -> Problem:
    """No host port is left for one of its listeners; the remedy is what may be done beside the obvious."""
    message = (
        f"refused, as no host port is left in {ports.start}-{ports.stop - 1}: widen --port-range{remedy}"
    )
    return Problem(str(name), "PortRangeExhausted", message)


def _conflict_problem(name: ServicePortName, key: Frontend, owner: ServicePortName) -> Problem:
    message = f"{key.address}/{key.protocol} belongs to {owner}: give one of the two another address or port"
    return Problem(str(name), "PortConflict", message)
