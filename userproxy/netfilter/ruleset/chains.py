"""The rules. README.md in the folder above draws the hooks and says why each is as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userproxy.netfilter.ruleset.language import (
    Chain,
    DnatBy,
    Equals,
    Field,
    Goto,
    HasAny,
    Hook,
    In,
    Jump,
    JumpBy,
    Match,
    NotIn,
    Random,
    Rule,
    Ruleset,
    Simple,
)
from userproxy.netfilter.ruleset.sets import CLOSED, OUTSIDE_PREFIX, SETS, UPLINKS, each

if TYPE_CHECKING:
    from userproxy.netfilter.ruleset.made import Made
    from userproxy.netfilter.ruleset.sets import Family, Side

TCP, UDP = 6, 17
STATE_INVALID, STATE_ESTABLISHED, STATE_RELATED, STATE_NEW = 0x01, 0x02, 0x04, 0x08
STATUS_DNAT = 0x20
"""IPS_DST_NAT: the connection's destination has been rewritten (linux/netfilter/nf_conntrack_common.h)."""

DENY_PRIORITY = -110
"""Before dstnat, where the packet still carries the Service's address, and before every other proxy's nat."""
DSTNAT_PRIORITY = -100
UNKNOWN_PRIORITY = -95
"""Behind every other proxy's dstnat: who comes so far was captured by nobody."""
FILTER_PRIORITY = 0
SRCNAT_PRIORITY = 100

_FROM_OUTSIDE, _DENY, _CHECK, _CAPTURE = "from-outside", "deny", "check", "capture"
_LEAVING, _STAYING = "leaving", "staying"


def _prefix(*, outside: bool) -> str:
    return OUTSIDE_PREFIX if outside else ""


def _refuse() -> Chain:
    return Chain(
        "refuse",
        (
            Rule((Equals(Field.PROTOCOL, TCP),), Simple.RESET),
            Rule((), Simple.UNREACHABLE),
        ),
    )


def _arriving() -> Chain:
    """Packets from a pod or from the network that are new, or that conntrack calls invalid."""

    def rules(family: Family) -> tuple[Rule, ...]:
        outside = (*family.candidate, *family.from_outside)
        return (Rule(outside, Goto(_FROM_OUTSIDE)),)

    invalid = Rule((HasAny(Field.STATE, STATE_INVALID),), Goto("invalid"))
    return Chain("arriving", (invalid, *each(rules), Rule((), Goto(_DENY))))


def _invalid() -> Chain:
    def rules(family: Family) -> tuple[Rule, ...]:
        pod = In((family.source, family.source), family.hairpins.name)
        return (Rule((Equals(Field.FAMILY, family.number), Equals(Field.PROTOCOL, TCP), pod), Simple.DROP),)

    return Chain("invalid", each(rules))


def _arriving_from_outside() -> Chain:
    def rules(family: Family) -> tuple[Rule, ...]:
        closed = (In((family.destination,), family.cluster_ips.name), In((Field.FAMILY,), CLOSED.name))
        own = In(family.frontend, family.own.name)
        return (
            Rule((*family.candidate, *closed), Goto("refuse")),
            Rule((*family.candidate, own), Goto(OUTSIDE_PREFIX + _DENY)),
        )

    return Chain(_FROM_OUTSIDE, (*each(rules), Rule((), Goto(_DENY))))


def _deny(*, outside: bool) -> Chain:
    def rules(family: Family) -> tuple[Rule, ...]:
        checked = In(family.frontend, family.side(outside=outside).checked.name)
        return (Rule((*family.candidate, checked), Goto(_prefix(outside=outside) + _CHECK)),)

    return Chain(_prefix(outside=outside) + _DENY, each(rules))


