"""From one state to another, in an order that never misdirects a packet.

- Add: the listener opens, then the kernel sends packets to it, and forgets who came before and was sent to
  nobody.
- Change: backends change on the open listener; the kernel's targets change in one atomic batch.
- Remove: the kernel stops sending packets, forgets the UDP flows that it would go on rewriting, and only
  then does the listener stop accepting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from userproxy.model.actions import Actions, CaptureChange
from userproxy.model.service import Protocol
from userproxy.model.versioned import dropped, touched

if TYPE_CHECKING:
    from collections.abc import Mapping

    from userproxy.model.address import Address
    from userproxy.model.state import Frontend, NodeState

K = TypeVar("K")
V = TypeVar("V")


def actions_for(wanted: NodeState, actual: NodeState) -> Actions:
    """The actions that lead from `actual` to `wanted`; falsy if there is nothing to do.

    Values are compared by identity first, so states that share most of theirs are cheap to compare. A Serve
    whose listener differs from the open one opens the new listener; the old one closes when the whole plan
    has been applied. `checked` and `steered` need no action of their own.

    Args:
        wanted: where to get to.
        actual: what was applied so far, or what was found in the kernel.
    """
    serves, closed = _difference(wanted.serves, actual.serves)
    put, removed = _difference(wanted.captures, actual.captures)
    guard, unguard = _difference(wanted.guards, actual.guards)
    claim, disclaim = _difference(wanted.cluster_ips, actual.cluster_ips)
    watch, unwatch = _difference(wanted.pods, actual.pods)
    ranges, unranged = _difference(wanted.ranges, actual.ranges)
    return Actions(
        serve=tuple(serves.values()),
        capture=CaptureChange(
            put=put,
            remove=frozenset(removed),
            guard=frozenset(guard),
            unguard=frozenset(unguard),
            claim=frozenset(claim),
            disclaim=frozenset(disclaim),
            ranges=ranges | dict.fromkeys(unranged, ()),
            watch=frozenset(watch),
            unwatch=frozenset(unwatch),
            names={key: str(wanted.pools[key].service_port) for key in put if key in wanted.pools},
            perimeter=wanted.perimeter if wanted.perimeter != actual.perimeter else None,
            workers=wanted.workers if wanted.workers != actual.workers else None,
            queues=wanted.queues if wanted.queues != actual.queues else None,
        ),
        forget=_outdated(wanted.flows, actual.flows)
        | {frontend: () for frontend in removed if frontend.protocol is Protocol.UDP}
        | {
            frontend: ()
            for frontend in put
            if frontend.protocol is Protocol.TCP and frontend not in actual.captures
        },
        close=tuple(closed),
    )


def _difference(wanted: Mapping[K, V], actual: Mapping[K, V]) -> tuple[dict[K, V], list[K]]:
    """What to put into `actual` for it to become `wanted`, and which keys to take out."""
    return {key: wanted[key] for key in touched(wanted, actual)}, dropped(wanted, actual)


def _outdated(
    wanted: Mapping[Frontend, tuple[Address, ...]], actual: Mapping[Frontend, tuple[Address, ...]]
) -> dict[Frontend, tuple[Address, ...]]:
    """The wanted UDP frontends of which conntrack may hold flows that lead where they no longer may.

    A flow is rewritten as its first packet was, for as long as its client keeps sending. That goes for flows
    of before the first capture too: their packets went out as they were, and would go on doing so.
    """
    return {
        frontend: wanted[frontend]
        for frontend in touched(wanted, actual)
        if frontend not in actual or not set(actual[frontend]) <= set(wanted[frontend])
    }
