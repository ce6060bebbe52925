"""Redirect to pod: netfilter sends the packets straight to a pod."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userproxy.model.service import Protocol, ServicePort
from userproxy.model.settings import HealthCheck
from userproxy.model.state import Pool, ToPods
from userproxy.planner import topology
from userproxy.planner.outcome import Outcome, Traffic, target_of, unserved_addresses

if TYPE_CHECKING:
    from userproxy.model.address import Address


def needs_host_port(_service: ServicePort) -> bool:
    """Whether a Service port is served by a listener of ours."""
    return False


def outcome_of(traffic: Traffic) -> Outcome:
    """What a Service port comes to: captures that lead to its pods, which are checked."""
    service, frontends = traffic.service, traffic.frontends
    problems = unserved_addresses(service)
    if not frontends:
        return Outcome(service.name, problems=problems)
    choice = topology.select(service, traffic.same_family, traffic.context.node)
    pods = tuple(backend.address for backend in choice.backends)
    is_udp = service.protocol is Protocol.UDP
    return Outcome(
        name=service.name,
        captures=dict.fromkeys(frontends, target_of(choice, ToPods(pods))),
        problems=problems,
        flows=dict.fromkeys(frontends, _reachable(traffic, pods)) if is_udp else {},
        checked=None if is_udp else _checked(traffic, choice),
    )


def _reachable(traffic: Traffic, pods: tuple[Address, ...]) -> tuple[Address, ...]:
    """Where UDP flows may lead; not to drained pods, as a UDP client has no end that one could wait for."""
    serving = (each.address for each in traffic.same_family if each.serving and not each.drained)
    return tuple(dict.fromkeys((*pods, *serving)))


def _checked(traffic: Traffic, choice: topology.Choice) -> Pool | None:
    service = traffic.service
    if service.settings.check.kind is HealthCheck.OFF:
        return None
    return Pool(
        service=service.name,
        frontends=tuple(frontend.address for frontend in traffic.frontends),
        backends=choice.backends,
        far=choice.far,
        settings=service.settings,
    )
