"""The wanted state where some listeners cannot be opened: everything else of it holds. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from userproxy.model.service import Protocol
from userproxy.model.state import Frontend, NodeState, Refuse, Serve, Target, ToListener
from userproxy.model.versioned import patched

if TYPE_CHECKING:
    from collections.abc import Collection

    from userproxy.model.service import PoolName


def without_listeners(wanted: NodeState, actual: NodeState, names: Collection[PoolName]) -> NodeState:
    """The wanted state but for the listeners of these pools, which cannot be opened.

    One that is served by an earlier listener stays so. Nobody is sent to where nobody listens: the packets of
    the others are refused.

    Args:
        wanted: where to get to.
        actual: what was applied so far.
        names: whose listeners cannot be opened.
    """
    unopened = [wanted.serves[name] for name in names if name in wanted.serves]
    unopened = [serve for serve in unopened if actual.serves.get(serve.name) != serve]
    if not unopened:
        return wanted
    kept = {serve.name: former for serve in unopened if (former := actual.serves.get(serve.name))}
    captures: dict[Frontend, Target] = {}
    closed: set[Frontend] = set()
    for serve in unopened:
        for key in _captured(wanted, serve):
            captured = actual.captures.get(key)
            is_served = serve.name in kept and isinstance(captured, ToListener)
            captures[key] = captured if captured is not None and is_served else Refuse()
        closed.update(Frontend(protocol, serve.listener) for protocol in Protocol)
    open_still = {Frontend(protocol, former.listener) for protocol in Protocol for former in kept.values()}
    guards = dict.fromkeys(guard for guard in actual.guards if guard in open_still)
    return msgspec.structs.replace(
        wanted,
        serves=patched(wanted.serves, kept, drop=(serve.name for serve in unopened)),
        captures=patched(wanted.captures, captures),
        guards=patched(wanted.guards, guards, drop=closed),
    )


def _captured(wanted: NodeState, serve: Serve) -> list[Frontend]:
    """The frontends whose packets would go to a listener."""
    captures = wanted.captures
    return [
        key
        for key in wanted.frontends.get(serve.name, ())
        if isinstance(target := captures.get(key), ToListener) and target.listener == serve.listener
    ]
