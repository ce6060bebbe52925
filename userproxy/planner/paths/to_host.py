"""Redirect to host: netfilter sends the packets to a listener of ours, and a worker relays them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userproxy.model.address import Address
from userproxy.model.service import Path, PoolName, Protocol
from userproxy.model.snapshot import Problem
from userproxy.model.state import Frontend, Refuse, Serve, Target, ToListener
from userproxy.planner import topology
from userproxy.planner.entries import frontends_of, policies_of
from userproxy.planner.outcome import (
    Outcome,
    cluster_ips_of,
    exhausted_problem,
    holds_clients,
    ranges_of,
    target_of,
    unserved_addresses,
)

if TYPE_CHECKING:
    from userproxy.model.service import ServicePort
    from userproxy.planner.context import PlanContext
    from userproxy.planner.entries import EntryFrontend
    from userproxy.planner.outcome import Traffic

_REMEDY = f"annotate the Service with userproxy.dev/path: {Path.REDIRECT_TO_POD}"


def listeners_of(service: ServicePort, context: PlanContext) -> tuple[PoolName, ...]:
    """The pools of a Service port that need a listener of ours: one for each policy that holds."""
    if service.protocol is not Protocol.TCP:
        return ()
    policies = policies_of(frontends_of(service, context))
    return tuple(PoolName.of(service.name, policy) for policy in policies)


def outcome_of(traffic: Traffic) -> Outcome:
    """What a Service port comes to: listeners, and captures that lead there."""
    service = traffic.service
    problems = unserved_addresses(service)
    if service.protocol is not Protocol.TCP:
        return Outcome(service.name, problems=(*problems, _protocol_problem(service)))
    entries = traffic.entries
    relayed = relay(traffic, entries)
    if len(relayed.serves) < len(policies_of(entries)):
        remedy = f", or {_REMEDY}, which needs none"
        problems = (*problems, exhausted_problem(service.name, traffic.context.ports, remedy))
    return Outcome(
        name=service.name,
        serves=relayed.serves,
        captures=relayed.captures,
        pools=relayed.pools,
        problems=problems,
        guards=relayed.guards,
        cluster_ips=cluster_ips_of(service),
        ranges=ranges_of(traffic, entries),
    )


def relay(traffic: Traffic, entries: list[EntryFrontend]) -> Outcome:
    """Listeners and captures for some entries of a Service port.

    A pool without a host port is refused, and so is one without backends whose clients are not held.
    """
    service, context = traffic.service, traffic.context
    serves: dict[PoolName, Serve] = {}
    targets: dict[PoolName, Target] = {}
    for policy in policies_of(entries):
        name = PoolName.of(service.name, policy)
        port = traffic.ports.get(name)
        if port is None:
            targets[name] = Refuse()
            continue
        choice = topology.select(service, traffic.same_family, context.node, policy)
        listener = Address(context.network.host_ip, port)
        target = ToListener(listener)
        targets[name] = target_of(choice, target, otherwise=target if holds_clients(service) else None)
        serves[name] = Serve(
            service=service.name,
            policy=policy,
            listener=listener,
            backends=choice.backends,
            far=choice.far,
            leaving=_leaving(traffic, choice),
            settings=service.settings,
            affinity=service.affinity,
        )
    pools = {entry.frontend: PoolName.of(service.name, entry.policy) for entry in entries}
    return Outcome(
        name=service.name,
        serves=serves,
        captures={frontend: targets[pool] for frontend, pool in pools.items()},
        pools=pools,
        guards=tuple(Frontend(service.protocol, serve.listener) for serve in serves.values()),
    )


def _leaving(traffic: Traffic, choice: topology.Choice) -> tuple[Address, ...]:
    if traffic.service.settings.close_on_removal is None:
        return ()
    picked = {backend.address for backend in (*choice.backends, *choice.far)}
    return tuple(endpoint.address for endpoint in traffic.same_family if endpoint.address not in picked)


def _protocol_problem(service: ServicePort) -> Problem:
    message = f"{Path.REDIRECT_TO_HOST} does not carry {service.protocol}: {_REMEDY}, which does"
    return Problem(str(service.name), "ProtocolNotSupported", message)
