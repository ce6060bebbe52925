"""Elements in the kernel's answers to a dump."""

from __future__ import annotations

import struct
import sys
from typing import TYPE_CHECKING

from userproxy.netfilter.elements.element import ClientPin, Element
from userproxy.netfilter.ruleset.language import length_of
from userproxy.netfilter.ruleset.sets import SETS
from userproxy.netfilter.wire.expressions import JUMP
from userproxy.netfilter.wire.netlink import attribute, attributes
from userproxy.netfilter.wire.packing import (
    CHAIN,
    CODE,
    DATA,
    EXPIRATION,
    FLAGS,
    INTERVAL_END,
    KEY,
    KEY_END,
    TIMEOUT,
    USERDATA,
    VALUE,
    VERDICT,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from userproxy.netfilter.ruleset.language import Set

_ELEMENTS = 3  # NFTA_SET_ELEM_LIST_ELEMENTS
_UNKNOWN = "?"
_USERDATA = USERDATA.to_bytes(2, sys.byteorder)
_SPECS = {spec.name: spec for spec in SETS}


def decode_elements(set_name: str, bodies: Iterable[bytes]) -> Iterator[Element]:
    """The elements in the kernel's answers to a dump of one set.

    What we never put there (a drop, a timeout) is kept as a chain that is none of ours, so that it is
    noticed. Sets that rules add to have timeouts, and are read for their keys alone.
    """
    spec = _SPECS.get(set_name)
    if spec is not None and spec.ranges and len(spec.key) == 1:
        return _ranges(set_name, _listed(bodies))
    plain = _Plain(set_name, spec)
    return (plain.element(packed) or _element(set_name, packed) for packed in _listed(bodies))


def decode_pins(map_name: str, bodies: Iterable[bytes]) -> Iterator[ClientPin]:
    """The pins in the kernel's answers to a dump of the map that has them."""
    for packed in _listed(bodies):
        fields = dict(attributes(packed))
        if EXPIRATION in fields and DATA in fields:
            yield ClientPin(
                map_name,
                _value(fields[KEY]),
                _value(fields[DATA]),
                timeout=int.from_bytes(fields.get(TIMEOUT, b""), "big"),
                left=int.from_bytes(fields[EXPIRATION], "big"),
            )


def _listed(bodies: Iterable[bytes]) -> Iterator[bytes]:
    for body in bodies:
        for kind, listed in attributes(body, 4):
            if kind == _ELEMENTS:
                for _, packed in attributes(listed):
                    yield packed


def _value(packed: bytes) -> bytes:
    return dict(attributes(packed)).get(VALUE, b"")


class _Plain:
    """Reads elements that have a key, what the set has under each, and at most a comment: almost all do.

    They all look the same but for their key and data, so they are cut, not parsed; 10,000 are read at each
    adoption.
    """

    def __init__(self, set_name: str, spec: Set | None) -> None:
        self._set = set_name
        key, data = (length_of(spec.key), length_of(spec.data)) if spec else (0, 0)
        self._key_header = attribute(KEY, attribute(VALUE, bytes(key)))[:8]
        self._data_header = attribute(DATA, attribute(VALUE, bytes(data)))[:8] if data else b""
        self._key = slice(8, 8 + key)
        self._between = slice(8 + key, 8 + key + len(self._data_header))
        self._length = 8 + key + len(self._data_header) + data
        self._data = slice(self._length - data, self._length)
        self._kind = slice(self._length + 2, self._length + 4)

    def element(self, packed: bytes) -> Element | None:
        """None if it must be parsed."""
        if (
            (len(packed) == self._length or packed[self._kind] == _USERDATA)
            and packed.startswith(self._key_header)
            and packed[self._between] == self._data_header
        ):
            return Element(self._set, packed[self._key], packed[self._data])
        return None


def _element(set_name: str, packed: bytes) -> Element:
    fields = dict(attributes(packed))
    data = dict(attributes(fields.get(DATA, b"")))
    verdict = dict(attributes(data.get(VERDICT, b"")))
    jumps = verdict.get(CODE) == struct.pack(">i", JUMP)
    chain = verdict[CHAIN].rstrip(b"\0").decode(errors="replace") if jumps else _UNKNOWN if verdict else ""
    if not set(fields) <= {KEY, DATA, KEY_END, USERDATA}:
        chain += _UNKNOWN
    last = _value(fields.get(KEY_END, b""))
    return Element(set_name, _value(fields[KEY]), data.get(VALUE, b""), chain, last)


def _ranges(set_name: str, listed: Iterable[bytes]) -> Iterator[Element]:
    """Each range is two elements, where it begins and behind its end, listed in any order."""
    bounds = []
    for packed in listed:
        fields = dict(attributes(packed))
        bounds.append((_value(fields[KEY]), fields.get(FLAGS) != INTERVAL_END))
    first = b""
    for key, begins in sorted(bounds):
        if first:
            yield Element(set_name, first, last=_before(key))
        elif not begins:
            yield Element(set_name, key, chain=_UNKNOWN)
        first = key if begins else b""
    if first:
        yield Element(set_name, first, last=b"\xff" * len(first))


def _before(key: bytes) -> bytes:
    return (int.from_bytes(key, "big") - 1).to_bytes(len(key), "big")
