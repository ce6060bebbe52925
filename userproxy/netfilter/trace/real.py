"""Our table as the kernel holds it, the chains of others around it, and how a packet would come to it."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from pyroute2.netlink.nfnetlink import nftsocket as nft

from userproxy.net.ways import LOCAL, Ways
from userproxy.netfilter import NetfilterError
from userproxy.netfilter.elements.access import constant_elements
from userproxy.netfilter.features import is_asking_by_target
from userproxy.netfilter.nftables import NETLINK_NETFILTER
from userproxy.netfilter.ruleset.chains import ruleset
from userproxy.netfilter.ruleset.language import TABLE, Hook
from userproxy.netfilter.ruleset.made import made_among
from userproxy.netfilter.ruleset.vacancy import LANDING
from userproxy.netfilter.trace.walk import Table
from userproxy.netfilter.wire import encode, read_back
from userproxy.netfilter.wire.netlink import (
    NFT_SUBSYSTEM,
    Message,
    RefusedError,
    Socket,
    attributes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


_FAMILIES = {1: "inet", 2: "ip", 10: "ip6"}
_POINTS = ("prerouting", "input", "forward", "output", "postrouting")  # by number (NF_INET_PRE_ROUTING, ...)
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_TYPE = 1, 3, 4, 7


class Foreign(NamedTuple):
    """A base chain of somebody else.

    Attributes:
        table: with its family, `ip nat`.
        chain: its name.
        hook: where it is asked.
    """

    table: str
    chain: str
    hook: Hook


class Way(NamedTuple):
    """How this node would send a packet to an address.

    Attributes:
        device: by which interface; empty if that is not known.
        local: whether the address is the node's own.
    """

    device: str
    local: bool


class Real:
    """Reads the kernel in the network namespace of the thread that makes the object. Nothing is changed.

    Raises:
        NetfilterError: the kernel does not answer; likewise each of the methods.
    """

    def __init__(self) -> None:
        try:
            self._netfilter, self._ways = Socket(NETLINK_NETFILTER), Ways()
        except OSError as error:
            raise NetfilterError(f"cannot speak to the kernel: {error}") from error

    def close(self) -> None:
        """Close the sockets."""
        self._netfilter.close()
        self._ways.close()

    def table(self) -> tuple[Table, tuple[str, ...]]:
        """Our table, and how its rules differ from those that this version makes, which it is taken to have.

        Raises:
            NetfilterError: there is none, or it cannot be read.
        """
        try:
            static = read_back.read_static(self._netfilter)
            made = made_among(static.chains)
            # What the kernel lacks is not there.
            quick, as_target = LANDING in static.chains, is_asking_by_target(static)
            rules = ruleset(made, quick=quick, as_target=as_target)
            expected = read_back.created_by(encode.creation(rules))
            sets = [
                name
                for by_rules in (False, True)
                for name in read_back.intact_sets(expected, static, by_rules=by_rules)
            ]
            elements = list(read_back.read_elements(self._netfilter, sets))
        except (RefusedError, OSError) as error:
            raise NetfilterError(f"cannot read the nftables table: {error}: run as root") from error
        if not static:
            raise NetfilterError(f"there is no table inet {TABLE} here: no userproxy is at work on this node")
        differences = tuple(read_back.differences(expected, static))
        return Table(rules, [*elements, *constant_elements()]), differences

    def others(self) -> list[Foreign]:
        """The base chains of others, in the order of hooks and priorities."""
        try:
            question = Message(
                NFT_SUBSYSTEM | nft.NFT_MSG_GETCHAIN, 0, bytes([socket.AF_UNSPEC, 0, 0, 0]), "chains"
            )
            found = [each for body in self._netfilter.dump(question) for each in _base_chains(body)]
        except (RefusedError, OSError) as error:
            raise NetfilterError(f"cannot read the chains of others: {error}: run as root") from error
        return sorted(found, key=lambda one: (_POINTS.index(one.hook.point), one.hook.priority))

    def way_to(self, ip: str) -> Way:
        """How this node would send a packet to an address: one from there comes in the same way."""
        way = self._ways.to(ip)
        if way is None:
            return Way("", local=False)
        try:
            device = socket.if_indextoname(way.device)
        except OSError:
            device = ""
        return Way(device, local=way.kind == LOCAL)


def _base_chains(body: bytes) -> Iterator[Foreign]:
    fields = dict(attributes(body, 4))
    if body[0] not in _FAMILIES or _CHAIN_HOOK not in fields:
        return
    table = _text(fields[_CHAIN_TABLE])
    hook = dict(attributes(fields[_CHAIN_HOOK]))
    number = int.from_bytes(hook.get(1, b""), "big")
    if (body[0], table) == (1, TABLE) or number >= len(_POINTS):
        return
    (priority,) = struct.unpack(">i", hook[2])
    kind = _text(fields.get(_CHAIN_TYPE, b""))
    yield Foreign(
        f"{_FAMILIES[body[0]]} {table}", _text(fields[_CHAIN_NAME]), Hook(kind, _POINTS[number], priority)
    )


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")
