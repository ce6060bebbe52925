"""Which of our frontends somebody else's nat chains take before ours see a packet. Pure.

Of all nat chains at a hook, the kernel asks one after the other until one has given the connection a
destination: by priority, and of those with the same one the youngest first (`nf_hook_entries_grow` puts a
hook before its equals). So whoever names the address of a Service of ours in a chain before ours takes its
connections, and neither our rules nor our listeners ever hear of them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, NamedTuple, Protocol

from userproxy.model.service import Protocol as IpProtocol
from userproxy.netfilter.bypass.rules import ANY_FAMILY, EVERY_ADDRESS, number_of_text
from userproxy.netfilter.ruleset.chains import DSTNAT_PRIORITY
from userproxy.netfilter.ruleset.language import TABLE, TCP, UDP

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from userproxy.model.state import Frontend
    from userproxy.netfilter.bypass.rules import Destinations, Line, Lookup

MOST_CHAINS = 200
"""So many chains of one table are looked into for addresses, and so many for what becomes of these: one that
is beyond is taken to translate."""

_NUMBERS = {IpProtocol.TCP: TCP, IpProtocol.UDP: UDP}
_OWNERS = {
    "kube-proxy": "kube-proxy",
    "KUBE-": "kube-proxy",
    "CILIUM": "Cilium",
    "OLD_CILIUM": "Cilium",
    "cilium": "Cilium",
    "cali-": "Calico",
    "DOCKER": "Docker",
    "CNI-HOSTPORT": "the portmap plugin",
    "firewalld": "firewalld",
}
KUBE_PROXY = "kube-proxy"


class NatChain(NamedTuple):
    """A base chain of type nat, where destinations are translated.

    Attributes:
        family: `ip`, `ip6` or `inet`.
        table: its table.
        name: its own.
        priority: lower ones are asked first.
        handle: tells it from another one of that name, before or after it.
        number: of its table: it rises from one table to the next that is made.
    """

    family: str
    table: str
    name: str
    priority: int
    handle: int
    number: int

    @property
    def is_ours(self) -> bool:
        """Whether it is in our table."""
        return (self.family, self.table) == ("inet", TABLE)


class Taker(NamedTuple):
    """Who takes the connections to a frontend.

    Attributes:
        table: `ip kube-proxy`, or whatever else says where the rule is.
        chain: with the rule.
    """

    table: str
    chain: str

    @property
    def owner(self) -> str:
        """Whose it is, as far as names tell; empty if they do not."""
        names = (self.table.rpartition(" ")[2], self.chain)
        return next((owner for name in names for sign, owner in _OWNERS.items() if name.startswith(sign)), "")

    def message(self, frontend: Frontend) -> str:
        """One line: what is wrong, and the remedy."""
        who = f"{self.owner}, " if self.owner else "a rule of somebody else, "
        remedy = "remove it, or the address from it"
        if self.owner == KUBE_PROXY:
            remedy = (
                "stop kube-proxy, or label the Service service.kubernetes.io/service-proxy-name "
                "and name it with --service-proxy-name"
            )
        return (
            f"{frontend.address}/{frontend.protocol} is taken by {who}"
            f"chain {self.chain} of table {self.table}, before we see it: {remedy}"
        )


class Rules(Protocol):
    """The chains and sets of one table, read when they are asked for."""

    def lines(self, chain: str) -> Sequence[Line]:
        """The rules of a chain."""

    def elements(self, lookup: Lookup) -> Iterable[tuple[Destinations | None, str]]:
        """What a rule finds in a set: destinations, if the keys have them, and the chain under each."""


class Order:
    """Who is asked before us, as far as can be known. Lives as long as the daemon.

    The kernel does not tell the order of chains with the same priority, so it is told by what was there
    when ours were first seen; and then by the order of the tables, since a chain is hardly ever younger.
    """

    def __init__(self) -> None:
        self._ours = 0
        self._older: frozenset[NatChain] = frozenset()
        self._legacy_is_older = True

    def earlier(self, chains: Collection[NatChain], *, legacy: bool) -> tuple[list[NatChain], bool]:
        """The chains of others that are asked before ours; and whether those of the old iptables are.

        Args:
            chains: all that there are now.
            legacy: whether the old iptables has any.
        """
        ours = max((chain.number for chain in chains if chain.is_ours), default=0)
        if ours != self._ours:
            self._ours, self._legacy_is_older = ours, legacy
            self._older = frozenset(chain for chain in chains if chain.number < ours)
        self._legacy_is_older &= legacy
        before = [
            chain
            for chain in chains
            if not chain.is_ours
            and (
                chain.priority < DSTNAT_PRIORITY
                or (chain.priority == DSTNAT_PRIORITY and chain not in self._older)
            )
        ]
        return sorted(before), legacy and not self._legacy_is_older


def taken(frontends: Collection[Frontend], bases: Collection[str], rules: Rules) -> dict[Frontend, str]:
    """The frontends that a table's base chains take, each with the chain in which the rule is."""
    named = _Frontends(frontends)
    looking = _Looking(rules)
    found: dict[Frontend, str] = {}
    for destinations, chain, target in looking.claims(bases):
        for frontend in named.among(destinations):
            if frontend not in found and (not target or looking.translates(target)):
                found[frontend] = chain
    return found


