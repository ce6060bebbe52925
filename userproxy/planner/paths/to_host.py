"""Redirect to host: netfilter sends the packets to a listener of ours, and a worker relays them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from userproxy.model.address import Address
from userproxy.model.service import Path, Protocol
from userproxy.model.settings import HealthCheck
from userproxy.model.state import Frontend, Refuse, Serve, Target, ToListener, ToPods
from userproxy.planner.entries import frontends_of, pools_of
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
    from userproxy.model.service import PoolName, ServicePort
    from userproxy.model.settings import Settings
    from userproxy.planner.context import PlanContext
    from userproxy.planner.entries import EntryFrontend
    from userproxy.planner.outcome import Traffic
    from userproxy.planner.topology import Choice

_DNS_PORT, _DNS_NAME = 53, "dns"

_REMEDY = f"annotate the Service with userproxy.dev/path: {Path.REDIRECT_TO_POD}"


def listeners_of(service: ServicePort, context: PlanContext) -> tuple[PoolName, ...]:
    """The pools of a Service port that need a listener of ours: all of them."""
    return pools_of(service.name, frontends_of(service, context))


def outcome_of(traffic: Traffic) -> Outcome:
    """What a Service port comes to: listeners, and captures that lead there."""
    service = traffic.service
    problems = unserved_addresses(service, traffic.context)
    entries = traffic.entries
    relayed = relay(traffic, entries)
    if len(relayed.serves) < len(pools_of(service.name, entries)):
        remedy = f", or {_REMEDY}, which needs none"
        problems = (*problems, exhausted_problem(service.name, traffic.context.ports, remedy))
    return Outcome(
        name=service.name,
        serves=relayed.serves,
        captures=relayed.captures,
        pools=relayed.pools,
        problems=problems,
        guards=relayed.guards,
        flows=relayed.flows,
        cluster_ips=cluster_ips_of(service, traffic.context),
        ranges=ranges_of(traffic, entries),
    )


def relay(traffic: Traffic, entries: list[EntryFrontend]) -> Outcome:
    """Listeners and captures for some entries of a Service port.

    A pool without a host port is refused, and so is one without backends whose clients are not held.
    """
    service, context = traffic.service, traffic.context
    serves: dict[PoolName, Serve] = {}
    targets: dict[PoolName, tuple[Target, Target]] = {}
    for name in pools_of(service.name, entries):
        port = traffic.ports.get(name)
        if port is None:
            targets[name] = Refuse(), Refuse()
            continue
        choice = traffic.choice(name)
        listener = Address(context.network.host_ip(name.family), port)
        alone = ToListener(listener)
        otherwise = alone if holds_clients(service) else None
        targets[name] = (
            target_of(choice, ToListener(listener, _behind(traffic, choice)), otherwise),
            target_of(choice, alone, otherwise),
        )
        serves[name] = _serve(traffic, name, choice, listener)
    pools = {entry.frontend: entry.pool_of(service.name) for entry in entries}
    captures = {
        entry.frontend: targets[pools[entry.frontend]][entry.is_loopback]  # those lead no further than here
        for entry in entries
    }
    return Outcome(
        name=service.name,
        serves=serves,
        captures=captures,
        pools=pools,
        flows={key: _led_to(target) for key, target in captures.items() if key.protocol is Protocol.UDP},
        guards=tuple(Frontend(service.protocol, serve.listener) for serve in serves.values()),
    )


def _behind(traffic: Traffic, choice: Choice) -> ToPods | None:
    """The pods that clients are sent to while no worker accepts them."""
    service = traffic.service
    falls_open = service.settings.fall_open
    if falls_open is None:
        falls_open = traffic.context.fall_open and not _needs_relay(service)
    if not falls_open or not choice.backends:
        return None
    return ToPods(tuple(each.address for each in choice.backends), masquerade=True, affinity=service.affinity)


def _needs_relay(service: ServicePort) -> bool:
    """Whether pods expect to hear of their client what only the relay says."""
    return service.protocol is Protocol.TCP and service.settings.needs_relay


def _serve(traffic: Traffic, pool: PoolName, choice: Choice, listener: Address) -> Serve:
    service = traffic.service
    is_udp = service.protocol is Protocol.UDP
    idle = traffic.context.udp_idle if service.settings.udp_idle is None else service.settings.udp_idle
    return Serve(
        service=service.name,
        policy=pool.policy,
        family=pool.family,
        listener=listener,
        backends=choice.backends,
        far=choice.far,
        leaving=leaving(traffic, pool, choice),
        settings=unchecked(service.settings) if is_udp else service.settings,
        affinity=service.affinity,
        protocol=service.protocol,
        idle=idle,
        short=is_udp and _is_dns(service),
    )


def unchecked(settings: Settings) -> Settings:
    """Without active checks: nobody knows what a UDP pod would answer to."""
    return msgspec.structs.replace(
        settings, check=msgspec.structs.replace(settings.check, kind=HealthCheck.OFF)
    )


def _is_dns(service: ServicePort) -> bool:
    """Whether each datagram is a question, and has one answer."""
    by_number = any(address.port == _DNS_PORT for address in service.cluster_ips)
    return by_number or _DNS_NAME in service.name.port.split("-")


def leaving(traffic: Traffic, pool: PoolName, choice: Choice) -> tuple[Address, ...]:
    """Pods that connections may stay with. A UDP client may while its pod serves, unless that is drained."""
    is_udp = traffic.service.protocol is Protocol.UDP
    if traffic.service.settings.close_on_removal is None and not is_udp:
        return ()
    picked = {backend.address for backend in (*choice.backends, *choice.far)}
    return tuple(
        endpoint.address
        for endpoint in traffic.of_family(pool.family)
        if endpoint.address not in picked and (not is_udp or (endpoint.serving and not endpoint.drained))
    )


def _led_to(target: Target) -> tuple[Address, ...]:
    """Where UDP flows may lead: to the listener, if anybody is behind it; else the kernel refuses them."""
    return (target.listener,) if isinstance(target, ToListener) else ()
