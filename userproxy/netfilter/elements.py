"""Captures as elements of our maps and sets, and back. Pure.

An element is kept packed as the kernel holds it, so that 10,000 of them are compared as bytes.
"""

from __future__ import annotations

import functools
import ipaddress
import struct
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from userproxy.model.address import Address
from userproxy.model.service import Protocol
from userproxy.model.state import Drop, Frontend, Refuse, Target, ToListener, ToPods
from userproxy.netfilter import ruleset

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from userproxy.model.actions import CaptureChange

_NUMBER = {Protocol.TCP: ruleset.TCP, Protocol.UDP: ruleset.UDP}
_PROTOCOL = {number: protocol for protocol, number in _NUMBER.items()}

# Fields of a concatenation are padded to 4 bytes; addresses and ports are in network order, numbers in the
# host's.
_FRONTEND = struct.Struct("4sB3x2s2x")
_ADDRESS = struct.Struct("4s2s2x")
_INDEX = struct.Struct("=I")

_KEYED_BY_FRONTEND = frozenset(
    spec.name for spec in (ruleset.LISTENERS, ruleset.REFUSED, ruleset.DROPPED, ruleset.SIZES, ruleset.PODS)
)


class Element(NamedTuple):
    """One element.

    Attributes:
        set: the name of the map or set.
        key: packed.
        data: what is under the key, packed; empty in a set and in a map to chains.
        chain: where a map to chains leads; else empty.
    """

    set: str
    key: bytes
    data: bytes = b""
    chain: str = ""


class Elements:
    """All elements of our table, counted: several captures may need the same one (a hairpin).

    One object lives as long as the layer's view of the kernel; it changes only by what the kernel has
    accepted.
    """

    def __init__(
        self, captures: Mapping[Frontend, Target] | None = None, guards: Iterable[Frontend] = ()
    ) -> None:
        self.captures: dict[Frontend, Target] = {}
        self.guards = set(guards)
        self._uses: Counter[Element] = Counter(map(_guard, self.guards))
        for frontend, target in (captures or {}).items():
            self.captures[frontend] = target
            self._uses.update(elements_of(frontend, target))

    def __iter__(self) -> Iterator[Element]:
        return iter(self._uses)

    def sizes(self) -> frozenset[int]:
        """The numbers of pods for which a pick chain is needed."""
        return sizes_of(self)

    def difference(self, change: CaptureChange) -> tuple[list[Element], list[Element]]:
        """The elements to delete and those to add; an element whose data changes is in both."""
        delta: Counter[Element] = Counter()
        for frontend in (*change.put, *change.remove):
            delta.subtract(elements_of(frontend, self.captures.get(frontend)))
        for frontend, target in change.put.items():
            delta.update(elements_of(frontend, target))
        delta.subtract(map(_guard, change.unguard & self.guards))
        delta.update(map(_guard, change.guard - self.guards))
        gone = [element for element, count in delta.items() if count < 0 and not self._uses[element] + count]
        new = [element for element, count in delta.items() if count > 0 and not self._uses[element]]
        return gone, new

    def apply(self, change: CaptureChange) -> None:
        """Take over what the kernel has accepted."""
        for frontend in (*change.put, *change.remove):
            for element in elements_of(frontend, self.captures.pop(frontend, None)):
                self._uses[element] -= 1
                if not self._uses[element]:
                    del self._uses[element]
        for frontend, target in change.put.items():
            self.captures[frontend] = target
            self._uses.update(elements_of(frontend, target))
        for listener in change.unguard & self.guards:
            self.guards.discard(listener)
            del self._uses[_guard(listener)]
        for listener in change.guard - self.guards:
            self.guards.add(listener)
            self._uses[_guard(listener)] = 1


def elements_of(frontend: Frontend, target: Target | None) -> list[Element]:
    """The elements that make the kernel send a frontend's packets to its target.

    Raises:
        ValueError: an IPv6 address (the maps for them are not there yet), or no pods.
    """
    if target is None:
        return []
    key = _pack_frontend(frontend.protocol, frontend.address)
    match target:
        case ToListener(listener):
            return [Element(ruleset.LISTENERS.name, key, _pack_address(listener))]
        case ToPods(pods):
            return _pod_elements(key, frontend, pods)
        case Refuse():
            return [Element(ruleset.REFUSED.name, key)]
        case Drop():
            return [Element(ruleset.DROPPED.name, key)]


