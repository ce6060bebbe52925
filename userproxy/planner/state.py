"""From a Snapshot to the wanted state of the data side and the kernel.

A snapshot may hold thousands of Service ports of which one changed. So what each came to is kept for as long
as it is made of the same values, and whatever did not change keeps its identity, up to the whole state.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import msgspec

from userproxy.model.endpoint import Endpoint
from userproxy.model.service import Path, ServicePort, ServicePortName
from userproxy.model.state import Frontend, NodeState, Pool, Serve, Target
from userproxy.model.versioned import dropped, patched, touched
from userproxy.planner.context import PlanContext, path_of
from userproxy.planner.outcome import Outcome, Traffic, without_conflicts
from userproxy.planner.paths import PATHS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from userproxy.model.address import Address
    from userproxy.model.snapshot import Node, Problem, Snapshot
    from userproxy.planner.ports import PortBook


class _Made(msgspec.Struct, frozen=True, eq=False):
    """An outcome, and what it was made of. Compared by identity."""

    service: ServicePort
    endpoints: tuple[Endpoint, ...]
    needs_port: bool
    port: int | None
    outcome: Outcome


class Planner:
    """Makes the wanted state of one snapshot after another. Lives as long as the daemon."""

    def __init__(self, book: PortBook, host_ip: str, mode: Path) -> None:
        """Plan for listeners on a host IP.

        Args:
            book: gives the host ports; each call of `wanted` changes it.
            host_ip: of the listeners; may be set anew, and is then that of the next plan.
            mode: the path of Services that do not choose one.
        """
        self._book = book
        self.host_ip = host_ip
        self._mode = mode
        self._context: PlanContext | None = None
        self._made: dict[ServicePortName, _Made] = {}
        self._ports: dict[ServicePortName, int] = {}  # of `_made`, those that have one
        self._problems_of: dict[ServicePortName, tuple[Problem, ...]] = {}  # likewise, problems
        self._claims = 0  # on frontends, in all of `_made`
        self._seen: Snapshot | None = None  # None while all must be looked at
        self._wanted = NodeState()
        self._problems: tuple[Problem, ...] = ()

    def wanted(
        self, snapshot: Snapshot, node: Node, actual: NodeState
    ) -> tuple[NodeState, tuple[Problem, ...]]:
        """The state that a snapshot asks for.

        Args:
            snapshot: the desired state.
            node: that this daemon runs on.
            actual: the state that was applied so far. A Service port that is no longer wanted keeps its
                host port until its listener is closed there; only then may another one have it.

        Returns:
            The state, and what users must know of it, sorted; the same objects as before if nothing changed.
            A Service port that waits for the host port of a listener that is yet to be closed gets it in the
            next round: go on until the plan is empty.
        """
        self._release_closed(actual)
        context = PlanContext(node, self.host_ip, self._mode, self._book.range)
        if context != self._context:
            self._context = context
            self._made, self._ports, self._problems_of, self._claims, self._seen = {}, {}, {}, 0, None
            self._wanted = NodeState()
        stale, without_port = self._changed(snapshot, self._candidates(snapshot), context)
        assigned = self._book.assign(sorted(without_port))
        stale.update(dict.fromkeys(assigned))
        new = {name: self._make(name, snapshot, context) for name in stale}
        old = [self._made[name].outcome for name in stale if name in self._made]
        self._keep(new)
        if len(self._made) != len(snapshot.services):
            gone = dropped(snapshot.services, self._made)
            old += [self._made[name].outcome for name in gone]
            self._drop(gone)
        if old or new:
            self._merge(snapshot, old, [made.outcome for made in new.values()])
        # Whoever waits for a host port is looked at in each round.
        self._seen = snapshot if len(assigned) == len(without_port) else None
        return self._wanted, self._problems

    def _keep(self, new: dict[ServicePortName, _Made]) -> None:
        self._made.update(new)
        for name, made in new.items():
            self._ports.pop(name, None)
            self._problems_of.pop(name, None)
            if made.port is not None:
                self._ports[name] = made.port
            if made.outcome.problems:
                self._problems_of[name] = made.outcome.problems

    def _drop(self, gone: Iterable[ServicePortName]) -> None:
        for name in gone:
            del self._made[name]
            self._ports.pop(name, None)
            self._problems_of.pop(name, None)

    def _release_closed(self, actual: NodeState) -> None:
        """Give up the host ports that were not wanted in the last round, once their listeners are closed."""
        if len(self._book.live) == len(self._ports):
            return
        self._book.release(
            sorted(name for name in self._book.live if name not in self._ports and name not in actual.serves)
        )

    def _candidates(self, snapshot: Snapshot) -> Iterable[ServicePortName]:
        """Whom to look at: those that the source has touched, or all if host ports were shuffled."""
        seen = self._seen
        if seen is None or self._book.live != self._ports:
            return snapshot.services
        services = touched(snapshot.services, seen.services)
        endpoints = touched(snapshot.endpoints, seen.endpoints) + dropped(snapshot.endpoints, seen.endpoints)
        return dict.fromkeys([*services, *(name for name in endpoints if name in snapshot.services)])

    def _changed(
        self, snapshot: Snapshot, names: Iterable[ServicePortName], context: PlanContext
    ) -> tuple[dict[ServicePortName, None], list[ServicePortName]]:
        """Whose outcome is to be made (anew), and who lacks a host port."""
        stale: dict[ServicePortName, None] = {}
        without_port: list[ServicePortName] = []
        live = self._book.live
        for name in names:
            service = snapshot.services[name]
            made = self._made.get(name)
            if made is None or made.service is not service:
                made = None
                needs_port = _needs_host_port(service, context)
            else:
                needs_port = made.needs_port
            port = live.get(name) if needs_port else None
            if needs_port and port is None:
                without_port.append(name)
            if made is None or made.port != port or made.endpoints is not snapshot.endpoints.get(name, ()):
                stale[name] = None
        return stale, without_port

    def _make(self, name: ServicePortName, snapshot: Snapshot, context: PlanContext) -> _Made:
        service = snapshot.services[name]
        endpoints = snapshot.endpoints.get(name, ())
        needs_port = _needs_host_port(service, context)
        port = self._book.live.get(name) if needs_port else None
        path = PATHS[path_of(service, context.mode)]
        outcome = path.outcome_of(Traffic(service, endpoints, port, context))
        return _Made(service, endpoints, needs_port, port, outcome)

    def _merge(self, snapshot: Snapshot, old: list[Outcome], new: list[Outcome]) -> None:
        """Put new outcomes in the place of old ones; start from nothing while a frontend is claimed twice."""
        self._claims += sum(len(one.captures) for one in new) - sum(len(one.captures) for one in old)
        wanted = _replaced(self._wanted, old, new)
        problems: Iterable[tuple[Problem, ...]] = self._problems_of.values()
        if len(wanted.captures) != self._claims:
            outcomes = without_conflicts([self._made[name].outcome for name in snapshot.services])
            wanted = _replaced(NodeState(), [], outcomes)
            problems = [outcome.problems for outcome in outcomes]
        self._wanted = wanted
        self._problems = tuple(sorted(chain.from_iterable(problems)))


def _replaced(wanted: NodeState, old: list[Outcome], new: list[Outcome]) -> NodeState:
    return NodeState(
        serves=patched(wanted.serves, _serves(new), drop=_serves(old)),
        captures=patched(wanted.captures, _captures(new), drop=_captures(old)),
        guards=patched(wanted.guards, _guards(new), drop=_guards(old)),
        flows=patched(wanted.flows, _flows(new), drop=_flows(old)),
        checked=patched(wanted.checked, _checked(new), drop=_checked(old)),
        owners=patched(wanted.owners, _owners(new), drop=_owners(old)),
    )


def _serves(outcomes: list[Outcome]) -> dict[ServicePortName, Serve]:
    return {outcome.name: outcome.serve for outcome in outcomes if outcome.serve is not None}


def _captures(outcomes: list[Outcome]) -> dict[Frontend, Target]:
    return dict(chain.from_iterable(outcome.captures.items() for outcome in outcomes))


def _guards(outcomes: list[Outcome]) -> dict[Frontend, None]:
    return dict.fromkeys(outcome.guard for outcome in outcomes if outcome.guard is not None)


def _flows(outcomes: list[Outcome]) -> dict[Frontend, tuple[Address, ...]]:
    return dict(chain.from_iterable(outcome.flows.items() for outcome in outcomes))


def _checked(outcomes: list[Outcome]) -> dict[ServicePortName, Pool]:
    return {outcome.name: outcome.checked for outcome in outcomes if outcome.checked is not None}


def _needs_host_port(service: ServicePort, context: PlanContext) -> bool:
    return PATHS[path_of(service, context.mode)].needs_host_port(service)


def _owners(outcomes: list[Outcome]) -> dict[Frontend, ServicePortName]:
    return {frontend: outcome.name for outcome in outcomes for frontend in outcome.captures}