def _check(*, outside: bool) -> Chain:
    def rules(family: Family) -> tuple[Rule, ...]:
        side, candidate, key = family.side(outside=outside), family.candidate, family.frontend
        stranger = (In(key, family.ranged.name), NotIn((*key, family.source), family.ranges.name))
        return (
            Rule((*candidate, *stranger), Simple.DROP),
            Rule((*candidate, In(key, side.refused.name)), Goto("refuse")),
            Rule((*candidate, In(key, side.dropped.name)), Simple.DROP),
        )

    return Chain(_prefix(outside=outside) + _CHECK, each(rules))


def _capture(*, outside: bool) -> Chain:
    def rules(family: Family) -> tuple[Rule, ...]:
        side, candidate, key = family.side(outside=outside), family.candidate, family.frontend
        return (
            Rule(candidate, DnatBy(key, side.listeners.name)),
            Rule(candidate, JumpBy(key, side.sizes.name)),
            Rule(candidate, DnatBy((*key, Random(1)), side.pods.name)),
        )

    return Chain(_prefix(outside=outside) + _CAPTURE, each(rules))


def _deny_hooks() -> tuple[Chain, ...]:
    def arriving(family: Family) -> tuple[Rule, ...]:
        return (Rule((HasAny(Field.STATE, STATE_INVALID | STATE_NEW), *family.candidate), Jump("arriving")),)

    def sent(family: Family) -> tuple[Rule, ...]:
        return (Rule((HasAny(Field.STATE, STATE_NEW), *family.candidate), Jump(_DENY)),)

    return (
        Chain("deny-prerouting", each(arriving), Hook("filter", "prerouting", DENY_PRIORITY)),
        Chain("deny-output", each(sent), Hook("filter", "output", DENY_PRIORITY)),
    )


def _capture_hooks() -> tuple[Chain, ...]:
    def from_outside(family: Family) -> tuple[Rule, ...]:
        own = In(family.frontend, family.own.name)
        outside = (*family.candidate, *family.from_outside, own)
        return (Rule(outside, Goto(OUTSIDE_PREFIX + _CAPTURE)),)

    def anywhere(family: Family) -> tuple[Rule, ...]:
        return (Rule(family.candidate, Jump(_CAPTURE)),)

    def unknown(family: Family) -> tuple[Rule, ...]:
        ours = In((family.destination,), family.cluster_ips.name)
        return (Rule((*family.candidate, ours), Goto("refuse")),)

    return (
        Chain(
            "capture-prerouting",
            (*each(from_outside), *each(anywhere)),
            Hook("nat", "prerouting", DSTNAT_PRIORITY),
        ),
        Chain("capture-output", each(anywhere), Hook("nat", "output", DSTNAT_PRIORITY)),
        Chain("unknown-prerouting", each(unknown), Hook("nat", "prerouting", UNKNOWN_PRIORITY)),
        Chain("unknown-output", each(unknown), Hook("nat", "output", UNKNOWN_PRIORITY)),
    )


def _guard_hooks() -> tuple[Chain, ...]:
    def rules(family: Family) -> tuple[Rule, ...]:
        return (Rule((*family.candidate, In(family.frontend, family.guarded.name)), Goto("refuse")),)

    passing = (
        Rule((HasAny(Field.STATE, STATE_ESTABLISHED | STATE_RELATED),), Simple.ACCEPT),
        Rule((HasAny(Field.STATUS, STATUS_DNAT),), Simple.ACCEPT),
    )

    def untranslated(family: Family) -> tuple[Rule, ...]:
        is_new, is_udp = HasAny(Field.STATE, STATE_NEW), Equals(Field.PROTOCOL, UDP)
        ours = In(family.sender, family.guarded.name)
        return (Rule((is_new, Equals(Field.FAMILY, family.number), is_udp, ours), Simple.DROP),)

    return (
        Chain("guard-input", (*passing, *each(rules)), Hook("filter", "input", FILTER_PRIORITY)),
        Chain("guard-output", each(untranslated), Hook("filter", "output", FILTER_PRIORITY)),
    )


