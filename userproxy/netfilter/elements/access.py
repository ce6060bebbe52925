"""Who may reach what, as elements and back: guards, cluster IPs, ranges and the perimeter."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from userproxy.model.heartbeat import MARK_BITS
from userproxy.model.state import Frontend, Perimeter
from userproxy.netfilter.elements.element import Element
from userproxy.netfilter.elements.packing import NUMBERS, PACKINGS, packing_of
from userproxy.netfilter.ruleset.made import Relay, parse
from userproxy.netfilter.ruleset.sets import (
    CLOSED,
    FAMILIES,
    OUTSIDE_RELAY,
    PROTOCOLS,
    RELAY,
    STEER,
    UPLINKS,
)
from userproxy.netfilter.ruleset.steering import Queue

if TYPE_CHECKING:
    from collections.abc import Iterable

_NAME_BYTES = UPLINKS.key[0].size


def constant_elements() -> list[Element]:
    """The elements of the one constant set: the protocols that have ports and are proxied."""
    return [Element(PROTOCOLS.name, bytes([number])) for number in sorted(NUMBERS.values())]


def guard_element(listener: Frontend) -> Element:
    """That nobody reaches the listener but through a Service."""
    packing = packing_of(listener.address.ip)
    return Element(packing.family.guarded.name, packing.frontend(listener))


def cluster_ip_element(ip: str) -> Element:
    """That all ports of a cluster IP are ours."""
    packing = packing_of(ip)
    return Element(packing.family.cluster_ips.name, packing.ip(ip))


def pod_element(ip: str) -> Element:
    """That a pod's segments are dropped if conntrack calls them invalid, and that it may reach itself."""
    packing = packing_of(ip)
    return Element(packing.family.hairpins.name, packing.ip(ip) * 2)


def range_elements(frontend: Frontend, networks: tuple[str, ...]) -> list[Element]:
    """That only clients from these networks reach the frontend, from outside or not; none: anybody.

    Networks of the other family have none of the clients that there are.

    Raises:
        ValueError: a network that is none.
    """
    if not networks:
        return []
    packing = packing_of(frontend.address.ip)
    family, key = packing.family, packing.frontend(frontend)
    elements = [Element(side.checked.name, key) for side in (family.anywhere, family.outside)]
    elements.append(Element(family.ranged.name, key))
    nobody = b"\xff" * family.address.size  # no client has the last address: what is told is what is read
    for first, last in packing.networks(networks) or [(nobody, nobody)]:
        elements.append(Element(family.ranges.name, key + first, last=key + last))
    return elements


def perimeter_elements(perimeter: Perimeter) -> list[Element]:
    """Where the outside begins. Networks of a family that cannot be captured are left out.

    Raises:
        ValueError: a network that is none, or an uplink that no interface can be called.
    """
    elements = [Element(UPLINKS.name, _pack_name(name)) for name in perimeter.uplinks]
    for packing in PACKINGS:
        family = packing.family
        networks = packing.networks(perimeter.inside)
        elements += [Element(family.inside.name, first, last=last) for first, last in networks]
        if perimeter.closed:
            elements.append(Element(CLOSED.name, bytes([family.number])))
    return elements


def relay_elements(workers: int) -> list[Element]:
    """That new connections go to listeners as these are alive; without any, that none does."""
    return [
        Element(relay.name, bytes([family.number]), chain=Relay(workers, outside).name)
        for outside, relay in ((False, RELAY), (True, OUTSIDE_RELAY))
        for family in FAMILIES
        if workers
    ]


def workers_of(elements: Iterable[Element]) -> int:
    """How many workers there are by a table's elements."""
    chains = (parse(element.chain) for element in elements if element.set == RELAY.name)
    return max((chain.workers for chain in chains if isinstance(chain, Relay)), default=0)


def steer_elements(queues: int) -> list[Element]:
    """That packets wait in so many queues for whoever is asked; without any, that none waits."""
    return [
        Element(STEER.name, bytes([family.number]), chain=Queue(queues).name) for family in FAMILIES if queues
    ]


