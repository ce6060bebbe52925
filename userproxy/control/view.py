"""What the daemon shows of itself: joins what is wanted, what is served and what was counted into rows."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec

from userproxy import __version__
from userproxy.control.conditions import Conditions
from userproxy.control.measures import Measured, PortUse, chosen, keep_only, of_services, of_workers
from userproxy.control.tally import Tally
from userproxy.model.address import IpFamily
from userproxy.model.condition import REMOVED, Condition
from userproxy.model.counters import Counters
from userproxy.model.figures import Figures
from userproxy.model.records import row_of_flow
from userproxy.model.rows import BackendRow, ConnectionRow, ServiceRow, SourceStatus, StatusRow
from userproxy.model.service import Path, PoolName, Protocol
from userproxy.model.snapshot import EMPTY, Problem, Snapshot
from userproxy.model.state import NodeState
from userproxy.planner.context import path_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from userproxy.config import Config
    from userproxy.control.sides import Sides
    from userproxy.model.counts import BackendCount
    from userproxy.model.endpoint import Endpoint
    from userproxy.model.filter import ConnectionFilter, RecordFilter
    from userproxy.model.records import RecordRow
    from userproxy.model.service import ServicePort, ServicePortName

_DELETED = "the Service is deleted; its live connections go on"


class View:
    """The daemon as its operator sees it. Lives as long as the daemon.

    Args:
        config: of the daemon.
        sides: that carry connections.
        counters: of the control process, and of those before it.
        source: tells where Services come from, and how far behind it may be.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        config: Config,
        sides: Sides,
        counters: Counters,
        source: Callable[[], SourceStatus],
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._sides = sides
        self._counters = counters
        self._source = source
        self._clock = clock
        self._started = monotonic()
        self._snapshot: Snapshot = EMPTY
        self._state = NodeState()
        self._problems: tuple[Problem, ...] = ()
        self._tally = Tally(())
        self._own_problem = ""
        self._conditions = Conditions(clock, config.node_name)
        self._ports = PortUse()

    def observe(
        self,
        snapshot: Snapshot,
        state: NodeState,
        problems: tuple[Problem, ...],
        ports: PortUse = PortUse(),  # noqa: B008 - it never changes
    ) -> None:
        """Take in the state that was applied."""
        self._ports = ports
        self._snapshot, self._state, self._problems = snapshot, state, problems
        self._conditions.observe(snapshot, state)

    def report(self, problem: str) -> None:
        """Show a problem of the daemon itself in `status`; empty when it is over."""
        self._own_problem = problem

    async def connections(self, wanted: ConnectionFilter) -> AsyncIterator[list[ConnectionRow]]:
        """The live connections that match."""
        async for chunk in self._sides.flows.completed(self._sides.workers.connections(wanted)):
            yield chunk
        async for chunk in self._sides.flows.rows(wanted):
            yield chunk

    async def records(self, wanted: RecordFilter) -> AsyncIterator[list[RecordRow]]:
        """The connections that match, live or over, with all that is known of them.

        Those on the path redirect-to-pod are known while they live.
        """
        for recollection in (self._sides.workers.recollection, self._sides.crew.recollection):
            async for chunk in recollection.records(wanted):
                yield chunk
        if wanted.live and not wanted.reasons:
            async for rows in self._sides.flows.rows(wanted.connections):
                yield [row_of_flow(row) for row in rows if wanted.id in ("", row.id)]

    async def services(self) -> list[ServiceRow]:
        """The Service ports, a row for each pool, sorted; gone ones too while connections of theirs live."""
        await self._count()
        problems = self._problems_by_subject()
        services = self._snapshot.services
        rows = {pool: row for name in services for pool, row in self._service_rows(services[name], problems)}
        deleted = (pool for pool, count in self._tally.pools.items() if count and pool not in rows)
        rows |= {pool: self._deleted_row(pool) for pool in deleted}
        return [rows[pool] for pool in sorted(rows)]

    async def backends(self) -> list[BackendRow]:
        """The backends, sorted by Service port and address; removed ones while connections on them live."""
        await self._count()
        rows = [
            self._backend_row(name, endpoint)
            for name in self._snapshot.services
            for endpoint in self._snapshot.endpoints.get(name, ())
        ]
        rows += [self._removed_row(name, count) for name, count in self._removed()]
        return sorted(rows, key=lambda row: row.service)  # stable: as the source orders them

    async def status(self) -> StatusRow:
        """The daemon itself."""
        await self._count()
        flows, source = self._sides.flows, self._source()
        failures = [problem for problem in (self._own_problem, source.problem) if problem]
        problems = [*failures, *filter(None, [flows.error]), *map(str, self._problems)]
        return StatusRow(
            version=__version__,
            pid=os.getpid(),
            node=self._config.node_name,
            mode=self._config.mode.value,
            uptime_seconds=round(monotonic() - self._started, 3),
            source=source,
            services=len(self._snapshot.services),
            listeners=len(self._sides.workers.serves),
            connections=self._tally.live + flows.live,
            problems=tuple(dict.fromkeys(problems)),  # a source's own may be among those of its Snapshot
            failing=bool(failures),
            ruleset="owned" if self._sides.kernel.owned else "watched",
        )

    async def measured(self) -> Measured:
        """What the metrics tell, counted now."""
        await self._count()
        counters = self.counters()
        sides, tally, source = self._sides, self._tally, self._source()
        beating, alive = sides.workers.hearts.beating, await sides.kernel.alive()
        backends, down = self._conditions.counted(tally)
        figures = Figures(
            services=len(self._snapshot.services),
            services_down=down,
            backends=backends,
            listeners=len(sides.workers.serves),
            host_ports=self._ports._asdict(),
            connections=tally.live + sides.flows.live,
            connections_waiting=tally.waiting,
            problems=Counter(problem.reason for problem in self._problems),
            source_synced=source.synced,
            source_stale_seconds=source.stale_seconds,
            ruleset_owned=sides.kernel.owned,
            workers_wanted=self._config.worker_count,
            workers=tally.workers,
            workers_heard=len(beating & alive),
            workers_paused=len(tally.paused),
            relay_bypassed=bool(beating) and not beating & alive,
            no_local_endpoints=dict(self._conditions.census.not_local),
        )
        fields = of_workers(tally.vitals) | self._of_services(counters)
        return Measured(msgspec.structs.replace(figures, **fields), counters)

    def _of_services(self, counters: Counters) -> dict[str, Any]:
        """What is told of single Service ports; what the counters have of others is left out."""
        most = self._config.metrics_per_service
        if not most:
            return {}
        served = {str(name): name for name in self._snapshot.services}
        for each in (self._counters, self._sides.workers.past_counters, self._sides.crew.past_counters):
            keep_only(each, served)  # of those that are no more, nothing is kept
        had = sum(name in served for name in counters.service_connections_opened)
        names = {name: served[name] for name in chosen(counters, served, most)}
        keep_only(counters, names)
        told = of_services(names, self._tally, self._conditions.of)
        return {**told, "services_left_out": had - len(names)}

    def counters(self) -> Counters:
        """What all processes of this daemon have counted, as far as the workers have said so."""
        return Counters.total(
            self.past_counters(),
            *self._sides.workers.living_counters.values(),
            *self._sides.crew.living_counters.values(),
        )

    def past_counters(self) -> Counters:
        """The same without the processes that live."""
        return Counters.total(
            self._counters,
            self._sides.pod_health.counters,
            self._sides.workers.past_counters,
            self._sides.crew.past_counters,
        )

    async def _count(self) -> None:
        """Ask the data side and the kernel for their counts, which the rows are made from."""
        self._tally = Tally(
            [*await self._sides.workers.count(), self._sides.pod_health.report()],
            await self._sides.crew.count(),
        )
        await self._sides.flows.count()

    def _problems_by_subject(self) -> dict[str, list[str]]:
        problems: dict[str, list[str]] = defaultdict(list)
        for problem in self._problems:
            problems[problem.about].append(problem.message)
        return problems

    def _service_rows(
        self, service: ServicePort, problems: dict[str, list[str]]
    ) -> Iterator[tuple[PoolName, ServiceRow]]:
        """A row for each of its pools; one without any entry that is served has one all the same."""
        name = service.name
        pools = [pool for pool in PoolName.all_of(name) if pool in self._state.frontends]
        mine = [*problems.get(str(name), ())]
        if name.port:
            mine += problems.get(f"{name.namespace}/{name.service}", ())
        flows = self._sides.flows.services[name]
        family = service.entries[0].address.family if service.entries else IpFamily.IPV4
        for pool in pools or [PoolName.of(name, family=family)]:
            yield pool, self._service_row(service, pool, tuple(mine), flows)
            flows, mine = 0, []  # they are told once

    def _service_row(
        self, service: ServicePort, pool: PoolName, problems: tuple[str, ...], flows: int
    ) -> ServiceRow:
        serve = self._state.serves.get(pool)
        known = self._snapshot.endpoints.get(service.name, ())
        endpoints = [each for each in known if each.address.family is pool.family]
        eligible = self._conditions.eligible(pool)
        frontends = self._state.frontends.get(pool)
        shown = (
            service.cluster_ips if frontends is None else dict.fromkeys(each.address for each in frontends)
        )
        return ServiceRow(
            service=str(service.name),
            protocol=service.protocol.value,
            path=path_of(service, self._config.mode).value,
            frontends=tuple(map(str, dict.fromkeys(shown))),
            listener=str(serve.listener) if serve else None,
            backends_up=sum(
                each.address in eligible and self._condition(service.name, each).state == "up"
                for each in endpoints
            ),
            backends=len(endpoints),
            connections=self._tally.pools[pool] + flows,
            problems=problems,
            policy=pool.policy.value,
            family=pool.family.value,
        )

    def _deleted_row(self, pool: PoolName) -> ServiceRow:
        return ServiceRow(
            service=str(pool.service_port),
            protocol=Protocol.TCP.value,
            path=Path.REDIRECT_TO_HOST.value,
            frontends=(),
            listener=None,
            backends_up=0,
            backends=0,
            connections=self._tally.pools[pool],
            problems=(_DELETED,),
            policy=pool.policy.value,
            family=pool.family.value,
        )

    def _condition(self, name: ServicePortName, endpoint: Endpoint) -> Condition:
        """How a backend is, by what the control side wants of it and by what the workers have seen."""
        condition = self._conditions.of(name)[endpoint.address]
        count = self._tally.backend(name, endpoint.address)
        # What a retiring worker knows may be older than the Service's last change.
        if condition.state != "up" or count.state == REMOVED or (count.state == "up" and not count.seconds):
            return condition
        since = max(condition.since, self._clock() - count.seconds)
        return Condition(count.state, count.reason or condition.reason, since)

    def _backend_row(self, name: ServicePortName, endpoint: Endpoint) -> BackendRow:
        count = self._tally.backend(name, endpoint.address)
        return self._row(name, count, self._condition(name, endpoint), (endpoint.node, endpoint.zone))

    def _removed(self) -> Iterator[tuple[ServicePortName, BackendCount]]:
        """The backends that their Service has no longer, with connections that live on."""
        relayed = (key for key, count in self._tally.backends.items() if count.connections)
        for name, address in sorted({*relayed, *self._sides.flows.backends}):
            if address not in self._conditions.of(name):
                yield name, self._tally.backend(name, address)

    def _removed_row(self, name: ServicePortName, count: BackendCount) -> BackendRow:
        seconds = count.seconds if count.state == REMOVED else 0.0
        reason = "no endpoint of the Service; live connections go on"
        if name not in self._snapshot.services:
            reason = _DELETED
        condition = Condition(REMOVED, reason, self._clock() - seconds)
        return self._row(name, count, condition, (count.node, count.zone))

    def _row(
        self, name: ServicePortName, count: BackendCount, condition: Condition, place: tuple[str, str]
    ) -> BackendRow:
        node, zone = place
        return BackendRow(
            service=str(name),
            backend=str(count.address),
            node=node,
            zone=zone,
            state=condition.state,
            reason=condition.reason,
            since=datetime.fromtimestamp(condition.since, UTC).isoformat(timespec="seconds"),
            latency_ms=None if count.latency is None else round(count.latency * 1000, 3),
            connections=count.connections + self._sides.flows.backends[name, count.address],
        )
