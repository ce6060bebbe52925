"""Redirect to pod: netfilter sends the packets straight to a pod.

But for those that a listener of ours has to relay: node ports on 127.0.0.1 and ::1, as the kernel lets no
packet with a loopback address leave the node; and, for as long as there are no endpoints, all of a Service
that has its clients wait for some.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from userproxy.model.service import EntryKind, Protocol, TrafficPolicy
from userproxy.model.settings import HealthCheck
from userproxy.model.state import Pool, Target, ToPods
from userproxy.planner.entries import frontends_of, pools_of
from userproxy.planner.outcome import (
    Outcome,
    cluster_ips_of,
    exhausted_problem,
    holds_clients,
    ranges_of,
    target_of,
    unlimited_problem,
    unserved_addresses,
)
from userproxy.planner.paths.to_host import relay

if TYPE_CHECKING:
    from userproxy.model.address import Address
    from userproxy.model.service import PoolName, ServicePort
    from userproxy.model.state import Frontend
    from userproxy.planner.context import PlanContext
    from userproxy.planner.entries import EntryFrontend
    from userproxy.planner.outcome import Traffic
    from userproxy.planner.topology import Choice


def listeners_of(service: ServicePort, context: PlanContext) -> tuple[PoolName, ...]:
    """The pools of a Service port that need a listener of ours."""
    return pools_of(service.name, _relayed(service, frontends_of(service, context)))


def outcome_of(traffic: Traffic) -> Outcome:
    """What a Service port comes to: captures that lead to its pods, which are checked."""
    outcome, settings = carried(traffic), traffic.service.settings
    limits = settings.max_connections, settings.max_connections_per_client
    if traffic.context.limits or limits == (None, None) or not traffic.entries:
        return outcome
    problems = *outcome.problems, unlimited_problem(traffic.service.name)
    return msgspec.structs.replace(outcome, problems=problems)


def carried(traffic: Traffic) -> Outcome:
    """The same, without what it says of limits that the kernel cannot keep, and somebody else may."""
    service = traffic.service
    entries = traffic.entries
    if not entries:
        return Outcome(service.name, problems=unserved_addresses(service, traffic.context))
    problems = unserved_addresses(service, traffic.context)
    to_relay = _relayed(service, entries)
    relayed = relay(traffic, to_relay)
    if len(relayed.serves) < len(pools_of(service.name, to_relay)):
        problems = (*problems, exhausted_problem(service.name, traffic.context.ports))
    direct = [entry for entry in entries if not entry.is_loopback]
    choices = {pool: traffic.choice(pool) for pool in pools_of(service.name, direct)}
    pools = {entry.frontend: entry.pool_of(service.name) for entry in direct}
    captures: dict[Frontend, Target] = {}
    for entry in direct:
        choice, key = choices[pools[entry.frontend]], entry.frontend
        captures[key] = target_of(
            choice, _to_pods(traffic, entry, choice), otherwise=relayed.captures.get(key)
        )
    is_udp = service.protocol is Protocol.UDP
    return Outcome(
        name=service.name,
        serves=relayed.serves,
        captures=relayed.captures | captures,
        pools=relayed.pools | pools,
        problems=problems,
        guards=relayed.guards,
        flows={key: _reachable(traffic, pool, choices[pool]) for key, pool in pools.items()} | relayed.flows
        if is_udp
        else {},
        checked={} if is_udp else _checked(service, choices),
        cluster_ips=cluster_ips_of(service, traffic.context),
        ranges=ranges_of(traffic, entries),
        pods=traffic.pods,
    )


def _relayed(service: ServicePort, entries: list[EntryFrontend]) -> list[EntryFrontend]:
    """The entries that a listener of ours has to serve, always or while there are no endpoints."""
    if holds_clients(service):
        return entries
    return [entry for entry in entries if entry.is_loopback]


def _to_pods(traffic: Traffic, entry: EntryFrontend, choice: Choice) -> ToPods:
    """Straight to the pods.

    The client's address is kept wherever an answer finds its way back: a pod elsewhere would answer a client
    that is not on this node past it, so that such packets get the node's address, but for those under the
    policy `Local`, which go to pods on this node.

    Limits go with each of its addresses, also on the path steered: there they hold while nobody chooses.
    """
    settings, limited = traffic.service.settings, traffic.context.limits
    from_outside = entry.kind is not EntryKind.CLUSTER_IP or not traffic.context.closed
    return ToPods(
        pods=tuple(backend.address for backend in choice.backends),
        masquerade=from_outside and entry.policy is TrafficPolicy.CLUSTER,
        affinity=traffic.service.affinity,
        most=settings.max_connections if limited else None,
        most_per_client=settings.max_connections_per_client if limited else None,
    )


def _reachable(traffic: Traffic, pool: PoolName, choice: Choice) -> tuple[Address, ...]:
    """Where UDP flows may lead; not to drained pods, as a UDP client has no end that one could wait for."""
    pods = (backend.address for backend in choice.backends)
    endpoints = traffic.of_family(pool.family)
    serving = (each.address for each in endpoints if each.serving and not each.drained)
    return tuple(dict.fromkeys((*pods, *serving)))


def _checked(service: ServicePort, choices: dict[PoolName, Choice]) -> dict[PoolName, Pool]:
    if service.settings.check.kind is HealthCheck.OFF:
        return {}
    pools = (
        Pool(
            service=service.name,
            policy=pool.policy,
            family=pool.family,
            backends=choice.backends,
            far=choice.far,
            settings=service.settings,
        )
        for pool, choice in choices.items()
    )
    return {each.name: each for each in pools}