def queues_of(elements: Iterable[Element]) -> int:
    """In how many queues packets wait by a table's elements."""
    chains = (parse(element.chain) for element in elements if element.set == STEER.name)
    return max((chain.size for chain in chains if isinstance(chain, Queue)), default=0)


def guards_of(elements: Iterable[Element]) -> set[Frontend]:
    """The listeners that a table's elements guard."""
    sets = {packing.family.guarded.name: packing for packing in PACKINGS}
    return {
        sets[element.set].unpack_frontend(element.key)
        for element in elements
        if element.set in sets and sets[element.set].is_frontend(element.key)
    }


def cluster_ips_of(elements: Iterable[Element]) -> set[str]:
    """The cluster IPs of which all ports are ours."""
    sets = {packing.family.cluster_ips.name: packing for packing in PACKINGS}
    return {sets[element.set].unpack_ip(element.key) for element in elements if element.set in sets}


def pods_of(elements: Iterable[Element]) -> set[str]:
    """The pods that are sent connections, or may have been."""
    sets = {packing.family.hairpins.name: packing for packing in PACKINGS}
    return {
        sets[element.set].unpack_ip(element.key[: sets[element.set].family.address.size])
        for element in elements
        if element.set in sets
    }


def ranges_of(elements: Iterable[Element]) -> dict[Frontend, tuple[str, ...]]:
    """The networks whose clients alone may reach a frontend, in order; what makes no sense is left out."""
    sets = {packing.family.ranges.name: packing for packing in PACKINGS}
    found: dict[Frontend, list[str]] = {}
    for element in sorted(elements):
        packing = sets.get(element.set)
        if packing is not None and packing.is_frontend(element.key):
            size = packing.frontend_size
            networks = packing.unpack_networks(element.key[size:], element.last[size:])
            found.setdefault(packing.unpack_frontend(element.key), []).extend(networks)
    return {frontend: tuple(networks) for frontend, networks in found.items()}


def perimeter_of(elements: Iterable[Element]) -> Perimeter:
    """Where the outside begins."""
    sets = {packing.family.inside.name: packing for packing in PACKINGS}
    uplinks, inside, closed = [], [], False
    for element in elements:
        if element.set == UPLINKS.name:
            uplinks.append(element.key.rstrip(b"\0").decode(errors="replace"))
        elif element.set in sets and element.last:
            inside += sets[element.set].unpack_networks(element.key, element.last)
        closed |= element.set == CLOSED.name
    return Perimeter(uplinks=tuple(sorted(uplinks)), inside=tuple(sorted(inside)), closed=closed)


def used_by(elements: Iterable[Element]) -> set[Frontend]:
    """The frontends that the kernel has noted."""
    return {
        packing.unpack_frontend(element.key, outside=outside)
        for element in elements
        for packing, outside in (_USED[element.set],)
        if packing.is_frontend(element.key)
    }


def alive_among(elements: Iterable[Element]) -> frozenset[int]:
    """The places of the workers that the kernel has noted as alive."""
    marks = (int.from_bytes(element.key, sys.byteorder) for element in elements)
    return frozenset(mark & ~MARK_BITS for mark in marks)


_USED = {
    packing.family.side(outside=outside).used.name: (packing, outside)
    for packing in PACKINGS
    for outside in (False, True)
}
ACCESS_SETS = {
    UPLINKS.name,
    CLOSED.name,
    RELAY.name,
    OUTSIDE_RELAY.name,
    STEER.name,
    *(
        spec.name
        for packing in PACKINGS
        for family in (packing.family,)
        for spec in (family.guarded, family.cluster_ips, family.inside, family.ranges, family.hairpins)
    ),
}
"""The names of the sets that say who may reach what."""
USED = tuple(_USED)
"""The names of the sets that `used_by` reads."""


def _pack_name(name: str) -> bytes:
    packed = name.encode()
    if not 0 < len(packed) < _NAME_BYTES:
        raise ValueError(f"{name!r} is no name of an interface: those have 1 to {_NAME_BYTES - 1} bytes")
    return packed.ljust(_NAME_BYTES, b"\0")
