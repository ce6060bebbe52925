"""Where new connections to steered frontends lead: a steering process is asked, by their first packets.

A SYN is asked for before conntrack sees it, so that one that is sent again may be led elsewhere. A datagram
is asked for behind conntrack, which knows whether it is its flow's first. Whoever is asked answers in the
packet's mark (`userproxy.model.steering`). Where nobody listens, the packet goes on, and the rules choose.

A pod that refuses is heard by nobody but conntrack, which forgets the connection: the client sends its SYN
again, and is led elsewhere. Nor is whoever says by ICMP that a pod cannot be reached.

These chains are made with the first steered frontend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from userproxy.model.steering import CHOSEN, FIRST_QUEUE, INDEX_BITS, MARK_BITS, OUTSIDE
from userproxy.netfilter.ruleset import language
from userproxy.netfilter.ruleset.language import (
    TCP,
    UDP,
    Bits,
    Chain,
    DnatBy,
    Equals,
    Field,
    Goto,
    HasAny,
    Hook,
    In,
    JumpBy,
    Mark,
    Masked,
    Rule,
    Simple,
)
from userproxy.netfilter.ruleset.sets import FAMILIES, OUTSIDE_PREFIX, STEER, each
from userproxy.netfilter.ruleset.vacancy import STATUS_CONFIRMED

if TYPE_CHECKING:
    from userproxy.netfilter.ruleset.language import Match
    from userproxy.netfilter.ruleset.sets import Family

ASK_PRIORITY = -290
"""Behind what hearts say, before conntrack."""
ASK_UDP_PRIORITY = -150
"""Behind conntrack."""
WITHHOLD_PRIORITY = -149
"""Behind conntrack, too."""
CHOSEN_PRIORITY = -101
"""Before the rules choose."""
SETTLE_PRIORITY = -90
"""Behind all of dstnat."""

_STATE_RELATED, _STATE_NEW = 0x04, 0x08
_FIN_SYN_RST_ACK, _SYN, _RST_ACK = 0x17, 0x02, 0x14
_REPLY = 1  # IP_CT_DIR_REPLY
STATUS_SEEN_REPLY, STATUS_ASSURED, STATUS_DYING = 0x02, 0x04, 0x200
"""IPS_SEEN_REPLY: there was an answer. IPS_ASSURED: the handshake was completed. IPS_DYING: conntrack has
just deleted the entry. It does so at once if a reset is all that ever answered, not if one comes later
(linux/netfilter/nf_conntrack_common.h)."""
_OTHERS_BITS = 0xFFFFFFFF & ~MARK_BITS

_FIRST_SEGMENT = Equals(Field.PROTOCOL, TCP), Masked(Field.TCP_FLAGS, _FIN_SYN_RST_ACK, _SYN)
_NEW_DATAGRAM = Equals(Field.PROTOCOL, UDP), HasAny(Field.STATE, _STATE_NEW)
# The answer to a SYN acknowledges it (RFC 9293, section 3.10.7.1). A reset that acknowledges nothing is for a
# segment of a connection that conntrack had forgotten, and has picked up again: its client is to hear it.
_REFUSAL = Equals(Field.PROTOCOL, TCP), Masked(Field.TCP_FLAGS, _RST_ACK, _RST_ACK)
_WITHHOLD, _WITHHOLD_ERROR = "withhold", "withhold-error"
_ASK, _ARRIVING, _OWN = "ask", "ask-arriving", "ask-own"
_CHOSEN_ARRIVING, _CHOSEN_OWN, _SETTLE, _UNMARK = "chosen-arriving", "chosen-own", "settle", "unmark"


class Queue(NamedTuple):
    """A chain that has packets wait for the steering processes, each of which reads a queue.

    Attributes:
        size: how many there are; above 0.
    """

    size: int

    @property
    def name(self) -> str:
        """The chain's name: `queue-1`."""
        return f"queue-{self.size}"

    @property
    def chain(self) -> Chain:
        """The chain itself."""
        return Chain(self.name, (Rule((), language.Queue(FIRST_QUEUE, self.size)),))

    @property
    def as_target(self) -> Chain:
        """The same in the words of iptables."""
        return Chain(self.name, (Rule((), language.Queue(FIRST_QUEUE, self.size, as_target=True)),))


def steering_chains() -> tuple[Chain, ...]:
    """All others; which queue asks, `STEER` says."""
    return (*_ask_chains(), *_chosen_chains(), *_settle_chains(), *_withhold_chains())


def _ask_chains() -> tuple[Chain, ...]:
    """To the queue, without any of our bits that others have set: they would be taken for an answer.

    Nobody is asked for a packet that is refused whatever he says: he would count a connection that never is.
    """

    def queued(name: str, bits: int) -> Chain:
        to_queue = Rule((), JumpBy((Field.FAMILY,), STEER.name))
        return Chain(name, (Rule((), Mark(_OTHERS_BITS, bits)), to_queue))

    def sorted_out(family: Family) -> Chain:
        return Chain(
            f"asked{family.suffix}",
            (
                Rule((*family.candidate, *family.stranger), Simple.ACCEPT),
                Rule((*family.candidate, *family.from_outside, *family.closed), Simple.ACCEPT),
                Rule(_apart(family), Goto(OUTSIDE_PREFIX + _ASK)),
                Rule((), Goto(_ASK)),
            ),
        )

    def arriving(family: Family) -> tuple[Rule, ...]:
        return (Rule(_steered(family), Goto(f"asked{family.suffix}")),)

    def own(family: Family) -> tuple[Rule, ...]:
        return (
            Rule((*_steered(family), *family.stranger), Simple.ACCEPT),
            Rule(_steered(family), Goto(_ASK)),
        )

    def hooked(point: str, chain: str) -> tuple[Chain, ...]:
        known = Rule((*_NEW_DATAGRAM, HasAny(Field.STATUS, STATUS_CONFIRMED)), Simple.ACCEPT)
        rules = (Rule(_FIRST_SEGMENT, Goto(chain)),), (known, Rule(_NEW_DATAGRAM, Goto(chain)))
        return (
            Chain(f"ask-{point}", rules[0], Hook("filter", point, ASK_PRIORITY)),
            Chain(f"ask-udp-{point}", rules[1], Hook("filter", point, ASK_UDP_PRIORITY)),
        )

    return (
        queued(_ASK, 0),
        queued(OUTSIDE_PREFIX + _ASK, OUTSIDE),
        *map(sorted_out, FAMILIES),
        Chain(_ARRIVING, each(arriving)),
        Chain(_OWN, each(own)),
        *hooked("prerouting", _ARRIVING),
        *hooked("output", _OWN),
    )


