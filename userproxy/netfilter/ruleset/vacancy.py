"""What is done about a listener where nobody listens any more: all processes have been killed, say.

Heartbeats are believed for a while. Here the first packet that finds no socket is noted, so that the next
ones go to the pods; and a connection that was reset is forgotten at once, or conntrack would lead a client
that comes again from the same port to where its old connection went.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from userproxy.netfilter.ruleset.language import (
    TCP,
    Chain,
    Equals,
    Field,
    Goto,
    HasAny,
    In,
    Note,
    Rule,
    Simple,
    Timeout,
    Times,
)
from userproxy.netfilter.ruleset.sets import FAMILIES, each

if TYPE_CHECKING:
    from userproxy.netfilter.ruleset.sets import Family, Side

LANDING = "landing"
"""The chain for new packets that have been translated and are for this host."""

STATUS_CONFIRMED = 0x08
"""IPS_CONFIRMED: conntrack has an entry for it already (linux/netfilter/nf_conntrack_common.h)."""

CLOSED_SECONDS = 0
"""For which conntrack remembers where a connection was sent that has been reset; by default it is 10."""


_LOST = "lost"


def landings() -> tuple[Chain, ...]:
    """If nobody listens where a packet was sent, it is lost, and no other one is.

    Lost without a word, so that its client sends it again, and conntrack knows nothing of where it went. What
    the host itself sends has an entry since it left, and can only be refused.
    """
    known = HasAny(Field.STATUS, STATUS_CONFIRMED)
    lost = Chain(_LOST, (Rule((known,), Simple.ACCEPT), Rule((), Simple.DROP)))

    def landing(family: Family) -> tuple[Rule, ...]:
        return (Rule(family.candidate, Goto(_landing(family).name)),)

    return (lost, *map(_landing, FAMILIES), Chain(LANDING, each(landing)))


def no_memory(family: Family, side: Side) -> Rule:
    """For a new connection that is sent to a listener; one to a pod is remembered as usual."""
    tcp = (Equals(Field.FAMILY, family.number), Equals(Field.PROTOCOL, TCP))
    listened = In(family.frontend, side.listeners.name)
    return Rule((*tcp, listened, Times(timeout(family).name)), Simple.CONTINUE)


def timeout(family: Family) -> Timeout:
    """What that rule speaks of."""
    return Timeout(f"relayed{family.suffix}", family.number, CLOSED_SECONDS)


def _landing(family: Family) -> Chain:
    listener = In(family.frontend, family.guarded.name)
    note = Note(family.original_frontend, family.vacant.name)

    def vacant(fallback: str) -> Rule:
        behind = In(family.original_frontend, fallback)
        return Rule((*family.candidate, listener, behind, note), Goto(_LOST))

    return Chain(
        f"{LANDING}{family.suffix}",
        (
            Rule((Equals(Field.TRANSPARENT, 0),), Simple.ACCEPT),
            vacant(family.anywhere.fallback.name),
            vacant(family.outside.fallback.name),
        ),
    )
