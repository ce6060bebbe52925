"""Captures as elements, and back."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from userproxy.model.state import Drop, Frontend, Refuse, Target, ToListener, ToPods
from userproxy.netfilter.elements.element import Element
from userproxy.netfilter.elements.packing import INDEX, PACKINGS, Packing, packing_of
from userproxy.netfilter.ruleset.made import Limit, Pick, Pin, parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from userproxy.model.address import Address


def elements_of(frontend: Frontend, target: Target | None) -> list[Element]:
    """The elements that make the kernel send a frontend's packets to its target.

    Raises:
        ValueError: an address that cannot be captured, or no pods.
    """
    if target is None:
        return []
    packing = packing_of(frontend.address.ip)
    key = packing.frontend(frontend)
    elements = [Element(packing.family.own.name, key)] if frontend.outside else []
    side = packing.family.side(outside=frontend.outside)
    match target:
        case ToListener(listener, behind, steered):
            elements.append(Element(side.listeners.name, key, packing.address(listener)))
            if steered:
                elements += _asking_elements(packing, key, frontend)
            if behind is not None:
                elements.append(Element(side.fallback.name, key))
                elements += _pod_elements(packing, key, frontend, behind)
        case ToPods():
            elements += _pod_elements(packing, key, frontend, target)
            elements += _own_address_elements(packing, key, frontend, target)
        case Refuse():
            elements += [Element(side.checked.name, key), Element(side.refused.name, key)]
        case Drop():
            elements += [Element(side.checked.name, key), Element(side.dropped.name, key)]
    return elements


def _pod_elements(packing: Packing, key: bytes, frontend: Frontend, target: ToPods) -> list[Element]:
    if not target.pods:
        raise ValueError(f"{frontend.address} has no pods to go to; refuse it instead")
    side = packing.family.side(outside=frontend.outside)
    seconds = math.ceil(target.affinity or 0)
    pick = Pick(len(target.pods), bool(seconds), frontend.outside)
    addresses = [packing.address(pod) for pod in target.pods]
    others = [packing.address(pod) for pod in target.others]
    elements = [Element(side.sizes.name, key, chain=pick.name)]
    pods = side.pods.name
    elements += [
        Element(pods, key + INDEX.pack(index), pod) for index, pod in enumerate((*addresses, *others))
    ]
    if target.steered:
        elements += _asking_elements(packing, key, frontend)
    if target.most or target.most_per_client:
        limit = Limit(target.most or 0, target.most_per_client or 0, target.steered)
        elements += [Element(side.limits.name, key, chain=limit.name), Element(side.checked.name, key)]
    if seconds:
        pin, members = Pin(seconds, frontend.outside).name, side.members.name
        elements += [Element(members, key + pod, chain=pin) for pod in addresses]
    return elements


def _asking_elements(packing: Packing, key: bytes, frontend: Frontend) -> list[Element]:
    """That a steering process is asked first, and may refuse."""
    family = packing.family
    return [
        Element(family.steered.name, key),
        Element(family.side(outside=frontend.outside).checked.name, key),
    ]


def _own_address_elements(packing: Packing, key: bytes, frontend: Frontend, target: ToPods) -> list[Element]:
    """Which packets to these pods get the node's own address; behind a listener, all do."""
    # Two pods of one Service port may share an address (two container ports): one hairpin, used twice.
    hairpins = packing.family.hairpins.name
    elements = [Element(hairpins, packing.ip(pod.ip) * 2) for pod in (*target.pods, *target.others)]
    if target.masquerade:
        elements.append(Element(packing.family.side(outside=frontend.outside).masquerade.name, key))
    return elements


def comments_of(names: Mapping[Frontend, str]) -> dict[tuple[str, bytes], str]:
    """By set and key, the names of frontends, beside the elements that say where each leads."""
    found: dict[tuple[str, bytes], str] = {}
    for frontend, name in names.items():
        packing = packing_of(frontend.address.ip)
        side, key = packing.family.side(outside=frontend.outside), packing.frontend(frontend)
        for each in (side.listeners, side.sizes, side.refused, side.dropped):
            found[each.name, key] = name
    return found


def captures_of(elements: Iterable[Element]) -> dict[Frontend, Target]:
    """The captures that a table's elements amount to; what makes no sense is left out."""
    by_set: dict[str, list[Element]] = {}
    for element in elements:
        by_set.setdefault(element.set, []).append(element)
    captures: dict[Frontend, Target] = {}
    for packing in PACKINGS:
        for outside in (False, True):
            captures |= _captures_of_side(packing, by_set, outside=outside)
    return captures


def _captures_of_side(
    packing: Packing, by_set: dict[str, list[Element]], *, outside: bool
) -> dict[Frontend, Target]:
    side = packing.family.side(outside=outside)

    def found(name: str) -> Iterable[Element]:
        return (each for each in by_set.get(name, ()) if packing.is_frontend(each.key))

    def unpacked(key: bytes) -> Frontend:
        return packing.unpack_frontend(key, outside=outside)

    captures: dict[Frontend, Target] = {unpacked(each.key): Refuse() for each in found(side.refused.name)}
    captures |= {unpacked(each.key): Drop() for each in found(side.dropped.name)}
    listeners = {each.key: packing.unpack_address(each.data) for each in found(side.listeners.name)}
    masqueraded = {each.key for each in found(side.masquerade.name)} | listeners.keys()
    steered = {each.key for each in found(packing.family.steered.name)}
    pods: dict[bytes, dict[int, Address]] = {}
    for each in found(side.pods.name):
        key, (index,) = each.key[: packing.frontend_size], INDEX.unpack(each.key[packing.frontend_size :])
        pods.setdefault(key, {})[index] = packing.unpack_address(each.data)
    pins = {each.key[: packing.frontend_size]: parse(each.chain) for each in found(side.members.name)}
    limits = {each.key: parse(each.chain) for each in found(side.limits.name)}
    to_pods: dict[bytes, ToPods] = {}
    for each in found(side.sizes.name):
        pick, pin, of_key = parse(each.chain), pins.get(each.key), pods.get(each.key, {})
        limit = limits.get(each.key)
        limit = limit if isinstance(limit, Limit) else Limit(0, 0)
        if isinstance(pick, Pick) and sorted(of_key) == list(range(max(pick.size, len(of_key)))):
            known = tuple(of_key[index] for index in range(len(of_key)))
            to_pods[each.key] = ToPods(
                known[: pick.size],
                masquerade=each.key in masqueraded,
                affinity=float(pin.seconds) if pick.sticky and isinstance(pin, Pin) else None,
                steered=each.key in steered,
                others=known[pick.size :],
                most=limit.most or None,
                most_per_client=limit.each or None,
            )
    for key, pods_of_key in to_pods.items():
        captures[unpacked(key)] = pods_of_key
    for key, listener in listeners.items():
        behind = to_pods.get(key)
        captures[unpacked(key)] = ToListener(listener, behind, steered=key in steered and behind is None)
    return captures