def _pin(family: Family, side: Side, *matches: Match) -> Rule:
    """Pin the client to the pod, if the frontend has affinity and the pod is still one of its."""
    return Rule(
        (*matches, *family.candidate), JumpBy((*family.original_frontend, *family.pod), side.members.name)
    )


_TRANSLATED = HasAny(Field.STATUS, STATUS_DNAT)


def _leaving_hook() -> Chain:
    """Packets that have been sent to a pod elsewhere, or to a pod with addresses of its own."""

    def from_outside(family: Family) -> tuple[Rule, ...]:
        return (Rule((_TRANSLATED, *family.candidate, *family.from_outside), Goto(_LEAVING)),)

    def pin(family: Family) -> tuple[Rule, ...]:
        return (_pin(family, family.anywhere, _TRANSLATED),)

    def hairpin(family: Family) -> tuple[Rule, ...]:
        itself = In((family.source, family.destination), family.hairpins.name)
        return (Rule((_TRANSLATED, *family.candidate, itself), Simple.MASQUERADE),)

    def pod_elsewhere(family: Family) -> tuple[Rule, ...]:
        masquerade = In(family.original_frontend, family.anywhere.masquerade.name)
        uplink = In((Field.DEVICE,), UPLINKS.name)
        return (Rule((_TRANSLATED, *family.candidate, uplink, masquerade), Simple.MASQUERADE_AT_RANDOM),)

    rules = (*each(from_outside), *each(pin), *each(hairpin), *each(pod_elsewhere))
    return Chain("leaving-postrouting", rules, Hook("nat", "postrouting", SRCNAT_PRIORITY))


def _leaving(*, outside: bool) -> Chain:
    def rules(family: Family) -> tuple[Rule, ...]:
        side = family.side(outside=outside)
        own = In(family.original_frontend, family.own.name)
        masquerade = In(family.original_frontend, side.masquerade.name)
        return (
            *(() if outside else (Rule((*family.candidate, own), Goto(OUTSIDE_PREFIX + _LEAVING)),)),
            _pin(family, side),
            Rule((*family.candidate, masquerade), Simple.MASQUERADE_AT_RANDOM),
        )

    return Chain(_prefix(outside=outside) + _LEAVING, each(rules))


def _staying() -> tuple[Chain, ...]:
    """Packets that have been sent to a listener, or to a pod that has the host's own addresses."""

    def from_outside(family: Family) -> tuple[Rule, ...]:
        own = In(family.original_frontend, family.own.name)
        return (
            Rule(
                (_TRANSLATED, *family.candidate, *family.from_outside, own), Goto(OUTSIDE_PREFIX + _STAYING)
            ),
        )

    def pin(family: Family) -> tuple[Rule, ...]:
        return (_pin(family, family.anywhere, _TRANSLATED),)

    def pin_outside(family: Family) -> tuple[Rule, ...]:
        return (_pin(family, family.outside),)

    return (
        Chain(OUTSIDE_PREFIX + _STAYING, each(pin_outside)),
        Chain("staying-input", (*each(from_outside), *each(pin)), Hook("nat", "input", SRCNAT_PRIORITY)),
    )


STATIC_CHAINS = (
    _refuse(),
    _check(outside=False),
    _check(outside=True),
    _deny(outside=False),
    _deny(outside=True),
    _arriving_from_outside(),
    _invalid(),
    _arriving(),
    _capture(outside=False),
    _capture(outside=True),
    _leaving(outside=False),
    _leaving(outside=True),
    *_deny_hooks(),
    *_capture_hooks(),
    *_guard_hooks(),
    _leaving_hook(),
    *_staying(),
)


def ruleset(made: frozenset[Made] = frozenset()) -> Ruleset:
    """The static part of the table, with the chains that were made for what it has."""
    return Ruleset(SETS, (*STATIC_CHAINS, *(each.chain for each in sorted(made, key=lambda made: made.name))))
