"""Elements as netlink messages, packed by our own code: pyroute2 takes 470 ms for 10,000, this 30."""

from __future__ import annotations

import functools
import struct
from typing import TYPE_CHECKING

from pyroute2.netlink.nfnetlink import nftsocket as nft

from userproxy.netfilter.ruleset.language import TABLE
from userproxy.netfilter.ruleset.sets import SETS
from userproxy.netfilter.wire import netlink
from userproxy.netfilter.wire.expressions import JUMP
from userproxy.netfilter.wire.netlink import NFT_SUBSYSTEM, NFTABLES_HEADER, Message, attribute, string

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from userproxy.netfilter.elements.element import ClientPin, Element

MESSAGE_BYTES = 60_000
"""Of elements in one message: an attribute, here the list of elements, ends at 64 KiB."""

KEY, DATA, FLAGS, TIMEOUT, EXPIRATION, USERDATA, KEY_END = 1, 2, 3, 4, 5, 6, 10  # NFTA_SET_ELEM_...
VALUE, VERDICT = 1, 2  # NFTA_DATA_...
CODE, CHAIN = 1, 2  # NFTA_VERDICT_...
INTERVAL_END = struct.pack(">I", 1)  # NFT_SET_ELEM_INTERVAL_END

_LISTED = 1  # NFTA_LIST_ELEM
_COMMENT = 0  # NFTNL_UDATA_SET_ELEM_COMMENT
_LONGEST_COMMENT = 127
_CONCATENATED = {spec.name: len(spec.key) > 1 for spec in SETS}


def add_elements(
    elements: Iterable[Element],
    comments: Mapping[tuple[str, bytes], str] | None = None,
    table: str = TABLE,
) -> Iterator[Message]:
    """Add elements; an error if one's key is there with something else under it.

    Args:
        elements: to add.
        comments: by set and key, what nft shows beside an element.
        table: that has the sets.
    """
    by_set: dict[str, list[bytes]] = {}
    for element in elements:
        comment = comments.get((element.set, element.key), "") if comments else ""
        by_set.setdefault(element.set, []).append(_pack(element, keys_only=False, comment=comment))
    return _messages(by_set, nft.NFT_MSG_NEWSETELEM, netlink.NLM_F_CREATE, table)


def delete_elements(elements: Iterable[Element]) -> Iterator[Message]:
    """Delete elements by their keys; an error if one is not there."""
    by_set: dict[str, list[bytes]] = {}
    for element in elements:
        by_set.setdefault(element.set, []).append(_pack(element, keys_only=True))
    return _messages(by_set, nft.NFT_MSG_DELSETELEM, 0)


def add_pins(pins: Iterable[ClientPin]) -> Iterator[Message]:
    """Add pins; an error if a client has another one for the same frontend."""
    by_map: dict[str, list[bytes]] = {}
    for pin in pins:
        packed = (
            attribute(KEY, attribute(VALUE, pin.key))
            + attribute(DATA, attribute(VALUE, pin.data))
            + attribute(TIMEOUT, struct.pack(">Q", pin.timeout))
            + attribute(EXPIRATION, struct.pack(">Q", pin.left))
        )
        by_map.setdefault(pin.map, []).append(attribute(_LISTED, packed))
    return _messages(by_map, nft.NFT_MSG_NEWSETELEM, netlink.NLM_F_CREATE)


def delete_pins(pins: Iterable[ClientPin]) -> Iterator[Message]:
    """Delete pins; an error if one is over."""
    by_map: dict[str, list[bytes]] = {}
    for pin in pins:
        packed = attribute(_LISTED, attribute(KEY, attribute(VALUE, pin.key)))
        by_map.setdefault(pin.map, []).append(packed)
    return _messages(by_map, nft.NFT_MSG_DELSETELEM, 0)


def _messages(
    by_set: Mapping[str, list[bytes]], kind: int, flags: int, table: str = TABLE
) -> Iterator[Message]:
    for name, packed in by_set.items():
        head = NFTABLES_HEADER + attribute(1, string(table)) + attribute(2, string(name))
        for part in _parts(packed):
            yield Message(NFT_SUBSYSTEM | kind, flags, head + attribute(3, part), f"elements of {name}")


def _parts(packed: list[bytes]) -> Iterator[bytes]:
    begin = size = 0
    for index, each in enumerate(packed):
        if size + len(each) > MESSAGE_BYTES:
            yield b"".join(packed[begin:index])
            begin, size = index, 0
        size += len(each)
    yield b"".join(packed[begin:])


def _pack(element: Element, *, keys_only: bool, comment: str = "") -> bytes:
    """NFTA_LIST_ELEM { NFTA_SET_ELEM_KEY { NFTA_DATA_VALUE }, ..._DATA { VALUE | VERDICT }, .._USERDATA }."""
    if element.last:
        return _pack_range(element)
    key, data = element.key, b""
    if element.chain and not keys_only:
        data = _verdict(element.chain)
    elif element.data and not keys_only:
        data = _data_head(len(element.data)) + element.data
    if comment:
        data += _comment(comment)
    head, padding = _key_head(len(key), len(data))
    return head + key + padding + data


@functools.lru_cache(maxsize=1024)
def _key_head(key: int, data: int) -> tuple[bytes, bytes]:
    """What stands before a key and behind it, if they and what is under it have so many bytes."""
    packed = attribute(_LISTED, attribute(KEY, attribute(VALUE, bytes(key))) + bytes(data))
    return packed[:12], bytes(-key % 4)


@functools.lru_cache(maxsize=64)
def _data_head(data: int) -> bytes:
    return attribute(DATA, attribute(VALUE, bytes(data)))[:8]


@functools.lru_cache(maxsize=4096)
def _verdict(chain: str) -> bytes:
    """The data of an element of a map to chains."""
    verdict = attribute(CODE, struct.pack(">i", JUMP)) + attribute(CHAIN, string(chain))
    return attribute(DATA, attribute(VERDICT, verdict))


def _comment(text: str) -> bytes:
    """As nft writes and reads it: type, length, and a text that ends with a zero (libnftnl's udata.h)."""
    value = text.encode()[:_LONGEST_COMMENT] + b"\0"
    return attribute(USERDATA, bytes([_COMMENT, len(value)]) + value)


def _pack_range(element: Element) -> bytes:
    """A range of a concatenation has two ends; any other is two elements, the second one behind its end."""
    key = attribute(KEY, attribute(VALUE, element.key))
    if _CONCATENATED[element.set]:
        return attribute(_LISTED, key + attribute(KEY_END, attribute(VALUE, element.last)))
    begins = attribute(_LISTED, key)
    behind = int.from_bytes(element.last, "big") + 1
    if behind >> 8 * len(element.last):
        return begins  # it goes on to the last address
    end = attribute(KEY, attribute(VALUE, behind.to_bytes(len(element.last), "big")))
    return begins + attribute(_LISTED, end + attribute(FLAGS, INTERVAL_END))