def _chosen_chains() -> tuple[Chain, ...]:
    """To the pod that was chosen; if it has just left, the rules choose."""

    def chosen(family: Family, *, outside: bool) -> Rule:
        pods = family.side(outside=outside).pods.name
        key = (*family.frontend, Bits(Field.MARK, INDEX_BITS))
        return Rule(_steered(family), DnatBy(key, pods, family.address))

    def from_outside(family: Family) -> Chain:
        return Chain(f"outside-chosen{family.suffix}", (chosen(family, outside=True),))

    def arriving(family: Family) -> tuple[Rule, ...]:
        return Rule(_apart(family), Goto(f"outside-chosen{family.suffix}")), chosen(family, outside=False)

    def own(family: Family) -> tuple[Rule, ...]:
        return (chosen(family, outside=False),)

    def hooked(point: str, chain: str) -> Chain:
        by_mark = Rule((HasAny(Field.MARK, CHOSEN),), Goto(chain))
        return Chain(f"chosen-{point}", (by_mark,), Hook("nat", point, CHOSEN_PRIORITY))

    return (
        *map(from_outside, FAMILIES),
        Chain(_CHOSEN_ARRIVING, each(arriving)),
        Chain(_CHOSEN_OWN, each(own)),
        hooked("prerouting", _CHOSEN_ARRIVING),
        hooked("output", _CHOSEN_OWN),
    )


def _settle_chains() -> tuple[Chain, ...]:
    """Whoever was asked for leaves without our bits, be the connection known to conntrack or not."""

    def unmark(family: Family) -> tuple[Rule, ...]:
        """Also of what conntrack calls invalid, and so nobody has translated: a wrong checksum, say."""
        steered = In(family.original_frontend, family.steered.name)
        clear = Mark(_OTHERS_BITS, 0)
        return Rule((*family.candidate, steered), clear), Rule(_steered(family), clear)

    def hooked(point: str) -> Chain:
        ours = Rule((HasAny(Field.MARK, MARK_BITS),), Goto(_SETTLE))
        return Chain(f"settle-{point}", (ours,), Hook("filter", point, SETTLE_PRIORITY))

    return (
        Chain(_UNMARK, each(unmark)),
        Chain(_SETTLE, (Rule(_FIRST_SEGMENT, Goto(_UNMARK)), Rule(_NEW_DATAGRAM, Goto(_UNMARK)))),
        hooked("prerouting"),
        hooked("output"),
    )


def _withhold_chains() -> tuple[Chain, ...]:
    """A pod's refusal, be it its reset for an answer to a SYN or anybody's ICMP error, goes no further."""
    answers = Equals(Field.DIRECTION, _REPLY)
    refuses = answers, Masked(Field.STATUS, STATUS_ASSURED | STATUS_DYING, STATUS_DYING)

    def withhold(family: Family) -> tuple[Rule, ...]:
        steered = In(family.original_frontend, family.steered.name)
        return (Rule((*family.candidate, steered, *refuses), Simple.DROP),)

    def withhold_error(family: Family) -> tuple[Rule, ...]:
        """The error is of another protocol than the connection."""
        of_tcp = Equals(Field.FAMILY, family.number), Equals(Field.CONNECTION_PROTOCOL, TCP)
        frontend = (family.original_destination, Field.CONNECTION_PROTOCOL, Field.ORIGINAL_PORT)
        return (Rule((*of_tcp, In(frontend, family.steered.name), answers), Simple.DROP),)

    def hooked(point: str) -> Chain:
        error = Rule((HasAny(Field.STATE, _STATE_RELATED),), Goto(_WITHHOLD_ERROR))
        hook = Hook("filter", point, WITHHOLD_PRIORITY)
        return Chain(f"withhold-{point}", (Rule(_REFUSAL, Goto(_WITHHOLD)), error), hook)

    lives = Rule((HasAny(Field.STATUS, STATUS_SEEN_REPLY),), Simple.ACCEPT)
    return (
        Chain(_WITHHOLD, each(withhold)),
        Chain(_WITHHOLD_ERROR, (lives, *each(withhold_error))),
        hooked("prerouting"),
        hooked("output"),
    )


def _steered(family: Family) -> tuple[Match, ...]:
    """Holds for a packet to a steered frontend."""
    return (*family.candidate, In(family.frontend, family.steered.name))


def _apart(family: Family) -> tuple[Match, ...]:
    """Holds for a packet from outside to a frontend that means another one to these."""
    return (*family.candidate, *family.from_outside, In(family.frontend, family.own.name))
