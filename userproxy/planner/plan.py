"""From one state to another, in an order that never misdirects a packet.

- Add: the listener opens, then the kernel sends packets to it.
- Change: backends change on the open listener; the kernel's targets change in one atomic batch.
- Remove: the kernel stops sending packets, forgets the UDP flows that it would go on rewriting, and only
  then does the listener stop accepting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from userproxy.model.plan import CaptureChange, Frontend, Plan, ToListener, ToPods
from userproxy.model.service import Protocol
from userproxy.planner.difference import dropped, touched

if TYPE_CHECKING:
    from userproxy.model.address import Address
    from userproxy.model.plan import Target, Wanted

K = TypeVar("K")
V = TypeVar("V")


def plan(wanted: Wanted, actual: Wanted) -> Plan:
    """The actions that lead from `actual` to `wanted`; falsy if there is nothing to do.

    Values are compared by identity first, so states that share most of theirs are cheap to compare. A Serve
    whose listener differs from the open one opens the new listener; the old one closes when the whole plan
    has been carried out. `paths` tell how bytes travel and need no action of their own.

    Args:
        wanted: where to get to.
        actual: what was carried out so far, or what was found in the kernel.
    """
    serves, closed = _difference(wanted.serves, actual.serves)
    put, removed = _difference(wanted.captures, actual.captures)
    outdated = {
        frontend: _leads_to(put.get(frontend))
        for frontend in (*put, *removed)
        if frontend.protocol is Protocol.UDP
        and _leaves_old_flows(actual.captures.get(frontend), put.get(frontend))
    }
    guard, unguard = frozenset[Frontend](), frozenset[Frontend]()
    if wanted.guards is not actual.guards:
        guard, unguard = wanted.guards - actual.guards, actual.guards - wanted.guards
    return Plan(
        serve=tuple(serves.values()),
        capture=CaptureChange(put, frozenset(removed), guard, unguard),
        forget=outdated,
        close=tuple(closed),
    )


def _difference(wanted: dict[K, V], actual: dict[K, V]) -> tuple[dict[K, V], list[K]]:
    """What to put into `actual` for it to become `wanted`, and which keys to take out."""
    return {key: wanted[key] for key in touched(wanted, actual)}, dropped(wanted, actual)


def _leads_to(target: Target | None) -> tuple[Address, ...]:
    """The addresses that a target rewrites to."""
    match target:
        case ToListener(listener):
            return (listener,)
        case ToPods(pods):
            return pods
        case _:
            return ()


def _leaves_old_flows(old: Target | None, new: Target | None) -> bool:
    """Whether conntrack may hold UDP flows that the change of a frontend's target would leave where they are.

    A flow is rewritten as its first packet was, for as long as its client keeps sending. That goes for flows
    of before the first capture too: their packets went out as they were, and would go on doing so. Flows to
    pods that stay may stay. Refusing and dropping look at each packet, whatever flow it belongs to.
    """
    if isinstance(old, ToPods) and isinstance(new, ToPods):
        return not set(old.pods) <= set(new.pods)
    if old is None:
        return isinstance(new, ToListener | ToPods)
    return True