class _Frontends:
    """The frontends by address, to be found by ranges."""

    def __init__(self, frontends: Iterable[Frontend]) -> None:
        self._sorted = sorted((number_of_text(each.address.ip), each) for each in frontends)
        self._ips = [ip for ip, _ in self._sorted]

    def among(self, destinations: Destinations) -> Iterator[Frontend]:
        """Those that are among these destinations."""
        begin = bisect_left(self._ips, destinations.first)
        end = bisect_right(self._ips, destinations.last)
        for ip, frontend in self._sorted[begin:end]:
            if destinations.has(ip, _NUMBERS[frontend.protocol], frontend.address.port):
                yield frontend


class _Looking:
    """A walk through the chains of one table, none of them twice."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._judged = 0
        self._translating: dict[str, bool] = {}

    def claims(self, bases: Collection[str]) -> Iterator[tuple[Destinations, str, str]]:
        """Destinations that rules name, with the rule's chain, and where it sends them; empty: translates."""
        ways, seen = [(base, True, EVERY_ADDRESS[ANY_FAMILY]) for base in bases], set(bases)
        while ways and len(seen) <= MOST_CHAINS:
            chain, sure, bounds = ways.pop(0)
            for line in (_within(line, bounds) for line in self._rules.lines(chain)):
                yield from self._claims_of(line, chain, sure=sure)
                further = [] if _is_single(line.destinations) else [line.chain]
                further += [
                    target
                    for lookup in line.lookups
                    if not lookup.names_destinations
                    for _, target in self._rules.elements(lookup)
                ]
                for target in further:
                    if target and target not in seen:
                        seen.add(target)
                        bounds_there = (line.rest.first, line.rest.last)
                        ways.append((target, sure and line.sure and not line.lookups, bounds_there))

    def _claims_of(self, line: Line, chain: str, *, sure: bool) -> Iterator[tuple[Destinations, str, str]]:
        if line.destinations is not None and line.translates:
            yield line.destinations, chain, ""
        elif line.destinations is not None and line.chain and _is_single(line.destinations):
            yield line.destinations, chain, line.chain
        elif line.translates and sure and line.sure and not line.lookups:
            yield line.rest, chain, ""
        for lookup in line.lookups:
            if lookup.names_destinations:
                for destinations, target in self._rules.elements(lookup):
                    whither = target or line.chain
                    if destinations is not None and (whither or line.translates):
                        yield destinations, chain, "" if line.translates else whither

    def translates(self, chain: str) -> bool:
        """Whether packets in that chain, or in those that it leads to, may get another destination."""
        if chain not in self._translating:
            self._translating[chain] = False  # while it is looked at: chains have no loops
            self._judged += 1
            if self._judged > MOST_CHAINS:
                self._translating[chain] = True
            else:
                lines = self._rules.lines(chain)
                self._translating[chain] = any(line.translates for line in lines) or any(
                    self.translates(target) for line in lines for target in self._targets(line)
                )
        return self._translating[chain]

    def _targets(self, line: Line) -> Iterator[str]:
        if line.chain:
            yield line.chain
        for lookup in line.lookups:
            yield from (target for _, target in self._rules.elements(lookup) if target)


def _within(line: Line, bounds: tuple[int, int]) -> Line:
    """What is left of a rule where only packets of one family get that far."""
    rest = line.rest
    return line._replace(rest=rest._replace(first=max(rest.first, bounds[0]), last=min(rest.last, bounds[1])))


def _is_single(destinations: Destinations | None) -> bool:
    return destinations is not None and destinations.first == destinations.last
