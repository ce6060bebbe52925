"""What one Service port comes to on this node: its listener, its captures, and what its owner must know.

How it comes to that is a matter of its path (`userproxy.planner.paths`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from userproxy.model.address import Address
from userproxy.model.service import ServicePortName
from userproxy.model.snapshot import Problem
from userproxy.model.state import Drop, Frontend, Pool, Refuse, Serve, Target

if TYPE_CHECKING:
    from userproxy.model.endpoint import Endpoint
    from userproxy.model.service import ServicePort
    from userproxy.planner.context import PlanContext
    from userproxy.planner.topology import Choice


class Traffic(NamedTuple):
    """One Service port to be planned.

    Attributes:
        service: as its author wants it served.
        endpoints: all of its endpoints.
        port: its host port; None if it needs none, or if none is left.
        context: of this node.
    """

    service: ServicePort
    endpoints: tuple[Endpoint, ...]
    port: int | None
    context: PlanContext

    @property
    def frontends(self) -> list[Frontend]:
        """Those that can be captured."""
        service = self.service
        return [Frontend(service.protocol, address) for address in service.frontends if not address.is_ipv6]

    @property
    def same_family(self) -> list[Endpoint]:
        """The endpoints that these may lead to."""
        return [endpoint for endpoint in self.endpoints if not endpoint.address.is_ipv6]


class Outcome(msgspec.Struct, frozen=True, eq=False):
    """What one Service port comes to. Compared by identity.

    Attributes:
        name: of the Service port.
        serve: its listener, if it has one.
        captures: a target for each of its frontends that are served.
        problems: in any order.
        guard: its listener, to be refused to whoever was not redirected to it.
        flows: if it is UDP, where the flows of each of its captured frontends may lead.
        checked: the pods that netfilter sends its packets to, if they are to be checked.
    """

    name: ServicePortName
    serve: Serve | None = None
    captures: dict[Frontend, Target] = {}
    problems: tuple[Problem, ...] = ()
    guard: Frontend | None = None
    flows: dict[Frontend, tuple[Address, ...]] = {}
    checked: Pool | None = None


def target_of(choice: Choice, target: Target) -> Target:
    """The target, if there is anybody to take the traffic."""
    if choice.drop:
        return Drop()
    return target if choice.backends else Refuse()


def unserved_addresses(service: ServicePort) -> tuple[Problem, ...]:
    """A problem for each address that is not captured."""
    return tuple(_ipv6_problem(service.name, address) for address in service.frontends if address.is_ipv6)


def without_conflicts(outcomes: list[Outcome]) -> list[Outcome]:
    """Leave each frontend to the first that has it, and tell the others.

    A source settles such conflicts by age; this is for one that did not.
    """
    owners: dict[Frontend, ServicePortName] = {}
    settled: list[Outcome] = []
    for outcome in outcomes:
        kept = {key: target for key, target in outcome.captures.items() if key not in owners}
        lost = [key for key in outcome.captures if key in owners]
        settled.append(_without(outcome, kept, lost, owners) if lost else outcome)
        owners.update(dict.fromkeys(kept, outcome.name))
    return settled


def _without(
    outcome: Outcome,
    kept: dict[Frontend, Target],
    lost: list[Frontend],
    owners: dict[Frontend, ServicePortName],
) -> Outcome:
    addresses = tuple(key.address for key in kept)
    replace = msgspec.structs.replace
    return replace(
        outcome,
        serve=outcome.serve and replace(outcome.serve, frontends=addresses),
        captures=kept,
        problems=(*outcome.problems, *(_conflict_problem(outcome.name, key, owners[key]) for key in lost)),
        flows={key: pods for key, pods in outcome.flows.items() if key in kept},
        checked=outcome.checked and replace(outcome.checked, frontends=addresses),
    )


def _ipv6_problem(name: ServicePortName, frontend: Address) -> Problem:
    message = f"{frontend} is not served, only IPv4 is: give the Service an IPv4 cluster IP (ipFamilies)"
    return Problem(str(name), "AddressFamilyNotSupported", message)


def _conflict_problem(name: ServicePortName, key: Frontend, owner: ServicePortName) -> Problem:
    message = f"{key.address}/{key.protocol} belongs to {owner}: give one of the two another address or port"
    return Problem(str(name), "PortConflict", message)
