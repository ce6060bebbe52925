"""Services of every kind, as a large cluster has them. Pure.

| share | what it is | answers at |
|---|---|---|
| 3 of 10 | a cluster IP alone | it |
| 1 | the same, with `internalTrafficPolicy: Local` | it |
| 1 | the same, with `sessionAffinity: ClientIP` | it |
| 1 | with a node port | that too |
| 1 | with an external IP | that too |
| 1 | of a load balancer with two IPs | those too |
| 1 | likewise, with one, and `externalTrafficPolicy: Local`: so with a `healthCheckNodePort` | that too |
| 1 | likewise, with one, and `loadBalancerSourceRanges` | that too |
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import msgspec

from userproxy.bench.services import fillers, newcomer

if TYPE_CHECKING:
    from collections.abc import Callable

    from userproxy.bench.services import Service
    from userproxy.lab.objects import ServiceSpec

MAX_SERVICES = 10_000
"""More have no room for their node ports."""

_NODE_PORTS_FROM = 30_000
_HEALTH_PORTS_FROM = 31_000
_PUBLIC_FROM = int(ipaddress.IPv4Address("198.18.0.1"))
_A_SERVICE = 2  # public IPs
_BALANCED: ServiceSpec = {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": False}


def mixture(count: int) -> list[Service]:
    """`count` Services, the kinds taking turns.

    Raises:
        ValueError: there are not that many addresses, or node ports.
    """
    if count > MAX_SERVICES:
        raise ValueError(f"{count} Services do not fit: at most {MAX_SERVICES}")
    made = enumerate(fillers(count))
    return [_KINDS[number % len(_KINDS)](service, number) for number, service in made]


def public_newcomer(number: int) -> Service:
    """A Service with an external IP that is added while the others are there."""
    return _with_external_ip(newcomer(number), MAX_SERVICES + number)


def _plain(service: Service, _number: int) -> Service:
    return service


def _internally_local(service: Service, _number: int) -> Service:
    return msgspec.structs.replace(service, spec={"internalTrafficPolicy": "Local"})


def _sticky(service: Service, _number: int) -> Service:
    return msgspec.structs.replace(service, spec={"sessionAffinity": "ClientIP"})


def _with_node_port(service: Service, number: int) -> Service:
    node_port = _NODE_PORTS_FROM + number // len(_KINDS)
    return msgspec.structs.replace(service, spec={"type": "NodePort"}, node_port=node_port)


def _with_external_ip(service: Service, number: int) -> Service:
    return msgspec.structs.replace(service, spec={"externalIPs": _public(number, 1)})


def _balanced(service: Service, number: int) -> Service:
    return msgspec.structs.replace(service, spec=_BALANCED, ingress=_public(number, 2))


def _externally_local(service: Service, number: int) -> Service:
    health_port = _HEALTH_PORTS_FROM + number // len(_KINDS)
    spec: ServiceSpec = {
        **_BALANCED,
        "externalTrafficPolicy": "Local",
        "healthCheckNodePort": health_port,
    }
    return msgspec.structs.replace(service, spec=spec, ingress=_public(number, 1))


def _ranged(service: Service, number: int) -> Service:
    spec: ServiceSpec = {**_BALANCED, "loadBalancerSourceRanges": ["10.0.0.0/8", "192.168.0.0/16"]}
    return msgspec.structs.replace(service, spec=spec, ingress=_public(number, 1))


def _public(number: int, count: int) -> tuple[str, ...]:
    first = _PUBLIC_FROM + number * _A_SERVICE
    return tuple(str(ipaddress.IPv4Address(first + index)) for index in range(count))


_KINDS: tuple[Callable[[Service, int], Service], ...] = (
    _plain,
    _plain,
    _plain,
    _internally_local,
    _sticky,
    _with_node_port,
    _with_external_ip,
    _balanced,
    _externally_local,
    _ranged,
)
