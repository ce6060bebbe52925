"""Our table with all of its elements in the words of nft(8), which loads it with `nft -f`."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from userproxy.netfilter.elements.access import constant_elements
from userproxy.netfilter.elements.packing import INDEX
from userproxy.netfilter.elements.table import Elements
from userproxy.netfilter.ruleset.chains import ruleset
from userproxy.netfilter.ruleset.language import TCP, UDP, Datatype, Set
from userproxy.netfilter.ruleset.sets import IPV4, IPV6, SETS
from userproxy.netfilter.ruleset.text import loadable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.model.state import NodeState
    from userproxy.netfilter.elements.element import Element

_SETS = {spec.name: spec for spec in SETS}
_NAMES = {
    Datatype.INET_PROTO: {TCP: "tcp", UDP: "udp"},
    Datatype.NF_PROTO: {IPV4.number: "ipv4", IPV6.number: "ipv6"},
}


def table_of(state: NodeState) -> str:
    """The table that the kernel would be told of a state.

    Raises:
        ValueError: an address that cannot be captured.
    """
    elements = Elements(state)
    by_set: dict[str, list[str]] = {}
    for element in sorted([*elements, *constant_elements()]):
        by_set.setdefault(element.set, []).append(_element(_SETS[element.set], element))
    return loadable(ruleset(elements.made()), by_set)


def _element(spec: Set, element: Element) -> str:
    key = " . ".join(_key(spec, element))
    if element.chain:
        return f"{key} : jump {element.chain}"
    return f"{key} : {' . '.join(_fields(spec.data, element.data))}" if element.data else key


def _key(spec: Set, element: Element) -> list[str]:
    """The fields of a key; of a range, the last one is from where to where."""
    fields = list(_fields(spec.key, element.key))
    if spec.ranges:
        last = list(_fields(spec.key, element.last))[-1]
        fields[-1] += f"-{last}" if last != fields[-1] else ""
    return fields


def _fields(types: tuple[Datatype, ...], packed: bytes) -> Iterator[str]:
    """What stands in packed fields, each padded to 4 bytes where there are several."""
    start = 0
    for kind in types:
        yield _field(kind, packed[start : start + kind.size])
        start += -(-kind.size // 4) * 4


def _field(kind: Datatype, packed: bytes) -> str:
    match kind:
        case Datatype.IPV4_ADDR | Datatype.IPV6_ADDR:
            return str(ipaddress.ip_address(packed))
        case Datatype.INET_PROTO | Datatype.NF_PROTO:
            return _NAMES[kind][packed[0]]
        case Datatype.INET_SERVICE:
            return str(int.from_bytes(packed, "big"))
        case Datatype.CT_DIR:
            return ("original", "reply")[packed[0]]
        case Datatype.MARK | Datatype.UID:
            return str(INDEX.unpack(packed)[0])
        case Datatype.IFNAME:
            return f'"{packed.rstrip(bytes(1)).decode()}"'
