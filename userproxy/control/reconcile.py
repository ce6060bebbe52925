"""The control side: from the latest Snapshot to what the data side and the kernel do, in the plan's order."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import structlog

from userproxy.config.settings import OnStop
from userproxy.control.behind import Behind
from userproxy.control.measures import PortUse
from userproxy.control.steering import Steering
from userproxy.control.stopping import alone
from userproxy.model.address import family_of
from userproxy.model.snapshot import Node, Problem, Snapshot
from userproxy.model.state import NodeState, Refuse
from userproxy.planner.actions import actions_for
from userproxy.planner.context import PlanContext
from userproxy.planner.drained import Drained
from userproxy.planner.paths.steered import unsteered
from userproxy.planner.state import Planner
from userproxy.planner.unopened import without_listeners

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from userproxy.config import Config
    from userproxy.control.health_ports import HealthPorts
    from userproxy.control.host_address import HostAddress
    from userproxy.control.port_file import HostPorts
    from userproxy.control.sides import Sides
    from userproxy.control.view import View
    from userproxy.model.actions import Actions
    from userproxy.model.address import Address, IpFamily
    from userproxy.model.service import PoolName

log = structlog.get_logger("userproxy.control")

# Problems that the source tells by itself, with the place in the file.
_TOLD_BY_SOURCE = frozenset({"BadManifest", "ManifestsMissing"})


class ApplyError(Exception):
    """A part of the plan could not be applied. The rest was; trying again later may help."""


class OnNode(NamedTuple):
    """What the daemon has of the node.

    Attributes:
        ports: the host ports.
        address: of the listeners.
        health_ports: on which load balancers ask for the node's endpoints.
    """

    ports: HostPorts
    address: HostAddress
    health_ports: HealthPorts


class Reconciler:
    """Applies one Snapshot after another. Lives as long as the daemon.

    Args:
        config: of the daemon.
        sides: that carry connections.
        on_node: what the daemon has of the node.
        view: is shown what was done.

    Attributes:
        steering: what whoever chooses is told.
    """

    def __init__(self, config: Config, sides: Sides, on_node: OnNode, view: View) -> None:
        self._workers = sides.workers
        self._kernel = sides.kernel
        self._pod_health = sides.pod_health
        self._flows = sides.flows
        self.steering = Steering(sides.crew, sides.kernel)
        self._ports = on_node.ports
        self._address = on_node.address
        self._health_ports = on_node.health_ports
        self._view = view
        self._config = config
        self._moved = False
        self._left: set[Address] = set()
        self._planner = Planner(on_node.ports.book)
        self._snapshot: Snapshot | None = None
        self._actual = NodeState()
        self._problems: frozenset[Problem] = frozenset()
        self._bypasses: frozenset[Problem] = frozenset()
        self._occupied: set[int] = set()
        self._drained = Drained()
        self._behind = Behind()
        self._fallen_open: frozenset[Problem] = frozenset()
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def drained(self) -> Drained:
        """What an operator has drained; `reconcile` applies a change."""
        return self._drained

    @property
    def actual(self) -> NodeState:
        """What has been applied so far."""
        return self._actual

    @property
    def snapshot(self) -> Snapshot | None:
        """The latest desired state; None before a source has spoken."""
        return self._snapshot

    @property
    def families(self) -> tuple[IpFamily, ...]:
        """Whose traffic the node carries."""
        return tuple(map(family_of, self._address.ips))

    @property
    def problems(self) -> frozenset[Problem]:
        """What users must know of the state that was applied last."""
        return self._problems

    def adopt(self, actual: NodeState) -> None:
        """Begin with what an earlier daemon has left in the kernel."""
        self._arrive(actual)

    def take(self, snapshot: Snapshot) -> None:
        """Take the latest desired state; `reconcile` applies it."""
        self._snapshot = snapshot

    async def reconcile(self) -> None:
        """Bring the data side and the kernel to the desired state.

        Nothing is done before a source has spoken: until then what an earlier daemon left keeps working.

        Raises:
            ApplyError: not all of it could be done.
            NetfilterError: the kernel refused; its captures are those of before.
        """
        waiting, self._waiting = self._waiting, []
        try:
            await self._reconcile()
        finally:
            for future in waiting:
                if not future.done():
                    future.set_result(None)

    async def follow(self) -> None:
        """Have the captures follow the desired state, and nothing else: no worker accepts any more.

        Raises:
            NetfilterError: the kernel refused; its captures are those of before.
        """
        if self._snapshot is None or self._config.on_stop is OnStop.REMOVE:
            return
        snapshot = self._drained.mark(self._snapshot)
        context = msgspec.structs.replace(self._context(snapshot), workers=0)
        wanted, _ = self._planner.wanted(snapshot, context, self._actual)
        wanted = self._restrict(wanted)
        captures = {**wanted.captures, **dict.fromkeys(alone(wanted), Refuse())}
        actual = self._actual
        wanted = msgspec.structs.replace(
            wanted, captures=captures, serves=actual.serves, guards=actual.guards
        )
        steps = actions_for(wanted, actual)
        if steps.capture:
            await self._kernel.apply(steps.capture)
            log.info("applied", capture=len(steps.capture.put), uncapture=len(steps.capture.remove))
        if steps.forget:
            await self._kernel.forget(steps.forget)
        self._arrive(wanted)

    async def settled(self) -> None:
        """Wait for the end of a `reconcile` that has yet to begin, however it ends."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future

    async def _reconcile(self) -> None:
        if self._moved:
            await self._kernel.move(self._address.ips_there)
            self._moved = False
        if self._snapshot is None:
            return
        snapshot = self._drained.mark(self._snapshot)
        context = self._context(snapshot)
        behind = self._workers.behind
        attempt = _Attempt()
        while True:
            wanted, problems = self._planner.wanted(snapshot, context, self._actual)
            wanted = self._possible(wanted, attempt.failures)
            steps = actions_for(wanted, self._actual)
            await self.steering.prepare(wanted.steered, self._actual.captures)
            again = tuple(wanted.serves[name] for name in behind if name in wanted.serves)
            if not steps and not again:
                self._arrive(wanted)  # it may differ in what needs no action
                break
            behind = frozenset()
            failed = await self._workers.serve((*steps.serve, *again))
            if failed:
                self._note_failures(failed, attempt)
                # Nobody else waits for those that need another host port.
                wanted = self._possible(wanted, failed)
                steps = actions_for(wanted, self._actual)
            if steps:
                await self._apply(steps, wanted)
        self._workers.hearts.begin()
        await self._forget_left()
        self._health_ports.observe(snapshot, context.node, context.network.addresses)
        self._report(
            frozenset(
                {
                    *snapshot.problems,
                    *problems,
                    *self._drained.idle(snapshot),
                    *unsteered(snapshot, context),
                    *self._bypasses,
                    *self._fallen_open,
                    *self._address.problems,
                    *self._health_ports.problems,
                }
            )
        )
        book = self._ports.book
        used, occupied = len(book.live), book.occupied
        ports = PortUse(used, occupied, len(book.range) - used - occupied)
        self._view.observe(snapshot, self._actual, tuple(sorted(self._problems)), ports)
        attempt.raise_failures(self._workers.behind)

    def _context(self, snapshot: Snapshot) -> PlanContext:
        made = context_of(self._config, snapshot, self._address)
        kernel = self._kernel
        return msgspec.structs.replace(made, queues=int(kernel.can_queue), limits=kernel.can_limit)

    def _possible(self, wanted: NodeState, unopened: Collection[PoolName]) -> NodeState:
        return self._restrict(without_listeners(wanted, self._actual, unopened))

    def _restrict(self, wanted: NodeState) -> NodeState:
        """What is wanted, without the pods that have been found down."""
        wanted = self._pod_health.restrict(wanted, self._actual)
        return self._behind.restrict(wanted, self._workers.outages.by_pool())

    async def repair(self) -> bool:
        """Put back what somebody else has changed of ours in the kernel, and look for who takes our traffic.

        Returns:
            Whether anything has changed for `reconcile` to report.
        """
        changes = await self._kernel.repair()
        if changes:
            log.warning("the kernel's rules were changed by somebody else, and are put back", changes=changes)
        pools = self._actual.pools
        found = frozenset(
            Problem(str(pools[frontend].service_port), "Bypassed", taker.message(frontend))
            for frontend, taker in (await self._kernel.bypassed()).items()
            if frontend in pools
        )
        changed = found != self._bypasses
        self._bypasses = found
        return changed

    def note_fallen_open(self, problems: frozenset[Problem]) -> None:
        """Which workers are bypassed, since they are silent; the next `reconcile` tells of it."""
        self._fallen_open = problems

    def look_at_address(self, *, changed: bool) -> bool:
        """See whether the node still has the host IPs; `reconcile` then moves to those that it has.

        Args:
            changed: addresses have come or gone, and routes with them, even if the host IPs are the same.

        Returns:
            Whether there is anything to apply.
        """
        before = self._address.ips
        moved = self._address.look()
        now = self._address.ips
        if now != before:
            listeners = (serve.listener for serve in self._actual.serves.values())
            self._left |= {listener for listener in listeners if listener.ip not in now}
            log.warning("the node's address has changed", before=before, now=now)
        self._moved |= moved or changed
        return self._moved

    def retry_occupied(self) -> bool:
        """Have the next `reconcile` try host ports again that something else had.

        Returns:
            Whether a Service port is waiting for one; otherwise they are left alone.
        """
        waiting = any(problem.reason == "PortRangeExhausted" for problem in self._problems)
        if waiting:
            self._ports.book.retry_occupied()
        return waiting

    async def _apply(self, steps: Actions, wanted: NodeState) -> None:
        if steps.serve or steps.close:
            await self._ports.remember()
        if steps.capture:
            await self._kernel.apply(steps.capture)
            await self.steering.settle(wanted.captures)
        if steps.forget:
            await self._kernel.forget(steps.forget)
        await self._workers.close(steps.close)
        self._arrive(wanted)
        self._occupied.difference_update(serve.listener.port for serve in steps.serve)
        log.info(
            "applied",
            serve=len(steps.serve),
            capture=len(steps.capture.put),
            uncapture=len(steps.capture.remove),
            close=len(steps.close),
        )

    async def _forget_left(self) -> None:
        """Those who are connected to a listener on an address that the node has lost need not wait for it."""
        served = {serve.listener for serve in self._actual.serves.values()}
        if self._left - served:
            await self._kernel.forget_redirected(self._left - served)
            self._left &= served

    def _arrive(self, state: NodeState) -> None:
        self._actual = state
        self._flows.observe(state)

    def _report(self, problems: frozenset[Problem]) -> None:
        for problem in sorted(problems - self._problems):
            if problem.reason not in _TOLD_BY_SOURCE:
                log.warning(problem.message, about=problem.about, reason=problem.reason)
        for problem in sorted(self._problems - problems):
            log.info("a problem is over", about=problem.about, reason=problem.reason)
        self._problems = problems

    def _note_failures(self, failed: Mapping[PoolName, OSError], attempt: _Attempt) -> None:
        """Have other host ports given in the place of occupied ones; whoever failed otherwise must wait."""
        for name, error in failed.items():
            port = self._ports.book.live[name]
            if error.errno != errno.EADDRINUSE or (name, port) in attempt.tried:
                attempt.failures[name] = error
                continue
            if port not in self._occupied:
                log.warning("a host port is occupied by something else", port=port, service=str(name))
            attempt.tried.add((name, port))
            self._occupied.add(port)
            self._ports.book.mark_occupied(port)


