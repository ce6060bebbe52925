"""Connections of workers that get the address of the client that they are for.

A worker says so by a datagram (`userproxy.model.vouching`), which is noted and goes nowhere. Its connection
begins in the same moment, and is given that address before anybody else's source nat is asked: what has a
source from here is not masqueraded there. The answers find their way back by conntrack alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from userproxy.model.vouching import VOUCH_BITS, VOUCH_MARK, VOUCH_PORT
from userproxy.netfilter.ruleset.language import (
    TCP,
    UDP,
    Chain,
    Equals,
    Erase,
    Field,
    Goto,
    Hook,
    Masked,
    Note,
    Rule,
    Simple,
    SnatBy,
)
from userproxy.netfilter.ruleset.sets import each

if TYPE_CHECKING:
    from userproxy.netfilter.ruleset.sets import Family

KEEP_PRIORITY = 95
"""Before everybody's srcnat at 100."""

_VOUCHED = "vouched"


def vouching() -> Rule:
    """For what the host sends, before conntrack sees it."""
    marked = Masked(Field.MARK, VOUCH_BITS, VOUCH_MARK)
    return Rule((marked, Equals(Field.PROTOCOL, UDP)), Goto(_VOUCHED))


def vouching_chains() -> tuple[Chain, ...]:
    """What becomes of it, and of the connections."""
    return (
        Chain(_VOUCHED, (*each(_noted), Rule((), Simple.DROP))),
        Chain("keep-postrouting", each(_kept), Hook("nat", "postrouting", KEEP_PRIORITY)),
    )


def _noted(family: Family) -> tuple[Rule, ...]:
    """Noted anew: a rule leaves what a map has under a key already."""
    udp = (Equals(Field.FAMILY, family.number), Equals(Field.PROTOCOL, UDP))
    forget = Erase((Field.USER,), family.clients.name, data=(family.destination,))
    note = Note((Field.USER,), family.clients.name, data=(family.destination,))
    return (
        Rule((*udp, forget), Simple.CONTINUE),
        Rule((*udp, Equals(Field.PORT, VOUCH_PORT), note), Simple.DROP),
    )


def _kept(family: Family) -> tuple[Rule, ...]:
    tcp = (Equals(Field.FAMILY, family.number), Equals(Field.PROTOCOL, TCP))
    return (Rule(tcp, SnatBy((Field.USER,), family.clients.name, family.address)),)
