"""What the daemon shows of itself: joins what is wanted, what is served and what was counted into rows."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from userproxy import __version__
from userproxy.control.tally import Tally
from userproxy.model.rows import BackendRow, ConnectionRow, ServiceRow, SourceStatus, StatusRow
from userproxy.model.snapshot import EMPTY, Problem, Snapshot
from userproxy.model.state import Frontend, NodeState, ToPods
from userproxy.model.versioned import dropped, touched
from userproxy.ops.http.metrics import Figures
from userproxy.planner.outcome import path_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from userproxy.config import Config
    from userproxy.control.pod_health import PodHealth
    from userproxy.model.address import Address
    from userproxy.model.endpoint import Endpoint
    from userproxy.model.filter import ConnectionFilter
    from userproxy.model.service import ServicePort, ServicePortName
    from userproxy.model.state import Target
    from userproxy.netfilter.conntrack.table import FlowTable
    from userproxy.worker.pool import WorkerPool


class Condition(NamedTuple):
    """Whether a backend may be picked, why, and since when (seconds since the epoch)."""

    state: str
    reason: str
    since: float


class View:
    """The daemon as its operator sees it. Lives as long as the daemon.

    Args:
        config: of the daemon.
        workers: the data side.
        pod_health: the checks of pods that netfilter sends connections to.
        flows: the connections that netfilter sends to pods by itself.
        source: tells where Services come from, and how old the news is.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        config: Config,
        workers: WorkerPool,
        pod_health: PodHealth,
        flows: FlowTable,
        source: Callable[[], SourceStatus],
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._workers = workers
        self._pod_health = pod_health
        self._source = source
        self._clock = clock
        self._started = monotonic()
        self._snapshot: Snapshot = EMPTY
        self._wanted = NodeState()
        self._problems: tuple[Problem, ...] = ()
        self._tally = Tally(())
        self._flows = flows
        self._trouble = ""
        self._conditions: dict[ServicePortName, dict[Address, Condition]] = {}

    def observe(self, snapshot: Snapshot, wanted: NodeState, problems: tuple[Problem, ...]) -> None:
        """Take in the state that was carried out."""
        before, self._snapshot = self._snapshot, snapshot
        last, self._wanted = self._wanted, wanted
        self._problems = problems
        self._flows.observe(snapshot.services, wanted)
        for name in dropped(snapshot.services, before.services):
            self._conditions.pop(name, None)
        for name in _to_judge(snapshot, before, wanted, last):
            if name in snapshot.services:
                self._conditions[name] = self._judge(name, snapshot.endpoints.get(name, ()))

    def report(self, trouble: str) -> None:
        """Show a trouble of the daemon itself in `status`; empty when it is over."""
        self._trouble = trouble

    async def connections(self, wanted: ConnectionFilter) -> AsyncIterator[list[ConnectionRow]]:
        """The live connections that match."""
        async for chunk in self._workers.connections(wanted):
            yield chunk
        async for chunk in self._flows.rows(wanted):
            yield chunk

    async def services(self) -> list[ServiceRow]:
        """The Service ports, sorted by name."""
        await self._count()
        problems = self._problems_by_service()
        return [
            self._service_row(self._snapshot.services[name], problems)
            for name in sorted(self._snapshot.services)
        ]

    async def backends(self) -> list[BackendRow]:
        """The backends, sorted by Service port and address."""
        await self._count()
        return [
            self._backend_row(name, endpoint)
            for name in sorted(self._snapshot.services)
            for endpoint in self._snapshot.endpoints.get(name, ())
        ]

    async def status(self) -> StatusRow:
        """The daemon itself."""
        await self._count()
        problems = [f"{problem.about}: {problem.message}" for problem in self._problems]
        return StatusRow(
            version=__version__,
            pid=os.getpid(),
            node=self._config.node_name,
            mode=self._config.mode.value,
            uptime_seconds=round(monotonic() - self._started, 3),
            source=self._source(),
            services=len(self._snapshot.services),
            listeners=len(self._workers.serves),
            connections=self._tally.live + self._flows.live,
            problems=(*filter(None, (self._trouble, self._flows.trouble)), *problems),
        )

    async def figures(self) -> Figures:
        """What the metrics tell, counted now."""
        await self._count()
        return Figures(
            services=len(self._snapshot.services),
            listeners=len(self._workers.serves),
            connections=self._tally.live + self._flows.live,
            ended=self._tally.ended,
            failed_dials=self._tally.failed_dials,
            retried_dials=self._tally.retried_dials,
            changes=self._tally.changes,
            checks=self._tally.checks,
            turned_away=self._tally.turned_away,
            problems=Counter(problem.reason for problem in self._problems),
            source=self._source(),
        )

    async def _count(self) -> None:
        """Ask the data side and the kernel for their counts, which the rows are made from."""
        self._tally = Tally([*await self._workers.count(), *self._pod_health.report()])
        await self._flows.count()

    def _judge(self, name: ServicePortName, endpoints: tuple[Endpoint, ...]) -> dict[Address, Condition]:
        pool = self._wanted.serves.get(name) or self._wanted.checked.get(name)
        picked = {backend.address for backend in pool.backends} if pool else set()
        target = _target_of(self._snapshot.services[name], self._wanted)
        if isinstance(target, ToPods):
            picked.update(target.pods)
        known = self._conditions.get(name, {})
        return {
            endpoint.address: _lasting(
                known.get(endpoint.address),
                _state(endpoint, picked=endpoint.address in picked),
                self._clock(),
            )
            for endpoint in endpoints
        }

    def _problems_by_service(self) -> dict[str, list[str]]:
        problems: dict[str, list[str]] = defaultdict(list)
        for problem in self._problems:
            problems[problem.about].append(problem.message)
        return problems

    def _service_row(self, service: ServicePort, problems: dict[str, list[str]]) -> ServiceRow:
        name = service.name
        serve = self._wanted.serves.get(name)
        conditions = self._conditions.get(name, {})
        mine = [*problems.get(str(name), ())]
        if name.port:
            mine += problems.get(f"{name.namespace}/{name.service}", ())
        return ServiceRow(
            service=str(name),
            protocol=service.protocol.value,
            path=path_of(service, self._config.mode).value,
            frontends=tuple(str(frontend) for frontend in service.frontends),
            listener=str(serve.listener) if serve else None,
            backends_up=sum(self._condition(name, address).state == "up" for address in conditions),
            backends=len(conditions),
            connections=self._tally.services[name] + self._flows.services[name],
            problems=tuple(mine),
        )

    def _condition(self, name: ServicePortName, address: Address) -> Condition:
        """How a backend is, by what the control side wants of it and by what the workers have seen."""
        condition = self._conditions[name][address]
        count = self._tally.backend(name, address)
        if condition.state != "up" or (count.state == "up" and not count.seconds):
            return condition
        since = max(condition.since, self._clock() - count.seconds)
        return Condition(count.state, count.reason or condition.reason, since)

    def _backend_row(self, name: ServicePortName, endpoint: Endpoint) -> BackendRow:
        condition = self._condition(name, endpoint.address)
        count = self._tally.backend(name, endpoint.address)
        return BackendRow(
            service=str(name),
            backend=str(endpoint.address),
            node=endpoint.node,
            zone=endpoint.zone,
            state=condition.state,
            reason=condition.reason,
            since=datetime.fromtimestamp(condition.since, UTC).isoformat(timespec="seconds"),
            latency_ms=None if count.latency is None else round(count.latency * 1000, 3),
            connections=count.connections + self._flows.backends[name, endpoint.address],
        )


