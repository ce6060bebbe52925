"""The rules. README.md in the folder above draws the hooks and says why each is as it is.

A hook sends a packet to the chains of its family, which have its rules and no others: so no packet pays for
the rules of the other family but with one comparison.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from userproxy.model import steering
from userproxy.model.heartbeat import BEAT_PORT, MARK_BITS, MARKS
from userproxy.netfilter.ruleset import vacancy, vouching
from userproxy.netfilter.ruleset.language import (
    TCP,
    UDP,
    Chain,
    DnatBy,
    Equals,
    Erase,
    Field,
    Goto,
    HasAny,
    Hook,
    In,
    JumpBy,
    Masked,
    Note,
    NotIn,
    Random,
    Rule,
    Ruleset,
    Simple,
)
from userproxy.netfilter.ruleset.made import chains_made
from userproxy.netfilter.ruleset.sets import (
    ALIVE,
    FAMILIES,
    OUTSIDE_PREFIX,
    OUTSIDE_RELAY,
    REFUSE,
    RELAY,
    SETS,
    TURNED_AWAY,
    UPLINKS,
    each,
)

if TYPE_CHECKING:
    from userproxy.netfilter.ruleset.made import Made
    from userproxy.netfilter.ruleset.sets import Family, Side

STATE_INVALID, STATE_ESTABLISHED, STATE_RELATED, STATE_NEW = 0x01, 0x02, 0x04, 0x08
STATUS_DNAT = 0x20
"""IPS_DST_NAT: the connection's destination has been rewritten (linux/netfilter/nf_conntrack_common.h)."""

HEART_PRIORITY = -300
"""Before conntrack, which need not know of heartbeats."""
DENY_PRIORITY = -110
"""Before dstnat, where the packet still carries the Service's address, and before every other proxy's nat."""
DSTNAT_PRIORITY = -100
UNKNOWN_PRIORITY = -95
"""Behind every other proxy's dstnat: who comes so far was captured by nobody."""
FILTER_PRIORITY = 0
SRCNAT_PRIORITY = 100

_TRANSLATED = HasAny(Field.STATUS, STATUS_DNAT)
_ARRIVING, _ASKING, _UNASKED, _BEATEN = "arriving", "asking", "unasked", "beaten"


class _Names:
    """The names of a family's chains."""

    def __init__(self, family: Family, *, outside: bool = False) -> None:
        def name(what: str) -> str:
            return f"{OUTSIDE_PREFIX * outside}{what}{family.suffix}"

        self.arriving = name("arriving")
        self.invalid = name("invalid")
        self.from_outside = name("from-outside")
        self.deny = name("deny")
        self.check = name("check")
        self.capture = name("capture")
        self.sent = name("sent")
        self.leaving = name("leaving")
        self.staying = name("staying")


def _refuse() -> Chain:
    return Chain(
        REFUSE,
        (
            Rule((Equals(Field.PROTOCOL, TCP),), Simple.RESET),
            Rule((), Simple.UNREACHABLE),
        ),
    )


def _chains_of(family: Family, *, quick: bool) -> tuple[Chain, ...]:
    """All chains that only packets of this family walk."""
    return (
        _check(family, outside=False),
        _check(family, outside=True),
        _deny(family, outside=False),
        _deny(family, outside=True),
        _from_outside(family),
        _invalid(family),
        _arriving(family),
        _relayed(family, outside=False, quick=quick),
        _relayed(family, outside=True, quick=quick),
        _capture(family, outside=False),
        _capture(family, outside=True),
        _leaving(family, outside=False),
        _leaving(family, outside=True),
        _sent(family),
        _staying_from_outside(family),
        _staying(family),
    )


def _arriving(family: Family) -> Chain:
    """Packets from a pod or from the network that are new, or that conntrack calls invalid."""
    names = _Names(family)
    return Chain(
        names.arriving,
        (
            Rule((HasAny(Field.STATE, STATE_INVALID),), Goto(names.invalid)),
            Rule((*family.candidate, *family.from_outside), Goto(names.from_outside)),
            Rule((), Goto(names.deny)),
        ),
    )


def _invalid(family: Family) -> Chain:
    pod = In((family.source, family.source), family.hairpins.name)
    tcp = (Equals(Field.FAMILY, family.number), Equals(Field.PROTOCOL, TCP))
    return Chain(_Names(family).invalid, (Rule((*tcp, pod), Simple.DROP),))


def _from_outside(family: Family) -> Chain:
    own = In(family.frontend, family.own.name)
    return Chain(
        _Names(family).from_outside,
        (
            Rule((*family.candidate, *family.closed), Goto(REFUSE)),
            Rule((*family.candidate, own), Goto(_Names(family, outside=True).deny)),
            Rule((), Goto(_Names(family).deny)),
        ),
    )


def _deny(family: Family, *, outside: bool) -> Chain:
    names = _Names(family, outside=outside)
    checked = In(family.frontend, family.side(outside=outside).checked.name)
    return Chain(names.deny, (Rule((*family.candidate, checked), Goto(names.check)),))


