"""What rules of others come to: which destinations they name, and whose chains are asked before ours."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from userproxy.model.address import Address
from userproxy.model.service import Protocol
from userproxy.model.state import Frontend
from userproxy.netfilter.bypass.claims import MOST_CHAINS, NatChain, Order, Taker, taken
from userproxy.netfilter.bypass.rules import (
    ANY_FAMILY,
    EVERY_ADDRESS,
    IPV4,
    IPV6,
    Destinations,
    Line,
    Lookup,
    number_of_text,
    ranges,
    read_rule,
)
from userproxy.netfilter.wire.netlink import attribute

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

IP, NEXT_IP = 0x0A030001, 0x0A030002
WEB = Frontend(Protocol.TCP, Address("10.3.0.1", 80))
DNS = Frontend(Protocol.UDP, Address("10.3.0.1", 53))
NEXT = Frontend(Protocol.TCP, Address("10.3.0.2", 80))
FRONTENDS = [WEB, DNS, NEXT]
MAX_OF_FD = "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
ANYWHERE = Destinations(*EVERY_ADDRESS[ANY_FAMILY])
TO_WEB = Destinations(IP, IP, 6, 80)
REGISTER, SECOND, THIRD = 1, 9, 10

Expression = tuple[str, dict[int, bytes]]


def number(value: int) -> bytes:
    return struct.pack(">i", value)


def load(header: int, offset: int, size: int, register: int = REGISTER) -> Expression:
    return "payload", dict(enumerate(map(number, (register, header, offset, size)), start=1))


def compare(value: bytes, operation: int = 0) -> Expression:
    return "cmp", {1: number(REGISTER), 2: number(operation), 3: attribute(1, value)}


def masked(mask: bytes) -> Expression:
    return "bitwise", {1: number(REGISTER), 2: number(REGISTER), 4: attribute(1, mask)}


def verdict(code: int, chain: bytes = b"") -> Expression:
    packed = attribute(1, number(code)) + (attribute(2, chain) if chain else b"")
    return "immediate", {1: number(0), 2: attribute(2, packed)}


DESTINATION, SOURCE, PORT = load(1, 16, 4), load(1, 12, 4), load(2, 2, 2)
TCP = [("meta", {1: number(REGISTER), 2: number(16)}), compare(b"\6")]
WEB_IP = bytes([10, 3, 0, 1])
DNAT: Expression = ("nat", {1: number(1)})

RULES: dict[str, tuple[list[Expression], Destinations | None, bool]] = {
    "an address and a port": (
        [DESTINATION, compare(WEB_IP), *TCP, PORT, compare(b"\0\x50"), DNAT],
        TO_WEB,
        True,
    ),
    "both addresses in one": (
        [load(1, 12, 8), compare(bytes([10, 0, 1, 3]) + WEB_IP), DNAT],
        Destinations(IP, IP),
        False,
    ),
    "a network": (
        [DESTINATION, masked(b"\xff\xff\0\0"), compare(bytes([10, 3, 0, 0])), DNAT],
        Destinations(0x0A030000, 0x0A03FFFF),
        True,
    ),
    "a network on a byte": (
        [load(1, 16, 1), compare(b"\n"), DNAT],
        Destinations(0x0A000000, 0x0AFFFFFF),
        True,
    ),
    "all but an address": ([DESTINATION, compare(WEB_IP, operation=1), DNAT], None, False),
    "a source": ([SOURCE, compare(WEB_IP), DNAT], None, False),
    "a source of IPv6": ([load(1, 8, 16), compare(bytes(16)), DNAT], None, False),
    "a register loaded anew": (
        [DESTINATION, compare(WEB_IP), ("ct", {1: number(REGISTER)}), compare(bytes(4)), DNAT],
        Destinations(IP, IP),
        False,
    ),
}


@pytest.mark.parametrize(("expressions", "named", "sure"), RULES.values(), ids=RULES)
def test_the_destinations_of_a_rule(
    expressions: list[Expression], named: Destinations | None, *, sure: bool
) -> None:
    line = read_rule(expressions)
    assert (line.destinations, line.sure, line.translates, line.chain) == (named, sure, True, "")


WEB6 = Frontend(Protocol.TCP, Address("fd00::1", 80))
IP6, OF_IPV6 = number_of_text("fd00::1"), [("meta", {1: number(REGISTER), 2: number(15)}), compare(b"\n")]
DESTINATION6 = load(1, 24, 16)


@pytest.mark.parametrize(
    ("family", "expressions", "named", "sure"),
    [
        (IPV6, [DESTINATION6, compare(ip_address("fd00::1").packed), DNAT], (IP6, IP6), True),
        (ANY_FAMILY, [*OF_IPV6, DESTINATION6, compare(ip_address("fd00::1").packed)], (IP6, IP6), True),
        (IPV6, [load(1, 24, 1), compare(b"\xfd")], tuple(map(number_of_text, ("fd00::", MAX_OF_FD))), True),
        (IPV6, [load(1, 8, 16), compare(bytes(16))], None, False),
    ],
    ids=["an address", "an address in a table of both families", "a network on a byte", "a source"],
)
def test_the_destinations_of_a_rule_of_ipv6(
    family: int, expressions: list[Expression], named: tuple[int, int] | None, *, sure: bool
) -> None:
    line = read_rule(expressions, family)
    assert (line.destinations, line.sure) == (named and Destinations(*named), sure)
    assert (line.rest.first, line.rest.last) == EVERY_ADDRESS[IPV6]


def test_what_is_for_one_family_takes_no_frontends_of_the_other() -> None:
    of_ipv6 = read_rule([*OF_IPV6, verdict(-3, b"pod\0")])
    frontends = [*FRONTENDS, WEB6]
    assert taken(frontends, ["base"], Table({"base": [of_ipv6], **TRANSLATES})) == {WEB6: "pod"}
    everything = Table({"base": [line(translates=True)]})
    assert taken(frontends, ["base"], everything).keys() == set(frontends)
    of_ipv4 = Table({"base": [read_rule([DNAT], IPV4)]})
    assert taken(frontends, ["base"], of_ipv4).keys() == set(FRONTENDS)


def test_only_what_gives_another_destination_translates() -> None:
    for expression, translates in (
        (("nat", {1: number(0)}), False),
        (("masq", {}), False),
        (("redir", {}), True),
        (("target", {1: b"DNAT\0"}), True),
        (("target", {1: b"MARK\0"}), False),
        (verdict(1), False),
    ):
        assert read_rule([expression]).translates is translates


def test_where_a_rule_leads() -> None:
    assert read_rule([verdict(-3, b"elsewhere\0")]).chain == "elsewhere"
    assert read_rule([verdict(-5)]).chain == ""


def test_a_key_of_several_fields() -> None:
    line = read_rule(
        [
            DESTINATION,
            ("meta", {1: number(SECOND), 2: number(16)}),
            load(2, 2, 2, THIRD),
            ("lookup", {1: b"services\0", 2: number(REGISTER), 3: number(0)}),
        ]
    )
    (lookup,) = line.lookups
    key = WEB_IP + b"\6\0\0\0" + b"\0\x50\0\0"
    assert lookup.names_destinations
    assert lookup.destinations(key, key) == TO_WEB


def test_ranges_in_both_ways_that_the_kernel_lists_them() -> None:
    assert ranges([(b"\1", b"\3", 0), (b"\7", None, 0)]) == [(b"\1", b"\3", 0), (b"\7", b"\7", 1)]
    assert ranges([(b"\4", None, 1), (b"\1", None, 0), (b"\7", None, 0)]) == [
        (b"\1", b"\3", 1),
        (b"\7", b"\xff", 2),
    ]


class Table:
    """The rules of a table."""

    def __init__(
        self, chains: Mapping[str, Sequence[Line]], elements: Sequence[tuple[Destinations, str]] = ()
    ) -> None:
        self._chains = chains
        self._set = elements

    def lines(self, chain: str) -> Sequence[Line]:
        """Of a chain."""
        return self._chains.get(chain, ())

    def elements(self, lookup: Lookup) -> Iterable[tuple[Destinations | None, str]]:
        """Of the one set there is."""
        return [(named if lookup.names_destinations else None, chain) for named, chain in self._set]


def line(
    named: Destinations | None = None,
    chain: str = "",
    *,
    translates: bool = False,
    sure: bool = True,
    lookups: tuple[Lookup, ...] = (),
) -> Line:
    return Line(named, ANYWHERE, sure, lookups, chain, translates)


TRANSLATES = {"pod": [line(translates=True)], "service": [line(chain="pod")], "mark": [line()]}
BY_ADDRESS = Lookup("services", {"destination": (0, 4)}, inverted=False)
ALL_BUT = BY_ADDRESS._replace(inverted=True)
ENDLESS = {str(number): [line(chain=str(number + 1))] for number in range(2 * MOST_CHAINS)}

TABLES: dict[str, tuple[Table, set[Frontend]]] = {
    "it translates": (Table({"base": [line(TO_WEB, translates=True)]}), {WEB}),
    "it leads to what translates": (Table({"base": [line(TO_WEB, "service")], **TRANSLATES}), {WEB}),
    "it leads to what does not": (Table({"base": [line(TO_WEB, "mark")], **TRANSLATES}), set()),
    "chains before the address": (
        Table({"base": [line(chain="a", sure=False)], "a": [line(TO_WEB, "pod")], **TRANSLATES}),
        {WEB},
    ),
    "a network is looked into": (
        Table({"base": [line(Destinations(IP, NEXT_IP), "a")], "a": [line(TO_WEB, "pod")], **TRANSLATES}),
        {WEB},
    ),
    "everything": (Table({"base": [line(translates=True)]}), {WEB, DNS, NEXT}),
    "something that is not known": (Table({"base": [line(translates=True, sure=False)]}), set()),
    "a map to chains": (
        Table(
            {"base": [line(lookups=(BY_ADDRESS,))], **TRANSLATES},
            [(TO_WEB, "service"), (Destinations(NEXT_IP, NEXT_IP), "mark")],
        ),
        {WEB},
    ),
    "a set, and then a jump": (
        Table({"base": [line(chain="pod", lookups=(BY_ADDRESS,))], **TRANSLATES}, [(TO_WEB, "")]),
        {WEB},
    ),
    "what is not in a set": (
        Table({"base": [line(translates=True, lookups=(ALL_BUT,))]}, [(TO_WEB, "")]),
        set(),
    ),
    "chains without end": (
        Table({"base": [line(TO_WEB, "0")], **ENDLESS}),
        {WEB},
    ),
}


@pytest.mark.parametrize(("table", "expected"), TABLES.values(), ids=TABLES)
def test_what_a_chain_takes(table: Table, expected: set[Frontend]) -> None:
    assert taken(FRONTENDS, ["base"], table).keys() == expected


def chain(table: str, number: int, priority: int = -100, handle: int = 1) -> NatChain:
    return NatChain("inet" if table == "userproxy" else "ip", table, "pre", priority, handle, number)


OURS = chain("userproxy", 5)


def names(chains: Sequence[NatChain], order: Order | None = None, *, legacy: bool = False) -> list[str]:
    before, legacy_too = (order or Order()).earlier(chains, legacy=legacy)
    return [each.table for each in before] + ["legacy"] * legacy_too


def test_lower_priorities_are_asked_first_and_of_equals_the_youngest() -> None:
    assert names([OURS, chain("low", 1, -101), chain("high", 9, -99)]) == ["low"]
    assert names([OURS, chain("older", 4), chain("younger", 6)]) == ["younger"]


def test_a_chain_that_comes_to_an_old_table_is_younger_than_ours() -> None:
    order = Order()
    assert names([OURS, chain("nat", 4)], order) == []
    assert names([OURS, chain("nat", 4), chain("nat", 4, handle=9)], order) == ["nat"]
    assert names([OURS, chain("nat", 4, handle=9)], order) == ["nat"], "made anew"
    ours_anew = chain("userproxy", 7)
    assert names([ours_anew, chain("nat", 4, handle=9)], order) == [], "and so are ours now"


def test_the_old_iptables_is_younger_if_it_came_later() -> None:
    order = Order()
    assert names([OURS], order, legacy=True) == []
    assert names([OURS], order, legacy=False) == []
    assert names([OURS], order, legacy=True) == ["legacy"]


@pytest.mark.parametrize(
    ("taker", "owner"),
    [
        (Taker("ip kube-proxy", "services"), "kube-proxy"),
        (Taker("ip nat", "KUBE-SERVICES"), "kube-proxy"),
        (Taker("nat (iptables-legacy)", "CILIUM_PRE_nat"), "Cilium"),
        (Taker("ip someone", "pre"), ""),
    ],
)
def test_owners_are_told_by_their_names(taker: Taker, owner: str) -> None:
    assert taker.owner == owner
    message = taker.message(WEB)
    assert message.startswith("10.3.0.1:80/TCP is taken by ")
    assert ("stop kube-proxy" in message) is (owner == "kube-proxy")
