"""The chains that are made when they are first needed: to pick a pod, to pin clients, to ask who serves.

There is one for each number of pods, for each time that clients keep theirs, for each number of connections
that may live, and for each number of workers, whatever the number of Services.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from userproxy.model.heartbeat import mark_of
from userproxy.model.steering import CHOSEN
from userproxy.netfilter.ruleset.language import (
    TCP,
    UDP,
    Chain,
    Constant,
    DnatBy,
    Equals,
    Field,
    Goto,
    HasAny,
    In,
    Masked,
    Note,
    Over,
    Random,
    Rule,
    Simple,
    Tally,
)
from userproxy.netfilter.ruleset.sets import ALIVE, OUTSIDE_PREFIX, REFUSE, TURNED_AWAY, each
from userproxy.netfilter.ruleset.steering import Queue, steering_chains
from userproxy.netfilter.ruleset.vacancy import STATUS_CONFIRMED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from userproxy.netfilter.ruleset.sets import Family

_NAME = re.compile(
    r"(outside-)?(?:(sticky-)?pick-([1-9][0-9]*)|pin-for-([1-9][0-9]*)|relay-([1-9][0-9]*)|queue-([1-9][0-9]*)|"
    r"(steered-)?limit-(0|[1-9][0-9]*)-each-(0|[1-9][0-9]*))"
)


class Pick(NamedTuple):
    """A chain that picks one of `size` pods evenly: one for all frontends that have so many.

    Attributes:
        size: above 0.
        sticky: a client that is pinned to a pod goes there.
        outside: for frontends that only packets from outside are meant for.
    """

    size: int
    sticky: bool = False
    outside: bool = False

    @property
    def name(self) -> str:
        """The chain's name: `pick-3`, `outside-sticky-pick-3`."""
        outside, sticky = OUTSIDE_PREFIX * self.outside, "sticky-" * self.sticky
        return f"{outside}{sticky}pick-{self.size}"

    @property
    def chain(self) -> Chain:
        """The chain itself."""
        return Chain(self.name, each(self._rules))

    def _rules(self, family: Family) -> tuple[Rule, ...]:
        side, candidate, key = family.side(outside=self.outside), family.candidate, family.frontend
        used = Note(key, side.used.name)
        pick = DnatBy((*key, Random(self.size)), side.pods.name, family.address)
        if not self.sticky:
            return (Rule((*candidate, used), pick),)
        return (
            Rule((*candidate, used), Simple.CONTINUE),
            Rule(candidate, DnatBy((family.source, *key), side.pins.name, family.address)),
            Rule(candidate, pick),
        )


class Pin(NamedTuple):
    """A chain that pins a client to the pod where its connection goes: one for all frontends of one time.

    Attributes:
        seconds: for which the client keeps it after its last new connection; above 0.
        outside: for frontends that only packets from outside are meant for.
    """

    seconds: int
    outside: bool = False

    @property
    def name(self) -> str:
        """The chain's name: `pin-for-10800`, `outside-pin-for-10800`."""
        return f"{OUTSIDE_PREFIX * self.outside}pin-for-{self.seconds}"

    @property
    def chain(self) -> Chain:
        """The chain itself."""
        return Chain(self.name, each(self._rules))

    def _rules(self, family: Family) -> tuple[Rule, ...]:
        pins = family.side(outside=self.outside).pins.name
        client = (family.source, *family.original_frontend)
        note = Note(client, pins, data=family.pod, seconds=self.seconds)
        return (Rule((*family.candidate, note), Simple.CONTINUE),)


