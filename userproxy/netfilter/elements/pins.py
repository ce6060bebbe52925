"""Pins: which pod a client keeps, as rules note it, and what becomes of them when pods or times change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userproxy.netfilter.elements.packing import PACKINGS
from userproxy.netfilter.ruleset.made import Pin, parse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from userproxy.netfilter.elements.element import ClientPin, Element

PinChanges = dict[tuple[str, bytes], tuple[int, int]]
"""By map, and frontend with pod: the seconds for which pins held before, and now; 0: no more."""

_SIDES = [
    (packing.family.side(outside=outside), packing.family.address.size)
    for packing in PACKINGS
    for outside in (False, True)
]
PINS = {side.pins.name: client_size for side, client_size in _SIDES}
"""The maps that hold pins, and the bytes that a client takes in a key."""
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


def _times(elements: Iterable[Element]) -> dict[tuple[str, bytes], int]:
    found = ((element, parse(element.chain)) for element in elements if element.set in _MAPS)
    return {(_MAPS[each.set], each.key): pin.seconds for each, pin in found if isinstance(pin, Pin)}


def _member(pin: ClientPin) -> bytes:
    return pin.key[PINS[pin.map] :] + pin.data
