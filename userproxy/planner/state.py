"""From a Snapshot to the wanted state of the data side and the kernel.

A snapshot may hold thousands of Service ports of which one changed. So what each came to is kept for as long
as it is made of the same values, and whatever did not change keeps its identity, up to the whole state.
"""

from __future__ import annotations

from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

import msgspec

from userproxy.model.endpoint import Endpoint
from userproxy.model.service import PoolName, ServicePort, ServicePortName
from userproxy.model.state import Frontend, NodeState
from userproxy.model.versioned import dropped, patched, touched
from userproxy.planner.context import PlanContext, path_of
from userproxy.planner.outcome import Outcome, Traffic, without_conflicts
from userproxy.planner.paths import PATHS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from userproxy.model.snapshot import Problem, Snapshot
    from userproxy.planner.ports import PortBook

K = TypeVar("K")
V = TypeVar("V")


class _Made(msgspec.Struct, frozen=True, eq=False):
    """An outcome, and what it was made of. Compared by identity."""

    service: ServicePort
    endpoints: tuple[Endpoint, ...]
    listeners: tuple[PoolName, ...]
    ports: dict[PoolName, int]
    outcome: Outcome


class Planner:
    """Makes the wanted state of one snapshot after another. Lives as long as the daemon."""

    def __init__(self, book: PortBook) -> None:
        """Plan.

        Args:
            book: gives the host ports; each call of `wanted` changes it.
        """
        self._book = book
        self._context: PlanContext | None = None
        self._made: dict[ServicePortName, _Made] = {}
        self._ports: dict[PoolName, int] = {}  # of `_made`, those that have one
        self._problems_of: dict[ServicePortName, tuple[Problem, ...]] = {}  # likewise, where there are any
        self._cluster_ips: Counter[str] = Counter()  # likewise, of how many Service ports
        self._pods: Counter[str] = Counter()  # likewise
        self._claims = 0  # on frontends, in all of `_made`
        self._seen: Snapshot | None = None  # None while all must be looked at
        self._wanted = NodeState()
        self._problems: tuple[Problem, ...] = ()

    def wanted(
        self, snapshot: Snapshot, context: PlanContext, actual: NodeState
    ) -> tuple[NodeState, tuple[Problem, ...]]:
        """The state that a snapshot asks for.

        Args:
            snapshot: the desired state.
            context: of this node.
            actual: the state that was applied so far. A pool that is no longer wanted keeps its host port
                until its listener is closed there; only then may another one have it.

        Returns:
            The state, and what users must know of it, sorted; the same objects as before if nothing changed.
            A pool that waits for the host port of a listener that is yet to be closed gets it in the next
            round: go on until the plan is empty.
        """
        self._release_closed(actual)
        if context != self._context:
            self._forget_all(context)
        stale, without_port = self._changed(snapshot, self._candidates(snapshot), context)
        assigned = self._book.assign(sorted(without_port))
        stale.update(dict.fromkeys(pool.service_port for pool in assigned))
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

    def _forget_all(self, context: PlanContext) -> None:
        self._context = context
        self._made, self._ports, self._problems_of = {}, {}, {}
        self._cluster_ips, self._pods = Counter(), Counter()
        self._claims, self._seen = 0, None
        self._wanted = _nothing(context)

    def _keep(self, new: dict[ServicePortName, _Made]) -> None:
        for name, made in new.items():
            self._forget(name)
            self._made[name] = made
            self._ports |= made.ports
            if made.outcome.problems:
                self._problems_of[name] = made.outcome.problems

    def _forget(self, name: ServicePortName) -> None:
        former = self._made.pop(name, None)
        for pool in former.ports if former else ():
            self._ports.pop(pool, None)
        self._problems_of.pop(name, None)

    def _drop(self, gone: Iterable[ServicePortName]) -> None:
        for name in gone:
            self._forget(name)

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
    ) -> tuple[dict[ServicePortName, None], list[PoolName]]:
        """Whose outcome is to be made (anew), and which pools lack a host port."""
        stale: dict[ServicePortName, None] = {}
        without_port: list[PoolName] = []
        for name in names:
            service = snapshot.services[name]
            made = self._made.get(name)
            if made is not None and made.service is service:
                listeners = made.listeners
            else:
                made, listeners = None, _listeners_of(service, context)
            ports = self._ports_of(listeners)
            without_port += (pool for pool in listeners if pool not in ports)
            if made is None or made.ports != ports or made.endpoints is not snapshot.endpoints.get(name, ()):
                stale[name] = None
        return stale, without_port

    def _ports_of(self, listeners: tuple[PoolName, ...]) -> dict[PoolName, int]:
        live = self._book.live
        return {pool: live[pool] for pool in listeners if pool in live}

    def _make(self, name: ServicePortName, snapshot: Snapshot, context: PlanContext) -> _Made:
        service = snapshot.services[name]
        endpoints = snapshot.endpoints.get(name, ())
        listeners = _listeners_of(service, context)
        ports = self._ports_of(listeners)
        path = PATHS[path_of(service, context.mode)]
        outcome = path.outcome_of(Traffic(service, endpoints, ports, context))
        return _Made(service, endpoints, listeners, ports, outcome)

    def _merge(self, snapshot: Snapshot, old: list[Outcome], new: list[Outcome]) -> None:
        """Put new outcomes in the place of old ones; start from nothing while a frontend is claimed twice."""
        self._claims += sum(len(one.captures) for one in new) - sum(len(one.captures) for one in old)
        wanted = _replaced(self._wanted, old, new)
        problems: Iterable[tuple[Problem, ...]] = self._problems_of.values()
        if len(wanted.captures) != self._claims:
            outcomes = without_conflicts([self._made[name].outcome for name in snapshot.services])
            wanted = _replaced(NodeState(perimeter=wanted.perimeter, workers=wanted.workers), [], outcomes)
            problems = [outcome.problems for outcome in outcomes]
        self._wanted = msgspec.structs.replace(
            wanted,
            queues=self._context.queues if self._context and wanted.steered else 0,
            cluster_ips=_recounted(
                self._cluster_ips,
                self._wanted.cluster_ips,
                [outcome.cluster_ips for outcome in old],
                [outcome.cluster_ips for outcome in new],
            ),
            pods=_recounted(
                self._pods,
                self._wanted.pods,
                [outcome.pods for outcome in old],
                [outcome.pods for outcome in new],
            ),
        )
        self._problems = tuple(sorted(chain.from_iterable(problems)))