class Relay(NamedTuple):
    """A chain that sends packets to our listeners, if somebody accepts clients there.

    All workers accept from each TCP listener, so one that is alive will do. A UDP listener is read by one of
    them, and which one that is a rule cannot tell: all must be alive.

    Attributes:
        workers: how many there are; above 0.
        outside: for frontends that only packets from outside are meant for.
    """

    workers: int
    outside: bool = False

    @property
    def name(self) -> str:
        """The chain's name: `relay-2`, `outside-relay-2`."""
        return f"{OUTSIDE_PREFIX * self.outside}relay-{self.workers}"

    @property
    def chain(self) -> Chain:
        """The chain itself."""
        return Chain(self.name, each(self._rules))

    def _rules(self, family: Family) -> tuple[Rule, ...]:
        tcp, udp = (
            (Equals(Field.FAMILY, family.number), Equals(Field.PROTOCOL, number)) for number in (TCP, UDP)
        )
        alive = [In((Constant(mark_of(index)),), ALIVE.name) for index in range(self.workers)]
        relayed = Goto(family.side(outside=self.outside).relayed)
        return (*(Rule((*tcp, one), relayed) for one in alive), Rule((*udp, *alive), relayed))


class Limit(NamedTuple):
    """A chain that refuses a connection too many: one for all frontends that may have so many.

    Attributes:
        most: that a frontend may have; 0: any number.
        each: that a client may have there; 0: any number. One of the two is above 0.
        steered: who has been chosen a pod for is counted and let through: whoever chose has counted too.
    """

    most: int
    each: int
    steered: bool = False

    @property
    def name(self) -> str:
        """The chain's name: `limit-100-each-5`, `steered-limit-0-each-5`."""
        return f"{'steered-' * self.steered}limit-{self.most}-each-{self.each}"

    @property
    def chain(self) -> Chain:
        """The chain itself: a packet of a connection that conntrack knows already is not its first one."""
        known = Rule((HasAny(Field.STATUS, STATUS_CONFIRMED),), Simple.ACCEPT)
        return Chain(self.name, (known, *each(self._rules)))

    def _rules(self, family: Family) -> tuple[Rule, ...]:
        """Whoever is refused for his own connections is not counted among everybody's.

        The limit is part of the key: the kernel never changes that of a count.
        """
        key = family.frontend
        clients = (family.source, *key, Random(1, self.each)), family.counted_clients.name, self.each
        anybody = (*key, Random(1, self.most)), family.counted.name, self.most
        unchosen = (Masked(Field.MARK, CHOSEN, 0),) if self.steered else ()
        return tuple(
            Rule((*family.candidate, Over(*limit), *unchosen, Tally(TURNED_AWAY)), Goto(REFUSE))
            for limit in (clients, anybody)
            if limit[-1]
        )


Made = Pick | Pin | Relay | Queue | Limit


def parse(name: str) -> Made | None:
    """What a chain of this name does; None if it is none of these."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    prefix, sticky, size, seconds, workers, queues, steered, most, most_each = found.groups()
    outside = bool(prefix)
    if queues:
        return None if outside else Queue(int(queues))
    if most:
        no_limit = most == most_each == "0"
        return None if outside or no_limit else Limit(int(most), int(most_each), bool(steered))
    if workers:
        return Relay(int(workers), outside)
    return Pick(int(size), bool(sticky), outside) if size else Pin(int(seconds), outside)


def made_among(names: Iterable[str]) -> frozenset[Made]:
    """The chains of these names, as far as they are such."""
    return frozenset(made for made in map(parse, names) if made is not None)


def chains_made(
    made: Iterable[Made], known: Iterable[Made] = (), *, as_target: bool = False
) -> tuple[Chain, ...]:
    """All chains to be made for these, in an order of names.

    Args:
        made: what they do.
        known: what those do that are there.
        as_target: packets are queued in the words of iptables.
    """
    ordered = sorted(made, key=lambda one: one.name)
    first = _has_queues(ordered) and not _has_queues(known)
    chains = tuple(one.as_target if as_target and isinstance(one, Queue) else one.chain for one in ordered)
    return (*(steering_chains() if first else ()), *chains)


def _has_queues(made: Iterable[Made]) -> bool:
    return any(isinstance(one, Queue) for one in made)
