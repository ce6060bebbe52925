"""Redirect to host: netfilter sends the packets to a listener of ours, and a worker relays them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userproxy.model.address import Address
from userproxy.model.service import Path, Protocol, ServicePort
from userproxy.model.snapshot import Problem
from userproxy.model.state import Frontend, Refuse, Serve, ToListener
from userproxy.planner import topology
from userproxy.planner.outcome import Outcome, Traffic, target_of, unserved_addresses

if TYPE_CHECKING:
    from userproxy.model.service import ServicePortName

_REMEDY = f"annotate the Service with userproxy.dev/path: {Path.REDIRECT_TO_POD}"


def needs_host_port(service: ServicePort) -> bool:
    """Whether a Service port is served by a listener of ours."""
    return service.protocol is Protocol.TCP and not all(address.is_ipv6 for address in service.frontends)


def outcome_of(traffic: Traffic) -> Outcome:
    """What a Service port comes to: a listener, and captures that lead there."""
    service, context = traffic.service, traffic.context
    problems = unserved_addresses(service)
    if service.protocol is not Protocol.TCP:
        return Outcome(service.name, problems=(*problems, _protocol_problem(service)))
    frontends = traffic.frontends
    if not frontends:
        return Outcome(service.name, problems=problems)
    if traffic.port is None:
        exhausted = _exhausted_problem(service.name, context.ports)
        return Outcome(
            service.name, captures=dict.fromkeys(frontends, Refuse()), problems=(*problems, exhausted)
        )
    choice = topology.select(service, traffic.same_family, context.node)
    listener = Address(context.host_ip, traffic.port)
    serve = Serve(
        service=service.name,
        listener=listener,
        frontends=tuple(frontend.address for frontend in frontends),
        backends=choice.backends,
        far=choice.far,
        leaving=_leaving(traffic, choice),
        settings=service.settings,
    )
    return Outcome(
        name=service.name,
        serve=serve,
        captures=dict.fromkeys(frontends, target_of(choice, ToListener(listener))),
        problems=problems,
        guard=Frontend(service.protocol, listener),
    )


def _leaving(traffic: Traffic, choice: topology.Choice) -> tuple[Address, ...]:
    if traffic.service.settings.close_on_removal is None:
        return ()
    picked = {backend.address for backend in (*choice.backends, *choice.far)}
    return tuple(endpoint.address for endpoint in traffic.same_family if endpoint.address not in picked)


def _protocol_problem(service: ServicePort) -> Problem:
    message = f"{Path.REDIRECT_TO_HOST} does not carry {service.protocol}: {_REMEDY}, which does"
    return Problem(str(service.name), "ProtocolNotSupported", message)


def _exhausted_problem(name: ServicePortName, ports: range) -> Problem:
    message = (
        f"refused, as no host port is left in {ports.start}-{ports.stop - 1}: "
        f"widen --port-range, or {_REMEDY}, which needs none"
    )
    return Problem(str(name), "PortRangeExhausted", message)