def _guard(listener: Frontend) -> Element:
    return Element(ruleset.GUARDED.name, _pack_frontend(listener.protocol, listener.address))


def _pod_elements(key: bytes, frontend: Frontend, pods: tuple[Address, ...]) -> list[Element]:
    if not pods:
        raise ValueError(f"{frontend.address} has no pods to go to; refuse it instead")
    elements = [Element(ruleset.SIZES.name, key, chain=ruleset.pick_name(len(pods)))]
    for index, pod in enumerate(pods):
        elements.append(Element(ruleset.PODS.name, key + _INDEX.pack(index), _pack_address(pod)))
        # Two pods of one Service port may share an address (two container ports): one hairpin, used twice.
        elements.append(Element(ruleset.HAIRPINS.name, _pack_ip(pod.ip) * 2))
    return elements


def captures_of(elements: Iterable[Element]) -> dict[Frontend, Target]:
    """The captures that a table's elements amount to; what makes no sense is left out."""
    captures: dict[Frontend, Target] = {}
    pods: dict[bytes, dict[int, Address]] = {}
    sizes: dict[bytes, int] = {}
    for element in elements:
        if element.set in _KEYED_BY_FRONTEND and element.key[4] not in _PROTOCOL:
            continue
        if element.set == ruleset.LISTENERS.name:
            captures[_unpack_frontend(element.key)] = ToListener(_unpack_address(element.data))
        elif element.set == ruleset.REFUSED.name:
            captures[_unpack_frontend(element.key)] = Refuse()
        elif element.set == ruleset.DROPPED.name:
            captures[_unpack_frontend(element.key)] = Drop()
        elif element.set == ruleset.SIZES.name:
            sizes[element.key] = ruleset.pick_size(element.chain)
        elif element.set == ruleset.PODS.name:
            key, (index,) = element.key[: _FRONTEND.size], _INDEX.unpack(element.key[_FRONTEND.size :])
            pods.setdefault(key, {})[index] = _unpack_address(element.data)
    for key, size in sizes.items():
        of_key = pods.get(key, {})
        if size and sorted(of_key) == list(range(size)):
            captures[_unpack_frontend(key)] = ToPods(tuple(of_key[index] for index in range(size)))
    return captures


def guards_of(elements: Iterable[Element]) -> set[Frontend]:
    """The listeners that a table's elements guard."""
    return frontends_of(element for element in elements if element.set == ruleset.GUARDED.name)


def frontends_of(elements: Iterable[Element]) -> set[Frontend]:
    """The frontends that are the keys of a set's elements; what makes no sense is left out."""
    return {_unpack_frontend(element.key) for element in elements if element.key[4] in _PROTOCOL}


def sizes_of(elements: Iterable[Element]) -> frozenset[int]:
    """The numbers of pods that the pick chains of these elements pick from."""
    return frozenset(
        ruleset.pick_size(chain) for chain in {element.chain for element in elements if element.chain}
    )


def protocol_elements() -> list[Element]:
    """The elements of the one constant set: the protocols that have ports and are proxied."""
    return [Element(ruleset.PROTOCOLS.name, bytes([number])) for number in sorted(_PROTOCOL)]


@functools.lru_cache(maxsize=65536)
def _pack_ip(ip: str) -> bytes:
    try:
        return ipaddress.IPv4Address(ip).packed
    except ValueError:
        raise ValueError(f"{ip} is not an IPv4 address, and only those can be captured") from None


def _pack_address(address: Address) -> bytes:
    return _ADDRESS.pack(_pack_ip(address.ip), address.port.to_bytes(2, "big"))


def _unpack_address(data: bytes) -> Address:
    ip, port = _ADDRESS.unpack(data)
    return Address(str(ipaddress.IPv4Address(ip)), int.from_bytes(port, "big"))


def _pack_frontend(protocol: Protocol, address: Address) -> bytes:
    return _FRONTEND.pack(_pack_ip(address.ip), _NUMBER[protocol], address.port.to_bytes(2, "big"))


def _unpack_frontend(key: bytes) -> Frontend:
    ip, number, port = _FRONTEND.unpack(key)
    address = Address(str(ipaddress.IPv4Address(ip)), int.from_bytes(port, "big"))
    return Frontend(_PROTOCOL[number], address)