def context_of(config: Config, snapshot: Snapshot, address: HostAddress) -> PlanContext:
    """What a daemon with this configuration plans with, on a node with these addresses."""
    node = snapshot.node or Node(config.node_name)
    return PlanContext(
        node=node,
        network=address.network(node),
        mode=config.mode,
        ports=config.ports,
        closed=not config.cluster_ips_from_outside,
        udp_idle=config.udp_idle_seconds,
        fall_open=config.fall_open,
        workers=config.worker_count,
    )


class _Attempt:
    """One call of `reconcile`.

    Attributes:
        failures: whose listener cannot be opened, and why.
        tried: host ports that turned out to be occupied. Each is tried once, so that there is an end.
    """

    def __init__(self) -> None:
        self.failures: dict[PoolName, OSError] = {}
        self.tried: set[tuple[PoolName, int]] = set()

    def raise_failures(self, behind: Collection[PoolName]) -> None:
        """Say what could not be done, if anything.

        Raises:
            ApplyError: a listener was not opened, or a worker is behind with a Service port.
        """
        for name, error in self.failures.items():
            count = len(self.failures)
            raise ApplyError(f"cannot listen for {name}: {error.strerror} ({count} listeners)")
        for name in sorted(behind):
            raise ApplyError(f"a worker did not take over a change of {name} ({len(behind)} pools)")