def _to_judge(
    snapshot: Snapshot, before: Snapshot, wanted: NodeState, last: NodeState
) -> dict[ServicePortName, None]:
    """Whose backends may stand otherwise than before: told by what they are made of, or by the targets."""
    names = [
        *touched(snapshot.services, before.services),
        *touched(snapshot.endpoints, before.endpoints),
        *dropped(snapshot.endpoints, before.endpoints),
        *touched(wanted.serves, last.serves),
        *dropped(wanted.serves, last.serves),
        *touched(wanted.checked, last.checked),
        *dropped(wanted.checked, last.checked),
    ]
    moved = {key.address for key in touched(wanted.captures, last.captures)}
    for name in names:
        if name in snapshot.services:
            moved.difference_update(snapshot.services[name].frontends)
    if moved:  # for another reason than what the source says
        services = snapshot.services.items()
        names += [name for name, service in services if not moved.isdisjoint(service.frontends)]
    return dict.fromkeys(names)


def _target_of(service: ServicePort, wanted: NodeState) -> Target | None:
    """Where the kernel sends its packets; the same for all of its frontends."""
    found = (
        wanted.captures.get(Frontend(service.protocol, frontend))
        for frontend in service.frontends
        if not frontend.is_ipv6
    )
    return next(found, None)


def _state(endpoint: Endpoint, *, picked: bool) -> tuple[str, str]:
    if endpoint.drained:
        return "draining", "by hand"
    if picked:
        return "up", "terminating, and nothing else is ready" if not endpoint.ready else ""
    if endpoint.terminating:
        return "draining", "terminating"
    if not endpoint.ready:
        return "down", "not ready"
    return "unused", "other endpoints are nearer, or the traffic policy excludes it"


def _lasting(known: Condition | None, state: tuple[str, str], now: float) -> Condition:
    if known is not None and known.state == state[0]:
        return Condition(*state, known.since)
    return Condition(*state, now)
