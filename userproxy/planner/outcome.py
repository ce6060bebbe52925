"""What one Service port comes to on this node: its listener, its captures, and what its owner must know."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from userproxy.model.address import Address
from userproxy.model.service import Path, Protocol, ServicePort, ServicePortName
from userproxy.model.settings import HealthCheck
from userproxy.model.snapshot import Node, Problem
from userproxy.model.state import Drop, Frontend, Pool, Refuse, Serve, Target, ToListener, ToPods
from userproxy.planner import topology

if TYPE_CHECKING:
    from userproxy.model.endpoint import Endpoint

_TO_POD_REMEDY = f"annotate the Service with userproxy.dev/path: {Path.REDIRECT_TO_POD}"


class Place(msgspec.Struct, frozen=True):
    """Where this daemon serves, and how.

    Attributes:
        node: that it runs on.
        host_ip: of its listeners.
        mode: the path of Services that do not choose one.
        ports: the range of its host ports.
    """

    node: Node
    host_ip: str
    mode: Path
    ports: range


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


def path_of(service: ServicePort, mode: Path) -> Path:
    """How its bytes travel: as its author chose, else as this daemon's mode has it."""
    return service.path or mode


def needs_host_port(service: ServicePort, place: Place) -> bool:
    """Whether it is served by a listener of ours."""
    return (
        path_of(service, place.mode) is Path.REDIRECT_TO_HOST
        and service.protocol is Protocol.TCP
        and not all(frontend.is_ipv6 for frontend in service.frontends)
    )


def outcome_of(
    service: ServicePort, endpoints: tuple[Endpoint, ...], port: int | None, place: Place
) -> Outcome:
    """Make the outcome of one Service port.

    Args:
        service: as its author wants it served.
        endpoints: all of its endpoints.
        port: its host port; None if it needs none, or if none is left.
        place: where it is served.
    """
    problems = [_ipv6_problem(service.name, lost) for lost in service.frontends if lost.is_ipv6]
    if path_of(service, place.mode) is Path.REDIRECT_TO_HOST and service.protocol is not Protocol.TCP:
        problems.append(_protocol_problem(service))
        return Outcome(service.name, problems=tuple(problems))
    frontends = tuple(frontend for frontend in service.frontends if not frontend.is_ipv6)
    keys = [Frontend(service.protocol, frontend) for frontend in frontends]
    if port is None and needs_host_port(service, place):
        problems.append(_exhausted_problem(service.name, place.ports))
        return Outcome(service.name, None, dict.fromkeys(keys, Refuse()), tuple(problems))
    same_family = [endpoint for endpoint in endpoints if not endpoint.address.is_ipv6]
    choice = topology.select(service, same_family, place.node)
    if port is None:
        outcome = _carried(service, keys, same_family, choice)
    else:
        outcome = _relayed(service, keys, same_family, choice, Address(place.host_ip, port))
    return msgspec.structs.replace(outcome, problems=tuple(problems))


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


def _relayed(
    service: ServicePort,
    keys: list[Frontend],
    endpoints: list[Endpoint],
    choice: topology.Choice,
    listener: Address,
) -> Outcome:
    """Its packets go to a listener of ours."""
    serve = Serve(
        service=service.name,
        listener=listener,
        frontends=tuple(key.address for key in keys),
        backends=choice.backends,
        far=choice.far,
        leaving=_leaving(service, endpoints, choice),
        settings=service.settings,
    )
    return Outcome(
        name=service.name,
        serve=serve,
        captures=dict.fromkeys(keys, _target(choice, ToListener(listener))),
        guard=Frontend(service.protocol, listener),
    )


def _carried(
    service: ServicePort, keys: list[Frontend], endpoints: list[Endpoint], choice: topology.Choice
) -> Outcome:
    """Its packets go to the pods."""
    pods = tuple(backend.address for backend in choice.backends)
    flows: dict[Frontend, tuple[Address, ...]] = {}
    checked = None
    if service.protocol is Protocol.UDP:
        # Not with those that are drained by hand: UDP clients have no end that one could wait for.
        serving = (each.address for each in endpoints if each.serving and not each.drained)
        flows = dict.fromkeys(keys, tuple(dict.fromkeys((*pods, *serving))))
    elif service.settings.check.kind is not HealthCheck.OFF:
        checked = Pool(
            service=service.name,
            frontends=tuple(key.address for key in keys),
            backends=choice.backends,
            far=choice.far,
            settings=service.settings,
        )
    return Outcome(
        name=service.name,
        captures=dict.fromkeys(keys, _target(choice, ToPods(pods))),
        flows=flows,
        checked=checked,
    )


def _leaving(service: ServicePort, endpoints: list[Endpoint], choice: topology.Choice) -> tuple[Address, ...]:
    if service.settings.close_on_removal is None:
        return ()
    picked = {backend.address for backend in (*choice.backends, *choice.far)}
    return tuple(endpoint.address for endpoint in endpoints if endpoint.address not in picked)


def _target(choice: topology.Choice, target: Target) -> Target:
    """The target, if there is anybody to take the traffic."""
    if choice.drop:
        return Drop()
    return target if choice.backends else Refuse()


def _protocol_problem(service: ServicePort) -> Problem:
    message = f"{Path.REDIRECT_TO_HOST} does not carry {service.protocol}: {_TO_POD_REMEDY}, which does"
    return Problem(str(service.name), "ProtocolNotSupported", message)


def _ipv6_problem(name: ServicePortName, frontend: Address) -> Problem:
    message = f"{frontend} is not served, only IPv4 is: give the Service an IPv4 cluster IP (ipFamilies)"
    return Problem(str(name), "AddressFamilyNotSupported", message)


def _exhausted_problem(name: ServicePortName, ports: range) -> Problem:
    message = (
        f"refused, as no host port is left in {ports.start}-{ports.stop - 1}: "
        f"widen --port-range, or {_TO_POD_REMEDY}, which needs none"
    )
    return Problem(str(name), "PortRangeExhausted", message)


def _conflict_problem(name: ServicePortName, key: Frontend, owner: ServicePortName) -> Problem:
    message = f"{key.address}/{key.protocol} belongs to {owner}: give one of the two another address or port"
    return Problem(str(name), "PortConflict", message)