def _check(family: Family, *, outside: bool) -> Chain:
    side, candidate, key = family.side(outside=outside), family.candidate, family.frontend
    no_pod = (Masked(Field.MARK, steering.MARK_BITS, steering.REFUSED), In(key, family.steered.name))
    return Chain(
        _Names(family, outside=outside).check,
        (
            Rule((*candidate, *family.stranger), Simple.DROP),
            Rule((*candidate, *no_pod), Goto(REFUSE)),
            Rule((*candidate, In(key, side.refused.name)), Goto(REFUSE)),
            Rule((*candidate, In(key, side.dropped.name)), Simple.DROP),
            Rule(candidate, JumpBy(key, side.limits.name)),
        ),
    )


def _to_listener(family: Family, *, outside: bool) -> Rule:
    listeners = family.side(outside=outside).listeners
    return Rule(family.candidate, DnatBy(family.frontend, listeners.name, family.address))


def _relayed(family: Family, *, outside: bool, quick: bool) -> Chain:
    """To a listener, as workers are alive; who has none goes on where this was jumped to."""
    side = family.side(outside=outside)
    to_listener = _to_listener(family, outside=outside)
    served = (*to_listener.matches, NotIn(family.frontend, family.vacant.name))
    timed = (vacancy.no_memory(family, side),) if quick else ()
    return Chain(side.relayed, (*timed, Rule(served, to_listener.action)))


def _capture(family: Family, *, outside: bool) -> Chain:
    """To a listener; else to a pod; else to a listener that has no pods behind it, alive or not."""
    side, candidate, key = family.side(outside=outside), family.candidate, family.frontend
    relay = OUTSIDE_RELAY if outside else RELAY
    return Chain(
        _Names(family, outside=outside).capture,
        (
            Rule(candidate, JumpBy((Field.FAMILY,), relay.name)),
            Rule(candidate, JumpBy(key, side.sizes.name)),
            Rule(candidate, DnatBy((*key, Random(1)), side.pods.name, family.address)),
            _to_listener(family, outside=outside),
        ),
    )


def _heart_hooks() -> tuple[Chain, ...]:
    """What workers say of themselves is noted, and goes nowhere."""
    udp = Equals(Field.PROTOCOL, UDP)
    beat = Note((Field.MARK,), ALIVE.name)
    return (
        Chain(
            _BEATEN,
            (
                Rule((udp, Equals(Field.PORT, BEAT_PORT), beat), Simple.DROP),
                Rule((Erase((Field.MARK,), ALIVE.name),), Simple.DROP),
            ),
        ),
        Chain(
            "heart-output",
            (Rule((Masked(Field.MARK, MARK_BITS, MARKS), udp), Goto(_BEATEN)), vouching.vouching()),
            Hook("filter", "output", HEART_PRIORITY),
        ),
    )


def _deny_hooks() -> tuple[Chain, ...]:
    """A packet of an established connection pays for a look at its state, whatever its family."""

    def arriving(family: Family) -> tuple[Rule, ...]:
        return (Rule(family.candidate, Goto(_Names(family).arriving)),)

    def asking(family: Family) -> tuple[Rule, ...]:
        return (Rule(family.candidate, Goto(_Names(family).deny)),)

    noteworthy = Rule((HasAny(Field.STATE, STATE_INVALID | STATE_NEW),), Goto(_ARRIVING))
    new = Rule((HasAny(Field.STATE, STATE_NEW),), Goto(_ASKING))
    return (
        Chain(_ARRIVING, each(arriving)),
        Chain(_ASKING, each(asking)),
        Chain("deny-prerouting", (noteworthy,), Hook("filter", "prerouting", DENY_PRIORITY)),
        Chain("deny-output", (new,), Hook("filter", "output", DENY_PRIORITY)),
    )


def _capture_hooks() -> tuple[Chain, ...]:
    def arriving(family: Family) -> tuple[Rule, ...]:
        own = In(family.frontend, family.own.name)
        outside = (*family.candidate, *family.from_outside, own)
        return (Rule(outside, Goto(_Names(family, outside=True).capture)), *asking(family))

    def asking(family: Family) -> tuple[Rule, ...]:
        return (Rule(family.candidate, Goto(_Names(family).capture)),)

    def unknown(family: Family) -> tuple[Rule, ...]:
        ours = In((family.destination,), family.cluster_ips.name)
        return (Rule((*family.candidate, ours), Goto(REFUSE)),)

    return (
        Chain("capture-prerouting", each(arriving), Hook("nat", "prerouting", DSTNAT_PRIORITY)),
        Chain("capture-output", each(asking), Hook("nat", "output", DSTNAT_PRIORITY)),
        Chain("unknown-prerouting", each(unknown), Hook("nat", "prerouting", UNKNOWN_PRIORITY)),
        Chain("unknown-output", each(unknown), Hook("nat", "output", UNKNOWN_PRIORITY)),
    )