def _nothing(context: PlanContext) -> NodeState:
    return NodeState(perimeter=context.perimeter, workers=context.workers)


def _recounted(
    uses: Counter[str],
    wanted: Mapping[str, None],
    old: Iterable[Iterable[str]],
    new: Iterable[Iterable[str]],
) -> Mapping[str, None]:
    """IPs that several Service ports may have, each given up with the last of these."""
    before = Counter(chain.from_iterable(old))
    after = Counter(chain.from_iterable(new))
    uses.update(after)
    uses.subtract(before)
    gone = [ip for ip in before if not uses[ip]]
    for ip in gone:
        del uses[ip]
    return patched(wanted, dict.fromkeys(ip for ip in after if uses[ip]), drop=gone)


def _replaced(wanted: NodeState, old: list[Outcome], new: list[Outcome]) -> NodeState:
    def merged(part: Callable[[Outcome], Mapping[K, V]], before: Mapping[K, V]) -> Mapping[K, V]:
        put = dict(chain.from_iterable(part(outcome).items() for outcome in new))
        return patched(before, put, drop=chain.from_iterable(part(outcome) for outcome in old))

    return msgspec.structs.replace(
        wanted,
        serves=merged(lambda outcome: outcome.serves, wanted.serves),
        captures=merged(lambda outcome: outcome.captures, wanted.captures),
        guards=merged(lambda outcome: dict.fromkeys(outcome.guards), wanted.guards),
        flows=merged(lambda outcome: outcome.flows, wanted.flows),
        checked=merged(lambda outcome: outcome.checked, wanted.checked),
        steered=merged(lambda outcome: outcome.steered, wanted.steered),
        ranges=merged(lambda outcome: outcome.ranges, wanted.ranges),
        pools=merged(lambda outcome: outcome.pools, wanted.pools),
        frontends=merged(_frontends, wanted.frontends),
    )


def _frontends(outcome: Outcome) -> dict[PoolName, tuple[Frontend, ...]]:
    by_pool: dict[PoolName, list[Frontend]] = {}
    for frontend, pool in outcome.pools.items():
        by_pool.setdefault(pool, []).append(frontend)
    return {pool: tuple(frontends) for pool, frontends in by_pool.items()}


def _listeners_of(service: ServicePort, context: PlanContext) -> tuple[PoolName, ...]:
    return PATHS[path_of(service, context.mode)].listeners_of(service, context)
