"""The nat chains of all nftables tables, read by dump; iptables-nft's are among them."""

from __future__ import annotations

import errno
import struct
import time
from typing import TYPE_CHECKING

from pyroute2.netlink.nfnetlink import nftsocket as nft

from userproxy.netfilter.bypass.claims import NatChain
from userproxy.netfilter.bypass.rules import ANY_FAMILY, IPV4, IPV6, Line, ranges, read_rule
from userproxy.netfilter.wire.netlink import (
    NFT_SUBSYSTEM,
    Message,
    RefusedError,
    attribute,
    attributes,
    string,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from userproxy.netfilter.bypass.rules import Destinations, Lookup
    from userproxy.netfilter.wire.netlink import Socket

_FAMILIES = {1: "inet", IPV4: "ip", IPV6: "ip6"}
_NUMBERS = {name: number for number, name in _FAMILIES.items()}
_ANY_FAMILY = 0
_BATCH = 100
_HOOKS = (0, 3)  # NF_INET_PRE_ROUTING, NF_INET_LOCAL_OUT
_TABLE, _NAME = 1, 3
_CHAIN_HANDLE, _CHAIN_HOOK, _CHAIN_TYPE = 2, 4, 7
_TABLE_NAME, _TABLE_HANDLE = 1, 4
_RULE_CHAIN, _RULE_EXPRESSIONS = 2, 4
_ELEMENTS, _KEY, _DATA, _FLAGS, _KEY_END = 3, 1, 2, 3, 10


def nat_chains(socket: Socket) -> list[NatChain]:
    """The base chains that may translate destinations: type nat, at prerouting or output.

    Raises:
        RefusedError: the kernel refused.
        OSError: no answer.
    """
    found = []
    for body in socket.dump(_question(nft.NFT_MSG_GETCHAIN, _ANY_FAMILY, b"", "chains")):
        if (
            b"nat\0" not in body or body[0] not in _FAMILIES
        ):  # there may be tens of thousands, few of them base
            continue
        fields = dict(attributes(body, 4))
        hook = dict(attributes(fields.get(_CHAIN_HOOK, b"")))
        if fields.get(_CHAIN_TYPE) == b"nat\0" and int.from_bytes(hook.get(1, b""), "big") in _HOOKS:
            (priority,) = struct.unpack(">i", hook[2])
            table = _text(fields[_TABLE])
            handle = int.from_bytes(fields[_CHAIN_HANDLE], "big")
            found.append(NatChain(_FAMILIES[body[0]], table, _text(fields[_NAME]), priority, handle, 0))
    numbers = {}
    for body in socket.dump(_question(nft.NFT_MSG_GETTABLE, _ANY_FAMILY, b"", "tables")):
        fields = dict(attributes(body, 4))
        numbers[body[0], _text(fields[_TABLE_NAME])] = int.from_bytes(fields[_TABLE_HANDLE], "big")
    return [chain._replace(number=numbers.get((_NUMBERS[chain.family], chain.table), 0)) for chain in found]


class NftRules:
    """The rules of one table, read when they are asked for, and once."""

    def __init__(self, socket: Socket, family: str, table: str) -> None:
        self._socket = socket
        self._family = _NUMBERS[family]
        self._table = table
        self._lines: dict[str, Sequence[Line]] = {}
        self._elements: dict[str, list[tuple[bytes, bytes, str]]] = {}

    def lines(self, chain: str) -> Sequence[Line]:
        """The rules of a chain; none if it is gone meanwhile."""
        if chain not in self._lines:
            asked = attribute(_TABLE, string(self._table)) + attribute(_RULE_CHAIN, string(chain))
            family = self._family if self._family in (IPV4, IPV6) else ANY_FAMILY
            self._lines[chain] = [
                read_rule(_expressions(dict(attributes(body, 4)).get(_RULE_EXPRESSIONS, b"")), family)
                for body in self._dump(nft.NFT_MSG_GETRULE, asked, f"rules of {chain}")
            ]
        return self._lines[chain]

    def elements(self, lookup: Lookup) -> Iterable[tuple[Destinations | None, str]]:
        """What a rule finds in a set."""
        for number, (key, last, chain) in enumerate(self._elements_of(lookup.set)):
            if number % _BATCH == 0:
                time.sleep(0)  # lets go of the interpreter: the event loop waits for it
            yield lookup.destinations(key, last) if lookup.names_destinations else None, chain

    def _elements_of(self, name: str) -> list[tuple[bytes, bytes, str]]:
        if name not in self._elements:
            asked = attribute(_TABLE, string(self._table)) + attribute(2, string(name))
            listed = []
            for body in self._dump(nft.NFT_MSG_GETSETELEM, asked, f"elements of {name}"):
                time.sleep(0)
                for kind, elements in attributes(body, 4):
                    if kind == _ELEMENTS:
                        listed += [_element(packed) for _, packed in attributes(elements)]
            found = ranges((key, last, flags) for key, last, flags, _ in listed)
            self._elements[name] = [(first, last, listed[number][3]) for first, last, number in found]
        return self._elements[name]

    def _dump(self, kind: int, asked: bytes, what: str) -> list[bytes]:
        try:
            return self._socket.dump(_question(kind, self._family, asked, what))
        except RefusedError as error:
            if error.refusal.errno == errno.ENOENT:
                return []
            raise


def _question(kind: int, family: int, attrs: bytes, what: str) -> Message:
    return Message(NFT_SUBSYSTEM | kind, 0, struct.pack(">BBH", family, 0, 0) + attrs, what)


def _expressions(packed: bytes) -> Iterable[tuple[str, dict[int, bytes]]]:
    for _, expression in attributes(packed):
        fields = dict(attributes(expression))
        yield _text(fields[1]), dict(attributes(fields.get(2, b"")))


def _element(packed: bytes) -> tuple[bytes, bytes | None, int, str]:
    """Key, the last key of a range where it is listed so, flags, and the chain under it."""
    fields = dict(attributes(packed))
    key = dict(attributes(fields.get(_KEY, b""))).get(1, b"")
    last = dict(attributes(fields.get(_KEY_END, b""))).get(1)
    verdict = dict(attributes(dict(attributes(fields.get(_DATA, b""))).get(2, b"")))
    flags = int.from_bytes(fields.get(_FLAGS, b""), "big")
    return key, last, flags, _text(verdict.get(2, b""))


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="replace")