def _guard_hooks(*, quick: bool) -> tuple[Chain, ...]:
    def rules(family: Family) -> tuple[Rule, ...]:
        return (Rule((*family.candidate, In(family.frontend, family.guarded.name)), Goto(REFUSE)),)

    passing = (
        Rule((HasAny(Field.STATE, STATE_ESTABLISHED | STATE_RELATED),), Simple.ACCEPT),
        Rule((_TRANSLATED,), Goto(vacancy.LANDING) if quick else Simple.ACCEPT),
    )

    def untranslated(family: Family) -> tuple[Rule, ...]:
        udp = (Equals(Field.FAMILY, family.number), Equals(Field.PROTOCOL, UDP))
        return (Rule((*udp, In(family.sender, family.guarded.name)), Simple.DROP),)

    new = Rule((HasAny(Field.STATE, STATE_NEW),), Goto(_UNASKED))
    return (
        *(vacancy.landings() if quick else ()),
        Chain(_UNASKED, each(untranslated)),
        Chain("guard-input", (*passing, *each(rules)), Hook("filter", "input", FILTER_PRIORITY)),
        Chain("guard-output", (new,), Hook("filter", "output", FILTER_PRIORITY)),
    )


def _pin(family: Family, side: Side) -> Rule:
    """Pin the client to the pod, if the frontend has affinity and the pod is still one of its."""
    return Rule(family.candidate, JumpBy((*family.original_frontend, *family.pod), side.members.name))


def _sent(family: Family) -> Chain:
    """Packets that have been sent to a pod elsewhere, or to a pod with addresses of its own."""
    names = _Names(family)
    itself = In((family.source, family.destination), family.hairpins.name)
    uplink = In((Field.DEVICE,), UPLINKS.name)
    masquerade = In(family.original_frontend, family.anywhere.masquerade.name)
    fallback = In(family.original_frontend, family.anywhere.fallback.name)
    to_pod = NotIn(family.frontend, family.guarded.name)  # the host's own packets to a listener come by too
    return Chain(
        names.sent,
        (
            Rule((*family.candidate, *family.from_outside), Goto(names.leaving)),
            _pin(family, family.anywhere),
            Rule((*family.candidate, itself), Simple.MASQUERADE),
            Rule((*family.candidate, uplink, masquerade), Simple.MASQUERADE_AT_RANDOM),
            Rule((*family.candidate, fallback, to_pod), Simple.MASQUERADE),
        ),
    )


def _leaving(family: Family, *, outside: bool) -> Chain:
    """Of these, those from outside."""
    side = family.side(outside=outside)
    own = In(family.original_frontend, family.own.name)
    masquerade, fallback = (
        In(family.original_frontend, each.name) for each in (side.masquerade, side.fallback)
    )
    others = Rule((*family.candidate, own), Goto(_Names(family, outside=True).leaving))
    return Chain(
        _Names(family, outside=outside).leaving,
        (
            *(() if outside else (others,)),
            _pin(family, side),
            Rule((*family.candidate, masquerade), Simple.MASQUERADE_AT_RANDOM),
            Rule((*family.candidate, fallback), Simple.MASQUERADE),
        ),
    )


def _staying(family: Family) -> Chain:
    """Packets that have been sent to a listener, or to a pod that has the host's own addresses."""
    own = In(family.original_frontend, family.own.name)
    outside = (*family.candidate, *family.from_outside, own)
    return Chain(
        _Names(family).staying,
        (Rule(outside, Goto(_Names(family, outside=True).staying)), _pin(family, family.anywhere)),
    )


def _staying_from_outside(family: Family) -> Chain:
    return Chain(_Names(family, outside=True).staying, (_pin(family, family.outside),))


def _sent_hooks() -> tuple[Chain, ...]:
    def leaving(family: Family) -> tuple[Rule, ...]:
        return (Rule((*family.candidate, _TRANSLATED), Goto(_Names(family).sent)),)

    def staying(family: Family) -> tuple[Rule, ...]:
        return (Rule((*family.candidate, _TRANSLATED), Goto(_Names(family).staying)),)

    return (
        Chain("leaving-postrouting", each(leaving), Hook("nat", "postrouting", SRCNAT_PRIORITY)),
        Chain("staying-input", each(staying), Hook("nat", "input", SRCNAT_PRIORITY)),
    )


@functools.lru_cache(maxsize=2)
def _static_chains(*, quick: bool) -> tuple[Chain, ...]:
    return (
        _refuse(),
        *(chain for family in FAMILIES for chain in _chains_of(family, quick=quick)),
        *vouching.vouching_chains(),
        *_heart_hooks(),
        *_deny_hooks(),
        *_capture_hooks(),
        *_guard_hooks(quick=quick),
        *_sent_hooks(),
    )


def ruleset(made: frozenset[Made] = frozenset(), *, quick: bool = True, as_target: bool = False) -> Ruleset:
    """The static part of the table.

    Args:
        made: the chains that were made for what it has.
        quick: whether the kernel has what `vacancy` needs. If not, that a listener is gone is seen by the
            heartbeats alone.
        as_target: packets are queued in the words of iptables.
    """
    chains = chains_made(made, as_target=as_target)
    timeouts = tuple(map(vacancy.timeout, FAMILIES)) if quick else ()
    return Ruleset(SETS, (*_static_chains(quick=quick), *chains), timeouts, (TURNED_AWAY,))
