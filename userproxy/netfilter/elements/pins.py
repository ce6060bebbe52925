"""Pins: which pod a client keeps, as rules note it, and what becomes of them when pods or times change."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from userproxy.netfilter.elements.packing import PACKINGS
from userproxy.netfilter.ruleset.made import Pin, parse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from userproxy.model.address import Address
    from userproxy.model.state import Frontend
    from userproxy.netfilter.elements.element import ClientPin, Element


class Kept(NamedTuple):
    """A pod that a client keeps.

    Attributes:
        client: its IP.
        frontend: where it came.
        pod: where it went.
        left: seconds for which it keeps it.
    """

    client: str
    frontend: Frontend
    pod: Address
    left: float


PinChanges = dict[tuple[str, bytes], tuple[int, int]]
"""By map, and frontend with pod: the seconds for which pins held before, and now; 0: no more."""

_SIDES = [
    (packing.family.side(outside=outside), packing.family.address.size)
    for packing in PACKINGS
    for outside in (False, True)
]
PINS = {side.pins.name: client_size for side, client_size in _SIDES}
"""The maps that hold pins, and the bytes that a client takes in a key."""
_UNPACKED = {
    packing.family.side(outside=outside).pins.name: (packing, outside)
    for packing in PACKINGS
    for outside in (False, True)
}
_MAPS = {side.members.name: side.pins.name for side, _ in _SIDES}


def pin_changes(gone: Iterable[Element], new: Iterable[Element]) -> PinChanges:
    """The pins that are to hold for another time, or no more, if these elements go and come."""
    before, now = _times(gone), _times(new)
    return {
        member: (seconds, now.get(member, 0))
        for member, seconds in before.items()
        if seconds != now.get(member)
    }


def retimed(pins: Iterable[ClientPin], changes: PinChanges) -> tuple[list[ClientPin], list[ClientPin]]:
    """The pins to delete, and those to put in their place: each ends when the new time is over."""
    gone, new = [], []
    for pin in pins:
        change = changes.get((pin.map, _member(pin)))
        if change is not None:
            before, now = change
            gone.append(pin)
            left = min(now * 1000, pin.left + (now - before) * 1000)
            if now and left > 0:
                new.append(pin._replace(timeout=now * 1000, left=left))
    return gone, new


def sorted_out(pins: Iterable[ClientPin], elements: Iterable[Element]) -> tuple[list[ClientPin], PinChanges]:
    """The pins that hold if these are all elements, and what is to become of those to pods of the past."""
    found = list(pins)
    members = _times(elements) if found else {}
    valid: list[ClientPin] = []
    stale: PinChanges = {}
    for pin in found:
        member = (pin.map, _member(pin))
        if member in members:
            valid.append(pin)
        else:
            stale[member] = pin.timeout // 1000, 0
    return valid, stale


def kept_by(pins: Iterable[ClientPin]) -> list[Kept]:
    """What the pins say; what makes no sense is left out."""
    found = []
    for pin in pins:
        packing, outside = _UNPACKED[pin.map]
        client, frontend = pin.key[: PINS[pin.map]], pin.key[PINS[pin.map] :]
        if packing.is_frontend(frontend):
            key, pod = packing.unpack_frontend(frontend, outside=outside), packing.unpack_address(pin.data)
            found.append(Kept(packing.unpack_ip(client), key, pod, pin.left / 1000))
    return found


def _times(elements: Iterable[Element]) -> dict[tuple[str, bytes], int]:
    found = ((element, parse(element.chain)) for element in elements if element.set in _MAPS)
    return {(_MAPS[each.set], each.key): pin.seconds for each, pin in found if isinstance(pin, Pin)}


def _member(pin: ClientPin) -> bytes:
    return pin.key[PINS[pin.map] :] + pin.data
